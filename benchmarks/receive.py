"""C-STORE received on one association and filed, or thrown away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from benchmarks.harness import DCMTK, PYNETDICOM, Mark, Row, Run, Sample
from benchmarks.instances import Shape, batch
from benchmarks.peers import DISCARDING_SERVERS, STORING_SERVERS, Program, Server, serving
from benchmarks.processes import Failed, usage
from benchmarks.raw_peer import RawClient, prepare
from benchmarks.scratch import KIB, MIB, Settings, take_away, warm


def rows(settings: Settings) -> list[Row]:
    """8 KiB, 512 KiB and one large instance to files, and 512 KiB thrown away."""
    large = settings.large // MIB
    return [
        _row(settings, "receive-8k", "receive 8 KiB", 8 * KIB, settings.small,
             marks=[Mark(0.9, DCMTK), Mark(10, PYNETDICOM)]),
        _row(settings, "receive-512k", "receive 512 KiB", 512 * KIB, settings.medium,
             marks=[Mark(1.0, DCMTK)]),
        _row(settings, "receive-large", f"receive one of {large} MiB", settings.large, 1,
             marks=[Mark(0.95, DCMTK)]),
        _row(settings, "discard-512k", "receive and discard 512 KiB", 512 * KIB,
             settings.medium, servers=DISCARDING_SERVERS),
    ]  # fmt: skip


def _row(
    settings: Settings, name: str, title: str, size: int, count: int, *,
    marks: Sequence[Mark] = (), servers: Sequence[Program] = STORING_SERVERS,
) -> Row:  # fmt: skip
    shape = Shape(size)
    filed = servers is STORING_SERVERS
    contestants = [
        program.contestant(
            partial(_receiving, program, settings, shape, program.part(count), filed)
        )
        for program in servers
    ]  # fmt: skip
    return Row(name, title, "a second" if count > 1 else "MB/s", contestants, marks)


@contextmanager
def _receiving(
    program: Program, settings: Settings, shape: Shape, count: int, filed: bool
) -> Iterator[Run]:
    with settings.new_folder() as folder, serving(program, folder) as server:
        yield partial(_send, server, shape, count, filed)


def _send(server: Server, shape: Shape, count: int, filed: bool) -> Sample:
    with RawClient(server.port) as client:
        messages = prepare(shape, batch(count), client.maximum)
        warm(server.folder, count * shape.size if filed else 0)
        before = usage(server.pid)
        seconds = client.store(messages)
        used = usage(server.pid) - before
    found = take_away(server.folder, shape.size)
    if filed and found != count:
        raise Failed(f"{found} files of full size instead of {count}")
    amount = count if count > 1 else shape.size / 1e6
    return Sample.rate(count, amount, seconds, used)
