"""Values of data sets as matching compares them: text in Unicode, dates and times as spans
(PS3.5 6.1, 6.2; PS3.4 C.2.2.2).

It reads elements as they came, without pydicom's validation: a key such as ``20240101-`` or ``CT*``
is no valid value of its VR and still means something.

    texts(dataset, 0x00100010)              # ('Yamada^Tarou=山田^太郎',)
    span("20240101-", "DA")                 # Span('20240101', None)
    fitting_character_set(["山田"], ["ISO_IR 100"])     # 'ISO_IR 192'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any, NamedTuple

from pydicom import Dataset, charset, config
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.valuerep import PersonName

# Latin alphabet No. 9, which pydicom does not know yet.
for _term in ("ISO_IR 203", "ISO 2022 IR 203"):
    charset.python_encoding.setdefault(_term, "iso8859_15")
charset.CODES_TO_ENCODINGS.setdefault(b"\x1b-b", "iso8859_15")
charset.ENCODINGS_TO_CODES.setdefault("iso8859_15", b"\x1b-b")

SPECIFIC_CHARACTER_SET = 0x00080005
TIMEZONE_OFFSET_FROM_UTC = 0x00080201

UTF_8 = "ISO_IR 192"
_ASCII = ("", "ISO_IR 6", "ISO 2022 IR 6")
TIMES = ("DA", "TM", "DT")
NUMBERS = ("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV")

_IN_CHARACTER_SET = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_PLAIN_TEXT = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"))
_ONE_VALUE = frozenset(("LT", "ST", "UR", "UT"))
_OCTETS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_NOT_NAMED = [charset.default_encoding]  # which pydicom takes for Latin-1
_GB_2312 = b"\x1b$)A"  # the escape of ISO 2022 IR 58
_DELIMITERS = {ord(character) for character in "\\\r\n\t\f^="}


def vr_of(dataset: Dataset, tag: int) -> str:
    """The VR of an element, from itself or the dictionary; UN where neither knows it."""
    element = dataset.get_item(tag)
    vr = element.VR if element is not None else None
    return _dictionary_vr(tag) if vr in (None, "UN") else str(vr)[:2]


@cache
def _dictionary_vr(tag: int) -> str:
    try:
        return dictionary_VR(tag)[:2]  # the first of "US or SS"
    except KeyError:
        return "UN"


def texts(dataset: Dataset, tag: int) -> tuple[str, ...]:
    """The values of an element as text in Unicode, padding taken off; none for an element that is
    absent or empty, and for a sequence. Octets of binary VRs stand for themselves (Latin-1)."""
    element = dataset.get_item(tag)
    if element is None:
        return ()
    if not isinstance(element, RawDataElement):
        return _texts_of_value(element)
    value, vr = element.value or b"", vr_of(dataset, tag)
    if vr in _IN_CHARACTER_SET:
        text = _decoded(value, dataset)
    elif vr in _PLAIN_TEXT:
        text = value.decode("latin-1")
    elif vr in _OCTETS:
        return (value.decode("latin-1"),) if value else ()
    elif vr == "SQ":
        return ()
    else:
        return _texts_of_value(dataset[tag])
    return _values(text.split("\\") if vr not in _ONE_VALUE else [text], vr)


def items(dataset: Dataset, tag: int) -> list[Dataset]:
    """The items of a sequence; none where it is absent, or no sequence."""
    if tag not in dataset or vr_of(dataset, tag) != "SQ":
        return []
    element = dataset[tag]
    return list(element.value or ()) if element.VR == "SQ" else []


def tags_of(dataset: Dataset) -> list[int]:
    """The tags in a data set, in order, none of its elements being looked at."""
    return sorted(dataset.keys())


def _texts_of_value(element: DataElement) -> tuple[str, ...]:
    value, vr = element.value, element.VR
    if value is None or vr == "SQ":
        return ()
    if isinstance(value, bytes):
        return (value.decode("latin-1"),) if value else ()
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return _values([_text(one) for one in value] if several else [_text(value)], vr)


def _text(value: Any) -> str:
    """As it was written, where pydicom has made a number or a date of it."""
    written = getattr(value, "original_string", None)
    return written if isinstance(written, str) else str(value)


def _values(found: list[str], vr: str) -> tuple[str, ...]:
    values = tuple(_without_padding(text, vr) for text in found)
    return values if any(values) else ()


def _without_padding(text: str, vr: str) -> str:
    text = text.rstrip("\x00 ")
    return text if vr in ("LT", "ST", "UC", "UR", "UT") else text.lstrip(" ")


def _decoded(value: bytes, dataset: Dataset) -> str:
    if _GB_2312 in value:  # which pydicom would leave in
        return value.replace(_GB_2312, b"").decode("gb2312", "replace")
    encodings = _encodings(dataset)
    if encodings == _NOT_NAMED and not value.isascii():
        # Not allowed, and what a terminal sends: text in Latin-1 is hardly ever good UTF-8.
        with suppress(UnicodeDecodeError):
            return value.decode("utf-8")
    return decode_bytes(value, encodings, _DELIMITERS)


def _encodings(dataset: Dataset) -> list[str]:
    """Python's encodings for the text of a data set, that of an item included."""
    return convert_encodings(dataset.original_character_set or dataset._character_set)


