"""Storage commitment for the archive (PS3.4 J): what it holds, it promises to keep.

A report that is decided is kept in the database until its peer has taken it, and is delivered after
a restart if need be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydicom import Dataset
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_dimse.archive.handler import Archive
from twisted_dimse.dimse.status import CLASS_INSTANCE_CONFLICT, NO_SUCH_SOP_INSTANCE
from twisted_dimse.handler import Request
from twisted_dimse.services.commitment import (
    CommitmentHandler,
    CommitmentOutcome,
    Reference,
    Report,
)

_log = Logger()


class ArchiveCommitment(CommitmentHandler):
    """Storage commitment SCP of an `Archive`. ``peers`` says where the titles are that ask."""

    def __init__(self, archive: Archive, peers: Mapping[str, Any]) -> None:
        super().__init__(reactor=archive.reactor)
        self._archive = archive
        self._peers = peers
        self._under_way: set[str] = set()  # of the reports from the database

    def deliver_kept(self, transaction: str | None = None) -> Deferred[None]:
        """Deliver what an earlier run or another process could not: the report on a transaction,
        or all that are in the database and not under way already."""
        return Deferred.fromCoroutine(self._deliver_kept(transaction))

    async def commit(
        self, request: Request, references: Sequence[Reference]
    ) -> dict[str, int | None]:
        """Each instance that is on the disk, whatever ``--durability`` is, in the index, and of the
        SOP class that was named."""
        await self._archive.up_to_date()
        uids = [reference.sop_instance_uid for reference in references]
        kept = await self._archive.in_thread(self._archive.keep, uids)
        reasons: dict[str, int | None] = {}
        for sop_class, uid in references:
            if uid not in kept:
                reasons[uid] = NO_SUCH_SOP_INSTANCE
            else:
                reasons[uid] = None if kept[uid] == sop_class else CLASS_INSTANCE_CONFLICT
        return reasons

    def decided(self, report: Report) -> Deferred[Any]:
        text = json.dumps([report.sender, report.outcome.to_dataset().to_json_dict()])
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
            sender, event = json.loads(text)
            outcome = CommitmentOutcome.from_dataset(Dataset.from_json(event))
            found = outcome.transaction_uid
            if found in self._under_way or transaction not in (None, found):
                continue
            self._under_way.add(found)
            await self.reporter.deliver(Report(outcome, sender, receiver), self._peers.get)
