"""Files that were there before the index: read behind the responses, until it has them all.

So it is where the database was lost, or is of an older version that kept less of each instance. The
archive serves meanwhile, and a restart goes on where the last run came to. Files that an earlier
run could not read are tried again, too.

    reader = Reader(folder, reactor)
    reader.start()
    await reader.stop()
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any

import sqlalchemy as sa
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from twisted_dimse.archive.folder import ArchiveFolder
from twisted_dimse.archive.header import is_text
from twisted_dimse.archive.indexer import (
    add_those_that_can_be,
    files_of,
    headers_of,
    in_one_line,
    readable,
    remove,
)
from twisted_dimse.archive.rows import Replaced

_BATCH = 200
_RETRY = 5.0  # seconds until a failed batch is tried again
_LONGEST_PAUSE = 5.0  # seconds that are left to others after a batch

_log = Logger()


class Reader:
    """Reads what the index of ``folder`` still has to take from its files, as `Index.reading` has
    it, in a thread of its own."""

    def __init__(self, folder: ArchiveFolder, reactor: Any) -> None:
        self._folder = folder
        self._index = folder.index
        self._reactor = reactor
        self._pool = ThreadPool(0, 1, "reader")
        self._stopping = threading.Event()
        self._running: Deferred[None] = succeed(None)
        self._failing = False

    def start(self) -> None:
        """Begin, where there is something to read."""
        self._pool.start()
        reading, unreadable = self._index.reading, self._index.unreadable()
        if reading is None and not unreadable:
            return
        self._running = deferToThreadPool(
            self._reactor, self._pool, self._read_all, reading, unreadable
        )
        self._running.addErrback(
            lambda failure: _log.failure("not all files were read for the index", failure)
        )

    def stop(self) -> Deferred[None]:
        """Fires when no more is read."""
        self._stopping.set()
        return self._running.addBoth(lambda _: self._pool.stop())

    def _read_all(self, reading: str | None, unreadable: list[str]) -> None:
        """In the thread."""
        if unreadable:
            self._try_again(unreadable)
        if reading is not None:
            _log.info(
                "the index is made from the files that are there: what is not read yet is missed"
            )
            self._read(reading)

    def _try_again(self, unreadable: list[str]) -> None:
        """Files that could not be read before; those that can be read now are forgotten."""
        failed: dict[str, OSError] = {}
        try:
            files = files_of(self._folder, unreadable, failed)
            while batch := list(islice(files, _BATCH)):
                with self._folder.indexing():
                    headers = list(readable(self._folder, batch, failed))
                    add_those_that_can_be(self._index.renew, headers)
                if self._stopping.is_set():
                    return
            self._index.note_unreadable(failed)
            self._index.forget_unreadable([path for path in unreadable if path not in failed])
        except (sa.exc.SQLAlchemyError, OSError) as error:
            _log.error(
                "unreadable files are left for the next start: {text}", text=in_one_line(error)
            )

    def _read(self, reading: str) -> None:
        """Half of the time is left to who stores and asks. What fails is tried again, from the
        study on that it came to."""
        count = 0
        while not self._stopping.is_set():
            try:
                paths = self._paths(reading)
                while batch := list(islice(paths, _BATCH)):
                    began = self._reactor.seconds()
                    reading = self._take(batch)
                    self._failing = False
                    count += len(batch)
                    took = self._reactor.seconds() - began
                    if self._stopping.wait(min(took, _LONGEST_PAUSE)):  # whatever the clock does
                        return
                self._index.reading = None
            except (sa.exc.SQLAlchemyError, OSError) as error:
                self._say_failing(error)
                self._stopping.wait(_RETRY)
            else:
                _log.info("the index is made: {count} files were read", count=count)
                return

    def _take(self, batch: list[str]) -> str:
        """Have a batch in the index; the study it came to."""
        study = batch[-1].partition("/")[0]
        with self._folder.indexing():
            headers = headers_of(self._folder, batch)
            if older := add_those_that_can_be(self._index.renew, headers):
                self._remove(older, {header.path: header.sop_instance_uid for header in headers})
            self._index.reading = study
        return study

    def _remove(self, older: list[Replaced], uids: dict[str, str]) -> None:
        """Remove what was replaced before it could be read, where that which replaced it is there.
        One that came back meanwhile is in the journal until it is indexed."""
        noted = self._folder.journal.all_noted()
        held = self._index.held([uids[replaced.path] for replaced in older])
        for replaced in older:
            newer = held[uids[replaced.path]].path
            if replaced.path not in noted and os.path.exists(self._folder.absolute(newer)):
                remove(self._folder, replaced)

    def _say_failing(self, error: Exception) -> None:
        if not self._failing:
            _log.error(
                "files cannot be read for the index now, which is tried again: {text}",
                text=in_one_line(error),
            )
        self._failing = True

    def _paths(self, reading: str) -> Iterator[str]:
        """The paths of the files, in order, from the study ``reading`` on."""
        top = self._folder.instances
        for study in sorted(name for name in os.listdir(top) if name >= reading):
            failed: dict[str, OSError] = {}
            yield from files_of(self._folder, [study], failed)
            self._index.note_unreadable(filter(is_text, failed))
