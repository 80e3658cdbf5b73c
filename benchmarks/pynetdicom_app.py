"""pynetdicom's applications with TCP_NODELAY, as DCMTK has it by its environment:
``python -m benchmarks.pynetdicom_app TOOL [ARGUMENT…]``.

Left alone, its storescu writes a command and its data set apart with Nagle's algorithm on, and
waits 40 ms for each message. That would be an easy victory.
"""

from __future__ import annotations

import runpy
import socket
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


if __name__ == "__main__":
    socket.socket = _Prompt  # type: ignore[misc]
    runpy.run_module("pynetdicom", run_name="__main__", alter_sys=True)
