"""`dimse get` and `move` against our archive, DCMTK's and pynetdicom's: files, sums, ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import peers
import pytest
from patients import ROOT, json_lines
from peers import DIMSE, Running, Server, dcmtk, dimse, pynetdicom
from terminals import on_terminal

from twisted_dimse.cli.suboperations import _in_words
from twisted_dimse.results import RetrieveOutcome

ALL_WELL = {
    "status": 0,
    "completed": 3,
    "failed": 0,
    "warning": 0,
    "remaining": 0,
    "failed_sop_instance_uids": [],
}
STUDY = f"StudyInstanceUID={ROOT}.1"


def data_sets(folder: Path) -> set[bytes]:
    """What stands behind the file meta information of each file."""
    found = (path.read_bytes() for path in folder.rglob("*.dcm"))
    return {octets[octets.index(b"\x08\x00\x16\x00UI") :] for octets in found}


def sent(files: Path) -> set[bytes]:
    return {each for each in data_sets(files) if f"{ROOT}.1.1".encode() in each}


def test_get_files_the_octets_that_were_stored(
    archive: Server, files: Path, tmp_path: Path
) -> None:
    done = dimse("get", archive.peer, "-k", STUDY, "-od", tmp_path, "--json").succeeded()
    assert json_lines(done.out) == [ALL_WELL]
    assert data_sets(tmp_path) == sent(files)
    assert (tmp_path / f"instances/{ROOT}.1/{ROOT}.1.1/{ROOT}.1.1.1.dcm").exists()


def test_move_receives_for_itself(archive: Server, files: Path, here: int, tmp_path: Path) -> None:
    words = ["--to", "ME", "--receive", f"tcp:{here}:interface=127.0.0.1", "-od", tmp_path]
    done = dimse("move", archive.peer, "-k", STUDY, *words, "--json").succeeded()
    assert json_lines(done.out) == [ALL_WELL]
    assert data_sets(tmp_path) == sent(files)


def test_move_to_a_stranger_is_said_in_words(archive: Server) -> None:
    done = dimse("move", archive.peer, "-k", STUDY, "-aem", "NOBODY", "--json")
    assert done.status == 1
    assert json_lines(done.out)[0]["status"] == 0xA801
    assert "0xA801" in done.err
    assert "NOBODY" in done.err


def test_move_to_one_who_is_away_lists_what_failed(archive: Server) -> None:
    done = dimse("move", archive.peer, "-k", STUDY, "--to", "ME", "--json")
    assert done.status == 1
    (summary,) = json_lines(done.out)
    assert summary["failed"] == 3
    assert len(summary["failed_sop_instance_uids"]) == 3


def test_a_refused_get_has_status_1_and_a_lost_one_3(archive: Server, tmp_path: Path) -> None:
    refused = dimse("get", archive.peer, "-od", tmp_path, "--json")
    assert (refused.status, json_lines(refused.out)[0]["completed"]) == (1, 0)
    lost = dimse("get", "A@127.0.0.1:1", "-k", STUDY, "-od", tmp_path, "--json")
    assert (lost.status, lost.out) == (3, "")
    assert len(lost.err.splitlines()) == 1


def test_a_terminal_has_the_sum_in_words(archive: Server, tmp_path: Path) -> None:
    status, out = on_terminal(80, "get", archive.peer, "-k", STUDY, "-od", tmp_path)
    assert status == 0
    assert "3 completed" in out
    assert "retrieving" in out


def test_an_interrupt_ends_a_move_within_two_seconds(archive: Server) -> None:
    moving = Running(DIMSE, "move", archive.peer, "-k", STUDY, "--to", "SILENT", "--trace")
    moving.wait_for_line("> C-MOVE-RQ")
    begun = time.monotonic()
    moving.signal(signal.SIGINT)
    assert moving.wait(10) == 130
    assert time.monotonic() - begun < 2
    assert any("> A-ABORT" in line for line in moving.err)
    assert moving.err[-1] == "dimse: interrupted"


def test_how_far_it_came_is_said_in_counts() -> None:
    assert _in_words(RetrieveOutcome(0xFF00, 2, 0, 0, 3)) == "2 completed, 3 remaining"


def test_a_get_of_files_that_are_gone_says_so(files: Path, tmp_path: Path) -> None:
    with peers.serving() as server:
        dimse("store", server.peer, files / "P2-1.dcm").succeeded()
        dimse("find", server.peer).succeeded()  # which waits until it is in the index
        server.stored[0].unlink()
        done = dimse("get", server.peer, "-k", f"StudyInstanceUID={ROOT}.2", "-od", tmp_path)
    assert done.status == 1
    assert "an instance cannot be read: No such file or directory\n" in done.err
    assert "context" not in done.err


@pytest.fixture(scope="module")
def dcmqrscp(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[str]:
    """DCMTK's archive with the same patients."""
    folder, port = tmp_path_factory.mktemp("dcmqrscp"), peers.free_port()
    (folder / "db").mkdir()
    (folder / "cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nANY-SCP {folder}/db RW (9, 1024mb) ANY\nAETable END\n"
    )
    with peers.listening(dcmtk("dcmqrscp"), "-c", folder / "cfg", port=port):
        peer = f"ANY-SCP@127.0.0.1:{port}"
        dimse("store", peer, files).succeeded()
        yield peer


