"""Query, retrieval, worklist and storage commitment with Orthanc, in both directions."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers
import pytest
import studies
from loop import Keeping, Loop
from pydicom import Dataset

from twisted_dimse import Peer, move, query, retrieve, store_files
from twisted_dimse.keys import as_dataset
from twisted_dimse.services.combined import CombinedHandler
from twisted_dimse.services.commitment import (
    CommitmentHandler,
    CommitmentReceiver,
    Reference,
    request_commitment,
)
from twisted_dimse.services.query_retrieve import QueryRetrieveHandler
from twisted_dimse.services.worklist import WorklistHandler, worklist

pytestmark = pytest.mark.interop

STUDY = f"{studies.ROOT}.1"
WORKLISTS = ("/usr/share/orthanc/plugins/libModalityWorklists.so", "/usr/lib/orthanc")
REFERENCES = [Reference(str(e.SOPClassUID), str(e.SOPInstanceUID)) for e in studies.instances()]
OTHER = Reference(studies.CT, "1.2.9")


def scheduled(number: int, modality: str) -> Dataset:
    step = {
        "Modality": modality,
        "ScheduledStationAETitle": "OURS",
        "ScheduledProcedureStepStartDate": "20240110",
        "ScheduledProcedureStepStartTime": "1030",
    }
    made: Dataset = as_dataset(
        {
            "SpecificCharacterSet": "ISO_IR 100",
            "PatientID": f"W{number}",
            "PatientName": "Müller^Jörg",
            "ScheduledProcedureStepSequence": [step],
        }
    )
    return made


WORKLIST = [scheduled(1, "CT"), scheduled(2, "MR")]


class Keeper(CommitmentHandler):
    def commit(self, request: Any, references: Any) -> Any:
        known = {each.sop_instance_uid for each in REFERENCES}
        return {e.sop_instance_uid: 0 for e in references if e.sop_instance_uid in known}


class Orthanc:
    """Orthanc with the studies in it, and a server of ours that it knows as ``ours``."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        self.loop = loop
        self.port, self.http = peers.free_port(), peers.free_port()
        self.receiver_port, self.report_port = peers.free_port(), peers.free_port()
        self.peer = f"ANY-SCP@127.0.0.1:{self.port}"
        held = studies.instances()
        handler = CombinedHandler(
            QueryRetrieveHandler(lambda: held),
            WorklistHandler(lambda: WORKLIST),
            Keeper(reactor=loop.reactor),
        )
        orthanc = Peer("ORTHANC", f"127.0.0.1:{self.port}")
        ours = loop.listen(handler, ae_title="OURS", peers={"ORTHANC": orthanc})
        self.configuration = folder / "orthanc.json"
        self.configuration.write_text(json.dumps(self._settings(folder, ours)))
        self._write_worklist(folder / "worklists")

    def _settings(self, folder: Path, ours: int) -> dict[str, Any]:
        plugins = [path for path in WORKLISTS[:1] if Path(path).exists()]
        return {
            **peers.orthanc_settings(folder, self.port, self.http),
            "DicomAet": "ORTHANC",
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "DicomAlwaysAllowFindWorklist": True,
            "DefaultEncoding": "Utf8",  # else it keeps answers in Latin-1
            "DicomModalities": {
                "ours": {"AET": "OURS", "Host": "127.0.0.1", "Port": ours},
                "receiver": {"AET": "RECEIVER", "Host": "127.0.0.1", "Port": self.receiver_port},
                "reports": {"AET": "REPORTS", "Host": "127.0.0.1", "Port": self.report_port},
            },
            "Plugins": plugins,
            "Worklists": {"Enable": True, "Database": str(folder / "worklists")},
        }

    @staticmethod
    def _write_worklist(folder: Path) -> None:
        from pydicom.dataset import FileDataset, FileMetaDataset

        folder.mkdir()
        for number, item in enumerate(WORKLIST):
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2", f"1.{number}"
            meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
            made = FileDataset("", item, file_meta=meta, preamble=bytes(128))
            made.save_as(folder / f"{number}.wl", enforce_file_format=True)

    def ask(self, function: Any, *args: Any, **options: Any) -> Any:
        """A call of ours."""
        return self.loop.run(function, self.peer, *args, reactor=self.loop.reactor, **options)

    def rest(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """A call of its own."""
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.http}{path}"
        asked = urllib.request.Request(url, data=data, method=method)
        with urllib.request.urlopen(asked, timeout=peers.SECONDS) as answer:
            return json.loads(answer.read() or b"null")

    @property
    def instances(self) -> list[str]:
        """The SOP Instance UIDs that it has."""
        tags = self.rest("/instances?expand")
        return sorted(each["MainDicomTags"]["SOPInstanceUID"] for each in tags)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    folder = tmp_path_factory.mktemp("orthanc")
    program = peers.program("Orthanc")
    with Loop() as loop:
        made = Orthanc(loop, folder)
        with peers.listening([program], made.configuration, port=made.port):
            sent = made.ask(store_files, studies.write(folder / "files"))
            assert all(outcome.ok for outcome in sent)
            yield made


