"""Many values from a handler, whichever way it gives them: one shape for all.

A list, a generator, an async generator, a Deferred of one, a single value or None: `ManyValues`
takes them one at a time, closes what can be closed, and lets the reactor turn in between, as `Pace`
has it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

_TURN = 0.004  # seconds of work before others get the reactor


class Pace:
    """Of work in many small parts on the reactor's thread: ``await pace.keep()`` before each, or
    only where `is_over`, which costs less."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._since = reactor.seconds()

    @property
    def is_over(self) -> bool:
        """Whether the reactor has not had its turn for some milliseconds."""
        return bool(self._reactor.seconds() - self._since > _TURN)

    async def keep(self) -> None:
        """Let the reactor turn where it has not had its turn for some milliseconds."""
        if self.is_over:
            await deferLater(self._reactor, 0)
            self._since = self._reactor.seconds()


def _is_one(given: Any) -> bool:
    """Whether it is a Dataset, octets, a path or a source: some of them could be iterated too."""
    one = isinstance(given, (str, bytes, os.PathLike))
    return one or hasattr(given, "to_json_dict") or hasattr(given, "open")


class ManyValues:
    """The values of ``given``. `count` is their number where that is known."""

    END: ClassVar[object] = object()

    def __init__(self, given: Any, count: int | None, reactor: Any) -> None:
        self.count = count
        self._pace = Pace(reactor)
        self._async: AsyncIterator[Any] | None = None
        self._sync: Iterator[Any] = iter(())
        if given is None:
            self.count = 0
        elif _is_one(given):
            self._sync, self.count = iter((given,)), 1
        elif hasattr(given, "__aiter__"):
            self._async = given.__aiter__()
        else:
            self._sync = iter(given)
            if self.count is None and hasattr(given, "__len__"):
                self.count = len(given)

    async def next(self) -> Any:
        """The next value, or `END`."""
        if self._pace.is_over:
            await self._pace.keep()
        if self._async is not None:
            try:
                return await self._async.__anext__()
            except StopAsyncIteration:
                return self.END
        value = next(self._sync, self.END)
        if isinstance(value, Deferred) or inspect.isawaitable(value):
            value = await value
        return value

    async def close(self) -> None:
        """Tell a generator that no more is wanted."""
        if self._async is not None and hasattr(self._async, "aclose"):
            await self._async.aclose()
        elif hasattr(self._sync, "close"):
            self._sync.close()
