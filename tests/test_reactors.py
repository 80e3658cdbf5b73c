"""Every service works on every reactor: each in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import peers
import pytest
from scenario import instances

from twisted_dimse.datastream import part10_header

SCENARIO = Path(__file__).with_name("scenario.py")
RESETS = Path(__file__).with_name("resets.py")
REACTORS = {
    "epoll": "EPollReactor",
    "select": "SelectReactor",
    "poll": "PollReactor",
    "asyncio": "AsyncioSelectorReactor",
    "uvloop": "UvloopReactor",
}


@pytest.mark.parametrize("name", REACTORS)
def test_all_services_work_in_both_roles_and_the_same_files_are_filed(
    name: str, tmp_path: Path
) -> None:
    if name == "uvloop" and importlib.util.find_spec("uvloop") is None:
        peers.absent("uvloop")
    done = subprocess.run(
        [sys.executable, str(SCENARIO), name, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ok {REACTORS[name]}\n", "")
    filed = {path.stem: path.read_bytes() for path in tmp_path.rglob("*.dcm")}
    assert filed == {one.sop_instance_uid: _file_of(one) for one in instances()}


def _file_of(source: Any) -> bytes:
    """As it lies on the disk, whichever reactor received it."""
    data = source.data + bytes(len(source.data) & 1)
    kind = source.sop_class_uid, source.sop_instance_uid, source.transfer_syntax
    return part10_header(*kind, "DIMSE-SCU") + data


@pytest.mark.parametrize("name", REACTORS)
def test_a_peer_that_resets_behind_what_it_sent_is_noticed(name: str) -> None:
    if name == "uvloop" and importlib.util.find_spec("uvloop") is None:
        peers.absent("uvloop")
    done = subprocess.run(
        [sys.executable, str(RESETS), name], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ConnectionLost\n", "")


def test_twistd_knows_the_uvloop_reactor() -> None:
    command = [Path(sys.executable).with_name("twistd"), "--help-reactors"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert "uvloop" in listed
