"""One archive of ours for all the commands, with a few patients in it, and where it moves to."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers
import pytest
from peers import Server, dimse, serving
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "1.2.826.0.1.3680043.8.498.88"
#: Patient ID, name, character set, number of images: each in a study and a series of its own.
PATIENTS = [
    ("P1", "Doe^Jane", None, 3),
    ("P2", "Müller^Jörg", "ISO_IR 100", 1),
    ("P3", "Yamada^Tarou=山田^太郎=やまだ^たろう", "ISO_IR 192", 1),
]


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def write(folder: Path) -> Path:
    """The files of `PATIENTS`."""
    folder.mkdir(exist_ok=True)
    for number, (patient, name, character_set, images) in enumerate(PATIENTS, 1):
        for image in range(1, images + 1):
            made = _instance(f"{ROOT}.{number}", image)
            if character_set:
                made.SpecificCharacterSet = character_set
            made.PatientID, made.PatientName = patient, name
            made.save_as(folder / f"{patient}-{image}.dcm", enforce_file_format=True)
    return folder


def _instance(study: str, image: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CT, f"{study}.1.{image}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = CT, f"{study}.1.{image}"
    made.StudyInstanceUID, made.SeriesInstanceUID = study, f"{study}.1"
    made.StudyDate, made.StudyTime, made.AccessionNumber = "20240229", "103000", "A1"
    made.StudyID = made.ReferringPhysicianName = made.PatientBirthDate = made.PatientSex = ""
    made.Modality, made.SeriesNumber, made.InstanceNumber = "CT", 1, image
    made.StudyDescription = "Thorax"
    return made


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="session")
def here() -> int:
    """The port to which the archive sends what is moved to ME."""
    return peers.free_port()


@pytest.fixture(scope="session")
def silent() -> Iterator[int]:
    """The port of SILENT, who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


@pytest.fixture(scope="session")
def archive(files: Path, here: int, silent: int) -> Iterator[Server]:
    known = [f"ME=127.0.0.1:{here}", f"SILENT=127.0.0.1:{silent}"]
    with serving("--peer", known[0], "--peer", known[1]) as server:
        dimse("store", server.peer, files).succeeded()
        yield server
