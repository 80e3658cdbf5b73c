"""A program that starts as a copy is what it would be if Python had started it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import copies
import peers
import pytest
from copies import Copy
from peers import Running

LOOK = """
import json, os, signal, sys, threading
print(json.dumps({
    "words": sys.argv,
    "path": sys.path,
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "descriptors": sorted(os.listdir("/proc/self/fd")),
    "threads": len(os.listdir("/proc/self/task")),
    "signals": {int(one): str(signal.getsignal(one)) for one in signal.valid_signals()},
    "group": os.getpgid(0),
    "streams": [str(stream) for stream in (sys.stdin, sys.stdout, sys.stderr)],
    "children": open("/proc/self/task/%d/children" % os.getpid()).read(),
    "ours": [name for name in sys.modules if name.startswith("twisted_dimse")],
    "reactor": "twisted.internet.reactor" in sys.modules,
}))
"""


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any program for Python is started as a copy."""

    class All:
        def __contains__(self, command: list[str]) -> bool:
            return command[:2] == [sys.executable, "-c"]

    monkeypatch.setattr(peers, "COPIED", All())


def test_it_looks_the_same_from_within(
    copied: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOMETHING", "of this test")
    program = [sys.executable, "-c", LOOK, "a", "b c"]
    copy = peers.run(program, cwd=tmp_path).succeeded()
    with monkeypatch.context() as patch:
        patch.setattr(peers, "COPIED", [])
        started = peers.run(program, cwd=tmp_path).succeeded()
    assert json.loads(copy.out) == json.loads(started.out)
    assert json.loads(copy.out)["words"] == ["-c", "a", "b c"]
    assert json.loads(copy.out)["environment"]["SOMETHING"] == "of this test"


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("pass", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('no')", 1, "no\n"),
        ("raise ValueError('no')", 1, "ValueError: no\n"),
        ("import os; os._exit(7)", 7, ""),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
        ("import atexit, sys; atexit.register(sys.stderr.write, 'end')", 0, "end"),
    ],
)
def test_it_ends_the_same(copied: None, code: str, status: int, said: str) -> None:
    done = peers.run([sys.executable, "-c", code])
    assert done.status == status
    assert done.err.endswith(said)
    assert bool(done.err) == bool(said)


def test_it_takes_signals_and_can_be_waited_for(copied: None) -> None:
    code = "import time\nprint('here', flush=True)\ntime.sleep(60)"
    running = Running([sys.executable, "-c", code])
    assert isinstance(running.process, Copy)
    running.wait_for_line("here")
    assert running.process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        running.process.wait(0.01)
    assert running.stop() == -signal.SIGTERM
    assert running.stop() == -signal.SIGTERM


def test_the_process_that_is_copied_ends_with_who_ordered_copies() -> None:
    orders, process = copies._original.__wrapped__(())
    orders.close()
    assert process.wait(peers.SECONDS) == 0
