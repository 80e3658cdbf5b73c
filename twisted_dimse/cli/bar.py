"""A progress bar on standard error, for people who wait; gone when it is done.

    bar = Bar(True, "sending", COUNT, TIME_LEFT, total=3)
    bar.update(advance=1)
    bar.write("a line above it")
    bar.stop()

Its text has the terminal's own colour, which can be read on any ground.
"""

from __future__ import annotations

import sys
from typing import Any

import click

#: Columns: "3/7", and the time that is left or that it took so far.
COUNT, TIME_LEFT, TIME_TAKEN = "count", "time left", "time taken"
_PLAIN = ("progress.download", "progress.remaining", "progress.elapsed")


class Bar:
    """Where it is not ``shown``, or standard error is no terminal, nothing but the lines written.

    `columns` stand beside the bar: one of the above, or a format string of rich's ``task``.
    """

    def __init__(
        self, shown: bool, what: str, *columns: str, total: int | None = None, **fields: Any
    ) -> None:
        self._progress: Any = None
        if shown and sys.stderr.isatty():
            self._progress = _progress(what, columns)
            self._task = self._progress.add_task("", total=total, **fields)
            self._progress.start()

    @property
    def elapsed(self) -> float:
        """Seconds since it began; 0 where it is not shown."""
        return (self._progress.tasks[0].elapsed or 0.0) if self._progress is not None else 0.0

    def update(self, **values: Any) -> None:
        """Set ``completed``, ``total`` or a field, or ``advance``."""
        if self._progress is not None:
            self._progress.update(self._task, **values)

    def write(self, text: str, *, err: bool = False) -> None:
        """A line on standard output or standard error, above the bar where that is the terminal
        too. It is never folded, so that it can be copied."""
        if self._progress is None or not (err or sys.stdout.isatty()):
            click.echo(text, err=err)
        else:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Take it away; what is written from now on is written as it is."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _progress(what: str, columns: tuple[str, ...]) -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.theme import Theme

    known: dict[str, Any] = {
        COUNT: MofNCompleteColumn,
        TIME_LEFT: TimeRemainingColumn,
        TIME_TAKEN: TimeElapsedColumn,
    }
    beside = [known[name]() if name in known else TextColumn(name) for name in columns]
    theme = Theme({**dict.fromkeys(_PLAIN, "none"), "bar.back": "bright_black"})
    console = Console(stderr=True, theme=theme)
    return Progress(
        TextColumn(what),
        BarColumn(),
        *beside,
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
