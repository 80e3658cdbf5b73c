"""Programs of ours that start as copies of a Python which has imported the libraries they need.

Most of a start are imports of Twisted, pydicom, numpy and SQLAlchemy, and the tests start hundreds
of programs. So a process imports these once for all, and forks for each program. A copy imports
`twisted_dimse` itself, has a process, folder, environment and streams of its own, takes signals and
ends as any other.

    copy = Copy("from twisted_dimse.cli import main; main()", ["--help"], folder, env, streams)
    copy.wait(10)

What a start imports is shown by tests that start a Python of their own, as are the commands of the
documents.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

LIBRARIES = [
    "OpenSSL.SSL",
    "click",
    "cryptography.x509",
    "pydicom",
    "rich.console",
    "sqlalchemy",
    "twisted.internet.endpoints",
    "twisted.internet.ssl",
    "twisted.internet.threads",
    "twisted.scripts.twistd",
]

#: Variables that Python reads when it starts.
AT_START = ("LANG", "LC_", "PYTHON", "TZ")

_NUMBER = struct.Struct("=i")
_LARGEST_ORDER = 1 << 17


class Copy:
    """A program that was started, with the names that `subprocess.Popen` has for it.

    ``code`` is what ``python -c`` would be given, ``words`` the words behind it, and ``streams``
    the descriptors of its standard input, output and error.
    """

    def __init__(
        self,
        code: str,
        words: Sequence[str],
        cwd: str,
        env: Mapping[str, str],
        streams: Sequence[int],
    ) -> None:
        self.args = [sys.executable, "-c", code, *words]
        self.returncode: int | None = None
        self._said, told = socket.socketpair()
        with told:
            order = json.dumps([code, words, cwd, dict(env)]).encode()
            orders, _process = _original(_at_start(env))
            socket.send_fds(orders, [order], [told.fileno(), *streams])
        self.pid = self._next()

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._said.settimeout(timeout)
            try:
                self.returncode = self._next()
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._said.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _next(self) -> int:
        """The next number that is said of it: its process, and its status when it has ended."""
        octets = self._said.recv(_NUMBER.size)
        assert octets, "the process that starts programs has ended"
        return int(_NUMBER.unpack(octets)[0])


def _at_start(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(item for item in env.items() if item[0].startswith(AT_START)))


@cache
def _original(
    variables: tuple[tuple[str, str], ...],
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The process that is copied where these variables hold, and the way to order a copy of it. It
    ends when nobody can order one any more."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, __file__, str(its.fileno())],
            # A process with threads, which numpy would start, could not be copied.
            env={**os.environ, **dict(variables), "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
        )
    return ours, process


# --- in the process that is copied

# What an interrupt does to a program that is started here: nothing, where a shell has it so.
_interrupted: list[Any] = []


def _serve(orders: socket.socket) -> str | None:
    """Start what is ordered, and say of each its process and its status. In a copy: its program."""
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()
    _interrupted.append(signal.signal(signal.SIGINT, signal.SIG_IGN))
    waiting = selectors.DefaultSelector()
    waiting.register(orders, selectors.EVENT_READ)
    while True:
        for key, _events in waiting.select():
            if key.data is not None:
                pid, told = key.data
                _pid, status = os.waitpid(pid, 0)
                waiting.unregister(key.fd)
                os.close(key.fd)
                _tell(told, os.waitstatus_to_exitcode(status))
                told.close()
                continue
            order, descriptors, _flags, _address = socket.recv_fds(orders, _LARGEST_ORDER, 4)
            if not order:
                return None
            told, streams = socket.socket(fileno=descriptors[0]), descriptors[1:]
            pid = os.fork()
            if not pid:
                told.close()
                _close_all(waiting)
                return _become(streams, *json.loads(order))
            for stream in streams:
                os.close(stream)
            waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, told))
            _tell(told, pid)


def _tell(told: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody waits for it any more
        told.send(_NUMBER.pack(number))


def _close_all(waiting: selectors.BaseSelector) -> None:
    """Let go of what belongs to the original."""
    for key in list(waiting.get_map().values()):
        if key.data is None:
            key.fileobj.close()
        else:
            os.close(key.fd)
            key.data[1].close()
    waiting.close()


def _become(
    streams: Sequence[int], code: str, words: list[str], cwd: str, env: dict[str, str]
) -> str:
    signal.signal(signal.SIGINT, _interrupted[0])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["-c", *words]
    sys.path[0] = ""
    return code


if __name__ == "__main__":
    _program = _serve(socket.socket(fileno=int(sys.argv[1])))
    if _program is not None:
        _names: dict[str, Any] = {"__name__": "__main__"}
        exec(_program, _names)