# --- we ask Orthanc


@pytest.mark.parametrize(
    ("level", "keys", "unique", "condition"),
    [
        ("PATIENT", {"PatientName": "*"}, "PatientID", lambda e: True),
        ("STUDY", {"PatientName": "Doe*"}, "StudyInstanceUID", lambda e: e.PatientID == "P1"),
        ("STUDY", {"PatientName": "Müller*"}, "StudyInstanceUID", lambda e: e.PatientID == "P2"),
        (
            "STUDY",
            {"StudyDate": "20240229-20240315"},
            "StudyInstanceUID",
            lambda e: "20240229" <= e.StudyDate <= "20240315",
        ),
        ("STUDY", {"ModalitiesInStudy": "MR"}, "StudyInstanceUID", lambda e: e.Modality == "MR"),
        (
            "SERIES",
            {"StudyInstanceUID": STUDY},
            "SeriesInstanceUID",
            lambda e: e.StudyInstanceUID == STUDY,
        ),
        (
            "IMAGE",
            {"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{STUDY}.1"},
            "SOPInstanceUID",
            lambda e: e.SeriesInstanceUID == f"{STUDY}.1",
        ),
    ],
    ids=["patients", "name", "umlaut", "date", "modality", "series", "images"],
)
def test_a_query_finds_what_it_has(
    orthanc: Orthanc, level: str, keys: Any, unique: str, condition: Any
) -> None:
    found = orthanc.ask(query, {unique: "", **keys}, level=level)
    assert studies.of(found, unique) == studies.uids(unique, condition)


@pytest.mark.parametrize("level", ["PATIENT", "STUDY", "SERIES"])
def test_retrieve_fetches_what_it_has(orthanc: Orthanc, level: str) -> None:
    keys: dict[str, str] = {
        "PATIENT": {"PatientID": "P1"},
        "STUDY": {"StudyInstanceUID": STUDY},
        "SERIES": {"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{STUDY}.1"},
    }[level]
    receiver = Keeping()
    outcome = orthanc.ask(retrieve, keys, handler=receiver, level=level)
    wanted = studies.uids(
        "SOPInstanceUID",
        lambda e: e.PatientID == "P1" and (level != "SERIES" or e.Modality == "CT"),
    )
    assert (outcome.status, sorted(receiver.kept)) == (0, wanted)


def test_move_fetches_what_it_has_with_a_receiver_of_its_own(orthanc: Orthanc) -> None:
    receiver = Keeping()
    outcome = orthanc.ask(
        move,
        {"StudyInstanceUID": STUDY},
        destination="RECEIVER",
        receive=f"tcp:{orthanc.receiver_port}:interface=127.0.0.1",
        handler=receiver,
    )
    wanted = studies.uids("SOPInstanceUID", lambda e: e.PatientID == "P1")
    assert (outcome.status, sorted(receiver.kept)) == (0, wanted)


def test_its_worklist_is_read(orthanc: Orthanc) -> None:
    if not Path(WORKLISTS[0]).exists():
        peers.absent("Orthanc's worklist plugin")
    found = orthanc.ask(worklist, {"ScheduledProcedureStepSequence.Modality": "MR"})
    assert [(str(each.PatientID), str(each.PatientName)) for each in found] == [
        ("W2", "Müller^Jörg")
    ]


