"""`AssociationProtocol`: the only Protocol. It moves octets, timers and back-pressure, no more.

Octets from the transport go to the upper layer `Provider`; what that indicates goes to the `User`
above (an `association.Association`); what either wants sent goes out through a `Sender`. Nothing
here knows a command, a status or a SOP class.

Receiving: the slices of a data set go up as they come, those of one read together; where the user
answers with a Deferred, the transport is paused and what has come meanwhile waits until it fires.

Sending: what is asked for while octets are being received goes out by twos, the rest of it at the
end of that turn, through `sender.Sender`, which also says when who sends should wait.

Timers: ARTIM (PS3.8 9.1.5), the answer to an association or release request (`acse`), a message or
a response that does not move on (`dimse`), and silence (`idle`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_dimse import telemetry
from twisted_dimse.outgoing import OutgoingMessage
from twisted_dimse.sender import Sender
from twisted_dimse.tls import words
from twisted_dimse.upperlayer import pdu
from twisted_dimse.upperlayer.framing import Fragment
from twisted_dimse.upperlayer.provider import (
    AbortIndication,
    AssociateConfirmation,
    AssociateIndication,
    Order,
    Provider,
    ProviderEvent,
    ReleaseConfirmation,
    ReleaseIndication,
)
from twisted_dimse.upperlayer.state import State

# Read sizes: small messages cost less with the small one, data sets with the large one.
_READ, _READ_DATA_SET = 65536, 262144
# Events of one read, mostly fragments, before other associations have the reactor.
_MOST_A_TURN = 128


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; None switches one off.

    `connect` bounds everything up to the accepted association; `acse` the answer to an
    association or release request; `dimse` a message or response that does not move on; `idle`
    the silence of an association with nothing to do; `artim` the wait for an A-ASSOCIATE-RQ
    (TLS handshake included) and for the peer to close the transport at the end.
    """

    connect: float | None = 30.0
    acse: float | None = 30.0
    dimse: float | None = 60.0
    idle: float | None = 600.0
    artim: float | None = 30.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            seconds = getattr(self, name)
            if seconds is not None and not seconds >= 0:
                raise ValueError(f"timeouts: {name}={seconds} is no number of seconds")

    @classmethod
    def of(cls, value: Timeouts | float | None) -> Timeouts:
        """`Timeouts` of what a caller may write: one number for all but `artim`.
        Raises `ValueError` for one below 0."""
        if value is None:
            return cls()
        if isinstance(value, Timeouts):
            return value
        seconds = float(value)
        return cls(seconds, seconds, seconds, seconds)


class User(Interface):
    """What the protocol tells the service-user. The calls come in the order of the wire."""

    def transport_opened(self) -> None: ...

    def associate_requested(self, request: pdu.AssociateRQ) -> None: ...

    def associate_answered(self, answer: pdu.AssociateAC | pdu.AssociateRJ) -> None: ...

    def command_received(self, fragment: Fragment) -> None: ...

    def data_received(self, fragments: list[Fragment]) -> Deferred[Any] | None: ...

    def release_requested(self) -> None: ...

    def release_confirmed(self) -> None: ...

    def association_ended(self, indication: AbortIndication) -> None: ...

    def timed_out(self, what: str) -> None: ...

    def transport_failed(self, why: str) -> None: ...

    def transport_closed(self) -> None: ...

    @property
    def awaits_response(self) -> bool: ...

    @property
    def performs(self) -> bool: ...

    @property
    def between_messages(self) -> bool: ...


