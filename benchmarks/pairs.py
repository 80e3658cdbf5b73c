"""A client program that sends files to a server program: both are under measure.

No process of the benchmark's is between them, so the time is that of the files which the server
leaves: from the last write into the first to the last write into the last. Start-up is left out.
CPU seconds are those of both, the client's from its start to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.clients import run_to_end
from benchmarks.distance import at_a_distance
from benchmarks.harness import Contestant, Run, Sample
from benchmarks.instances import Shape
from benchmarks.peers import Program, Server, echoes, serving
from benchmarks.processes import usage, usage_of_ended
from benchmarks.scratch import Settings, time_between, warm

_FEW = 3


@dataclass(frozen=True, slots=True)
class Work:
    """``count`` instances of one shape, and what warms the server up before a few of them do.

    Client and server are ``distance`` seconds apart.
    """

    settings: Settings
    shape: Shape
    count: int
    warm_up: Callable[[int], None] = echoes
    distance: float = 0.0


def pair(name: str, party: str, client: Program, server: Program, work: Work) -> Contestant:
    """A contestant of two programs; each of them may be missing."""
    ready = partial(_sending, client, server, work)
    return Contestant(name, party, ready, lambda: client.missing() or server.missing())


@contextmanager
def _sending(client: Program, server: Program, work: Work) -> Iterator[Run]:
    files, few = (work.settings.files(work.shape, n) for n in (work.count, _FEW))
    with (
        work.settings.new_folder() as folder,
        serving(server, folder, work.warm_up) as running,
        _way_to(running, work.distance) as running,
    ):
        _send(client, running, few, _FEW, work.shape.size)
        yield partial(_send, client, running, files, work.count, work.shape.size)


@contextmanager
def _way_to(server: Server, distance: float) -> Iterator[Server]:
    if not distance:
        yield server
        return
    with at_a_distance(server.port, distance) as port:
        yield replace(server, port=port)


def _send(client: Program, server: Server, files: Path, count: int, size: int) -> Sample:
    warm(server.folder, count * size)
    before = usage(server.pid) + usage_of_ended()
    run_to_end(client, server.port, [files, count])
    used = usage(server.pid) + usage_of_ended() - before
    seconds = time_between(server.folder, size, count)
    return Sample.rate(count - 1, count - 1, seconds, used)
