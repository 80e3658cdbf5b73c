"""A peer sends more than one read takes and resets its connection: a program, for one reactor.

    python tests/resets.py epoll|select|poll|asyncio|uvloop

Prints how the association ended.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

import raw
from scenario import install

RESET_AT_ONCE = struct.pack("ii", 1, 0)


async def main(reactor: Any) -> None:
    from twisted.internet.defer import Deferred

    from twisted_dimse import Handler, listen

    ended: Deferred[Any] = Deferred()

    class Slow(Handler):
        """Reads what came only when all of it, and the reset, is there."""

        def associate(self, request: Any) -> Any:
            reactor.callLater(0, self.send)
            request.association.closed.chainDeferred(ended)

        def send(self) -> None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_ONCE)
            peer.sendall(raw.p_data((1, raw.COMMAND, bytes(1000))) * 100)
            peer.close()

    port = await listen("tcp:0:interface=127.0.0.1", Slow(), reactor=reactor)
    peer = socket.create_connection(("127.0.0.1", port.getHost().port))
    peer.sendall(raw.associate_rq())
    end = await ended.addTimeout(20, reactor)
    print(type(end).__name__)
    await port.stopListening()


if __name__ == "__main__":
    install(sys.argv[1])
    from twisted.internet.task import react

    react(main)