@implementer(IHandshakeListener)
class AssociationProtocol(Protocol):
    """One transport connection that carries one association, in either role.

    Built by `client.connect` and `server.AssociationFactory`. ``reactor`` gives the time.
    """

    transport: Any = None

    def __init__(self, provider: Provider, user: User, timeouts: Timeouts, reactor: Any) -> None:
        self.provider = provider
        self.user = user
        self.timeouts = timeouts
        self.sender = Sender(reactor, self._source_failed)
        self.octets_received = 0
        self._subscribers: tuple[telemetry.Subscriber, ...] = ()
        self.number = 0
        self._reactor = reactor
        self._held: list[ProviderEvent] | None = None  # events that wait while we are paused
        self._artim: Any = None
        self._acse: Any = None
        self._monitor: Any = None
        self._turn: Any = None
        self._gathered: list[bytes] | None = None
        self._last_received = 0.0
        self._buffer_size = 0
        self._disconnected = False

    # --- transport

    def connectionMade(self) -> None:
        transport = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        self.sender.start(transport)
        if hasattr(transport, "bufferSize"):
            self._buffer_size = _READ
        self._last_received = self._reactor.seconds()
        self.user.transport_opened()
        self._perform(self.provider.transport_opened())
        self._start_monitor()

    def handshakeCompleted(self) -> None:
        """TLS is agreed on; until now nothing of the peer's has come."""
        if telemetry.subscribers:
            connection = self.transport.getHandle()
            negotiated = telemetry.TLSNegotiated(
                self.number,
                connection.get_protocol_version_name(),
                connection.get_cipher_name(),
                connection.get_peer_certificate(as_cryptography=True) is not None,
                self._reactor.seconds() - self._last_received,
            )
            telemetry.emit(negotiated)

    def gather(self) -> None:
        """Keep what is received from now on, until `take_gathered`."""
        self._gathered = []

    def take_gathered(self) -> None:
        """Take what was kept, as one."""
        gathered, self._gathered = self._gathered, None
        if gathered:
            self.dataReceived(b"".join(gathered))

    def dataReceived(self, data: bytes) -> None:
        if self._gathered is not None:
            self._gathered.append(data)
            return
        if not self.octets_received and self._is_strange(data):
            return
        self.octets_received += len(data)
        if telemetry.subscribers is not self._subscribers:
            self._watch_pdus()
        self._last_received = self._reactor.seconds()
        events = self.provider.receive(data)
        if self._held is not None:
            self._held += events
            self._flush()
            return
        self._perform_received(events)
        if self._buffer_size != _READ or len(data) > _READ - 4096:
            self._choose_buffer_size(len(events))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._disconnected = True
        if why := self._why_lost(reason):
            self.user.transport_failed(why)
        held, self._held = self._held, None
        # What had come before the end still counts, but nobody can be made to wait for it.
        for event in held or ():
            if not isinstance(event, Fragment):
                self._indicate(event)
        for event in self.provider.transport_closed():
            self._indicate(event)
        self._stop_timers()
        self.sender.stop()
        self.user.transport_closed()

    def _is_strange(self, data: bytes) -> bool:
        """Whether the first octets are those of another protocol; then that is the end."""
        what = words.not_dicom(data[:5], requestor=self.provider.requestor)
        if what:
            self.octets_received += len(data)
            self.user.transport_failed(what)
            self._perform(self.provider.violated(what, reason=1))
            self._close()
        return bool(what)

    def _why_lost(self, reason: Failure) -> str:
        """What TLS has to say about the end of the connection."""
        explain = getattr(self.transport, "why_lost", None)
        if explain is not None:
            return str(explain(reason, heard=self.octets_received > 0))
        if reason.check(ConnectionDone, ConnectionLost):
            return ""
        if not type(reason.value).__module__.startswith("OpenSSL"):
            return f"it failed here, see the log ({type(reason.value).__name__})"
        return words.of_error(reason.value, requestor=self.provider.requestor)

    def _choose_buffer_size(self, events: int) -> None:
        """What is read at once: much of a data set, unless it comes in very small fragments."""
        if not self._buffer_size:
            return
        small = self.user.between_messages or events > _MOST_A_TURN
        size = _READ if small else _READ_DATA_SET
        if size != self._buffer_size:
            self._buffer_size = size
            self.transport.bufferSize = size

    # --- events of the provider

    def _perform_received(self, events: list[ProviderEvent]) -> None:
        """Perform what has come, as much as one turn has room for, and have the answers go out
        by twos."""
        later: list[ProviderEvent] = []
        if len(events) > _MOST_A_TURN:
            events, later = events[:_MOST_A_TURN], events[_MOST_A_TURN:]
        sender = self.sender
        sender.corked = True
        try:
            self._perform(events, later)
        finally:
            sender.corked = False
            sender.pump()

    def _perform(self, events: list[ProviderEvent], later: Sequence[ProviderEvent] = ()) -> None:
        """Do what the provider says, in order; hold the rest where the user needs time, and what
        is for ``later``."""
        user, position, end = self.user, 0, len(events)
        while position < end:
            event = events[position]
            position += 1
            if type(event) is not Fragment:
                self._indicate(event)
            elif event.is_command:
                user.command_received(event)
            else:
                run = _data_run(event, events, position)
                position += len(run) - 1
                wait = user.data_received(run)
                if wait is not None and self._hold(wait, [*events[position:], *later]):
                    break
        else:
            if later:
                self._hold(self._next_turn(), later)
        self._flush()

    def _indicate(self, event: ProviderEvent) -> None:
        match event:
            case AssociateIndication(request):
                self.user.associate_requested(request)
            case AssociateConfirmation(answer):
                self._cancel("_acse")
                self.user.associate_answered(answer)
            case ReleaseIndication():
                self.user.release_requested()
            case ReleaseConfirmation():
                self._cancel("_acse")
                self.user.release_confirmed()
            case AbortIndication():
                self.sender.drop()
                self._cancel("_acse")
                self.user.association_ended(event)
            case Order.START_ARTIM:
                self._start_artim()
            case Order.STOP_ARTIM:
                self._cancel("_artim")
            case Order.CLOSE_TRANSPORT:
                self._close()

    def _hold(self, wait: Deferred[Any], rest: Sequence[ProviderEvent]) -> bool:
        """Stop reading until ``wait`` fires. False where it has fired already."""
        if wait.called and not wait.paused:
            wait.addErrback(lambda _failure: None)
            return False
        self._held = list(rest)
        if not self._disconnected:
            self.transport.pauseProducing()
        wait.addBoth(self._go_on)
        return self._held is not None

    def _next_turn(self) -> Deferred[Any]:
        """Fires when the reactor has turned."""
        turned: Deferred[Any] = Deferred()
        self._turn = self._reactor.callLater(0, self._turned, turned)
        return turned

    def _turned(self, turned: Deferred[Any]) -> None:
        self._turn = None
        turned.callback(None)

    def _go_on(self, _result: object) -> None:
        held, self._held = self._held, None
        if held is None or self._disconnected:
            return
        self._last_received = self._reactor.seconds()
        self._perform_received(held)
        if self._held is None and not self._disconnected:
            self.transport.resumeProducing()

    def _flush(self) -> None:
        """Send the PDUs that the provider has made: they follow what was written before."""
        if not self.provider.has_data_to_send:
            return
        data = self.provider.data_to_send()
        if data and not self._disconnected:
            self._note_control_pdus(data)
            self.sender.write(data)

    def _close(self) -> None:
        self._cancel("_artim")
        self.sender.stop()
        if not self._disconnected:
            self.transport.loseConnection()
            # A peer that does not read must not keep the socket: ARTIM bounds the flushing too.
            self._start_artim()

    # --- what the user asks for

    def associate(self, request: pdu.AssociateRQ) -> None:
        """A-ASSOCIATE request; goes out as soon as the transport is open."""
        self._perform(self.provider.associate(request))

    def request_sent(self) -> None:
        """Start the wait for the peer's answer."""
        self._start("_acse", self.timeouts.acse, "no answer to the association request")

    @property
    def awaits_answer(self) -> bool:
        """Whether the peer's association request is still to be answered by us."""
        return self.provider.state is State.Sta3

    def accept(self, answer: pdu.AssociateAC, max_send_length: int) -> None:
        self.sender.outgoing.set_limit(max_send_length)
        self._perform(self.provider.accept(answer))

    def reject(self, answer: pdu.AssociateRJ) -> None:
        self._perform(self.provider.reject(answer))

    def release(self) -> None:
        """A-RELEASE request, behind all that is queued."""
        if self.provider.established:
            self._perform(self.provider.release())
            self._start("_acse", self.timeouts.acse, "no answer to the release request")

    def answer_release(self) -> None:
        if self.provider.state in (State.Sta8, State.Sta9, State.Sta12):
            self._perform(self.provider.answer_release())

    def abort(self) -> None:
        """A-ABORT request; what is queued is dropped, as PS3.8 7.3 has it."""
        self.sender.drop()
        self._held = [] if self._held is not None else None
        if self.provider.state in (State.Sta1, State.Sta2, State.Sta13):
            self._close()
        else:
            self._perform(self.provider.abort())

    def close_now(self) -> None:
        """End the connection, whatever the peer does and is still due."""
        self.sender.stop()
        if not self._disconnected:
            self.transport.abortConnection()

    def violated(self, text: str, reason: int) -> None:
        """The peer broke PS3.7: abort it with ``reason``."""
        if self.provider.state not in (State.Sta1, State.Sta13):
            self._perform(self.provider.violated(text, reason))

    def send(self, message: OutgoingMessage, *, soon: bool = False) -> None:
        """Send a message now, or as soon as those before it are through."""
        if not self.provider.may_send_data or self._disconnected:
            message.close()
            return
        self.sender.send(message, soon=soon)

    @property
    def octets_sent(self) -> int:
        return self.sender.octets

    def _source_failed(self, why: str) -> None:
        """A message that is begun cannot be completed, so nothing can follow it."""
        self.user.association_ended(AbortIndication(0, 0, by_us=True, violation=why))
        self.abort()

    # --- timers

    def _start_artim(self) -> None:
        self._cancel("_artim")
        if self.timeouts.artim is not None:
            self._artim = self._reactor.callLater(self.timeouts.artim, self._artim_expired)

    def _artim_expired(self) -> None:
        self._artim = None
        if self.provider.state is State.Sta2:
            secured = getattr(self.transport, "handshake_done", True)
            what = "A-ASSOCIATE-RQ" if secured else "TLS handshake"
            self.user.timed_out(f"no {what} within {self.timeouts.artim:g} s")
        if self.provider.state in (State.Sta2, State.Sta13):
            self.provider.artim_expired()
        # Whoever has not closed by now may not keep the socket (PS3.8 9.1.5).
        self.close_now()

    def _start(self, timer: str, seconds: float | None, what: str) -> None:
        self._cancel(timer)
        if seconds is not None:
            text = f"{what} within {seconds:g} s"
            setattr(self, timer, self._reactor.callLater(seconds, self._late, timer, text))

    def _late(self, timer: str, what: str) -> None:
        setattr(self, timer, None)
        self.user.timed_out(what)
        self.abort()

    def _cancel(self, timer: str) -> None:
        call = getattr(self, timer)
        if call is not None:
            setattr(self, timer, None)
            call.cancel()

    def _stop_timers(self) -> None:
        for timer in ("_artim", "_acse", "_monitor", "_turn"):
            self._cancel(timer)

    def _start_monitor(self) -> None:
        """One timer watches over `dimse` and `idle`: it looks at least once in each such period,
        so nothing on the hot path has to move a timer."""
        periods = [s for s in (self.timeouts.dimse, self.timeouts.idle) if s is not None]
        if periods:
            self._monitor = self._reactor.callLater(min(periods), self._watch, min(periods))

    def _watch(self, period: float) -> None:
        self._monitor = None
        if self.provider.state in (State.Sta1, State.Sta13):
            return
        now = self._reactor.seconds()
        delay = period
        limit = self._current_limit()
        if limit is not None:
            since, seconds, what = limit
            if now - since >= seconds:
                self.user.timed_out(f"{what} for {seconds:g} s")
                self.abort()
                return
            delay = min(period, since + seconds - now)
        self._monitor = self._reactor.callLater(delay, self._watch, period)

    def _current_limit(self) -> tuple[float, float, str] | None:
        """Since when we wait, how long we may, and for what."""
        last = max(self._last_received, self.sender.last_progress)
        dimse, idle = self.timeouts.dimse, self.timeouts.idle
        state = self.provider.state
        if state not in (State.Sta6, State.Sta7, State.Sta8):
            return None
        if self.sender.blocked and dimse is not None:
            return self.sender.last_progress, dimse, "the peer took no data"
        if self._held is not None or state is State.Sta8:
            return None
        halfway = not (self.user.between_messages and self.provider.framer.between_pdus)
        if halfway and dimse is not None:
            return self._last_received, dimse, "a message did not go on"
        if self.user.awaits_response and dimse is not None:
            return last, dimse, "no response"
        if self.user.performs or idle is None:
            return None
        return last, idle, "nothing happened"

    # --- telemetry

    def _watch_pdus(self) -> None:
        """Report each PDU while somebody subscribes, and none otherwise."""
        self._subscribers = telemetry.subscribers
        watched = bool(self._subscribers)
        self.provider.framer.on_pdu = self._note_received if watched else None
        self.sender.outgoing.on_pdu = self._note_p_data_sent if watched else None

    def _note_received(self, kind: int, octets: int, received: pdu.PDU | None) -> None:
        telemetry.emit(telemetry.PDUReceived(self.number, kind, octets, received))

    def _note_p_data_sent(self, octets: int) -> None:
        telemetry.emit(telemetry.PDUSent(self.number, pdu.P_DATA_TF, octets))

    def _note_control_pdus(self, data: bytes) -> None:
        if telemetry.subscribers:
            offset = 0
            while offset < len(data):
                length = int.from_bytes(data[offset + 2 : offset + 6], "big")
                body = data[offset + 6 : offset + 6 + length]
                sent = pdu.decode(data[offset], body)
                telemetry.emit(telemetry.PDUSent(self.number, sent.kind, length + 6, sent))
                offset += length + 6


def _data_run(first: Fragment, events: list[ProviderEvent], position: int) -> list[Fragment]:
    """A slice of a data set, and those of the same data set that follow at ``position``."""
    run = [first]
    while not first.is_last and position < len(events):
        event = events[position]
        if type(event) is not Fragment or event.is_command or event.context_id != first.context_id:
            break
        run.append(event)
        first = event
        position += 1
    return run
