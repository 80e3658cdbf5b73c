"""Every service works on every reactor: each in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import peers
import pytest

SCENARIO = Path(__file__).with_name("scenario.py")
REACTORS = {
    "epoll": "EPollReactor",
    "select": "SelectReactor",
    "poll": "PollReactor",
    "asyncio": "AsyncioSelectorReactor",
    "uvloop": "AsyncioSelectorReactor",
}


@pytest.mark.parametrize("name", REACTORS)
def test_all_services_work_in_both_roles(name: str) -> None:
    if name == "uvloop" and importlib.util.find_spec("uvloop") is None:
        peers.absent("uvloop")
    done = subprocess.run(
        [sys.executable, str(SCENARIO), name], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ok {REACTORS[name]}\n", "")


def test_twistd_knows_the_uvloop_reactor() -> None:
    command = [Path(sys.executable).with_name("twistd"), "--help-reactors"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert "uvloop" in listed
