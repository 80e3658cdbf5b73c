"""A scan over the elements of an encoded data set (PS3.5 7), as its octets arrive.

It finds the values of a few top-level attributes, and sequences as a whole, without parsing the
data set: lengths are followed, nested items skipped, in Implicit VR Little Endian, Explicit VR
Little Endian, Explicit VR Big Endian, and the deflated syntax. Only an element that straddles two
slices is kept, and only up to `MAX_VALUE` octets of a value or a sequence that is wanted. Of a
deflated data set the first `MAX_INFLATED` octets are looked at.

    scan = ElementScan("1.2.840.10008.1.2.1", {0x0020000D, 0x0020000E})
    scan.feed(slice)                    # until scan.done
    scan.text(0x0020000D)               # "1.2.3.4"; the octets are in scan.found

Some data sets have no VRs although their transfer syntax has, and some have them although it has
none; the first element tells, as it does for other readers.

Data that cannot be followed ends the scan, with `broken` true; it is never an error.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

from twisted_dimse.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018

MAX_VALUE = 1 << 16
MAX_INFLATED = 1 << 24
_FIRST_GROUP, _PIXEL_DATA_GROUP = 0x0008, 0x7FE0
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITER_GROUP = 0xFFFE
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_SHORTEST_HEADER, _LONGEST_HEADER = 8, 12
# By byte order: group, element, VR, short length; and a long length.
_LITTLE = struct.Struct("<HH2sH"), struct.Struct("<I")
_BIG = struct.Struct(">HH2sH"), struct.Struct(">I")
_MAX_DEPTH = 256


class ElementScan:
    """Looks for the top-level attributes ``wanted`` (tags as ``int``) in one data set.

    Of ``sequences`` it finds the whole element, with its tag, VR and length, and passes over those
    that are longer than `MAX_VALUE`. `done` is true once all are found, at the pixel data, or where
    the data cannot be followed. `started` tells that something sensible was found at all.
    """

    def __init__(
        self, transfer_syntax: str, wanted: Iterable[int], sequences: Iterable[int] = ()
    ) -> None:
        self.found: dict[int, bytes] = {}
        self.done = False
        self.broken = False
        self._wanted = frozenset(wanted)
        self._sequences = frozenset(sequences)
        self._left = len(self._wanted) + len(self._sequences)
        # A sequence of undefined length that is wanted and open: its tag, 0 for none, and octets.
        self._sequence = 0
        self._octets = bytearray()
        self._pending = b""
        self._skip = 0
        # Open items and sequences of undefined length; True for those of implicit VR (UN).
        self._depth: list[bool] = []
        self._inflated = 0
        self._implicit = transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
        big_endian = transfer_syntax == EXPLICIT_VR_BIG_ENDIAN
        self._begun = big_endian  # where the first element is not looked at
        self._tag_vr, self._length = _BIG if big_endian else _LITTLE
        self._inflate = (
            zlib.decompressobj(-zlib.MAX_WBITS)
            if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
            else None
        )

    def text(self, tag: int) -> str:
        """The value found for ``tag`` without its padding; empty where there is none."""
        return self.found.get(tag, b"").rstrip(b"\x00 ").decode("latin-1")

    def feed(self, data: bytes | memoryview) -> None:
        """The next octets of the data set."""
        if self.done:
            return
        if self._inflate is not None:
            self._feed_deflated(data)
            return
        size = len(data)
        if self._skip and self._sequence:
            self._keep(data[: self._skip])
        if self._skip >= size:
            self._skip -= size
            return
        if self._pending:
            data = self._pending + bytes(data)
            self._pending = b""
        elif self._skip:
            data = data[self._skip :]
            self._skip = 0
        self._scan(data)

    def _feed_deflated(self, data: bytes | memoryview) -> None:
        """Inflate in bounded pieces and not without an end, so that a small slice can neither
        fill the memory nor hold up everybody."""
        inflate, self._inflate = self._inflate, None
        assert inflate is not None
        try:
            while not self.done:
                plain = inflate.decompress(data, MAX_VALUE)
                if plain:
                    self._inflated += len(plain)
                    self.feed(plain)
                    if self._inflated > MAX_INFLATED:
                        self._give_up()
                data = inflate.unconsumed_tail
                if inflate.eof or not (plain or data):
                    break  # behind the end zlib keeps its tail: there is nothing more in it
        except zlib.error:
            self._give_up()
        self._inflate = inflate

    def _scan(self, data: bytes | memoryview) -> None:
        offset, end = 0, len(data)
        begin = 0  # of what belongs to the sequence that is kept
        if not self._begun and end >= _SHORTEST_HEADER:
            self._begin(data)
        if not (self._implicit or self._depth):
            offset = self._pass_short(data)
        while end - offset >= _SHORTEST_HEADER and not self.done:
            header = self._header(data, offset)
            if header is None:
                break
            group, tag, vr, length, value = header
            if group == _DELIMITER_GROUP:
                self._delimiter(tag, length)
                offset = value if length == _UNDEFINED else value + length
                if self._sequence and not self._depth:
                    self._end_sequence(data[begin:offset])
            elif group >= _PIXEL_DATA_GROUP and not self._depth:
                self.done = True
            elif length == _UNDEFINED:
                if tag in self._sequences and not self._depth:
                    self._sequence, begin = tag, offset
                self._enter(vr == b"" or vr == b"UN")
                offset = value
            elif tag in self._wanted and not self._depth:
                if value + length > end and length <= MAX_VALUE:
                    break
                self._take(tag, data[value : value + length], length)
                offset = value + length
            elif tag in self._sequences and not self._depth and length <= MAX_VALUE:
                if value + length > end:
                    break
                self._note(tag, data[offset : value + length])
                offset = value + length
            else:
                offset = value + length
        if self._sequence:
            self._keep(data[begin:offset])
        if offset >= end:
            self._skip = offset - end
        elif not self.done:
            self._pending = bytes(data[offset:])

    def _begin(self, data: bytes | memoryview) -> None:
        """Look whether the first element has a VR, where it is of the group it should be of."""
        self._begun = True
        group, _, vr, rest = self._tag_vr.unpack_from(data)
        if group == _FIRST_GROUP:
            has_vr = vr in _SHORT_VRS or vr in _LONG_VRS
            if has_vr == self._implicit and (has_vr or not rest):
                self._implicit = not has_vr

    def _pass_short(self, data: bytes | memoryview) -> int:
        """Go through the short elements in front, most of which nobody wants; where that ends."""
        unpack, short, wanted = self._tag_vr.unpack_from, _SHORT_VRS, self._wanted
        offset, end = 0, len(data)
        last = end - _SHORTEST_HEADER
        while offset <= last:
            group, element, vr, length = unpack(data, offset)
            if vr not in short or group >= _PIXEL_DATA_GROUP:
                break
            behind = offset + 8 + length
            if (tag := group << 16 | element) in wanted:
                if behind > end:
                    break
                self._take(tag, data[offset + 8 : behind], length)
                if self.done:
                    break
            offset = behind
        return offset

    def _header(
        self, data: bytes | memoryview, offset: int
    ) -> tuple[int, int, bytes, int, int] | None:
        """Group, tag, VR (empty where implicit), length, and where the value begins; None where
        more of the header is still to come."""
        implicit = self._depth[-1] if self._depth else self._implicit
        group, element, vr, length = self._tag_vr.unpack_from(data, offset)
        tag = group << 16 | element
        if vr in _SHORT_VRS and not implicit and group != _DELIMITER_GROUP:
            return group, tag, vr, length, offset + 8
        if implicit or group == _DELIMITER_GROUP:
            return group, tag, b"", self._length.unpack_from(data, offset + 4)[0], offset + 8
        if vr not in _LONG_VRS:
            self._give_up()
        if self.broken or offset + _LONGEST_HEADER > len(data):
            return None
        return group, tag, vr, self._length.unpack_from(data, offset + 8)[0], offset + 12

    def _delimiter(self, tag: int, length: int) -> None:
        """An item of defined length is skipped whole, one of undefined length entered."""
        if tag == _ITEM:
            if length == _UNDEFINED:
                self._enter(self._depth[-1] if self._depth else self._implicit)
        elif tag in (_ITEM_END, _SEQUENCE_END) and self._depth:
            self._depth.pop()
        else:
            self._give_up()

    def _take(self, tag: int, value: bytes | memoryview, length: int) -> None:
        if length > MAX_VALUE:
            self._give_up()
            return
        self._note(tag, value)

    def _note(self, tag: int, octets: bytes | bytearray | memoryview) -> None:
        if tag not in self.found:
            self._left -= 1
        self.found[tag] = bytes(octets)
        self.done = not self._left

    def _keep(self, octets: bytes | memoryview) -> None:
        """More of the sequence that is open; one that becomes too long is wanted no more."""
        if len(self._octets) + len(octets) > MAX_VALUE:
            self._sequence = 0
            self._octets.clear()
        else:
            self._octets += octets

    def _end_sequence(self, octets: bytes | memoryview) -> None:
        self._keep(octets)
        if self._sequence:
            self._note(self._sequence, self._octets)
            self._sequence = 0
            self._octets.clear()

    def _enter(self, implicit: bool) -> None:
        if len(self._depth) >= _MAX_DEPTH:
            self._give_up()
        else:
            self._depth.append(implicit)

    def _give_up(self) -> None:
        self.broken = True
        self.done = True
