"""A client program against the raw server, from its start to its end."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import Program
from benchmarks.processes import Failed, running
from benchmarks.raw_peer import RawServer, Transfer

ENDS_WITHIN = 30.0


def transfer(program: Program, server: RawServer, arguments: Sequence[Path | int]) -> Transfer:
    """Run ``program`` against ``server``; what came, timed in the server."""
    command = program.command(server.port, *arguments)
    with running(command, name=program.name, environment=program.environment) as process:
        result = server.serve(process.pid, lambda: process.poll() is None)
        _await_end(process)
    return result


def _await_end(process: subprocess.Popen[bytes]) -> None:
    try:
        status = process.wait(ENDS_WITHIN)
    except subprocess.TimeoutExpired as error:
        raise Failed("still runs after its release") from error
    if status:
        raise Failed(f"exit status {status}")
