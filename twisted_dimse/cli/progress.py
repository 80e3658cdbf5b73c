"""What ``dimse store`` shows while it sends: a bar on a terminal, lines in a pipe."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from twisted_dimse.cli.bar import COUNT, TIME_LEFT
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

    def __enter__(self) -> StoreProgress:
        if self._common.shows_progress:
            total = sum(1 for _ in expand_paths(self._paths))
            self._common.show_bar(
                "sending", COUNT, "{task.fields[rate]}", TIME_LEFT, total=total, rate=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._common.bar.stop()

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
                self._common.complain(_complaint(outcome))
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
        self._common.bar.update(advance=1, rate=_rate(self.octets, self._common.bar.elapsed))

    def summarize(self, seconds: float) -> None:
        """The last line."""
        self._common.bar.stop()
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
        taken = f"{_size(self.octets)} in {seconds:.1f} s, {_rate(self.octets, seconds)}"
        self._common.say(f"{', '.join(parts)}; {taken}")


def _complaint(outcome: StoreOutcome) -> str:
    """What became of a file, with its name once."""
    error = outcome.error or ""
    return error if error.startswith(outcome.path) else f"{outcome.path}: {error}"


def _rate(octets: int, seconds: float) -> str:
    return f"{_size(octets / seconds if seconds else 0)}/s"


def _size(octets: float) -> str:
    """In the largest unit in which it is at least one."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if octets >= factor:
            return f"{octets / factor:.1f} {unit}"
    return f"{octets:.0f} octets"
