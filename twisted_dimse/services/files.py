"""Instances as Part 10 files on disk: what the archive, `dimse listen` and `dimse get` share.

    DIR/instances/STUDY/SERIES/INSTANCE.dcm     the data set's octets as they came
    DIR/incoming/                               what is being written

A file is written under ``incoming`` and renamed when it is complete, so nothing partial ever bears
its final name. Only a UID that is one becomes part of a path.

    files = InstanceFiles("./archive", durability="sync", reactor=reactor)
    sink = files.sink(request)                  # for `Handler.store_sink`
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_dimse.datastream import part10_header
from twisted_dimse.dimse.status import (
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    DUPLICATE_SOP_INSTANCE,
    INVALID_SOP_INSTANCE_UID,
    OUT_OF_RESOURCES,
)
from twisted_dimse.elements import SERIES_INSTANCE_UID, STUDY_INSTANCE_UID, ElementScan
from twisted_dimse.errors import StatusError
from twisted_dimse.handler import Request
from twisted_dimse.services.partial import BufferedFile, PartialFile
from twisted_dimse.services.syncing import Complete, GroupSync, sync_file, sync_up
from twisted_dimse.uids import is_valid_uid

DURABILITIES = ("commit", "sync")
ON_DUPLICATE = ("replace", "keep", "reject")
NO_STUDY, NO_SERIES = "no-study", "no-series"
_MOST_THREADS = 6  # of the reactor's ten, for a disk that stalls may hold them all
_PLACE_UIDS = frozenset((STUDY_INSTANCE_UID, SERIES_INSTANCE_UID))

_log = Logger()


class InstanceFiles:
    """The instances under one folder.

    ``durability`` "commit" answers when the operating system has the octets and the folder entry,
    "sync" when the disk has. ``on_duplicate`` says what a second instance of the same UID does:
    "replace" the first, atomically; "keep" the first and succeed; "reject" with 0x0111.
    ``max_instance`` bounds a data set in octets. With ``require_uids`` a data set without a Study
    or Series Instance UID is refused with 0xA900, else it is kept under ``no-study/no-series``.
    ``record``, if given, is called with the paths of instances before they get their names, and
    ``unplaced`` with one that then did not; under "sync" both in a thread. A file gets its name
    within ``naming``, such as a lock.

    Raises `OSError` where the folder cannot be made or written to.
    """

    def __init__(
        self,
        directory: str,
        *,
        durability: str = "sync",
        on_duplicate: str = "replace",
        max_instance: int | None = None,
        require_uids: bool = False,
        record: Callable[[list[str]], None] | None = None,
        unplaced: Callable[[str], None] = lambda _path: None,
        naming: AbstractContextManager[Any] | None = None,
        reactor: Any = None,
    ) -> None:
        if durability not in DURABILITIES or on_duplicate not in ON_DUPLICATE:
            raise ValueError(f"no such durability or duplicate rule: {durability} {on_duplicate}")
        if reactor is None:
            from twisted.internet import reactor
        self.directory = os.path.abspath(directory)
        self.incoming = os.path.join(self.directory, "incoming")
        self.instances = os.path.join(self.directory, "instances")
        self.durability = durability
        self.on_duplicate = on_duplicate
        self.max_instance = max_instance
        self.require_uids = require_uids
        self.record = record
        self._unplaced = unplaced
        self._naming = naming or nullcontext()
        self._reactor = reactor
        self._threads = DeferredSemaphore(_MOST_THREADS)
        self._group = GroupSync(self.in_thread, self.place, record, unplaced)
        self._numbers = itertools.count(1)
        os.makedirs(self.incoming, exist_ok=True)
        os.makedirs(self.instances, exist_ok=True)
        self._check_writable()
        if durability == "sync":
            sync_up(self.directory)

    def sink(self, request: Request, stored: Callable[[str], None] | None = None) -> InstanceSink:
        """A sink for one C-STORE; ``stored`` is called with the path before success is answered.

        Raises `StatusError` 0x0117 for a SOP Instance UID that is not a UID.
        """
        if not is_valid_uid(request.sop_instance_uid):
            raise StatusError(INVALID_SOP_INSTANCE_UID, "not a UID")
        return InstanceSink(self, request, stored)

    def remove_partial(self) -> int:
        """Delete what an earlier run left under ``incoming``; the number of files."""
        with os.scandir(self.incoming) as entries:
            paths = [entry.path for entry in entries if not entry.is_dir(follow_symlinks=False)]
        for path in paths:
            os.unlink(path)
        return len(paths)

    def partial_path(self) -> str:
        """A new name under ``incoming``."""
        return f"{self.incoming}/{os.getpid()}-{next(self._numbers)}.part"

    def path_of(self, study: str, series: str, instance: str) -> str:
        """Where an instance lies. The UIDs must be valid."""
        return f"{self.instances}/{study}/{series}/{instance}.dcm"

    def place(self, partial: str, final: str) -> bool:
        """Give a complete file its name, as `on_duplicate` has it. True where that made a folder.

        Raises `StatusError` and `OSError`.
        """
        if self.on_duplicate == "replace":
            with self._naming:
                return self._in_folder(os.rename, partial, final)
        made_folder = False
        try:
            with self._naming:
                made_folder = self._in_folder(os.link, partial, final)
        except FileExistsError:
            # Not so where a power cut left nothing of it, or behind a link that leads nowhere.
            if not os.path.getsize(final):
                with self._naming:
                    os.rename(partial, final)
                return False
            if self.on_duplicate == "reject":
                raise StatusError(DUPLICATE_SOP_INSTANCE, "stored already") from None
            if self.durability == "sync":
                sync_file(final)  # it may have come while that was not asked for
        os.unlink(partial)
        return made_folder

    def begin(self) -> PartialFile:
        """A new file under ``incoming``. Under "sync" nothing of it is done on the reactor."""
        if self.durability == "sync":
            return BufferedFile(self.partial_path(), self.in_thread)
        return PartialFile(self.partial_path())

    def file(self, file: PartialFile, final: str) -> Deferred[None] | None:
        """Name, sync and record a complete file, as `durability` has it; None where that is done
        at once. Raises, or fails with, `StatusError` and `OSError`: then ``file`` is gone."""
        if isinstance(file, BufferedFile):
            return self._group.submit(Complete(file, final))
        file.close()
        if self.record is None:
            self.place(file.path, final)
            return None
        self.record([final])
        try:
            self.place(file.path, final)
        except BaseException:
            self._unplaced(final)
            raise
        return None

    def in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Run file work off the reactor, as soon as one of `_MOST_THREADS` is free."""
        pool = self._reactor.getThreadPool()
        return self._threads.run(deferToThreadPool, self._reactor, pool, function, *args)

    @staticmethod
    def _in_folder(function: Callable[[str, str], None], partial: str, final: str) -> bool:
        try:
            function(partial, final)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(final), exist_ok=True)
            function(partial, final)
            return True
        return False

    def _check_writable(self) -> None:
        path = self.partial_path()
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
        try:
            if self.on_duplicate != "replace":
                self._check_links(path)
        finally:
            os.unlink(path)

    def _check_links(self, path: str) -> None:
        try:
            os.link(path, path + ".link")
        except OSError as error:
            needed = f"on-duplicate {self.on_duplicate} needs a file system with hard links"
            raise OSError(error.errno, f"{needed} ({error.strerror})", path) from error
        os.unlink(path + ".link")


