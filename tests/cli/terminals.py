"""A command on a terminal: what it writes to one of so many columns."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from contextlib import suppress
from pathlib import Path

from copies import Copy
from peers import DIMSE, SECONDS, environment


def on_terminal(columns: int, *words: str | Path) -> tuple[int, str]:
    """Exit status, and all that a command wrote to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    variables = environment(TERM="xterm-256color", LC_ALL="C.UTF-8")
    variables.pop("COLUMNS", None)
    process = Copy(DIMSE[2], [str(word) for word in words], os.getcwd(), variables, [theirs] * 3)
    os.close(theirs)
    out = b""
    with suppress(OSError):  # the other side is closed
        while octets := os.read(ours, 1 << 16):
            out += octets
    os.close(ours)
    return process.wait(SECONDS), out.decode()