# --- elements for another data set


def copied(*datasets: Dataset) -> Dataset:
    """A data set with the elements of others, the last one's first. Changing it changes none."""
    copy = Dataset()
    for dataset in datasets:
        copy.update(dataset)
    return copy


def element_in_unicode(dataset: Dataset, tag: int) -> DataElement:
    """A copy of an element, its text in Unicode, to be encoded in any character set."""
    vr = vr_of(dataset, tag)
    if vr == "SQ":
        return new_element(tag, vr, [in_unicode(item) for item in items(dataset, tag)])
    if vr in _IN_CHARACTER_SET or vr in _PLAIN_TEXT:
        values = texts(dataset, tag)
        return new_element(tag, vr, list(values) if len(values) > 1 else "".join(values))
    element = dataset[tag]
    return new_element(tag, element.VR, element.value)


def in_unicode(dataset: Dataset) -> Dataset:
    """A copy of a data set in Unicode, without a word on its character set."""
    copy = Dataset()
    for tag in tags_of(dataset):
        if tag != SPECIFIC_CHARACTER_SET:
            copy[tag] = element_in_unicode(dataset, tag)
    return copy


def new_element(tag: int, vr: str, value: Any = None) -> DataElement:
    """An element whose value pydicom does not judge; without a value, an empty one."""
    if value is None:
        value = [] if vr == "SQ" else None if vr in NUMBERS else ""
    if vr in ("DS", "IS") and value in ("", []):
        value = None
    if vr == "PN":
        value = [_name(text) for text in value] if isinstance(value, list) else _name(value)
    try:
        return DataElement(tag, vr, value, validation_mode=config.IGNORE)
    except (ValueError, ArithmeticError):  # a number that is none: it goes back as it came
        return DataElement(tag, vr, value, already_converted=True)


def _name(text: str) -> PersonName:
    """A name that is encoded anew each time. Without an encoding of its own it would remember the
    first character set that it was written in."""
    return PersonName(text, ["UTF8"], validation_mode=config.IGNORE)


def texts_in_character_set(dataset: Dataset) -> Iterator[str]:
    """Every text, of the items too, that depends on (0008,0005)."""
    for tag in tags_of(dataset):
        vr = vr_of(dataset, tag)
        if vr in _IN_CHARACTER_SET:
            yield from texts(dataset, tag)
        elif vr == "SQ":
            for item in items(dataset, tag):
                yield from texts_in_character_set(item)


def character_set_of(dataset: Dataset) -> tuple[str, ...]:
    """The values of (0008,0005) as they stand there, empty ones included."""
    value = dataset.get("SpecificCharacterSet")
    if not value:
        return ()
    return (str(value),) if isinstance(value, str) else tuple(str(term or "") for term in value)


def fitting_character_set(
    found: Iterable[str], candidates: Iterable[Sequence[str]]
) -> tuple[str, ...]:
    """The first of the character sets ``candidates`` in which every text can be written. Where
    none will do: none at all for plain ASCII, else UTF-8 (PS3.3 C.12.1.1.2)."""
    characters = frozenset("".join(found))
    for terms in candidates:
        if terms and all(_can_write(character, tuple(terms)) for character in characters):
            return tuple(terms)
    return () if all(character.isascii() for character in characters) else (UTF_8,)


@cache
def _can_write(character: str, terms: tuple[str, ...]) -> bool:
    if character.isascii():
        return True
    for term in terms:
        if term in _ASCII or term == "ISO 2022 IR 58":  # which pydicom writes without its escape
            continue
        encoding = convert_encodings(term)[0]
        try:
            octets = character.encode(encoding)
        except (UnicodeError, LookupError):
            continue
        if encoding != "shift_jis" or len(octets) == 1:  # ISO_IR 13 is JIS X 0201 alone
            return True
    return False


# --- dates and times


class Span(NamedTuple):
    """From `low` to `high`, both included, in a form that compares; None is open."""

    low: Any
    high: Any


_DATE = re.compile(r"(\d{4})\.?(0[1-9]|1[0-2])\.?(0[1-9]|[12]\d|3[01])")
_TIME = re.compile(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(?:\.(\d{1,6}))?)?)?")
_OFFSET = r"[+-](?:0\d|1[0-4])[0-5]\d"
_DATE_TIME = re.compile(
    r"(\d{4})(?:(0[1-9]|1[0-2])(?:(0[1-9]|[12]\d|3[01])(?:([01]\d|2[0-3])"
    r"(?:([0-5]\d)(?:([0-5]\d|60)(?:\.(\d{1,6}))?)?)?)?)?)?"
    rf"({_OFFSET})?"
)


