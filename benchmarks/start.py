"""What somebody waits for before anything is done: wall time of a command from its start to its
end, and of a server from its start to the first answer."""

from __future__ import annotations

import compileall
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from time import monotonic, sleep

from benchmarks.harness import Mark, Row, Run, Sample
from benchmarks.peers import (
    DIMSE,
    ECHOING_CLIENTS,
    READY_WITHIN,
    STORING_SERVERS,
    Program,
    our_server_at,
    ours,
    serving,
)
from benchmarks.processes import Failed, Usage, free_port, running, usage, usage_of_ended
from benchmarks.raw_peer import RawClient
from benchmarks.scratch import Settings

_PACKAGE = Path(__file__).resolve().parent.parent / "twisted_dimse"
HELP, ECHO, READY = Mark(300), Mark(600), Mark(1000)  # milliseconds


def rows(settings: Settings) -> list[Row]:
    """A help, an echo to a running server of ours, and a start of each server."""
    helps = [ours("dimse --help", lambda _port: [*DIMSE, "--help"])]
    echoes = [ours("dimse echo", _our_echo), *(_once(one) for one in ECHOING_CLIENTS[1:])]
    servers = [ours("dimse-scp", _our_archive), *STORING_SERVERS[1:]]
    return [
        Row("start-help", "a command's help, from start to end", "ms",
            [one.contestant(partial(_alone, one)) for one in helps], [HELP]),
        Row("start-echo", "one C-ECHO, from start to end", "ms",
            [one.contestant(partial(_with_server, one, settings)) for one in echoes], [ECHO]),
        Row("start-server", "a server, from start to first answer", "ms",
            [one.contestant(partial(_starting, one, settings)) for one in servers], [READY]),
    ]  # fmt: skip


def _our_echo(port: int) -> list[str]:
    return [*DIMSE, "echo", f"ANY-SCP@127.0.0.1:{port}"]


def _our_archive(port: int, folder: Path) -> list[str]:
    return our_server_at(f"tcp:{port}:interface=127.0.0.1", folder)


def _once(program: Program) -> Program:
    """The same client, for one message and without a share of the work."""
    return Program(
        program.name, program.party, lambda port: program.command(port, Path(), 1),
        program.missing, environment=program.environment,
    )  # fmt: skip


@cache
def compile_modules() -> None:
    """Have our modules as they are where pip installed them."""
    compileall.compile_dir(_PACKAGE, quiet=2)


@contextmanager
def _alone(program: Program) -> Iterator[Run]:
    compile_modules()
    yield partial(_to_its_end, program, 0)


@contextmanager
def _with_server(program: Program, settings: Settings) -> Iterator[Run]:
    compile_modules()
    with settings.new_folder() as folder, serving(STORING_SERVERS[0], folder) as server:
        yield partial(_to_its_end, program, server.port)


def _to_its_end(program: Program, port: int) -> Sample:
    before, begun = usage_of_ended(), monotonic()
    with running(program.command(port), name=program.name, environment=program.environment) as one:
        status = one.wait()  # with a time-out it would look only now and then
        seconds = monotonic() - begun
        if status:
            raise Failed(f"exit status {status}")
    return _sample(seconds, usage_of_ended() - before)


@contextmanager
def _starting(program: Program, settings: Settings) -> Iterator[Run]:
    compile_modules()
    yield partial(_to_first_answer, program, settings)


def _to_first_answer(program: Program, settings: Settings) -> Sample:
    port = free_port()
    with settings.new_folder() as folder:
        command, begun = program.command(port, folder), monotonic()
        with running(command, name=program.name, environment=program.environment) as server:
            _await_answer(server, port, begun + READY_WITHIN)
            return _sample(monotonic() - begun, usage(server.pid))


def _await_answer(server: subprocess.Popen[bytes], port: int, deadline: float) -> None:
    while server.poll() is None and monotonic() < deadline:
        try:
            with RawClient(port) as client:
                client.echo(1)
                return
        except ConnectionRefusedError:
            sleep(0.002)
    raise Failed(f"does not answer after {READY_WITHIN:.0f} s")


def _sample(seconds: float, used: Usage) -> Sample:
    return Sample(seconds * 1000, 1, seconds, used.user, used.system)
