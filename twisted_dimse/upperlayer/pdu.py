"""The seven PDUs of PS3.8 9.3. Their items are in `items`, and can be had from here as well.

Each is a frozen value that knows its two directions: ``encode()`` gives its octets, `decode` the
value back. All numbers are big endian.

    pdu = AssociateRQ("ARCHIVE", "MODALITY", contexts, user_information)
    assert decode(pdu.encode()[0], pdu.encode()[6:]) == pdu

What breaks a rule of layout raises `ProtocolViolation` naming the item and its offset.
Items may come in any order; reserved fields are never tested.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from twisted_dimse.errors import ProtocolViolation
from twisted_dimse.uids import APPLICATION_CONTEXT
from twisted_dimse.upperlayer.fields import (
    Reader,
    ae_title,
    each_item,
    encode_item,
    read_ae_title,
    read_uid,
)
from twisted_dimse.upperlayer.items import (
    AsynchronousOperationsWindow,
    ContextResult,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    ProposedContext,
    RoleSelection,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentity,
    UserIdentityResponse,
    UserItem,
    decode_items,
    user_items,
)

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA_TF = 1, 2, 3, 4
RELEASE_RQ, RELEASE_RP, ABORT = 5, 6, 7

__all__ = [
    "ABORT",
    "ASSOCIATE_AC",
    "ASSOCIATE_RJ",
    "ASSOCIATE_RQ",
    "PDU",
    "P_DATA_TF",
    "RELEASE_RP",
    "RELEASE_RQ",
    "Abort",
    "AssociateAC",
    "AssociateRJ",
    "AssociateRQ",
    "AsynchronousOperationsWindow",
    "ContextResult",
    "ImplementationClassUID",
    "ImplementationVersionName",
    "MaximumLength",
    "PDataTF",
    "PresentationDataValue",
    "ProposedContext",
    "ReleaseRP",
    "ReleaseRQ",
    "RoleSelection",
    "SOPClassCommonExtendedNegotiation",
    "SOPClassExtendedNegotiation",
    "UserIdentity",
    "UserIdentityResponse",
    "UserItem",
    "check_header",
    "check_type",
    "decode",
    "decode_items",
]

_PDU_HEADER = struct.Struct(">BxI")
_UINT16 = struct.Struct(">H")
_PDV_HEADER = struct.Struct(">IBB")

T = TypeVar("T")


class _UserInformation:
    """Look-up in the user information, shared by request and acceptance."""

    __slots__ = ()
    user_information: tuple[UserItem, ...]

    def items(self, kind: type[T]) -> list[T]:
        """All user information items of one class, in order."""
        return [item for item in self.user_information if isinstance(item, kind)]

    def item(self, kind: type[T]) -> T | None:
        """The first user information item of one class, or None."""
        return next((item for item in self.user_information if isinstance(item, kind)), None)


@dataclass(frozen=True, slots=True)
class AssociateRQ(_UserInformation):
    """A-ASSOCIATE-RQ (PS3.8 9.3.2)."""

    kind: ClassVar[int] = ASSOCIATE_RQ
    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[ProposedContext, ...]
    user_information: tuple[UserItem, ...]
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1
    # The 32 reserved octets and both titles as sent, which the acceptance repeats.
    echo: bytes = field(default=b"", repr=False, compare=False)

    def encode(self) -> bytes:
        titles = ae_title(self.called_ae_title) + ae_title(self.calling_ae_title)
        return _associate_pdu(self, titles + bytes(32))

    @classmethod
    def decode(cls, body: memoryview) -> AssociateRQ:
        reader = Reader("A-ASSOCIATE-RQ", body)
        version, echo = _fixed_fields(reader)
        name, contexts, user_items = _variable_items(reader, ProposedContext)
        if not contexts:
            raise ProtocolViolation("A-ASSOCIATE-RQ: no presentation context, at least 1 is due")
        identifiers = {context.id for context in contexts}
        if len(identifiers) != len(contexts) or any(
            not identifier & 1 for identifier in identifiers
        ):
            raise ProtocolViolation("A-ASSOCIATE-RQ: presentation context IDs not odd and unique")
        called, calling = read_ae_title(echo[:16]), read_ae_title(echo[16:32])
        return cls(called, calling, contexts, user_items, name, version, bytes(echo))


@dataclass(frozen=True, slots=True)
class AssociateAC(_UserInformation):
    """A-ASSOCIATE-AC (PS3.8 9.3.3). The titles repeat the request's and are not tested."""

    kind: ClassVar[int] = ASSOCIATE_AC
    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[ContextResult, ...]
    user_information: tuple[UserItem, ...]
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1
    echo: bytes = field(default=b"", repr=False, compare=False)

    def encode(self) -> bytes:
        titles = f"{self.called_ae_title:16}{self.calling_ae_title:16}".encode("latin-1")
        return _associate_pdu(self, self.echo or titles + bytes(32))

    @classmethod
    def decode(cls, body: memoryview) -> AssociateAC:
        reader = Reader("A-ASSOCIATE-AC", body)
        version, echo = _fixed_fields(reader)
        name, contexts, user_items = _variable_items(reader, ContextResult)
        called, calling = read_ae_title(echo[:16]), read_ae_title(echo[16:32])
        return cls(called, calling, contexts, user_items, name, version, bytes(echo))


