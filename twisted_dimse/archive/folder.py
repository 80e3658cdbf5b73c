"""The folder of an archive, its lock and its index, as the server and the maintenance open them.

with ArchiveFolder.open("./archive") as folder:
    folder.index.count()
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import sqlalchemy as sa

from twisted_dimse.archive.header import inode_of
from twisted_dimse.archive.index import Index, IndexUnusable, without_password
from twisted_dimse.archive.journal import Journal
from twisted_dimse.archive.part import Part
from twisted_dimse.archive.rows import Replaced
from twisted_dimse.services.files import lock_folder
from twisted_dimse.services.syncing import sync_folder


class CannotOpen(Exception):
    """The archive cannot be opened; the text names the option and what is wrong."""


class ArchiveFolder:
    """``DIR/instances``, ``DIR/journal``, ``DIR/lock`` and the index. One process at a time has it:
    the lock goes with the process. With a ``part``, the process that started this one has it, and
    its lock goes with the last of them all.

    ``database`` is a SQLAlchemy URL, by default a SQLite file in the folder. Raises `CannotOpen`.
    """

    def __init__(
        self, directory: str, database: str | None = None, part: Part | None = None
    ) -> None:
        self.directory = os.path.abspath(directory)
        self.instances = os.path.join(self.directory, "instances")
        self.part = part
        self.naming = threading.Lock()  # held while a file gets its name, or loses it
        self._indexing = threading.Lock()
        self._lock = -1
        self._claims = -1
        try:
            os.makedirs(self.instances, exist_ok=True)
            journal = os.path.join(self.directory, "journal")
            if part is None:
                self._lock = lock_folder(self.directory)
                self.journal = Journal(journal)
                self.journal.gather()
            else:
                first = part.number == 1
                self.journal = Journal(journal if first else f"{journal}/{part.number}")
                self._claims = _open_for_locks(os.path.join(self.directory, "uids.lock"))
                sync_folder(self.directory)  # where the first process has not written yet
        except OSError as error:
            self.close()
            raise CannotOpen(f"--directory {directory}: {error.strerror or error}") from error
        # Not written as text: what a folder is called may mean something else in a URL.
        file = sa.URL.create("sqlite", database=os.path.join(self.directory, "index.sqlite"))
        try:
            self.index = Index.open(
                database or file,
                files_are_there=bool(os.listdir(self.instances)),
                create=part is None or part.number == 1,  # it reads the files for a new one
            )
        except IndexUnusable as error:
            self.close()
            where = f"--directory {directory}: the index"
            name = f"--database {without_password(database)}" if database else where
            raise CannotOpen(f"{name}: {error}") from error

    @property
    def lock(self) -> int:
        """The descriptor of the lock: who inherits it has the folder too."""
        return self._lock

    @contextmanager
    def indexing(self) -> Iterator[None]:
        """One at a time adds to the index, among threads and among processes. Blocks; not for the
        reactor's thread."""
        with self._indexing, self._indexing_among_processes():
            yield

    @contextmanager
    def _indexing_among_processes(self) -> Iterator[None]:
        if self.part is None:
            yield
            return
        descriptor = _open_for_locks(os.path.join(self.directory, "index.lock"))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def claim(self, uid: str) -> bool:
        """Have an instance for this process until `let_go`, or its end; False where another of
        those that serve the archive has it. Raises `OSError`."""
        if self._claims >= 0:
            try:
                fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _number_of(uid))
            except (BlockingIOError, PermissionError):  # POSIX has either
                return False
        return True

    def let_go(self, uid: str) -> None:
        """Another process may have the instance."""
        if self._claims >= 0:
            fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, _number_of(uid))

    def close(self) -> None:
        """Let another process have the folder."""
        lock, self._lock = self._lock, -1
        claims, self._claims = self._claims, -1
        for descriptor in (lock, claims):
            if descriptor >= 0:
                os.close(descriptor)

    def relative(self, path: str) -> str:
        """A path under ``instances`` as journal and index have it."""
        return path[len(self.instances) + 1 :]

    def absolute(self, path: str) -> str:
        return os.path.join(self.instances, path)

    def remove(self, replaced: Replaced) -> bool:
        """Remove the file of an instance that was replaced, unless a newer one, which is still to
        be indexed, has its name. Raises `OSError`."""
        path = self.absolute(replaced.path)
        with self.naming:
            try:
                newer = replaced.inode not in (0, inode_of(os.stat(path)))
            except FileNotFoundError:
                return False
            if not newer:
                os.unlink(path)
            return not newer

    def __enter__(self) -> ArchiveFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.journal.close()
        self.index.close()
        self.close()


def _open_for_locks(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _number_of(uid: str) -> int:
    """The octet of a file, which need not be there, whose lock stands for a UID."""
    return int.from_bytes(hashlib.blake2b(uid.encode(), digest_size=7).digest())
