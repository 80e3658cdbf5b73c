"""The library as a server that throws away what it receives: ``python -m benchmarks.our_server
PORT``, until it is told to end."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import defer, task

from twisted_dimse import Handler, listen


class Nowhere:
    """A consumer of a data set's octets that keeps none of them."""

    def write(self, data: bytes | memoryview) -> None:
        """Drop a slice."""

    def finish(self) -> int:
        """Answer success."""
        return 0

    def abandon(self) -> None:
        """The association ended first: nothing to clean up."""


class Discard(Handler):
    """Accepts and forgets every instance."""

    def store_sink(self, request: Any) -> Nowhere:
        """A consumer for one instance."""
        return Nowhere()


async def serve(reactor: Any, port: str) -> None:
    """Listen on loopback for as long as the process lives."""
    await listen(f"tcp:{port}:interface=127.0.0.1", Discard(), reactor=reactor)
    await defer.Deferred()


def _main(reactor: Any, port: str) -> defer.Deferred[None]:
    return defer.ensureDeferred(serve(reactor, port))


if __name__ == "__main__":
    task.react(_main, sys.argv[1:])
