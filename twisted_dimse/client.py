"""Being the requestor: `connect` gives an `Association`.

async with await connect("PACS@10.0.0.5:104", contexts=[VERIFICATION]) as association:
    await association.echo()
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet import error as transport_errors
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from twisted_dimse.association import Association
from twisted_dimse.errors import AssociationTimeout, ConnectionFailed, DimseError
from twisted_dimse.handler import Handler
from twisted_dimse.peer import Peer
from twisted_dimse.protocol import AssociationProtocol, Timeouts
from twisted_dimse.uids import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    QUERY_MODELS,
    VERIFICATION,
    storage_sop_classes,
)
from twisted_dimse.upperlayer import negotiation
from twisted_dimse.upperlayer.negotiation import (
    DEFAULT_MAX_PDU_LENGTH,
    ContextLike,
    PresentationContext,
    Proposal,
    Window,
    as_context,
)
from twisted_dimse.upperlayer.pdu import UserIdentity
from twisted_dimse.upperlayer.provider import Provider

DEFAULT_CALLING_AE_TITLE = "DIMSE-SCU"


class _OneAssociation(Factory):
    """The factory of the one association that a `connect` makes."""

    noisy = False

    def __init__(self, association: Association) -> None:
        self.association = association
        self.given_up = False

    def buildProtocol(self, addr: Any) -> AssociationProtocol | None:
        """None for a connection that comes after all, from an endpoint that cannot be cancelled."""
        return None if self.given_up else self.association.protocol


def connect(
    peer: str | Peer,
    *,
    contexts: Iterable[ContextLike] = (VERIFICATION,),
    calling_ae_title: str = DEFAULT_CALLING_AE_TITLE,
    reactor: Any = None,
    handler: Handler | Callable[[], Handler] | None = None,
    window: int | tuple[int, int] | Window | None = None,
    roles: Mapping[str, str] | None = None,
    extended: Mapping[str, bytes] | None = None,
    common_extended: Mapping[str, tuple[str, Iterable[str]]] | None = None,
    user_identity: UserIdentity | None = None,
    max_pdu_length: int = DEFAULT_MAX_PDU_LENGTH,
    timeouts: Timeouts | float | None = None,
    implementation: tuple[str, str] = (IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME),
) -> Deferred[Association]:
    """Connect to a peer and negotiate an association.

    ``peer`` is ``AET@host:port``, ``AET@[v6]:port``, ``AET@`` with a client endpoint string, or a
    `Peer`. ``contexts`` are abstract syntax UIDs (proposed with Explicit and Implicit VR Little
    Endian), pairs with transfer syntaxes, or `PresentationContext`s. ``calling_ae_title`` is ours.
    ``handler``, a `Handler` or what makes one, performs what the peer asks of us. ``window`` is the
    number of operations to have outstanding at once, for both sides or as a pair (ours, the
    peer's); 0 is no limit, and none is proposed unless it is given (PS3.7 D.3.3.3). ``roles``
    proposes "scu", "scp" or "both" for an abstract syntax (D.3.3.4), ``extended`` the octets of
    SOP class extended negotiation (D.3.3.5), ``common_extended`` a pair (service class, [related
    SOP classes]) (D.3.3.6). ``user_identity`` says who we are (D.3.3.7). ``max_pdu_length`` is the
    largest PDU that we receive, in octets; 0 is no limit. ``timeouts`` is a number of seconds or
    `Timeouts`; its `connect` bounds name look-up, TCP, TLS and negotiation together.
    ``implementation`` is a pair (class UID, version name) (D.3.3.2). ``reactor`` is the global one
    if not given.

    Fires with the `Association`. Fails with `ConnectionFailed`, `AssociationRejected`,
    `AssociationAborted`, `AssociationTimeout`, `ConnectionLost` or `ContextNotAccepted`, and with
    `ValueError` for arguments that cannot be proposed. Cancelling aborts.
    """
    try:
        if reactor is None:
            from twisted.internet import reactor
        peer = Peer.parse(peer) if isinstance(peer, str) else peer
        limits = Timeouts.of(timeouts)
        proposed = tuple(as_context(item) for item in contexts)
        proposal = Proposal(
            peer.ae_title,
            calling_ae_title,
            proposed,
            max_pdu_length,
            _as_window(window),
            {**_roles_for_get(proposed), **(roles or {})},
            dict(extended or {}),
            {
                uid: (service, tuple(related))
                for uid, (service, related) in (common_extended or {}).items()
            },
            user_identity,
            implementation,
        )
        request = negotiation.propose(proposal)
        request.encode()  # raises ValueError here and not in the middle of connecting
        if handler is not None and not isinstance(handler, Handler):
            handler = handler()
        association = Association(
            Provider(requestor=True, max_pdu_length=max_pdu_length),
            timeouts=limits,
            reactor=reactor,
            handler=handler,
            request=request,
            connect=functools.partial(connect, calling_ae_title=calling_ae_title),
        )
        association.protocol.associate(request)
        return _Attempt(association, peer, limits.connect, reactor).result
    except Exception as error:
        return fail(error)


def _roles_for_get(contexts: Iterable[PresentationContext]) -> dict[str, str]:
    """Where a C-GET is proposed, we are SCP of the storage classes beside it as well
    (PS3.4 C.5.3)."""
    proposed = {context.abstract_syntax for context in contexts}
    if proposed.isdisjoint(model.get for model in QUERY_MODELS):
        return {}
    return dict.fromkeys(sorted(proposed & storage_sop_classes()), "both")


class _Attempt:
    """One try to connect: look-up, TCP, TLS and negotiation under one deadline."""

    def __init__(
        self, association: Association, peer: Peer, seconds: float | None, reactor: Any
    ) -> None:
        self._peer = peer
        self._seconds = seconds
        self._late = False
        self._cancelled = False
        endpoint = peer.endpoint(reactor)
        self._factory = _OneAssociation(association)
        self._deadline = reactor.callLater(seconds, self._expired) if seconds is not None else None
        self._step: Deferred[Any] = maybeDeferred(endpoint.connect, self._factory)
        self.result: Deferred[Association] = Deferred(self._cancel)
        self._association = association
        self._step.addCallbacks(self._connected, self._not_connected)

    def _connected(self, _protocol: object) -> None:
        self._step = self._association.negotiated
        self._step.addErrback(self._not_negotiated)
        self._step.addBoth(self._done)

    def _not_connected(self, failure: Failure) -> None:
        self._done(Failure(self._connection_error(failure)))

    def _not_negotiated(self, failure: Failure) -> Failure:
        """What failed under the association, TLS above all, is named with the peer."""
        if failure.check(ConnectionFailed):
            return Failure(ConnectionFailed(f"no connection to {self._peer}: {failure.value}"))
        return failure

    def _done(self, result: Any) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        if self._late:
            late = AssociationTimeout(f"no association with {self._peer} in {self._seconds:g} s")
            result = Failure(late)
        if self._cancelled:
            result = Failure(CancelledError())
        if not self.result.called:
            self.result.callback(result)

    def _expired(self) -> None:
        self._late = True
        self._give_up()

    def _cancel(self, _deferred: object) -> None:
        self._cancelled = True
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._give_up()

    def _give_up(self) -> None:
        self._factory.given_up = True
        self._step.cancel()

    def _connection_error(self, failure: Failure) -> BaseException:
        error = failure.value
        if isinstance(error, DimseError):
            return error
        return ConnectionFailed(_in_words(error, self._peer))


def _in_words(error: Any, peer: Peer) -> str:
    where = peer.host_and_port()
    if isinstance(error, transport_errors.ConnectionRefusedError):
        return f"{peer}: nobody listens at {peer.address} (connection refused)"
    if isinstance(error, transport_errors.DNSLookupError) and where is not None:
        return f"{peer}: no host is known by the name {where[0]}"
    text = (str(error) or type(error).__name__).rstrip(".")
    return f"no connection to {peer}: {text}"


def _as_window(window: int | tuple[int, int] | Window | None) -> Window | None:
    """An int is meant for both directions; PS3.7 D.3.3.3 counts them apart."""
    if window is None or isinstance(window, Window):
        return window
    if isinstance(window, int):
        return Window(window, window)
    return Window(*window)
