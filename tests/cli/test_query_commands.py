"""`dimse find` and `worklist` against our archive and DCMTK's programs: keys, forms, limits."""

from __future__ import annotations

import csv
import io
import shlex
from pathlib import Path
from typing import Any

import peers
import pytest
from patients import ROOT, json_lines
from peers import DIMSE, Server, dcmtk, dimse, environment, run
from pydicom import Dataset

from twisted_dimse.cli import main
from twisted_dimse.cli.keys import dataset_of

NAME, STUDY = "00100010", "0020000D"


STEP, STATION = "ScheduledProcedureStepSequence", "ScheduledStationAETitle"


def sequence(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": items}


def text(value: str, vr: str = "CS") -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}


def values(lines: list[dict[str, Any]], tag: str) -> list[Any]:
    return sorted(line[tag]["Value"][0] for line in lines)


def find(archive: Server, *words: str) -> list[dict[str, Any]]:
    return json_lines(dimse("find", archive.peer, "--json", *words).succeeded().out)


def test_matches_are_json_model_objects_in_unicode(archive: Server) -> None:
    matches = find(archive, "-k", "PatientID=P3")
    assert values(matches, STUDY) == [f"{ROOT}.3"]
    assert matches[0][NAME]["Value"] == [
        {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
    ]
    assert matches[0]["00080005"]["Value"] == ["ISO_IR 192"]
    assert Dataset.from_json(matches[0]).StudyDate == "20240229"


@pytest.mark.parametrize(
    ("words", "patients"),
    [
        (["-k", "(0010,0020)=P?", "-k", "PatientName=müller*"], ["P2"]),
        (["-L", "patient", "-k", "PatientID=P1"], ["P1"]),
        (["-P", "-k", "0008,0052=PATIENT", "-k", "PatientName=doe*"], ["P1"]),
        (["-S", "-k", f"StudyInstanceUID={ROOT}.1\\{ROOT}.3"], ["P1", "P3"]),
    ],
    ids=["tag", "level", "-P", "list"],
)
def test_keys_are_written_as_elsewhere(
    archive: Server, words: list[str], patients: list[str]
) -> None:
    assert values(find(archive, *words), "00100020") == patients


@pytest.mark.parametrize(
    ("keys", "model"),
    [
        (["PatientName=A^B"], {NAME: {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]}}),
        (["0010,0010"], {NAME: {"vr": "PN"}}),
        (["Modality=CT=MR"], {"00080060": {"vr": "CS", "Value": ["CT=MR"]}}),
        (
            [f"{STEP}.Modality=CT", f"{STEP}[0].{STATION}=X"],
            {"00400100": sequence([{"00080060": text("CT"), "00400001": text("X", "AE")}])},
        ),
        ([f"{STEP}[1].Modality=CT"], {"00400100": sequence([{}, {"00080060": text("CT")}])}),
        ([STEP], {"00400100": sequence([])}),
    ],
    ids=["keyword", "tag", "equals", "dots", "second item", "empty sequence"],
)
def test_keys_make_a_data_set(keys: list[str], model: dict[str, Any]) -> None:
    assert dataset_of(keys, None).to_json_dict() == model


def test_an_image_has_its_unique_key(archive: Server) -> None:
    words = ["-k", f"StudyInstanceUID={ROOT}.1", "-k", f"SeriesInstanceUID={ROOT}.1.1"]
    assert len(set(values(find(archive, "-L", "IMAGE", *words), "00080018"))) == 3


def test_only_the_given_keys(archive: Server) -> None:
    (match,) = find(archive, "--only", "-k", "PatientID=P1", "-k", "StudyDate")
    assert match["00080020"]["Value"] == ["20240229"]
    assert STUDY not in match


def test_the_limit_cancels(archive: Server) -> None:
    done = dimse("find", archive.peer, "--limit", 1, "--json", "--trace").succeeded()
    assert len(json_lines(done.out)) == 1
    assert "> C-CANCEL-RQ" in done.err
    assert "> A-RELEASE-RQ" in done.err


def test_csv_has_a_heading_and_the_same_values(archive: Server) -> None:
    done = dimse("find", archive.peer, "--csv", "-k", "PatientID=P2").succeeded()
    (row,) = csv.DictReader(io.StringIO(done.out))
    assert (row["PatientName"], row["StudyInstanceUID"]) == ("Müller^Jörg", f"{ROOT}.2")


def test_a_table_has_a_line_a_match(archive: Server) -> None:
    done = dimse("find", archive.peer).succeeded()
    heading, *rows = done.out.splitlines()
    assert heading.startswith("Patient ")
    assert len(rows) == 3
    assert any("Yamada Tarou (山田 太郎)" in row and f"{ROOT}.3" in row for row in rows)
    assert done.err == "3 matches\n"


def test_who_reads_no_more_hears_no_complaint(archive: Server) -> None:
    reads_one_line = "| head -n 1"
    words = " ".join(["exec", *map(shlex.quote, [*DIMSE, "find", archive.peer, "--json"])])
    done = run(["sh", "-c", f"({words}) {reads_one_line}"])
    assert len(done.out.splitlines()) == 1
    assert "Broken" not in done.err


def test_nothing_found_is_no_failure(archive: Server) -> None:
    done = dimse("find", archive.peer, "-k", "PatientID=nobody").succeeded()
    assert (done.out, done.err) == ("", "no matches\n")


