"""Attribute matching (PS3.4 C.2.2.2), over the rows of the standard's table."""

from __future__ import annotations

from typing import Any

import pytest
from facts import facts
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom import Dataset, config, dcmread
from pydicom.data import get_charset_files
from pydicom.dataelem import DataElement

from twisted_dimse.datastream import decode_dataset, encode_dataset
from twisted_dimse.errors import StatusError
from twisted_dimse.services.matching import (
    QUERY_RULES,
    WORKLIST_RULES,
    Matching,
    Rules,
    kind_of,
    matcher,
    matches,
    name_test,
    requested,
    wildcards,
)

MATCHING = facts("query_retrieve")["matching"]
TYPES = {row["type"]: row for row in MATCHING["types"]}
ALL_RULES = Rules(combined_date_time=True, empty_value=True, multiple_value=True)
EXPLICIT = "1.2.840.10008.1.2.1"

#: An attribute of each VR, a value that an entity may have, and one that it may not have then.
EXAMPLES: dict[str, tuple[int, Any, Any]] = {
    "AE": (0x00400001, "CT1", "CT2"),
    "AS": (0x00101010, "042Y", "043Y"),
    "AT": (0x00209165, 0x00181063, 0x00181064),
    "CS": (0x00080060, "CT", "MR"),
    "DA": (0x00080020, "20240229", "20240301"),
    "DS": (0x00101030, "70.5", "71"),
    "DT": (0x00404005, "20240229103000", "20240229103001"),
    "FD": (0x00189073, 1.5, 2.5),
    "FL": (0x00186028, 1.5, 2.5),
    "IS": (0x00200013, "7", "8"),
    "LO": (0x00100020, "Patient 7", "Patient 8"),
    "LT": (0x00104000, "Came by bus.", "Came on foot."),
    "OB": (0x00282000, b"\1\2", b"\1\3"),
    "PN": (0x00100010, "Doe^Jane", "Doe^John"),
    "SH": (0x00080050, "A-7", "A-8"),
    "SL": (0x00186020, -7, 7),
    "SS": (0x00189219, -7, 7),
    "ST": (0x00080081, "12 High Street", "13 High Street"),
    "TM": (0x00080030, "103000", "103001"),
    "UC": (0x00080119, "Long code", "Other code"),
    "UI": (0x0020000D, "1.2.3", "1.2.4"),
    "UL": (0x00081161, 7, 8),
    "UR": (0x00080120, "urn:oid:1.2", "urn:oid:1.3"),
    "US": (0x00280010, 7, 8),
    "UT": (0x0040A160, "A text", "Another text"),
}


def element(tag: int, vr: str, value: Any) -> DataElement:
    return DataElement(tag, vr, value, validation_mode=config.IGNORE)


def dataset(*elements: tuple[int, str, Any], **keywords: Any) -> Dataset:
    """A data set as it comes from the wire, with values that pydicom would not have."""
    made = Dataset()
    for one in elements:
        made.add(element(*one))
    for keyword, value in keywords.items():
        probe = Dataset()
        setattr(probe, keyword, [] if isinstance(value, list) and not value else None)
        vr = probe[keyword].VR
        made.add(element(probe[keyword].tag, vr, value))
    return made


def sent(made: Dataset) -> Dataset:
    return decode_dataset(encode_dataset(made, EXPLICIT), EXPLICIT)


def of(vr: str, value: Any) -> Dataset:
    return sent(dataset((EXAMPLES[vr][0], vr, value)))


# --- the table, row by row


@pytest.mark.parametrize("vr", EXAMPLES)
def test_a_single_value_matches_an_equal_value_and_no_other(vr: str) -> None:
    tag, value, other = EXAMPLES[vr]
    keys = of(vr, value)
    assert kind_of(keys, tag) is Matching.SINGLE
    assert matches(of(vr, value), keys)
    assert not matches(of(vr, other), keys)


