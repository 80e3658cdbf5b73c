"""The scan over a data set: it finds what pydicom finds, wherever the octets are cut, and survives
whatever comes."""

from __future__ import annotations

import struct
import warnings
import zlib
from typing import Any

import corpus
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence
from strategies import cuts, damaged

from twisted_dimse.datastream import decode_dataset, encode_dataset
from twisted_dimse.elements import (
    MAX_INFLATED,
    MAX_VALUE,
    SERIES_INSTANCE_UID,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    ElementScan,
)

PATIENT_ID, MODALITY = 0x00100020, 0x00080060
WANTED = (
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    MODALITY,
    PATIENT_ID,
    STUDY_INSTANCE_UID,
    SERIES_INSTANCE_UID,
)
SYNTAXES = [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED]
IMAGES = corpus.images()


def scanned(syntax: str, parts: Any, wanted: Any = WANTED) -> ElementScan:
    """Feed a scan, part by part, and see that it holds no more than it may."""
    scan = ElementScan(syntax, wanted)
    for part in parts:
        scan.feed(part)
        assert len(scan._pending) <= MAX_VALUE + 12
        assert len(scan._depth) <= 256
    return scan


def by(size: int, data: bytes) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def outcome(scan: ElementScan) -> tuple[Any, bool, bool]:
    return scan.found, scan.done, scan.broken


def stripped(found: dict[int, bytes]) -> dict[int, bytes]:
    """Values without their padding."""
    return {tag: value.rstrip(b"\0 ") for tag, value in found.items()}


# --- real files


