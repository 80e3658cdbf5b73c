"""pynetdicom's applications with TCP_NODELAY, as DCMTK has it by its environment:
``python -m benchmarks.pynetdicom_app TOOL [ARGUMENT…]``.

Left alone, its storescu writes a command and its data set apart with Nagle's algorithm on, and
waits 40 ms for each message. Its storescp takes ten associations at once, and lets five wait to be
taken, beyond which a connection is tried again after a second. Those would be easy victories.
"""

from __future__ import annotations

import runpy
import socket
import socketserver
import sys
from typing import Any


class _Prompt(socket.socket):
    """A socket that switches Nagle's algorithm off when it is connected or accepted."""

    def connect(self, address: Any) -> None:
        super().connect(address)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address


def _make_room() -> None:
    """For as many associations, and as many that wait, as the servers beside it have."""
    from pynetdicom import AE

    AE.maximum_associations = 1000  # type: ignore[method-assign,assignment]
    socketserver.TCPServer.request_queue_size = 128


if __name__ == "__main__":
    socket.socket = _Prompt  # type: ignore[misc]
    if sys.argv[1:2] == ["storescp"]:
        _make_room()
    runpy.run_module("pynetdicom", run_name="__main__", alter_sys=True)
