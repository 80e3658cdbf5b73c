"""The journal: which instances were acknowledged and are not in the index yet.

A success response waits for a line here, not for index rows. After a crash the lines that are left
say what has to be indexed, so start-up takes a time that grows with them and not with the archive.

    DIR/journal/00000001.log        one path a line, relative to DIR/instances

The lines have an order, and instances are indexed in that order, so a number says how far that has
come. A file is begun when the server starts, when one is large, after one that could not be written
to, and each time all is indexed; it is deleted once all that it names is in the index. Where
several processes serve an archive, each but the first has a folder of its own below, DIR/journal/2
and so on.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Sequence
from contextlib import suppress

from twisted_dimse.services.syncing import sync_folder

_NAME = re.compile(r"[0-9]+\.log")  # others are not ours
_LARGEST = 1 << 20  # octets of one file before the next is begun


class Journal:
    """Appends lines, durably if asked to; from any thread.

    `noted` counts them: those that an earlier run left over, from `left_over` on, and those of this
    run. Raises `OSError` where the folder cannot be made or written to.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        os.makedirs(folder, exist_ok=True)
        self._number = max((number for number, _ in self._files()), default=0)
        self._descriptor = -1
        self._size = 0
        self._lock = threading.Lock()
        self.noted = 0
        self._ends: dict[str, int] = {}  # of the files that are full: what was noted up to there

    def left_over(self) -> list[str]:
        """The paths that an earlier run acknowledged and may not have indexed, oldest first. To be
        asked once, before anything is appended."""
        paths: list[str] = []
        for _, path in self._files():
            paths += _lines_of(path)
            self._ends[path] = len(paths)
        self.noted = len(paths)
        return paths

    def all_noted(self) -> set[str]:
        """The paths in all files, here and in the folders below: those that are not indexed yet,
        and some that are."""
        paths: set[str] = set()
        for folder in (self._folder, *_folders_in(self._folder)):
            for _, path in _files_in(folder):
                with suppress(FileNotFoundError):  # all of it is indexed now
                    paths.update(_lines_of(path))
        return paths

    def gather(self) -> None:
        """Take over what is left in the folders below. Nobody may be writing there."""
        below = _folders_in(self._folder)
        for folder in below:
            for _, path in _files_in(folder):
                self._number += 1
                os.rename(path, self._path(self._number))
        if below:
            sync_folder(self._folder)  # the new names, before the old folders go
        for folder in below:
            os.rmdir(folder)

    def append(self, paths: Sequence[str], *, durably: bool) -> None:
        """Note instances that are stored; on the disk before this returns, where ``durably``."""
        with self._lock:
            try:
                self._append(paths, durably)
            except OSError:
                self._close()  # there may be half a line, and what it kept for the disk is unknown
                raise
            self.noted += len(paths)

    def _append(self, paths: Sequence[str], durably: bool) -> None:
        if self._descriptor < 0 or self._size > _LARGEST:
            self._begin(durably)
        data = "".join(f"{path}\n" for path in paths).encode("ascii")
        written = os.write(self._descriptor, data)
        self._size += written
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path(self._number))
        if durably:
            os.fdatasync(self._descriptor)

    def take_back(self) -> None:
        """One of those noted last was not stored after all."""
        with self._lock:
            self.noted -= 1

    def forget(self, indexed: int) -> None:
        """The first ``indexed`` of those that were `noted` are in the index."""
        with self._lock:
            if indexed == self.noted:
                self._close()
            for path in [path for path, end in self._ends.items() if end <= indexed]:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                del self._ends[path]

    def forget_all(self) -> None:
        """Everything that was ever noted is in the index."""
        with self._lock:
            self._close()
            for _, path in self._files():
                os.unlink(path)
            self._ends.clear()

    def close(self) -> None:
        """No more is noted."""
        with self._lock:
            self._close()

    def _begin(self, durably: bool) -> None:
        self._close()
        self._number += 1
        path = self._path(self._number)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = 0
        if durably:
            sync_folder(self._folder)
            sync_folder(os.path.dirname(self._folder))

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._ends[self._path(self._number)] = self.noted
            os.close(descriptor)

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, f"{number:08}.log")

    def _files(self) -> list[tuple[int, str]]:
        return _files_in(self._folder)


def _files_in(folder: str) -> list[tuple[int, str]]:
    with os.scandir(folder) as entries:
        files = [entry for entry in entries if _NAME.fullmatch(entry.name) and entry.is_file()]
    return sorted((int(entry.name[:-4]), entry.path) for entry in files)


def _folders_in(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.path for entry in entries if entry.name.isdecimal() and entry.is_dir())


def _lines_of(path: str) -> list[str]:
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    # A last line without its end was cut by a crash before it was acknowledged.
    return [line.decode("ascii", "replace") for line in lines[:-1] if line]
