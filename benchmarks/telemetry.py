"""C-ECHO with nobody subscribed to telemetry, and with a subscriber that counts events.

Without a subscriber no event is even made: what is left is one look at an empty tuple for each
event that might have been. The difference is what a subscriber costs.
"""

from __future__ import annotations

from functools import partial

from benchmarks.echo import answering
from benchmarks.harness import OURS, Mark, Row
from benchmarks.peers import Program, installed_library, our_library_server
from benchmarks.scratch import Settings

SUBSCRIBED = "a subscriber"
MARKS = (Mark(1.0, SUBSCRIBED),)


def rows(settings: Settings) -> list[Row]:
    """One server, twice."""
    counting = partial(our_library_server, subscribed=True)
    servers = [
        Program("listen()", OURS, our_library_server, installed_library),
        Program("listen(), subscribed", SUBSCRIBED, counting, installed_library),
    ]
    contestants = [server.contestant(partial(answering, server, settings)) for server in servers]
    title = "C-ECHO, server without a subscriber"
    return [Row("telemetry", title, "a second", contestants, MARKS)]
