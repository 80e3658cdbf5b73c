"""Values as matching compares them: spans of dates and times, copies in Unicode."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.data import get_charset_files

from twisted_dimse.datastream import decode_dataset, encode_dataset
from twisted_dimse.services import values
from twisted_dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN

MICROSECOND = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2023", datetime(2023, 1, 1), datetime(2024, 1, 1)),
        ("202402", datetime(2024, 2, 1), datetime(2024, 3, 1)),
        ("202312", datetime(2023, 12, 1), datetime(2024, 1, 1)),
        ("20240229", datetime(2024, 2, 29), datetime(2024, 3, 1)),
        ("2024022910", datetime(2024, 2, 29, 10), datetime(2024, 2, 29, 11)),
        ("202402291030", datetime(2024, 2, 29, 10, 30), datetime(2024, 2, 29, 10, 31)),
        ("20240229103059", datetime(2024, 2, 29, 10, 30, 59), datetime(2024, 2, 29, 10, 31)),
    ],
)
def test_a_moment_given_only_so_far_lasts_as_long(
    text: str, first: datetime, last: datetime
) -> None:
    low, high = values.bounds(text, "DT")
    assert (low.local, high.local) == (first, last - MICROSECOND)


@pytest.mark.parametrize(
    ("vr", "text"),
    [
        ("DA", "20240230x"),
        ("TM", "2460"),
        ("TM", "1"),
        ("DT", "20240230"),
        ("DT", "00000101"),
        ("DT", "9999"),
        ("DT", "20240101+1500"),
    ],
)
def test_what_is_no_date_or_time_is_an_error(vr: str, text: str) -> None:
    with pytest.raises(ValueError):
        values.bounds(text, vr)


@given(st.text("0123456789-+.: ", max_size=30), st.sampled_from(values.TIMES))
def test_any_text_is_a_span_or_an_error(text: str, vr: str) -> None:
    try:
        low, high = values.span(text, vr)
    except ValueError:
        return
    assert low is not None or high is not None


MOMENTS = st.datetimes(min_value=datetime(1000, 1, 1))  # strftime pads no shorter years


@given(MOMENTS, MOMENTS, MOMENTS)
def test_ranges_of_moments_compare_as_the_moments_do(
    one: datetime, other: datetime, inside: datetime
) -> None:
    low, high = sorted((one, other))
    text = "%Y%m%d%H%M%S.%f"
    asked = values.span(f"{low.strftime(text)}-{high.strftime(text)}", "DT")
    held = values.bounds(inside.strftime(text), "DT").low
    assert values.within(held, asked) == (low <= inside <= high)


@pytest.mark.parametrize("path", get_charset_files("chr*"), ids=lambda path: path.split("/")[-1])
def test_a_copy_in_unicode_can_be_written_in_utf_8(path: str) -> None:
    copy = values.in_unicode(dcmread(path))
    copy.SpecificCharacterSet = values.UTF_8
    read = decode_dataset(encode_dataset(copy, "1.2.840.10008.1.2"), "1.2.840.10008.1.2")
    whole = dcmread(path)
    whole.decode()
    del whole.SpecificCharacterSet
    texts = [str(element.value) for element in whole.iterall() if element.VR in ("PN", "LO", "SH")]
    again = [str(element.value) for element in read.iterall() if element.VR in ("PN", "LO", "SH")]
    assert again == texts


@pytest.mark.parametrize("vr", ["DS", "IS", "SQ", "PN", "US", "FD", "UI", "DA", "OB", "AT"])
def test_an_empty_element_of_any_vr_can_be_written(vr: str) -> None:
    empty = Dataset()
    empty.add(values.new_element(0x00091010, vr))
    assert encode_dataset(empty, "1.2.840.10008.1.2.1")[4:6].decode() == vr


@pytest.mark.parametrize("terms", ["", "ISO_IR 6"])
@pytest.mark.parametrize(
    "octets", ["M\u00fcller".encode(), "M\u00fcller".encode("latin-1")], ids=["utf-8", "latin-1"]
)
def test_text_without_a_word_on_its_character_set_is_utf_8_or_else_latin_1(
    octets: bytes, terms: str
) -> None:
    dataset = Dataset()
    if terms:
        dataset.SpecificCharacterSet = terms
    front = encode_dataset(dataset, EXPLICIT_VR_LITTLE_ENDIAN)
    name = b"\x10\0\x10\0PN\x08\0" + octets.ljust(8)
    found = decode_dataset(front + name, EXPLICIT_VR_LITTLE_ENDIAN)
    assert values.texts(found, 0x00100010) == ("M\u00fcller",)


def test_text_in_a_character_set_that_is_named_is_in_no_other() -> None:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    front = encode_dataset(dataset, EXPLICIT_VR_LITTLE_ENDIAN)
    name = b"\x10\0\x10\0PN\x02\0" + "\u00fc".encode()
    found = decode_dataset(front + name, EXPLICIT_VR_LITTLE_ENDIAN)
    assert values.texts(found, 0x00100010) == ("\u00c3\u00bc",)
