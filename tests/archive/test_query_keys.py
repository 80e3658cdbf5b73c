"""Every key of the standard's query tables at an archive, asked by pynetdicom: it is matched in
each way that the table has for it and returned, or told not to be known, as docs/archive.md says.

Two images are there that differ in every attribute; what is expected of a key is read off them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from facts import facts
from peers import Server, dimse, serving
from pydicom import Dataset, Sequence
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import FileDataset, FileMetaDataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from twisted_dimse.archive.header import KEPT, Level
from twisted_dimse.archive.matching import computed_attributes, levels_down_to

pytestmark = pytest.mark.interop

DOCUMENT = Path(__file__).parents[2] / "docs" / "archive.md"
ROOT = "1.2.826.0.1.3680043.8.498.53"
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
MODELS = {row["model"]: row for row in facts("query_retrieve")["models"]}
OF_SEQUENCES = {  # where the tables name no attributes of the items
    "OtherPatientIDsSequence": {"keyword": "PatientID", "vr": "LO"},
    "RequestAttributesSequence": {"keyword": "RequestedProcedureID", "vr": "SH"},
    "PurposeOfReferenceCodeSequence": {"keyword": "CodeValue", "vr": "SH"},
}
#: What a study has that none of its images says: of the first image, and of the second.
GATHERED = {
    "ModalitiesInStudy": ("CT", "MR"),
    "SOPClassesInStudy": (CT, MR),
    "AvailableTransferSyntaxUID": (IMPLICIT, EXPLICIT),
}


class Row(NamedTuple):
    model: str
    level: str
    key: dict[str, Any]


def rows() -> Iterator[Row]:
    for name, model in MODELS.items():
        for level in model.get("levels", ()):
            here = level
            if "keys_as" in level:
                other, where = level["keys_as"].split()
                [here] = (one for one in MODELS[other]["levels"] if one["level"] == where)
            for key in here.get("keys", ()):
                yield Row(name, level["level"], key)


ROWS = list(rows())


def documented() -> dict[str, tuple[set[str], set[str], set[str]]]:
    """Of each level: keys of the tables that are known, other keys, and keys that are not."""
    found = {}
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0] in Level.__members__:
            known, others, unknown = (set(re.findall(r"`(\w+)`", cell)) for cell in cells[1:])
            found[cells[0]] = known, others, unknown
    return found


DOCUMENTED = documented()
UNKNOWN = {keyword for _, _, unknown in DOCUMENTED.values() for keyword in unknown}

# --- two images


def value_of(key: dict[str, Any], number: int) -> Any:
    keyword, vr = key["keyword"], key["vr"]
    if vr == "SQ":
        inside = key.get("items") or [OF_SEQUENCES[keyword]]
        item = Dataset()
        for one in inside:
            setattr(item, one["keyword"], value_of(one, number))
        return Sequence([item])
    values = {
        "UI": f"{ROOT}.{sum(map(ord, keyword))}.{number}",
        "DA": f"2024010{number}",
        "TM": f"10300{number}",
        "AS": f"04{number}Y",
        "DS": f"{number}.5",
        "IS": f"{number}7",
        "CS": "FM"[number - 1] if keyword == "PatientSex" else f"{number}_VALUE",
        "PN": f"{number}{keyword[:20]}^Jane",
        "UR": f"urn:{number}:{keyword}",
    }
    return values.get(vr, f"{number} {keyword}"[:16])


def image(number: int) -> FileDataset:
    sop_class, syntax = ((CT, IMPLICIT), (MR, EXPLICIT))[number - 1]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    made = FileDataset(
        "", {}, file_meta=meta, preamble=bytes(128),
        is_implicit_VR=syntax == IMPLICIT, is_little_endian=True,
    )  # fmt: skip
    for row in ROWS:
        if row.key["keyword"] not in GATHERED and row.key["matching"] != ["universal"]:
            setattr(made, row.key["keyword"], value_of(row.key, number))
    made.SOPClassUID, made.Modality = sop_class, ("CT", "MR")[number - 1]
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, made.SOPInstanceUID
    return made


IMAGES = image(1), image(2)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keys")
    for number, one in enumerate(IMAGES):
        one.save_as(folder / str(number), enforce_file_format=True)
    with serving() as server:
        dimse("store", server.peer, folder).succeeded()
        yield server


@pytest.fixture(scope="module")
def association(archive: Server) -> Iterator[Association]:
    """One with relational queries, so that a query need not name what is above its level."""
    node, offered = AE(), []
    for model in MODELS.values():
        uid = model["sop_classes"].get("C-FIND")
        if uid and "levels" in model:
            node.add_requested_context(uid)
            offered.append(SOPClassExtendedNegotiation())
            offered[-1].sop_class_uid = uid
            offered[-1].service_class_application_information = b"\1"
    association = node.associate("127.0.0.1", archive.port, ext_neg=offered)
    yield association
    association.release()


# --- what is asked, and what is expected


def held(keyword: str, number: int) -> Any:
    """What the image has, or its study."""
    if keyword in GATHERED:
        return GATHERED[keyword][number - 1]
    if keyword.startswith("NumberOf"):
        return 1
    return IMAGES[number - 1][keyword].value


def asked(key: dict[str, Any], kind: str) -> Any:
    """A value of the key that means the first image, by one kind of matching."""
    value = held(key["keyword"], 1)
    return {
        "single": lambda: value,
        "uid_list": lambda: [value, f"{ROOT}.0"],
        "wildcard": lambda: f"{str(value)[:-1]}?" if len(str(value)) > 1 else value,
        "range": lambda: f"{value}-{value}",
        "sequence": lambda: value,
    }[kind]()


def find(association: Association, row: Row, value: Any) -> tuple[list[Dataset], set[int]]:
    """What is found, and the statuses of it."""
    model = MODELS[row.model]
    keys = Dataset()
    keys.QueryRetrieveLevel = row.level
    [unique] = (one["unique_key"] for one in model["levels"] if one["level"] == row.level)
    setattr(keys, unique, "")
    setattr(keys, row.key["keyword"], value)
    *pending, (status, _) = association.send_c_find(keys, model["sop_classes"]["C-FIND"])
    assert status.Status == 0
    return [dataset for _, dataset in pending], {status.Status for status, _ in pending}


def name_of(row: Row) -> str:
    return f"{row.model}-{row.level}-{row.key['keyword']}"


def known(rows: list[Row], yes: bool) -> list[Any]:
    return [
        pytest.param(row, id=name_of(row))
        for row in rows
        if (row.key["keyword"] not in UNKNOWN) is yes
    ]


@pytest.mark.parametrize("row", known(ROWS, True))
def test_a_key_that_is_known_is_matched_in_each_way_and_returned(
    association: Association, row: Row
) -> None:
    keyword = row.key["keyword"]
    universal, statuses = find(association, row, [] if row.key["vr"] == "SQ" else None)
    assert statuses == {0xFF00}
    values = [str(found[keyword].value) for found in universal]
    assert sorted(values) == sorted(str(held(keyword, number)) for number in (1, 2))
    for kind in row.key["matching"]:
        if kind != "universal":
            found, statuses = find(association, row, asked(row.key, kind))
            assert [str(one[keyword].value) for one in found] == [str(held(keyword, 1))], kind
            assert statuses == {0xFF00}


@pytest.mark.parametrize("row", known(ROWS, False))
def test_a_key_that_is_not_known_is_left_out_and_told(association: Association, row: Row) -> None:
    for value in ([], value_of(row.key, 1)):
        found, statuses = find(association, row, value)
        assert len(found) == 2
        assert statuses == {0xFF01}
        assert not any(row.key["keyword"] in one for one in found)


@pytest.mark.parametrize("level", Level, ids=str)
def test_the_document_has_the_keys_of_each_level(level: Level) -> None:
    named, others, unknown = DOCUMENTED[level]
    of_table = {
        row.key["keyword"] for row in ROWS if (row.model, row.level) == ("patient_root", level)
    }
    assert named | unknown == of_table
    above = levels_down_to(level)[:-1]
    gathered = set(computed_attributes(level)).difference(*map(computed_attributes, above))
    assert named | others == {keyword_for_tag(tag) for tag in {*KEPT[level], *gathered}}
