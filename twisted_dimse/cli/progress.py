"""What ``dimse store`` shows while it sends: a bar on a terminal, lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from twisted_dimse.cli.common import Common
from twisted_dimse.datastream import expand_paths
from twisted_dimse.dimse.status import Category, category
from twisted_dimse.services.storage import StoreOutcome


class StoreProgress:
    """Counts outcomes, shows them, and says at the end what came of it."""

    def __init__(self, common: Common, paths: Iterable[str]) -> None:
        self._common = common
        self._paths = list(paths)
        self.sent = self.failed = self.warnings = self.skipped = self.octets = 0
        self._bar: Any = None
        self._task: Any = None
        self._summarized = False

    def __enter__(self) -> StoreProgress:
        common = self._common
        if sys.stderr.isatty() and not (common.as_json or common.quiet):
            self._start_bar()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, outcome: StoreOutcome) -> None:
        """One more file is done."""
        if outcome.skipped:
            self.skipped += 1
        elif outcome.ok:
            self.sent += 1
            self.octets += outcome.octets
            self.warnings += category(outcome.status or 0) is Category.WARNING
        else:
            self.failed += 1
            if not outcome.abandoned or self._common.verbose:
                self._common.complain(f"{outcome.path}: {outcome.error}")
        if not outcome.skipped:
            self._common.put(
                {
                    "path": outcome.path,
                    "sop_instance_uid": outcome.sop_instance_uid,
                    "status": outcome.status,
                    "error": outcome.error or None,
                }
            )
        elif self._common.verbose:
            self._common.complain(f"skipped {outcome.error}")
        if self._bar is not None:
            megabytes = self.octets / 1e6
            rate = megabytes / (self._bar.tasks[0].elapsed or 1)
            self._bar.update(self._task, advance=1, octets=megabytes, rate=rate)

    def summarize(self, seconds: float) -> None:
        """The last line."""
        if self._bar is not None:
            self._bar.stop()
        self._common.put(
            {
                "sent": self.sent,
                "failed": self.failed,
                "warnings": self.warnings,
                "skipped": self.skipped,
                "bytes": self.octets,
                "seconds": round(seconds, 3),
            }
        )
        parts = [f"{self.sent} sent"]
        for count, word in (
            (self.failed, "failed"),
            (self.warnings, "with warnings"),
            (self.skipped, "skipped"),
        ):
            if count:
                parts.append(f"{count} {word}")
        rate = self.octets / 1e6 / seconds if seconds else 0
        self._common.say(
            f"{', '.join(parts)}; {self.octets / 1e6:.1f} MB in {seconds:.1f} s, {rate:.0f} MB/s"
        )

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        self._bar = Progress(
            TextColumn("sending"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[octets]:.0f} MB, {task.fields[rate]:.1f} MB/s"),
            TimeLeft(),
            console=Console(stderr=True),
            transient=True,
        )
        total = sum(1 for _ in expand_paths(self._paths))
        self._task = self._bar.add_task("", total=total, octets=0.0, rate=0.0)
        self._bar.start()