def expected(image: Any) -> dict[int, bytes]:
    """The values that pydicom reads, as they stand in the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(image.path, force=True, stop_before_pixels=True)
    found = {}
    for tag in WANTED:
        if tag in dataset:
            value = dataset.get_item(tag).value  # raw, unless pydicom has looked at it
            octets = value if isinstance(value, bytes) else str(value or "").encode("latin-1")
            found[tag] = octets
    return found


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_it_finds_in_a_file_what_pydicom_finds(image: Any) -> None:
    scan = scanned(image.syntax, [image.data])
    assert stripped(scan.found) == stripped(expected(image))
    assert not scan.broken


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_it_finds_the_same_wherever_the_file_is_cut(image: Any) -> None:
    data = image.data[:50_000]
    whole = outcome(scanned(image.syntax, [data]))
    for size in (7, 64, 1000, 16378):
        assert outcome(scanned(image.syntax, by(size, data))) == whole
    views = [memoryview(part) for part in by(333, data)]
    assert outcome(scanned(image.syntax, views)) == whole


@pytest.mark.parametrize("syntax", corpus.syntaxes())
@pytest.mark.parametrize("size", [1, 2, 3, 5, 11, 12, 13])
def test_it_finds_the_same_octet_by_octet(syntax: str, size: int) -> None:
    image = next(one for one in IMAGES if one.syntax == syntax)
    data = image.data[:6000]
    whole = outcome(scanned(syntax, [data]))
    assert outcome(scanned(syntax, by(size, data))) == whole


# --- sequences


def with_sequences(undefined: bool) -> Dataset:
    dataset = misleading(undefined=undefined)
    dataset.RequestAttributesSequence = Sequence([item(7, Sequence([item(8)]))])
    dataset.ConceptNameCodeSequence = Sequence([])
    dataset.ContentSequence = Sequence([item(9)])
    dataset.PixelData = bytes(100)
    dataset["PixelData"].VR = "OW"
    for tag in SEQUENCES:
        dataset[tag].is_undefined_length = undefined
    return dataset


SEQUENCES = (0x00081115, 0x00400275, 0x0040A043)


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=corpus.syntax_name)
def test_sequences_are_found_whole_wherever_they_are_cut(syntax: str, undefined: bool) -> None:
    dataset = with_sequences(undefined)
    data = encode_dataset(dataset, syntax)
    plain = EXPLICIT if syntax == DEFLATED else syntax
    for size in (1, 7, 100, 70_000, len(data)):
        scan = ElementScan(syntax, WANTED, SEQUENCES)
        for part in by(size, data):
            scan.feed(memoryview(part))
        assert scan.text(PATIENT_ID) == "7"
        assert not scan.broken
        for tag in SEQUENCES:
            assert decode_dataset(scan.found[tag], plain)[tag] == dataset[tag]


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
def test_a_sequence_that_is_too_long_is_passed_over(undefined: bool) -> None:
    dataset = with_sequences(undefined)
    dataset.RequestAttributesSequence[0].add_new(0x00091001, "UN", bytes(MAX_VALUE))
    data = encode_dataset(dataset, EXPLICIT)
    for size in (1000, len(data)):
        scan = ElementScan(EXPLICIT, WANTED, SEQUENCES)
        for part in by(size, data):
            scan.feed(part)
            assert len(scan._octets) <= MAX_VALUE
        assert set(scan.found) == {*WANTED, 0x00081115, 0x0040A043} - {MODALITY}


# --- data sets built to mislead


def item(number: int, inner: Any = None) -> Dataset:
    """An item with the same attributes that are looked for at the top."""
    dataset = Dataset()
    for tag in (SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID):
        dataset.add_new(tag, "UI", f"9.9.{number}")
    if inner is not None:
        dataset.ReferencedSeriesSequence = inner
    return dataset


def misleading(*, undefined: bool, depth: int = 3) -> Dataset:
    inner: Any = None
    for level in range(depth):
        inner = Sequence([item(10 * level), item(10 * level + 1, inner)])
        for one in inner:
            one.is_undefined_length_sequence_item = undefined
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.1", "1.2"
    dataset.ReferencedSeriesSequence = inner
    dataset.PatientID = "7"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.3", "1.4"
    dataset.ReferencedStudySequence = Sequence([])
    dataset.add_new(0x00091001, "UN", b"\xfe\xff\x00\xe0" * 20)
    dataset.add_new(0x00281201, "OW", bytes(70_000))
    dataset["ReferencedSeriesSequence"].is_undefined_length = undefined
    return dataset


TOP = {
    SOP_CLASS_UID: b"1.1",
    SOP_INSTANCE_UID: b"1.2",
    PATIENT_ID: b"7",
    STUDY_INSTANCE_UID: b"1.3",
    SERIES_INSTANCE_UID: b"1.4",
}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("size", [1, 10, 1 << 20])
def test_nested_attributes_are_skipped(syntax: str, undefined: bool, size: int) -> None:
    data = encode_dataset(misleading(undefined=undefined), syntax)
    scan = scanned(syntax, by(size, data))
    assert stripped(scan.found) == TOP
    assert not scan.broken


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("syntax", SYNTAXES)
@given(data=st.data())
def test_any_cut_gives_the_same(syntax: str, undefined: bool, data: st.DataObject) -> None:
    stream = ENCODED[syntax, undefined]
    parts = data.draw(cuts(stream))
    assert stripped(scanned(syntax, parts).found) == TOP


ENCODED = {
    (syntax, undefined): encode_dataset(misleading(undefined=undefined), syntax)
    for syntax in SYNTAXES
    for undefined in (True, False)
}


def element(tag: int, value: bytes, vr: bytes = b"UI") -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def undefined(tag: int, vr: bytes) -> bytes:
    return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, vr, 0xFFFFFFFF)


ITEM = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def test_a_sequence_of_unknown_vr_and_length_is_implicit_inside() -> None:
    """PS3.5 6.2.2 note 2."""
    inside = struct.pack("<HHI", 0x0020, 0x000D, 4) + b"9.9\0"
    nested = struct.pack("<HHI", 0x0008, 0x1115, 0xFFFFFFFF) + ITEM + inside + ITEM_END
    data = (
        undefined(0x00090001, b"UN")
        + ITEM
        + inside
        + nested
        + SEQUENCE_END
        + ITEM_END
        + SEQUENCE_END
        + element(STUDY_INSTANCE_UID, b"1.3\0")
    )
    for size in (1, 7, 1000):
        assert scanned(EXPLICIT, by(size, data)).found == {STUDY_INSTANCE_UID: b"1.3\0"}


@pytest.mark.parametrize(
    ("said", "real"), [(EXPLICIT, IMPLICIT), (IMPLICIT, EXPLICIT), (DEFLATED, IMPLICIT)]
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_first_element_tells_whether_there_are_vrs(said: str, real: str, size: int) -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.PatientID, dataset.StudyInstanceUID = "1.2.3", "P1", "1.3"
    dataset.ReferencedStudySequence = [Dataset(), Dataset()]
    data = encode_dataset(dataset, real)
    if said == DEFLATED:
        data = zlib.compress(data, wbits=-zlib.MAX_WBITS)
    found = scanned(said, by(size, data), {PATIENT_ID, STUDY_INSTANCE_UID}).found
    assert stripped(found) == {PATIENT_ID: b"P1", STUDY_INSTANCE_UID: b"1.3"}


def test_encapsulated_data_before_what_is_looked_for_is_skipped() -> None:
    fragment = b"\xfe\xff\x00\xe0" + struct.pack("<I", 50) + bytes(50)
    data = (
        undefined(0x00080001, b"OB")
        + fragment * 3
        + SEQUENCE_END
        + element(STUDY_INSTANCE_UID, b"1.3\0")
    )
    assert scanned(EXPLICIT, [data]).found == {STUDY_INSTANCE_UID: b"1.3\0"}


def test_it_is_done_when_all_is_found_and_looks_no_further() -> None:
    data = element(STUDY_INSTANCE_UID, b"1.3\0")
    scan = scanned(EXPLICIT, [data], {STUDY_INSTANCE_UID})
    assert scan.done
    scan.feed(element(STUDY_INSTANCE_UID, b"6.6\0"))
    assert scan.found == {STUDY_INSTANCE_UID: b"1.3\0"}


def test_it_is_done_at_the_pixels() -> None:
    data = element(0x00200010, b"ID", b"SH") + undefined(0x7FE00010, b"OW")
    scan = scanned(EXPLICIT, [data])
    assert (scan.done, scan.broken) == (True, False)


def test_a_value_that_is_not_looked_for_costs_nothing_however_long() -> None:
    head = struct.pack("<HH2sxxI", 0x0009, 0x0001, b"OB", 1 << 30)
    scan = ElementScan(EXPLICIT, WANTED)
    scan.feed(head)
    chunk = bytes(1 << 20)
    for _ in range(1 << 10):
        scan.feed(chunk)
        assert not scan._pending
    scan.feed(element(STUDY_INSTANCE_UID, b"1.3\0"))
    assert scan.found == {STUDY_INSTANCE_UID: b"1.3\0"}


@pytest.mark.parametrize("length", [MAX_VALUE, MAX_VALUE + 2, 0x7FFFFFFF])
def test_a_value_that_is_looked_for_may_not_be_endless(length: int) -> None:
    head = struct.pack("<HHI", 0x0020, 0x000D, length)
    scan = scanned(IMPLICIT, [head, *by(1000, bytes(MAX_VALUE))])
    assert scan.broken == (length > MAX_VALUE)
    assert scan.done == scan.broken


@pytest.mark.parametrize(("depth", "broken"), [(100, False), (128, False), (130, True)])
def test_it_follows_nesting_to_some_depth(depth: int, broken: bool) -> None:
    level = struct.pack("<HHI", 0x0008, 0x1115, 0xFFFFFFFF) + ITEM
    data = level * depth + (ITEM_END + SEQUENCE_END) * depth
    data += struct.pack("<HHI", 0x0020, 0x000D, 4) + b"1.3\0"
    scan = scanned(IMPLICIT, [data])
    assert scan.broken == broken
    assert (STUDY_INSTANCE_UID in scan.found) != broken


@pytest.mark.parametrize(
    "data",
    [
        SEQUENCE_END + bytes(8),
        ITEM_END + bytes(8),
        b"\xfe\xff\x01\xe0" + bytes(12),
        b"\x08\x00\x16\x00ZZ\4\0abcdefgh",
        bytes(20),
    ],
    ids=["end of nothing", "end of no item", "no delimiter", "no VR", "zeros"],
)
def test_what_cannot_be_followed_ends_the_scan(data: bytes) -> None:
    scan = scanned(EXPLICIT, [data])
    assert (scan.done, scan.broken) == (True, True)


# --- hostile octets


@pytest.mark.parametrize("syntax", SYNTAXES)
@given(data=st.data())
def test_whatever_comes_it_is_no_error_and_the_cut_does_not_matter(
    syntax: str, data: st.DataObject
) -> None:
    stream = data.draw(
        st.one_of(
            st.binary(max_size=400),
            damaged(ENCODED[syntax, True][:3000]),
            damaged(ENCODED[syntax, False][:3000]),
        )
    )
    parts = data.draw(cuts(stream))
    whole = scanned(syntax, [stream])
    cut = scanned(syntax, parts)
    assert cut.broken == whole.broken
    if syntax != DEFLATED:  # of a damaged stream zlib gives what it had before, or nothing
        assert cut.found == whole.found


def _deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A value without end, which is skipped, and then items, each of which has to be followed."""
    head = struct.pack("<HH2sxxI", 0x0009, 0x0001, b"OB", MAX_INFLATED - (1 << 20))
    zeros, items = bytes(1 << 20), b"\xfe\xff\x00\xe0\0\0\0\0" * (1 << 17)
    parts = [head, *[zeros] * ((MAX_INFLATED >> 20) - 1), *[items] * 40]
    deflate = zlib.compressobj(1, wbits=-15)
    return b"".join(map(deflate.compress, parts)) + deflate.flush()


