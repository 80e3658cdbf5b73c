"""A command on a terminal: what it writes to one of so many columns."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path

from peers import DIMSE, environment


def on_terminal(columns: int, *words: str | Path) -> tuple[int, str]:
    """Exit status, and all that a command wrote to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    command = [*DIMSE, *map(str, words)]
    variables = environment(TERM="xterm-256color", LC_ALL="C.UTF-8")
    variables.pop("COLUMNS", None)
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=variables
    ) as process:
        os.close(theirs)
        out = b""
        try:
            while octets := os.read(ours, 1 << 16):
                out += octets
        except OSError:
            pass  # the other side is closed
        os.close(ours)
    return process.returncode, out.decode()
