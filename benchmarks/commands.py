"""C-STORE of many files by one command from the shell, its start and its end included.

The lean server takes them all on one association with PDUs of 128 KiB. Of 5,000 files 500 are
distinct, and each of these has ten names (hard links), so that they fit into little memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.clients import from_start_to_end
from benchmarks.harness import DCMTK, Mark, Row, Run, Sample
from benchmarks.instances import Shape
from benchmarks.peers import STORING_CLIENTS, Program
from benchmarks.processes import Failed, usage_of_ended
from benchmarks.raw_peer import RawServer
from benchmarks.scratch import KIB, Settings, warm
from benchmarks.start import compile_modules

DISTINCT, NAMES = 500, 10
FEW_TARGET, MANY_TARGET = 0.4, 1.0


def rows(settings: Settings) -> list[Row]:
    """500 files, of which the start is a good part, and 5,000."""
    distinct = DISTINCT // 10 if settings.quick else DISTINCT
    return [
        _row(settings, distinct, 1, FEW_TARGET),
        _row(settings, distinct, NAMES, MANY_TARGET),
    ]


def _row(settings: Settings, distinct: int, names: int, target: float) -> Row:
    contestants = [
        program.contestant(partial(_sending, program, settings, distinct, names))
        for program in (STORING_CLIENTS[0], STORING_CLIENTS[2])
    ]
    count = distinct * names
    title = f"send {count:,} × 512 KiB, the whole command"
    return Row(f"command-{count}", title, "a second", contestants, [Mark(target, DCMTK)])


@contextmanager
def _sending(program: Program, settings: Settings, distinct: int, names: int) -> Iterator[Run]:
    compile_modules()
    shape = Shape(512 * KIB)
    files = settings.files(shape, distinct, names=names)
    with RawServer() as server:
        yield partial(_receive, program, server, shape, files, distinct * names)


def _receive(program: Program, server: RawServer, shape: Shape, files: Path, count: int) -> Sample:
    warm(files.parent, min(count, DISTINCT) * shape.size)
    before = usage_of_ended()
    seconds, came = from_start_to_end(program, server, [files, count])
    if came.messages != count or came.octets != count * shape.size:
        raise Failed(f"{came.messages} instances, {came.octets} octets instead of "
                     f"{count}, {count * shape.size}")  # fmt: skip
    note = f"{came.seconds:.2f} s of it from the first instance to the last"
    return Sample.rate(count, count, seconds, usage_of_ended() - before, note)
