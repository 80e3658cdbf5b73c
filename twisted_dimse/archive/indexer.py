"""Indexing behind the responses: in batches, off the reactor.

An instance is acknowledged when it is in the journal. The indexer reads the headers of what was
acknowledged and adds them to the index when there is a pause, when many have come, or when a query
asks to be `up_to_date`, which fires when all that was acknowledged before it can be found.

    indexer.stored(path)
    await indexer.up_to_date()
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from twisted_dimse.archive.folder import ArchiveFolder
from twisted_dimse.archive.header import InstanceHeader, Unindexable, is_text
from twisted_dimse.archive.rows import Replaced
from twisted_dimse.datastream import files_below

_PAUSE = 0.25  # seconds after the last instance
_MANY = 2000  # instances that do not wait for a pause
_BATCH = 1000
_RETRY = 5.0  # seconds until a failed batch is tried again

# A medium that cannot be read, and no file at all. What else fails, such as a permission, may be a
# matter of the whole folder, and end: then no instance is left out.
_OF_A_FILE = (errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.EISDIR, errno.ENODATA, errno.ELOOP)
# Replaced or deleted meanwhile, or a line of the journal that never was one.
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_log = Logger()


class Indexer:
    """Adds what is stored to the index, in order.

    Paths are those of ``folder``'s journal. ``reactor`` gives time and threads.
    """

    def __init__(self, folder: ArchiveFolder, reactor: Any) -> None:
        self._folder = folder
        self._index = folder.index
        self._journal = folder.journal
        self._reactor = reactor
        self._pool = ThreadPool(0, 1, "indexer")
        self._waiting: list[str] = []
        self._running: Deferred[None] | None = None
        self._timer: Any = None
        self._askers: list[Deferred[None]] = []
        self._stopped = False
        self._failing = False
        self._indexed = 0  # as `Journal.noted` counts
        self._part = folder.part

    def start(self) -> int:
        """Take up what a crash left over; the number of those instances."""
        self._pool.start()
        left = self._journal.left_over()
        self._waiting += left
        if self._part is not None:
            self._part.pending(bool(left))
            for path in left:
                self._part.waits(_uid_in(path), 1)
        if left:
            self._work()
        return len(left)

    def stop(self) -> Deferred[None]:
        """Index what is left, and end."""
        self._stopped = True
        done = self.up_to_date()
        done.addBoth(self._end)
        return done

    def stored(self, path: str) -> None:
        """An instance is acknowledged."""
        if self._part is not None:
            self._part.pending(True)
            self._part.waits(_uid_in(path), 1)
        self._waiting.append(path)
        if len(self._waiting) >= _MANY and not self._failing:
            self._work()
        elif self._timer is None:
            self._timer = self._reactor.callLater(_PAUSE, self._look, len(self._waiting))
        # While instances keep coming the timer looks again: see `_look`.

    @property
    def failing(self) -> bool:
        """Whether the index cannot be used now."""
        return self._failing

    def up_to_date(self) -> Deferred[None]:
        """Fires when all that was stored so far is in the index."""
        if not self._waiting and self._running is None:
            return succeed(None)
        asked: Deferred[None] = Deferred()
        self._askers.append(asked)
        self._work()
        return asked

    def _look(self, before: int) -> None:
        """Begin if no more has come since the timer was set; otherwise wait for the pause."""
        self._timer = None
        waiting = len(self._waiting)
        if waiting == before:
            self._work()
        elif waiting:
            self._timer = self._reactor.callLater(_PAUSE, self._look, waiting)

    def _work(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None or not self._waiting:
            return
        batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        indexed = self._indexed + len(batch)
        self._running = deferToThreadPool(self._reactor, self._pool, self._add, batch, indexed)
        self._running.addCallbacks(self._added, self._not_added, (batch, indexed), {}, (batch,))

    def _add(self, batch: list[str], indexed: int) -> None:
        """In the thread: read headers, add rows, forget the journal."""
        with self._folder.indexing():  # headers too, for another may replace a file meanwhile
            headers = headers_of(self._folder, batch)
            if self._index.is_reading():
                self._index.note_newer(header.sop_instance_uid for header in headers)
            for replaced in add_those_that_can_be(self._index.add, headers):
                remove(self._folder, replaced)
        try:
            self._journal.forget(indexed)
        except OSError as error:
            _log.warn("the journal grows, it cannot be removed: {error}", error=error)

    def _added(self, _result: None, batch: list[str], indexed: int) -> None:
        self._running = None
        self._indexed = indexed
        if self._part is not None:
            for path in batch:
                self._part.waits(_uid_in(path), -1)
        if self._failing:
            self._failing = False
            _log.info("indexing goes on")
        if self._waiting:
            self._work()
            return
        if self._part is not None:
            self._part.pending(False)
        askers, self._askers = self._askers, []
        for asked in askers:
            asked.callback(None)

    def _not_added(self, failure: Any, batch: list[str]) -> None:
        """The database is gone, or locked: what waits stays in the journal, and is tried again."""
        self._running = None
        self._waiting[:0] = batch
        if not self._failing:
            self._failing = True
            _log.error(
                "indexing failed, and is tried again every {seconds:g} s: {text}",
                seconds=_RETRY,
                text=in_one_line(failure.value),
            )
        askers, self._askers = self._askers, []
        for asked in askers:
            asked.errback(failure)
        if not self._stopped and self._timer is None:
            self._timer = self._reactor.callLater(_RETRY, self._look, len(self._waiting))

    def _end(self, _result: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pool.stop()
        self._journal.close()
        self._index.close()


def remove(folder: ArchiveFolder, replaced: Replaced) -> None:
    """Remove a file that was replaced, or say why that cannot be."""
    try:
        folder.remove(replaced)
    except OSError as error:
        _log.warn("{path}: cannot be removed: {error}", path=replaced.path, error=error)


def _uid_in(path: str) -> str:
    return path[path.rfind("/") + 1 :].removesuffix(".dcm")


def headers_of(folder: ArchiveFolder, paths: Sequence[str]) -> list[InstanceHeader]:
    """The headers of those files that are there and can be indexed. One that cannot be read is
    noted in the index, to be tried again at the next start. Raises `OSError` where that is no
    matter of a file."""
    failed: dict[str, OSError] = {}
    headers = list(readable(folder, paths, failed))
    if failed:
        folder.index.note_unreadable(list(failed))
    return headers


def files_of(
    folder: ArchiveFolder, paths: Iterable[str], failed: dict[str, OSError]
) -> Iterator[str]:
    """The files that are named, and those below folders that are; folders that cannot be listed go
    to ``failed``. Raises `OSError` where that is no matter of a folder."""
    for path in paths:
        unlisted: list[OSError] = []
        below = files_below(folder.absolute(path), unlisted)
        yield from filter(is_text, map(folder.relative, below))
        for error in unlisted:
            if error.errno in _NOTHING_THERE:
                yield from filter(is_text, [path])  # or it is gone
            else:
                _note_failed(folder.relative(error.filename), error, failed)


def _note_failed(path: str, error: OSError, failed: dict[str, OSError]) -> None:
    if error.errno not in _OF_A_FILE:
        raise error
    failed[path] = error
    _log.error(
        "not indexed: {path}: cannot be read, tried again at the next start: {text}",
        path=path,
        text=error.strerror or error,
    )


def readable(
    folder: ArchiveFolder, paths: Iterable[str], failed: dict[str, OSError]
) -> Iterator[InstanceHeader]:
    """The headers of those files that can be read; those that cannot go to ``failed``."""
    for path in paths:
        try:
            yield replace(InstanceHeader.read(folder.absolute(path)), path=path)
        except OSError as error:
            if error.errno not in _NOTHING_THERE:
                _note_failed(path, error, failed)
        except Unindexable as error:
            _log.warn("not indexed: {error}", error=error)
        except Exception as error:
            _say_not_indexed(path, error)


def add_those_that_can_be(
    add: Callable[[list[InstanceHeader]], list[Replaced]], headers: list[InstanceHeader]
) -> list[Replaced]:
    """Have ``add`` make rows for all that can have one: an instance must not keep others from being
    found. Gives what that gives for all of them."""
    try:
        return _add_again(add, headers)
    except Exception as error:
        if _is_of_the_database(error):
            raise
        if len(headers) > 1:
            return [one for header in headers for one in add_those_that_can_be(add, [header])]
        _say_not_indexed(headers[0].path, error)
        return []


def _add_again(
    add: Callable[[list[InstanceHeader]], list[Replaced]], headers: list[InstanceHeader]
) -> list[Replaced]:
    """Once more, where the same rows came meanwhile: what a process had under way when it was
    killed may be committed after its end."""
    try:
        return add(headers)
    except sa.exc.IntegrityError:
        return add(headers)


def in_one_line(error: object) -> str:
    """What a database, or another, says is wrong."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _is_of_the_database(error: Exception) -> bool:
    """Whether it is the database that fails, or the disk, and not the values of an instance."""
    state = str(getattr(getattr(error, "orig", None), "sqlstate", ""))
    if isinstance(error, sa.exc.DataError | sa.exc.IntegrityError) or state.startswith("54"):
        return False  # 54: too large for PostgreSQL
    return isinstance(error, sa.exc.DBAPIError | sa.exc.TimeoutError | OSError)


def _say_not_indexed(path: str, error: Exception) -> None:
    _log.error(
        "not indexed: {path}: {kind}: {text}",
        path=path,
        kind=type(error).__name__,
        text=in_one_line(error),
    )
