"""What happens, as frozen events, to whoever subscribes. No subscriber, no cost.

    unsubscribe = subscribe(print)      # each event, as it happens, in the reactor's thread
    ...
    unsubscribe()

Durations are in seconds, sizes in octets. `association` is the number that the log lines bear.
A subscriber must not raise; if it does, that is logged and the others still hear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Subscriber = Callable[[object], None]

# Read as `if telemetry.subscribers:` before an event is even made.
subscribers: tuple[Subscriber, ...] = ()


def subscribe(subscriber: Subscriber) -> Callable[[], None]:
    """Call ``subscriber`` with each event from now on, until the returned callable is called."""
    global subscribers
    subscribers = (*subscribers, subscriber)

    def unsubscribe() -> None:
        global subscribers
        left = list(subscribers)
        if subscriber in left:
            left.remove(subscriber)
        subscribers = tuple(left)

    return unsubscribe


def emit(event: object) -> None:
    """Hand an event to every subscriber."""
    for subscriber in subscribers:
        try:
            subscriber(event)
        except Exception:
            from twisted.logger import Logger

            Logger().failure("telemetry subscriber {subscriber!r} failed", subscriber=subscriber)


@dataclass(frozen=True, slots=True)
class AssociationConnecting:
    """A transport is there, the association not yet. `role` is "requestor" or "acceptor"."""

    association: int
    role: str
    address: str


@dataclass(frozen=True, slots=True)
class TLSNegotiated:
    """The TLS handshake is over: `version` and `cipher` as OpenSSL calls them."""

    association: int
    version: str
    cipher: str
    peer_has_certificate: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class AssociationNegotiated:
    """Accepted. `accepted` and `proposed` count presentation contexts."""

    association: int
    role: str
    calling_ae_title: str
    called_ae_title: str
    proposed: int
    accepted: int
    max_send_length: int
    max_receive_length: int
    invoked: int
    performed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class AssociationNotMade:
    """Rejected by either side: PS3.8 9.3.4 codes."""

    association: int
    role: str
    result: int
    source: int
    reason: int


@dataclass(frozen=True, slots=True)
class AssociationEnded:
    """`how` is "released", "aborted" (with `by_us`) or "lost"."""

    association: int
    role: str
    how: str
    by_us: bool
    reason: str
    messages: int
    octets_received: int
    octets_sent: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PDUReceived:
    """`pdu` is the decoded PDU, or None for a P-DATA-TF, of which only `octets` is known."""

    association: int
    kind: int
    octets: int
    pdu: object | None = None


@dataclass(frozen=True, slots=True)
class PDUSent:
    """As `PDUReceived`, of what we send."""

    association: int
    kind: int
    octets: int
    pdu: object | None = None


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """A whole command set, as it came."""

    association: int
    context_id: int
    command: object


@dataclass(frozen=True, slots=True)
class CommandSent:
    """A whole command set, as it goes out."""

    association: int
    context_id: int
    command: object


@dataclass(frozen=True, slots=True)
class OperationBegun:
    """`role` is "scu" where we invoke the operation and "scp" where we perform it."""

    association: int
    role: str
    name: str
    message_id: int


@dataclass(frozen=True, slots=True)
class OperationEnded:
    """`status` is None where no answer came. `octets` is the size of the data set received or
    sent with a C-STORE."""

    association: int
    role: str
    name: str
    message_id: int
    status: int | None
    octets: int
    seconds: float


@dataclass(frozen=True, slots=True)
class HandlerFailed:
    """A handler raised something that is no `StatusError`."""

    association: int
    name: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class SubOperationEnded:
    """One C-STORE of a C-MOVE or C-GET that we perform."""

    association: int
    name: str
    message_id: int
    sop_instance_uid: str
    status: int | None
    remaining: int
