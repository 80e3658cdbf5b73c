"""A network in between: octets arrive some time after they were sent, in both directions.

    with at_a_distance(server_port, 0.0005) as port:    # seconds one way
        ...                                             # connect to ``port`` instead

Loopback has no distance, and what hides one cannot be seen there. Nothing is lost and no rate is
limited: each piece goes on when it is due, and pieces do not wait for each other.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter, sleep

_PIECE = 262144
_END = b""


@contextmanager
def at_a_distance(port: int, seconds: float) -> Iterator[int]:
    """A port whose connections go on to another port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port, seconds), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, port: int, seconds: float) -> None:
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for source, target in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _carry(source, target, seconds)


def _carry(source: socket.socket, target: socket.socket, seconds: float) -> None:
    under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def read() -> None:
        piece = b"begin"
        while piece:
            try:
                piece = source.recv(_PIECE)
            except OSError:
                piece = _END
            under_way.put((perf_counter() + seconds, piece))

    def write() -> None:
        with suppress(OSError):
            while True:
                due, piece = under_way.get()
                sleep(max(0.0, due - perf_counter()))
                if piece == _END:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(piece)

    for work in (read, write):
        threading.Thread(target=work, daemon=True).start()
