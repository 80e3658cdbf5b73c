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
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 0.005  # seconds for which a connection is left to a process that has fewer

_FIELDS = 4  # of a row
_ASSOCIATIONS, _CONNECTIONS, _PENDING, _LEAVING = range(_FIELDS)
_OCTETS = 8
_SLOTS = 1 << 16  # for UIDs, with a count of 16 bits each
_MOST = 0xFFFF
_AWAY = (1 << 63) - 1
_NONE = memoryview(bytes(2 * _SLOTS)).cast("H")


class Shared:
    """Those numbers, by the descriptor of their file. Workers count from 1."""

    def __init__(self, descriptor: int, workers: int) -> None:
        self.descriptor = descriptor
        self.workers = workers
        self._map = mmap.mmap(descriptor, _size(workers) + _size_of_slots(workers))
        whole = memoryview(self._map)
        self._values = whole[: _size(workers)].cast("Q")
        self._slots = whole[_size(workers) :].cast("H")

    @classmethod
    def made(cls, workers: int) -> Shared:
        """New ones, of workers that are all away."""
        descriptor = _file_without_a_name()
        os.truncate(descriptor, _size(workers) + _size_of_slots(workers))
        shared = cls(descriptor, workers)
        for worker in range(1, workers + 1):
            shared.away(worker)
            shared.pending(worker, True)  # until it has looked
            shared._slots[shared._slots_of(worker)] = memoryview(b"\1\0" * _SLOTS).cast("H")
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
        if not pending:
            self._slots[self._slots_of(worker)] = _NONE

    def are_pending(self) -> list[int]:
        """The workers of which that is true."""
        return [at for at, pending in enumerate(self._column(_PENDING), 1) if pending]

    def waits(self, worker: int, uid: str, count: int) -> None:
        """A worker has so many more instances of a UID, or so many less, of that kind."""
        at = (worker - 1) * _SLOTS + _slot_of(uid)
        self._slots[at] = min(max(self._slots[at] + count, 0), _MOST)

    def may_wait_elsewhere(self, worker: int, uid: str) -> bool:
        """Whether another worker has an instance of a UID, or of one of those that share its place
        here, of that kind."""
        slot = _slot_of(uid)
        own = worker - 1
        counts = self._slots[slot::_SLOTS].tolist()
        return any(counts[:own]) or any(counts[own + 1 :])

    @staticmethod
    def _slots_of(worker: int) -> slice:
        return slice((worker - 1) * _SLOTS, worker * _SLOTS)

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


def _size_of_slots(workers: int) -> int:
    return workers * _SLOTS * 2


def _slot_of(uid: str) -> int:
    return zlib.crc32(uid.encode()) % _SLOTS
