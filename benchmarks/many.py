"""64, 200 and 1,000 associations at once: all of them echoing, and what each of them takes.

One process holds them all (`crowd`); each sends its next C-ECHO when the one before is answered.
Every answer is counted, and so is how long it took. ``storescp --fork`` has a process for each,
whose CPU time is mostly below the 10 ms that the kernel counts in, so its CPU figures are too low.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.crowd import allow_files, crowd
from benchmarks.harness import DCMTK, OURS, Mark, Row, Run, Sample
from benchmarks.peers import (
    ON_UVLOOP,
    Command,
    Program,
    Server,
    dcmtk,
    installed_uvloop,
    of_dcmtk,
    on_uvloop,
    our_server,
    ours,
    serving,
)
from benchmarks.processes import usage
from benchmarks.scratch import Settings

SIZES = (64, 200, 1000)
LEAST_ROUNDS = 5
MARKS = (Mark(1.0, DCMTK),)
LATEST = 50.0  # milliseconds that 99 of 100 answers may take, on the fewest associations
IDLE, MOST_EACH = 1000, 40.0  # associations, KiB


def rows(settings: Settings) -> list[Row]:
    """The rates, then the memory of an association that does nothing."""
    ourselves = our_servers()
    workers = ours("dimse-scp --workers 2", _two_workers)
    servers = [*ourselves, workers, of_dcmtk("storescp --fork", _storescp)]
    found = []
    for size in SIZES:
        contestants = [one.contestant(partial(_answering, one, settings, size)) for one in servers]
        title = f"C-ECHO on {size:,} associations at once"
        found.append(Row(f"many-{size}", title, "a second", contestants, MARKS))
    idle = [one.contestant(partial(idling, one, settings, IDLE)) for one in ourselves]
    title = f"memory of each of {IDLE:,} idle associations"
    return [*found, Row("many-memory", title, "KiB", idle, [Mark(MOST_EACH)])]


def our_servers() -> list[Program]:
    """Ours, on both reactors, for as many associations as are asked for."""
    return [
        ours("dimse-scp", _our_server),
        Program(ON_UVLOOP, OURS, _our_server_on_uvloop, installed_uvloop),
    ]


def _our_server(port: int, folder: Path) -> Command:
    return our_server(port, folder, "--max-associations", str(2 * max(SIZES)))


def _two_workers(port: int, folder: Path) -> Command:
    return [*_our_server(port, folder), "--workers", "2"]


def _our_server_on_uvloop(port: int, folder: Path) -> Command:
    return on_uvloop(_our_server(port, folder))


def _storescp(port: int, folder: Path) -> Command:
    return [dcmtk("storescp")[0], "--fork", "+B", "-od", str(folder), "-pdu", "131072", str(port)]


@contextmanager
def _answering(program: Program, settings: Settings, size: int) -> Iterator[Run]:
    allow_files(size)
    with settings.new_folder() as folder, serving(program, folder) as server:
        yield partial(_ask, server, size, max(settings.echoes // size, LEAST_ROUNDS))


def _ask(server: Server, size: int, rounds: int) -> Sample:
    with crowd(server.port, size) as clients:
        before = usage(server.pid)
        seconds, waits = clients.echo(rounds)
        used = usage(server.pid) - before
    bound = f", to be under {LATEST:.0f}" if size == min(SIZES) else ""
    median, late = (1e3 * waits[len(waits) * percent // 100] for percent in (50, 99))
    note = f"answered in {median:.1f} ms (median), {late:.1f} ms (p99{bound}); "
    note += f"opened in {clients.opened:.1f} s"
    return Sample.rate(len(waits), len(waits), seconds, used, note)


@contextmanager
def idling(program: Program, settings: Settings, size: int) -> Iterator[Run]:
    """What each of ``size`` associations takes of a server of ours."""
    allow_files(size)
    yield partial(_hold, program, settings, size)


def _hold(program: Program, settings: Settings, size: int) -> Sample:
    """A server of its own each time: one that had many before has memory to spare."""
    with settings.new_folder() as folder, serving(program, folder) as server:
        before = usage(server.pid)
        with crowd(server.port, size) as clients:
            used = usage(server.pid) - before
    each = (used.resident - before.resident) * 1024 / size
    return Sample(each, size, clients.opened, used.user, used.system)
