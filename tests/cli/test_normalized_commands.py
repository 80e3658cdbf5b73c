"""`dimse n-get` and its like, and `dimse commit`, against nodes of the library's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patients import ROOT, json_lines
from peers import Running, dimse

from twisted_dimse.cli import main

NODE = Path(__file__).with_name("nodes.py")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Running]:
    server = Running([sys.executable, NODE])
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def node(nodes: Running) -> str:
    return f"NODE@127.0.0.1:{nodes.wait_for_line('^NODE ([0-9]+)$')[1]}"


def answer(node: str, command: str, *words: str | Path) -> dict[str, Any]:
    (line,) = json_lines(dimse(command, node, *words, "--json").succeeded().out)
    assert line["status"] == 0
    return line


def test_n_get_reads_the_named_attributes_by_keywords_of_uids(node: str) -> None:
    line = answer(node, "n-get", "Printer", "PrinterInstance", "-a", "PrinterName")
    assert line["dataset"] == {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "21100030": {"vr": "LO", "Value": ["Größe"]},
    }


def test_n_get_shows_values_to_people(node: str) -> None:
    done = dimse("n-get", node, "Printer", "PrinterInstance").succeeded()
    assert "PrinterStatus=NORMAL\n" in done.out


def test_what_is_not_there_has_status_1(node: str) -> None:
    done = dimse("n-get", node, "Printer", "1.2.3", "--json")
    assert (done.status, json_lines(done.out)[0]["status"]) == (1, 0x0112)
    assert "no such printer" in done.err


def test_n_set_takes_dicom_json(node: str, tmp_path: Path) -> None:
    changes = tmp_path / "changes.json"
    changes.write_text('{"00081010": {"vr": "SH", "Value": ["CT1"]}}')
    line = answer(node, "n-set", "Printer", "PrinterInstance", "--dataset", changes)
    assert line["dataset"]["00081010"]["Value"] == ["CT1"]


def test_n_create_has_the_uid_that_the_peer_chose(node: str) -> None:
    words = ["BasicFilmSession", "--context", "BasicGrayscalePrintManagementMeta"]
    assert (
        answer(node, "n-create", *words, "-k", "NumberOfCopies=2")["sop_instance_uid"] == "1.2.3.4"
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("n-action", ["Printer", "PrinterInstance", "--type", "7"]),
        ("n-delete", ["Printer", "PrinterInstance"]),
        (
            "n-event-report",
            [
                *("StorageCommitmentPushModel", "StorageCommitmentPushModelInstance"),
                *("--type", "2", "-k", "TransactionUID=1.2"),
            ],
        ),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_the_others_are_answered(node: str, command: str, words: list[str]) -> None:
    assert answer(node, command, *words)["status"] == 0


def test_commit_says_what_is_kept(nodes: Running, files: Path) -> None:
    peer = f"KEEPER@127.0.0.1:{nodes.wait_for_line('^KEEPER ([0-9]+)$')[1]}"
    done = dimse("commit", peer, files / "P1-1.dcm", files / "P1-2.dcm", "--json")
    assert done.status == 1
    (line,) = json_lines(done.out)
    assert (line["committed"], line["failed"]) == (1, 1)
    assert line["failed_sop_instance_uids"] == [f"{ROOT}.1.1.2"]
    assert "No such SOP Instance" in done.err
    dimse("commit", peer, files / "P1-1.dcm").succeeded()


def test_commit_says_what_may_help_where_no_report_comes(node: str, files: Path) -> None:
    done = dimse("commit", node, files / "P1-1.dcm", "--wait", 0.2)
    assert done.status == 3
    assert done.err == (
        f"dimse: {node}: no storage commitment report from NODE within 0.2 s. "
        "Give it longer with --wait, or a port to connect to with --receive\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["n-get", "A@127.0.0.1:1", "Printr", "1.2"], "'Printr' is neither a UID"),
        (["n-get", "A@127.0.0.1:1", "1.2"], "INSTANCE_UID"),
        (["n-set", "A@127.0.0.1:1", "1.2", "1.3"], "--dataset or -k"),
        (["n-action", "A@127.0.0.1:1", "1.2", "1.3"], "--type"),
    ],
)
def test_wrong_usage_of_n_is_named(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
