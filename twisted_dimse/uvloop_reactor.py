"""The asyncio reactor on uvloop: ``twistd --reactor uvloop``, or `install` before anything else
imports the reactor. Needs the extra ``twisted-dimse[uvloop]``.

    from twisted_dimse import uvloop_reactor
    uvloop_reactor.install()

Where a peer resets its connection before all that it sent is read, uvloop stops watching the socket
and tells nobody. So the reactor looks for such sockets itself, once a second.
"""

from __future__ import annotations

import select
from typing import Any

import uvloop
from twisted.internet import asyncioreactor
from twisted.internet.main import installReactor

_EVERY = 1.0  # seconds


class UvloopReactor(asyncioreactor.AsyncioSelectorReactor):
    """As its base; sockets with an error that uvloop does not tell of are read, and so lost."""

    def __init__(self) -> None:
        super().__init__(uvloop.new_event_loop())
        self._look_later()

    def _look_later(self) -> None:
        self._asyncioEventloop.call_later(_EVERY, self._look)

    def _look(self) -> None:
        for selectables, reads in ((self._readers, True), (self._writers, False)):
            for selectable in _broken(selectables):
                while selectable in selectables and _broken([selectable]):
                    self._readOrWrite(selectable, reads)
        self._look_later()


def _broken(selectables: Any) -> list[Any]:
    """Those on whose sockets there is an error."""
    poll = select.poll()
    by_number = {one.fileno(): one for one in selectables if one.fileno() >= 0}
    for number in by_number:
        poll.register(number, 0)  # errors are told always
    return [by_number[number] for number, what in poll.poll(0) if what & select.POLLERR]


def install() -> None:
    """Make an asyncio reactor on a new uvloop event loop the reactor."""
    installReactor(UvloopReactor())
