"""The octets that the raw peers exchange, written by hand (PS3.8 9.3, PS3.7 6.3 and annex E).

Nothing here is taken from the library under measure.

    request = associate_request([(1, VERIFICATION, [EXPLICIT])], maximum=131072)
    accept = associate_accept(request[6:], maximum=16384)
    accepted, maximum = accepted_contexts(accept[6:])
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

VERIFICATION = "1.2.840.10008.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
IMPLEMENTATION_CLASS = "2.25.100000000000000000000000000000000000001"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ = 1, 2, 3
P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 4, 5, 6, 7
COMMAND, LAST = 0x01, 0x02

C_STORE_RQ, C_FIND_RQ, C_ECHO_RQ = 0x0001, 0x0020, 0x0030
PENDING = (0xFF00, 0xFF01)
NO_DATA_SET, DATA_SET = 0x0101, 0x0000
MESSAGE_ID_TAG = b"\x00\x00\x10\x01\x02\x00\x00\x00"
COMMAND_FIELD_TAG = b"\x00\x00\x00\x01\x02\x00\x00\x00"
STATUS_TAG = b"\x00\x00\x00\x09\x02\x00\x00\x00"

RELEASE_REQUEST = struct.pack(">BxI4x", RELEASE_RQ, 4)
RELEASE_REPLY = struct.pack(">BxI4x", RELEASE_RP, 4)

Context = tuple[int, str, list[str]]


class WireError(Exception):
    """A peer sent what the raw peers do not understand, or nothing in time."""


def pdu(kind: int, body: bytes) -> bytes:
    """One PDU: type, reserved octet, length, body (PS3.8 9.3.1)."""
    return struct.pack(">BxI", kind, len(body)) + body


def associate_request(contexts: Iterable[Context], maximum: int) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 9.3.2) for ``(id, abstract syntax, transfer syntaxes)``."""
    proposed = [_item(0x20, _proposal(*context)) for context in contexts]
    return pdu(ASSOCIATE_RQ, _associate_body(proposed, maximum))


def associate_accept(request: bytes, maximum: int) -> bytes:
    """The A-ASSOCIATE-AC that accepts everything of a request's body (PS3.8 9.3.3).

    Explicit VR Little Endian where it was proposed, else the first transfer syntax.
    """
    answers = []
    for identifier, _, syntaxes in proposed_contexts(request):
        chosen = EXPLICIT if EXPLICIT in syntaxes else syntaxes[0]
        answers.append(_item(0x21, struct.pack("BxBx", identifier, 0) + _uid_item(0x40, chosen)))
    titles = request[4:36]
    return pdu(ASSOCIATE_AC, _associate_body(answers, maximum, titles))


def proposed_contexts(request: bytes) -> list[Context]:
    """The presentation contexts of an A-ASSOCIATE-RQ's body."""
    contexts = []
    for kind, body in _items(request[68:]):
        if kind == 0x20:
            parts = list(_items(body[4:]))
            abstract = next(_text(value) for part, value in parts if part == 0x30)
            contexts.append((body[0], abstract, [_text(v) for part, v in parts if part == 0x40]))
    return contexts


def accepted_contexts(accept: bytes) -> tuple[dict[int, str], int]:
    """Context IDs with their transfer syntax, and the peer's maximum length (0: none)."""
    accepted: dict[int, str] = {}
    maximum = 0
    for kind, body in _items(accept[68:]):
        if kind == 0x21 and body[2] == 0:
            accepted[body[0]] = next(_text(v) for part, v in _items(body[4:]) if part == 0x40)
        elif kind == 0x50:
            lengths = [v for part, v in _items(body) if part == 0x51]
            maximum = struct.unpack(">I", lengths[0])[0] if lengths else 0
    return accepted, maximum


def p_data(context: int, flags: int, data: bytes) -> bytes:
    """A P-DATA-TF of one presentation data value (PS3.8 9.3.5)."""
    return p_data_header(context, flags, len(data)) + data


def p_data_header(context: int, flags: int, length: int) -> bytes:
    """The twelve octets before ``length`` octets of a P-DATA-TF's only value."""
    return struct.pack(">BxIIBB", P_DATA, length + 6, length + 2, context, flags)


