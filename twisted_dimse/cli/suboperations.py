"""What ``dimse get`` and ``dimse move`` show of sub-operations: a bar on a terminal, and at the end
what came of it."""

from __future__ import annotations

from types import TracebackType

from twisted_dimse.cli.bar import COUNT, TIME_LEFT
from twisted_dimse.cli.common import Common
from twisted_dimse.dimse.status import Category, category, meaning
from twisted_dimse.results import RetrieveOutcome


class RetrieveProgress:
    """The outcome so far of one C-GET or C-MOVE."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._outcome: RetrieveOutcome | None = None

    def __enter__(self) -> RetrieveProgress:
        self._common.show_bar("retrieving", COUNT, TIME_LEFT)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._common.bar.stop()

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
        done = outcome.completed + outcome.failed + outcome.warning
        self._common.bar.update(completed=done, total=(done + outcome.remaining) or None)

    def answered(self, status: int) -> None:
        """The peer said no, and nothing of sub-operations."""
        self.note(RetrieveOutcome(status))

    def summarize(self) -> None:
        """The last line, where anything is known."""
        self._common.bar.stop()
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


def _in_words(outcome: RetrieveOutcome) -> str:
    parts = [f"{outcome.completed} completed"]
    counts = (
        (outcome.failed, "failed"),
        (outcome.warning, "with warnings"),
        (outcome.remaining, "remaining"),
    )
    parts += [f"{count} {word}" for count, word in counts if count]
    text = ", ".join(parts)
    if category(outcome.status) is not Category.WARNING:
        return text  # any other end has a line of its own
    return f"{text}; status 0x{outcome.status:04X} ({meaning(outcome.status, 'C-MOVE')})"
