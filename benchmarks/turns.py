"""How long the reactor of ours is at work without a pause: the turns of its thread under the loads
of the other subjects.

What is outstanding for others meanwhile waits, so the figure is the most CPU time that a turn took;
the median, the 99.9th percentile and the wall times stand beside it. A run has a process of its
own, and counts from its first answer on.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks import wire
from benchmarks.archive import fill_index
from benchmarks.clients import run_to_end
from benchmarks.crowd import crowd
from benchmarks.harness import Mark, Row, Run, Sample
from benchmarks.instances import Shape, batch
from benchmarks.peers import (
    DIMSE,
    OUR_CLIENT,
    Command,
    Program,
    Server,
    our_server,
    our_server_at,
    ours,
    serving,
)
from benchmarks.processes import Failed, Usage, usage, usage_of_ended
from benchmarks.raw_peer import ECHO_REQUEST, LONGEST_PDU, TIMEOUT, RawClient, prepare
from benchmarks.scratch import KIB, MIB, Settings
from benchmarks.senders import SENDERS, said, senders
from benchmarks.turning import TURNING, Turns, forget, read, taken

MOST = Mark(10.0)  # milliseconds of CPU
ECHOING, MATCHES, ASKED, WINDOW = 64, 1000, 5, 8
BURST, CONTEXTS, ASSOCIATIONS = 5000, 128, 100
_TURNS = "turns.json"
_STORAGE = "1.2.840.10008.5.1.4.1.1"  # most storage SOP classes begin so

Load = Callable[[Settings, Server], int]  # does it, and gives the number of messages


def rows(settings: Settings) -> list[Row]:
    """The loads of a server, and a client with a window."""
    large = settings.large // MIB
    loads: tuple[tuple[str, str, Callable[..., Command], Load], ...] = (
        ("echo", f"C-ECHO on {ECHOING} associations", _store_only, _echoes),
        ("burst", f"{BURST:,} C-ECHOs sent at once", _store_only, _burst),
        ("contexts", f"associations of {CONTEXTS} contexts", _archive, _associate),
        ("small", "receive 8 KiB", _store_only, partial(_receive, 8 * KIB)),
        ("medium", "receive 512 KiB", _store_only, partial(_receive, 512 * KIB)),
        ("large", f"receive one of {large} MiB", _store_only, partial(_receive, 0)),
        ("archive", f"{SENDERS} senders, synced and indexed", _durable, _many_senders),
        ("find", f"C-FIND of {MATCHES:,} answers", _archive, _find),
        ("get", f"C-GET of {settings.fetched} × 512 KiB", _archive, _get),
        ("window", f"receive 8 KiB, window of {WINDOW}", _store_only, _windowed),
    )
    found = [
        _row(name, title, ours("dimse-scp", command), partial(_serving, settings, command, load))
        for name, title, command, load in loads
    ]
    client = ours("dimse store", lambda *_: [])
    title = f"send 8 KiB, window of {WINDOW}"
    return [*found, _row("client", title, client, partial(_sending, settings))]


def _row(name: str, title: str, program: Program, run: Callable[[], Sample]) -> Row:
    @contextmanager
    def ready() -> Iterator[Run]:
        yield run

    title = f"longest turn of the reactor, {title}"
    return Row(f"turns-{name}", title, "ms of CPU", [program.contestant(ready)], [MOST])


def _sample(turns: Turns, work: int, seconds: float, used: Usage) -> Sample:
    largest = turns.cpu[-1] * 1000
    return Sample(largest, work, seconds, used.user, used.system, note=turns.summary())


# --- a server


def _timed(command: Callable[..., Command], port: int, folder: Path) -> Command:
    """A server's command line, with its turns timed."""
    words = command(port, folder)
    return [*TURNING, str(folder / _TURNS), "twistd", *words[words.index("-n") :]]


def _store_only(port: int, folder: Path) -> Command:
    return our_server(port, folder)


def _archive(port: int, folder: Path) -> Command:
    return our_server_at(f"tcp:{port}:interface=127.0.0.1", folder)


def _durable(port: int, folder: Path) -> Command:
    return [*_archive(port, folder), "--durability", "sync"]


def _serving(settings: Settings, command: Callable[..., Command], load: Load) -> Sample:
    program = ours("dimse-scp", partial(_timed, command))
    with settings.new_folder() as folder:
        if load is _find:
            fill_index(folder, MATCHES * 10)
        with serving(program, folder) as server:
            if load is _get:
                _receive(512 * KIB, settings, server, settings.fetched)  # one study
            forget(server.pid)
            before, begun = usage(server.pid), perf_counter()
            work = load(settings, server)
            seconds, used = perf_counter() - begun, usage(server.pid) - before
            return _sample(read(server.pid, folder / _TURNS), work, seconds, used)


