"""C-STORE sent on one association; transfer time, from the first request to the last response."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.clients import transfer
from benchmarks.harness import DCMTK, PYNETDICOM, Mark, Row, Run, Sample
from benchmarks.instances import Shape
from benchmarks.peers import STORING_CLIENTS, Program
from benchmarks.processes import Failed
from benchmarks.raw_peer import RawServer
from benchmarks.scratch import KIB, MIB, Settings, warm


def rows(settings: Settings) -> list[Row]:
    """8 KiB, 512 KiB and one large instance, to a peer that takes 16 KiB and 128 KiB PDUs."""
    large = settings.large // MIB
    work = [
        ("send-8k", "send 8 KiB", 8 * KIB, settings.small),
        ("send-512k", "send 512 KiB", 512 * KIB, settings.medium),
        ("send-large", f"send one of {large} MiB", settings.large, 1),
    ]
    return [
        _row(settings, f"{name}-pdu{pdu}", f"{title}, PDUs of {pdu} KiB", size, count, pdu * KIB)
        for name, title, size, count in work
        for pdu in (16, 128)
    ]


def _row(settings: Settings, name: str, title: str, size: int, count: int, maximum: int) -> Row:
    shape = Shape(size)
    contestants = [
        program.contestant(
            partial(_sending, program, settings, shape, program.part(count), maximum)
        )
        for program in STORING_CLIENTS
    ]  # fmt: skip
    marks = [Mark(1.3, DCMTK)] + [Mark(10, PYNETDICOM)] * (size == 8 * KIB)
    return Row(name, title, "a second" if count > 1 else "MB/s", contestants, marks)


@contextmanager
def _sending(
    program: Program, settings: Settings, shape: Shape, count: int, maximum: int
) -> Iterator[Run]:
    files = settings.files(shape, count)
    with RawServer(maximum) as server:
        yield partial(_receive, program, server, shape, files, count)


def _receive(program: Program, server: RawServer, shape: Shape, files: Path, count: int) -> Sample:
    warm(files.parent, count * shape.size)
    result = transfer(program, server, [files, count])
    if result.messages != count or result.octets < count * shape.size:
        raise Failed(f"{result.messages} instances, {result.octets} octets instead of "
                     f"{count}, {count * shape.size}")  # fmt: skip
    amount = count if count > 1 else shape.size / 1e6
    return Sample.rate(count, amount, result.seconds, result.after - result.before)