def span(key: str, vr: str, offset: timedelta | None = None) -> Span:
    """What a key of DA, TM or DT asks for: one value, or a range ``a-b``, ``a-``, ``-b``.

    A time that is given to the minute begins with it, and as the end of a range ends with it. DA
    and TM compare as text, DT as `moment` has it, with ``offset`` from UTC where it names none.
    Raises `ValueError` for what is none of it.
    """
    if not is_range(key, vr):
        begin = bounds(key, vr, offset).low
        return Span(begin, begin)
    low, high = _ends(key, vr)
    return Span(
        bounds(low, vr, offset).low if low else None,
        bounds(high, vr, offset).high if high else None,
    )


def is_range(key: str, vr: str) -> bool:
    """Whether a key is a range, and not a DT with a hyphen before its offset from UTC."""
    if vr != "DT":
        return "-" in key
    return "-" in key and _DATE_TIME.fullmatch(key) is None


def _ends(key: str, vr: str) -> tuple[str, str]:
    cuts = [at for at, character in enumerate(key) if character == "-"]
    for at in cuts:
        low, high = key[:at].strip(), key[at + 1 :].strip()
        if (low or high) and all(not end or _is_one(end, vr) for end in (low, high)):
            return low, high
    raise ValueError(f"{key!r} is no range of {vr}")


def _is_one(text: str, vr: str) -> bool:
    return {"DA": _DATE, "TM": _TIME, "DT": _DATE_TIME}[vr].fullmatch(text) is not None


@lru_cache(4096)
def bounds(text: str, vr: str, offset: timedelta | None = None) -> Span:
    """The first and the last moment that one value of DA, TM or DT means.

    Raises `ValueError` for what is none.
    """
    if vr == "DA":
        match = _DATE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no date")
        day = "".join(match.groups())
        return Span(day, day)
    if vr == "TM":
        match = _TIME.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no time of day")
        return _time_bounds(*match.groups())
    return _date_time_bounds(text, offset)


def _time_bounds(hour: str, minute: str | None, second: str | None, part: str | None) -> Span:
    low = f"{hour}{minute or '00'}{second or '00'}.{(part or '').ljust(6, '0')}"
    high = f"{hour}{minute or '59'}{second or '59'}.{(part or '').ljust(6, '9')}"
    return Span(low, high)


def _date_time_bounds(text: str, offset: timedelta | None) -> Span:
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no date and time")
    year, month, day, hour, minute, second, part, own = match.groups()
    try:
        low = datetime(
            int(year),
            int(month or 1),
            int(day or 1),
            int(hour or 0),
            int(minute or 0),
            min(int(second or 0), 59),
            int((part or "").ljust(6, "0")),
        )
        length = _length_of(low, month, day, hour, minute, second, part)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no date and time") from None
    away = offset_of(own) if own else offset
    return Span(moment(low, away), moment(low + length - timedelta(microseconds=1), away))


def _length_of(low: datetime, month: str | None, *finer: str | None) -> timedelta:
    """How long a moment lasts that was given no finer than so."""
    day, hour, minute, second, part = finer
    if part is not None:
        return timedelta(microseconds=10 ** (6 - len(part)))
    if second is not None:
        return timedelta(seconds=1)
    if minute is not None:
        return timedelta(minutes=1)
    if hour is not None:
        return timedelta(hours=1)
    if day is not None:
        return timedelta(days=1)
    if month is not None:
        return (low + timedelta(days=31)).replace(day=1) - low
    return low.replace(year=low.year + 1) - low


class Moment(NamedTuple):
    """A point in time: as its own clock shows it, and by UTC where its offset is known."""

    local: datetime
    utc: datetime | None


def moment(local: datetime, offset: timedelta | None) -> Moment:
    return Moment(local, local - offset if offset is not None else None)


def offset_of(text: str) -> timedelta | None:
    """``+0130`` as a timedelta; None for what is no offset from UTC."""
    if re.fullmatch(_OFFSET, text) is None:
        return None
    length = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    return -length if text[0] == "-" else length


def before(first: Any, second: Any) -> bool:
    """Whether ``first`` is not later than ``second``: by UTC where both know it, else as clocks
    show it."""
    if not isinstance(first, Moment):
        return bool(first <= second)
    if first.utc is not None and second.utc is not None:
        return bool(first.utc <= second.utc)
    return bool(first.local <= second.local)


def within(value: Any, asked: Span) -> bool:
    """Whether a value, as `bounds` gives its first moment, lies in a span."""
    return (asked.low is None or before(asked.low, value)) and (
        asked.high is None or before(value, asked.high)
    )