def lock_folder(directory: str) -> int:
    """Have the folder of a server for this process alone: a descriptor, which holds it until it is
    closed. Raises `OSError`, also where another process has it."""
    descriptor = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OSError(error.errno, "another process is using this folder") from None
    return descriptor


class InstanceSink:
    """Writes one data set to a file as it arrives (`datastream.Sink`)."""

    __slots__ = ("_file", "_files", "_instance", "_octets", "_request", "_scan", "_stored")

    def __init__(
        self, files: InstanceFiles, request: Request, stored: Callable[[str], None] | None
    ) -> None:
        self._files = files
        self._request = request
        self._stored = stored
        self._instance = request.sop_instance_uid
        self._file: PartialFile | None = None
        self._octets = 0
        self._scan = ElementScan(request.context.transfer_syntax, _PLACE_UIDS)

    def write(self, data: bytes | memoryview) -> Deferred[Any] | None:
        return self.write_slices([data])

    def write_slices(self, slices: list[bytes | memoryview]) -> Deferred[Any] | None:
        self._octets += sum(map(len, slices))
        limit = self._files.max_instance
        if limit is not None and self._octets > limit:
            raise StatusError(OUT_OF_RESOURCES, f"larger than the {limit} octets allowed")
        try:
            if self._file is None:
                self._file = self._files.begin()
                wait = self._file.write([self._header(), *slices])
            else:
                wait = self._file.write(slices)
        except OSError as error:
            raise _storage_failure(error) from error
        if not self._scan.done:
            for data in slices:
                self._scan.feed(data)
        return wait and wait.addErrback(_as_status)

    def finish(self) -> Any:
        try:
            if self._file is None:
                self.write_slices([])
            assert self._file is not None
            final = self.final_path()
            filed = self._files.file(self._file, final)
        except OSError as error:
            self.abandon()
            raise _storage_failure(error) from error
        except StatusError:
            self.abandon()
            raise
        if filed is None:
            return self._placed(None, final)
        return filed.addCallbacks(self._placed, _as_status, callbackArgs=(final,))

    def abandon(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.discard()

    def _placed(self, _result: None, final: str) -> int:
        if self._stored is not None:
            self._stored(final)
        return 0

    def _header(self) -> bytes:
        request = self._request
        return part10_header(
            request.sop_class_uid,
            self._instance,
            request.context.transfer_syntax,
            request.association.calling_ae_title,
        )

    def final_path(self) -> str:
        """Where the instance will lie. Raises `StatusError` 0xA900 for one without a place."""
        study = self._scan.text(STUDY_INSTANCE_UID)
        series = self._scan.text(SERIES_INSTANCE_UID)
        missing = [
            name for name, uid in (("Study", study), ("Series", series)) if not is_valid_uid(uid)
        ]
        if missing and self._files.require_uids:
            raise StatusError(
                DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
                f"no valid {' and no valid '.join(missing)} Instance UID",
            )
        if missing:
            study, series = NO_STUDY, NO_SERIES
        return self._files.path_of(study, series, self._instance)


def _as_status(failure: Failure) -> Failure:
    """What a peer is told of a failure of the disk."""
    if isinstance(failure.value, OSError):
        raise _storage_failure(failure.value) from failure.value
    return failure


def _storage_failure(error: OSError) -> StatusError:
    """0xA700 with the system's words, and one line for the log (PS3.4 B.2.3)."""
    text = os.strerror(error.errno) if error.errno else str(error)
    _log.error("an instance was not stored: {text} ({path})", text=text, path=error.filename or "")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StatusError(OUT_OF_RESOURCES, "disk full" if full else text)
