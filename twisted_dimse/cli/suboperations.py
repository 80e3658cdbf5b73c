"""What ``dimse get`` and ``dimse move`` show of sub-operations: a bar on a terminal, and at the end
what came of it."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from twisted_dimse.cli.common import Common
from twisted_dimse.dimse.status import Category, category, meaning
from twisted_dimse.results import RetrieveOutcome


class RetrieveProgress:
    """The outcome so far of one C-GET or C-MOVE."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._outcome: RetrieveOutcome | None = None
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> RetrieveProgress:
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
        self._stop_bar()

    @property
    def exit_status(self) -> int:
        """0 where all went well, warnings included."""
        outcome = self._outcome
        if outcome is None or outcome.failed:
            return 1
        return int(category(outcome.status) not in (Category.SUCCESS, Category.WARNING))

    def note(self, outcome: RetrieveOutcome) -> None:
        """How far it is."""
        self._outcome = outcome
        if self._bar is not None:
            done = outcome.completed + outcome.failed + outcome.warning
            self._bar.update(self._task, completed=done, total=(done + outcome.remaining) or None)

    def answered(self, status: int) -> None:
        """The peer said no, and nothing of sub-operations."""
        self.note(RetrieveOutcome(status))

    def summarize(self) -> None:
        """The last line, where anything is known."""
        self._stop_bar()
        outcome = self._outcome
        if outcome is None:
            return
        self._common.put(
            {
                "status": outcome.status,
                "completed": outcome.completed,
                "failed": outcome.failed,
                "warning": outcome.warning,
                "remaining": outcome.remaining,
                "failed_sop_instance_uids": list(outcome.failed_sop_instance_uids),
            }
        )
        for uid in outcome.failed_sop_instance_uids:
            self._common.complain(f"failed: {uid}")
        self._common.say(_in_words(outcome))

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        columns = (TextColumn("retrieving"), BarColumn(), MofNCompleteColumn(), TimeLeft())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("", total=None)
        self._bar.start()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _in_words(outcome: RetrieveOutcome) -> str:
    parts = [f"{outcome.completed} completed"]
    counts = (
        (outcome.failed, "failed"),
        (outcome.warning, "with warnings"),
        (outcome.remaining, "remaining"),
    )
    parts += [f"{count} {word}" for count, word in counts if count]
    text = ", ".join(parts)
    if category(outcome.status) is Category.SUCCESS:
        return text
    return f"{text}; status 0x{outcome.status:04X} ({meaning(outcome.status, 'C-MOVE')})"
