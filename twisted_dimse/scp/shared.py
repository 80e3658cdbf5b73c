"""The numbers that a master and its workers share: a file without a name, mapped into all of them.

    shared = Shared.made(workers=2)
    Shared(descriptor, workers=2)       # in another process, from an inherited descriptor

Each worker has a row of its own, which it alone writes while it lives. What is more than one row,
the next number and the sum of the associations, is changed under a lock of the file; the kernel
opens the lock of a process that dies.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 0.005  # seconds for which a connection is left to a process that has fewer

_FIELDS = 4  # of a row
_ASSOCIATIONS, _CONNECTIONS, _PENDING, _LEAVING = range(_FIELDS)
_OCTETS = 8
_AWAY = (1 << 63) - 1


class Shared:
    """Those numbers, by the descriptor of their file. Workers count from 1."""

    def __init__(self, descriptor: int, workers: int) -> None:
        self.descriptor = descriptor
        self.workers = workers
        self._map = mmap.mmap(descriptor, _size(workers))
        self._values = memoryview(self._map).cast("Q")

    @classmethod
    def made(cls, workers: int) -> Shared:
        """New ones, of workers that are all away."""
        descriptor = _file_without_a_name()
        os.truncate(descriptor, _size(workers))
        shared = cls(descriptor, workers)
        for worker in range(1, workers + 1):
            shared.away(worker)
            shared.pending(worker, True)  # until it has looked
        return shared

    def numbers(self) -> Iterator[int]:
        """Numbers from 1, each given once among all processes."""
        while True:
            with self._locked():
                self._values[0] += 1
                number = self._values[0]
            yield number

    # --- associations

    def take(self, worker: int, most: int) -> bool:
        """Count an association of a worker; False where there are ``most`` already."""
        with self._locked():
            if self.associations() >= most:
                return False
            self._values[self._at(worker, _ASSOCIATIONS)] += 1
            return True

    def give(self, worker: int) -> None:
        """An association of a worker is over."""
        self._values[self._at(worker, _ASSOCIATIONS)] -= 1

    def associations(self) -> int:
        """All that there are."""
        return sum(self._column(_ASSOCIATIONS))

    # --- connections

    def away(self, worker: int) -> None:
        """A worker takes no connections, and has none."""
        self._values[self._at(worker, _ASSOCIATIONS)] = 0
        self._values[self._at(worker, _LEAVING)] = 0
        self.retire(worker)

    def retire(self, worker: int) -> None:
        """A worker takes no further connections."""
        self.connected(worker, _AWAY)

    def connected(self, worker: int, count: int) -> None:
        """A worker has so many connections."""
        self._values[self._at(worker, _CONNECTIONS)] = count

    def leave(self, worker: int, now: float) -> bool:
        """Whether a worker should leave a connection to another, for `PATIENCE`: to one that takes
        some, has fewer, and does not leave it to others itself."""
        moment = int(now * 1e9)
        counts, until = self._column(_CONNECTIONS), self._column(_LEAVING)
        own = counts[worker - 1]
        if not any(c < own and u <= moment for c, u in zip(counts, until, strict=True)):
            return False
        self._values[self._at(worker, _LEAVING)] = moment + int(PATIENCE * 1e9)
        return True

    # --- the index

    def pending(self, worker: int, pending: bool) -> None:
        """A worker has acknowledged what is not in the index yet, or has not."""
        self._values[self._at(worker, _PENDING)] = pending

    def are_pending(self) -> list[int]:
        """The workers of which that is true."""
        return [at for at, pending in enumerate(self._column(_PENDING), 1) if pending]

    @staticmethod
    def _at(worker: int, field: int) -> int:
        return 1 + (worker - 1) * _FIELDS + field

    def _column(self, field: int) -> list[int]:
        return self._values[1 + field :: _FIELDS].tolist()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)


def _file_without_a_name() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("dimse-scp")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _size(workers: int) -> int:
    return (1 + workers * _FIELDS) * _OCTETS
