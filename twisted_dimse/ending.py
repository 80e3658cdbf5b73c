"""How an association ended: as an error for users, in the log, and for telemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from twisted_dimse import telemetry
from twisted_dimse.errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    ConnectionFailed,
    ConnectionLost,
    DimseError,
    ProtocolViolation,
    printable,
)
from twisted_dimse.upperlayer.provider import AbortIndication

if TYPE_CHECKING:
    from twisted_dimse.association import Association

_log = Logger()


def error_of(indication: AbortIndication, *, awaits_answer: bool) -> DimseError:
    """What users are told. ``awaits_answer``: we asked for the association, and had no answer."""
    if indication.lost:
        if awaits_answer:
            return ConnectionLost("it hung up without an answer. Perhaps this port takes TLS")
        return ConnectionLost("the connection was lost")
    if not indication.by_us:
        return AssociationAborted(indication.source, indication.reason)
    if indication.violation:
        return ProtocolViolation(indication.violation, indication.reason)
    return AssociationAborted(0, 0, by_us=True)


def report(association: Association, reason: DimseError | None, seconds: float) -> None:
    """One line for an association that is over, with its end in words and figures."""
    if telemetry.subscribers:
        _emit(association, reason, seconds)
    if isinstance(reason, ConnectionFailed):
        _log.info(
            "association {number}, {peer} at {address}: {why}",
            number=association.number,
            peer=association.peer or "nobody",
            address=_where(association),
            why=str(reason),
        )
        return
    protocol = association.protocol
    _log.info(
        "association {number}, {calling} at {address} to {called}: {how} after "
        "{what}, {size} in {seconds:.1f} s",
        number=association.number,
        calling=printable(association.calling_ae_title) or "nobody",
        address=_where(association),
        called=printable(association.called_ae_title) or "nobody",
        how="released" if reason is None else str(reason),
        what=_what_moved(association),
        messages=association.messages,
        instances=association.instances,
        size=_in_words(protocol.octets_received + protocol.octets_sent),
        seconds=seconds,
    )


def _where(association: Association) -> str:
    """Who connects through a Unix socket mostly has no name."""
    return association.address or "an unnamed address"


def _emit(association: Association, reason: DimseError | None, seconds: float) -> None:
    protocol = association.protocol
    if isinstance(reason, AssociationRejected):
        telemetry.emit(
            telemetry.AssociationNotMade(
                association.number, association.role, reason.result, reason.source, reason.reason
            )
        )
    how = "released" if reason is None else "aborted"
    by_us = isinstance(reason, (ProtocolViolation, AssociationTimeout))
    if isinstance(reason, (ConnectionLost, ConnectionFailed)):
        how = "lost"
    elif isinstance(reason, AssociationAborted):
        by_us = reason.by_us
    telemetry.emit(
        telemetry.AssociationEnded(
            association.number,
            association.role,
            how,
            by_us,
            str(reason or ""),
            association.messages,
            protocol.octets_received,
            protocol.octets_sent,
            seconds,
        )
    )


def _what_moved(association: Association) -> str:
    """Instances where there were some, for they are what an association is for."""
    count, what = association.instances, "instance"
    if not count:
        count, what = association.messages, "message"
    return f"{count} {what}{'s' * (count != 1)}"


def _in_words(octets: int) -> str:
    size = float(octets)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
