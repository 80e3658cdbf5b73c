"""Associations opened and released, 32 at once, nothing else done on them.

One process opens and releases them all (`visits`), fewer of them for pynetdicom.
``storescp --fork`` starts a process for each; its CPU figures are too low, see `many`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks.harness import DCMTK, PYNETDICOM, Mark, Row, Run, Sample
from benchmarks.many import our_servers
from benchmarks.peers import STORING_SERVERS, Program, Server, serving
from benchmarks.processes import usage
from benchmarks.scratch import Settings
from benchmarks.senders import STORESCP, TWO_WORKERS
from benchmarks.visits import visits

AT_ONCE = 32
MARKS = (Mark(5, DCMTK), Mark(10, PYNETDICOM))


def rows(settings: Settings) -> list[Row]:
    """Our server on both reactors and with two workers, DCMTK's and pynetdicom's."""
    servers = [*our_servers(), TWO_WORKERS, STORESCP, STORING_SERVERS[-1]]
    contestants = [one.contestant(partial(_serving, one, settings)) for one in servers]
    title = f"associations opened and released, {AT_ONCE} at once"
    return [Row("associations", title, "a second", contestants, MARKS)]


@contextmanager
def _serving(program: Program, settings: Settings) -> Iterator[Run]:
    count = max(program.part(settings.visits), 2 * AT_ONCE)
    with settings.new_folder() as folder, serving(program, folder) as server:
        yield partial(_visit, server, count)


def _visit(server: Server, count: int) -> Sample:
    before = usage(server.pid)
    seconds, times = visits(server.port, count, AT_ONCE)
    used = usage(server.pid) - before
    median, late = (1e3 * times[len(times) * percent // 100] for percent in (50, 99))
    note = f"each in {median:.1f} ms (median), {late:.1f} ms (p99)"
    return Sample.rate(len(times), len(times), seconds, used, note)
