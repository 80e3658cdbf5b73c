"""A few patients, as files, for all the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
            made = instance(f"{ROOT}.{number}", image)
            if character_set:
                made.SpecificCharacterSet = character_set
            made.PatientID, made.PatientName = patient, name
            made.save_as(folder / f"{patient}-{image}.dcm", enforce_file_format=True)
    return folder


def instance(study: str, image: int) -> FileDataset:
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
