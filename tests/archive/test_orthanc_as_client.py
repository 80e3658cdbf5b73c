"""Orthanc asks an archive, and has what it found sent to itself."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peers
import pytest
from peers import dimse, serving
from pydicom import Dataset, dcmread
from pydicom.data import get_charset_files, get_testdata_file

pytestmark = pytest.mark.interop

NAMES = ["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "US1_J2KI.dcm",
         "ExplVR_BigEnd.dcm", "chrH31.dcm", "chrGreek.dcm"]  # fmt: skip


def file_named(name: str) -> Path:
    return Path(str(get_testdata_file(name) or get_charset_files(name)[0]))


class Client:
    """Orthanc, which knows the archive."""

    def __init__(self, port: int, http: int) -> None:
        self.port, self.http = port, http

    def rest(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data=data)
        with urllib.request.urlopen(asked, timeout=peers.SECONDS) as answer:
            return json.loads(answer.read() or b"null")

    def query(self, level: str, **keys: str) -> tuple[str, list[dict[str, str]]]:
        """The path of a query, and its answers."""
        made = self.rest("/modalities/archive/query", {"Level": level, "Query": keys})
        path = made["Path"]
        answers = self.rest(f"{path}/answers")
        return path, [self.rest(f"{path}/answers/{at}/content?simplify") for at in answers]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Dataset]:
    """Files of pydicom, each an instance of its own."""
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for number, name in enumerate(NAMES):
        dataset = dcmread(file_named(name))
        uid = f"1.2.826.0.1.3680043.8.498.6.{number}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid, f"{uid}.1"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{uid}.1.1"
        dataset.PatientID = f"P{number}"
        dataset.save_as(folder / name)
        found[folder / name] = dataset
    return found


@pytest.fixture(scope="module")
def client(
    files: dict[Path, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    program, folder = peers.program("Orthanc"), tmp_path_factory.mktemp("orthanc")
    made = Client(peers.free_port(), peers.free_port())
    with serving("--peer", f"ORTHANC=127.0.0.1:{made.port}") as server:
        dimse("store", server.peer, *files).succeeded()
        settings = {
            **peers.orthanc_settings(folder, made.port, made.http),
            "DicomAlwaysAllowStore": True,
            "DefaultEncoding": "Utf8",
            "Plugins": [],
            "DicomModalities": {
                "archive": {"AET": "ARCHIVE", "Host": "127.0.0.1", "Port": server.port}
            },
        }
        configuration = folder / "orthanc.json"
        configuration.write_text(json.dumps(settings))
        with peers.listening([program], configuration, port=made.port):
            yield made


QUERIES: list[tuple[dict[str, str], Callable[[Dataset], bool]]] = [
    ({}, lambda each: True),
    ({"PatientName": "compressedsamples^*"}, lambda e: str(e.PatientName)[:11] == "CompressedS"),
    ({"PatientID": "P1\\P3"}, lambda e: e.PatientID in ("P1", "P3")),
    ({"PatientID": "P?"}, lambda each: True),
    ({"StudyDate": "20040101-20041231"}, lambda e: e.get("StudyDate", "")[:4] in ("2004", "")),
    ({"ModalitiesInStudy": "MR"}, lambda e: e.Modality == "MR"),
    ({"PatientName": "Διον*"}, lambda e: str(e.PatientName).startswith("Διον")),
    ({"PatientName": "*=山田*"}, lambda e: "=山田" in str(e.PatientName)),
]


@pytest.mark.parametrize(
    ("keys", "condition"), QUERIES, ids=["-".join(row[0].values()) or "all" for row in QUERIES]
)
def test_it_finds_what_there_is(
    client: Client, files: dict[Path, Dataset], keys: dict[str, str], condition: Any
) -> None:
    _, found = client.query("Study", StudyInstanceUID="", **keys)
    expected = {str(each.StudyInstanceUID) for each in files.values() if condition(each)}
    assert expected
    assert {each["StudyInstanceUID"] for each in found} == expected


def test_it_has_all_sent_to_itself(client: Client, files: dict[Path, Dataset]) -> None:
    path, found = client.query("Study", PatientID="")
    assert len(found) == len(files)
    client.rest(f"{path}/retrieve", {"TargetAet": "ORTHANC", "Synchronous": True})
    held = client.rest("/instances?expand")
    uids = {each["MainDicomTags"]["SOPInstanceUID"]: each["ID"] for each in held}
    assert set(uids) == {str(each.SOPInstanceUID) for each in files.values()}
    for path_of_file, dataset in files.items():
        url = f"http://127.0.0.1:{client.http}/instances/{uids[dataset.SOPInstanceUID]}/file"
        with urllib.request.urlopen(url, timeout=peers.SECONDS) as answer:
            came = answer.read()
        pixels = dataset.get("PixelData")
        if pixels is not None:
            assert pixels in came, path_of_file.name
