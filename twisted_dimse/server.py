"""Serving: `listen` on an endpoint, or `AssociationFactory` in an application of one's own.

port = await listen("tcp:11112:interface=127.0.0.1", MyHandler(), ae_title="ARCHIVE")
...
await port.stopListening()
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_dimse.association import Association
from twisted_dimse.client import connect
from twisted_dimse.errors import AssociationRejected
from twisted_dimse.handler import AssociationRequest, Handler
from twisted_dimse.peer import valid_ae_title
from twisted_dimse.protocol import AssociationProtocol, Timeouts
from twisted_dimse.transcoding import Transcoder
from twisted_dimse.uids import APPLICATION_CONTEXT
from twisted_dimse.upperlayer import pdu
from twisted_dimse.upperlayer.negotiation import DEFAULT_MAX_PDU_LENGTH, Policy
from twisted_dimse.upperlayer.provider import Provider

DEFAULT_AE_TITLE = "TWISTED-DIMSE"
DEFAULT_MAX_ASSOCIATIONS = 1000
DEFAULT_WINDOW = 16

_log = Logger()


class Slots:
    """How many associations there may be at once: at most ``most``."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self) -> bool:
        """Take a slot; False where there is none."""
        if self._left <= 0:
            return False
        self._left -= 1
        return True

    def give(self) -> None:
        """Give a slot back."""
        self._left += 1


class _Unmade(Handler):
    """In the place of a handler that could not be made: says so to whoever asks to associate."""

    def __init__(self, why: Exception) -> None:
        self._why = why

    def associate(self, request: AssociationRequest) -> None:
        raise self._why


def _made(make: Callable[[], Handler]) -> Handler:
    """A handler for one association."""
    try:
        handler = make()
        if not isinstance(handler, Handler):
            raise TypeError(f"{make!r} gave {handler!r}, which is no Handler")
    except Exception as error:
        return _Unmade(error)
    return handler


