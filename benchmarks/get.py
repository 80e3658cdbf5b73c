"""C-GET of 500 × 512 KiB by ``getscu +B``, from our archive and from ``dcmqrscp``.

The instances are one study, which the raw client stores before the first run. The time is that of
the files which ``getscu`` leaves, from the last write into the first to the last write into the
last; CPU seconds are the server's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.clients import run_to_end
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
from benchmarks.processes import usage
from benchmarks.raw_peer import RawClient, prepare
from benchmarks.scratch import KIB, Settings, time_between, warm

MARKS = (Mark(1.0, DCMTK),)
_TITLE = "RAW-PEER"  # what the raw client calls the server, and dcmqrscp knows itself as


def rows(settings: Settings) -> list[Row]:
    """Both archives, full of the same."""
    archives = [ours("dimse-scp", _our_archive), archive_of_dcmtk()]
    contestants = [_contestant(archive, settings) for archive in archives]
    title = f"C-GET of {settings.fetched} × 512 KiB by getscu +B"
    return [Row("get", title, "a second", contestants, MARKS)]


def _contestant(archive: Program, settings: Settings) -> Contestant:
    getscu = installed_dcmtk("getscu")
    ready = partial(_fetching, archive, settings)
    return Contestant(archive.name, archive.party, ready, lambda: archive.missing() or getscu())


def archive_of_dcmtk() -> Program:
    """DCMTK's archive."""
    return of_dcmtk("dcmqrscp", _dcmqrscp)


def _our_archive(port: int, folder: Path) -> Command:
    return our_server_at(f"tcp:{port}:interface=127.0.0.1", folder)


def _dcmqrscp(port: int, folder: Path) -> Command:
    store, configuration = folder / "store", folder / "dcmqrscp.cfg"
    store.mkdir()
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\n{_TITLE} {store} RW (10000, 65536mb) ANY\nAETable END\n"
    )
    return [dcmtk("dcmqrscp")[0], "-c", str(configuration), str(port)]


def _getscu(study: str, port: int, folder: Path) -> Command:
    return [
        dcmtk("getscu")[0], "-S", "+B", "-pdu", "131072", "-aec", _TITLE, "-od", str(folder),
        "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}",
        "127.0.0.1", str(port),
    ]  # fmt: skip


@contextmanager
def _fetching(archive: Program, settings: Settings) -> Iterator[Run]:
    shape, instances = Shape(512 * KIB), batch(settings.fetched)
    with settings.new_folder() as folder, serving(archive, folder) as server:
        with RawClient(server.port) as client:
            client.store(prepare(shape, instances, client.maximum))
        yield partial(_fetch, server, settings, shape, instances)


def _fetch(server: Server, settings: Settings, shape: Shape, instances: list[Instance]) -> Sample:
    getscu = of_dcmtk("getscu +B", partial(_getscu, instances[0].study_uid))
    count = len(instances)
    with settings.new_folder() as folder:
        warm(folder, count * shape.size)
        before = usage(server.pid)
        run_to_end(getscu, server.port, [folder])
        used = usage(server.pid) - before
        seconds = time_between(folder, shape.size, count)
    return Sample.rate(count - 1, count - 1, seconds, used)
