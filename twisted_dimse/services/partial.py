"""A file that is being written and has no name of its own yet, in two ways.

`PartialFile` writes at once. `BufferedFile` keeps what comes until some is together and writes it
in a thread, so that a disk that is slow, or busy with a sync, holds up nobody but who waits for it.

    file = BufferedFile(path, in_thread)
    wait = file.write([header, *slices])    # a Deferred where the sender should wait
    file.flush(), file.sync()               # in a thread, once all is there
    file.discard()                          # or else
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

_MOST_PIECES = 100  # that cost less to write apart than to join
_MOST_KEPT = 262144  # octets that are kept in memory

_log = Logger()

Pieces = list[bytes | memoryview]


class PartialFile:
    """Written at once. Raises `OSError`."""

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = -1

    def write(self, pieces: Pieces) -> Deferred[Any] | None:
        """Add ``pieces``, which are the caller's again when this returns."""
        self._put(pieces)
        return None

    def close(self) -> None:
        """All is written."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def discard(self) -> None:
        """Have it be gone, from wherever it was left."""
        if self._descriptor >= 0:
            self.close()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warn("{path}: cannot be removed: {error}", path=self.path, error=error)

    def _put(self, pieces: Pieces) -> None:
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        _write_all(self._descriptor, pieces)


class BufferedFile(PartialFile):
    """Written in threads that ``in_thread`` gives; at most some `_MOST_KEPT` octets are kept.

    `flush`, `sync` and `remove` are for such a thread, one at a time.
    """

    __slots__ = ("_discarded", "_in_thread", "_kept", "_size", "_writing")

    def __init__(self, path: str, in_thread: Callable[..., Deferred[Any]]) -> None:
        super().__init__(path)
        self._in_thread = in_thread
        self._kept: Pieces = []
        self._size = 0
        self._writing = False
        self._discarded = False

    def write(self, pieces: Pieces) -> Deferred[Any] | None:
        """Keep ``pieces``, or write what is kept: then fires when that is done."""
        self._kept += map(bytes, pieces)
        self._size += sum(map(len, pieces))
        if self._size < _MOST_KEPT:
            return None
        self._writing = True
        return self._in_thread(self._put_kept).addBoth(self._written)

    def discard(self) -> None:
        """Have it be gone, as soon as nothing is being written any more."""
        self._kept = []
        self._discarded = True
        if self._descriptor >= 0 and not self._writing:
            self._in_thread(super().discard)

    def flush(self) -> None:
        """Write what is kept."""
        self._put_kept()

    def sync(self) -> None:
        """Have the octets on the disk, and close."""
        try:
            os.fsync(self._descriptor)
        finally:
            self.close()

    def remove(self) -> None:
        """`discard`, from within a thread."""
        super().discard()

    def _put_kept(self) -> None:
        kept, self._kept, self._size = self._kept, [], 0
        self._put(kept)

    def _written(self, result: Any) -> Any:
        self._writing = False
        if self._discarded:
            self.discard()
        return result


def _write_all(descriptor: int, pieces: Pieces) -> None:
    if len(pieces) > _MOST_PIECES:
        pieces = [b"".join(pieces)]
    written = os.writev(descriptor, pieces)
    if written < sum(map(len, pieces)):
        left = memoryview(b"".join(pieces))[written:]
        while left:
            left = left[os.write(descriptor, left) :]