@dataclass(frozen=True, slots=True)
class AssociateRJ:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    kind: ClassVar[int] = ASSOCIATE_RJ
    result: int
    source: int
    reason: int

    def encode(self) -> bytes:
        body = bytes((0, self.result, self.source, self.reason))
        return _PDU_HEADER.pack(self.kind, 4) + body

    @classmethod
    def decode(cls, body: memoryview) -> AssociateRJ:
        return cls(body[1], body[2], body[3])


@dataclass(frozen=True, slots=True)
class PresentationDataValue:
    """One fragment of a command set or data set (PS3.8 9.3.5.1 and annex E)."""

    context_id: int
    is_command: bool
    is_last: bool
    fragment: bytes

    def encode(self) -> bytes:
        control = self.is_command | self.is_last << 1
        return _PDV_HEADER.pack(len(self.fragment) + 2, self.context_id, control) + self.fragment


@dataclass(frozen=True, slots=True)
class PDataTF:
    """P-DATA-TF (PS3.8 9.3.5), whole. The hot path never makes one: see `framing`."""

    kind: ClassVar[int] = P_DATA_TF
    values: tuple[PresentationDataValue, ...]

    def encode(self) -> bytes:
        body = b"".join(value.encode() for value in self.values)
        return _PDU_HEADER.pack(self.kind, len(body)) + body

    @classmethod
    def decode(cls, body: memoryview) -> PDataTF:
        reader = Reader("P-DATA-TF", body)
        values: list[PresentationDataValue] = []
        while reader.offset < len(body) or not values:
            length = reader.uint32("length of a presentation data value")
            if length < 2:
                raise ProtocolViolation(f"P-DATA-TF: presentation data value of length {length}")
            context, control = reader.uint8("context ID"), reader.uint8("control header")
            fragment = bytes(reader.take(length - 2, "fragment"))
            values.append(
                PresentationDataValue(context, bool(control & 1), bool(control & 2), fragment)
            )
        return cls(tuple(values))


@dataclass(frozen=True, slots=True)
class ReleaseRQ:
    """A-RELEASE-RQ (PS3.8 9.3.6)."""

    kind: ClassVar[int] = RELEASE_RQ

    def encode(self) -> bytes:
        return _PDU_HEADER.pack(self.kind, 4) + bytes(4)

    @classmethod
    def decode(cls, _body: memoryview) -> ReleaseRQ:
        return cls()


@dataclass(frozen=True, slots=True)
class ReleaseRP:
    """A-RELEASE-RP (PS3.8 9.3.7)."""

    kind: ClassVar[int] = RELEASE_RP

    def encode(self) -> bytes:
        return _PDU_HEADER.pack(self.kind, 4) + bytes(4)

    @classmethod
    def decode(cls, _body: memoryview) -> ReleaseRP:
        return cls()


