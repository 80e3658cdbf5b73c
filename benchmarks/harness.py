"""Rows of contestants, measured in turns; what a row gives is plain JSON.

    row = Row("echo-server", "C-ECHO, server side", "a second", contestants, marks)
    result = measure(row, runs=5)

A contestant that is not there, or does not start, keeps its place in the result with a note
instead of figures. One that fails in a turn is started anew for the next, and the note tells.
"""

from __future__ import annotations

import signal
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Any

from benchmarks.processes import Bystanders, Failed, Usage
from benchmarks.wire import WireError

OURS, DCMTK, PYNETDICOM = "twisted-dimse", "DCMTK", "pynetdicom"

DISTURBED = 0.15  # cores that others may keep busy before a turn is worth another try

Result = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: ``value`` in the row's unit, for ``work`` messages in ``seconds`` of wall time,
    ``user`` and ``system`` CPU seconds of the process under measure; ``others`` is the number of
    cores that the rest of the machine kept busy meanwhile; ``note`` stands beside the figure."""

    value: float
    work: int
    seconds: float
    user: float
    system: float
    others: float = 0.0
    note: str = ""

    @classmethod
    def rate(cls, work: int, amount: float, seconds: float, used: Usage, note: str = "") -> Sample:
        """``amount`` a second: messages, or megabytes of few messages."""
        return cls(amount / seconds, work, seconds, used.user, used.system, note=note)


Run = Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who is measured, and how: ``ready()`` is entered once, what it gives is called each turn.

    ``missing`` says in a few words why the contestant cannot take part, or None.
    """

    name: str
    party: str
    ready: Callable[[], AbstractContextManager[Run]]
    missing: Callable[[], str | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Mark:
    """What is to be reached: a ratio of medians, ours to ``against`` (a party) of at least
    ``target``; without ``against``, a median of ours of at most ``target``.

    One with ``of``, a contestant of ours, is for that one instead of the mark for all of them.
    """

    target: float
    against: str | None = None
    of: str | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """Where a row stands on the curve of a title; ``axis`` says what ``at`` counts."""

    curve: str
    axis: str
    at: int


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. ``unit`` follows the figure ("a second", "MB/s", "MiB")."""

    name: str
    title: str
    unit: str
    contestants: Sequence[Contestant]
    marks: Sequence[Mark] = ()
    runs: int | None = None  # where the row needs other than the usual number
    point: Point | None = None


def _undisturbed(run: Run) -> Sample:
    bystanders = Bystanders()
    sample = run()
    return replace(sample, others=bystanders.cores())


@dataclass(slots=True)
class _Place:
    """A contestant in a row that is being measured."""

    contestant: Contestant
    stack: ExitStack = field(default_factory=ExitStack)
    run: Run | None = None
    samples: list[Sample] = field(default_factory=list)
    note: str | None = None
    failures: int = 0

    def guarded(self, seconds: float, work: Callable[[], None]) -> None:
        """Do ``work`` within its time; a failure becomes the note, and stops the contestant."""
        try:
            with self.stack, time_limit(seconds):
                work()
                self.stack = self.stack.pop_all()
        except (Failed, WireError, OSError, ValueError) as error:
            self.run, self.note = None, str(error)
            self.failures += 1

    def start(self) -> None:
        self.run = self.stack.enter_context(self.contestant.ready())

    def end(self) -> None:
        self.stack.close()

    def take_turn(self, patience: float = 0.0) -> None:
        """One more sample; one that was disturbed is taken again for ``patience`` seconds, and
        the least disturbed counts."""
        if self.run is None:
            self.start()
        assert self.run is not None
        deadline = monotonic() + patience
        best = _undisturbed(self.run)
        while best.others > DISTURBED and monotonic() < deadline:
            best = min(best, _undisturbed(self.run), key=lambda sample: sample.others)
        self.samples.append(best)

    @property
    def takes_part(self) -> bool:
        """Whether it is there, and has not failed twice."""
        return self.run is not None or 0 < self.failures < 2


def measure(
    row: Row,
    runs: int,
    *,
    patience: float = 0.0,
    limit: float = 180.0,
    say: Say = lambda _: None,
) -> Result:
    """All contestants of a row in turns, ``runs`` times; no turn longer than ``limit`` seconds,
    and ``patience`` more where others disturb it."""
    places = [_Place(contestant) for contestant in row.contestants]
    with ExitStack() as everything:
        for place in places:
            place.note = place.contestant.missing()
            if place.note is None:
                place.guarded(limit, place.start)
            everything.callback(place.guarded, limit, place.end)
        for turn in range(row.runs or runs):
            for place in places:
                if place.takes_part:
                    say(f"{row.name}: run {turn + 1}, {place.contestant.name}")
                    place.guarded(limit + patience, partial(place.take_turn, patience))
    return _result(row, places)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `Failed` in the main thread when the body takes longer."""

    def expired(*_: object) -> None:
        raise Failed(f"not done within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _result(row: Row, places: Sequence[_Place]) -> Result:
    return {
        "name": row.name,
        "title": row.title,
        "unit": row.unit,
        "marks": [asdict(mark) for mark in row.marks],
        **({"point": asdict(row.point)} if row.point else {}),
        "contestants": [_figures(place) for place in places],
    }


def _figures(place: _Place) -> Result:
    figures: Result = {"name": place.contestant.name, "party": place.contestant.party}
    if place.note is not None:
        figures["note"] = place.note
    figures["failures"] = place.failures
    if place.samples:
        figures["samples"] = [asdict(sample) for sample in place.samples]
        figures["median"] = statistics.median(sample.value for sample in place.samples)
    return figures