def test_keys_come_from_a_file_and_the_command_line_wins(archive: Server, tmp_path: Path) -> None:
    query = Dataset()
    query.QueryRetrieveLevel, query.PatientID, query.StudyDate = "STUDY", "P1", "20240229"
    (tmp_path / "query.json").write_text(query.to_json())
    matches = find(archive, "-f", str(tmp_path / "query.json"), "-k", "PatientID=P2")
    assert values(matches, "00100020") == ["P2"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-k", "PatientNam=x"], "PatientNam"),
        (["-k", "PatientName.Modality=x"], "PatientName is no sequence"),
        (["-k", "RequestAttributesSequence[x].StudyID"], "neither a keyword"),
        (["-L", "CASE"], "CASE"),
        (["--csv", "--json"], "exclude each other"),
        (["-f", "/nonexistent"], "/nonexistent"),
    ],
)
def test_wrong_usage_is_named(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["find", "A@127.0.0.1:1", *words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_what_the_peer_refuses_has_status_1(archive: Server) -> None:
    done = dimse("find", archive.peer, "-L", "SERIES", "--only", "-k", "PatientID=P1")
    assert done.status == 1
    assert "0xA900" in done.err


def test_a_worklist_is_not_what_an_archive_has(archive: Server) -> None:
    done = dimse("worklist", archive.peer)
    assert done.status == 3
    assert done.err == (
        f"dimse: {archive.peer} accepted none of what was proposed: "
        "Modality Worklist Information Model - FIND\n"
    )


@pytest.fixture(scope="module")
def worklist(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """DCMTK's worklist server, with one CT and one MR scheduled."""
    folder = tmp_path_factory.mktemp("worklists") / "ANY-SCP"
    folder.mkdir()
    (folder / "lockfile").touch()
    for modality in ("CT", "MR"):
        _scheduled(modality).save_as(folder / f"{modality}.wl", implicit_vr=False)
    port = peers.free_port()
    with peers.listening(dcmtk("wlmscpfs"), "-dfp", folder.parent, port, port=port):
        yield f"ANY-SCP@127.0.0.1:{port}"


def _scheduled(modality: str) -> Dataset:
    from patients import instance

    entry, step = Dataset(), Dataset()
    entry.file_meta = instance("1.2", 1).file_meta
    entry.SpecificCharacterSet = "ISO_IR 100"
    entry.PatientName, entry.PatientID = "Größe^Änne", f"{modality}1"
    entry.StudyInstanceUID, entry.RequestedProcedureID = "1.2.3", "R1"
    entry.RequestedProcedureDescription, entry.AccessionNumber = "Thorax", "A1"
    step.Modality, step.ScheduledStationAETitle = modality, "SCANNER"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = "20240301", "0900"
    step.ScheduledProcedureStepID = "S1"
    step.ScheduledProcedureStepDescription = "Thorax"
    entry.ScheduledProcedureStepSequence = [step]
    return entry


@pytest.mark.interop
@pytest.mark.parametrize("command", [["worklist"], ["find", "-W"]], ids=" ".join)
def test_dcmtks_worklist_is_asked_by_dotted_keys(worklist: str, command: list[str]) -> None:
    key = "ScheduledProcedureStepSequence[0].Modality=CT"
    done = dimse(command[0], worklist, *command[1:], "-k", key, "--json").succeeded()
    (match,) = json_lines(done.out)
    assert match[NAME]["Value"] == [{"Alphabetic": "Größe^Änne"}]
    (step,) = match["00400100"]["Value"]
    assert step["00080060"]["Value"] == ["CT"]
    assert step["00400001"]["Value"] == ["SCANNER"]


def test_a_configuration_has_peers_and_defaults(archive: Server, tmp_path: Path) -> None:
    config = tmp_path / "dimse.toml"
    config.write_text(
        f'[peers]\npacs = "{archive.peer}"\n'
        '[defaults]\njson = true\ncalling = "CONFIGURED"\n[defaults.find]\nlimit = 1\n'
    )
    done = dimse("find", "pacs", "--config", config, "--trace").succeeded()
    assert len(json_lines(done.out)) == 1
    assert "CONFIGURED calls ANY-SCP" in done.err


def test_what_is_no_option_is_named_in_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "dimse.toml"
    config.write_text("[defaults]\nwindw = 3\n")
    with pytest.raises(SystemExit) as ended:
        main(["find", "A@127.0.0.1:1", "--config", str(config)])
    assert ended.value.code == 2
    assert "'windw'" in capsys.readouterr().err


def test_a_trace_has_each_pdu_and_command_and_nothing_of_patients(archive: Server) -> None:
    done = dimse("find", archive.peer, "-k", "PatientName=doe*", "--json", "--trace").succeeded()
    for said in ("> A-ASSOCIATE-RQ", "< A-ASSOCIATE-AC", "> C-FIND-RQ", "Status 0xFF00", "P-DATA"):
        assert said in done.err
    assert "doe" not in done.err.lower()


def test_a_passcode_is_not_traced_and_may_stand_in_the_environment(
    archive: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIMSE_PASSWORD", "secret-word")
    assert environment()["DIMSE_PASSWORD"] == "secret-word"
    done = dimse("echo", archive.peer, "--user", "me", "--trace").succeeded()
    assert "UserIdentity(type=2" in done.err
    assert "secret-word" not in done.err