@dataclass(frozen=True, slots=True)
class Abort:
    """A-ABORT (PS3.8 9.3.8): `source` 0 service-user, 2 service-provider."""

    kind: ClassVar[int] = ABORT
    source: int
    reason: int

    def encode(self) -> bytes:
        return _PDU_HEADER.pack(self.kind, 4) + bytes((0, 0, self.source, self.reason))

    @classmethod
    def decode(cls, body: memoryview) -> Abort:
        return cls(body[2], body[3])


PDU = AssociateRQ | AssociateAC | AssociateRJ | PDataTF | ReleaseRQ | ReleaseRP | Abort
_PDUS: dict[int, type[PDU]] = {
    pdu.kind: pdu
    for pdu in (AssociateRQ, AssociateAC, AssociateRJ, PDataTF, ReleaseRQ, ReleaseRP, Abort)
}
_FIXED_LENGTH = (ASSOCIATE_RJ, RELEASE_RQ, RELEASE_RP, ABORT)
_SHORTEST_ASSOCIATE = 68


def check_type(kind: int) -> None:
    """Refuse a PDU of a type that PS3.8 9.3.1 does not have."""
    if kind not in _PDUS:
        raise ProtocolViolation(f"PDU of unknown type {kind:02X}H", reason=1)


def check_header(kind: int, length: int) -> None:
    """Refuse a PDU that its six header octets already show to be wrong (PS3.8 9.3.1)."""
    check_type(kind)
    if kind in _FIXED_LENGTH and length != 4:
        raise ProtocolViolation(f"PDU of type {kind:02X}H with length {length} instead of 4")
    if kind in (ASSOCIATE_RQ, ASSOCIATE_AC) and length < _SHORTEST_ASSOCIATE:
        raise ProtocolViolation(f"PDU of type {kind:02X}H with length {length}, under 68")


def decode(kind: int, body: bytes | bytearray | memoryview) -> PDU:
    """The PDU of type ``kind`` whose octets after the six of the header are ``body``."""
    check_header(kind, len(body))
    return _PDUS[kind].decode(memoryview(body))


def _associate_pdu(pdu: AssociateRQ | AssociateAC, fixed: bytes) -> bytes:
    user = b"".join(item.encode() for item in sorted(pdu.user_information, key=_kind))
    body = b"".join(
        (
            _UINT16.pack(pdu.protocol_version) + bytes(2),
            fixed,
            encode_item(0x10, pdu.application_context.encode("ascii")),
            *(context.encode() for context in pdu.contexts),
            encode_item(0x50, user),
        )
    )
    return _PDU_HEADER.pack(pdu.kind, len(body)) + body


def _kind(item: UserItem) -> int:
    return item.kind


def _fixed_fields(reader: Reader) -> tuple[int, memoryview]:
    version = reader.uint16("protocol version")
    reader.take(2, "reserved")
    return version, reader.take(64, "AE titles")


def _variable_items(
    reader: Reader, context_class: type[T]
) -> tuple[str, tuple[T, ...], tuple[UserItem, ...]]:
    """Application context, presentation contexts and user information, in whatever order."""
    names: list[str] = []
    contexts: list[T] = []
    user: list[UserItem] = []
    wanted = context_class.kind  # type: ignore[attr-defined]
    for kind, body in each_item(reader.rest(), reader.what):
        if kind == 0x10:
            names.append(read_uid(body))
        elif kind == wanted:
            item = Reader("presentation context", body)
            contexts.append(context_class.decode(item))  # type: ignore[attr-defined]
        elif kind == 0x50:
            user.extend(user_items(body))
    if len(names) != 1:
        raise ProtocolViolation(f"{reader.what}: {len(names)} application context items, 1 is due")
    if len(contexts) > 128:
        raise ProtocolViolation(f"{reader.what}: {len(contexts)} presentation contexts, over 128")
    return names[0], tuple(contexts), tuple(user)
