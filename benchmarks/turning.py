"""A program of ours whose reactor's turns are timed: ``python -m benchmarks.turning FILE PROGRAM
WORD…``, where PROGRAM is ``twistd`` or ``dimse``.

A turn is what the reactor's thread does from one wait for events to the next. What each took is
written to FILE as JSON when the process is asked to with SIGUSR2, or ends: CPU seconds of that
thread, and wall seconds, which have in them what other threads and processes had. SIGUSR1 forgets
the turns so far.

    with running([*TURNING, str(path), "twistd", ...]) as process:
        forget(process.pid); ...; turns = read(process.pid, path)
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter, sleep, thread_time
from typing import Any

TURNING = [sys.executable, "-m", "benchmarks.turning"]
_WITHIN = 20.0  # seconds


class Poller:
    """In the place of the reactor's ``select.epoll``: between two of its waits is a turn."""

    def __init__(self, poller: Any) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self._poller = poller
        self._began: tuple[float, float] | None = None  # before the first wait is the start

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)

    def poll(self, *args: Any) -> Any:
        """Wait for events."""
        if self._began is not None:
            self.cpu.append(thread_time() - self._began[0])
            self.wall.append(perf_counter() - self._began[1])
        try:
            return self._poller.poll(*args)
        finally:
            self._began = (thread_time(), perf_counter())

    def forget(self) -> None:
        """Begin anew; the turn under way is not counted."""
        self.cpu.clear()
        self.wall.clear()


@dataclass(frozen=True, slots=True)
class Turns:
    """What each turn took, in seconds, smallest first."""

    cpu: list[float]
    wall: list[float]

    def summary(self) -> str:
        """Median, 99.9th percentile and largest, in milliseconds."""
        parts = []
        for name, taken in (("CPU", self.cpu), ("wall", self.wall)):
            three = (taken[int(len(taken) * share)] * 1000 for share in (0.5, 0.999))
            figures = ", ".join(f"{value:.2f}" for value in (*three, taken[-1] * 1000))
            parts.append(f"{name} {figures} ms")
        return f"{'; '.join(parts)} (p50, p99.9, largest of {len(self.cpu):,})"


def forget(pid: int) -> None:
    """Have a process forget its turns so far, of which the one after this is the first."""
    os.kill(pid, signal.SIGUSR1)
    sleep(0.1)  # it is idle, and may take the signal when it likes


def read(pid: int, path: Path) -> Turns:
    """The turns of a process that writes them to ``path``."""
    os.kill(pid, signal.SIGUSR2)
    deadline = monotonic() + _WITHIN
    while not path.exists():
        if monotonic() > deadline:
            raise TimeoutError(f"no turns within {_WITHIN:.0f} s")
        sleep(0.01)
    return taken(path)


def taken(path: Path) -> Turns:
    """The turns that were written to ``path``, which is removed."""
    found = json.loads(path.read_text())
    path.unlink()
    return Turns(sorted(found["cpu"]), sorted(found["wall"]))


def _write(poller: Poller, path: str) -> None:
    with open(f"{path}.new", "w") as file:
        json.dump({"cpu": poller.cpu, "wall": poller.wall}, file)
    os.rename(f"{path}.new", path)


def _program(name: str) -> Callable[[], Any]:
    if name == "dimse":
        from twisted_dimse.cli import main

        return main
    from twisted.scripts.twistd import run

    return run


def _main(path: str, name: str, *words: str) -> None:
    from twisted.internet import reactor

    poller = Poller(reactor._poller)  # type: ignore[attr-defined]
    reactor._poller = poller  # type: ignore[attr-defined]
    signal.signal(signal.SIGUSR1, lambda *_: poller.forget())
    signal.signal(signal.SIGUSR2, lambda *_: _write(poller, path))
    atexit.register(_write, poller, path)
    sys.argv = [name, *words]
    _program(name)()


if __name__ == "__main__":
    _main(*sys.argv[1:])
