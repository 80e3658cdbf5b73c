"""Command sets of PS3.7 6.3 and annex E: Implicit VR Little Endian, group 0000, by hand.

They are tiny and on every message, so there is a table, `struct` and one dictionary, keyed by the
standard's keywords, and no data set object.

    data = encode({"CommandField": C_ECHO_RQ, "MessageID": 7, ...})   # group length comes first
    command = decode(data)
    command["MessageID"] == command.MessageID == 7

Values are ``str`` (UI, AE, LO), ``int`` (US, UL) and tuples of tags as ``int`` (AT).
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from twisted_dimse.errors import ProtocolViolation

C_STORE_RQ, C_GET_RQ, C_FIND_RQ, C_MOVE_RQ, C_ECHO_RQ = 0x0001, 0x0010, 0x0020, 0x0021, 0x0030
N_EVENT_REPORT_RQ, N_GET_RQ, N_SET_RQ = 0x0100, 0x0110, 0x0120
N_ACTION_RQ, N_CREATE_RQ, N_DELETE_RQ = 0x0130, 0x0140, 0x0150
C_CANCEL_RQ = 0x0FFF
RESPONSE = 0x8000  # set in the command field of every response

NO_DATA_SET = 0x0101
DATA_SET_FOLLOWS = 0x0001

LOW, MEDIUM, HIGH = 2, 0, 1
PRIORITIES = {"low": LOW, "medium": MEDIUM, "high": HIGH}

REQUEST_NAMES = {
    C_STORE_RQ: "C-STORE",
    C_GET_RQ: "C-GET",
    C_FIND_RQ: "C-FIND",
    C_MOVE_RQ: "C-MOVE",
    C_ECHO_RQ: "C-ECHO",
    N_EVENT_REPORT_RQ: "N-EVENT-REPORT",
    N_GET_RQ: "N-GET",
    N_SET_RQ: "N-SET",
    N_ACTION_RQ: "N-ACTION",
    N_CREATE_RQ: "N-CREATE",
    N_DELETE_RQ: "N-DELETE",
}

# The dictionary of PS3.7 annex E.1: element number, keyword, VR.
ELEMENTS = (
    (0x0000, "CommandGroupLength", "UL"),
    (0x0002, "AffectedSOPClassUID", "UI"),
    (0x0003, "RequestedSOPClassUID", "UI"),
    (0x0100, "CommandField", "US"),
    (0x0110, "MessageID", "US"),
    (0x0120, "MessageIDBeingRespondedTo", "US"),
    (0x0600, "MoveDestination", "AE"),
    (0x0700, "Priority", "US"),
    (0x0800, "CommandDataSetType", "US"),
    (0x0900, "Status", "US"),
    (0x0901, "OffendingElement", "AT"),
    (0x0902, "ErrorComment", "LO"),
    (0x0903, "ErrorID", "US"),
    (0x1000, "AffectedSOPInstanceUID", "UI"),
    (0x1001, "RequestedSOPInstanceUID", "UI"),
    (0x1002, "EventTypeID", "US"),
    (0x1005, "AttributeIdentifierList", "AT"),
    (0x1008, "ActionTypeID", "US"),
    (0x1020, "NumberOfRemainingSuboperations", "US"),
    (0x1021, "NumberOfCompletedSuboperations", "US"),
    (0x1022, "NumberOfFailedSuboperations", "US"),
    (0x1023, "NumberOfWarningSuboperations", "US"),
    (0x1030, "MoveOriginatorApplicationEntityTitle", "AE"),
    (0x1031, "MoveOriginatorMessageID", "US"),
)
ERROR_COMMENT_LENGTH = 64
_NOT_IN_A_COMMENT = re.compile(r"[^ -\[\]-~]")

_ELEMENT = struct.Struct("<HHI")
_TAG = struct.Struct("<HH")
_GROUP_LENGTH = struct.Struct("<HHII")
_US = struct.Struct("<HHIH")
_ID_TYPE_STATUS = struct.Struct("<HHIHHHIHHHIH")


class CommandSet(dict[str, Any]):
    """A decoded command set: keyword to value. Values can also be had as attributes; a keyword
    that the set lacks is None there."""

    __slots__ = ()

    def __getattr__(self, keyword: str) -> Any:
        if keyword in _KEYWORDS:
            return self.get(keyword)
        raise AttributeError(keyword)

    @property
    def has_data_set(self) -> bool:
        """Whether a data set follows: any type but 0101H says so, a lacking one does not."""
        return bool(self.get("CommandDataSetType", NO_DATA_SET) != NO_DATA_SET)

    @property
    def is_response(self) -> bool:
        return bool(self["CommandField"] & RESPONSE)

    @property
    def name(self) -> str:
        """Such as ``C-STORE-RQ``, for logs and traces."""
        return message_name(self["CommandField"])


def message_name(field: int) -> str:
    """``C-FIND-RSP`` for 0x8020; the number where the standard has none."""
    if field == C_CANCEL_RQ:
        return "C-CANCEL-RQ"
    name = REQUEST_NAMES.get(field & ~RESPONSE)
    if name is None:
        return f"command {field:04X}H"
    return name + ("-RSP" if field & RESPONSE else "-RQ")


def encode(command: Mapping[str, Any]) -> bytes:
    """The command set, elements in rising order, group length first. What is None or empty is
    left out (PS3.7 6.3.1).

    Raises `ValueError` for a keyword or a value that has no place in a command set.
    """
    if None in command.values():
        command = {keyword: value for keyword, value in command.items() if value is not None}
    shape = tuple(command)
    try:
        steps = _STEPS.get(shape) or _steps(shape)
        body = b"".join([step(command) for step in steps])
    except (KeyError, struct.error, AttributeError, TypeError) as error:
        raise ValueError(f"not a command set: {error!r}") from None
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def response_to(command: CommandSet) -> dict[str, Any]:
    """What the response to a request repeats of it, and that no data set follows."""
    field = command["CommandField"]
    response: dict[str, Any] = {
        "CommandField": field | RESPONSE,
        "MessageIDBeingRespondedTo": command["MessageID"],
        "CommandDataSetType": NO_DATA_SET,
    }
    get = command.get
    class_uid = get("AffectedSOPClassUID") or get("RequestedSOPClassUID")
    if class_uid:
        response["AffectedSOPClassUID"] = class_uid
    if field == C_ECHO_RQ:
        return response
    instance_uid = get("AffectedSOPInstanceUID") or get("RequestedSOPInstanceUID")
    if instance_uid:
        response["AffectedSOPInstanceUID"] = instance_uid
    for keyword in ("EventTypeID", "ActionTypeID"):
        if keyword in command:
            response[keyword] = command[keyword]
    return response


def encode_status(command: CommandSet, status: int) -> bytes:
    """The response to a C-ECHO or C-STORE that says no more than its status: `encode` of
    `response_to`, at a fraction of the cost."""
    field = command["CommandField"]
    class_uid = command.get("AffectedSOPClassUID") or ""
    head = _ENCODERS["AffectedSOPClassUID"](class_uid) + _US.pack(0, 0x0100, 2, field | RESPONSE)
    tail = b""
    if field == C_STORE_RQ:
        tail = _ENCODERS["AffectedSOPInstanceUID"](command.get("AffectedSOPInstanceUID") or "")
    message_id = command["MessageID"]
    rest = _ID_TYPE_STATUS.pack(
        0, 0x0120, 2, message_id, 0, 0x0800, 2, NO_DATA_SET, 0, 0x0900, 2, status
    )
    return _GROUP_LENGTH.pack(0, 0, 4, len(head) + 30 + len(tail)) + head + rest + tail


def decode(data: bytes | bytearray | memoryview) -> CommandSet:
    """The command set in ``data``. Elements that PS3.7 does not have, or has retired, are skipped.

    Raises `ProtocolViolation` for what is not a command set.
    """
    data = bytes(data)
    if len(data) < _SHORTEST_KNOWN:
        return _decode(data)
    place = _PLACE if data[12:20] == _COMMAND_FIELD_HEADER else _PLACE + 8 + data[16]
    tail = place + 22
    has_uid = data[tail : tail + 4] == _INSTANCE_UID and (
        int.from_bytes(data[tail + 4 : tail + 8], "little") == len(data) - tail - 8
    )
    if not has_uid:
        tail = len(data)
    rest = data[:8] + data[12:place] + data[place + 2 : tail]
    known = _known.get(rest)
    if known is None:
        command = _decode(data)
        if len(rest) <= _LONGEST_KNOWN:
            _remember(data, place, tail, rest)
        return command
    command = CommandSet(known[0])
    command["CommandGroupLength"] = int.from_bytes(data[8:12], "little")
    command[known[1]] = data[place] | data[place + 1] << 8
    if has_uid:
        command["AffectedSOPInstanceUID"] = _decode_uid(data[tail + 8 :])
    return command


# Command sets of which a peer sends the same again and again, but for the message ID and an
# instance UID at the end: what they were decoded to, and the keyword of that ID.
_known: dict[bytes, tuple[CommandSet, str]] = {}
_MOST_KNOWN = 128
_SHORTEST_KNOWN, _LONGEST_KNOWN = 32, 128
_PLACE = 12 + 10 + 8  # of the value of the message ID, where there is no SOP class UID
_INSTANCE_UID = b"\x00\x00\x00\x10"
_COMMAND_FIELD_HEADER = b"\x00\x00\x00\x01\x02\x00\x00\x00"
_MESSAGE_ID_HEADERS = {
    b"\x00\x00\x10\x01\x02\x00\x00\x00": "MessageID",
    b"\x00\x00\x20\x01\x02\x00\x00\x00": "MessageIDBeingRespondedTo",
}
_SOP_CLASS_UIDS = (b"\x00\x00\x02\x00", b"\x00\x00\x03\x00")


def _remember(data: bytes, place: int, tail: int, rest: bytes) -> None:
    """Keep a command set whose first elements stand where most have them, up to ``tail``."""
    keyword = _MESSAGE_ID_HEADERS.get(data[place - 8 : place])
    class_uid = data[12:16] in _SOP_CLASS_UIDS and data[17:20] == b"\x00\x00\x00"
    if (
        keyword is not None
        and data[:8] == b"\x00\x00\x00\x00\x04\x00\x00\x00"
        and (place == _PLACE or class_uid)
        and data[place - 18 : place - 10] == _COMMAND_FIELD_HEADER
        and data.count(data[place - 8 : place], 0, tail) == 1
    ):
        try:
            command = _decode(data[:tail])
        except ProtocolViolation:
            return  # what looked like the instance UID is part of another value
        if "AffectedSOPInstanceUID" not in command:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[rest] = command, keyword


def _decode(data: bytes) -> CommandSet:
    command = CommandSet()
    offset, end = 0, len(data)
    unpack, decoders = _ELEMENT.unpack_from, _DECODERS
    try:
        while offset < end:
            group, element, length = unpack(data, offset)
            start = offset + 8
            offset = start + length
            if group or offset > end:
                _refuse(group, element, length, end - start)
            if element in decoders:
                keyword, is_us, decoder = decoders[element]
                if is_us and length == 2:
                    command[keyword] = data[start] | data[start + 1] << 8
                else:
                    command[keyword] = decoder(data[start:offset])
    except struct.error:
        raise ProtocolViolation(f"command set ends within an element at {offset}") from None
    if "CommandField" not in command:
        raise ProtocolViolation("command set without a Command Field")
    return command


# How to encode the command sets of each shape that was met: one step for each run of US
# elements, which are the most, and one for each element of another VR.
Step = Callable[[Mapping[str, Any]], bytes]
_STEPS: dict[tuple[str, ...], tuple[Step, ...]] = {}


def _steps(shape: tuple[str, ...]) -> tuple[Step, ...]:
    """Work out the steps of a shape, and remember them. Raises `KeyError` for a bad keyword."""
    steps: list[Step] = []
    run: list[str] = []
    for keyword in sorted(shape, key=_ORDER.__getitem__):
        if _VRS[keyword] == "US":
            run.append(keyword)
            continue
        if run:
            steps.append(_run_of_us(tuple(run)))
            run = []
        steps.append(_single(keyword))
    if run:
        steps.append(_run_of_us(tuple(run)))
    _STEPS[shape] = tuple(steps)
    return _STEPS[shape]


def _single(keyword: str) -> Step:
    encoder = _ENCODERS[keyword]
    return lambda command: encoder(command[keyword])


def _run_of_us(keywords: tuple[str, ...]) -> Step:
    pack = struct.Struct("<" + "HHIH" * len(keywords)).pack
    template = [part for keyword in keywords for part in (0, _ORDER[keyword], 2, 0)]
    places = tuple(zip(range(3, len(template), 4), keywords, strict=True))

    def step(command: Mapping[str, Any]) -> bytes:
        fields = template.copy()
        for place, keyword in places:
            fields[place] = command[keyword]
        return pack(*fields)

    return step


def _refuse(group: int, element: int, length: int, left: int) -> NoReturn:
    if group:
        raise ProtocolViolation(f"element ({group:04X},{element:04X}) in a command set")
    raise ProtocolViolation(
        f"command element (0000,{element:04X}) of {length} octets where {left} are left"
    )


# --- values


def _encode_uid(element: int) -> Callable[[str], bytes]:
    def encode_uid(value: str) -> bytes:
        # Not ASCII: a response has to repeat the UID of its request, however wrong that is.
        data = value.encode("latin-1")
        if not data:
            return b""
        if len(data) & 1:
            data += b"\x00"
        return _ELEMENT.pack(0, element, len(data)) + data

    return encode_uid


def _encode_class_uid(element: int) -> Callable[[str], bytes]:
    """SOP classes are few, and each is named many times."""
    encode_uid = _encode_uid(element)
    remembered = functools.lru_cache(256)(encode_uid)
    return lambda value: remembered(value) if len(value) <= 64 else encode_uid(value)


def _encode_ae_title(element: int) -> Callable[[str], bytes]:
    def encode_ae_title(value: str) -> bytes:
        data = value.encode("latin-1")
        if len(data) > 16:
            raise ValueError(f"AE title {value!r} has over 16 characters")
        return _padded(element, data)

    return encode_ae_title


def _encode_comment(element: int) -> Callable[[str], bytes]:
    """Whatever text comes, one line of at most 64 characters of the default repertoire goes."""

    def encode_comment(value: str) -> bytes:
        data = _NOT_IN_A_COMMENT.sub("?", " ".join(value.split())).encode("ascii")
        return _padded(element, data[:ERROR_COMMENT_LENGTH])

    return encode_comment


def _padded(element: int, data: bytes) -> bytes:
    if not data:
        return b""
    if len(data) & 1:
        data += b" "
    return _ELEMENT.pack(0, element, len(data)) + data


def _encode_at(element: int) -> Callable[[Iterable[int]], bytes]:
    def encode_at(value: Iterable[int]) -> bytes:
        data = b"".join(_TAG.pack(tag >> 16, tag & 0xFFFF) for tag in value)
        if not data:
            return b""
        return _ELEMENT.pack(0, element, len(data)) + data

    return encode_at


def _decode_uid(data: bytes) -> str:
    return data.rstrip(b"\x00 ").decode("latin-1")


def _decode_text(data: bytes) -> str:
    return data.strip(b"\x00 ").decode("latin-1")


def _decode_us(data: bytes) -> NoReturn:
    raise ProtocolViolation(f"US command element of {len(data)} octets")


def _decode_ul(data: bytes) -> int:
    if len(data) != 4:
        raise ProtocolViolation(f"UL command element of {len(data)} octets")
    return int.from_bytes(data, "little")


def _decode_at(data: bytes) -> tuple[int, ...]:
    if len(data) % 4:
        raise ProtocolViolation(f"AT command element of {len(data)} octets")
    return tuple(group << 16 | element for group, element in _TAG.iter_unpack(data))


def _encode_nothing(_value: object) -> bytes:
    return b""  # the group length is worked out, whatever was given


_ENCODER_OF_VR: dict[str, Callable[[int], Callable[[Any], bytes]]] = {
    "UI": _encode_uid,
    "AE": _encode_ae_title,
    "LO": _encode_comment,
    "AT": _encode_at,
    "UL": lambda _element: _encode_nothing,
}
_DECODER_OF_VR: dict[str, Callable[[bytes], Any]] = {
    "UI": _decode_uid,
    "AE": _decode_text,
    "LO": _decode_text,
    "US": _decode_us,
    "AT": _decode_at,
    "UL": _decode_ul,
}
_ENCODERS = {
    keyword: _ENCODER_OF_VR[vr](element) for element, keyword, vr in ELEMENTS if vr != "US"
}
_ENCODERS |= {
    keyword: _encode_class_uid(element)
    for element, keyword, _vr in ELEMENTS
    if keyword.endswith("SOPClassUID")
}
_DECODERS = {
    element: (keyword, vr == "US", _DECODER_OF_VR[vr]) for element, keyword, vr in ELEMENTS
}
_ORDER = {keyword: element for element, keyword, _vr in ELEMENTS}
_VRS = {keyword: vr for _element, keyword, vr in ELEMENTS}
_KEYWORDS = frozenset(_ORDER)
