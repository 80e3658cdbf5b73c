"""Work in many parts, which take a millisecond of a world's clock each; what is counted are those
that are done from one pause for the reactor to the next.

    parts = Parts(world, monkeypatch)
    ...                                     # parts.done() where one is
    parts.check()
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from memory import World

from twisted_dimse import iteration

MANY, MOST = 100, 5  # parts, and parts without a pause


class Parts:
    """Notes before which pause each part was done."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._clock = world.clock
        self._pauses = 0
        self._done: Counter[int] = Counter()
        defer_later = iteration.deferLater

        def pause(*args: Any) -> Any:
            self._pauses += 1
            return defer_later(*args)

        monkeypatch.setattr(iteration, "deferLater", pause)

    def done(self, value: Any = None) -> Any:
        """A part is done."""
        self._clock.rightNow += 0.001
        self._done[self._pauses] += 1
        return value

    def check(self) -> None:
        assert self._done.total() == MANY
        assert max(self._done.values()) <= MOST
