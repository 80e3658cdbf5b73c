"""What a person sees: tables, bars and helps on terminals of 80 and of 200 columns, and what the
shell completes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import raw
from patients import ROOT, json_lines, write
from peers import DIMSE, Server, dimse, run, serving
from pydicom import dcmread
from rich.cells import cell_len
from terminals import on_terminal

from twisted_dimse.cli import main
from twisted_dimse.cli.main import COMMANDS

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: Faint, green, yellow, cyan and white letters: each is hard to read on some ground.
FAINT = re.compile(r"\x1b\[(?:2|3[2367]|9[2367])m")
LONG = "1.2.826.0.1.3680043.8.498.77001122334455667788990011223344556677"


def lines(text: str) -> list[str]:
    """The lines as they stand when all is written."""
    plain = CONTROL.sub("", text.replace("\r\n", "\n"))
    return [line.split("\r")[-1] for line in plain.split("\n")]


@pytest.fixture(scope="module")
def filled(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An archive with one more patient, about whom there is much to say."""
    folder = tmp_path_factory.mktemp("long")
    made = dcmread(write(folder / "files") / "P3-1.dcm")
    made.PatientID, made.AccessionNumber = "LONG-1", "ACC-0123456789AB"
    made.StudyInstanceUID = made.SeriesInstanceUID = LONG
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.99"
    made.StudyDescription = "胸部CT検査（造影あり）全肺野および縦隔"
    made.save_as(folder / "long.dcm", enforce_file_format=True)
    with serving() as server:
        dimse("store", server.peer, files, folder / "long.dcm").succeeded()
        yield server


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_a_table_fits_its_terminal_and_breaks_no_uid(filled: Server, columns: int) -> None:
    status, text = on_terminal(columns, "find", filled.peer, "-k", "PatientID=LONG-1")
    assert status == 0
    assert not FAINT.search(text)
    shown = lines(text)
    assert max(cell_len(line) for line in shown) <= columns
    assert any(LONG in line for line in shown)
    assert any("ACC-0123456789AB" in line for line in shown) == (columns > 80)
    assert shown[-2] == "1 match"


@pytest.mark.parametrize("columns", [80, 100])
def test_what_is_asked_for_and_has_no_room_stands_below(filled: Server, columns: int) -> None:
    own = ["ReferringPhysicianName", "InstitutionName", "PerformingPhysicianName", "StudyID"]
    words = [word for keyword in ("AccessionNumber", *own) for word in ("-k", keyword)]
    _, text = on_terminal(columns, "find", filled.peer, "-k", "PatientID=LONG-1", *words)
    shown = lines(text)
    assert max(cell_len(line) for line in shown) <= columns
    assert "    Accession: ACC-0123456789AB" in shown
    assert {"Referring", "Physician", "Institution"} <= set(" ".join(shown[:3]).split())


def test_columns_stand_below_each_other_where_letters_are_wide(filled: Server) -> None:
    _, text = on_terminal(200, "find", filled.peer, "-k", "StudyDate=20240229")
    heading, *rows = lines(text)[:-2]
    at = cell_len(heading[: heading.index("Date")])
    dates = [row for row in rows if "2024-02-29" in row]
    assert {cell_len(row[: row.index("2024-02-29")]) for row in dates} == {at}
    assert len(dates) == 4


@pytest.mark.parametrize("columns", [80, 200])
def test_what_goes_wrong_stands_above_the_bar(
    archive: Server, tmp_path: Path, columns: int
) -> None:
    folder = write(tmp_path / ("files-" + "x" * 60))
    (folder / "loop.dcm").symlink_to("loop.dcm")
    status, text = on_terminal(columns, "store", archive.peer, folder)
    assert status == 1
    assert "sending" in text
    assert not FAINT.search(text)
    shown = lines(text)
    assert f"dimse: {folder / 'loop.dcm'}: Too many levels of symbolic links" in shown
    assert shown[-2].startswith("5 sent, 1 failed; ")


def test_paths_stand_above_the_bar_of_a_retrieval(archive: Server, tmp_path: Path) -> None:
    words = ["-k", f"StudyInstanceUID={ROOT}.2", "-od", tmp_path, "-v"]
    status, text = on_terminal(80, "get", archive.peer, *words)
    assert status == 0
    path = tmp_path / "instances" / f"{ROOT}.2" / f"{ROOT}.2.1" / f"{ROOT}.2.1.1.dcm"
    shown = [line for line in lines(text) if not line.startswith("retrieving ")]
    assert shown[:1] + shown[-2:] == [str(path), "1 completed", ""]


