"""What a peer may ask by C-FIND, C-MOVE and C-GET, and what is agreed on beforehand."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
from facts import facts
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from twisted_dimse import PATIENT_ROOT, PATIENT_STUDY_ONLY, STUDY_ROOT
from twisted_dimse.errors import StatusError
from twisted_dimse.keys import as_dataset
from twisted_dimse.services.identifiers import QueryOptions, check_query, check_retrieve
from twisted_dimse.services.query_models import (
    COMPOSITE_INSTANCE_GET,
    COMPOSITE_WITHOUT_BULK_GET,
    MODELS,
)
from twisted_dimse.uids import MODALITY_WORKLIST_FIND

FACTS = facts("query_retrieve")
LEVEL = 0x00080052
STUDY, SERIES, IMAGE = 0x0020000D, 0x0020000E, 0x00080018
STUDY_UID, SERIES_UID = {"StudyInstanceUID": "1.2"}, {"SeriesInstanceUID": "1.3"}


def keys(level: str | None, **more: Any) -> Dataset:
    made: Dataset = as_dataset(more)
    if level is not None:
        made.QueryRetrieveLevel = level
    return made


def offending(check: Any, *args: Any, **options: Any) -> int:
    """The element for which an identifier is refused."""
    with pytest.raises(StatusError) as refused:
        check(*args, **options)
    assert refused.value.status == 0xA900
    assert refused.value.comment
    (tag,) = refused.value.elements["OffendingElement"]
    return int(tag)


# --- levels


@pytest.mark.parametrize(
    ("model", "levels"),
    [
        (PATIENT_ROOT, ["PATIENT", "STUDY", "SERIES", "IMAGE"]),
        (STUDY_ROOT, ["STUDY", "SERIES", "IMAGE"]),
        (PATIENT_STUDY_ONLY, ["PATIENT", "STUDY"]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_each_model_has_its_levels_and_refuses_others(model: Any, levels: list[str]) -> None:
    above = {"PatientID": "7", **STUDY_UID, **SERIES_UID}
    for level in FACTS["level_element"]["values"]:
        if level not in levels:
            assert offending(check_query, keys(level), model.find) == LEVEL
            assert offending(check_retrieve, keys(level), model.get) == LEVEL
            continue
        uppers = [each.unique.keyword for each in _model(model).above(level)]
        identifier = check_query(keys(level, **{k: above[k] for k in uppers}), model.find)
        assert (identifier.level, list(identifier.above)) == (level, uppers)


def _model(model: Any) -> Any:
    return next(each for each in MODELS if model.find in each.sop_classes.values())


@pytest.mark.parametrize("identifier", [None, keys(None), keys(""), keys("SERIE"), keys("FRAME")])
def test_a_level_that_is_missing_or_unknown_is_refused(identifier: Dataset | None) -> None:
    assert offending(check_query, identifier, STUDY_ROOT.find) == LEVEL
    assert offending(check_retrieve, identifier, STUDY_ROOT.move) == LEVEL


def test_a_sop_class_without_a_model_is_not_supported() -> None:
    with pytest.raises(StatusError) as refused:
        check_query(keys("STUDY"), "1.2.840.10008.1.1")
    assert refused.value.status == 0x0122


# --- queries


def test_a_hierarchical_query_needs_one_value_of_each_unique_key_above() -> None:
    find = STUDY_ROOT.find
    assert offending(check_query, keys("SERIES"), find) == STUDY
    assert offending(check_query, keys("SERIES", StudyInstanceUID=""), find) == STUDY
    assert offending(check_query, keys("SERIES", StudyInstanceUID=["1.2", "1.3"]), find) == STUDY
    assert offending(check_query, keys("IMAGE", **STUDY_UID), find) == SERIES
    found = check_query(keys("IMAGE", **STUDY_UID, **SERIES_UID, InstanceNumber=7), find)
    assert found.above == {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}


def test_a_patient_id_above_must_name_one_patient() -> None:
    query = keys("STUDY", PatientID="7*")
    assert offending(check_query, query, PATIENT_ROOT.find) == 0x00100020


@pytest.mark.parametrize("uids", [(), ("1.2",), ("1.2", "1.3")], ids=str)
def test_the_unique_key_of_the_level_may_have_any_number_of_values(uids: Any) -> None:
    query = keys("STUDY", StudyInstanceUID=list(uids) or "")
    assert check_query(query, STUDY_ROOT.find).uids == uids


@pytest.mark.parametrize(
    ("level", "keyword", "tag"),
    [
        ("SERIES", "StudyDate", 0x00080020),
        ("SERIES", "PatientName", 0x00100010),
        ("IMAGE", "Modality", 0x00080060),
        ("STUDY", "SeriesNumber", 0x00200011),
        ("STUDY", "SOPInstanceUID", IMAGE),
    ],
)
def test_a_key_of_another_level_needs_a_relational_query(
    level: str, keyword: str, tag: int
) -> None:
    above = {} if level == "STUDY" else {**STUDY_UID, **SERIES_UID}
    above = {k: v for k, v in above.items() if level == "IMAGE" or k == "StudyInstanceUID"}
    asked = keys(level, **above, **{keyword: "7" if keyword != "StudyDate" else "20240101"})
    assert offending(check_query, asked, STUDY_ROOT.find) == tag
    assert check_query(asked, STUDY_ROOT.find, relational=True).level == level
    only_to_return = keys(level, **above, **{keyword: ""})
    assert check_query(only_to_return, STUDY_ROOT.find).level == level


def test_a_relational_query_may_leave_out_what_is_above() -> None:
    found = check_query(keys("IMAGE", PatientName="DOE*"), STUDY_ROOT.find, relational=True)
    assert (found.above, found.uids) == ({}, ())


def test_what_no_table_names_is_an_optional_key_of_the_level() -> None:
    assert check_query(keys("STUDY", BodyPartThickness=3), STUDY_ROOT.find).level == "STUDY"


def test_a_sequence_key_has_one_item() -> None:
    query = keys("STUDY", ProcedureCodeSequence=[{"CodeValue": "1"}, {"CodeValue": "2"}])
    assert offending(check_query, query, STUDY_ROOT.find) == 0x00081032


# --- retrievals


def test_a_retrieval_needs_the_unique_keys_and_gives_them() -> None:
    move = STUDY_ROOT.move
    assert offending(check_retrieve, keys("STUDY"), move) == STUDY
    assert offending(check_retrieve, keys("STUDY", StudyInstanceUID="*"), move) == STUDY
    assert offending(check_retrieve, keys("SERIES", **SERIES_UID), move) == STUDY
    uids = ["1.4", "1.5"]
    found = check_retrieve(keys("IMAGE", **STUDY_UID, **SERIES_UID, SOPInstanceUID=uids), move)
    assert found.above == {**STUDY_UID, **SERIES_UID}
    assert found.uids == ("1.4", "1.5")


def test_only_one_patient_can_be_retrieved_at_a_time() -> None:
    asked = keys("PATIENT", PatientID=["7", "8"])
    assert offending(check_retrieve, asked, PATIENT_ROOT.get) == 0x00100020
    assert check_retrieve(keys("PATIENT", PatientID="7"), PATIENT_ROOT.get).uids == ("7",)


def test_a_relational_retrieval_may_leave_out_what_is_above() -> None:
    asked = keys("IMAGE", SOPInstanceUID="1.4")
    assert offending(check_retrieve, asked, STUDY_ROOT.get) == STUDY
    assert check_retrieve(asked, STUDY_ROOT.get, relational=True).uids == ("1.4",)


def test_other_keys_of_a_retrieval_are_ignored_unless_they_would_make_it_smaller() -> None:
    asked = keys("STUDY", **STUDY_UID, PatientID="7", StudyDate="20240101")
    assert check_retrieve(asked, STUDY_ROOT.move).uids == ("1.2",)
    asked = keys("STUDY", **STUDY_UID, **SERIES_UID)
    assert offending(check_retrieve, asked, STUDY_ROOT.move) == SERIES


def test_frames_are_of_one_instance_by_one_list() -> None:
    asked = keys("FRAME", SOPInstanceUID="1.4", SimpleFrameList=[1, 2])
    assert check_retrieve(asked, COMPOSITE_INSTANCE_GET).uids == ("1.4",)
    both = keys("FRAME", SOPInstanceUID="1.4", SimpleFrameList=[1], TimeRange=[0.0, 1.0])
    assert offending(check_retrieve, both, COMPOSITE_INSTANCE_GET) == 0x00081161
    several = keys("FRAME", SOPInstanceUID=["1.4", "1.5"], SimpleFrameList=[1])
    assert offending(check_retrieve, several, COMPOSITE_INSTANCE_GET) == IMAGE
    whole = keys("IMAGE", SOPInstanceUID=["1.4", "1.5"])
    assert check_retrieve(whole, COMPOSITE_WITHOUT_BULK_GET).uids == ("1.4", "1.5")


# --- extended negotiation

NEGOTIATION = FACTS["extended_negotiation"]
NAMES = {
    "relational_queries": "relational",
    "relational_retrieval": "relational",
    "combined_date_time_matching": "combined_date_time",
    "fuzzy_person_name_matching": "fuzzy_names",
    "timezone_query_adjustment": "timezone",
    "enhanced_multi_frame_image_conversion": "enhanced_conversion",
    "empty_value_matching": "empty_value",
    "multiple_value_matching": "multiple_value",
}
SERVICES = {
    "c_find": STUDY_ROOT.find,
    "c_move_c_get": STUDY_ROOT.get,
    "worklist": MODALITY_WORKLIST_FIND,
}
OCTETS = [(service, row) for service in SERVICES for row in NEGOTIATION[service]["bytes"]]
EVERYTHING = QueryOptions(**{option.name: True for option in fields(QueryOptions)})


@pytest.mark.parametrize(
    ("service", "row"), OCTETS, ids=[f"{s}-{row['byte']}-{row['name']}" for s, row in OCTETS]
)
def test_each_octet_says_what_the_standard_has_it_say(service: str, row: dict[str, Any]) -> None:
    uid = SERVICES[service]
    if row["name"] == "reserved":
        assert QueryOptions().offer(uid)[row["byte"] - 1] == row["fixed"]
        return
    only = QueryOptions(**{NAMES[row["name"]]: True})
    octets = only.offer(uid)
    assert len(octets) == row["byte"]
    assert octets[-1] == 1
    assert QueryOptions.of(uid, octets) == only


def test_an_offer_has_at_least_one_octet_and_no_more_than_say_something() -> None:
    assert QueryOptions().offer(STUDY_ROOT.find) == b"\0"
    assert QueryOptions(relational=True).offer(STUDY_ROOT.find) == b"\1"
    assert EVERYTHING.offer(STUDY_ROOT.find) == b"\1" * 7
    assert EVERYTHING.offer(STUDY_ROOT.move) == b"\1" * 2
    assert EVERYTHING.offer(MODALITY_WORKLIST_FIND) == b"\1" * 4


@given(st.binary(max_size=12), st.sampled_from(sorted(SERVICES.values())))
def test_an_answer_takes_nothing_that_was_not_offered(offered: bytes, uid: str) -> None:
    some = QueryOptions(relational=True, timezone=True)
    answer = some.answer(uid)(offered)
    assert 0 < len(answer) <= max(len(offered), 1)
    fixed = 2 if uid == MODALITY_WORKLIST_FIND else 0
    pairs = zip(answer[fixed:], offered[fixed:], strict=False)
    assert all(not got or asked == 1 for got, asked in pairs)
    taken, wanted = QueryOptions.of(uid, answer), QueryOptions.of(uid, offered)
    for option in (field.name for field in fields(QueryOptions)):
        assert getattr(taken, option) == (getattr(some, option) and getattr(wanted, option))


def association(requestor: bool, octets: bytes | None) -> Any:
    extended = {} if octets is None else {STUDY_ROOT.find: octets}
    return SimpleNamespace(requestor=requestor, agreement=SimpleNamespace(extended=extended))


def test_what_is_agreed_is_seen_from_either_side() -> None:
    ours = QueryOptions(relational=True)
    for octets in (b"\1\1", b"\1\0"):
        assert ours.agreed(association(False, octets), STUDY_ROOT.find) == ours
    answered = QueryOptions(relational=True, combined_date_time=True)
    assert ours.agreed(association(True, b"\1\1"), STUDY_ROOT.find) == answered
    for role in (True, False):
        assert ours.agreed(association(role, None), STUDY_ROOT.find) == QueryOptions()


def test_what_is_agreed_changes_the_rules_of_matching() -> None:
    assert EVERYTHING.rules.combined_date_time
    assert EVERYTHING.rules.empty_value
    assert EVERYTHING.rules.multiple_value
    assert not QueryOptions().rules.combined_date_time