class AssociationFactory(Factory):
    """Accepts associations and has a `Handler` serve them.

    ``handler`` is an instance, which serves all associations, or a class or other callable, which
    is called for each. ``require_called`` rejects requests for another title than ``ae_title``,
    ``allow_calling`` those of other callers (PS3.8 9.3.4), and ``max_associations`` those that are
    one too many. ``peers`` maps AE titles to `Peer`s, for C-MOVE destinations that
    `Handler.resolve` does not know. ``max_pdu_length`` is the largest PDU that we receive, in
    octets, and ``window`` how many operations we perform at once on an association whose requestor
    asks for that; 0 is no limit. ``timeouts`` is a number of seconds or `Timeouts`.
    ``authenticate`` is called with the user identity (or None) and the `AssociationRequest`; it
    gives True, the octets to answer, or False to reject, now or by Deferred. ``prefer`` orders
    transfer syntaxes and wins over the handler's own. ``promiscuous`` also accepts SOP classes that
    PS3.6 does not register, such as private ones, as storage. Raises `ValueError` for a
    title or a number that cannot be. ``reactor`` is the global one if not given.
    """

    noisy = False

    def __init__(
        self,
        handler: Handler | Callable[[], Handler],
        *,
        ae_title: str = DEFAULT_AE_TITLE,
        require_called: bool = False,
        allow_calling: Iterable[str] = (),
        peers: Mapping[str, Any] | None = None,
        max_associations: int = DEFAULT_MAX_ASSOCIATIONS,
        max_pdu_length: int = DEFAULT_MAX_PDU_LENGTH,
        window: int = DEFAULT_WINDOW,
        timeouts: Timeouts | float | None = None,
        authenticate: Callable[[Any, AssociationRequest], Any] | None = None,
        prefer: Iterable[str] = (),
        promiscuous: bool = False,
        reactor: Any = None,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        if not valid_ae_title(ae_title):
            raise ValueError(f"{ae_title!r} is not an AE title (1 to 16 plain characters)")
        if not 0 <= window <= 0xFFFF:
            raise ValueError(f"window={window} is no number of operations from 0 to 65535")
        if not 0 <= max_pdu_length <= 0xFFFFFFFF:
            raise ValueError(f"max_pdu_length={max_pdu_length} is no number of octets of a PDU")
        self.handler = handler
        self.ae_title = ae_title
        self.require_called = require_called
        self.allow_calling = frozenset(allow_calling)
        self.peers = dict(peers or {})
        self.max_associations = max_associations
        self.max_pdu_length = max_pdu_length
        self.window = window
        self.timeouts = Timeouts.of(timeouts)
        self.authenticate = authenticate
        self.prefer = tuple(prefer)
        self.promiscuous = promiscuous
        self.associations: set[Association] = set()  # and connections without one
        self.open: set[Association] = set()  # those of them that have a slot
        self.slots = Slots(max_associations)
        self._reactor = reactor
        self._transcoder = Transcoder(reactor)
        self._policies: dict[int, tuple[Handler, Policy]] = {}
        self._empty: list[Deferred[None]] = []

    def startFactory(self) -> None:
        """Work out now what is accepted, so that the first association need not wait for it."""
        if isinstance(self.handler, Handler):
            self._policy(self.handler)

    def buildProtocol(self, addr: IAddress | None) -> AssociationProtocol:
        """The protocol of a connection that came in."""
        handler = self.handler if isinstance(self.handler, Handler) else _made(self.handler)
        association = Association(
            Provider(requestor=False, max_pdu_length=self.max_pdu_length),
            timeouts=self.timeouts,
            reactor=self._reactor,
            handler=handler,
            decision=self,
            connect=functools.partial(connect, calling_ae_title=self.ae_title),
            transcoder=self._transcoder,
        )
        self.associations.add(association)
        association.protocol.factory = self
        return association.protocol

    def drained(self) -> Deferred[None]:
        """Fires when no association is left."""
        deferred: Deferred[None] = Deferred()
        if self.associations:
            self._empty.append(deferred)
        else:
            deferred.callback(None)
        return deferred

    def abort_all(self) -> None:
        """Abort every association."""
        for association in list(self.associations):
            association.abort()

    def close_unused(self) -> None:
        """Close the connections on which no association is."""
        for association in list(self.associations):
            if not association.alive:
                association.protocol.close_now()

    def close_all(self) -> None:
        """Close every connection, whatever its peer does."""
        for association in list(self.associations):
            association.protocol.close_now()

    # --- `association.Decision`

    def decide(self, association: Association, request: AssociationRequest) -> None:
        """Admit or reject, by the checks of PS3.8 9.3.4 in order, then by the handler."""
        rejection = self._rejection(association, request.pdu)
        if rejection is not None:
            association.reject(rejection)
            return
        if self.authenticate is None:
            self._admit(association, request, None)
            return
        answer = self._called(self.authenticate, request.user_identity, request)
        self._then(
            answer, association, lambda known: self._authenticated(association, request, known)
        )

    def ended(self, association: Association) -> None:
        """The association is over, if not its connection: its slot is free."""
        if association in self.open:
            self.open.discard(association)
            self.slots.give()

    def forget(self, association: Association) -> None:
        """The association's transport is gone."""
        self.associations.discard(association)
        if not self.associations:
            waiting, self._empty = self._empty, []
            for deferred in waiting:
                deferred.callback(None)

    def destination(self, association: Association, ae_title: str) -> Any:
        """A C-MOVE destination that is known here, or None."""
        return self.peers.get(ae_title)

    def _rejection(
        self, association: Association, request: pdu.AssociateRQ
    ) -> AssociationRejected | None:
        if not self.slots.take():
            return AssociationRejected(2, 3, 2)
        self.open.add(association)
        if request.application_context != APPLICATION_CONTEXT:
            return AssociationRejected(1, 1, 2)
        if self.require_called and request.called_ae_title != self.ae_title:
            return AssociationRejected(1, 1, 7)
        if self.allow_calling and request.calling_ae_title not in self.allow_calling:
            return AssociationRejected(1, 1, 3)
        return None

    def _authenticated(
        self, association: Association, request: AssociationRequest, known: Any
    ) -> None:
        if known is False or known is None:
            association.reject(AssociationRejected(1, 2, 1))
            return
        response = known if isinstance(known, bytes) else b""
        self._admit(association, request, response)

    def _admit(
        self, association: Association, request: AssociationRequest, response: bytes | None
    ) -> None:
        handler = association.handler
        answer = self._called(handler.associate, request)

        def admitted(_result: object) -> None:
            association.accept(self._policy(handler), request.pdu, response)

        self._then(answer, association, admitted)

    @staticmethod
    def _called(function: Callable[..., Any], *args: Any) -> Any:
        try:
            result = function(*args)
        except Exception:
            return Failure()
        return Deferred.fromCoroutine(result) if inspect.iscoroutine(result) else result

    def _then(self, answer: Any, association: Association, go_on: Callable[[Any], None]) -> None:
        """Go on with an answer, now or when it is there; reject where it is a failure."""
        if isinstance(answer, Deferred):
            answer.addCallbacks(go_on)
            answer.addErrback(self._refused, association)
        elif isinstance(answer, Failure):
            self._refused(answer, association)
        else:
            go_on(answer)

    def _refused(self, failure: Failure, association: Association) -> None:
        error = failure.value
        if not isinstance(error, AssociationRejected):
            _log.failure(
                "association {number}: could not be decided upon",
                failure,
                number=association.number,
            )
            error = AssociationRejected(2, 1, 1)
        association.reject(error)

    def _policy(self, handler: Handler) -> Policy:
        """What a handler accepts; worked out once for each handler instance that serves all."""
        known = self._policies.get(id(handler))
        if known is not None and known[0] is handler:
            return known[1]
        policy = Policy(
            handler.accepted_contexts(),
            tuple(self.prefer or handler.prefer),
            self.max_pdu_length,
            self.window,
            dict(handler.roles),
            dict(handler.extended),
            handler.storage_of_any_kind,
            self.promiscuous,
        )
        if handler is self.handler:
            self._policies[id(handler)] = (handler, policy)
        return policy


def listen(
    endpoint: Any, handler: Handler | Callable[[], Handler], **options: Any
) -> Deferred[Any]:
    """Listen on ``endpoint``, a server endpoint string or an `IStreamServerEndpoint`, and have
    ``handler`` serve what comes.

    ``options`` are those of `AssociationFactory`. Fires with the `IListeningPort`; fails with
    `CannotListenError`, and with `ValueError` or `TypeError` for arguments that cannot be.
    """
    from twisted.internet.endpoints import serverFromString

    reactor = options.get("reactor")
    if reactor is None:
        from twisted.internet import reactor
    try:
        factory = AssociationFactory(handler, **options)
        if isinstance(endpoint, str):
            endpoint = serverFromString(reactor, endpoint)
        result: Deferred[Any] = endpoint.listen(factory)
    except Exception as error:
        return fail(error)
    return result
