"""Durable filing: what several stores wait for is synced together, off the reactor.

The octets of each file are written and synced in a thread of its own, at the same time as those of
others. Then names are given to a group of files at once; while one group has its turn the next
gathers, so many senders, or a window, share the cost: all are recorded (`InstanceFiles.record`),
each gets its name, and each folder that changed is synced once; then all are acknowledged. Where
one step fails for one file, that file has no name afterwards, and the others go on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_dimse.services.partial import BufferedFile

# Gives a complete file its name; True where that made a folder.
Place = Callable[[str, str], bool]
Record = Callable[[list[str]], None]

_MOST_FOLDERS = 100_000  # that are known to be whole


class Complete(NamedTuple):
    """A file that has all its octets, and where it shall be."""

    file: BufferedFile
    final: str


class _Stage:
    """Does ``work`` in a thread for all that wait, one group at a time: while one is under way the
    next gathers. ``work`` gives None or a Failure for each."""

    def __init__(
        self,
        in_thread: Callable[..., Deferred[Any]],
        work: Callable[[list[Complete]], list[Failure | None]],
    ) -> None:
        self._in_thread = in_thread
        self._work = work
        self._waiting: list[tuple[Complete, Deferred[None]]] = []
        self._running = False

    def submit(self, complete: Complete) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._waiting.append((complete, done))
        if not self._running:
            self._run()
        return done

    def _run(self) -> None:
        group, self._waiting = self._waiting, []
        self._running = bool(group)
        if group:
            files = [complete for complete, _ in group]
            self._in_thread(self._work, files).addBoth(self._worked, [done for _, done in group])

    def _worked(self, results: Any, waiting: list[Deferred[None]]) -> None:
        self._run()
        failed = results if isinstance(results, Failure) else None
        for number, done in enumerate(waiting):
            done.callback(failed or results[number])


class GroupSync:
    """Syncs files in threads that ``in_thread`` gives: the octets of each at once, and then names
    and folders of one group after another.

    ``unplaced`` is called, in a thread, with what was recorded and did not get its name.
    """

    def __init__(
        self,
        in_thread: Callable[..., Deferred[Any]],
        place: Place,
        record: Record | None,
        unplaced: Callable[[str], None],
    ) -> None:
        self._unplaced = unplaced
        self._place = place
        self._record = record
        self._in_thread = in_thread
        self._names = _Stage(in_thread, self._name)
        # Series folders whose own entries, and those of the folders above, this run has synced.
        self._whole: set[str] = set()

    def submit(self, complete: Complete) -> Deferred[None]:
        """Fires when the file is on the disk under its name, and recorded. Fails with what
        ``place`` raises, or `OSError`; the file is gone then, and what bore its name before bears
        it again."""
        synced = self._in_thread(self._sync_octets, complete)
        return synced.addCallback(lambda _: self._names.submit(complete))

    @staticmethod
    def _sync_octets(complete: Complete) -> None:
        """In a thread, several at once: a file system syncs them together."""
        try:
            complete.file.flush()
            complete.file.sync()
        except BaseException:
            complete.file.remove()
            raise

    def _name(self, files: list[Complete]) -> list[Failure | None]:
        # Before the names: what is recorded and has no file is passed over, not the reverse.
        finals = [one.final for one in files]
        if self._record is not None and (why := _attempt(self._record, finals)):
            return _results(files, dict.fromkeys(files, why))
        failures: dict[Complete, Failure] = {}
        placed: list[_Placed] = []
        for one in files:
            if why := _attempt(self._place_one, one, placed):
                failures[one] = why
        self._sync_folders(placed, failures)
        return _results(files, failures)

    def _place_one(self, complete: Complete, placed: list[_Placed]) -> None:
        path = complete.file.path
        earlier = _keep(complete.final, path + ".earlier")
        try:
            made_folder = self._place(path, complete.final)
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


def _results(files: list[Complete], failures: dict[Complete, Failure]) -> list[Failure | None]:
    """One for each file. What failed is removed."""
    for one in failures:
        one.file.remove()
    return [failures.get(one) for one in files]


def _attempt(function: Callable[..., None], *args: Any) -> Failure | None:
    try:
        function(*args)
    except Exception:
        return Failure()
    return None


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
