"""How the rows of the index become answers to a C-FIND (PS3.4 C.4.1.3.1).

    answering = Answering(keys, Level.STUDY, rules, transfer_syntax, ae_title)
    statement = matching.entities(keys, Level.STUDY, answering.computed)
    answers = filter(None, map(answering.of, rows))

An answer is a Dataset, or its octets where they can be taken from the index as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from pydicom import Dataset, charset
from pydicom.dataelem import RawDataElement

from twisted_dimse.archive import matching
from twisted_dimse.archive.header import Level
from twisted_dimse.archive.octets import AS_TEXT, Octets, Value
from twisted_dimse.datastream import decode_dataset
from twisted_dimse.services.matching import (
    CONTROL,
    Matching,
    Rules,
    date_time_pairs,
    kind_of,
    matcher,
    requested,
)
from twisted_dimse.services.values import (
    SPECIFIC_CHARACTER_SET,
    UTF_8,
    element_in_unicode,
    new_element,
    tags_of,
    texts,
    vr_of,
)
from twisted_dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN

RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY = 0x00080054, 0x00080056
_VRS = {
    matching.MODALITIES_IN_STUDY: "CS",
    matching.SOP_CLASSES_IN_STUDY: "UI",
    0x00083002: "UI",
    RETRIEVE_AE_TITLE: "AE",
    INSTANCE_AVAILABILITY: "CS",
}  # of what the files do not say; IS for the rest


class Answering:
    """The answers of one query with the supported ``keys`` at ``level``. `computed` is what the
    database is to work out besides, by tag. Raises `StatusError` for keys that mean nothing."""

    def __init__(
        self, keys: Dataset, level: Level, rules: Rules, transfer_syntax: str, ae_title: str
    ) -> None:
        self.computed = {
            tag: make() for tag, make in matching.computed_attributes(level).items() if tag in keys
        }
        ours = {RETRIEVE_AE_TITLE: ae_title, INSTANCE_AVAILABILITY: "ONLINE"}
        self._of_ours = [(tag, text) for tag, text in ours.items() if tag in keys]
        self._keys = keys
        self._levels = len(matching.levels_down_to(level))
        self._matches = matcher(keys, rules)
        self._octets = Octets(keys, transfer_syntax)
        self._conditions = _conditions_on(keys, rules)

    def of(self, row: Any) -> Dataset | bytes | None:
        """The answer for a row, or None where the entity does not match."""
        if self._octets.possible and self._conditions is not None:
            headers = [bytes(header) for header in row[: self._levels]]
            elements = self._octets.elements(headers)
            if elements is not None:
                for tag, text in self._beside(row):
                    elements[tag] = _VRS.get(tag, "IS").encode(), text.encode()
                asked = self._asked_for(elements)
                if asked is not None:
                    if not self._matches(asked):
                        return None
                    answer = self._octets.answer(elements)
                    if answer is not None:
                        return answer
        entity = self._entity(row)
        return requested(entity, self._keys) if self._matches(entity) else None

    def _asked_for(self, elements: dict[int, Value]) -> Any:
        """What the conditions look at, as far as its character set does not matter."""
        assert self._conditions is not None
        entity = _Looked()
        for tag in self._conditions:
            value = elements.get(int(tag))
            if value is None:
                continue
            vr, octets = value
            if vr not in AS_TEXT or not octets.isascii() or b"\x1b" in octets:
                return None
            entity[tag] = RawDataElement(tag, vr.decode(), len(octets), octets, 0, False, True)  # type: ignore[arg-type]
        return entity

    def _beside(self, row: Any) -> Iterable[tuple[int, str]]:
        """What the files do not say of an entity, by tag."""
        return self._computed(row) if self.computed else self._of_ours

    def _computed(self, row: Any) -> Iterator[tuple[int, str]]:
        for tag, value in zip(self.computed, row[self._levels :], strict=True):
            yield tag, "" if value is None else str(value)
        yield from self._of_ours

    def _entity(self, row: Any) -> Dataset:
        """The attributes of one row, from the patient's down."""
        entity = merged(row[: self._levels])
        for tag, text in self._beside(row):
            entity.add_new(tag, _VRS.get(tag, "IS"), text.split("\\") if text else None)
        return entity


class _Looked(dict[int, RawDataElement]):
    """As much of a Dataset as conditions look at, at a tenth of the cost: elements in plain
    ASCII."""

    get_item = dict.get
    original_character_set: ClassVar = ""
    _character_set: ClassVar = charset.default_encoding


def _conditions_on(keys: Dataset, rules: Rules) -> list[int] | None:
    """The tags that decide whether an entity matches; None where more than their text does."""
    tags = {tag for pair in date_time_pairs(keys) for tag in pair}
    for tag in tags_of(keys):
        if tag in CONTROL or kind_of(keys, tag, rules) is Matching.UNIVERSAL:
            continue
        if vr_of(keys, tag) in ("DT", "SQ"):
            return None
        tags.add(tag)
    return sorted(tags)


def merged(headers: Iterable[bytes]) -> Dataset:
    """One Dataset of the headers of an entity and of those above it. Their elements stay as they
    are encoded where all are in one character set, and are in Unicode otherwise."""
    parts = [decode_dataset(bytes(header), EXPLICIT_VR_LITTLE_ENDIAN) for header in headers]
    one_set = len({texts(part, SPECIFIC_CHARACTER_SET) for part in parts}) == 1
    entity = Dataset()
    for part in parts:
        for tag in tags_of(part):
            if one_set:
                entity[tag] = part.get_item(tag)
            elif tag != SPECIFIC_CHARACTER_SET:
                entity[tag] = element_in_unicode(part, tag)
    if not one_set:
        entity[SPECIFIC_CHARACTER_SET] = new_element(SPECIFIC_CHARACTER_SET, "CS", UTF_8)
    return entity
