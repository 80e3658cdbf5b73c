"""Peak resident memory above the idle process, for one huge instance in, and out.

Idle is the resident memory of a server that has served one association, or of a client when its
first request arrives; the peak is the kernel's high-water mark (VmHWM) at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.clients import transfer
from benchmarks.harness import Mark, Row, Run, Sample
from benchmarks.instances import Shape, batch
from benchmarks.peers import STORING_CLIENTS, STORING_SERVERS, Program, Server, serving
from benchmarks.processes import Failed, Usage, reset_peak, usage
from benchmarks.raw_peer import LONGEST_PDU, RawClient, RawServer, prepare
from benchmarks.scratch import MIB, Settings, take_away

MARKS = (Mark(64.0),)
_IN_MEMORY = ("pynetdicom storescp", "pynetdicom storescu")  # they hold an instance thrice


def rows(settings: Settings) -> list[Row]:
    """One instance into each server, and out of each client."""
    shape = Shape(settings.huge)
    size = f"{settings.huge // MIB} MiB"
    servers = [program.contestant(partial(_receiving, program, settings, shape))
               for program in STORING_SERVERS if program.name not in _IN_MEMORY]  # fmt: skip
    clients = [program.contestant(partial(_sending, program, settings, shape))
               for program in STORING_CLIENTS if program.name not in _IN_MEMORY]  # fmt: skip
    return [
        Row("memory-server", f"memory above idle, one of {size} in", "MiB", servers, MARKS),
        Row("memory-client", f"memory above idle, one of {size} out", "MiB", clients, MARKS),
    ]


@contextmanager
def _receiving(program: Program, settings: Settings, shape: Shape) -> Iterator[Run]:
    with settings.new_folder() as folder, serving(program, folder) as server:
        idle = usage(server.pid)
        yield partial(_send, server, shape, idle)


def _send(server: Server, shape: Shape, idle: Usage) -> Sample:
    with RawClient(server.port) as client:
        messages = prepare(shape, batch(1), client.maximum)
        reset_peak(server.pid)
        before = usage(server.pid)
        seconds = client.store(messages)
        used = usage(server.pid) - before
    if take_away(server.folder, shape.size) != 1:
        raise Failed("no file of full size")
    return Sample(used.peak - idle.resident, 1, seconds, used.user, used.system)


@contextmanager
def _sending(program: Program, settings: Settings, shape: Shape) -> Iterator[Run]:
    files = settings.files(shape, 1, sparse=True)
    with RawServer(LONGEST_PDU) as server:
        yield partial(_receive, program, server, shape, files)


def _receive(program: Program, server: RawServer, shape: Shape, files: Path) -> Sample:
    result = transfer(program, server, [files, 1])
    if result.octets < shape.size:
        raise Failed(f"{result.octets} octets instead of {shape.size}")
    used = result.after - result.before
    above = used.peak - result.before.resident
    return Sample(above, 1, result.seconds, used.user, used.system)
