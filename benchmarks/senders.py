"""C-STORE from eight senders at once, filed by one process of ours, by two, and by DCMTK's many.

Each sender is a process of its own with one association. All begin together when each has its
association, and the time runs until the last has its last answer.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from time import perf_counter

from benchmarks.harness import DCMTK, Mark, Row, Run, Sample
from benchmarks.instances import Instance, Shape, batch
from benchmarks.peers import Command, Program, Server, dcmtk, of_dcmtk, our_server, ours, serving
from benchmarks.processes import Failed, usage
from benchmarks.raw_find import STUDY_UID, Asker, question
from benchmarks.raw_peer import RawClient, prepare
from benchmarks.scratch import KIB, Settings, take_away, warm

SENDERS = 8
_PATIENCE = 60.0  # seconds


def rows(settings: Settings) -> list[Row]:
    """8 KiB and 512 KiB, by one process and by two."""
    return [
        _row(settings, f"senders-{name}{suffix}", size, count, ourselves, Mark(least, DCMTK))
        for name, size, count in (
            ("small", 8 * KIB, settings.small),
            ("medium", 512 * KIB, settings.medium),
        )
        for suffix, ourselves, least in (("", ONE_PROCESS, 0.8), ("-workers", TWO_WORKERS, 1.0))
    ]


def _row(
    settings: Settings, name: str, size: int, count: int, ourselves: Program, mark: Mark
) -> Row:
    contestants = [
        program.contestant(partial(receiving, program, settings, Shape(size), count))
        for program in (ourselves, STORESCP)
    ]
    title = f"receive {size // KIB} KiB from {SENDERS} senders at once"
    return Row(name, title, "a second", contestants, [mark])


def _two_workers(port: int, folder: Path) -> Command:
    return our_server(port, folder, "--workers", "2")


def _storescp(port: int, folder: Path) -> Command:
    return [dcmtk("storescp")[0], "--fork", "+B", "-od", str(folder), "-pdu", "131072", str(port)]


ONE_PROCESS = ours("dimse-scp", our_server)
TWO_WORKERS = ours("dimse-scp --workers 2", _two_workers)
STORESCP = of_dcmtk("storescp --fork +B", _storescp)


@contextmanager
def receiving(
    program: Program, settings: Settings, shape: Shape, count: int, number: int = SENDERS, *,
    on_disk: bool = False, indexed: bool = False,
) -> Iterator[Run]:  # fmt: skip
    """A server; each run has ``number`` senders store ``count`` instances between them.

    With ``indexed`` a query for a study of each sender has to find it after the last answer; how
    long that took is in the note.
    """
    count = program.part(count)
    with settings.new_folder(on_disk=on_disk) as folder, serving(program, folder) as server:
        yield partial(_send, server, shape, count, number, indexed)


def _send(server: Server, shape: Shape, count: int, number: int, indexed: bool) -> Sample:
    each = max(1, count // number)
    parts = [batch(each) for _ in range(number)]
    with senders(server.port, shape, parts) as pipes:
        warm(server.folder, each * number * shape.size)
        before = usage(server.pid)
        begun = perf_counter()
        for pipe in pipes:
            pipe.send(None)
        seconds = [said(pipe) for pipe in pipes]
        took = perf_counter() - begun
        used = usage(server.pid) - before
    slowest, fastest = max(seconds), min(seconds)
    note = f"senders took {fastest:.2f} to {slowest:.2f} s"
    if indexed:
        note += f", indexed {_until_found(server, parts):.2f} s later"
    found = take_away(server.folder, shape.size)
    if found != each * number:
        raise Failed(f"{found} files of full size instead of {each * number}")
    return Sample.rate(found, found, took, used, note)


def _until_found(server: Server, parts: Sequence[Sequence[Instance]]) -> float:
    """The seconds in which a query finds a study of each part."""
    studies = [part[0].study_uid for part in parts]
    with Asker(server.port) as asker:
        seconds, found = asker.find(question({STUDY_UID: "\\".join(studies)}))
    if found != len(studies):
        raise Failed(f"{found} studies are found instead of {len(studies)}")
    return seconds


@contextmanager
def senders(port: int, shape: Shape, parts: Sequence[list[Instance]]) -> Iterator[list[Connection]]:
    """The pipes of senders, one for each part, that have an association each and wait for a word
    to begin."""
    fork = multiprocessing.get_context("fork")
    pipes: list[Connection] = []
    processes: list[ForkProcess] = []
    try:
        for part in parts:
            pipe, theirs = fork.Pipe()
            words = (theirs, port, shape, part)
            process = fork.Process(target=_sender, args=words, daemon=True)
            process.start()
            theirs.close()
            pipes.append(pipe)
            processes.append(process)
        for pipe in pipes:
            said(pipe)
        yield pipes
        for process in processes:
            process.join(_PATIENCE)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()


def _sender(pipe: Connection, port: int, shape: Shape, instances: list[Instance]) -> None:
    """In a process of its own: ready, then the seconds that it took."""
    with RawClient(port) as client:
        messages = prepare(shape, instances, client.maximum)
        pipe.send(0.0)
        pipe.recv()
        pipe.send(client.store(messages))


def said(pipe: Connection) -> float:
    """The next that a sender says: 0 when it is ready, then the seconds that its work took."""
    if not pipe.poll(_PATIENCE):
        raise Failed(f"a sender is not done within {_PATIENCE:.0f} s")
    try:
        return float(pipe.recv())
    except EOFError as error:
        raise Failed("a sender failed") from error
