"""Named UIDs against ``sop_classes.json``."""

from __future__ import annotations

from typing import Any

import pytest
from facts import facts

from twisted_dimse import uids

FACTS = facts("sop_classes")


def uid_id(row: Any) -> str:
    return str(row["keyword"])


STORED = [row for row in FACTS["sop_classes"] if "C-STORE" in row.get("services", ())]
NOT_STORED = [
    row
    for row in FACTS["sop_classes"]
    if row not in STORED and not row.get("services_not_recorded")
]


@pytest.mark.parametrize("row", STORED, ids=uid_id)
def test_a_class_that_c_store_carries_is_a_storage_class(row: Any) -> None:
    assert row["uid"] in uids.storage_sop_classes()


@pytest.mark.parametrize("row", NOT_STORED, ids=uid_id)
def test_a_class_that_c_store_does_not_carry_is_none(row: Any) -> None:
    assert row["uid"] not in uids.storage_sop_classes()


KNOWN_BY_NAME = {
    "Verification": uids.VERIFICATION,
    "StorageCommitmentPushModel": uids.STORAGE_COMMITMENT_PUSH,
    "ModalityWorklistInformationModelFind": uids.MODALITY_WORKLIST_FIND,
    "ModalityPerformedProcedureStep": uids.MODALITY_PERFORMED_PROCEDURE_STEP,
    "PatientRootQueryRetrieveInformationModelFind": uids.PATIENT_ROOT.find,
    "PatientRootQueryRetrieveInformationModelMove": uids.PATIENT_ROOT.move,
    "PatientRootQueryRetrieveInformationModelGet": uids.PATIENT_ROOT.get,
    "StudyRootQueryRetrieveInformationModelFind": uids.STUDY_ROOT.find,
    "StudyRootQueryRetrieveInformationModelMove": uids.STUDY_ROOT.move,
    "StudyRootQueryRetrieveInformationModelGet": uids.STUDY_ROOT.get,
    "PatientStudyOnlyQueryRetrieveInformationModelFind": uids.PATIENT_STUDY_ONLY.find,
    "PatientStudyOnlyQueryRetrieveInformationModelMove": uids.PATIENT_STUDY_ONLY.move,
    "PatientStudyOnlyQueryRetrieveInformationModelGet": uids.PATIENT_STUDY_ONLY.get,
}


@pytest.mark.parametrize("keyword", KNOWN_BY_NAME)
def test_a_sop_class_has_the_uid_of_the_registry(keyword: str) -> None:
    [row] = [row for row in FACTS["sop_classes"] if row["keyword"] == keyword]
    assert KNOWN_BY_NAME[keyword] == row["uid"]


TRANSFER_SYNTAXES = {
    "ImplicitVRLittleEndian": uids.IMPLICIT_VR_LITTLE_ENDIAN,
    "ExplicitVRLittleEndian": uids.EXPLICIT_VR_LITTLE_ENDIAN,
    "DeflatedExplicitVRLittleEndian": uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    "ExplicitVRBigEndian": uids.EXPLICIT_VR_BIG_ENDIAN,
}


@pytest.mark.parametrize("keyword", TRANSFER_SYNTAXES)
def test_a_transfer_syntax_has_the_uid_of_the_registry(keyword: str) -> None:
    [row] = [row for row in FACTS["transfer_syntaxes"] if row["keyword"] == keyword]
    assert TRANSFER_SYNTAXES[keyword] == row["uid"]
    assert row["pixel_data"] == "native"
    assert row["uid"] in uids.UNCOMPRESSED_TRANSFER_SYNTAXES


def test_the_default_transfer_syntaxes_are_explicit_and_implicit_little_endian() -> None:
    assert uids.DEFAULT_TRANSFER_SYNTAXES == ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


def test_the_application_context_is_that_of_the_standard() -> None:
    assert FACTS["application_context"]["uid"] == uids.APPLICATION_CONTEXT


@pytest.mark.parametrize("row", FACTS["well_known_instances"], ids=uid_id)
def test_well_known_instances_have_valid_uids(row: Any) -> None:
    assert uids.is_valid_uid(row["uid"])


def test_our_own_implementation_class_uid_is_valid() -> None:
    assert uids.is_valid_uid(uids.IMPLEMENTATION_CLASS_UID)
    assert 0 < len(uids.IMPLEMENTATION_VERSION_NAME) <= 16


@pytest.mark.parametrize("uid", ["1.2", "0.0", "1.0.3", "2.25." + "9" * 39, "1." + "2" * 62])
def test_a_uid_of_digits_and_dots_is_valid(uid: str) -> None:
    assert uids.is_valid_uid(uid)


@pytest.mark.parametrize(
    "uid",
    [
        "",
        ".",
        "1",
        "..",
        "../../x",
        "1.",
        ".1",
        "1..2",
        "1.02",
        "01.2",
        "1.2\0",
        "1.2 ",
        " 1.2",
        "1.2\n",
        "1.2/3",
        "1.2.x",
        "1.-2",
        "1.٢",
        "1." + "2" * 63,
    ],
    ids=repr,
)
def test_a_uid_that_is_not_built_as_the_standard_says_is_not_valid(uid: str) -> None:
    assert not uids.is_valid_uid(uid)


@pytest.mark.parametrize("row", FACTS["sop_classes"], ids=uid_id)
def test_a_registered_uid_is_valid(row: Any) -> None:
    assert uids.is_valid_uid(row["uid"])


def test_a_registered_uid_has_a_name_and_another_is_its_own() -> None:
    assert uids.name_of("1.2.840.10008.1.1") == "Verification SOP Class"
    assert uids.name_of("1.2.840.10008.1.2") == "Implicit VR Little Endian"
    assert uids.name_of("1.2.3.4") == "1.2.3.4"