@pytest.mark.parametrize("vr", EXAMPLES)
def test_a_key_without_a_value_matches_every_entity(vr: str) -> None:
    tag, value, _ = EXAMPLES[vr]
    keys = of(vr, b"" if vr == "OB" else None if vr not in ("PN", "LO") else "")
    assert kind_of(keys, tag) is Matching.UNIVERSAL
    assert matches(of(vr, value), keys, WORKLIST_RULES)
    assert matches(Dataset(), keys, WORKLIST_RULES)


@pytest.mark.parametrize("vr", TYPES["wildcard"]["vrs"])
def test_wildcards_are_taken_in_every_vr_that_has_them(vr: str) -> None:
    tag, value, other = EXAMPLES[vr]
    for key in (f"{value[0]}*", f"*{value[1:]}", f"{value[:-1]}?", f"{value}*"):
        keys = of(vr, key)
        assert kind_of(keys, tag) is Matching.WILDCARD
        assert matches(of(vr, value), keys)
    assert not matches(of(vr, other), of(vr, f"{value}*"))
    assert not matches(of(vr, value), of(vr, f"{value}?"))
    assert kind_of(of(vr, "*"), tag) is Matching.UNIVERSAL


@pytest.mark.parametrize("vr", sorted(set(EXAMPLES) & {"AS", "DA", "TM", "UI", "IS", "DS"}))
def test_a_question_mark_is_no_wildcard_in_other_vrs(vr: str) -> None:
    tag, value, _ = EXAMPLES[vr]
    if vr in ("DA", "TM"):
        with pytest.raises(StatusError) as refused:
            matcher(of_text(vr, value[:-1] + "?"))
        assert (refused.value.status, refused.value.elements) == (
            0xA900,
            {"OffendingElement": (tag,)},
        )
        return
    keys = of_text(vr, value[:-1] + "?")
    assert kind_of(keys, tag) is Matching.SINGLE
    assert not matches(of(vr, value), keys)


def of_text(vr: str, text: str) -> Dataset:
    """A key whose octets pydicom could not write."""
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    octets = text.encode()
    tag = Tag(EXAMPLES[vr][0])
    return Dataset({tag: RawDataElement(tag, vr, len(octets), octets, 0, False, True)})


@pytest.mark.parametrize("vr", TYPES["range"]["vrs"])
def test_a_range_includes_both_of_its_ends(vr: str) -> None:
    first, last = {
        "DA": ("20240228", "20240301"),
        "TM": ("100000", "110000"),
        "DT": ("20240228100000", "20240301110000"),
    }[vr]
    inside = EXAMPLES[vr][1]
    for key, low, high in ((f"{first}-{last}", 1, 1), (f"-{last}", 0, 1), (f"{first}-", 1, 0)):
        keys = of(vr, key)
        assert kind_of(keys, EXAMPLES[vr][0]) is Matching.RANGE
        assert all(matches(of(vr, value), keys) for value in (first, inside, last))
        assert matches(of(vr, {"DA": "19000101", "TM": "000000", "DT": "1900"}[vr]), keys) != low
        assert matches(of(vr, {"DA": "29990101", "TM": "235959", "DT": "2999"}[vr]), keys) != high


def test_a_list_of_uids_matches_each_of_them() -> None:
    keys = of("UI", ["1.2.3", "1.2.5"])
    assert kind_of(keys, 0x0020000D) is Matching.UID_LIST
    assert [matches(of("UI", uid), keys) for uid in ("1.2.3", "1.2.4", "1.2.5")] == [1, 0, 1]


@pytest.mark.parametrize("vr", TYPES["multiple_value"]["vrs"])
def test_several_values_mean_all_of_them_where_that_is_negotiated_and_any_otherwise(
    vr: str,
) -> None:
    tag, value, other = EXAMPLES[vr]
    keys = of(vr, [value, other])
    assert kind_of(keys, tag, ALL_RULES) is Matching.MULTIPLE_VALUE
    assert matches(of(vr, [other, value]), keys, ALL_RULES)
    assert not matches(of(vr, value), keys, ALL_RULES)
    assert matches(of(vr, value), keys)


