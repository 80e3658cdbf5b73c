"""Output that nobody reads, that is closed, in an old encoding, or of names that are in none."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import peers
import pytest
from patients import ROOT, json_lines
from peers import DIMSE, SECONDS, Done, Running, Server, dimse, environment, run

from twisted_dimse.cli import main

STUDY = f"StudyInstanceUID={ROOT}.1"


def shell(words: list[Any], more: str) -> Done:
    """A command as it stands, with something of a shell's behind it."""
    return run(["sh", "-c", f"{shlex.join(map(str, [*DIMSE, *words]))} {more}"])


def ended(encoding: str, *words: Any) -> Running:
    """A command that ended with 0, whose output has an encoding."""
    running = Running(DIMSE, *words, variables={"PYTHONIOENCODING": encoding})
    assert running.wait() == 0, running.said
    return running


@pytest.fixture
def unnamed(files: Path, tmp_path: Path) -> Path:
    """A file whose name is in no UTF-8."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe4d.dcm"))
    shutil.copy(files / "P1-1.dcm", path)
    return path


def test_a_get_ends_in_peace_where_nobody_reads_its_paths(archive: Server, tmp_path: Path) -> None:
    done = shell(["get", archive.peer, "-k", STUDY, "-od", tmp_path, "-v"], "| head -n 1")
    assert done.out.endswith(".dcm\n")
    assert done.err.replace(f"{ROOT}", "") == ""


def test_a_receiver_whose_output_nobody_reads_keeps_what_came_and_ends(
    files: Path, tmp_path: Path
) -> None:
    words = [*DIMSE, "listen", "tcp:0:interface=127.0.0.1", "-od", str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, text=True, env=environment(), **pipes) as listening:
        try:
            assert listening.stdout is not None
            assert listening.stderr is not None
            listening.stdout.close()
            found = re.search(r"listens at 127\.0\.0\.1:(\d+)", listening.stderr.readline())
            assert found is not None
            done = dimse("store", f"A@127.0.0.1:{found[1]}", files / "P1-1.dcm", "--json")
            assert json_lines(done.out)[0]["status"] == 0
            assert listening.wait(SECONDS) == 1
            assert listening.stderr.read() == ""
        finally:
            listening.kill()
    assert len(list(tmp_path.rglob("*.dcm"))) == 1


@pytest.mark.parametrize("words", [["echo"], ["find"], ["find", "--csv"], ["echo", "--json"]])
def test_a_closed_output_is_no_error(archive: Server, words: list[str]) -> None:
    done = shell([words[0], archive.peer, *words[1:]], ">&-").succeeded()
    assert "Error" not in done.err


def test_a_full_disk_is_said_in_words(archive: Server) -> None:
    done = shell(["echo", archive.peer], ">/dev/full")
    assert done.status == 1
    assert done.err == "dimse: the output cannot be written: No space left on device\n"


def test_a_full_disk_below_what_is_received_is_said_once(archive: Server, tmp_path: Path) -> None:
    with peers.small_disk(tmp_path, "16k") as disk:
        folder = disk / "received"
        folder.mkdir()
        with suppress(OSError), (disk / "rest").open("wb", buffering=0) as rest:
            while rest.write(bytes(1024)):
                pass
        done = dimse("get", archive.peer, "-k", STUDY, "-od", folder)
        assert not list(folder.rglob("*.dcm"))
    assert done.status == 1
    assert done.err.count("an instance was not stored: No space left on device") == 1


@pytest.mark.parametrize("form", ["--csv", "--json", "-v"])
def test_an_old_encoding_breaks_no_output(archive: Server, form: str) -> None:
    out = ended("latin-1", "find", archive.peer, "-k", "PatientID=P3", form).out
    if form == "--json":
        (match,) = json_lines("\n".join(out))
        assert match["00100010"]["Value"][0]["Ideographic"] == "山田^太郎"
    else:
        assert "?" in out[1]


def test_a_name_in_no_encoding_is_sent_and_reported(
    archive: Server, unnamed: Path, tmp_path: Path
) -> None:
    report = tmp_path / "sent.jsonl"
    words = ["store", archive.peer, unnamed, "--json", "--report", report]
    line, total = map(json.loads, ended("utf-8:strict", *words).out)
    assert (line["path"], total["sent"]) == (str(unnamed), 1)
    again = json.loads(ended("utf-8:strict", *words).out[-1])
    assert (again["sent"], again["skipped"]) == (0, 1)


def test_a_name_in_no_encoding_is_received_into_and_imported(
    archive: Server, unnamed: Path, tmp_path: Path
) -> None:
    folder = Path(f"{unnamed}-received")
    ended("utf-8:strict", "get", archive.peer, "-k", STUDY, "-od", folder, "-v")
    assert len(list(folder.rglob("*.dcm"))) == 3
    into = ["--directory", tmp_path / "archive", "--json"]
    total = json.loads(ended("utf-8:strict", "archive", "import", unnamed, *into).out[-1])
    assert total["imported"] == 1


def test_a_key_in_no_encoding_is_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["find", "A@127.0.0.1:1", "-k", "PatientName=m\udcfcller"])
    assert end.value.code == 2
    assert "not in the character encoding" in capsys.readouterr().err
