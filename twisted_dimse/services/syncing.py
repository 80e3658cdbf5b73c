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
    """Syncs groups of files, one group at a time, in a thread that ``in_thread`` gives."""

    def __init__(
        self, in_thread: Callable[..., Deferred[Any]], place: Place, record: Record | None
    ) -> None:
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
            result = failed or results[number]
            done.callback(result)
        self._run()

    def _sync(self, files: list[Complete]) -> list[Failure | None]:
        """In the thread. One result for each file: None, or why it has no name."""
        results: list[Failure | None] = []
        placed: list[str] = []
        folders: dict[str, None] = {}
        for complete in files:
            try:
                made_folder = self._place_synced(complete)
            except Exception:
                results.append(Failure())
                continue
            results.append(None)
            placed.append(complete.final)
            folders.update(dict.fromkeys(_folders_of(complete.final, made_folder)))
        for folder in folders:
            sync_folder(folder)
        if self._record is not None and placed:
            self._record(placed)
        return results

    def _place_synced(self, complete: Complete) -> bool:
        try:
            os.fsync(complete.descriptor)
        finally:
            os.close(complete.descriptor)
        return self._place(complete.partial, complete.final)


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
