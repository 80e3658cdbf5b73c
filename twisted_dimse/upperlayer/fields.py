"""The fields that PDUs and their items are made of (PS3.8 9.3.1): items, lengths, UIDs, AE titles.

`Reader` takes fields off the front of one item and raises `ProtocolViolation` rather than read past
its end; the functions beside it write them. All numbers are big endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from twisted_dimse.errors import ProtocolViolation

_ITEM_HEADER = struct.Struct(">BxH")
_UINT16 = struct.Struct(">H")
_UINT32 = struct.Struct(">I")


def encode_item(kind: int, body: bytes) -> bytes:
    if len(body) > 0xFFFF:
        raise ValueError(f"item {kind:02X}H: {len(body)} octets do not fit its length field")
    return _ITEM_HEADER.pack(kind, len(body)) + body


def text16(text: str) -> bytes:
    """A text with a 16-bit length before it."""
    data = text.encode("ascii")
    return _UINT16.pack(len(data)) + data


def bytes16(data: bytes) -> bytes:
    if len(data) > 0xFFFF:
        raise ValueError(f"{len(data)} octets do not fit a 16-bit length field")
    return _UINT16.pack(len(data)) + data


class Reader:
    """Takes fields off the front of one item, never past its end."""

    def __init__(self, what: str, data: memoryview) -> None:
        self.what = what
        self.data = data
        self.offset = 0

    def take(self, count: int, name: str) -> memoryview:
        end = self.offset + count
        if end > len(self.data):
            raise ProtocolViolation(
                f"{self.what}: {name} at offset {self.offset} needs {count} octets, "
                f"{len(self.data) - self.offset} are left"
            )
        part = self.data[self.offset : end]
        self.offset = end
        return part

    def uint8(self, name: str) -> int:
        return self.take(1, name)[0]

    def uint16(self, name: str) -> int:
        return int(_UINT16.unpack(self.take(2, name))[0])

    def uint32(self, name: str) -> int:
        return int(_UINT32.unpack(self.take(4, name))[0])

    def bytes16(self, name: str) -> bytes:
        return bytes(self.take(self.uint16(f"length of {name}"), name))

    def uid16(self, name: str) -> str:
        return read_uid(self.bytes16(name))

    def rest(self) -> memoryview:
        return self.take(len(self.data) - self.offset, "the rest")


def read_uid(data: bytes | memoryview) -> str:
    """UIDs are not padded in PDUs; some senders do it all the same, which is let pass."""
    return bytes(data).rstrip(b"\x00 ").decode("latin-1")


def ae_title(title: str) -> bytes:
    if not 0 < len(title) <= 16 or not title.isascii() or not title.isprintable():
        raise ValueError(f"AE title {title!r} does not have 1 to 16 printable ASCII characters")
    if title.isspace() or "\\" in title:
        raise ValueError(f"AE title {title!r} is blank or has a backslash")
    return title.encode("ascii").ljust(16)


def read_ae_title(data: memoryview) -> str:
    """Spaces around a title carry no meaning; NULs, which some senders pad with, neither."""
    return bytes(data).split(b"\x00", 1)[0].decode("latin-1").strip(" ")


def each_item(data: memoryview, what: str) -> Iterator[tuple[int, memoryview]]:
    reader = Reader(what, data)
    while reader.offset < len(data):
        kind = reader.uint8("item type")
        reader.take(1, "reserved")
        length = reader.uint16("item length")
        yield kind, reader.take(length, f"item {kind:02X}H")
