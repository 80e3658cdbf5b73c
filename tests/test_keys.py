"""Data sets as callers write them."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import Dataset

from twisted_dimse.datastream import decode_dataset, encode_dataset
from twisted_dimse.keys import as_dataset, tag_of

EXPLICIT = "1.2.840.10008.1.2.1"


def sent(keys: Any) -> Dataset:
    return decode_dataset(encode_dataset(as_dataset(keys), EXPLICIT), EXPLICIT)


def test_a_data_set_is_taken_as_it_is() -> None:
    keys = Dataset()
    assert as_dataset(keys) is keys


@pytest.mark.parametrize(
    "name",
    ["PatientID", 0x00100020, "0010,0020", "(0010,0020)", "00100020", (0x0010, 0x0020)],
)
def test_an_attribute_goes_by_its_keyword_or_its_tag(name: int | str | tuple[int, int]) -> None:
    assert tag_of(name) == 0x00100020
    assert sent({name: "7"}).PatientID == "7"


@pytest.mark.parametrize("name", ["PatientNam", "patientname", "0010,002", ""])
def test_a_name_of_no_attribute_is_an_error_and_no_query_for_everything(name: str) -> None:
    with pytest.raises(ValueError, match="no attribute"):
        as_dataset({name: "7"})


@pytest.mark.parametrize(
    "keys",
    [
        {"ScheduledProcedureStepSequence.Modality": "CT"},
        {"ScheduledProcedureStepSequence": [{"Modality": "CT"}]},
        {"ScheduledProcedureStepSequence": {"Modality": "CT"}},
        {"ScheduledProcedureStepSequence": "", "0040,0100.0008,0060": "CT"},
        {"ScheduledProcedureStepSequence": [as_dataset({"Modality": "CT"})]},
    ],
)
def test_a_path_and_nested_mappings_lead_into_an_item(keys: dict[str, Any]) -> None:
    (item,) = sent(keys).ScheduledProcedureStepSequence
    assert item.Modality == "CT"


def test_several_paths_lead_into_the_same_item() -> None:
    keys = {
        "ScheduledProcedureStepSequence.Modality": "CT",
        "ScheduledProcedureStepSequence.ScheduledProtocolCodeSequence.CodeValue": "7",
    }
    (item,) = sent(keys).ScheduledProcedureStepSequence
    assert item.Modality == "CT"
    assert item.ScheduledProtocolCodeSequence[0].CodeValue == "7"


def test_a_path_through_what_is_no_sequence_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sequence"):
        as_dataset({"PatientName.Modality": "CT"})


def test_keys_need_be_no_values_and_nothing_warns(recwarn: pytest.WarningsRecorder) -> None:
    keys = {"StudyDate": "20240101-", "Modality": "C*", "StudyTime": "-10", "PatientID": "a" * 80}
    assert [str(element.value) for element in as_dataset(keys)] == [
        "20240101-",
        "-10",
        "C*",
        "a" * 80,
    ]
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Rows", "512", 512),
        ("Rows", "", None),
        ("Rows", None, None),
        ("InstanceNumber", "", None),
        ("StudyInstanceUID", "1.2\\1.3", ["1.2", "1.3"]),
        ("StudyInstanceUID", ["1.2", "1.3"], ["1.2", "1.3"]),
        ("PatientName", "", ""),
        ("ImagePositionPatient", "1\\2\\3", [1, 2, 3]),
        ("00091010", "octets", b"octets"),
    ],
)
def test_values_may_be_text(name: str, value: Any, expected: Any) -> None:
    element = sent({name: value})[tag_of(name)]
    assert (list(element.value) if isinstance(expected, list) else element.value) == expected


def test_a_value_that_cannot_be_one_is_an_error() -> None:
    with pytest.raises(ValueError):
        as_dataset({"InstanceNumber": "seven"})
    with pytest.raises(ValueError):
        as_dataset({"Rows": "many"})


@pytest.mark.parametrize(
    ("keys", "character_set"),
    [
        ({"PatientName": "Doe"}, None),
        ({"PatientName": "Müller*"}, "ISO_IR 100"),
        ({"PatientName": "山田*"}, "ISO_IR 192"),
        ({"ProcedureCodeSequence": [{"CodeMeaning": "頭部"}]}, "ISO_IR 192"),
        ({"PatientName": "Doe", "SpecificCharacterSet": "ISO_IR 144"}, "ISO_IR 144"),
    ],
)
def test_text_brings_its_character_set_along(
    keys: dict[str, Any], character_set: str | None
) -> None:
    read = sent(keys)
    assert read.get("SpecificCharacterSet") == character_set
    if "PatientName" in keys:
        assert str(read.PatientName) == keys["PatientName"]


@pytest.mark.parametrize(
    ("name", "value", "vr"),
    [("NumberOfStudyRelatedInstances", "x", "IS"), ("Rows", "many", "US")],
)
def test_what_is_no_value_of_the_attribute_is_said_in_plain_words(
    name: str, value: Any, vr: str
) -> None:
    with pytest.raises(ValueError, match=f"is no value of {vr}$"):
        as_dataset({name: value})
