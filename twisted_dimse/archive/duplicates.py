"""``--on-duplicate`` where an instance comes again in another study or series.

The same study and series is the same path, which `services.files` sees. Anything else is known by
the index, and where its rows are not there yet, by what was stored since the start.

    duplicates = Duplicates(archive)
    sink = duplicates.sink(archive.files.sink(request, archive.stored), request.sop_instance_uid)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater

from twisted_dimse.dimse.status import DUPLICATE_SOP_INSTANCE, SUCCESS
from twisted_dimse.errors import StatusError
from twisted_dimse.services.files import InstanceSink

if TYPE_CHECKING:
    from twisted_dimse.archive.handler import Archive

_MOST_KNOWN = 100_000  # paths in memory
_LOOK_AGAIN = 0.005  # seconds until another process may have decided


class Duplicates:
    """Finds the path of an instance that is in an archive already.

    A look costs one row read from the index, in a thread, and only the first waits for rows: for
    what an earlier run left over. Where several processes serve the archive each look waits for
    them, since only the index tells what the others have stored, and one process at a time looks
    for a UID and files it. While files are still read for the index, the folders tell.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._known: dict[str, str] | None = None  # UID: path of those that were stored
        self._locks: dict[str, DeferredLock] = {}
        self._all_read = False  # for the index

    def sink(self, sink: InstanceSink, uid: str) -> DuplicateSink:
        """The same sink, but for one instance of each UID."""
        return DuplicateSink(self, sink, uid)

    async def finish(self, sink: InstanceSink, uid: str) -> int:
        """Finish a sink where the UID is new, or has the same path; the status."""
        lock = self._locks.setdefault(uid, DeferredLock())
        async with lock:
            try:
                return await self._finish_claimed(sink, uid)
            finally:
                if not lock.waiting:
                    self._locks.pop(uid, None)

    async def _finish_claimed(self, sink: InstanceSink, uid: str) -> int:
        archive = self._archive
        while not archive.claim(uid):
            await deferLater(archive.reactor, _LOOK_AGAIN)
        try:
            return await self._finish(sink, uid)
        finally:
            archive.let_go(uid)

    async def _finish(self, sink: InstanceSink, uid: str) -> int:
        path = sink.final_path()
        before = await self._path_of(uid)
        elsewhere = before is not None and before != path
        if elsewhere and await self._archive.in_thread(_is_there, before):
            sink.abandon()
            if self._archive.files.on_duplicate == "keep":
                return SUCCESS
            raise StatusError(DUPLICATE_SOP_INSTANCE, "stored already, in another study or series")
        status = sink.finish()
        if isinstance(status, Deferred):
            status = await status
        if self._known is not None:
            self._known[uid] = path
        return int(status)

    async def _path_of(self, uid: str) -> str | None:
        archive = self._archive
        if self._known is None or archive.is_part or len(self._known) > _MOST_KNOWN:
            await archive.up_to_date()
            self._known = {}
        if uid in self._known:
            return self._known[uid]
        if not self._all_read:
            reading = await archive.in_thread(archive.index.is_reading)
            self._all_read = not reading and not archive.is_part
            if reading:
                return await archive.in_thread(self._path_in_folders, uid)
        held = await archive.in_thread(archive.index.held, [uid])
        return archive.absolute(held[uid].path) if uid in held else None

    def _path_in_folders(self, uid: str) -> str | None:
        """In a thread: as the index will have it, of which the files are still read."""
        for study in _folders_in(self._archive.files.instances):
            for series in _folders_in(study):
                path = f"{series}/{uid}.dcm"
                if os.path.exists(path):
                    return path
        return None


def _is_there(path: str) -> bool:
    try:
        return os.path.getsize(path) > 0
    except FileNotFoundError:
        return False


def _folders_in(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.path for entry in entries if entry.is_dir()]


class _OtherEnd:
    """An `InstanceSink` that is finished in another way (`datastream.Sink`)."""

    def __init__(self, sink: InstanceSink, uid: str) -> None:
        self._sink = sink
        self._uid = uid
        self.write = sink.write
        self.write_slices = sink.write_slices
        self.abandon = sink.abandon


class DuplicateSink(_OtherEnd):
    """An `InstanceSink` that is finished by `Duplicates`."""

    def __init__(self, duplicates: Duplicates, sink: InstanceSink, uid: str) -> None:
        super().__init__(sink, uid)
        self._duplicates = duplicates

    def finish(self) -> Deferred[int]:
        done = Deferred.fromCoroutine(self._duplicates.finish(self._sink, self._uid))
        done.addErrback(self._failed)
        return done

    def _failed(self, failure: object) -> object:
        self._sink.abandon()
        return failure


class SuccessorSink(_OtherEnd):
    """An `InstanceSink` under ``replace``, where several processes serve the archive. What another
    of them has acknowledged before is indexed before: of the two the later one is kept."""

    def __init__(self, archive: Archive, sink: InstanceSink, uid: str) -> None:
        super().__init__(sink, uid)
        self._archive = archive

    def finish(self) -> Any:
        if not self._archive.may_wait_elsewhere(self._uid):
            return self._sink.finish()
        return self._archive.up_to_date().addBoth(lambda _: self._sink.finish())
