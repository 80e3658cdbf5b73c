"""Answers to queries made of the octets that the index keeps, without an object for each element.

What the index keeps of an entity is encoded already, and most answers are those octets again, some
left out, in another order. `Octets` makes such an answer, or says that it is none of those: then
`services.matching.requested` makes it, which says what an answer is. Both give the same octets.

    octets = Octets(keys, EXPLICIT_VR_LITTLE_ENDIAN)
    if octets.possible and (elements := octets.elements(headers)) is not None:
        octets.answer(elements)         # None where it takes more than octets
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence

from pydicom import Dataset

from twisted_dimse.datastream import encode_dataset
from twisted_dimse.services import values
from twisted_dimse.services.matching import CONTROL, QUERY_RETRIEVE_LEVEL
from twisted_dimse.services.values import SPECIFIC_CHARACTER_SET, tags_of, vr_of
from twisted_dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

_HEADER = struct.Struct("<I2sH")  # the tag's halves the other way round
_ELEMENT = struct.Struct("<HH2sH")
_IMPLICIT_ELEMENT = struct.Struct("<HHI")
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"))
_TEXT = frozenset((b"LO", b"LT", b"PN", b"SH", b"ST"))  # in the data set's character set
_PLAIN = frozenset((b"AE", b"AS", b"CS", b"DA", b"DT", b"TM", b"UI"))
_NUMERALS = frozenset((b"DS", b"IS"))
AS_TEXT = _TEXT | _PLAIN | _NUMERALS  # whose values are compared as they stand
_ONE_VALUE = frozenset((b"LT", b"ST"))
_CODECS = {"ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8"}
_DIGITS = frozenset(b"0123456789")


# An element without its tag, as Explicit VR Little Endian has it: its VR, and its octets.
Value = tuple[bytes, bytes]


class Octets:
    """The answers of one query. `possible` is false where none can be made in this way."""

    def __init__(self, keys: Dataset, transfer_syntax: str) -> None:
        self._pack = _PACK.get(transfer_syntax)
        self._transfer_syntax = transfer_syntax
        self._terms = values.character_set_of(keys)
        self._tags = [
            int(tag)  # which is found sooner than a BaseTag
            for tag in tags_of(keys)
            if tag & 0xFFFF and (tag not in CONTROL or tag == QUERY_RETRIEVE_LEVEL)
        ]
        self.possible = self._pack is not None and not any(
            tag & 0x10000 or vr_of(keys, tag) == "SQ" for tag in self._tags
        )
        if self.possible:
            self._without_value = [(tag, self._empty(keys, tag)) for tag in self._tags]
            self._named: dict[tuple[str, ...], bytes] = {(): b""}
            looked_at = (*map(int, tags_of(keys)), SPECIFIC_CHARACTER_SET)
            self._wanted = {(tag & 0xFFFF) << 16 | tag >> 16: tag for tag in looked_at}

    def elements(self, headers: Iterable[bytes]) -> dict[int, Value] | None:
        """The elements of an entity that the keys name, and its character set; None where their
        octets do not say all."""
        found: dict[int, Value] = {}
        character_sets = set()
        for header in headers:
            found.pop(SPECIFIC_CHARACTER_SET, None)
            if not _add_elements(header, self._wanted, found):
                return None
            character_sets.add(found.get(SPECIFIC_CHARACTER_SET))
        return found if len(character_sets) == 1 else None

    def answer(self, elements: dict[int, Value]) -> bytes | None:
        """The answer for an entity; None where more has to be looked at than octets."""
        pack = self._pack
        assert pack is not None
        parts = [b""]  # the first is for the character set
        text: list[tuple[int, int, bytes, bytes]] = []  # not in ASCII: where, tag, VR, octets
        for tag, without_value in self._without_value:
            value = elements.get(tag)
            if value is None or tag == QUERY_RETRIEVE_LEVEL:
                parts.append(without_value)
                continue
            vr, octets = value
            known = _normal(vr, octets)
            if known is None or b"\x1b" in known:
                return None
            if not known.isascii():
                if vr not in _TEXT:
                    return None
                text.append((len(parts), tag, vr, known))
            parts.append(pack(tag, vr, known))
        terms = _single_term(elements.get(SPECIFIC_CHARACTER_SET))
        if terms is None:
            return None
        if text:
            written = self._in_one_character_set(text, terms)
            if written is None:
                return None
            encoded, terms = written
            for (place, tag, vr, _), octets in zip(text, encoded, strict=True):
                parts[place] = pack(tag, vr, octets)
        else:
            terms = self._terms or terms
        parts[0] = self._character_set(terms)
        return b"".join(parts)

    def _in_one_character_set(
        self, text: Sequence[tuple[int, int, bytes, bytes]], terms: tuple[str, ...]
    ) -> tuple[list[bytes], tuple[str, ...]] | None:
        """The octets of what is not in ASCII in the first character set in which all of it can be
        written: that of the keys, their own; None where that is not so simple."""
        own = _codec(terms)
        if own is None:
            return None
        try:
            texts = [octets.decode(own).rstrip(" ") for *_, octets in text]
        except UnicodeDecodeError:
            return None
        for candidate in (self._terms, terms):
            if not candidate:
                continue
            codec = _codec(candidate)
            if codec is None:
                return None
            try:
                return [_even(one.encode(codec), b" ") for one in texts], candidate
            except UnicodeEncodeError:
                continue
        return None

    def _character_set(self, terms: tuple[str, ...]) -> bytes:
        """(0008,0005), which stands before all keys."""
        encoded = self._named.get(terms)
        if encoded is None:
            dataset = Dataset()
            dataset[SPECIFIC_CHARACTER_SET] = values.new_element(
                SPECIFIC_CHARACTER_SET, "CS", list(terms) if len(terms) > 1 else terms[0]
            )
            encoded = self._named[terms] = encode_dataset(dataset, self._transfer_syntax)
        return encoded

    def _empty(self, keys: Dataset, tag: int) -> bytes:
        """What stands for ``tag`` where an entity lacks it."""
        dataset = Dataset()
        if tag == QUERY_RETRIEVE_LEVEL:
            dataset[tag] = values.element_in_unicode(keys, tag)
        else:
            dataset[tag] = values.new_element(tag, vr_of(keys, tag))
        return encode_dataset(dataset, self._transfer_syntax)


def _codec(terms: tuple[str, ...]) -> str | None:
    return _CODECS.get(terms[0]) if len(terms) == 1 else None


def _add_elements(header: bytes, wanted: Mapping[int, int], found: dict[int, Value]) -> bool:
    """Add those of a header's elements that are wanted; False where one has no length."""
    at, end, unpack = 0, len(header), _HEADER.unpack_from
    while at < end:
        swapped, vr, length = unpack(header, at)
        at += 8
        if vr in _LONG:
            length = int.from_bytes(header[at : at + 4], "little")
            if length == 0xFFFFFFFF:
                return False
            at += 4
        tag = wanted.get(swapped)
        if tag is not None:
            found[tag] = vr, header[at : at + length]
        at += length
    return True


