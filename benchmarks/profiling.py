"""Where our programs spend their time, by whose code it is.

    python -m benchmarks receive-8k --profile FOLDER        # needs py-spy
    python -m benchmarks profile FOLDER

py-spy looks at each of our programs 500 times a second from outside, at the reactor's thread while
it is at work. A sample counts for the innermost Python function: a call of the system counts for
who made it, which tells sockets from files. Waiting is left out, for how long that takes is up to
the peer.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import Failed

_RATE = 500
_MOST_SECONDS = 600
_TURNING = ("ReactorBase.mainLoop", "AsyncioSelectorReactor.run")
_WAITING = ("doPoll", "_run_once", "run_forever")
_SOCKETS = ("doRead", "writeSomeData", "untilConcludes", "_send_now", "_hand_on")
_FILES = (
    "services/partial.py", "services/files.py", "services/syncing.py", "archive/journal.py",
    "_FileReader._fill", "FileSource.open", "archive/stored.py",
)  # fmt: skip
_BY_PLACE = {
    "TLS": ("OpenSSL/", "twisted/protocols/tls.py", "twisted_dimse/tls/"),
    "Twisted": ("twisted/", "zope/", "constantly/", "incremental/"),
    "PDUs": ("twisted_dimse/upperlayer/", "twisted_dimse/protocol.py"),
    "commands": ("twisted_dimse/dimse/",),
    "the rest of ours": ("twisted_dimse/",),
    "pydicom": ("pydicom/",),
    "SQLAlchemy": ("sqlalchemy/",),
}
GROUPS = ("sockets", "files", *_BY_PLACE, "Python")


@contextmanager
def watched(folder: Path, pid: int, name: str) -> Iterator[None]:
    """Look at a process until it has ended; what was seen is a file in ``folder`` then."""
    program = shutil.which("py-spy")
    if program is None:
        raise Failed("py-spy is not installed, with which programs are looked at")
    folder.mkdir(parents=True, exist_ok=True)
    seen = folder / f"{name.replace('/', ' ')}.{pid}.raw"
    command = [
        program, "record", "--pid", str(pid), "--subprocesses", "--rate", str(_RATE),
        "--duration", str(_MOST_SECONDS), "--format", "raw", "--output", str(seen),
    ]  # fmt: skip
    watcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        try:
            watcher.wait(10)
        except subprocess.TimeoutExpired:
            watcher.kill()
            watcher.wait()


def group_of(stack: str) -> str | None:
    """Whose time a sample is, None where it is none of work."""
    if not any(name in stack for name in _TURNING):
        return None
    innermost = stack.rsplit(";", 1)[-1]
    if any(name in innermost for name in _WAITING):
        return None
    if any(name in innermost for name in _SOCKETS):
        return "sockets"
    if any(name in innermost for name in _FILES):
        return "files"
    for group, places in _BY_PLACE.items():
        if any(f"({place}" in innermost or f"/{place}" in innermost for place in places):
            return group
    return "Python"


def shares(folder: Path) -> dict[str, dict[str, float]]:
    """For each program of which anything was seen, the share of each group."""
    counts: dict[str, Counter[str]] = {}
    for seen in sorted(folder.glob("*.raw")):
        counter = counts.setdefault(seen.name.split(".")[0], Counter())
        for line in seen.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            group = group_of(stack)
            if group is not None:
                counter[group] += int(count)
    return {
        name: {group: counter[group] / counter.total() for group in GROUPS}
        for name, counter in counts.items()
        if counter
    }


def markdown(folder: Path) -> str:
    """A table of `shares`, in hundredths."""
    lines = [f"| program | {' | '.join(GROUPS)} |", "| --- |" + " --: |" * len(GROUPS)]
    for name, found in shares(folder).items():
        cells = [f"{100 * found[group]:.0f}" if found[group] >= 0.005 else "" for group in GROUPS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
