"""Durable filing in groups: what several stores wait for is synced together, off the reactor.

While one group is being synced the next gathers, so many senders, or a window, share the cost. For
each group the octets of every file are synced, each gets its name, each folder that changed is
synced once, and the record of all (`InstanceFiles.record`) once; then all are acknowledged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

# Gives a complete file its name; True where that made a folder.
Place = Callable[[str, str], bool]
Record = Callable[[list[str]], None]


class Complete(NamedTuple):
    """A file that is written and still open, and where it shall be."""

    descriptor: int
    partial: str
    final: str


class GroupSync:
    """Syncs groups of files, one group at a time, in a thread that ``in_thread`` gives.

    ``unplaced`` is called, in that thread, with what was recorded and did not get its name.
    """

    def __init__(
        self,
        in_thread: Callable[..., Deferred[Any]],
        place: Place,
        record: Record | None,
        unplaced: Callable[[str], None],
    ) -> None:
        self._unplaced = unplaced
        self._in_thread = in_thread
        self._place = place
        self._record = record
        self._waiting: list[tuple[Complete, Deferred[None]]] = []
        self._running = False

    def submit(self, complete: Complete) -> Deferred[None]:
        """Fires when the file is on the disk under its name, and recorded. Fails with what
        ``place`` raises, or `OSError`; the file has no name then."""
        done: Deferred[None] = Deferred()
        self._waiting.append((complete, done))
        if not self._running:
            self._run()
        return done

    def _run(self) -> None:
        group, self._waiting = self._waiting, []
        if not group:
            self._running = False
            return
        self._running = True
        files = [complete for complete, _ in group]
        self._in_thread(self._sync, files).addBoth(self._synced, [done for _, done in group])

    def _synced(self, results: Any, waiting: list[Deferred[None]]) -> None:
        failed = results if isinstance(results, Failure) else None
        for number, done in enumerate(waiting):
            done.callback(failed or results[number])
        self._run()

    def _sync(self, files: list[Complete]) -> list[Failure | None]:
        """In the thread. One result for each file: None, or why it has no name."""
        results: list[Failure | None] = [_attempt(_sync_octets, complete) for complete in files]
        synced = [at for at, result in enumerate(results) if result is None]
        if self._record is not None and synced:
            # Before the names: what is recorded and has no file is passed over, not the reverse.
            self._record([files[at].final for at in synced])
        folders: dict[str, None] = {}
        for at in synced:
            results[at] = _attempt(self._place_one, files[at], folders)
        for folder in folders:
            sync_folder(folder)
        return results

    def _place_one(self, complete: Complete, folders: dict[str, None]) -> None:
        try:
            made_folder = self._place(complete.partial, complete.final)
        except Exception:
            if self._record is not None:
                self._unplaced(complete.final)
            raise
        folders.update(dict.fromkeys(_folders_of(complete.final, made_folder)))


def _attempt(function: Callable[..., None], *args: Any) -> Failure | None:
    try:
        function(*args)
    except Exception:
        return Failure()
    return None


def _sync_octets(complete: Complete) -> None:
    try:
        os.fsync(complete.descriptor)
    finally:
        os.close(complete.descriptor)


def sync_folder(path: str) -> None:
    """Have the entries of a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders_of(path: str, made_folder: bool) -> Iterable[str]:
    """The folders that have a new entry: that of the series, and of those that were made."""
    series = os.path.dirname(path)
    yield series
    if made_folder:
        study = os.path.dirname(series)
        yield study
        yield os.path.dirname(study)