def test_two_quotation_marks_ask_for_no_value_where_that_is_negotiated() -> None:
    keys = dataset(PatientID='""')
    assert kind_of(keys, 0x00100020, ALL_RULES) is Matching.EMPTY_VALUE
    assert matches(Dataset(), keys, ALL_RULES)
    assert matches(dataset(PatientID=""), keys, ALL_RULES)
    assert not matches(dataset(PatientID="7"), keys, ALL_RULES)
    assert not matches(dataset(PatientID="7"), keys)
    assert matches(dataset(PatientID='""'), keys)


def test_a_sequence_matches_where_one_item_has_all_that_is_asked_for() -> None:
    keys = dataset(
        ProcedureCodeSequence=[dataset(CodeValue="7", CodingSchemeDesignator="LN")],
    )
    one, other = dataset(CodeValue="7", CodingSchemeDesignator="L"), dataset(CodeValue="8")
    right = dataset(CodeValue="7", CodingSchemeDesignator="LN", CodeMeaning="Chest")
    other.CodingSchemeDesignator = "LN"
    assert kind_of(keys, 0x00081032) is Matching.SEQUENCE
    assert not matches(dataset(ProcedureCodeSequence=[one, other]), keys)
    assert matches(dataset(ProcedureCodeSequence=[one, other, right]), keys)


def test_each_item_of_a_sequence_key_has_to_be_met() -> None:
    keys = dataset(ProcedureCodeSequence=[dataset(CodeValue="7"), dataset(CodeValue="8")])
    one, other = dataset(CodeValue="7"), dataset(CodeValue="8")
    assert matches(dataset(ProcedureCodeSequence=[one, other]), keys)
    assert not matches(dataset(ProcedureCodeSequence=[one]), keys)


@pytest.mark.parametrize("empty", [[], [Dataset()], [dataset(CodeValue="")]], ids=repr)
def test_a_sequence_that_asks_for_nothing_matches_every_entity(empty: list[Dataset]) -> None:
    keys = dataset(ProcedureCodeSequence=empty)
    assert kind_of(keys, 0x00081032) is Matching.UNIVERSAL
    assert matches(Dataset(), keys, WORKLIST_RULES)


def test_every_kind_of_matching_in_the_table_has_a_name_here() -> None:
    assert {kind.value for kind in Matching} == set(TYPES)


# --- what no key is


def test_control_elements_are_no_keys() -> None:
    keys = dataset(
        SpecificCharacterSet="ISO_IR 100",
        TimezoneOffsetFromUTC="+0100",
        QueryRetrieveLevel="STUDY",
        QueryRetrieveView="CLASSIC",
    )
    assert {element.keyword for element in keys} == set(MATCHING["not_keys"])
    others = dataset(QueryRetrieveLevel="IMAGE", TimezoneOffsetFromUTC="+0200")
    assert matches(others, keys, WORKLIST_RULES)


# --- unknown values


def test_an_entity_without_a_value_matches_any_key_of_a_query_and_none_of_a_worklist() -> None:
    code = dataset(CodeValue="1")
    for key in ({"PatientID": "7"}, {"StudyDate": "20240101-"}, {"ProcedureCodeSequence": [code]}):
        assert matches(Dataset(), dataset(**key), QUERY_RULES)
        assert not matches(Dataset(), dataset(**key), WORKLIST_RULES)


# --- text


def test_padding_does_not_count_and_case_does() -> None:
    assert matches(dataset(PatientID=" 7 "), dataset(PatientID="7"))
    assert not matches(dataset(PatientID="a7"), dataset(PatientID="A7"))


