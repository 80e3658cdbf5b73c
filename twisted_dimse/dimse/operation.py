"""Outstanding operations, both ways (PS3.7 7.5, 9, 10): message IDs and the window.

`Invocations` numbers what we ask of the peer, keeps the window (PS3.7 D.3.3.3) and matches
responses by message ID, in any order; what does not fit the window waits its turn.

    invocations = Invocations(limit=8)
    invocations.submit(operation)          # begins it, now or when a slot is free
    operation = invocations.responded(message_id, final=True)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted_dimse.errors import ProtocolViolation

Operation = TypeVar("Operation")


class Invocations(Generic[Operation]):
    """The operations that we have invoked and that are not over.

    `begin` is called with each operation and its message ID when its turn comes. `limit` is the
    agreed number of operations invoked, 0 for none.
    """

    def __init__(self, begin: Callable[[Operation, int], None], limit: int = 1) -> None:
        self.limit = limit
        self.outstanding: dict[int, Operation] = {}
        self.waiting: deque[Operation] = deque()
        self._begin = begin
        self._last_id = 0

    def __len__(self) -> int:
        return len(self.outstanding) + len(self.waiting)

    def submit(self, operation: Operation) -> None:
        """Begin an operation as soon as the window has room."""
        if self.waiting or (self.outstanding and self._full):
            self.waiting.append(operation)
        else:
            self._start(operation)

    def withdraw(self, operation: Operation) -> bool:
        """Take back an operation that has not begun. False where it has."""
        try:
            self.waiting.remove(operation)
        except ValueError:
            return False
        return True

    def responded(self, message_id: int, *, final: bool) -> Operation:
        """The operation that a response belongs to; a final one frees its ID and its slot.

        Raises `ProtocolViolation` for an answer to nothing that we asked.
        """
        operation = self.outstanding.get(message_id)
        if operation is None:
            raise ProtocolViolation(f"a response to message {message_id}, which is not under way")
        if final:
            del self.outstanding[message_id]
        return operation

    def end(self, message_id: int) -> None:
        """An operation is over: its ID and its slot are free."""
        del self.outstanding[message_id]

    def advance(self) -> None:
        """Begin what waits, as far as the window has room."""
        while self.waiting and not self._full:
            self._start(self.waiting.popleft())

    def drain(self) -> list[Operation]:
        """All operations, none of which will be answered any more."""
        left = [*self.outstanding.values(), *self.waiting]
        self.outstanding.clear()
        self.waiting.clear()
        return left

    @property
    def _full(self) -> bool:
        return 0 < self.limit <= len(self.outstanding) or len(self.outstanding) >= 0xFFFF

    def _start(self, operation: Operation) -> None:
        message_id = self._last_id % 0xFFFF + 1
        while message_id in self.outstanding:
            message_id = message_id % 0xFFFF + 1
        self._last_id = message_id
        self.outstanding[message_id] = operation
        self._begin(operation, message_id)
