"""Durable filing in groups: what several stores wait for is synced together, off the reactor.

While one group is being synced the next gathers, so many senders, or a window, share the cost. For
each group the octets of every file are synced, all are recorded (`InstanceFiles.record`), each gets
its name, and each folder that changed is synced once; then all are acknowledged. Where one step
fails for one file, that file has no name afterwards, and the others go on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

# Gives a complete file its name; True where that made a folder.
Place = Callable[[str, str], bool]
Record = Callable[[list[str]], None]

_MOST_FOLDERS = 100_000  # that are known to be whole


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
        # Series folders whose own entries, and those of the folders above, this run has synced.
        self._whole: set[str] = set()

    def submit(self, complete: Complete) -> Deferred[None]:
        """Fires when the file is on the disk under its name, and recorded. Fails with what
        ``place`` raises, or `OSError`; the file has no name then, and what bore it before does."""
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
        failures = {one: why for one in files if (why := _attempt(_sync_octets, one))}
        synced = [one for one in files if one not in failures]
        if self._record is not None and synced:
            # Before the names: what is recorded and has no file is passed over, not the reverse.
            finals = [one.final for one in synced]
            if why := _attempt(self._record, finals):
                return [failures.get(one, why) for one in files]
        placed: list[_Placed] = []
        for one in synced:
            if why := _attempt(self._place_one, one, placed):
                failures[one] = why
        self._sync_folders(placed, failures)
        return [failures.get(one) for one in files]

    def _place_one(self, complete: Complete, placed: list[_Placed]) -> None:
        earlier = _keep(complete.final, complete.partial + ".earlier")
        try:
            made_folder = self._place(complete.partial, complete.final)
        except Exception:
            _remove(earlier)
            if self._record is not None:
                self._unplaced(complete.final)
            raise
        placed.append(_Placed(complete, earlier, self._folders_of(complete.final, made_folder)))

    def _folders_of(self, path: str, made_folder: bool) -> tuple[str, ...]:
        """The folders that may have a new entry: that of the series, and those above it unless they
        were synced before. That they exist is not enough: a run that was killed may have made them.
        """
        series = os.path.dirname(path)
        if series in self._whole and not made_folder:
            return (series,)
        study = os.path.dirname(series)
        return series, study, os.path.dirname(study)

    def _sync_folders(self, placed: list[_Placed], failures: dict[Complete, Failure]) -> None:
        folders = dict.fromkeys(folder for one in placed for folder in one.folders)
        failed = {folder: why for folder in folders if (why := _attempt(sync_folder, folder))}
        if len(self._whole) > _MOST_FOLDERS:
            self._whole.clear()
        for complete, earlier, changed in placed:
            why = next((failed[folder] for folder in changed if folder in failed), None)
            if why is None:
                self._whole.add(changed[0])
                _remove(earlier)
                continue
            failures[complete] = why
            self._whole.discard(changed[0])
            # What cannot be taken back stays recorded, and the next start looks at it.
            if _take_back(complete.final, earlier) and self._record is not None:
                self._unplaced(complete.final)


class _Placed(NamedTuple):
    """A file that has its name, what `_keep` gave, and the folders to be synced."""

    complete: Complete
    earlier: str | None
    folders: tuple[str, ...]


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


def _keep(final: str, earlier: str) -> str | None:
    """Have what bears a name lie under another one too: that one, "" where nothing bears it, or
    None where the file system will not have it."""
    try:
        os.link(final, earlier)
    except FileNotFoundError:
        return ""
    except OSError:
        return None
    return earlier


def _take_back(final: str, earlier: str | None) -> bool:
    """Have a name mean again what it meant before; whether that could be done."""
    if earlier is None:
        return False
    try:
        if earlier:
            os.rename(earlier, final)
            _remove(earlier)  # two names of one file: a rename leaves them both
        else:
            os.unlink(final)
    except OSError:
        return False
    return True


def _remove(path: str | None) -> None:
    if path:
        with suppress(OSError):
            os.unlink(path)


def sync_file(path: str) -> None:
    """Have the octets of a file on the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: str) -> None:
    """Have the entries of a folder on the disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders_of(paths: Iterable[str], top: str) -> None:
    """Have on the disk that files below ``top`` are where they are: each folder once."""
    folders: set[str] = set()
    for path in paths:
        while (path := os.path.dirname(path)) != top and path not in folders:
            folders.add(path)
    for folder in sorted(folders, reverse=True):
        sync_folder(folder)
    sync_up(top)


def sync_up(path: str) -> None:
    """Have the entries of a folder on the disk, and its own, and those of the folders above it, up
    to the root of its file system or to one that we may not read and so have not made."""
    path = os.path.abspath(path)
    with suppress(PermissionError):
        while True:
            sync_folder(path)
            if os.path.ismount(path):
                return
            path = os.path.dirname(path)