def test_an_entity_with_several_values_matches_by_any_of_them() -> None:
    keys = dataset(ModalitiesInStudy="MR")
    assert matches(dataset(ModalitiesInStudy=["CT", "MR"]), keys)
    assert not matches(dataset(ModalitiesInStudy=["CT", "US"]), keys)


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert matches(dataset(PatientName="Mu\u0308ller"), dataset(PatientName="M\u00fcller"))
    assert matches(dataset(PatientID="Mu\u0308-7"), dataset(PatientID="M\u00fc-?"))


@given(st.text("ab*?.[\\^$\n", max_size=8), st.text("ab.[\\^$\n", max_size=8))
@example("a*?b", "a\n\nb")
def test_wildcards_mean_what_a_slow_search_finds(key: str, text: str) -> None:
    def fits(key: str, text: str) -> bool:
        if not key:
            return not text
        if key[0] == "*":
            return any(fits(key[1:], text[at:]) for at in range(len(text) + 1))
        return bool(text) and key[0] in ("?", text[0]) and fits(key[1:], text[1:])

    assert wildcards(key)(text) == fits(key, text)


# --- person names

YAMADA = "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.mark.parametrize(
    ("key", "name", "expected"),
    [
        ("DOE^jane", "Doe^Jane", True),
        ("doe*", "Doe^Jane", True),
        ("Doe^Jane^^^", "Doe^Jane", True),
        ("Doe^Jane", "Doe^Jane^^^", True),
        ("Doe", "Doe^Jane", False),
        ("Doe^?ane", "Doe^Jane", True),
        ("STRASSE*", "Straße^Otto", True),
        ("yamada*", YAMADA, True),
        ("山田*", YAMADA, True),
        ("やまだ^たろう", YAMADA, True),
        ("=山田*", YAMADA, True),
        ("山田*=", YAMADA, False),
        ("yamada*==やまだ*", YAMADA, True),
        ("yamada*==たろう*", YAMADA, False),
        ("=*=やまだ*", "Yamada^Tarou", False),
        ("*=山田*", YAMADA, True),
    ],
)
def test_person_names_match_without_case_by_component_group(
    key: str, name: str, expected: bool
) -> None:
    assert name_test(key)(name) is expected


@pytest.mark.parametrize(
    "path",
    [path for path in get_charset_files("chr*") if "SQEncoding" not in path],
    ids=lambda path: path.split("/")[-1],
)
def test_names_in_every_character_set_are_found_by_a_key_in_utf_8(path: str) -> None:
    stored = dcmread(path)
    name = str(dcmread(path).PatientName)
    keys = dataset(SpecificCharacterSet="ISO_IR 192", PatientName=name)
    assert matches(stored, sent(keys), WORKLIST_RULES)
    initial = name.split("=")[-1][:2] + "*"
    keys = dataset(SpecificCharacterSet="ISO_IR 192", PatientName=initial)
    assert matches(stored, sent(keys), WORKLIST_RULES)
    assert not matches(stored, dataset(PatientName="Nobody"), WORKLIST_RULES)
    answer = sent(requested(stored, sent(keys)))
    assert str(answer.PatientName) == name


# --- dates and times