def _normal(vr: bytes, octets: bytes) -> bytes | None:
    """A value as it is answered, padding taken off and put on again; None for what takes more."""
    if vr in _TEXT or vr in _PLAIN:
        if b"\\" in octets and vr not in _ONE_VALUE:
            parts = [_stripped(vr, part) for part in octets.split(b"\\")]
            known = b"\\".join(parts) if any(parts) else b""
        else:
            known = _stripped(vr, octets)
            parts = [known]
        if vr == b"PN" and b"=" in known and any(part.endswith(b"=") for part in parts):
            return None  # groups without anything in them are left out
        return _even(known, b"\0" if vr == b"UI" else b" ")
    if vr in _NUMERALS:
        number = octets.strip(b" \0")
        return _even(number, b" ") if _DIGITS.issuperset(number) and len(number) < 10 else None
    return octets if vr == b"US" and len(octets) == 2 else None


def _stripped(vr: bytes, octets: bytes) -> bytes:
    octets = octets.rstrip(b"\0 ")
    return octets if vr in _ONE_VALUE else octets.lstrip(b" ")


def _even(octets: bytes, padding: bytes) -> bytes:
    return octets + padding if len(octets) & 1 else octets


def _single_term(value: Value | None) -> tuple[str, ...] | None:
    """The character set of an entity, where it is one or none; else None."""
    if value is None:
        return ()
    term = value[1].strip(b"\0 ")
    if b"\\" in term or not term.isascii():
        return None
    return (term.decode(),) if term else ()


def _explicit(tag: int, vr: bytes, octets: bytes) -> bytes:
    return _ELEMENT.pack(tag >> 16, tag & 0xFFFF, vr, len(octets)) + octets


def _implicit(tag: int, _vr: bytes, octets: bytes) -> bytes:
    return _IMPLICIT_ELEMENT.pack(tag >> 16, tag & 0xFFFF, len(octets)) + octets


_PACK: dict[str, Callable[[int, bytes, bytes], bytes]] = {
    EXPLICIT_VR_LITTLE_ENDIAN: _explicit,
    IMPLICIT_VR_LITTLE_ENDIAN: _implicit,
}
