"""C-GET of 500 × 512 KiB by ``getscu +B``, from our archive and from ``dcmqrscp``, and C-MOVE of
the same by ``movescu`` to the lean server.

The instances are one study, which the raw client stores before the first run. The time of a C-GET
is that of the files which ``getscu`` leaves, from the last write into the first to the last write
into the last; that of a C-MOVE runs from the first request at the destination to its last response.
CPU seconds are the archive's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.clients import move, run_to_end
from benchmarks.harness import DCMTK, Contestant, Mark, Row, Run, Sample
from benchmarks.instances import Instance, Shape, batch
from benchmarks.peers import (
    Command,
    Program,
    Server,
    dcmtk,
    installed_dcmtk,
    of_dcmtk,
    our_server_at,
    ours,
    serving,
)
from benchmarks.processes import Failed, usage
from benchmarks.raw_peer import RawClient, RawServer, prepare
from benchmarks.scratch import KIB, Settings, time_between, warm

MARKS = (Mark(1.0, DCMTK),)
_TITLE = "RAW-PEER"  # what the raw client calls the server, and dcmqrscp knows itself as
_DESTINATION = "LEAN"


def rows(settings: Settings) -> list[Row]:
    """Both archives, full of the same."""
    work = f"{settings.fetched} × 512 KiB"
    getting = [
        _contestant(make(), "getscu", partial(_getting, make(), settings)) for make in _ARCHIVES
    ]
    moving = [
        _contestant(make(), "movescu", partial(_moving, make, settings)) for make in _ARCHIVES
    ]
    return [
        Row("get", f"C-GET of {work} by getscu +B", "a second", getting, MARKS),
        Row("move", f"C-MOVE of {work} by movescu", "a second", moving, MARKS),
    ]


def _contestant(
    archive: Program, client: str, ready: Callable[[], AbstractContextManager[Run]]
) -> Contestant:
    missing = installed_dcmtk(client)
    return Contestant(archive.name, archive.party, ready, lambda: archive.missing() or missing())


def our_archive(destination: int = 0) -> Program:
    """Ours, with its index; it may move to the port ``destination`` of loopback."""
    return ours("dimse-scp", partial(_our_archive, destination))


def archive_of_dcmtk(destination: int = 0) -> Program:
    """DCMTK's archive, likewise."""
    return of_dcmtk("dcmqrscp", partial(_dcmqrscp, destination))


_ARCHIVES = (our_archive, archive_of_dcmtk)


def _our_archive(destination: int, port: int, folder: Path) -> Command:
    peer = f"{_DESTINATION}=127.0.0.1:{destination}"
    more = ["--peer", peer] if destination else []
    return our_server_at(f"tcp:{port}:interface=127.0.0.1", folder, *more)


def _dcmqrscp(destination: int, port: int, folder: Path) -> Command:
    store, configuration = folder / "store", folder / "dcmqrscp.cfg"
    store.mkdir(exist_ok=True)
    peer = f"lean = ({_DESTINATION}, 127.0.0.1, {destination})\n" if destination else ""
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
        f"HostTable BEGIN\n{peer}HostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\n{_TITLE} {store} RW (10000, 65536mb) ANY\nAETable END\n"
    )
    return [dcmtk("dcmqrscp")[0], "-c", str(configuration), str(port)]


def _getscu(study: str, port: int, folder: Path) -> Command:
    return [
        dcmtk("getscu")[0], "-S", "+B", "-pdu", "131072", "-aec", _TITLE, "-od", str(folder),
        *_study(study), "127.0.0.1", str(port),
    ]  # fmt: skip


def _movescu(study: str, port: int) -> Command:
    return [
        dcmtk("movescu")[0], "-S", "-pdu", "131072", "-aec", _TITLE, "-aem", _DESTINATION,
        *_study(study), "127.0.0.1", str(port),
    ]  # fmt: skip


def _study(uid: str) -> list[str]:
    return ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}"]


@contextmanager
def _filled(
    archive: Program, settings: Settings, shape: Shape, instances: list[Instance]
) -> Iterator[Server]:
    with settings.new_folder() as folder, serving(archive, folder) as server:
        with RawClient(server.port) as client:
            client.store(prepare(shape, instances, client.maximum))
        yield server


@contextmanager
def _getting(archive: Program, settings: Settings) -> Iterator[Run]:
    shape, instances = Shape(512 * KIB), batch(settings.fetched)
    with _filled(archive, settings, shape, instances) as server:
        yield partial(_get, server, settings, shape, instances)


@contextmanager
def _moving(make: Callable[[int], Program], settings: Settings) -> Iterator[Run]:
    shape, instances = Shape(512 * KIB), batch(settings.fetched)
    with (
        RawServer() as destination,
        _filled(make(destination.port), settings, shape, instances) as server,
    ):
        yield partial(_move, server, destination, shape, instances)


def _move(
    server: Server, destination: RawServer, shape: Shape, instances: list[Instance]
) -> Sample:
    movescu = of_dcmtk("movescu", partial(_movescu, instances[0].study_uid))
    came = move(movescu, server, destination)
    count = len(instances)
    if came.messages != count or came.octets < count * shape.size:
        raise Failed(f"{came.messages} instances, {came.octets} octets instead of "
                     f"{count}, {count * shape.size}")  # fmt: skip
    return Sample.rate(count, count, came.seconds, came.after - came.before)


def _get(server: Server, settings: Settings, shape: Shape, instances: list[Instance]) -> Sample:
    getscu = of_dcmtk("getscu +B", partial(_getscu, instances[0].study_uid))
    count = len(instances)
    with settings.new_folder() as folder:
        warm(folder, count * shape.size)
        before = usage(server.pid)
        run_to_end(getscu, server.port, [folder])
        used = usage(server.pid) - before
        seconds = time_between(folder, shape.size, count)
    return Sample.rate(count - 1, count - 1, seconds, used)