def test_a_trace_is_not_mixed_with_a_bar(archive: Server, files: Path) -> None:
    status, text = on_terminal(80, "store", archive.peer, files / "P1-1.dcm", "--trace")
    assert status == 0
    assert "sending" not in text
    assert sum("> C-STORE-RQ" in line for line in lines(text)) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_fits_80_columns(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_peer_that_takes_nothing_is_named_once(archive: Server) -> None:
    done = dimse("n-get", archive.peer, "Printer", "PrinterInstance")
    assert (done.status, done.out) == (3, "")
    assert done.err == (
        f"dimse: {archive.peer} accepted none of what was proposed: Printer SOP Class\n"
    )


def test_a_port_that_is_taken_is_said_plainly(archive: Server, files: Path) -> None:
    busy = ["--receive", str(archive.port)]
    for command in (["commit", archive.peer, files], ["move", archive.peer, "-k", "PatientID=P1"]):
        done = dimse(*command, *busy)
        assert (done.status, done.out) == (3, "")
        assert re.fullmatch(rf"dimse: cannot listen at .*:{archive.port}: .* in use\n", done.err)


# --- what is negotiated about queries


def test_relational_queries_go_across_levels(archive: Server) -> None:
    question = ["find", archive.peer, "-L", "IMAGE", "-k", "PatientID=P1", "--json"]
    assert dimse(*question).status == 1
    done = dimse(*question, "--relational").succeeded()
    assert len(json_lines(done.out)) == 3
    assert done.err == ""


def test_fuzzy_names_are_asked_for_and_a_peer_that_has_none_is_named(archive: Server) -> None:
    done = dimse("find", archive.peer, "-k", "PatientName=doe*", "--fuzzy", "--json").succeeded()
    assert done.err == f"dimse: {archive.peer} did not agree to fuzzy matching of person names\n"
    assert len(json_lines(done.out)) == 1


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["find", "--fuzzy"], b"\0\0\1"),
        (["find", "--fuzzy-names", "--relational-query"], b"\1\0\1"),
        (["worklist", "--fuzzy"], b"\1\1\1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_extended_negotiation_is_offered_as_the_standard_has_it(
    words: list[str], offered: bytes
) -> None:
    def script(connection: raw.Connection) -> bytes:
        request = connection.expect(raw.ASSOCIATE_RQ)
        connection.send(raw.pdu(raw.ASSOCIATE_RJ, b"\0\1\1\1"))
        return request

    with raw.scripted(script) as server:
        assert dimse(words[0], f"PACS@127.0.0.1:{server.port}", *words[1:]).status == 3
    (request,) = server.results
    assert isinstance(request, bytes)
    (item,) = [
        value for kind, value in raw.items(dict(raw.items(request[68:]))[0x50]) if kind == 0x56
    ][:1]
    length = int.from_bytes(item[:2], "big")
    assert item[2 + length :] == offered


# --- the shell


def completed(folder: Path, *words: str) -> list[str]:
    """What bash completes the last word to, having read the script that the program gives."""
    (folder / "bin").mkdir(exist_ok=True)
    program_file = folder / "bin" / "dimse"
    program_file.write_text(f"#!/bin/sh\nexec '{DIMSE[0]}' -c '{DIMSE[2]}' \"$@\"\n")
    program_file.chmod(0o755)
    (folder / "dimse.toml").write_text('[peers]\npacs = "PACS@10.0.0.5:104"\nris = "R@h:1"\n')
    script = (
        f"PATH='{folder / 'bin'}':$PATH XDG_CONFIG_HOME='{folder}'; export XDG_CONFIG_HOME\n"
        'compopt() { echo "compopt $2"; }\n'
        'eval "$(_DIMSE_COMPLETE=bash_source dimse)"\n'
        f"COMP_WORDS=({' '.join(words)}) COMP_CWORD={len(words) - 1}\n"
        f"_dimse_completion dimse\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    return run(["bash", "-c", script]).succeeded().out.split("\n")[:-1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["dimse", "wor"], ["worklist"]),
        (["dimse", "store", "--tr"], ["--transcode", "--trace"]),
        (["dimse", "store", "--transcode", "n"], ["never"]),
        (["dimse", "echo", "p"], ["pacs"]),
        (["dimse", "store", "pacs", "x"], ["compopt default", ""]),
        (["dimse", "get", "pacs", "--directory", "x"], ["compopt dirnames", ""]),
        (["dimse", "echo", "pacs", "x"], [""]),
    ],
    ids=lambda words: " ".join(words[1:]) if words[:1] == ["dimse"] else "",
)
def test_bash_completes(words: list[str], expected: list[str], tmp_path: Path) -> None:
    assert completed(tmp_path, *words) == expected