@pytest.mark.parametrize("serving", [False, True], ids=["own-endpoint", "server-that-runs"])
def test_it_commits_itself_to_what_it_has(orthanc: Orthanc, serving: bool) -> None:
    where = f"tcp:{orthanc.report_port}:interface=127.0.0.1"
    receive: Any = where
    port = None
    if serving:
        from twisted_dimse import listen

        receive = CommitmentReceiver()
        port = orthanc.loop.run(
            listen, where, receive, ae_title="REPORTS", reactor=orthanc.loop.reactor
        )
    outcome = orthanc.ask(
        request_commitment,
        [*REFERENCES, OTHER],
        receive=receive,
        calling_ae_title="REPORTS",
        wait=peers.SECONDS,
    )
    if port is not None:
        orthanc.loop.run(port.stopListening)
    assert outcome.committed == tuple(REFERENCES)
    assert outcome.failed == {OTHER: 0x0112}


# --- Orthanc asks us


def test_it_finds_what_we_have_and_moves_it_to_itself(orthanc: Orthanc) -> None:
    for study in orthanc.rest("/studies"):
        orthanc.rest(f"/studies/{study}", method="DELETE")
    assert orthanc.instances == []
    asked = {"Level": "Study", "Query": {"PatientName": "yamada*", "StudyInstanceUID": ""}}
    path = orthanc.rest("/modalities/ours/query", asked)["Path"]
    answers = [
        orthanc.rest(f"{path}/answers/{number}/content?simplify")
        for number in orthanc.rest(f"{path}/answers")
    ]
    expected = studies.uids("StudyInstanceUID", lambda e: e.PatientID == "P3")
    assert sorted(each["StudyInstanceUID"] for each in answers) == expected
    assert {each["PatientName"] for each in answers} == {studies.PATIENTS[2][1]}
    body = {"TargetAet": "ORTHANC", "Synchronous": True}
    orthanc.rest(f"{path}/retrieve", body)
    assert orthanc.instances == studies.uids("SOPInstanceUID", lambda e: e.PatientID == "P3")


def test_it_reads_our_worklist(orthanc: Orthanc) -> None:
    keys = {"PatientID": "", "ScheduledProcedureStepSequence": [{"Modality": "CT"}]}
    found = orthanc.rest("/modalities/ours/find-worklist", keys)
    assert [each["PatientID"] for each in found] == ["W1"]


def test_it_asks_us_for_commitment_and_takes_our_report(orthanc: Orthanc) -> None:
    names = ("SOPClassUID", "SOPInstanceUID")
    asked = [dict(zip(names, each, strict=True)) for each in (REFERENCES[0], OTHER)]
    path = orthanc.rest("/modalities/ours/storage-commitment", {"DicomInstances": asked})["Path"]
    peers.wait_until(lambda: orthanc.rest(path)["Status"] != "Pending", peers.SECONDS)
    report = orthanc.rest(path)
    assert report["Status"] == "Failure"
    assert [each["SOPInstanceUID"] for each in report["Success"]] == [
        REFERENCES[0].sop_instance_uid
    ]
    assert [each["SOPInstanceUID"] for each in report["Failures"]] == [OTHER.sop_instance_uid]


# --- the command line


def test_the_command_line_works_with_orthanc(orthanc: Orthanc, tmp_path: Path) -> None:
    of_study = ["-k", f"StudyInstanceUID={STUDY}"]
    expected = sorted(e.SOPInstanceUID for e in studies.instances() if e.StudyInstanceUID == STUDY)

    def lines(*words: str | Path) -> list[dict[str, Any]]:
        done = peers.dimse(words[0], orthanc.peer, *words[1:], "--json").succeeded()
        return [json.loads(line) for line in done.out.splitlines()]

    assert lines("echo")[0]["status"] == 0
    files = tmp_path / "files"
    studies.write(files)
    assert lines("store", files)[-1]["sent"] == len(studies.instances())
    (study,) = lines("find", *of_study)
    assert study["0020000D"]["Value"] == [STUDY]
    assert lines("get", *of_study, "-od", tmp_path / "got")[-1]["completed"] == len(expected)
    receive = f"tcp:{orthanc.receiver_port}:interface=127.0.0.1"
    words = ["--to", "RECEIVER", "--receive", receive, "-od", tmp_path / "moved"]
    assert lines("move", *of_study, *words)[-1]["status"] == 0
    for folder in ("got", "moved"):
        assert sorted(path.stem for path in (tmp_path / folder).rglob("*.dcm")) == expected
    report = f"tcp:{orthanc.report_port}:interface=127.0.0.1"
    reported = lines("commit", files, "--calling", "REPORTS", "--receive", report)
    assert reported[-1]["committed"] == len(studies.instances())
