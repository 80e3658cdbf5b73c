"""What operations come to: frozen values with the response's whole command set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twisted_dimse.dimse.command import CommandSet

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True, slots=True)
class Response:
    """The one response of a C-ECHO, a C-STORE or an N- operation (PS3.7 9.1, 10.1).

    `dataset` is the attribute list, event or action reply that came with it, or None; `request`
    the command set that was answered.
    """

    status: int
    command: CommandSet = field(repr=False)
    dataset: Dataset | None = None
    request: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def sop_instance_uid(self) -> str:
        """The Affected SOP Instance UID: of an N-CREATE, the one the peer assigned. Responses may
        leave it out; then it is that of the request."""
        return str(
            self.command.get("AffectedSOPInstanceUID")
            or self.request.get("AffectedSOPInstanceUID")
            or self.request.get("RequestedSOPInstanceUID")
            or ""
        )

    @property
    def comment(self) -> str:
        """The Error Comment; empty where there is none."""
        return str(self.command.get("ErrorComment") or "")


@dataclass(frozen=True, slots=True)
class RetrieveOutcome:
    """Sub-operations of a C-MOVE or C-GET, so far or in the end (PS3.4 C.4.2.1.6, C.4.3.1.5)."""

    status: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    remaining: int = 0
    failed_sop_instance_uids: tuple[str, ...] = ()
    command: CommandSet = field(default_factory=CommandSet, repr=False)

    @classmethod
    def of(cls, command: CommandSet, dataset: Any = None) -> RetrieveOutcome:
        """The counts of one response; where it leaves one out, that is 0."""
        failed = _uids(dataset.get("FailedSOPInstanceUIDList")) if dataset is not None else ()
        return cls(
            command["Status"],
            command.get("NumberOfCompletedSuboperations") or 0,
            command.get("NumberOfFailedSuboperations") or 0,
            command.get("NumberOfWarningSuboperations") or 0,
            command.get("NumberOfRemainingSuboperations") or 0,
            failed,
            command,
        )


def _uids(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    return (str(value),) if isinstance(value, str) else tuple(str(uid) for uid in value)
