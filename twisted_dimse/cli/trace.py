"""``--trace``: each PDU and command set, decoded, on standard error.

    0.004  1 > A-ASSOCIATE-RQ, 213 octets: DIMSE-SCU calls PACS
                 context 1: Verification SOP Class in Explicit VR Little Endian, Implicit VR …
    0.009  1 > C-ECHO-RQ in context 1: MessageID 1

The first column is seconds, the second the association; ``>`` went out and ``<`` came in. A
subscriber to `telemetry`, and no more than that: data sets are not in the events.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from twisted_dimse import telemetry
from twisted_dimse.errors import ABORT_REASONS, AssociationRejected, printable

PDU_NAMES = {
    1: "A-ASSOCIATE-RQ",
    2: "A-ASSOCIATE-AC",
    3: "A-ASSOCIATE-RJ",
    4: "P-DATA-TF",
    5: "A-RELEASE-RQ",
    6: "A-RELEASE-RP",
    7: "A-ABORT",
}
_RESULTS = {
    1: "rejected by the user",
    2: "rejected without a reason",
    3: "abstract syntax not supported",
    4: "transfer syntaxes not supported",
}
_ARROWS = {
    telemetry.PDUSent: ">",
    telemetry.CommandSent: ">",
    telemetry.PDUReceived: "<",
    telemetry.CommandReceived: "<",
}
_INDENT = " " * 17


def begin(write: Callable[[str], object] | None = None) -> Callable[[], None]:
    """Write what happens from now on, to standard error by default, until the returned callable
    is called."""
    begun = time.monotonic()

    def note(event: object) -> None:
        for line in lines(event, time.monotonic() - begun):
            (write or _to_standard_error)(line)

    return telemetry.subscribe(note)


def _to_standard_error(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def lines(event: Any, seconds: float) -> Iterator[str]:
    """An event as lines; none for one that is neither a PDU nor a command set."""
    arrow = _ARROWS.get(type(event))
    if arrow is None:
        return
    front = f"{seconds:9.3f} {event.association:2} {arrow} "
    if isinstance(event, (telemetry.CommandSent, telemetry.CommandReceived)):
        yield front + _command(event.context_id, event.command)
        return
    name = PDU_NAMES.get(event.kind, f"PDU {event.kind:02X}H")
    first, *more = list(_pdu(event.pdu)) or [""]
    yield f"{front}{name}, {event.octets} octets{': ' if first else ''}{first}"
    yield from (_INDENT + line for line in more)


def _command(context_id: int, command: Any) -> str:
    values = ", ".join(
        f"{keyword} {_value(keyword, value)}"
        for keyword, value in command.items()
        if keyword not in ("CommandField", "CommandGroupLength", "CommandDataSetType")
    )
    behind = "; a data set follows" if command.has_data_set else ""
    return f"{command.name} in context {context_id}: {values}{behind}"


def _value(keyword: str, value: Any) -> str:
    if keyword == "Status":
        return f"0x{value:04X}"
    if keyword in ("AttributeIdentifierList", "OffendingElement"):
        tags = value if isinstance(value, tuple) else (value,)
        return " ".join(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in tags)
    return _named(value) if keyword.endswith("ClassUID") else printable(str(value))


def _pdu(pdu: Any) -> Iterator[str]:
    """What a PDU says: its first line, and those below it."""
    kind = PDU_NAMES.get(getattr(pdu, "kind", 0))
    if kind == "A-ASSOCIATE-RQ":
        yield f"{printable(pdu.calling_ae_title)} calls {printable(pdu.called_ae_title)}"
        for context in pdu.contexts:
            syntaxes = ", ".join(_named(uid) for uid in context.transfer_syntaxes)
            yield f"context {context.id}: {_named(context.abstract_syntax)} in {syntaxes}"
        yield from map(repr, pdu.user_information)
    elif kind == "A-ASSOCIATE-AC":
        yield f"{printable(pdu.called_ae_title)} accepts"
        for context in pdu.contexts:
            yield f"context {context.id}: {_result(context)}"
        yield from map(repr, pdu.user_information)
    elif kind == "A-ASSOCIATE-RJ":
        yield str(AssociationRejected(pdu.result, pdu.source, pdu.reason))
    elif kind == "A-ABORT":
        provider = f"service-provider, {ABORT_REASONS.get(pdu.reason, pdu.reason)}"
        yield provider if pdu.source == 2 else "service-user"


def _result(context: Any) -> str:
    if context.result:
        return _RESULTS.get(context.result, f"result {context.result}")
    return f"accepted in {_named(context.transfer_syntax)}"


def _named(uid: Any) -> str:
    from twisted_dimse.uids import name_of

    name = name_of(str(uid))
    return printable(name if name == uid else f"{name} ({uid})")
