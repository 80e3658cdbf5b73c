"""A few patients, studies and instances to ask real peers for, and the files of them.

Names are in several scripts. What a query should find is said by plain Python, not by the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT, MR, SC = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "4", "7"))
ROOT = "1.2.826.0.1.3680043.8.498.77"

#: Patient ID, name, character set, and its studies: date, accession number, and its series:
#: modality, SOP class, number of instances.
PATIENTS: Any = [
    ("P1", "Doe^Jane", None, [("20240110", "A1", [("CT", CT, 3), ("OT", SC, 1)])]),
    ("P2", "Müller^Jörg", "ISO_IR 100", [("20240229", "A2", [("MR", MR, 2)])]),
    (
        "P3",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "ISO_IR 192",
        [("20240301", "A3", [("CT", CT, 1)]), ("20240401", "A4", [("MR", MR, 1)])],
    ),
]


def instances() -> list[FileDataset]:
    return list(_instances())


def _instances() -> Iterator[FileDataset]:
    number = 0
    for patient, name, character_set, studies in PATIENTS:
        for date, accession, series in studies:
            number += 1
            study = f"{ROOT}.{number}"
            for at, (modality, sop_class, count) in enumerate(series, 1):
                for instance in range(1, count + 1):
                    made = _instance(sop_class, f"{study}.{at}.{instance}")
                    if character_set:
                        made.SpecificCharacterSet = character_set
                    made.PatientID, made.PatientName = patient, name
                    made.PatientBirthDate, made.PatientSex = "19700101", "O"
                    made.StudyInstanceUID, made.SeriesInstanceUID = study, f"{study}.{at}"
                    made.StudyDate, made.StudyTime = date, "103000"
                    made.AccessionNumber, made.StudyID = accession, f"S{number}"
                    made.Modality, made.SeriesNumber = modality, at
                    made.InstanceNumber = instance
                    yield made


def _instance(sop_class: str, uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = sop_class, uid
    made.ReferringPhysicianName = ""
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows = made.Columns = 2
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 0
    made.PixelData = bytes(8)
    if sop_class == SC:
        made.ConversionType = "WSD"
    return made


def write(folder: Path) -> list[Path]:
    """The instances as files."""
    folder.mkdir(exist_ok=True)
    paths = []
    for made in instances():
        paths.append(folder / f"{made.SOPInstanceUID}.dcm")
        made.save_as(paths[-1], enforce_file_format=True)
    return paths


def uids(keyword: str, condition: Callable[[Dataset], bool] = lambda _: True) -> list[str]:
    """The distinct values of an attribute in those instances that have what is asked for."""
    return sorted({str(each[keyword].value) for each in instances() if condition(each)})


def of(found: list[Dataset], keyword: str) -> list[str]:
    return sorted(str(match[keyword].value) for match in found)
