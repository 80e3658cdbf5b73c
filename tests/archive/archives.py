"""An archive in memory's world: its files are real, its threads are turns of the reactor.

archives_in(world, monkeypatch)
with archive_in(world, folder) as archive:
    requestor = asking(world, archive)
    assert found(world, requestor) == {"1.2.9"}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import raw
from memory import CT, EXPLICIT, World, outcome

from twisted_dimse import STUDY_ROOT, Handler
from twisted_dimse.archive import handler, index, indexer, reading
from twisted_dimse.archive.handler import Archive, ArchiveHandler
from twisted_dimse.datastream import BytesSource

CONTEXTS = [(CT, [EXPLICIT]), STUDY_ROOT.find, STUDY_ROOT.get]


def threads_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the archives made from now on do what they do in threads in turns of a world, and not
    wait for the disk with SQLite."""
    for module in (handler, indexer, reading):
        monkeypatch.setattr(module, "ThreadPool", lambda *_: world.clock)
    real = index._set_up_sqlite

    def set_up(connection: Any, record: object) -> None:
        real(connection, record)
        connection.execute("PRAGMA synchronous=OFF")

    monkeypatch.setattr(index, "_set_up_sqlite", set_up)


@contextmanager
def archive_in(world: World, folder: Path, **options: Any) -> Iterator[Archive]:
    """An archive at work, which ends in peace."""
    archive = Archive(str(folder), reactor=world.clock, **options)
    archive.start()
    yield archive
    world.result(archive.close())


def asking(world: World, archive: Archive, **options: Any) -> Any:
    """An association with an archive, for all that it does."""
    extended = {STUDY_ROOT.find: b"\1"}  # relational
    requestor, _ = world.associate(
        ArchiveHandler(archive), contexts=CONTEXTS, extended=extended, roles={CT: "both"}, **options
    )
    return requestor


def image(uid: str, size: int = 300, *, study: str = "1.2.3", series: str = "1.2.3.4") -> Any:
    data = raw.dataset(uid, size, study=study, series=series, sop_class=CT)
    return BytesSource(CT, uid, EXPLICIT, data)


def stored(world: World, requestor: Any, *sources: Any) -> list[int]:
    """The status of each."""
    results = [requestor.store(one, check=False) for one in sources]
    world.run()
    return [outcome(result).status for result in results]


def found(world: World, requestor: Any, uids: Iterable[str] = ()) -> set[str]:
    """The SOP Instance UIDs of those that a query finds."""
    keys = {"SOPInstanceUID": list(uids)}
    matches = world.result(requestor.find(keys, level="IMAGE", model=STUDY_ROOT))
    return {str(match.SOPInstanceUID) for match in matches}


def retrieved(world: World, requestor: Any, study: str) -> dict[str, bytes]:
    """The instances of a study as C-GET brings them: UIDs and data sets."""
    receiver = Receiver()
    keys = {"StudyInstanceUID": study}
    world.result(requestor.get(keys, handler=receiver, level="STUDY", model=STUDY_ROOT))
    return {uid: bytes(data) for uid, data in receiver.received.items()}


class Receiver(Handler):
    def __init__(self) -> None:
        self.received: dict[str, bytearray] = {}

    def store_sink(self, request: Any) -> Any:
        return _Sink(self.received.setdefault(request.sop_instance_uid, bytearray()))


class _Sink:
    def __init__(self, data: bytearray) -> None:
        self._data = data

    def write(self, data: Any) -> None:
        self._data += data

    def finish(self) -> int:
        return 0

    def abandon(self) -> None:
        self._data.clear()
