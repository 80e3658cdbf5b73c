"""The matches of a C-FIND, one at a time, as they come.

    async with association.find_each({"PatientName": "DOE*"}) as matches:
        async for match in matches:
            ...                 # leaving early sends C-CANCEL and waits for the last response

`AnswerQueue` stands between the association, which fills it, and `Answers`, which a user iterates.
The association refers to the queue only, so that an iterator that nobody holds any more is
collected, and cancels. While a user reads slowly the transport is paused, unless another operation
wants to use the association.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

_READ_AHEAD = 256  # matches that may wait for a slow reader


class AnswerQueue:
    """Matches that have come and were not taken yet. ``others`` tells whether the association
    has other operations, for which it must go on reading."""

    def __init__(self, others: Callable[[], bool]) -> None:
        self.over = False
        self.closed = False
        self._others = others
        self._matches: deque[Any] = deque()
        self._failure: Failure | None = None
        self._reader: Deferred[None] | None = None
        self._writer: Deferred[None] | None = None
        self._ends: list[Deferred[None]] = []

    def put(self, match: Any) -> Deferred[None] | None:
        """One more match; a Deferred where the transport should wait."""
        if self.closed:
            return None
        self._matches.append(match)
        self._wake()
        if len(self._matches) < _READ_AHEAD or self._others():
            return None
        self._writer = Deferred()
        return self._writer

    def end(self, result: Any) -> None:
        """No more matches: a Failure, or the final status."""
        self.over = True
        if isinstance(result, Failure):
            self._failure = result
        self._wake()
        ends, self._ends = self._ends, []
        for ended in ends:
            ended.callback(None)

    def ready(self) -> Deferred[None]:
        """Fires when there is a match, or the end."""
        if self._matches or self.over:
            return succeed(None)
        self._reader = Deferred()
        return self._reader

    @property
    def empty(self) -> bool:
        return not self._matches

    def take(self) -> Any:
        """The next match. Raises `StopAsyncIteration` at the end, or what the end was."""
        if self._matches:
            match = self._matches.popleft()
            if len(self._matches) < _READ_AHEAD // 2:
                self.go_on()
            return match
        failure, self._failure = self._failure, None
        if failure is not None:
            failure.raiseException()
        raise StopAsyncIteration

    def go_on(self) -> None:
        """Let the transport read again."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.callback(None)

    def close(self) -> None:
        """Nobody will take what is here or still comes."""
        self.closed = True
        self._matches.clear()
        self.go_on()

    def ended(self) -> Deferred[None]:
        """Fires with the final response, or the end of the association."""
        if self.over:
            return succeed(None)
        ended: Deferred[None] = Deferred()
        self._ends.append(ended)
        return ended

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(None)


class Answers:
    """An async iterator and async context manager over the matches of one C-FIND."""

    def __init__(
        self,
        queue: AnswerQueue,
        cancel: Callable[[], None],
        forget: Callable[[AnswerQueue], None],
    ) -> None:
        self._queue = queue
        self._cancel = cancel
        self._forget = forget
        self._thread = threading.get_ident()

    def __aiter__(self) -> Answers:
        return self

    async def __anext__(self) -> Any:
        queue = self._queue
        if queue.closed:
            raise StopAsyncIteration
        try:
            if queue.empty:
                await queue.ready()
            return queue.take()
        except StopAsyncIteration:
            self._forget(queue)
            raise
        except BaseException:
            self._leave()
            raise

    async def aclose(self) -> None:
        """Cancel what is left and wait for the final response."""
        self._leave()
        await self._queue.ended()

    async def __aenter__(self) -> Answers:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._leave()
        if kind is None:
            await self._queue.ended()

    def __del__(self) -> None:
        if self._queue.over or self._queue.closed:
            return
        if threading.get_ident() == self._thread:
            self._leave()
            return
        from twisted.internet import reactor

        reactor.callFromThread(_leave, self._queue, self._cancel, self._forget)  # type: ignore[attr-defined]

    def _leave(self) -> None:
        _leave(self._queue, self._cancel, self._forget)


def _leave(
    queue: AnswerQueue, cancel: Callable[[], None], forget: Callable[[AnswerQueue], None]
) -> None:
    forget(queue)
    if queue.closed:
        return
    queue.close()
    if not queue.over:
        cancel()
