"""Answers made of octets are those that are made of Datasets."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import dictionary_VR

from twisted_dimse.archive.answering import Answering, merged
from twisted_dimse.archive.header import KEPT, InstanceHeader, Level
from twisted_dimse.archive.octets import Octets
from twisted_dimse.datastream import encode_dataset
from twisted_dimse.errors import StatusError
from twisted_dimse.services.matching import QUERY_RULES, matcher, requested
from twisted_dimse.services.values import new_element
from twisted_dimse.uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

LEVELS = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)
PLAIN = {
    tag: dictionary_VR(tag)[:2]
    for level in LEVELS
    for tag in KEPT[level]
    if dictionary_VR(tag) != "SQ"
}
TEXT = ("LO", "LT", "PN", "SH", "ST")
ENCODINGS = {
    "": "ascii",
    "ISO_IR 100": "latin-1",
    "ISO_IR 192": "utf-8",
    "ISO_IR 144": "iso8859_5",
    "ISO_IR 13": "shift_jis",
    "\\ISO 2022 IR 87": "iso2022_jp",
}
CHARACTERS = "AZaz09 ^=*?\\.-+ÄéИд山田\x00"
SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


def header_of(values: dict[int, bytes]) -> InstanceHeader:
    return InstanceHeader("1.dcm", "1.2", "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN, 0, 0, values)


def rows_of(values: dict[int, bytes]) -> list[bytes]:
    header = header_of(values)
    return [header.dataset(level) for level in LEVELS]


def keys_of(values: dict[int, str], character_set: str = "") -> Dataset:
    keys = Dataset()
    for tag, text in values.items():
        keys[tag] = new_element(tag, dictionary_VR(tag)[:2], text or None)
    if character_set:
        keys.SpecificCharacterSet = character_set.split("\\")
    keys.QueryRetrieveLevel = "IMAGE"
    return keys


def plainly(keys: Dataset, headers: list[bytes], syntax: str) -> bytes:
    return encode_dataset(requested(merged(headers), keys), syntax)


def quickly(keys: Dataset, headers: list[bytes], syntax: str) -> bytes | None:
    octets = Octets(keys, syntax)
    if not octets.possible:
        return None
    elements = octets.elements(headers)
    return None if elements is None else octets.answer(elements)


def value_of(vr: str, encoding: str) -> st.SearchStrategy[bytes]:
    if vr == "US":
        return st.binary(min_size=2, max_size=2)
    if vr in ("DS", "IS"):
        return st.text("0123456789 .-+\\eE", max_size=6).map(str.encode)
    text = st.text(CHARACTERS if vr in TEXT else CHARACTERS[:14], max_size=8)
    return text.map(lambda one: one.encode(encoding, "ignore"))


@st.composite
def entities(draw: st.DrawFn) -> dict[int, bytes]:
    character_set = draw(st.sampled_from(list(ENCODINGS)))
    values: dict[int, bytes] = {0x00080005: character_set.encode()} if character_set else {}
    for tag in draw(st.lists(st.sampled_from(list(PLAIN)), unique=True)):
        values[tag] = draw(value_of(PLAIN[tag], ENCODINGS[character_set]))
    return values


ASKED = st.lists(st.sampled_from([*PLAIN, 0x00180050]), unique=True)


@settings(max_examples=300, deadline=None)
@given(entities(), ASKED, ASKED, st.sampled_from(list(ENCODINGS)), st.sampled_from(SYNTAXES))
@example({0x00100010: b"DOE^JANE "}, [0x00100010, 0x00100020], [], "ISO_IR 100", SYNTAXES[1])
@example({0x00100010: b"DOE^JOHN^^^\\ROE^JANE=X"}, [0x00100010], [], "", SYNTAXES[0])
@example({0x00100010: b"  "}, [], [0x00100010], "", SYNTAXES[0])
@example(
    {0x00080005: b"ISO_IR 192", 0x00100010: "Ж^山=".encode()}, [0x00100010], [], "", SYNTAXES[0]
)
@example({0x00080005: b"ISO_IR 100", 0x00081030: b"K\xf6rper"}, [0x00081030], [], "", SYNTAXES[0])
def test_what_is_made_of_octets_is_the_answer(
    values: dict[int, bytes], asked: list[int], strange: list[int], character_set: str, syntax: str
) -> None:
    """Also of keys whose VR is not theirs, of which some are ``strange``."""
    keys = keys_of(dict.fromkeys(asked, ""), character_set)
    for tag in strange:
        keys[tag] = new_element(tag, "LO")
    headers = rows_of(values)
    assert quickly(keys, headers, syntax) in (None, plainly(keys, headers, syntax))


ORDINARY: dict[int, bytes] = {
    0x00080005: b"ISO_IR 100",
    0x00080018: b"1.2.3",
    0x00080020: b"20240229",
    0x00080060: b"CT",
    0x00081030: "Schädel".encode("latin-1"),
    0x00100010: "Müller^Jörg".encode("latin-1"),
    0x00100020: b"P1",
    0x0020000D: b"1.2",
    0x0020000E: b"1.2.4",
    0x00200013: b"7",
    0x00280010: b"\x00\x02",
}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("character_set", ["", "ISO_IR 100", "ISO_IR 192"])
def test_an_ordinary_answer_is_made_of_octets(character_set: str, syntax: str) -> None:
    keys = keys_of(dict.fromkeys(PLAIN, ""), character_set)
    headers = rows_of(ORDINARY)
    assert quickly(keys, headers, syntax) == plainly(keys, headers, syntax)


@pytest.mark.parametrize(
    ("values", "more"),
    [
        ({0x00080005: b"ISO_IR 144", 0x00100010: b"\xb8\xd2\xd0\xdd"}, {}),
        ({0x00080005: b"\\ISO 2022 IR 87", 0x00100010: b"\x1b$B;3\x1b(B"}, {}),
        ({0x00101030: b"80.50"}, {}),
        ({}, {0x00081110: ""}),
    ],
    ids=["another set", "several sets", "a decimal", "a sequence"],
)
def test_what_takes_more_is_left_to_datasets(
    values: dict[int, bytes], more: dict[int, str]
) -> None:
    keys = keys_of({**dict.fromkeys(values, ""), **more})
    del keys[0x00080005:0x00080006]
    headers = rows_of({**ORDINARY, **values})
    assert quickly(keys, headers, EXPLICIT_VR_LITTLE_ENDIAN) is None
    assert quickly(keys, headers, EXPLICIT_VR_BIG_ENDIAN) is None


@pytest.mark.parametrize(
    "values",
    [
        {0x00100010: b"\x1b$B;3\x1b(B"},
        {0x00080005: b"ISO_IR 100", 0x00100010: b"\x1b$B;3\x1b(B"},
        {0x00080060: b"C\xc4"},
        {0x00080005: b"ISO_IR 192", 0x00080060: b"C\xc4"},
    ],
    ids=["escapes of no set", "of another set", "a code string", "in another set"],
)
@pytest.mark.filterwarnings("ignore:Found unknown escape sequence")
def test_octets_that_are_not_allowed_are_answered_alike(values: dict[int, bytes]) -> None:
    keys = keys_of({0x00100010: "", 0x00080060: ""}, "ISO_IR 100")
    headers = rows_of(values)
    assert quickly(keys, headers, SYNTAXES[0]) in (None, plainly(keys, headers, SYNTAXES[0]))


def test_levels_of_different_instances_may_be_in_different_character_sets() -> None:
    patient = rows_of({0x00080005: b"ISO_IR 192", 0x00100010: "Müller".encode()})[0]
    study = rows_of({0x00080005: b"ISO_IR 100", 0x00081030: "Schädel".encode("latin-1")})[1]
    keys, headers = keys_of({0x00100010: "", 0x00081030: ""}), [patient, study]
    assert quickly(keys, headers, SYNTAXES[0]) in (None, plainly(keys, headers, SYNTAXES[0]))


def test_private_keys_are_answered_alike() -> None:
    keys = keys_of({0x00100010: ""})
    keys[0x00090010] = new_element(0x00090010, "LO", "ACME")
    keys[0x00091001] = new_element(0x00091001, "LO")
    headers = rows_of(ORDINARY)
    assert quickly(keys, headers, SYNTAXES[0]) in (None, plainly(keys, headers, SYNTAXES[0]))


def test_a_sequence_without_a_length_is_not_read() -> None:
    header = b"\x08\0\x32\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\xdd\xe0\0\0\0\0"
    assert Octets(keys_of({}), SYNTAXES[0]).elements([header]) is None


@settings(max_examples=200, deadline=None)
@given(
    entities(),
    st.dictionaries(
        st.sampled_from([0x00100010, 0x00100020, 0x00080020, 0x00080060, 0x0020000D]),
        st.sampled_from(["", "*", "A*", "a", "20240101-", "CT", "1.2", "?0"]),
    ),
)
@example(ORDINARY, {0x00100010: "MÜLLER*"})
@example(ORDINARY, {0x00080020: "20240101-20241231", 0x00080060: "CT"})
@example(ORDINARY, {0x00080020: "20240101-", 0x00080060: "MR"})
def test_an_entity_matches_either_way(values: dict[int, bytes], asked: dict[int, str]) -> None:
    keys = keys_of(asked, "ISO_IR 192")
    try:
        matches = matcher(keys, QUERY_RULES)
    except StatusError:  # a key that means nothing: there is no query
        with pytest.raises(StatusError):
            Answering(keys, Level.IMAGE, QUERY_RULES, SYNTAXES[0], "ARCHIVE")
        return
    headers = rows_of(values)
    entity = merged(headers)
    expected = encode_dataset(requested(entity, keys), SYNTAXES[0]) if matches(entity) else b""
    answering = Answering(keys, Level.IMAGE, QUERY_RULES, SYNTAXES[0], "ARCHIVE")
    answer = answering.of(headers)
    if isinstance(answer, Dataset):
        answer = encode_dataset(answer, SYNTAXES[0])
    assert (answer or b"") == expected