@pytest.mark.parametrize(
    ("vr", "key", "value", "expected"),
    [
        ("TM", "2230", "223000", True),
        ("TM", "22", "220000.000000", True),
        ("TM", "2230", "223001", False),
        ("TM", "22:30:00", "223000", True),
        ("TM", "-1030", "103059.999999", True),
        ("TM", "-1030", "103100", False),
        ("TM", "1030-1030", "103030", True),
        ("DA", "2024.02.29", "20240229", True),
        ("DA", "20240229-20240229", "20240229", True),
        ("DA", "20240229", "no date", False),
        ("DT", "2024", "20240101", True),
        ("DT", "-202402", "20240229235959.999999", True),
        ("DT", "-202402", "20240301", False),
        ("DT", "2023-2024", "2024123123", True),
        ("DT", "20240229-0500", "20240229000000-0500", True),
        ("DT", "20240229100000-0500", "20240229150000+0000", True),
        ("DT", "20240229100000-0500-20240229110000-0500", "20240229153000+0000", True),
        ("DT", "20240229100000-0500-20240229110000-0500", "20240229103000+0000", False),
        ("DT", "20240229100000-0500-20240229110000-0500", "20240229103000", True),
        ("DT", "-20240229100000-0500", "20240229150000+0000", True),
        ("DT", "20240229100000-0500-", "20240229145959+0000", False),
        ("DT", "20240229100000.5", "20240229100000.500000", True),
    ],
)
def test_dates_and_times_compare_by_meaning(vr: str, key: str, value: str, expected: bool) -> None:
    assert matches(of(vr, value), of(vr, key)) is expected


def test_an_offset_from_utc_of_the_data_set_holds_for_times_without_one() -> None:
    tag = EXAMPLES["DT"][0]
    keys = dataset((tag, "DT", "20240229100000+0100"))
    stored = dataset((tag, "DT", "20240229090000"), (0x00080201, "SH", "+0000"))
    assert matches(stored, keys)


@pytest.mark.parametrize("key", ["2024", "20241301", "20240101-2024-", "-", "20240101--", "today"])
def test_a_date_that_is_none_is_refused_with_its_element(key: str) -> None:
    with pytest.raises(StatusError) as refused:
        matcher(dataset(StudyDate=key))
    assert refused.value.status == 0xA900
    assert refused.value.elements["OffendingElement"] == (0x00080020,)


PERIOD = {"StudyDate": "20240101-20240103", "StudyTime": "100000-110000"}


@pytest.mark.parametrize(
    ("date", "time", "apart", "as_one"),
    [
        ("20240101", "103000", True, True),
        ("20240102", "120000", False, True),
        ("20240101", "090000", False, False),
        ("20240103", "105959", True, True),
        ("20240103", "120000", False, False),
        ("20240102", "", True, True),
        ("", "", True, True),
    ],
)
def test_a_range_of_dates_and_one_of_times_are_one_period_where_that_is_negotiated(
    date: str, time: str, apart: bool, as_one: bool
) -> None:
    stored = dataset(StudyDate=date, StudyTime=time)
    assert matches(stored, dataset(**PERIOD)) is apart
    assert matches(stored, dataset(**PERIOD), Rules(combined_date_time=True)) is as_one


def test_ranges_of_different_form_are_applied_one_by_one() -> None:
    keys = dataset(StudyDate="20240101-20240103", StudyTime="100000-")
    stored = dataset(StudyDate="20240102", StudyTime="090000")
    assert not matches(stored, keys, Rules(combined_date_time=True))


def test_the_scheduled_start_of_a_worklist_is_one_period() -> None:
    def step(date: str, time: str) -> Dataset:
        start = dataset(ScheduledProcedureStepStartDate=date, ScheduledProcedureStepStartTime=time)
        return dataset(ScheduledProcedureStepSequence=[start])

    keys = step("20240101-20240103", "100000-110000")
    assert matches(step("20240102", "230000"), keys, WORKLIST_RULES)
    assert not matches(step("20240103", "230000"), keys, WORKLIST_RULES)
    assert not matches(step("20240102", ""), keys, WORKLIST_RULES)


# --- answers


def test_an_answer_has_the_attributes_asked_for_and_no_others() -> None:
    stored = dataset(PatientName="Doe^Jane", PatientID="7", StudyDate="20240101")
    keys = dataset(QueryRetrieveLevel="STUDY", PatientName="D*", StudyID="")
    answer = requested(stored, keys)
    assert [(e.keyword, str(e.value or "")) for e in answer] == [
        ("QueryRetrieveLevel", "STUDY"),
        ("PatientName", "Doe^Jane"),
        ("StudyID", ""),
    ]