def _echoes(settings: Settings, server: Server) -> int:
    rounds = max(settings.echoes // ECHOING, 1)
    with crowd(server.port, ECHOING) as clients:
        clients.echo(rounds)
    return rounds * ECHOING


def _burst(_: Settings, server: Server) -> int:
    """Requests that do not wait for the answers to those before, as no window allows."""
    with RawClient(server.port) as client:
        answer = client.answer_to_echo()
        sending = threading.Thread(target=client.connection.sendall, args=(ECHO_REQUEST * BURST,))
        sending.start()
        left = len(answer) * BURST
        while left > 0:
            left -= len(client.connection.recv(1 << 16))
        sending.join()
    return BURST


def _associate(_: Settings, server: Server) -> int:
    """The largest proposals there are, of storage classes with three transfer syntaxes each."""
    syntaxes = [wire.EXPLICIT, wire.IMPLICIT, "1.2.840.10008.1.2.4.90"]
    numbers = range(1, 2 * CONTEXTS, 2)
    contexts = [(number, f"{_STORAGE}.{number}", syntaxes) for number in numbers]
    proposal = wire.associate_request(contexts, LONGEST_PDU)
    for _ in range(ASSOCIATIONS):
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as connection:
            connection.sendall(proposal)
            if connection.recv(1)[0] != wire.ASSOCIATE_AC:
                raise Failed("an association of many contexts was not accepted")
    return ASSOCIATIONS


def _receive(size: int, settings: Settings, server: Server, count: int = 0) -> int:
    """Instances of ``size`` octets, 0 for one large one."""
    usual = settings.small if size == 8 * KIB else settings.medium
    shape = Shape(size or settings.large)
    with RawClient(server.port) as client:
        instances = batch(count or (usual if size else 1))
        client.store(prepare(shape, instances, client.maximum))
    return len(instances)


def _many_senders(settings: Settings, server: Server) -> int:
    each = max(1, settings.small // SENDERS)
    with senders(server.port, Shape(8 * KIB), [batch(each) for _ in range(SENDERS)]) as pipes:
        for pipe in pipes:
            pipe.send(None)
        for pipe in pipes:
            said(pipe)
    return each * SENDERS


def _find(_: Settings, server: Server) -> int:
    """All studies, a few times."""
    keys = server.folder / "keys.json"
    keys.write_text(json.dumps({"all": [{}] * ASKED}))
    command = [*OUR_CLIENT, "ask", str(server.port), str(keys)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170)
    if done.returncode:
        raise Failed(f"the client failed: {done.stderr[-200:]}")
    return ASKED * MATCHES


def _get(settings: Settings, server: Server) -> int:
    """All there is, which is one study."""
    study = next((server.folder / "instances").iterdir()).name
    with settings.new_folder() as folder:
        run_to_end(ours("dimse get", partial(_get_command, study, folder)), server.port, [])
    return settings.fetched


def _get_command(study: str, folder: Path, port: int) -> Command:
    words = ["-L", "STUDY", "-k", f"StudyInstanceUID={study}", "--directory", str(folder)]
    return [*DIMSE, "get", f"ANY-SCP@127.0.0.1:{port}", *words]


def _windowed(settings: Settings, server: Server) -> int:
    files = settings.files(Shape(8 * KIB), settings.small)
    run_to_end(ours("dimse store", _store), server.port, [files])
    return settings.small


def _store(port: int, files: Path) -> Command:
    peer = f"ANY-SCP@127.0.0.1:{port}"
    return [*DIMSE, "store", "--window", str(WINDOW), peer, str(files)]


# --- a client


def _sending(settings: Settings) -> Sample:
    files = settings.files(Shape(8 * KIB), settings.small)
    server = ours("dimse-scp", _store_only)
    with settings.new_folder() as folder, serving(server, folder) as running_server:
        path = folder / _TURNS
        words = _store(running_server.port, files)[len(DIMSE) :]
        command = [*TURNING, str(path), "dimse", *words]
        before, begun = usage_of_ended(), perf_counter()
        run_to_end(ours("dimse store", lambda _port: command), 0, [])
        seconds, used = perf_counter() - begun, usage_of_ended() - before
        return _sample(taken(path), settings.small, seconds, used)
