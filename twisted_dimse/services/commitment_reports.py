"""What a storage commitment SCP reports, and how the report gets there (PS3.4 J.3.3).

outcome = CommitmentOutcome("2.25.7", (kept,), {missing: 0x0112})
reporter = Reporter(undelivered=...)
await reporter.deliver(Report(outcome, "ARCHIVE", "MODALITY"), peers.get, association)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydicom import Dataset
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_dimse.association import Association
from twisted_dimse.dimse.status import INVALID_ARGUMENT_VALUE, PROCESSING_FAILURE
from twisted_dimse.errors import ConnectionFailed, DimseError, StatusError
from twisted_dimse.services.calls import associated, deferred, the_reactor
from twisted_dimse.services.values import items, texts
from twisted_dimse.uids import (
    STORAGE_COMMITMENT_PUSH,
    STORAGE_COMMITMENT_PUSH_INSTANCE,
    is_valid_uid,
)

COMMITTED, FAILURES_EXIST = 1, 2  # event types

TRANSACTION_UID = 0x00081195
REFERENCED_SOP_SEQUENCE, FAILED_SOP_SEQUENCE = 0x00081199, 0x00081198
REFERENCED_SOP_CLASS_UID, REFERENCED_SOP_INSTANCE_UID = 0x00081150, 0x00081155
FAILURE_REASON = 0x00081197

DUPLICATE_TRANSACTION_UID = 0x0131
#: Why an instance is not committed (PS3.3 C.14.1.1).
FAILURE_REASONS = {
    0x0110: "Processing failure",
    0x0112: "No such SOP Instance",
    0x0213: "Resource limitation",
    0x0122: "Referenced SOP Class not supported",
    0x0119: "Class / Instance conflict",
    DUPLICATE_TRANSACTION_UID: "Duplicate Transaction UID",
}
NOT_MENTIONED = 0x0000  # stands for the reason that a report does not give

#: Seconds to wait before each further try to deliver a report.
RETRY_DELAYS = (1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 7200.0)

_log = Logger()


class Reference(NamedTuple):
    """An instance by its UIDs."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class CommitmentOutcome:
    """What an SCP says it keeps. `failed` has the reason for each of the others: one of
    `FAILURE_REASONS`, or `NOT_MENTIONED`."""

    transaction_uid: str
    committed: tuple[Reference, ...] = ()
    failed: Mapping[Reference, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.failed

    def of(self, asked: Iterable[Reference]) -> CommitmentOutcome:
        """The outcome for what was asked: what is neither committed nor failed counts as failed."""
        asked = tuple(dict.fromkeys(asked))
        committed = {each.sop_instance_uid for each in self.committed}
        reasons = {each.sop_instance_uid: reason for each, reason in self.failed.items()}
        kept = [each for each in asked if each.sop_instance_uid in committed]
        kept = [each for each in kept if each.sop_instance_uid not in reasons]
        failed = {
            each: reasons.get(each.sop_instance_uid, NOT_MENTIONED)
            for each in asked
            if each not in kept
        }
        return CommitmentOutcome(self.transaction_uid, tuple(kept), failed)

    @property
    def event_type(self) -> int:
        return COMMITTED if self.ok else FAILURES_EXIST

    def to_dataset(self) -> Dataset:
        """The event information (PS3.4 Table J.3-2)."""
        dataset = Dataset()
        dataset.TransactionUID = self.transaction_uid
        if self.committed:
            dataset.ReferencedSOPSequence = [_item(each) for each in self.committed]
        if self.failed:
            dataset.FailedSOPSequence = [_item(*pair) for pair in self.failed.items()]
        return dataset

    @classmethod
    def from_dataset(cls, dataset: Dataset | None) -> CommitmentOutcome:
        """Of event information. Raises `StatusError` 0x0115 where it is none."""
        transaction, committed = referenced(dataset)
        failed = {}
        for item in items(dataset or Dataset(), FAILED_SOP_SEQUENCE):
            reason = texts(item, FAILURE_REASON)
            failed[_reference(item)] = int(reason[0]) if reason else PROCESSING_FAILURE
        return cls(transaction, committed, failed)


def _item(reference: Reference, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference
    if reason is not None:
        item.FailureReason = reason
    return item


def referenced(dataset: Dataset | None) -> tuple[str, tuple[Reference, ...]]:
    """Transaction UID and references of a request or a report."""
    dataset = dataset or Dataset()
    transaction = texts(dataset, TRANSACTION_UID)
    if len(transaction) != 1 or not is_valid_uid(transaction[0]):
        raise StatusError(INVALID_ARGUMENT_VALUE, "no transaction UID")
    found = items(dataset, REFERENCED_SOP_SEQUENCE)
    return transaction[0], tuple(_reference(item) for item in found)


def _reference(item: Dataset) -> Reference:
    uids = (texts(item, tag) for tag in (REFERENCED_SOP_CLASS_UID, REFERENCED_SOP_INSTANCE_UID))
    try:
        (sop_class,), (instance,) = uids
    except ValueError:
        raise StatusError(INVALID_ARGUMENT_VALUE, "a reference without its UIDs") from None
    return Reference(sop_class, instance)


@dataclass(frozen=True, slots=True)
class Report:
    """An outcome on its way: from the title ``sender`` to the title ``receiver``."""

    outcome: CommitmentOutcome
    sender: str
    receiver: str


class Reporter:
    """Delivers reports: on the association of the request while it is open, else on a new one in
    which we propose the SCP role; after a failure again, ``delays`` seconds later each time.

    ``delivered`` is called with each report that the peer has taken, ``undelivered`` with one of
    which the last try has failed, and with the error of that. ``options`` are those of `connect`
    for the associations that are made. Where `elsewhere` is set, it takes the reports that cannot
    be delivered on the association of the request, and no associations are made here.
    """

    elsewhere: Callable[[Report], object] | None = None

    def __init__(
        self,
        *,
        reactor: Any = None,
        delays: Sequence[float] = RETRY_DELAYS,
        delivered: Callable[[Report], object] = lambda _report: None,
        undelivered: Callable[[Report, BaseException], object] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._reactor = the_reactor(reactor)
        self._delays = tuple(delays)
        self._delivered = delivered
        self._undelivered = undelivered
        self._options = dict(options or {})
        self._waiting: dict[Any, Report] = {}

    @property
    def waiting(self) -> tuple[Report, ...]:
        """The reports that have failed and will be tried again."""
        return tuple(self._waiting.values())

    def stop(self) -> tuple[Report, ...]:
        """Try no more; the reports that were not delivered."""
        waiting = self.waiting
        for call in self._waiting:
            call.cancel()
        self._waiting.clear()
        return waiting

    @deferred
    async def deliver(
        self,
        report: Report,
        destination: Callable[[str], Any],
        association: Association | None = None,
    ) -> bool:
        """Deliver a report now. Fires with whether that was done; where it was not, further tries
        follow. ``destination`` gives the `Peer` of an AE title, an awaitable of it, or None."""
        if association is not None and not association.closed.called:
            try:
                await self._send(association, report)
                self._delivered(report)
                return True
            except DimseError as error:
                _log.info(
                    "association {number}: no storage commitment report on it ({error})",
                    number=association.number,
                    error=error,
                )
        if self.elsewhere is not None:
            self.elsewhere(report)
            return False
        return await self._try(report, destination, 0)

    async def _try(self, report: Report, destination: Callable[[str], Any], tries: int) -> bool:
        try:
            await self._send_anew(report, destination)
        except Exception as error:
            self._failed(report, destination, tries, error)
            return False
        self._delivered(report)
        return True

    async def _send_anew(self, report: Report, destination: Callable[[str], Any]) -> None:
        peer = destination(report.receiver)
        if inspect.isawaitable(peer):
            peer = await peer
        if peer is None:
            raise ConnectionFailed(f"the address of {report.receiver} is not known here")
        async with associated(
            peer,
            contexts=[STORAGE_COMMITMENT_PUSH],
            roles={STORAGE_COMMITMENT_PUSH: "scp"},
            calling_ae_title=report.sender,
            reactor=self._reactor,
            **self._options,
        ) as association:
            await self._send(association, report)

    @staticmethod
    async def _send(association: Association, report: Report) -> None:
        await association.n_event_report(
            STORAGE_COMMITMENT_PUSH,
            STORAGE_COMMITMENT_PUSH_INSTANCE,
            report.outcome.event_type,
            report.outcome.to_dataset(),
        )

    def _failed(
        self, report: Report, destination: Callable[[str], Any], tries: int, error: Exception
    ) -> None:
        """Try again later, or give up."""
        last = tries >= len(self._delays)
        _log.warn(
            "storage commitment report to {receiver}, transaction {transaction}: {error}; {next}",
            receiver=report.receiver,
            transaction=report.outcome.transaction_uid,
            error=error,
            next="given up" if last else f"again in {self._delays[tries]:g} s",
        )
        if not last:
            self._try_later(report, destination, tries)
        elif self._undelivered is not None:
            self._undelivered(report, error)

    def _try_later(self, report: Report, destination: Callable[[str], Any], tries: int) -> None:
        def again() -> None:
            del self._waiting[call]
            Deferred.fromCoroutine(self._try(report, destination, tries + 1))

        call: Any = self._reactor.callLater(self._delays[tries], again)
        self._waiting[call] = report
