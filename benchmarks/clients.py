"""A client program against the raw server or another, from its start to its end."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from benchmarks.peers import Program, Server
from benchmarks.processes import Failed, running
from benchmarks.raw_peer import RawServer, Transfer

ENDS_WITHIN = 30.0
LASTS_AT_MOST = 170.0


def transfer(program: Program, server: RawServer, arguments: Sequence[Path | int]) -> Transfer:
    """Run ``program`` against ``server``; what came, timed in the server."""
    command = program.command(server.port, *arguments)
    with running(command, name=program.name, environment=program.environment) as process:
        result = server.serve(process.pid, lambda: process.poll() is None)
        _await_end(process)
    return result


def from_start_to_end(
    program: Program, server: RawServer, arguments: Sequence[Path | int]
) -> tuple[float, Transfer]:
    """Run ``program`` against ``server``; the seconds of the whole command, and what came."""
    command, begun = program.command(server.port, *arguments), perf_counter()
    with running(command, name=program.name, environment=program.environment) as process:
        result = server.serve(process.pid, lambda: process.poll() is None)
        status = process.wait()  # with a time-out it would look only now and then
        seconds = perf_counter() - begun
        if status:
            raise Failed(f"exit status {status}")
    return seconds, result


def move(program: Program, archive: Server, destination: RawServer) -> Transfer:
    """Have ``program`` ask ``archive`` to send to ``destination``; what came, with the archive's
    use."""
    command = program.command(archive.port)
    with running(command, name=program.name, environment=program.environment) as process:
        result = destination.serve(archive.pid, lambda: process.poll() is None)
        _await_end(process)
    return result


def run_to_end(program: Program, port: int, arguments: Sequence[Path | int]) -> None:
    """Run ``program`` against a server that is measured with it, or instead of it."""
    command = program.command(port, *arguments)
    with running(command, name=program.name, environment=program.environment) as process:
        _await_end(process, LASTS_AT_MOST)


def _await_end(process: subprocess.Popen[bytes], within: float = ENDS_WITHIN) -> None:
    try:
        status = process.wait(within)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"still runs after {within:.0f} s") from error
    if status:
        raise Failed(f"exit status {status}")
