"""`Association`: what users hold, in either role.

It is the service-user of PS3.8 above one `protocol.AssociationProtocol`: it negotiates, sorts
messages to its invoking half (`operations.ServiceUser`) and its performing half
(`performer.Performer`), and sees that everything under way ends when it ends.

    association.accepted            # the presentation contexts agreed on
    await association.echo()
    await association.release()
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any
from typing import Protocol as Interface

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_dimse import ending, telemetry
from twisted_dimse.datastream import DiscardingSink
from twisted_dimse.dimse import command as commands
from twisted_dimse.dimse.command import CommandSet
from twisted_dimse.dimse.message import Assembler
from twisted_dimse.errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    ConnectionFailed,
    ConnectionLost,
    ContextNotAccepted,
    DimseError,
    ProtocolViolation,
)
from twisted_dimse.handler import AssociationRequest, Handler
from twisted_dimse.operations import ServiceUser
from twisted_dimse.outgoing import OutgoingMessage
from twisted_dimse.performer import Incoming, Performer
from twisted_dimse.protocol import AssociationProtocol, Timeouts
from twisted_dimse.transcoding import Transcoder
from twisted_dimse.upperlayer import negotiation, pdu
from twisted_dimse.upperlayer.framing import Fragment
from twisted_dimse.upperlayer.negotiation import AcceptedContext, Agreement, Window
from twisted_dimse.upperlayer.provider import AbortIndication, Provider
from twisted_dimse.upperlayer.state import State

_numbers: Iterator[int] = itertools.count(1)
_log = Logger()


def number_from(numbers: Iterator[int]) -> None:
    """Number associations from now on by ``numbers``, as where processes share one log."""
    global _numbers
    _numbers = numbers


class Decision(Interface):
    """Decides on association requests: calls `Association.accept` or `reject`, now or later."""

    def decide(self, association: Association, request: AssociationRequest) -> None: ...

    def ended(self, association: Association) -> None: ...

    def forget(self, association: Association) -> None: ...

    def destination(self, association: Association, ae_title: str) -> Any: ...


class Association(ServiceUser):
    """One association. Made by `client.connect` and `server.AssociationFactory`.

    `calling_ae_title`, `called_ae_title`, `address`: who talks to whom. `accepted`, `window`,
    `agreement`: what was agreed. `peer_certificate`: that of TLS, or None.
    `user_identity` is what the requestor sent, `user_identity_response` what it was answered.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        timeouts: Timeouts,
        reactor: Any,
        handler: Handler | None = None,
        request: pdu.AssociateRQ | None = None,
        decision: Decision | None = None,
        connect: Callable[..., Deferred[Association]] | None = None,
        transcoder: Transcoder | None = None,
    ) -> None:
        super().__init__()
        self.number = next(_numbers)
        self.protocol = AssociationProtocol(provider, self, timeouts, reactor)
        self.protocol.number = self.number
        self.agreement: Agreement | None = None
        self.calling_ae_title = request.calling_ae_title if request else ""
        self.called_ae_title = request.called_ae_title if request else ""
        self.window = Window()
        self.messages = 0
        self.instances = 0  # of C-STOREs performed and answered, in either direction
        self.handler = handler or Handler()
        self.reactor = reactor
        self.transcoder = transcoder or Transcoder(reactor)
        self.seconds: Callable[[], float] = reactor.seconds
        self._request = request
        self._asked: AssociationRequest | None = None  # where we are the acceptor
        self._decision = decision
        self._connect = connect or _no_connections
        # Fires once, for `client.connect`; cancelling it aborts.
        self.negotiated: Deferred[Association] = Deferred(lambda _: self.abort())
        self._contexts: dict[int, AcceptedContext] = {}
        self._contexts_as_scu: dict[str, list[AcceptedContext]] = {}
        self._assembler = Assembler()
        self._incoming: Incoming | None = None
        self._performer = Performer(self, self.handler)
        self._reason: DimseError | None = None
        self._over = False
        self._gone = False  # the transport, too
        self._closed: list[Deferred[DimseError | None]] = []
        self._releasing = False
        self._released = False
        self._releases: list[Deferred[None]] = []
        self._refused: ContextNotAccepted | None = None
        self._begun = 0.0

    @property
    def requestor(self) -> bool:
        """Whether we asked for the association."""
        return self._request is not None

    @property
    def role(self) -> str:
        """ "requestor" or "acceptor"."""
        return "requestor" if self.requestor else "acceptor"

    @property
    def alive(self) -> bool:
        """Whether it has been requested and is not over. A connection lasts longer at both ends."""
        return self.protocol.provider.state not in (State.Sta1, State.Sta2, State.Sta13)

    @property
    def peer(self) -> str:
        """The other side's AE title."""
        return self.called_ae_title if self.requestor else self.calling_ae_title

    @property
    def reason(self) -> DimseError | None:
        """The error that ended it; None while it lives, and where it was released."""
        return self._reason

    @property
    def accepted(self) -> tuple[AcceptedContext, ...]:
        """The presentation contexts that both sides agreed on."""
        return tuple(self._contexts.values())

    @property
    def address(self) -> str:
        """The peer's network address, as far as the transport knows."""
        transport: Any = self.protocol.transport
        address = transport.getPeer() if transport is not None else None
        host = getattr(address, "host", None) or getattr(address, "name", None) or ""
        return host.decode(errors="replace") if isinstance(host, bytes) else str(host)

    @property
    def peer_certificate(self) -> Any:
        """The peer's TLS certificate, a `cryptography.x509.Certificate`, or None: without TLS,
        without a certificate, and when the connection is gone."""
        get_handle = getattr(self.protocol.transport, "getHandle", None)
        connection = get_handle() if get_handle is not None else None
        get = getattr(connection, "get_peer_certificate", None)
        return get(as_cryptography=True) if get is not None else None

    @property
    def user_identity(self) -> pdu.UserIdentity | None:
        """What the requestor said of its user (PS3.7 D.3.3.7); None where it said nothing."""
        if self.agreement is not None:
            return self.agreement.user_identity
        return self._asked.user_identity if self._asked is not None else None

    @property
    def user_identity_response(self) -> bytes | None:
        """What the acceptor answered to that; None where it answered nothing."""
        return self.agreement.user_identity_response if self.agreement else None

    @property
    def closed(self) -> Deferred[DimseError | None]:
        """A Deferred of one's own that fires when the connection is gone: with None after a
        release, and with the `DimseError` that ended the association otherwise."""
        if self._gone:
            return succeed(self._reason)
        closed: Deferred[DimseError | None] = Deferred(self._closed.remove)
        self._closed.append(closed)
        return closed

    # --- its end, as users ask for it

    def release(self) -> Deferred[None]:
        """Release the association (PS3.8 7.2) once what is outstanding has ended.

        Fires when it is over; fails with the error that ended it otherwise.
        """
        if self._over and self._reason is not None:
            return fail(self._reason)
        ended: Deferred[None] = Deferred()
        self._releases.append(ended)
        self._releasing = True
        self._release_when_idle()
        if self._gone:
            self._tell_of_end(None)
        return ended

    def abort(self) -> None:
        """End the association at once with an A-ABORT (PS3.8 7.3)."""
        self._end(AssociationAborted(0, 0, by_us=True))
        self.protocol.abort()

    async def __aenter__(self) -> Association:
        return self

    async def __aexit__(self, kind: Any, _error: Any, _trace: Any) -> None:
        if kind is not None:
            self.abort()
        elif not self._over:
            await self.release()

    def _release_when_idle(self) -> None:
        busy = len(self._invocations) or len(self._performer)
        if self._releasing and not self._over and not busy:
            sender = self.protocol.sender
            if sender.idle:
                self.protocol.release()
            else:
                sender.drained().addCallback(lambda _: self._release_when_idle())

    # --- the answer to an association request, from the `Decision`

    def accept(
        self,
        policy: negotiation.Policy,
        request: pdu.AssociateRQ,
        identity_response: bytes | None = None,
    ) -> None:
        """Accept what of ``request`` fits ``policy``; too late where the peer has gone on."""
        if self._over or not self.protocol.awaits_answer:
            return
        answer, agreement = negotiation.accept(request, policy, identity_response)
        try:
            self._agreed(agreement)
            self.protocol.accept(answer, agreement.max_send_length)
        except ProtocolViolation as violation:
            _log.warn("association {number}: {violation}", number=self.number, violation=violation)
            self.reject(AssociationRejected(1, 1, 1))

    def reject(self, error: AssociationRejected) -> None:
        """Reject the association request; too late where the peer has gone on."""
        if not self._over and self.protocol.awaits_answer:
            self._end(error)
            self.protocol.reject(pdu.AssociateRJ(error.result, error.source, error.reason))

    def _agreed(self, agreement: Agreement) -> None:
        self.protocol.sender.outgoing.set_limit(agreement.max_send_length)
        self.agreement = agreement
        self.window = agreement.window
        self._invocations.limit = agreement.window.invoked
        self._contexts = dict(agreement.contexts)
        self._contexts_as_scu = {}
        for context in self._contexts.values():
            if context.scu:
                self._contexts_as_scu.setdefault(context.abstract_syntax, []).append(context)
        if telemetry.subscribers:
            telemetry.emit(
                telemetry.AssociationNegotiated(
                    self.number,
                    self.role,
                    agreement.calling_ae_title,
                    agreement.called_ae_title,
                    len(agreement.results),
                    len(agreement.contexts),
                    agreement.max_send_length,
                    agreement.max_receive_length,
                    agreement.window.invoked,
                    agreement.window.performed,
                    self.seconds() - self._begun,
                )
            )

    # --- what the protocol tells (`protocol.User`)

    def transport_opened(self) -> None:
        """The transport is there: the request goes out."""
        self._begun = self.seconds()
        if self._request is not None:
            self.protocol.request_sent()
        if telemetry.subscribers:
            event = telemetry.AssociationConnecting(self.number, self.role, self.address)
            telemetry.emit(event)

    def associate_requested(self, request: pdu.AssociateRQ) -> None:
        """A-ASSOCIATE indication (PS3.8 7.1)."""
        self.calling_ae_title = request.calling_ae_title
        self.called_ae_title = request.called_ae_title
        self._asked = AssociationRequest(self, request)
        if self._decision is not None:
            self._decision.decide(self, self._asked)

    def associate_answered(self, answer: pdu.AssociateAC | pdu.AssociateRJ) -> None:
        """A-ASSOCIATE confirmation (PS3.8 7.1)."""
        if isinstance(answer, pdu.AssociateRJ):
            self._end(AssociationRejected(answer.result, answer.source, answer.reason))
            return
        assert self._request is not None
        try:
            self._agreed(negotiation.confirm(self._request, answer))
        except ProtocolViolation as violation:
            self._violated(violation)
            return
        if self._contexts:
            self.negotiated.callback(self)
        else:
            self._refused = ContextNotAccepted(
                f"{self.called_ae_title} accepted none of what was proposed: "
                f"{_classes(self._request)}"
            )
            self._releasing = True
            self.protocol.release()

    def command_received(self, fragment: Fragment) -> None:
        """A fragment of a command set."""
        if self._over:
            return
        try:
            command = self._assembler.command_fragment(fragment)
            if command is not None:
                self._message_received(fragment.context_id, command)
        except ProtocolViolation as violation:
            self._violated(violation)

    def data_received(self, fragments: list[Fragment]) -> Deferred[Any] | None:
        """Slices of one data set that came together."""
        if self._over:
            return None
        last = fragments[-1]
        try:
            self._assembler.data_fragment(last)
            incoming = self._incoming
            assert incoming is not None
            slices = [fragment.data for fragment in fragments if fragment.data]
            wait = incoming.write(slices) if slices else None
            if not last.is_last:
                return wait
            if wait is None:
                result = self._data_complete(incoming)
                # Mostly None, and to ask whether it is a Deferred costs a microsecond.
                return result if result is not None and isinstance(result, Deferred) else None
            wait.addCallback(lambda _: None if self._over else self._data_complete(incoming))
            return wait
        except ProtocolViolation as violation:
            self._violated(violation)
            return None

    def _data_complete(self, incoming: Incoming) -> Any:
        self._incoming = None
        return incoming.finish()

    def release_requested(self) -> None:
        """A-RELEASE indication (PS3.8 7.2)."""
        self._released = True
        self.protocol.sender.pump()
        self.protocol.sender.drained().addCallback(lambda _: self._answer_release())

    def release_confirmed(self) -> None:
        """A-RELEASE confirmation (PS3.8 7.2)."""
        self._released = True
        # After a collision the requestor still owes its answer (PS3.8 9.2, Sta9 and Sta12).
        self._answer_release()

    def _answer_release(self) -> None:
        # Who has the answer may ask for another association at once, and of another process.
        self._tell_decision()
        self.protocol.answer_release()

    def _tell_decision(self) -> None:
        if self._decision is not None:
            self._decision.ended(self)

    def association_ended(self, indication: AbortIndication) -> None:
        """A-ABORT or A-P-ABORT indication (PS3.8 7.3, 7.4)."""
        if self._released and indication.lost:
            return
        unanswered = self.requestor and self.agreement is None
        self._end(ending.error_of(indication, awaits_answer=unanswered))

    def timed_out(self, what: str) -> None:
        """The protocol waits no longer."""
        self._end(AssociationTimeout(what))

    def transport_failed(self, why: str) -> None:
        """TLS failed, or the peer speaks another protocol."""
        if not self._released:
            self._end(ConnectionLost(why) if self.agreement else ConnectionFailed(why))

    def transport_closed(self) -> None:
        """The transport is gone, whoever closed it."""
        if self._reason is None and not self._released:
            self._reason = ConnectionLost("the connection closed without a release")
        self._end(self._reason)
        if self._decision is not None:
            self._decision.forget(self)
        reason = self._reason
        ending.report(self, reason, self.seconds() - self._begun)
        self._tell_of_end(reason)
        self._gone = True
        while self._closed:  # one at a time, for what one calls may cancel another
            self._closed.pop(0).callback(reason)
        if self.agreement is not None and not self.requestor:
            self._tell_handler()

    @property
    def awaits_response(self) -> bool:
        """Whether an operation that we invoked is not answered."""
        return bool(self._invocations.outstanding)

    @property
    def performs(self) -> bool:
        """Whether an operation that the peer invoked is not answered."""
        return len(self._performer) > 0

    @property
    def between_messages(self) -> bool:
        """Whether no message of the peer is half received."""
        return self._assembler.between_messages

    # --- for the performing half

    @property
    def receiver(self) -> Handler:
        """Whose `store_sink` takes what comes: that of the latest running `get`, or our own."""
        return self._receivers[-1] if self._receivers else self.handler

    async def destination(self, ae_title: str) -> Any:
        """The `Peer` of a C-MOVE destination, by the handler or the server's list; or None."""
        found = self.handler.resolve(ae_title)
        if isinstance(found, Deferred) or hasattr(found, "__await__"):
            found = await found
        if found is None and self._decision is not None:
            found = self._decision.destination(self, ae_title)
        return found

    def connect_onward(self, peer: Any, contexts: list[Any]) -> Deferred[Association]:
        """An association of ours to a C-MOVE destination."""
        return self._connect(
            peer, contexts=contexts, reactor=self.reactor, timeouts=self.protocol.timeouts
        )

    # --- messages

    def send_response(
        self, context_id: int, response: dict[str, Any], data: bytes | None, *, soon: bool = False
    ) -> None:
        """Send a response of an operation that we perform; `soon` for one of many."""
        if self._over:
            return
        if telemetry.subscribers:
            telemetry.emit(telemetry.CommandSent(self.number, context_id, CommandSet(response)))
        message = OutgoingMessage(context_id, commands.encode(response), data)
        self.protocol.send(message, soon=soon)

    def send_encoded(
        self, context_id: int, response: bytes, data: bytes | None = None, *, soon: bool = False
    ) -> None:
        """Send a response that is encoded, and of which nobody wants to know."""
        if not self._over:
            self.protocol.send(OutgoingMessage(context_id, response, data), soon=soon)

    def _message_received(self, context_id: int, command: CommandSet) -> None:
        self.messages += 1
        context = self._contexts.get(context_id)
        if context is None:
            raise ProtocolViolation(f"context {context_id} was not accepted", reason=5)
        if telemetry.subscribers:
            telemetry.emit(telemetry.CommandReceived(self.number, context_id, command))
        field = command["CommandField"]
        incoming: Incoming | None
        if field & commands.RESPONSE:
            if field == commands.C_STORE_RQ | commands.RESPONSE:
                self.instances += 1
            sink = self._response_received(context, command)
            incoming = Incoming(sink, self._response_complete) if sink is not None else None
        elif field == commands.C_CANCEL_RQ:
            self._performer.cancel(command.get("MessageIDBeingRespondedTo"))
            incoming = None
        else:
            incoming = self._performer.request(context, command)
        if self._assembler.expects_data:
            # Data that nobody asked for, behind a command that has none: taken, not kept.
            self._incoming = incoming or Incoming(DiscardingSink(), lambda _result: None)

    def _response_complete(self, result: Any) -> Any:
        if hasattr(result, "trap"):
            raise ProtocolViolation(f"a response that cannot be taken: {result.value}")
        return result

    def _violated(self, violation: ProtocolViolation) -> None:
        self._end(violation)
        self.protocol.violated(str(violation), violation.reason)

    # --- for `ServiceUser`

    def _refusal(self) -> DimseError | None:
        if self._over or self._releasing or self._released:
            return self._reason or ConnectionLost("the association is released")
        if self.agreement is None:
            return ConnectionLost("the association is not established")
        return None

    def _contexts_for(self, abstract_syntax: str) -> list[AcceptedContext]:
        return self._contexts_as_scu.get(abstract_syntax, [])

    def _context_of(self, choice: str | int) -> AcceptedContext:
        if isinstance(choice, int):
            context = self._contexts.get(choice)
        else:
            contexts = self._contexts.values()
            context = next((c for c in contexts if c.abstract_syntax == choice), None)
        if context is None:
            raise ContextNotAccepted(f"no context {choice} was accepted")
        return context

    def _reporting_context(self, class_uid: str) -> int | None:
        contexts = [c for c in self._contexts.values() if c.abstract_syntax == class_uid]
        contexts.sort(key=lambda context: not context.scp)
        return contexts[0].id if contexts else None

    def _send(self, message: OutgoingMessage) -> None:
        self.protocol.send(message)

    def _send_queued(self) -> None:
        self.protocol.sender.pump()

    def _withdraw(self, message: OutgoingMessage) -> bool:
        return self.protocol.sender.outgoing.withdraw(message)

    def _seconds(self) -> float:
        return self.seconds()

    def performed(self) -> None:
        """An operation that we performed is answered."""
        if self._releasing:
            self._release_when_idle()

    def _operations_over(self) -> None:
        if self._releasing:
            self._release_when_idle()

    # --- the end

    def _end(self, reason: DimseError | None) -> None:
        """Let nothing outlive the association. The first reason is the one that counts."""
        if self._over:
            return
        self._over = True
        self._reason = reason
        self._tell_decision()
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.abandon()
        self._performer.end()
        self._end_operations(reason or ConnectionLost("the association was released"))
        if reason is not None:
            self._tell_of_end(reason)

    def _tell_of_end(self, reason: DimseError | None) -> None:
        """Whoever waits for the association to come about, or to be released."""
        releases, self._releases = self._releases, []
        for ended in releases:
            ended.callback(None if reason is None else Failure(reason))
        if self.requestor and not self.negotiated.called:
            self.negotiated.errback(self._refused or reason or ConnectionLost("released"))

    def _tell_handler(self) -> None:
        assert self._asked is not None
        try:
            if self._reason is None:
                self.handler.released(self._asked)
            else:
                self.handler.aborted(self._asked)
        except Exception:
            _log.failure("association {number}: its handler failed at the end", number=self.number)


def _no_connections(peer: Any, **_options: Any) -> Deferred[Association]:
    return fail(ConnectionLost(f"no association to {peer} can be made from here"))


def _classes(request: pdu.AssociateRQ) -> str:
    """The SOP classes that a request proposes, by name; of many the first."""
    from twisted_dimse.uids import name_of

    first, *more = dict.fromkeys(context.abstract_syntax for context in request.contexts)
    return name_of(first) + (f" and {len(more)} more" if more else "")