def echo_request(context: int, message_id: int = 1) -> bytes:
    """C-ECHO-RQ (PS3.7 9.3.5.1), ready to be sent."""
    return p_data(context, COMMAND | LAST, _command(
        (0x0002, _uid(VERIFICATION)), (0x0100, _short(C_ECHO_RQ)),
        (0x0110, _short(message_id)), (0x0800, _short(NO_DATA_SET)),
    ))  # fmt: skip


def store_request(context: int, instance_uid: str, message_id: int = 1) -> bytes:
    """C-STORE-RQ of a secondary capture image (PS3.7 9.3.1.1), without its data set."""
    return p_data(context, COMMAND | LAST, _command(
        (0x0002, _uid(SECONDARY_CAPTURE)), (0x0100, _short(C_STORE_RQ)),
        (0x0110, _short(message_id)), (0x0700, _short(0)), (0x0800, _short(DATA_SET)),
        (0x1000, _uid(instance_uid)),
    ))  # fmt: skip


def find_request(context: int, message_id: int = 1) -> bytes:
    """C-FIND-RQ in the study root (PS3.7 9.3.2.1), without its identifier."""
    return p_data(context, COMMAND | LAST, _command(
        (0x0002, _uid(STUDY_ROOT_FIND)), (0x0100, _short(C_FIND_RQ)),
        (0x0110, _short(message_id)), (0x0700, _short(0)), (0x0800, _short(DATA_SET)),
    ))  # fmt: skip


def element(tag: int, vr: bytes, text: str) -> bytes:
    """One short element in Explicit VR Little Endian, in UTF-8 (PS3.5 7.1.2)."""
    value = text.encode()
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) & 1)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def values(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The presentation data values of a P-DATA-TF's body: control header, octets."""
    at = 0
    while at < len(body):
        length, _, flags = struct.unpack_from(">IBB", body, at)
        yield flags, body[at + 6 : at + 4 + length]
        at += 4 + length


def response(context: int, request: int, message_id: int, status: int = 0) -> bytes:
    """The response to a request's command field, with its mandatory elements only."""
    return p_data(context, COMMAND | LAST, _command(
        (0x0100, _short(request | 0x8000)), (0x0120, _short(message_id)),
        (0x0800, _short(NO_DATA_SET)), (0x0900, _short(status)),
    ))  # fmt: skip


def short_after(tag: bytes, command: bytes) -> int:
    """The US element of a command set whose tag and length are ``tag``."""
    at = command.find(tag)
    if at < 0:
        raise WireError(f"a command set without element {tag[:4].hex()}")
    return int.from_bytes(command[at + 8 : at + 10], "little")


def _associate_body(contexts: list[bytes], maximum: int, titles: bytes = b"") -> bytes:
    titles = titles or b"RAW-PEER".ljust(16) * 2
    user = _item(0x51, struct.pack(">I", maximum)) + _uid_item(0x52, IMPLEMENTATION_CLASS)
    items = [_uid_item(0x10, APPLICATION_CONTEXT), *contexts, _item(0x50, user)]
    return struct.pack(">H2x32s32x", 1, titles) + b"".join(items)


def _proposal(identifier: int, abstract: str, syntaxes: list[str]) -> bytes:
    offered = b"".join(_uid_item(0x40, syntax) for syntax in syntaxes)
    return struct.pack("B3x", identifier) + _uid_item(0x30, abstract) + offered


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def _uid_item(kind: int, uid: str) -> bytes:
    return _item(kind, uid.encode("ascii"))


def _items(octets: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(octets):
        kind, length = struct.unpack_from(">BxH", octets, at)
        yield kind, octets[at + 4 : at + 4 + length]
        at += 4 + length


def _command(*elements: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHI", 0, tag, len(value)) + value for tag, value in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _uid(uid: str) -> bytes:
    return uid.encode("ascii") + b"\0" * (len(uid) % 2)


def _short(number: int) -> bytes:
    return struct.pack("<H", number)


def _text(octets: bytes) -> str:
    return octets.rstrip(b"\0 ").decode("ascii")
