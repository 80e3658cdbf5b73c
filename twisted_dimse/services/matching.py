"""Attribute matching (PS3.4 C.2.2.2): which entities a key means, and what is answered of them.

A predicate over pydicom Datasets. It says what a query means where speed does not matter, and is
what a faster way, such as SQL, can be compared with.

    matches = matcher(keys)                         # keys: the Dataset of a C-FIND
    found = [requested(dataset, keys) for dataset in datasets if matches(dataset)]
    matcher(keys, WORKLIST_RULES)                   # as a modality worklist has it

What the standard leaves open is answered thus. Text compares in Unicode (NFC), exactly; a person
name without regard to case, and for a key without ``=`` in any of its component groups. Several
values in a key mean any of them, unless that was negotiated to mean all. A lone ``*`` asks for
nothing, whatever the VR.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from pydicom import Dataset

from twisted_dimse.dimse.status import DATA_SET_DOES_NOT_MATCH_SOP_CLASS
from twisted_dimse.errors import StatusError
from twisted_dimse.services import values
from twisted_dimse.services.values import Span, items, tags_of, texts, vr_of

QUERY_RETRIEVE_LEVEL = 0x00080052
QUERY_RETRIEVE_VIEW = 0x00080053
# In an identifier, and no keys of it.
CONTROL = frozenset(
    (
        values.SPECIFIC_CHARACTER_SET,
        values.TIMEZONE_OFFSET_FROM_UTC,
        QUERY_RETRIEVE_LEVEL,
        QUERY_RETRIEVE_VIEW,
    )
)

Predicate = Callable[[Dataset], bool]
# Whether one value that an entity has is what a key asks for.
Test = Callable[[str], bool]

WITH_WILDCARDS = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))
_WITH_ALL_VALUES = frozenset(("AE", "AS", "AT", "CS", "LO", "PN", "SH", "UC"))
_EMPTY = '""'


class Matching(StrEnum):
    """The kinds of matching (PS3.4 C.2.2.2.1 to C.2.2.2.8)."""

    SINGLE = "single"
    UID_LIST = "uid_list"
    UNIVERSAL = "universal"
    WILDCARD = "wildcard"
    RANGE = "range"
    SEQUENCE = "sequence"
    EMPTY_VALUE = "empty_value"
    MULTIPLE_VALUE = "multiple_value"


@dataclass(frozen=True, slots=True)
class Rules:
    """What is negotiated (PS3.4 C.5), and what service classes have otherwise.

    `combined_date_time`: a date range and a time range beside it are one period. `empty_value`:
    two quotation marks ask for entities without a value. `multiple_value`: all values of a key
    must be there. `unknown_matches`: an entity whose value is empty matches whatever a key says;
    so it is for query/retrieve (C.2.2.1.2), and not for worklists (K.2.2.1.1).
    """

    combined_date_time: bool = False
    empty_value: bool = False
    multiple_value: bool = False
    unknown_matches: bool = True


QUERY_RULES = Rules()
WORKLIST_RULES = Rules(combined_date_time=True, unknown_matches=False)


def kind_of(keys: Dataset, tag: int, rules: Rules = QUERY_RULES) -> Matching:
    """Which matching the key ``tag`` asks for."""
    vr = vr_of(keys, tag)
    if vr == "SQ":
        asked = any(_asks(item, rules) for item in items(keys, tag))
        return Matching.SEQUENCE if asked else Matching.UNIVERSAL
    asked_for = texts(keys, tag)
    if not asked_for or "*" in asked_for:
        return Matching.UNIVERSAL
    if rules.empty_value and asked_for == (_EMPTY,):
        return Matching.EMPTY_VALUE
    if vr == "UI":
        return Matching.UID_LIST if len(asked_for) > 1 else Matching.SINGLE
    if vr in values.TIMES:
        ranged = any(values.is_range(text, vr) for text in asked_for)
        return Matching.RANGE if ranged else Matching.SINGLE
    if rules.multiple_value and len(asked_for) > 1 and vr in _WITH_ALL_VALUES:
        return Matching.MULTIPLE_VALUE
    if vr in WITH_WILDCARDS and any("*" in text or "?" in text for text in asked_for):
        return Matching.WILDCARD
    return Matching.SINGLE


def matcher(keys: Dataset, rules: Rules = QUERY_RULES) -> Predicate:
    """The predicate that ``keys`` mean.

    Raises `StatusError` 0xA900, with the offending element, for a key of which nothing can be
    made, such as a date that is none.
    """
    conditions = tuple(_conditions(keys, rules))
    if len(conditions) == 1:
        return conditions[0]
    return lambda dataset: all(condition(dataset) for condition in conditions)


def matches(dataset: Dataset, keys: Dataset, rules: Rules = QUERY_RULES) -> bool:
    """Whether an entity, with the attributes ``dataset``, matches ``keys``."""
    return matcher(keys, rules)(dataset)


def requested(dataset: Dataset, keys: Dataset, rules: Rules = QUERY_RULES) -> Dataset:
    """The answer: of ``dataset``, the attributes that ``keys`` ask for, nested ones too.

    What ``dataset`` lacks is there without a value. A sequence has the items that match, with the
    attributes asked for, or all of them where the key names none (C.2.2.2.6). The answer is in the
    character set of the keys, of the dataset, or in UTF-8: the first in which it can be written.
    """
    answer = _requested(dataset, keys, rules)
    if QUERY_RETRIEVE_LEVEL in keys:
        answer[QUERY_RETRIEVE_LEVEL] = values.element_in_unicode(keys, QUERY_RETRIEVE_LEVEL)
    set_character_set(answer, keys, dataset)
    return answer


def set_character_set(answer: Dataset, *examples: Dataset) -> None:
    """Name a character set for what is in Unicode: that of the first of ``examples`` in which it
    can be written, else UTF-8; none where plain ASCII says nothing of it."""
    candidates = [values.character_set_of(example) for example in examples]
    terms = values.fitting_character_set(values.texts_in_character_set(answer), candidates)
    if terms:
        answer[values.SPECIFIC_CHARACTER_SET] = values.new_element(
            values.SPECIFIC_CHARACTER_SET, "CS", list(terms) if len(terms) > 1 else terms[0]
        )


def _requested(dataset: Dataset, keys: Dataset, rules: Rules) -> Dataset:
    answer = Dataset()
    for tag in _keys_in(keys):
        if _is_private_creator(tag):
            answer[tag] = values.element_in_unicode(keys, tag)
        elif tag not in dataset:
            answer[tag] = values.new_element(tag, vr_of(keys, tag))
        elif vr_of(dataset, tag) == "SQ" and (wanted := _first_item(keys, tag)):
            answer[tag] = _requested_items(dataset, tag, wanted, rules)
        else:
            answer[tag] = values.element_in_unicode(dataset, tag)
    return answer


def _requested_items(dataset: Dataset, tag: int, wanted: Dataset, rules: Rules) -> Any:
    found = filter(matcher(wanted, rules), items(dataset, tag))
    return values.new_element(tag, "SQ", [_requested(item, wanted, rules) for item in found])


def _first_item(keys: Dataset, tag: int) -> Dataset | None:
    """The item of a sequence key, if attributes are named in it."""
    return next((item for item in items(keys, tag) if len(item)), None)


# --- keys


def _keys_in(keys: Dataset) -> Iterator[int]:
    """The tags of what is asked for: neither control elements nor group lengths."""
    for tag in tags_of(keys):
        if tag not in CONTROL and tag & 0xFFFF:
            yield tag


def _is_private_creator(tag: int) -> bool:
    return bool(tag & 0x10000) and 0x10 <= tag & 0xFFFF <= 0xFF


def _asks(keys: Dataset, rules: Rules) -> bool:
    """Whether any of ``keys`` would leave an entity out."""
    return any(kind_of(keys, tag, rules) is not Matching.UNIVERSAL for tag in _keys_in(keys))


def _conditions(keys: Dataset, rules: Rules) -> Iterator[Predicate]:
    combined: set[int] = set()
    if rules.combined_date_time:
        for date, time in date_time_pairs(keys):
            combined |= {date, time}
            yield _combined(keys, date, time, rules)
    for tag in _keys_in(keys):
        if tag not in combined and not _is_private_creator(tag):
            condition = _condition(keys, tag, rules)
            if condition is not None:
                yield condition


def _condition(keys: Dataset, tag: int, rules: Rules) -> Predicate | None:
    kind = kind_of(keys, tag, rules)
    if kind is Matching.UNIVERSAL:
        return None
    if kind is Matching.SEQUENCE:
        return _in_one_item(keys, tag, rules)
    if kind is Matching.EMPTY_VALUE:
        return lambda dataset: not _has_value(dataset, tag)
    if vr_of(keys, tag) == "DT":
        return _date_time_condition(keys, tag, rules)
    tests = tuple(_tests(keys, tag))
    several = all if kind is Matching.MULTIPLE_VALUE else any

    def condition(dataset: Dataset) -> bool:
        held = texts(dataset, tag)
        if not held:
            return rules.unknown_matches
        return several(any(map(test, held)) for test in tests)

    return condition


def _has_value(dataset: Dataset, tag: int) -> bool:
    return bool(texts(dataset, tag) or items(dataset, tag))


def _in_one_item(keys: Dataset, tag: int, rules: Rules) -> Predicate:
    """All that an item of the key asks for is in one and the same item."""
    wanted = [matcher(item, rules) for item in items(keys, tag)]

    def condition(dataset: Dataset) -> bool:
        held = items(dataset, tag)
        if not held:
            return rules.unknown_matches
        return all(any(fits(item) for item in held) for fits in wanted)

    return condition


# --- one value


def _tests(keys: Dataset, tag: int) -> Iterator[Test]:
    """A test for each value of a key, or one for all of which any will do."""
    vr = vr_of(keys, tag)
    if vr == "UI":
        yield frozenset(texts(keys, tag)).__contains__  # of which there may be very many
        return
    for text in texts(keys, tag):
        if vr in ("DA", "TM"):
            yield _time_test(_span(text, vr, tag), vr)
        elif vr in values.NUMBERS:
            yield _number_test(text)
        elif vr == "PN":
            yield name_test(text)
        elif vr in WITH_WILDCARDS:
            yield _text_test(text)
        else:
            yield text.__eq__


def _span(text: str, vr: str, tag: int, offset: timedelta | None = None) -> Span:
    try:
        return values.span(text, vr, offset)
    except ValueError as error:
        raise _offending(tag, str(error)) from None


def _offending(tag: int, comment: str) -> StatusError:
    return StatusError(DATA_SET_DOES_NOT_MATCH_SOP_CLASS, comment, OffendingElement=(tag,))


def _time_test(asked: Span, vr: str) -> Test:
    def test(text: str) -> bool:
        try:
            return values.within(values.bounds(text, vr).low, asked)
        except ValueError:
            return False

    return test


def _number_test(key: str) -> Test:
    number = _number(key)

    def test(text: str) -> bool:
        return text == key or (number is not None and number == _number(text))

    return test


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _text_test(key: str) -> Test:
    fits = wildcards(normal(key))
    return lambda text: fits(normal(text))


def normal(text: str) -> str:
    """Text in the form in which it is compared: composed characters (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def wildcards(key: str) -> Test:
    """A test for text with ``*`` for any run of characters and ``?`` for one (C.2.2.2.4)."""
    if "*" not in key and "?" not in key:
        return key.__eq__
    parts = (
        ".*" if part[0] == "*" else "." if part == "?" else re.escape(part)
        for part in re.findall(r"\*+|\?|[^*?]+", key)
    )
    pattern = re.compile("".join(parts), re.DOTALL)
    return lambda text: pattern.fullmatch(text) is not None


# --- person names


def name_test(key: str) -> Test:
    """A test for person names (PN). A key with ``=`` means the component groups that it fills,
    each for itself; a key without means any of them."""
    asked = name_groups(key)
    if "=" not in key:
        fits = wildcards(asked[0])
        return lambda text: any(fits(group) for group in name_groups(text) if group)
    tests = [wildcards(group) if group not in ("", "*") else None for group in asked]

    def test(text: str) -> bool:
        held = [*name_groups(text), "", ""]
        return all(fits is None or fits(held[at]) for at, fits in enumerate(tests))

    return test


def name_groups(name: str) -> list[str]:
    """The component groups of a name, at most three, in the form in which they are compared:
    without case, and without components that are empty at the end."""
    groups = name.split("=")[:3]
    return ["^".join(_components(group)) for group in groups]


def _components(group: str) -> list[str]:
    components = [normal(part.strip().casefold()) for part in group.split("^")]
    while len(components) > 1 and not components[-1]:
        components.pop()
    return components


# --- dates with times


def date_time_pairs(keys: Dataset) -> list[tuple[int, int]]:
    """The tags of dates and times in ``keys`` that together are one moment, such as Study Date and
    Study Time, where both are ranges of the same form (C.2.2.2.5.4)."""
    pairs = []
    for tag in _keys_in(keys):
        time = _time_beside(tag)
        if time is None or time not in keys:
            continue
        date_ends, time_ends = _range_of(keys, tag, "DA"), _range_of(keys, time, "TM")
        if date_ends and time_ends and _same_form(date_ends, time_ends):
            pairs.append((tag, time))
    return pairs


def _time_beside(tag: int) -> int | None:
    from pydicom.datadict import keyword_for_tag, tag_for_keyword

    keyword = keyword_for_tag(tag)
    if not keyword.endswith("Date"):
        return None
    return tag_for_keyword(keyword[:-4] + "Time")


def _range_of(keys: Dataset, tag: int, vr: str) -> Span | None:
    found = texts(keys, tag)
    if len(found) != 1 or not values.is_range(found[0], vr):
        return None
    return _span(found[0], vr, tag)


def _same_form(one: Span, other: Span) -> bool:
    return [end is None for end in one] == [end is None for end in other]


def _combined(keys: Dataset, date: int, time: int, rules: Rules) -> Predicate:
    """One period, from the first date at the first time to the last date at the last time."""
    dates, times = _range_of(keys, date, "DA"), _range_of(keys, time, "TM")
    assert dates is not None
    assert times is not None
    asked = Span(*(first and first + then for first, then in zip(dates, times, strict=True)))

    def condition(dataset: Dataset) -> bool:
        days, hours = texts(dataset, date), texts(dataset, time)
        if not days or not (hours or rules.unknown_matches):
            return rules.unknown_matches
        try:
            if not hours:
                return values.within(values.bounds(days[0], "DA").low, dates)
            day, hour = values.bounds(days[0], "DA").low, values.bounds(hours[0], "TM").low
        except ValueError:
            return False
        return values.within(day + hour, asked)

    return condition


def _date_time_condition(keys: Dataset, tag: int, rules: Rules) -> Predicate:
    """A condition on a DT, which may name an offset from UTC, or has that of its data set."""
    asked = [_span(text, "DT", tag, _offset_of(keys)) for text in texts(keys, tag)]

    def condition(dataset: Dataset) -> bool:
        held = texts(dataset, tag)
        if not held:
            return rules.unknown_matches
        return any(_lies_within(text, span, _offset_of(dataset)) for text in held for span in asked)

    return condition


def _lies_within(text: str, asked: Span, offset: timedelta | None) -> bool:
    try:
        return values.within(values.bounds(text, "DT", offset).low, asked)
    except ValueError:
        return False


def _offset_of(dataset: Dataset) -> timedelta | None:
    found = texts(dataset, values.TIMEZONE_OFFSET_FROM_UTC)
    return values.offset_of(found[0]) if found else None
