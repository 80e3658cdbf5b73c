"""The upper layer service-provider of PS3.8 clause 9: what `h11.Connection` is to HTTP.

Octets, the local user's requests and timer expiries go in; each call returns the events that
they cause, in order: indications and confirmations for the user, and orders for timer and
transport. Octets for the peer are then in `data_to_send`. There is no I/O and no clock here.

    requestor, acceptor = Provider(requestor=True), Provider(requestor=False)
    requestor.associate(request); requestor.transport_opened(); acceptor.transport_opened()
    [_, indication] = acceptor.receive(requestor.data_to_send())
    acceptor.accept(answer)

A presentation data value reaches the user as `Fragment` slices as they arrive.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from twisted_dimse.errors import ProtocolViolation
from twisted_dimse.upperlayer import pdu
from twisted_dimse.upperlayer import state as table
from twisted_dimse.upperlayer.framing import Fragment, Framer
from twisted_dimse.upperlayer.state import Action, Event, State


class Order(Enum):
    """What the provider asks of the timer and the transport."""

    OPEN_TRANSPORT = "open transport"
    CLOSE_TRANSPORT = "close transport"
    START_ARTIM = "start ARTIM"
    STOP_ARTIM = "stop ARTIM"


@dataclass(frozen=True, slots=True)
class AssociateIndication:
    request: pdu.AssociateRQ


@dataclass(frozen=True, slots=True)
class AssociateConfirmation:
    """The peer's answer to our request."""

    answer: pdu.AssociateAC | pdu.AssociateRJ


@dataclass(frozen=True, slots=True)
class ReleaseIndication:
    """The peer asks for release; with `collision`, at the same time as we do."""

    collision: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseConfirmation:
    pass


@dataclass(frozen=True, slots=True)
class AbortIndication:
    """The association ended at once. `by_us` with the words of the `violation` that we saw, or
    by the peer's A-ABORT of this `source` and `reason`, or (`lost`) with the transport."""

    source: int = 2
    reason: int = 0
    by_us: bool = False
    lost: bool = False
    violation: str = ""


Indication = (
    AssociateIndication
    | AssociateConfirmation
    | ReleaseIndication
    | ReleaseConfirmation
    | AbortIndication
)
ProviderEvent = Fragment | Indication | Order

_RECEIVED = {
    pdu.ASSOCIATE_RQ: Event.Evt6,
    pdu.ASSOCIATE_AC: Event.Evt3,
    pdu.ASSOCIATE_RJ: Event.Evt4,
    pdu.RELEASE_RQ: Event.Evt12,
    pdu.RELEASE_RP: Event.Evt13,
    pdu.ABORT: Event.Evt16,
}
_DATA_MAY_BE_SENT = frozenset((State.Sta6, State.Sta8))
_DATA_MAY_ARRIVE = frozenset((State.Sta6, State.Sta7))

# Actions that do nothing but hand an order on (Tables 9-6 to 9-9).
_ORDERS: dict[Action, tuple[Order, ...]] = {
    Action.AE_1: (Order.OPEN_TRANSPORT,),
    Action.AE_5: (Order.START_ARTIM,),
    Action.AR_5: (Order.STOP_ARTIM,),
    Action.AA_2: (Order.STOP_ARTIM, Order.CLOSE_TRANSPORT),
    Action.AA_5: (Order.STOP_ARTIM,),
}


