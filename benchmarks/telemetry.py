"""C-ECHO with nobody subscribed to telemetry, and with a subscriber that counts events.

Without a subscriber no event is even made: what is left is one look at an empty tuple for each
event that might have been. The note says how long such a look takes here, to be set against the
CPU time of an echo; the difference of the two rates is what a subscriber costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from timeit import timeit

from benchmarks.echo import answering
from benchmarks.harness import OURS, Mark, Row, Run
from benchmarks.peers import Program, installed_library, our_library_server
from benchmarks.scratch import Settings
from twisted_dimse import telemetry

SUBSCRIBED = "a subscriber"
MARKS = (Mark(1.0, SUBSCRIBED),)


def rows(settings: Settings) -> list[Row]:
    """One server, twice."""
    counting = partial(our_library_server, subscribed=True)
    alone = Program("listen()", OURS, our_library_server, installed_library)
    heard = Program("listen(), subscribed", SUBSCRIBED, counting, installed_library)
    contestants = [
        alone.contestant(partial(_unheard, alone, settings)),
        heard.contestant(partial(answering, heard, settings)),
    ]
    title = "C-ECHO, server without a subscriber"
    return [Row("telemetry", title, "a second", contestants, MARKS)]


@contextmanager
def _unheard(program: Program, settings: Settings) -> Iterator[Run]:
    note = f"a look for subscribers takes {_look() * 1e9:.0f} ns"
    with answering(program, settings) as run:
        yield lambda: replace(run(), note=note)


def _look(times: int = 200_000) -> float:
    """Seconds that ``if telemetry.subscribers`` takes, the least of five tries."""
    there = {"telemetry": telemetry}
    tries = [timeit("if telemetry.subscribers: pass", globals=there, number=times)
             for _ in range(5)]  # fmt: skip
    return min(tries) / times
