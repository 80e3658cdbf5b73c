"""C-FIND of 10,000 answers from a handler of the library, to our client and to those of others.

A query of one answer goes before each; its time and CPU seconds are taken off, and with them the
start-up of the client. CPU seconds are those of both sides; the note has the server's. Our client
counts the answers; of the others' the end of the query and their exit status are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks.clients import run_to_end
from benchmarks.harness import Row, Run, Sample
from benchmarks.peers import (
    OUR_CLIENT,
    Command,
    Program,
    Server,
    dcmtk,
    of_dcmtk,
    of_pynetdicom,
    our_library_server,
    ours,
    pynetdicom_command,
    serving,
)
from benchmarks.processes import Failed, Usage, usage, usage_of_ended
from benchmarks.scratch import Settings

_KEYS = ("QueryRetrieveLevel=STUDY", "PatientName=", "StudyInstanceUID=")
_COUNT = "NumberOfStudyRelatedInstances"


def rows(settings: Settings) -> list[Row]:
    """All clients, from the same server."""
    clients = [
        ours("Association.find()", _our_find),
        of_dcmtk("findscu", _findscu),
        of_pynetdicom("pynetdicom findscu", _pynetdicom_findscu, share=10),
    ]
    contestants = [
        client.contestant(partial(_asking, client, settings, client.part(settings.answers)))
        for client in clients
    ]
    title = f"C-FIND of {settings.answers:,} answers"
    return [Row("find", title, "answers a second", contestants)]


def _our_find(port: int, _: Path, count: int) -> Command:
    return [*OUR_CLIENT, "find", str(port), str(count)]


def _findscu(port: int, _: Path, count: int) -> Command:
    return [
        dcmtk("findscu")[0], "-S", "-sr", "-pdu", "131072", *_keys(count), "127.0.0.1", str(port),
    ]  # fmt: skip


def _pynetdicom_findscu(port: int, _: Path, count: int) -> Command:
    return [*pynetdicom_command("findscu"), "-S", *_keys(count), "127.0.0.1", str(port)]


def _keys(count: int) -> list[str]:
    return [word for key in (*_KEYS, f"{_COUNT}={count}") for word in ("-k", key)]


@contextmanager
def _asking(client: Program, settings: Settings, count: int) -> Iterator[Run]:
    server = ours("listen()", our_library_server)
    with settings.new_folder() as folder, serving(server, folder) as running:
        yield partial(_ask, client, running, count)


def _ask(client: Program, server: Server, count: int) -> Sample:
    short, _, short_used = _timed(client, server, 1)
    seconds, theirs, used = _timed(client, server, count)
    if seconds <= short:
        raise Failed("a query of one answer took longer than the long one")
    note = f"the server's CPU {theirs.user:.2f} + {theirs.system:.2f} s"
    return Sample.rate(count, count, seconds - short, used - short_used, note)


def _timed(client: Program, server: Server, count: int) -> tuple[float, Usage, Usage]:
    """Seconds, CPU of the server, and CPU of both."""
    before, ended, begun = usage(server.pid), usage_of_ended(), perf_counter()
    run_to_end(client, server.port, [server.folder, count])
    seconds, theirs = perf_counter() - begun, usage(server.pid) - before
    return seconds, theirs, theirs + (usage_of_ended() - ended)