@pytest.mark.parametrize("size", [10, 1000, 1 << 20])
def test_a_deflated_bomb_does_not_go_off(bomb: bytes, size: int) -> None:
    assert len(bomb) < MAX_INFLATED // 20
    scan = scanned(DEFLATED, by(size, bomb))
    assert scan.broken
    assert scan._inflated <= MAX_INFLATED + MAX_VALUE


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
@pytest.mark.parametrize("length", [100, MAX_VALUE, 3 * MAX_VALUE])
def test_what_is_behind_the_end_of_a_deflated_data_set_is_nothing(length: int, size: int) -> None:
    value = struct.pack("<HH2sxxI", 0x0009, 0x0001, b"OB", length) + bytes(length)
    data = _deflated(value + element(STUDY_INSTANCE_UID, b"1.3\0")) + b"\0\0"
    scan = scanned(DEFLATED, by(size, data))
    assert scan.found == {STUDY_INSTANCE_UID: b"1.3\0"}
    assert outcome(scan)[1:] == (False, False)


def test_a_small_deflated_data_set_is_found_before_its_large_value() -> None:
    head = element(STUDY_INSTANCE_UID, b"1.3\0") + element(SERIES_INSTANCE_UID, b"1.4\0")
    pixels = struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OW", 1 << 28)
    scan = ElementScan(DEFLATED, WANTED)
    scan.feed(_deflated(head + pixels + bytes(1 << 20)))
    assert (scan.done, scan.broken) == (True, False)
    assert scan.found == {STUDY_INSTANCE_UID: b"1.3\0", SERIES_INSTANCE_UID: b"1.4\0"}
