"""Processes under measure: started, watched through /proc, and ended by their own id.

with running([...], name="storescp") as process:
    before = usage(process.pid); ...; used = usage(process.pid) - before
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

_TICK = os.sysconf("SC_CLK_TCK")
_ROOT = Path(__file__).resolve().parent.parent
# Who looks at each program in Python while it runs: called with its process ID and its name.
watching: list[Callable[[int, str], AbstractContextManager[None]]] = []


class Failed(Exception):
    """A contestant could not be started, or ended other than it should; says how in one line."""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds of a process and its children, and its resident memory now and at most (MiB).

    The kernel counts user and system seconds in ticks of 10 ms.
    """

    user: float = 0.0
    system: float = 0.0
    resident: float = 0.0
    peak: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        """Of two processes."""
        return Usage(
            self.user + other.user, self.system + other.system,
            self.resident + other.resident, self.peak + other.peak,
        )  # fmt: skip

    def __sub__(self, before: Usage) -> Usage:
        """CPU seconds since ``before``; memory as it is now."""
        return Usage(self.user - before.user, self.system - before.system, self.resident, self.peak)


def usage(pid: int) -> Usage:
    """What the process ``pid`` and its children have used; zeros for one that is not there."""
    ticks = [0, 0]
    resident = peak = 0.0
    for member in _family(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks[0] += int(fields[11]) + int(fields[13])  # its own, its ended children's
            ticks[1] += int(fields[12]) + int(fields[14])
            now, most = _memory(member)
            resident, peak = resident + now, peak + most
    return Usage(ticks[0] / _TICK, ticks[1] / _TICK, resident, peak)


def usage_of_ended() -> Usage:
    """CPU seconds of all processes that this one started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Usage(ended.ru_utime, ended.ru_stime)


class Bystanders:
    """How many cores others kept busy since this was made: all CPU time of the machine, less that
    of this process and of all that it started."""

    def __init__(self) -> None:
        self._began = monotonic()
        self._before = _cpu_of_others()

    def cores(self) -> float:
        """Their share so far; the kernel counts in ticks of 10 ms."""
        used = _cpu_of_others() - self._before
        return max(0.0, used) / max(monotonic() - self._began, 1 / _TICK)


def _cpu_of_others() -> float:
    """Seconds since the machine was started."""
    fields = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    busy = sum(int(fields[n]) for n in (0, 1, 2, 5, 6))  # user, nice, system, interrupts
    mine = 0
    for member in _family(os.getpid()):
        with suppress(OSError):
            words = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            mine += sum(map(int, words[11:15]))  # its own and its ended children's
    return (busy - mine) / _TICK


def reset_peak(pid: int) -> None:
    """Let the peak of resident memory count from now on (proc(5), ``clear_refs``)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def free_port() -> int:
    """A port of loopback that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(
    command: Sequence[str], *, name: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the checkout's folder, ended on leaving; `Failed` tells its last words."""
    surroundings = {**os.environ, "PYTHONPATH": str(_ROOT), **(environment or {})}
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command, cwd=_ROOT, env=surroundings, stdin=subprocess.DEVNULL, stdout=said,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        except OSError as error:
            raise Failed(f"{name} did not start: {error.strerror}") from error
        with ExitStack() as stack:
            for watch in watching if command[0] == sys.executable else ():
                stack.enter_context(watch(process.pid, name))
            stack.callback(end, process)
            try:
                yield process
            except Exception as error:
                words = _last_words(process, said.fileno())
                raise Failed(f"{name}: {error}; {words}") from error


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, and make it after five seconds."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(process: subprocess.Popen[bytes], output: int) -> str:
    size = os.fstat(output).st_size
    lines = os.pread(output, 2000, max(0, size - 2000)).decode(errors="replace").split("\n")
    spoken = [line.strip() for line in lines if line.strip()]
    status = process.poll()
    state = "it runs" if status is None else f"it ended with {status}"
    return f"{state}, its last line: {spoken[-1] if spoken else 'none'}"


def _family(pid: int) -> list[int]:
    members = [pid] if pid else []
    for member in members:
        with suppress(OSError):
            for children in Path(f"/proc/{member}/task").glob("*/children"):
                members.extend(map(int, children.read_text().split()))
    return members


def _memory(pid: int) -> tuple[float, float]:
    wanted = {"VmRSS:": 0.0, "VmHWM:": 0.0}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition("\t")
        if name in wanted:
            wanted[name] = int(value.split()[0]) / 1024
    return wanted["VmRSS:"], wanted["VmHWM:"]
