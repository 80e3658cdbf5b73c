"""An archive that several processes serve: what each of them needs of the others.

Each has a journal of its own and indexes what it has acknowledged itself, one at a time; a query
waits until all have. See `scp.master`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred


@dataclass(frozen=True, slots=True)
class Part:
    """The part of one process in an archive that several serve. ``number`` counts them from 1.
    ``pending`` is told whether it has acknowledged what is not in the index yet, and ``waits`` how
    many more, or less, of a UID; ``may_wait_elsewhere`` says whether another may have one of that.
    ``others`` fires when what the others had acknowledged is in the index, and fails with `OSError`
    where that takes too long.
    """

    number: int
    pending: Callable[[bool], None]
    waits: Callable[[str, int], None]
    may_wait_elsewhere: Callable[[str], bool]
    others: Callable[[], Deferred[None]]