@pytest.mark.interop
def test_dcmtks_archive_is_searched_and_gives(dcmqrscp: str, files: Path, tmp_path: Path) -> None:
    found = json_lines(dimse("find", dcmqrscp, "-k", "PatientName=Doe*", "--json").succeeded().out)
    assert [match["0020000D"]["Value"] for match in found] == [[f"{ROOT}.1"]]
    done = dimse("get", dcmqrscp, "-k", STUDY, "-od", tmp_path, "--json").succeeded()
    assert json_lines(done.out) == [ALL_WELL]
    assert data_sets(tmp_path) == sent(files)


@pytest.mark.interop
@pytest.mark.parametrize(
    ("words", "tag", "found"),
    [
        (["-P", "-L", "PATIENT", "-k", "PatientID"], "00100020", ["P1", "P2", "P3"]),
        (["--model", "patient", "-k", "PatientID=P1"], "0020000D", [f"{ROOT}.1"]),
        (["-O", "-k", "PatientID=P2"], "0020000D", [f"{ROOT}.2"]),
        (["-S", "-k", "PatientID=P3", "-pdu", "4096"], "0020000D", [f"{ROOT}.3"]),
        (["-k", "PatientID=P1", "--user", "me"], "0020000D", [f"{ROOT}.1"]),
        (["-k", "PatientID=P1", "--timeout", "60", "-aet", "ME"], "0020000D", [f"{ROOT}.1"]),
        (["-k", "PatientID=P1", "--relational"], "0020000D", [f"{ROOT}.1"]),
        (["-k", "PatientID=P1", "--fuzzy"], "0020000D", [f"{ROOT}.1"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "-" in value[0] else "",
)
def test_dcmtks_archive_is_asked_with_each_option(
    dcmqrscp: str, words: list[str], tag: str, found: list[str]
) -> None:
    done = dimse("find", dcmqrscp, "--json", *words).succeeded()
    assert sorted(match[tag]["Value"][0] for match in json_lines(done.out)) == found
    assert ("did not agree" in done.err) == ("--relational" in words or "--fuzzy" in words)


@pytest.mark.interop
@pytest.mark.parametrize("words", [["--window", "8"], ["--retries", "2"]], ids=" ".join)
def test_dcmtks_archive_is_sent_to_with_each_option(
    dcmqrscp: str, files: Path, words: list[str]
) -> None:
    done = dimse("store", dcmqrscp, files, *words, "--json").succeeded()
    assert json_lines(done.out)[-1]["sent"] == 5


@pytest.mark.interop
def test_dcmtks_storescp_is_sent_to_over_two_associations(files: Path, tmp_path: Path) -> None:
    """Its archive fails by itself where two write at once."""
    with peers.dcmtk_storescp(tmp_path, "--fork") as port:
        done = dimse("store", f"A@127.0.0.1:{port}", files, "--jobs", "2", "--json").succeeded()
    assert json_lines(done.out)[-1]["sent"] == 5


def test_one_who_says_nothing_is_waited_for_no_longer_than_asked(silent: int) -> None:
    done = dimse("echo", f"SILENT@127.0.0.1:{silent}", "--timeout", 0.5)
    assert (done.status, done.out) == (3, "")
    assert done.err == f"dimse: no association with SILENT@127.0.0.1:{silent} in 0.5 s\n"


@pytest.mark.interop
def test_pynetdicoms_archive_is_searched_and_gives(files: Path, tmp_path: Path) -> None:
    port, database = peers.free_port(), tmp_path / "db.sqlite"
    words = ["--database-location", database, "--instance-location", tmp_path / "instances"]
    with peers.listening(pynetdicom("qrscp"), "--port", port, *words, port=port):
        peer = f"QRSCP@127.0.0.1:{port}"
        dimse("store", peer, files).succeeded()
        found = dimse("find", peer, "-k", "PatientID=P1", "--only", "--json", "-k", STUDY)
        matches = json_lines(found.succeeded().out)  # it has one for each image
        assert {match["0020000D"]["Value"][0] for match in matches} == {f"{ROOT}.1"}
        done = dimse("get", peer, "-k", STUDY, "-od", tmp_path / "got", "--json").succeeded()
    assert json_lines(done.out)[0]["completed"] == 3
    assert len(data_sets(tmp_path / "got")) == 3
