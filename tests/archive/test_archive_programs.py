"""The archive as a program: what it acknowledged is found and comes back, come what may."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pydicom
import pytest
from peers import Running, Server, dcmtk, dimse, free_port, run, serving
from pydicom.data import get_testdata_file
from senders import instance

SENDERS = Path(__file__).with_name("senders.py")


def file_named(name: str) -> Path:
    return Path(str(get_testdata_file(name)))


CT = file_named("CT_small.dcm")
STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"


@pytest.fixture(scope="module")
def archive() -> Iterator[Server]:
    with serving() as server:
        for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "US1_J2KI.dcm"):
            dimse("store", server.peer, file_named(name)).succeeded()
        yield server


def test_findscu_finds_what_was_just_stored(archive: Server) -> None:
    done = run(
        dcmtk("findscu"), "-S", "-k", "0008,0052=STUDY", "-k", "PatientName=compressed*",
        "-k", "StudyInstanceUID", "-k", "NumberOfStudyRelatedInstances", "-aec", "X",
        "127.0.0.1", archive.port,
    ).succeeded()  # fmt: skip
    assert STUDY in done.said
    assert re.search(r"NumberOfStudyRelatedInstances", done.said)


def test_getscu_gets_the_octets_that_were_stored(archive: Server, tmp_path: Path) -> None:
    run(
        dcmtk("getscu"), "+B", "-S", "-k", "0008,0052=STUDY", "-k", f"StudyInstanceUID={STUDY}",
        "-od", tmp_path, "-aec", "X", "127.0.0.1", archive.port,
    ).succeeded()  # fmt: skip
    [got] = tmp_path.iterdir()
    assert pydicom.dcmread(got).PixelData == pydicom.dcmread(CT).PixelData


def test_movescu_has_it_sent_to_a_known_peer(tmp_path: Path) -> None:
    port = free_port()
    receiver = Running(dcmtk("storescp"), "-od", tmp_path, port)
    try:
        with serving("--peer", f"DEST=127.0.0.1:{port}") as server:
            dimse("store", server.peer, CT).succeeded()
            run(
                dcmtk("movescu"), "-S", "-aem", "DEST", "-k", "0008,0052=STUDY",
                "-k", f"StudyInstanceUID={STUDY}", "-aec", "X", "127.0.0.1", server.port,
            ).succeeded()  # fmt: skip
    finally:
        receiver.kill()
    assert len(list(tmp_path.iterdir())) == 1


def test_movescu_to_a_stranger_is_refused(archive: Server) -> None:
    done = run(
        dcmtk("movescu"), "-v", "-S", "-aem", "NOBODY", "-k", "0008,0052=STUDY",
        "-k", f"StudyInstanceUID={STUDY}", "-aec", "X", "127.0.0.1", archive.port,
    )  # fmt: skip
    assert "MoveDestinationUnknown" in done.said


def test_a_data_set_without_study_is_refused_with_what_is_missing(archive: Server) -> None:
    done = dimse(
        "store", archive.peer, file_named("rtplan.dcm").with_name("no_meta_group_length.dcm")
    )
    assert done.status == 1
    assert "0xA900" in done.said
    assert "Study" in done.said


def test_what_is_here_is_committed_and_what_is_not_is_named(archive: Server) -> None:
    kept = dimse("commit", archive.peer, CT, "--json")
    assert kept.status == 0, kept.said
    lost = dimse("commit", archive.peer, CT, file_named("rtplan.dcm"), "--json")
    assert lost.status == 1, lost.said


def test_a_second_server_on_the_same_folder_is_refused_with_one_line(archive: Server) -> None:
    second = Server(directory=archive.directory)
    assert second.wait() == 1
    [line] = second.err
    assert line.startswith("dimse-scp: --directory")
    assert "another process" in line


def test_a_database_that_cannot_be_opened_ends_the_start_with_one_line(tmp_path: Path) -> None:
    server = Server("--database", "nonsense://", directory=tmp_path / "archive")
    assert server.wait() == 1
    [line] = server.err
    assert line.startswith("dimse-scp: --database nonsense://")


def test_what_was_stored_is_found_after_an_orderly_restart(tmp_path: Path) -> None:
    with serving(directory=tmp_path / "archive") as server:
        dimse("store", server.peer, CT).succeeded()
    assert not list((tmp_path / "archive" / "journal").iterdir())
    with serving(directory=tmp_path / "archive") as server:
        assert found(server) == {pydicom.dcmread(CT).SOPInstanceUID}


def test_more_answers_than_allowed_end_the_query_with_out_of_resources() -> None:
    with serving("--max-results", "1") as server:
        for name in ("CT_small.dcm", "MR_small.dcm"):
            dimse("store", server.peer, file_named(name)).succeeded()
        done = run(
            dcmtk("findscu"), "-v", "-S", "-k", "0008,0052=STUDY", "-k", "StudyInstanceUID",
            "-aec", "X", "127.0.0.1", server.port,
        )  # fmt: skip
        assert done.said.count("(Pending)") == 1
        assert "OutOfResources" in done.said


# --- killed in the middle

_FIND = """
import json, sys
from twisted.internet import task
from twisted_dimse import STUDY_ROOT, connect

async def main(reactor, peer):
    options = {"extended": {STUDY_ROOT.find: b"\\x01"}, "reactor": reactor}
    async with await connect(peer, contexts=[STUDY_ROOT.find], **options) as association:
        keys = {"SOPInstanceUID": sys.stdin.read().split()}
        matches = await association.find(keys, level="IMAGE")
    print(json.dumps([str(match.SOPInstanceUID) for match in matches]))

task.react(main, sys.argv[1:])
"""


def found(server: Server, *uids: str) -> set[str]:
    """Which of the SOP Instance UIDs, or of all there are, a query finds."""
    done = subprocess.run(
        [sys.executable, "-c", _FIND, f"A@127.0.0.1:{server.port}"],
        input="\n".join(uids),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def killed_rounds(folder: Path, rounds: int, senders: int, seed: int) -> None:
    """Kill the server at random moments under its senders; after each time nothing that it
    acknowledged is missing, damaged or not found, and nothing partial is there."""
    chance = random.Random(seed)
    acknowledged: list[str] = []
    for number in range(rounds):
        server = Server(directory=folder / "archive").started()
        check(server, acknowledged)
        log = folder / f"acknowledged-{number}"
        log.touch()
        sending = Running([sys.executable, SENDERS], server.port, senders, number * 1000, log)
        # Once it has begun to acknowledge, at a moment that nobody chose.
        goal = chance.randrange(1, 200)
        while _count(log) < goal and sending.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                sending.process.wait(0.01)
        server.kill()
        sending.wait()
        acknowledged = log.read_text().split()
        assert acknowledged
    with serving(directory=folder / "archive") as server:
        check(server, acknowledged)


def check(server: Server, acknowledged: list[str]) -> None:
    """All of ``acknowledged`` can be found, and is what was sent."""
    if acknowledged:
        assert found(server, *acknowledged) == set(acknowledged)
    assert server.partial == []
    for uid in acknowledged:
        sender, count = map(int, uid.split(".")[-2:])
        [file] = server.instances.glob(f"*/*/{uid}.dcm")
        assert file.read_bytes().endswith(instance(sender, count).data), uid


def _count(log: Path) -> int:
    return log.read_bytes().count(b"\n")


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    killed_rounds(tmp_path, rounds=2, senders=3, seed=1)


@pytest.mark.soak
def test_nothing_acknowledged_is_lost_in_200_killed_rounds(tmp_path: Path) -> None:
    killed_rounds(tmp_path, rounds=200, senders=8, seed=2)
