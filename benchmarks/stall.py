"""A disk that stalls for a second: how long do those wait who do not store?

One association stores an instance, three times, while another sends one C-ECHO after the other. The
figure is the longest that an answer to one of these took, under ``--durability sync`` and under
``commit``, for a disk that stalls as it is told to have the octets of an instance (``fsync``), to
give it its name (``rename``), and to take its first octets (``writev``).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks.harness import OURS, Mark, Row, Run, Sample
from benchmarks.instances import Shape, batch
from benchmarks.peers import Command, Program, Server, installed_library, our_server_at, serving
from benchmarks.processes import Failed, usage
from benchmarks.raw_peer import Message, RawClient, prepare
from benchmarks.scratch import KIB, Settings

SECONDS = 1.0  # of a stall
STORED = 3
MOST = 50.0  # milliseconds
_CALLS = {"sync": "fsync", "name": "rename", "write": "writev"}


def rows(settings: Settings) -> list[Row]:
    """What stalls, and both durabilities."""
    found = []
    for name, call in _CALLS.items():
        contestants = [
            program.contestant(partial(_stalling, program, settings))
            for program in (_server(call, "sync", OURS), _server(call, "commit", "commit"))
        ]
        title = f"longest wait for a C-ECHO while {call} takes {SECONDS:g} s"
        found.append(Row(f"stall-{name}", title, "ms", contestants, [Mark(MOST)], runs=1))
    return found


def _server(call: str, durability: str, party: str) -> Program:
    name = f"--durability {durability}"
    return Program(name, party, partial(_command, call, durability), installed_library)


def _command(call: str, durability: str, port: int, folder: Path) -> Command:
    command = our_server_at(f"tcp:{port}:interface=127.0.0.1", folder, "--durability", durability)
    words = command[command.index("-n") :]
    return [sys.executable, "-m", "benchmarks.stalling", call, str(SECONDS), *words]


@contextmanager
def _stalling(program: Program, settings: Settings) -> Iterator[Run]:
    with settings.new_folder() as folder, serving(program, folder) as server:
        yield partial(_measure, server)


def _measure(server: Server) -> Sample:
    with RawClient(server.port) as sender, RawClient(server.port) as other:
        messages = prepare(Shape(8 * KIB), batch(STORED), sender.maximum)
        before, begun = usage(server.pid), perf_counter()
        stored: list[float] = []
        storing = threading.Thread(target=_store, args=(sender, messages, stored), daemon=True)
        storing.start()
        waits = []
        while storing.is_alive():
            waits.append(other.echo(1))
        seconds, used = perf_counter() - begun, usage(server.pid) - before
    if not stored:
        raise Failed("the instances were not stored")
    waits.sort()
    note = f"median {1000 * waits[len(waits) // 2]:.1f} ms; {STORED} stored in {stored[0]:.1f} s"
    return Sample(1000 * waits[-1], len(waits), seconds, used.user, used.system, note=note)


def _store(client: RawClient, messages: list[Message], stored: list[float]) -> None:
    stored.append(client.store(messages))