def test_an_answer_has_the_items_that_match_with_what_was_asked_of_them() -> None:
    codes = [
        dataset(CodeValue="7", CodeMeaning="Chest", CodingSchemeVersion="1"),
        dataset(CodeValue="8", CodeMeaning="Head"),
    ]
    stored = dataset(ProcedureCodeSequence=codes)
    keys = dataset(ProcedureCodeSequence=[dataset(CodeValue="7", CodeMeaning="")])
    (item,) = requested(stored, keys).ProcedureCodeSequence
    assert {e.keyword: e.value for e in item} == {"CodeValue": "7", "CodeMeaning": "Chest"}
    whole = requested(stored, dataset(ProcedureCodeSequence=[])).ProcedureCodeSequence
    assert list(whole) == codes


@pytest.mark.parametrize(
    ("asked", "stored_in", "name", "expected"),
    [
        ("", "", "Doe^Jane", None),
        ("ISO_IR 100", "", "Doe^Jane", "ISO_IR 100"),
        ("ISO_IR 100", "ISO_IR 192", "Müller^Jörg", "ISO_IR 100"),
        ("", "ISO_IR 100", "Müller^Jörg", "ISO_IR 100"),
        ("ISO_IR 100", "ISO_IR 144", "Люкceмбypг", "ISO_IR 144"),
        ("ISO_IR 100", "ISO_IR 192", "Люкceмбypг", "ISO_IR 192"),
        ("ISO_IR 13", "ISO_IR 192", "ﾔﾏﾀﾞ^ﾀﾛｳ", "ISO_IR 13"),
        ("ISO_IR 13", "ISO_IR 192", YAMADA, "ISO_IR 192"),
        ("", ["", "ISO 2022 IR 87"], YAMADA, ["", "ISO 2022 IR 87"]),
        ("GB18030", "ISO_IR 192", "Wang^XiaoDong=王^小东", "GB18030"),
        ("ISO 2022 IR 6", "ISO_IR 192", "Müller", "ISO_IR 192"),
    ],
)
def test_an_answer_is_in_a_character_set_that_fits(
    asked: str, stored_in: Any, name: str, expected: Any
) -> None:
    keys, stored = dataset(PatientName=""), dataset(PatientName=name)
    if asked:
        keys.SpecificCharacterSet = asked
    if stored_in:
        stored.SpecificCharacterSet = stored_in
    answer = sent(requested(stored, keys))
    found = answer.get("SpecificCharacterSet")
    assert (list(found) if isinstance(expected, list) else found) == expected
    assert str(answer.PatientName) == name


def test_items_are_read_in_their_own_character_set_and_answered_in_that_of_the_answer() -> None:
    inner = dataset(SpecificCharacterSet="ISO_IR 144", CodeMeaning="Люкceмбypг", CodeValue="7")
    stored = sent(dataset(SpecificCharacterSet="ISO_IR 100", ProcedureCodeSequence=[inner]))
    keys = dataset(ProcedureCodeSequence=[dataset(CodeMeaning="Люкc*")])
    keys.SpecificCharacterSet = "ISO_IR 192"
    assert matches(stored, sent(keys), WORKLIST_RULES)
    answer = sent(requested(stored, sent(keys)))
    assert answer.ProcedureCodeSequence[0].CodeMeaning == "Люкceмбypг"


def test_nothing_warns_of_keys_that_are_no_values(recwarn: pytest.WarningsRecorder) -> None:
    keys = sent(
        dataset(
            StudyDate="20240101-",
            Modality="C*",
            PatientName="=山*",
            SpecificCharacterSet="ISO_IR 192",
            StudyTime="-10",
        )
    )
    stored = sent(dataset(StudyDate="20240102", Modality="CT", StudyTime="09"))
    assert matches(stored, keys)
    requested(stored, keys)
    assert [str(warning.message) for warning in recwarn] == []
