"""The asyncio reactor on uvloop: ``twistd --reactor uvloop``, or `install` before anything else
imports the reactor. Needs the extra ``twisted-dimse[uvloop]``.

    from twisted_dimse import uvloop_reactor
    uvloop_reactor.install()
"""

from __future__ import annotations

import uvloop
from twisted.internet import asyncioreactor


def install() -> None:
    """Make an asyncio reactor on a new uvloop event loop the reactor."""
    asyncioreactor.install(uvloop.new_event_loop())
