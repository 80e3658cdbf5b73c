"""Storage commitment for the archive (PS3.4 J): what it holds, it promises to keep.

A request is kept in the database before it is answered, and then the report on it until its peer
has taken that; after a restart it is decided and delivered if need be. While the database is gone,
what was answered waits for it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydicom import Dataset
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_dimse.archive.handler import Archive
from twisted_dimse.dimse.status import (
    CLASS_INSTANCE_CONFLICT,
    NO_SUCH_SOP_INSTANCE,
    OUT_OF_RESOURCES,
    RESOURCE_LIMITATION,
)
from twisted_dimse.errors import StatusError
from twisted_dimse.handler import Request
from twisted_dimse.services.commitment import (
    CommitmentHandler,
    CommitmentOutcome,
    Reference,
    Report,
    outcome_of,
)

# Seconds until the index is asked again where it cannot be used; the last one goes on.
_DELAYS = (5.0, 10.0, 20.0, 40.0, 60.0)

_log = Logger()


class ArchiveCommitment(CommitmentHandler):
    """Storage commitment SCP of an `Archive`. ``peers`` says where the titles are that ask."""

    def __init__(self, archive: Archive, peers: Mapping[str, Any]) -> None:
        super().__init__(reactor=archive.reactor)
        self._archive = archive
        self._peers = peers
        self._under_way: set[str] = set()  # of the reports from the database

    def deliver_kept(self, transaction: str | None = None) -> Deferred[None]:
        """Decide and deliver what an earlier run or another process could not: the report on a
        transaction, or all that are in the database and not under way already."""
        return Deferred.fromCoroutine(self._once_usable(self._deliver_kept, transaction))

    async def commit(
        self, request: Request, references: Sequence[Reference]
    ) -> dict[str, int | None]:
        reasons: dict[str, int | None] = await self._once_usable(self._reasons, references)
        return reasons

    async def _once_usable(self, function: Callable[[Any], Any], value: Any) -> Any:
        """What a function that asks the index comes to, as soon as the index can be used."""
        delays = itertools.chain(_DELAYS, itertools.repeat(_DELAYS[-1]))
        while True:
            try:
                return await function(value)
            except StatusError as error:
                if error.status != OUT_OF_RESOURCES:
                    raise
            await deferLater(self._archive.reactor, next(delays))

    async def _reasons(self, references: Sequence[Reference]) -> dict[str, int | None]:
        """Each instance that is on the disk, whatever ``--durability`` is, in the index, and of the
        SOP class that was named."""
        kept = await self._archive.kept([reference.sop_instance_uid for reference in references])
        reasons: dict[str, int | None] = {}
        for sop_class, uid in references:
            if uid not in kept:
                reasons[uid] = NO_SUCH_SOP_INSTANCE
            else:
                reasons[uid] = None if kept[uid] == sop_class else CLASS_INSTANCE_CONFLICT
        return reasons

    async def requested(
        self, request: Request, transaction_uid: str, references: tuple[Reference, ...]
    ) -> None:
        association = request.association
        asked = CommitmentOutcome(transaction_uid, references)
        report = Report(asked, association.called_ae_title, association.calling_ae_title)
        try:
            await self._keep(report, decided=False)
        except StatusError as error:
            raise StatusError(RESOURCE_LIMITATION, error.comment) from error

    def decided(self, report: Report) -> Deferred[Any]:
        return self._keep(report, decided=True)

    def _keep(self, report: Report, *, decided: bool) -> Deferred[Any]:
        text = json.dumps([report.sender, report.outcome.to_dataset().to_json_dict(), decided])
        transaction = report.outcome.transaction_uid
        keep = self._archive.index.keep_report
        return self._archive.in_thread(keep, transaction, report.receiver, text)

    def delivered(self, report: Report) -> None:
        transaction = report.outcome.transaction_uid
        self._under_way.discard(transaction)
        forgotten = self._archive.in_thread(self._archive.index.forget_report, transaction)
        forgotten.addErrback(
            lambda failure: _log.error(
                "storage commitment {transaction}: stays in the database: {error}",
                transaction=transaction,
                error=failure.value,
            )
        )

    def undelivered(self, report: Report, error: BaseException) -> None:
        self._under_way.discard(report.outcome.transaction_uid)

    async def _deliver_kept(self, transaction: str | None) -> None:
        kept = await self._archive.in_thread(self._archive.index.kept_reports)
        for receiver, text in kept:
            report, is_decided = _kept_report(receiver, text)
            found = report.outcome.transaction_uid
            under_way = found in self._under_way or self.is_in_progress(receiver, found)
            if under_way or transaction not in (None, found):
                continue
            self._under_way.add(found)
            try:
                if not is_decided:
                    report = await self._decide_kept(report)
            except BaseException:
                self._under_way.discard(found)
                raise
            await self.reporter.deliver(report, self._peers.get)

    async def _decide_kept(self, asked: Report) -> Report:
        """The report on a request that was answered and not decided."""
        transaction, references = asked.outcome.transaction_uid, asked.outcome.committed
        outcome = outcome_of(transaction, references, await self._reasons(references))
        report = Report(outcome, asked.sender, asked.receiver)
        await self.decided(report)
        return report


def _kept_report(receiver: str, text: str) -> tuple[Report, bool]:
    """A report as it is in the database, and whether it is decided. An undecided one has all that
    is asked for as committed."""
    sender, event, *rest = json.loads(text)
    outcome = CommitmentOutcome.from_dataset(Dataset.from_json(event))
    return Report(outcome, sender, receiver), rest != [False]
