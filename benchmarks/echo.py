"""C-ECHO, one after the other on one association, server and client side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.clients import transfer
from benchmarks.harness import DCMTK, PYNETDICOM, Mark, Row, Run, Sample
from benchmarks.peers import (
    ECHOING_CLIENTS,
    ECHOING_SERVERS,
    ON_UVLOOP,
    Program,
    Server,
    serving,
)
from benchmarks.processes import Failed, usage
from benchmarks.raw_peer import RawClient, RawServer
from benchmarks.scratch import Settings

SERVER_MARKS = (Mark(0.9, DCMTK), Mark(1.05, DCMTK, of=ON_UVLOOP), Mark(10, PYNETDICOM))
CLIENT_MARKS = (Mark(0.7, DCMTK), Mark(10, PYNETDICOM))


def rows(settings: Settings) -> list[Row]:
    """The server's rate with the raw client, and the client's with the raw server."""
    servers = [program.contestant(partial(answering, program, settings))
               for program in ECHOING_SERVERS]  # fmt: skip
    clients = [program.contestant(partial(_asking, program, settings.echoes))
               for program in ECHOING_CLIENTS]  # fmt: skip
    return [
        Row("echo-server", "C-ECHO, server", "a second", servers, SERVER_MARKS),
        Row("echo-client", "C-ECHO, client", "a second", clients, CLIENT_MARKS),
    ]


@contextmanager
def answering(program: Program, settings: Settings) -> Iterator[Run]:
    """A server of C-ECHO; each run asks it."""
    with settings.new_folder() as folder, serving(program, folder) as server:
        yield partial(_ask, server, program.part(settings.echoes))


def _ask(server: Server, count: int) -> Sample:
    with RawClient(server.port) as client:
        before = usage(server.pid)
        seconds = client.echo(count)
        return Sample.rate(count, count, seconds, usage(server.pid) - before)


@contextmanager
def _asking(program: Program, echoes: int) -> Iterator[Run]:
    with RawServer() as server:
        yield partial(_answer, program, server, program.part(echoes))


def _answer(program: Program, server: RawServer, count: int) -> Sample:
    result = transfer(program, server, [Path(), count])
    if result.messages != count:
        raise Failed(f"{result.messages} C-ECHOs instead of {count}")
    return Sample.rate(count, count, result.seconds, result.after - result.before)