class Provider:
    """One association's upper layer, in either role.

    `max_pdu_length` is the longest P-DATA-TF that we offer to receive, 0 for any.
    """

    def __init__(self, *, requestor: bool, max_pdu_length: int = 0) -> None:
        self.requestor = requestor
        self.state = State.Sta1
        self.framer = Framer(max_pdu_length)
        self._out: list[bytes] = []
        self._request: pdu.AssociateRQ | None = None

    @property
    def closed(self) -> bool:
        """Whether the association is over, or never was."""
        return self.state is State.Sta1

    @property
    def established(self) -> bool:
        return self.state is State.Sta6

    @property
    def may_send_data(self) -> bool:
        """Whether a P-DATA request has an action now (DT-1, AR-7)."""
        return self.state in _DATA_MAY_BE_SENT

    @property
    def has_data_to_send(self) -> bool:
        return bool(self._out)

    def data_to_send(self) -> bytes:
        """Take the PDUs that are due to the peer. P-DATA-TFs are not among them: the user
        encodes those, while `may_send_data`."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    # --- the local user's requests and responses

    def associate(self, request: pdu.AssociateRQ) -> list[ProviderEvent]:
        """A-ASSOCIATE request (PS3.8 7.1)."""
        self._request = request
        return self._happens(Event.Evt1)

    def accept(self, answer: pdu.AssociateAC) -> list[ProviderEvent]:
        """A-ASSOCIATE response, accepted."""
        return self._happens(Event.Evt7, answer)

    def reject(self, answer: pdu.AssociateRJ) -> list[ProviderEvent]:
        """A-ASSOCIATE response, rejected."""
        return self._happens(Event.Evt8, answer)

    def release(self) -> list[ProviderEvent]:
        """A-RELEASE request (PS3.8 7.2)."""
        return self._happens(Event.Evt11)

    def answer_release(self) -> list[ProviderEvent]:
        """A-RELEASE response; it cannot refuse."""
        return self._happens(Event.Evt14)

    def abort(self) -> list[ProviderEvent]:
        """A-ABORT request (PS3.8 7.3)."""
        return self._happens(Event.Evt15)

    def violated(self, text: str, reason: int = 2) -> list[ProviderEvent]:
        """The user found what it was handed to break PS3.7: A-P-ABORT with ``reason``."""
        return self._happens(Event.Evt19, None, text, reason)

    # --- transport and timer

    def transport_opened(self) -> list[ProviderEvent]:
        return self._happens(Event.Evt2 if self.requestor else Event.Evt5)

    def transport_closed(self) -> list[ProviderEvent]:
        if self.state is State.Sta1:
            return []
        return self._happens(Event.Evt17)

    def artim_expired(self) -> list[ProviderEvent]:
        return self._happens(Event.Evt18)

    def receive(self, data: bytes) -> list[ProviderEvent]:
        """Octets from the peer."""
        if self.state is State.Sta1:
            return []
        violation: ProtocolViolation | None = None
        try:
            parts = self.framer.receive(data)
        except ProtocolViolation as error:
            violation = error
            parts = error.parts  # type: ignore[attr-defined]
        if violation is None and self.state is State.Sta6 and all(map(_is_fragment, parts)):
            return parts  # type: ignore[return-value]
        events: list[ProviderEvent] = []
        for part in parts:
            self._received(part, events)
        if violation is not None and not self.closed:
            events += self._happens(Event.Evt19, None, str(violation), violation.reason)
        return events

    def _received(self, part: Fragment | pdu.PDU, events: list[ProviderEvent]) -> None:
        if self.state is State.Sta1:
            return
        if type(part) is not Fragment:
            kind = part.kind  # type: ignore[union-attr]
            events += self._happens(_RECEIVED[kind], part, _UNEXPECTED)  # type: ignore[arg-type]
        elif self.state in _DATA_MAY_ARRIVE:
            events.append(part)  # DT-2, AR-6
        else:
            events += self._happens(Event.Evt10, None, _UNEXPECTED)

    # --- the table

    def _happens(
        self, event: Event, content: pdu.PDU | None = None, why: str = "", reason: int = 2
    ) -> list[ProviderEvent]:
        cell = table.TRANSITIONS.get((self.state, event))
        if cell is None:
            raise ProtocolViolation(f"{event.name} has no action in {self.state.name}")
        action, self.state = cell
        if action in _ORDERS:
            return list(_ORDERS[action])
        perform = getattr(self, _METHODS[action])
        result: list[ProviderEvent] = perform(content, why, reason)
        return result

    def _ae_2(self, *_: object) -> list[ProviderEvent]:
        assert self._request is not None
        self._out.append(self._request.encode())
        return []

    def _ae_3(self, answer: pdu.AssociateAC, *_: object) -> list[ProviderEvent]:
        return [AssociateConfirmation(answer)]

    def _ae_4(self, answer: pdu.AssociateRJ, *_: object) -> list[ProviderEvent]:
        return [AssociateConfirmation(answer), Order.CLOSE_TRANSPORT]

    def _ae_6(self, request: pdu.AssociateRQ, *_: object) -> list[ProviderEvent]:
        if request.protocol_version & 1:
            return [Order.STOP_ARTIM, AssociateIndication(request)]
        self.state = table.OTHER_NEXT_STATE[Action.AE_6]
        self._out.append(pdu.AssociateRJ(1, 2, 2).encode())
        violation = f"protocol version {request.protocol_version} not supported"
        return [
            Order.STOP_ARTIM,
            Order.START_ARTIM,
            AbortIndication(by_us=True, violation=violation),
        ]

    def _send_answer(self, answer: pdu.PDU, *_: object) -> list[ProviderEvent]:
        self._out.append(answer.encode())
        return []

    def _ae_8(self, answer: pdu.AssociateRJ, *_: object) -> list[ProviderEvent]:
        self._out.append(answer.encode())
        return [Order.START_ARTIM]

    def _nothing(self, *_: object) -> list[ProviderEvent]:
        return []

    def _ar_1(self, *_: object) -> list[ProviderEvent]:
        self._out.append(pdu.ReleaseRQ().encode())
        return []

    def _ar_2(self, *_: object) -> list[ProviderEvent]:
        return [ReleaseIndication()]

    def _ar_3(self, *_: object) -> list[ProviderEvent]:
        return [ReleaseConfirmation(), Order.CLOSE_TRANSPORT]

    def _ar_4(self, *_: object) -> list[ProviderEvent]:
        self._out.append(pdu.ReleaseRP().encode())
        return [Order.START_ARTIM]

    def _ar_8(self, *_: object) -> list[ProviderEvent]:
        if not self.requestor:
            self.state = table.OTHER_NEXT_STATE[Action.AR_8]
        return [ReleaseIndication(collision=True)]

    def _ar_9(self, *_: object) -> list[ProviderEvent]:
        self._out.append(pdu.ReleaseRP().encode())
        return []

    def _ar_10(self, *_: object) -> list[ProviderEvent]:
        return [ReleaseConfirmation()]

    def _aa_1(self, _content: object, why: str, *_: object) -> list[ProviderEvent]:
        self._out.append(pdu.Abort(0, 0).encode())
        indication = AbortIndication(source=0, by_us=True, violation=why)
        return [indication, Order.START_ARTIM]

    def _aa_3(self, abort: pdu.Abort, *_: object) -> list[ProviderEvent]:
        return [AbortIndication(abort.source, abort.reason), Order.CLOSE_TRANSPORT]

    def _aa_4(self, *_: object) -> list[ProviderEvent]:
        return [AbortIndication(lost=True)]

    def _aa_7(self, _content: object, _why: str, reason: int) -> list[ProviderEvent]:
        self._out.append(pdu.Abort(2, reason).encode())
        return []

    def _aa_8(self, _content: object, why: str, reason: int) -> list[ProviderEvent]:
        self._out.append(pdu.Abort(2, reason).encode())
        indication = AbortIndication(2, reason, by_us=True, violation=why)
        return [indication, Order.START_ARTIM]


def _is_fragment(part: Fragment | pdu.PDU) -> bool:
    return type(part) is Fragment


_UNEXPECTED = "a PDU that has no place in this state of the association"

_METHODS = {
    Action.AE_2: "_ae_2",
    Action.AE_3: "_ae_3",
    Action.AE_4: "_ae_4",
    Action.AE_6: "_ae_6",
    Action.AE_7: "_send_answer",
    Action.AE_8: "_ae_8",
    Action.DT_1: "_nothing",
    Action.DT_2: "_nothing",
    Action.AR_1: "_ar_1",
    Action.AR_2: "_ar_2",
    Action.AR_3: "_ar_3",
    Action.AR_4: "_ar_4",
    Action.AR_6: "_nothing",
    Action.AR_7: "_nothing",
    Action.AR_8: "_ar_8",
    Action.AR_9: "_ar_9",
    Action.AR_10: "_ar_10",
    Action.AA_1: "_aa_1",
    Action.AA_3: "_aa_3",
    Action.AA_4: "_aa_4",
    Action.AA_6: "_nothing",
    Action.AA_7: "_aa_7",
    Action.AA_8: "_aa_8",
}
