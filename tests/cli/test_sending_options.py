"""`dimse store --jobs --retries --report --transcode`, `dimse archive`, and the group itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import peers
import pytest
import raw
from patients import ROOT, json_lines
from peers import DIMSE, Server, dimse, run
from pydicom import dcmread

from twisted_dimse.cli import main
from twisted_dimse.cli.main import COMMANDS


def test_a_report_is_gone_on_with(archive: Server, files: Path, tmp_path: Path) -> None:
    folder, report = tmp_path / "some", tmp_path / "sent.jsonl"
    folder.mkdir()
    shutil.copy(files / "P1-1.dcm", folder)
    words = ["store", archive.peer, folder, "--report", report, "--jobs", 2, "--json"]
    assert json_lines(dimse(*words).succeeded().out)[-1]["sent"] == 1
    shutil.copy(files / "P1-2.dcm", folder)
    with report.open("a") as file:
        file.write('{"peer": "cut o')
    again = json_lines(dimse(*words).succeeded().out)
    assert [line["path"] for line in again[:-1]] == [str(folder / "P1-2.dcm")]
    assert (again[-1]["sent"], again[-1]["skipped"]) == (1, 1)


@pytest.mark.parametrize(
    "habit", ["-r", "+sd +r", "-R", "-cx", "-nh", "-ts 9 -tn 9 -to 9 -ta 9 -td 9", "-j 2"]
)
def test_habits_of_storescu_and_pynetdicom_are_taken(
    archive: Server, files: Path, habit: str
) -> None:
    done = dimse("store", *habit.split(), "127.0.0.1", archive.port, files, "--json").succeeded()
    assert json_lines(done.out)[-1]["sent"] == 5


def test_what_was_answered_is_not_sent_again(files: Path) -> None:
    answered: list[str] = []

    def hangs_up_after_two(connection: raw.Connection) -> None:
        connection.send(raw.associate_ac(connection.expect(raw.ASSOCIATE_RQ)))
        for _ in range(2):
            message = connection.message()
            answered.append(message.instance)
            connection.send_message(message.context, raw.response(message.command))

    def note(message: raw.Message) -> int:
        answered.append(message.instance)
        return 0

    with raw.scripted(hangs_up_after_two, raw.accepting(status=note)) as server:
        peer = f"PACS@127.0.0.1:{server.port}"
        done = dimse("store", peer, files, "--retries", 1, "--json").succeeded()
    assert json_lines(done.out)[-1]["sent"] == 5
    assert len(answered) == len(set(answered)) == 5


@pytest.mark.interop
def test_a_deflated_file_goes_inflated_where_that_is_all_that_is_taken(
    files: Path, tmp_path: Path
) -> None:
    deflated, there = tmp_path / "deflated.dcm", tmp_path / "there"
    there.mkdir()
    dataset = dcmread(files / "P1-1.dcm")
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    dataset.save_as(deflated)
    port = peers.free_port()
    with peers.listening(peers.dcmtk("storescp"), "-od", there, port, port=port):
        peer = f"ANY-SCP@127.0.0.1:{port}"
        dimse("store", peer, deflated).succeeded()
        never = dimse("store", peer, deflated, "--transcode", "never", "--json")
    assert never.status == 1
    (came,) = there.iterdir()
    assert dcmread(came).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert dcmread(came).PatientName == "Doe^Jane"


def test_a_folder_that_is_no_archive_is_not_made_one(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(files / "P1-1.dcm", tmp_path)
    for words in (["verify"], ["delete", "1.2.3"]):
        with pytest.raises(SystemExit) as end:
            main(["archive", *words, "--directory", str(tmp_path)])
        assert end.value.code == 2
        assert "no archive" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["P1-1.dcm"]


def test_a_link_that_leads_nowhere_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "away.dcm").symlink_to(tmp_path / "nothing")
    done = dimse("archive", "import", tmp_path, "--directory", tmp_path / "archive")
    assert done.status == 1
    assert f"dimse: {tmp_path}/away.dcm: No such file or directory\n" in done.err


def test_an_archive_is_filled_checked_and_cleared(files: Path, tmp_path: Path) -> None:
    where = ["--directory", tmp_path / "archive", "--json"]
    imported = json_lines(dimse("archive", "import", files, *where).succeeded().out)
    assert imported[-1] == {"imported": 5, "mended": 0, "problems": 0}
    deleted = json_lines(dimse("archive", "delete", f"{ROOT}.1", *where).succeeded().out)
    assert deleted[-1]["deleted"] == 3
    checked = json_lines(dimse("archive", "verify", *where).succeeded().out)
    assert checked[-1] == {"checked": 2, "mended": 0, "problems": 0}
    nothing = dimse("archive", "delete", f"{ROOT}.1", *where)
    assert nothing.status == 1
    assert len(nothing.err.splitlines()) == 1


def test_dimse_alone_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_has_two_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.count(f"  dimse {name} ") >= 2


def test_the_shell_completes_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"_DIMSE_COMPLETE": "bash_complete", "COMP_WORDS": "dimse n-", "COMP_CWORD": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = run(DIMSE)
    assert "plain,n-get" in done.out
    assert "plain,n-create" in done.out
