"""Keys inside sequences (PS3.4 C.2.2.2.6) at an archive, asked by findscu and pynetdicom. What
should be found and answered is worked out by plain Python over the data sets that were sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from memory import BIG_ENDIAN, CT, DEFLATED, EXPLICIT, IMPLICIT
from peers import Server, dcmtk, dimse, run, serving
from pydicom import Dataset, Sequence, dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pynetdicom import AE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from twisted_dimse import PATIENT_ROOT

pytestmark = pytest.mark.interop

ROOT = "1.2.826.0.1.3680043.8.498.51"
JAPANESE = "山田の検査"


def made(**values: Any) -> Dataset:
    """A data set, or the keys for one; what is a dict is an item."""
    dataset = Dataset()
    for keyword, value in values.items():
        if isinstance(value, list):
            value = Sequence([made(**item) for item in value])
        elif isinstance(value, tuple):
            value = list(value)
        setattr(dataset, keyword, value)
    return dataset


def code(value: str, meaning: str = "", scheme: str = "99T") -> dict[str, Any]:
    return {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


def reference(number: int) -> dict[str, Any]:
    return {
        "ReferencedSOPClassUID": "1.2.840.10008.3.1.2.3.1",
        "ReferencedSOPInstanceUID": f"{ROOT}.8.{number}",
    }


def requested(number: str, *protocols: str) -> dict[str, Any]:
    step = {"RequestedProcedureID": f"RP{number}", "ScheduledProcedureStepID": f"S{number}"}
    return {**step, "ScheduledProtocolCodeSequence": [code(each, "Head") for each in protocols]}


#: Name of the row, transfer syntax, whether lengths are undefined, and what it has of sequences.
ROWS: list[tuple[str, str, bool, dict[str, Any]]] = [
    ("none", EXPLICIT, False, {}),
    (
        "explicit", EXPLICIT, False, {
            "ProcedureCodeSequence": [code("P1", "Chest")],
            "RequestAttributesSequence": [requested("1", "C1"), requested("2", "C2")],
            "OtherPatientIDsSequence": [{"PatientID": "X1", "IssuerOfPatientID": "ONE"}],
            "ConceptNameCodeSequence": [code("11528-7", "Report", "LN")],
        },
    ),
    (
        "undefined-lengths", EXPLICIT, True, {
            "ProcedureCodeSequence": [code("P2", "Chest"), code("P1", "Hand")],
            "RequestAttributesSequence": [requested("1", "C2"), requested("2", "C1")],
            "ReferencedStudySequence": [reference(2)],
            "SpecimenDescriptionSequence": [
                {"SpecimenIdentifier": "A-1", "SpecimenUID": f"{ROOT}.7.1"}
            ],
        },
    ),
    (
        "implicit", IMPLICIT, True, {
            "ProcedureCodeSequence": [code("Q7", "Chest")],
            "RequestAttributesSequence": [requested("3", "C1", "C3")],
            "ReferencedPatientSequence": [reference(3)],
            "ContentTemplateSequence": [{"TemplateIdentifier": "1500", "MappingResource": "DCMR"}],
        },
    ),
    (
        "big-endian", BIG_ENDIAN, False, {
            "ProcedureCodeSequence": [code("P2", "Foot")],
            "RequestAttributesSequence": [requested("1")],
            "ReferencedStudySequence": [reference(4), reference(2)],
            "OtherPatientIDsSequence": [{"PatientID": "X2", "IssuerOfPatientID": "ONE"}],
        },
    ),
    (
        "deflated-in-japanese", DEFLATED, True, {
            "ProcedureCodeSequence": [code("P1", JAPANESE)],
            "RequestAttributesSequence": [],
            "SpecimenDescriptionSequence": [
                {"SpecimenIdentifier": "B-1", "SpecimenUID": f"{ROOT}.7.2"}
            ],
        },
    ),
]  # fmt: skip


def instance(number: int) -> FileDataset:
    _, syntax, undefined, values = ROWS[number]
    meta = FileMetaDataset()
    uid = f"{ROOT}.{number}.1.1"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CT, uid
    meta.TransferSyntaxUID = syntax
    image = FileDataset(
        "", made(**values), file_meta=meta, preamble=bytes(128),
        is_implicit_VR=syntax == IMPLICIT, is_little_endian=syntax != BIG_ENDIAN,
    )  # fmt: skip
    image.SOPClassUID, image.SOPInstanceUID = CT, uid
    image.StudyInstanceUID, image.SeriesInstanceUID = f"{ROOT}.{number}", f"{ROOT}.{number}.1"
    image.PatientID, image.PatientName, image.Modality = f"P{number}", f"Doe^{number}", "CT"
    image.StudyID, image.InstanceNumber, image.SeriesNumber = str(number), "1", "1"
    if "japanese" in ROWS[number][0]:
        image.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    for element in image:
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
    return image


IMAGES = [instance(number) for number in range(len(ROWS))]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sequences")
    for number, image in enumerate(IMAGES):
        image.save_as(folder / str(number))
    with serving() as server:
        dimse("store", server.peer, folder).succeeded()
        yield server


# --- what is expected


def fits(entity: Dataset, keys: Dataset) -> bool:
    return all(_fits(entity, key) for key in keys)


def _fits(entity: Dataset, key: Any) -> bool:
    if key.VR == "SQ":
        held = entity[key.tag].value if key.tag in entity else []
        asked = any(_asks(item) for item in key.value)
        return not asked or not held or any(fits(item, key.value[0]) for item in held)
    if not key.value or not entity.get(key.tag):
        return True
    return any(fnmatchcase(str(entity[key.tag].value), str(one)) for one in _list(key.value))


def _asks(item: Dataset) -> bool:
    return any(any(map(_asks, key.value)) if key.VR == "SQ" else bool(key.value) for key in item)


def _list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)


def answer(entity: Dataset, keys: Dataset) -> dict[str, Any]:
    return {key.keyword: _answer(entity, key) for key in keys}


def _answer(entity: Dataset, key: Any) -> Any:
    if key.VR != "SQ":
        return str(entity.get(key.keyword, ""))
    wanted = key.value[0] if key.value else Dataset()
    items = [item for item in entity.get(key.keyword, []) if fits(item, wanted)]
    return [answer(item, wanted) if len(wanted) else as_told(item) for item in items]


def as_told(dataset: Dataset) -> dict[str, Any]:
    """What a data set has, as plain values."""
    return {
        element.keyword: [as_told(item) for item in element.value]
        if element.VR == "SQ"
        else str(element.value or "")
        for element in dataset
        if element.keyword not in ("SpecificCharacterSet", "QueryRetrieveLevel")
    }


# --- what is asked

ALL: dict[str, Any] = {
    "RequestedProcedureID": "", "ScheduledProcedureStepID": "", "ScheduledProtocolCodeSequence": []
}  # fmt: skip
QUERIES: dict[str, tuple[str, dict[str, Any]]] = {
    "no-item": ("SERIES", {"RequestAttributesSequence": []}),
    "empty-item": ("SERIES", {"RequestAttributesSequence": [{}]}),
    "item-that-asks-for-nothing": ("SERIES", {"RequestAttributesSequence": [ALL]}),
    "single": ("SERIES", {"RequestAttributesSequence": [{**ALL, "RequestedProcedureID": "RP1"}]}),
    "wildcard": ("SERIES", {"RequestAttributesSequence": [{**ALL, "RequestedProcedureID": "?P3"}]}),
    "star": ("SERIES", {"RequestAttributesSequence": [{"RequestedProcedureID": "*2"}]}),
    "nested": (
        "SERIES",
        {"RequestAttributesSequence": [
            {"RequestedProcedureID": "", "ScheduledProtocolCodeSequence": [{"CodeValue": "C3"}]}
        ]},
    ),
    "in-one-and-the-same-item": (
        "SERIES",
        {"RequestAttributesSequence": [
            {"RequestedProcedureID": "RP2", "ScheduledProtocolCodeSequence": [{"CodeValue": "C1"}]}
        ]},
    ),
    "code": ("STUDY", {"ProcedureCodeSequence": [code("P1")]}),
    "code-and-study": ("STUDY", {"ProcedureCodeSequence": [code("P1")], "StudyID": "2"}),
    "meaning": ("STUDY", {"ProcedureCodeSequence": [{"CodeMeaning": "Ch*"}]}),
    "in-japanese": ("STUDY", {"ProcedureCodeSequence": [{"CodeMeaning": f"{JAPANESE[:2]}*"}]}),
    "uid": (
        "STUDY", {"ReferencedStudySequence": [{"ReferencedSOPInstanceUID": f"{ROOT}.8.4"}]}
    ),
    "uid-list": (
        "STUDY",
        {"ReferencedStudySequence": [
            {"ReferencedSOPInstanceUID": (f"{ROOT}.8.2", f"{ROOT}.8.9")}
        ]},
    ),
    "two-sequences": (
        "STUDY",
        {"ReferencedStudySequence": [{"ReferencedSOPInstanceUID": f"{ROOT}.8.2"}],
         "ProcedureCodeSequence": [{"CodeValue": "P?", "CodeMeaning": "Foot"}]},
    ),
    "other-patient-ids": (
        "PATIENT", {"OtherPatientIDsSequence": [{"PatientID": "X2", "IssuerOfPatientID": ""}]}
    ),
    "referenced-patient": (
        "PATIENT", {"ReferencedPatientSequence": [{"ReferencedSOPInstanceUID": f"{ROOT}.8.9"}]}
    ),
    "specimen": (
        "IMAGE", {"SpecimenDescriptionSequence": [{"SpecimenIdentifier": "A*", "SpecimenUID": ""}]}
    ),
    "concept": ("IMAGE", {"ConceptNameCodeSequence": [code("11528-7", scheme="LN")]}),
    "template": ("IMAGE", {"ContentTemplateSequence": [{"TemplateIdentifier": "15*"}]}),
    "no-such": ("IMAGE", {"ContentTemplateSequence": [{"TemplateIdentifier": "2"}]}),
}  # fmt: skip
UNIQUE = {
    "PATIENT": "PatientID", "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID",
}  # fmt: skip


def keys_of(name: str) -> Dataset:
    level, values = QUERIES[name]
    keys = made(**values)
    keys.QueryRetrieveLevel = level
    setattr(keys, UNIQUE[level], "")
    keys.SpecificCharacterSet = "ISO_IR 192"
    return keys


def expected(name: str, images: list[FileDataset] = IMAGES) -> list[dict[str, Any]]:
    keys = keys_of(name)
    del keys.QueryRetrieveLevel, keys.SpecificCharacterSet
    return in_order(answer(image, keys) for image in images if fits(image, keys))


def in_order(answers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(answers, key=str)


@pytest.mark.parametrize("name", QUERIES)
def test_pynetdicom_finds_by_what_is_in_sequences_and_gets_the_items(
    archive: Server, name: str
) -> None:
    node = AE()
    node.add_requested_context(PATIENT_ROOT.find)
    relational = SOPClassExtendedNegotiation()
    relational.sop_class_uid = PATIENT_ROOT.find
    relational.service_class_application_information = b"\1"
    association = node.associate("127.0.0.1", archive.port, ext_neg=[relational])
    answers = list(association.send_c_find(keys_of(name), PATIENT_ROOT.find))
    association.release()
    assert [status.Status for status, _ in answers] == [0xFF00] * (len(answers) - 1) + [0]
    found = [as_told(dataset) for _, dataset in answers if dataset is not None]
    assert in_order(found) == expected(name)


@pytest.mark.parametrize("name", QUERIES)
def test_findscu_finds_the_same(archive: Server, tmp_path: Path, name: str) -> None:
    image = IMAGES[2]
    keys, level = keys_of(name), QUERIES[name][0]
    above = list(UNIQUE)[: list(UNIQUE).index(level)]
    for unique in (UNIQUE[one] for one in above):
        setattr(keys, unique, image.get(unique))
    keys.save_as(
        tmp_path / "keys", implicit_vr=False, little_endian=True, enforce_file_format=False
    )
    folder = tmp_path / "found"
    folder.mkdir()
    done = run(
        dcmtk("findscu"), "-v", "-P", "-X", "-od", folder, "-aec", "X",
        "127.0.0.1", archive.port, tmp_path / "keys",
    ).succeeded()  # fmt: skip
    found = [as_told(dcmread(path, force=True)) for path in folder.iterdir()]
    for each in found:
        for unique in above:
            assert each.pop(UNIQUE[unique]) == image.get(UNIQUE[unique])
    assert in_order(found) == expected(name, [image] if above else IMAGES)
    assert "Warning" not in done.said
