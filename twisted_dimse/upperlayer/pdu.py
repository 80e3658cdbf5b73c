"""The seven PDUs of PS3.8 9.3, their items, and the user information of PS3.7 annex D.3.

Each structure is a frozen value that knows its two directions: ``encode()`` gives its
octets, `decode` (for PDUs) and `decode_items` give the value back. All numbers are big endian.

    pdu = AssociateRQ("ARCHIVE", "MODALITY", contexts, user_information)
    assert decode(pdu.encode()[0], pdu.encode()[6:]) == pdu

What breaks a rule of layout raises `ProtocolViolation` naming the item and its offset.
Items of unknown type are skipped (PS3.8 9.3.1); reserved fields are never tested.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from twisted_dimse.errors import ProtocolViolation
from twisted_dimse.uids import APPLICATION_CONTEXT

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA_TF = 1, 2, 3, 4
RELEASE_RQ, RELEASE_RP, ABORT = 5, 6, 7

_PDU_HEADER = struct.Struct(">BxI")
_ITEM_HEADER = struct.Struct(">BxH")
_UINT16 = struct.Struct(">H")
_UINT32 = struct.Struct(">I")
_PDV_HEADER = struct.Struct(">IBB")

T = TypeVar("T")


def _item(kind: int, body: bytes) -> bytes:
    if len(body) > 0xFFFF:
        raise ValueError(f"item {kind:02X}H: {len(body)} octets do not fit its length field")
    return _ITEM_HEADER.pack(kind, len(body)) + body


def _text16(text: str) -> bytes:
    """A text with a 16-bit length before it."""
    data = text.encode("ascii")
    return _UINT16.pack(len(data)) + data


def _bytes16(data: bytes) -> bytes:
    if len(data) > 0xFFFF:
        raise ValueError(f"{len(data)} octets do not fit a 16-bit length field")
    return _UINT16.pack(len(data)) + data


class _Reader:
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
        return _uid(self.bytes16(name))

    def rest(self) -> memoryview:
        return self.take(len(self.data) - self.offset, "the rest")


def _uid(data: bytes | memoryview) -> str:
    """UIDs are not padded in PDUs; some senders do it all the same, which is let pass."""
    return bytes(data).rstrip(b"\x00 ").decode("latin-1")


def _ae_title(title: str) -> bytes:
    if not 0 < len(title) <= 16 or not title.isascii() or not title.isprintable():
        raise ValueError(f"AE title {title!r} does not have 1 to 16 printable ASCII characters")
    if title.isspace() or "\\" in title:
        raise ValueError(f"AE title {title!r} is blank or has a backslash")
    return title.encode("ascii").ljust(16)


def _read_ae_title(data: memoryview) -> str:
    """Spaces around a title carry no meaning; NULs, which some senders pad with, neither."""
    return bytes(data).split(b"\x00", 1)[0].decode("latin-1").strip(" ")


# --- user information, PS3.8 annex D and PS3.7 annex D.3.3 -------------------------------


@dataclass(frozen=True, slots=True)
class MaximumLength:
    """Maximum Length 51H (PS3.8 D.1): the most octets of one P-DATA-TF that its
    sender receives, the six of the header not counted; 0 means no limit."""

    kind: ClassVar[int] = 0x51
    octets: int

    def encode(self) -> bytes:
        return _item(self.kind, _UINT32.pack(self.octets))

    @classmethod
    def decode(cls, reader: _Reader) -> MaximumLength:
        return cls(reader.uint32("maximum length"))


@dataclass(frozen=True, slots=True)
class ImplementationClassUID:
    """Implementation Class UID 52H (PS3.7 D.3.3.2)."""

    kind: ClassVar[int] = 0x52
    uid: str

    def encode(self) -> bytes:
        return _item(self.kind, self.uid.encode("ascii"))

    @classmethod
    def decode(cls, reader: _Reader) -> ImplementationClassUID:
        return cls(_uid(reader.rest()))


@dataclass(frozen=True, slots=True)
class AsynchronousOperationsWindow:
    """Asynchronous Operations Window 53H (PS3.7 D.3.3.3), seen from the requestor; 0 means
    no limit."""

    kind: ClassVar[int] = 0x53
    invoked: int
    performed: int

    def encode(self) -> bytes:
        return _item(self.kind, _UINT16.pack(self.invoked) + _UINT16.pack(self.performed))

    @classmethod
    def decode(cls, reader: _Reader) -> AsynchronousOperationsWindow:
        return cls(reader.uint16("operations invoked"), reader.uint16("operations performed"))


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """SCP/SCU Role Selection 54H (PS3.7 D.3.3.4); both roles are the requestor's."""

    kind: ClassVar[int] = 0x54
    sop_class_uid: str
    scu: bool
    scp: bool

    def encode(self) -> bytes:
        return _item(self.kind, _text16(self.sop_class_uid) + bytes((self.scu, self.scp)))

    @classmethod
    def decode(cls, reader: _Reader) -> RoleSelection:
        uid = reader.uid16("SOP class UID")
        return cls(uid, reader.uint8("SCU role") == 1, reader.uint8("SCP role") == 1)


@dataclass(frozen=True, slots=True)
class ImplementationVersionName:
    """Implementation Version Name 55H (PS3.7 D.3.3.2): 1 to 16 characters."""

    kind: ClassVar[int] = 0x55
    name: str

    def encode(self) -> bytes:
        if not 0 < len(self.name) <= 16:
            raise ValueError(f"implementation version name {self.name!r}: 1 to 16 characters fit")
        return _item(self.kind, self.name.encode("ascii"))

    @classmethod
    def decode(cls, reader: _Reader) -> ImplementationVersionName:
        return cls(bytes(reader.rest()).rstrip(b"\x00 ").decode("latin-1"))


@dataclass(frozen=True, slots=True)
class SOPClassExtendedNegotiation:
    """SOP Class Extended Negotiation 56H (PS3.7 D.3.3.5); the meaning of `information` is the
    service class's own."""

    kind: ClassVar[int] = 0x56
    sop_class_uid: str
    information: bytes

    def encode(self) -> bytes:
        return _item(self.kind, _text16(self.sop_class_uid) + self.information)

    @classmethod
    def decode(cls, reader: _Reader) -> SOPClassExtendedNegotiation:
        return cls(reader.uid16("SOP class UID"), bytes(reader.rest()))


@dataclass(frozen=True, slots=True)
class SOPClassCommonExtendedNegotiation:
    """SOP Class Common Extended Negotiation 57H (PS3.7 D.3.3.6): what a SOP class is like."""

    kind: ClassVar[int] = 0x57
    sop_class_uid: str
    service_class_uid: str
    related_general_sop_class_uids: tuple[str, ...] = ()

    def encode(self) -> bytes:
        related = b"".join(_text16(uid) for uid in self.related_general_sop_class_uids)
        return _item(
            self.kind,
            _text16(self.sop_class_uid) + _text16(self.service_class_uid) + _bytes16(related),
        )

    @classmethod
    def decode(cls, reader: _Reader) -> SOPClassCommonExtendedNegotiation:
        sop_class = reader.uid16("SOP class UID")
        service_class = reader.uid16("service class UID")
        related = _Reader(reader.what, memoryview(reader.bytes16("related general SOP classes")))
        uids = []
        while related.offset < len(related.data):
            uids.append(related.uid16("related general SOP class UID"))
        return cls(sop_class, service_class, tuple(uids))


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """User Identity 58H (PS3.7 D.3.3.7.1).

    `type` is 1 (user name), 2 (user name and passcode), 3 (Kerberos ticket), 4 (SAML assertion)
    or 5 (JSON Web Token); `response` asks the acceptor for an answer. The field values are kept
    out of ``repr()``.
    """

    kind: ClassVar[int] = 0x58
    type: int
    primary: bytes = field(repr=False)
    secondary: bytes = field(default=b"", repr=False)
    response: bool = False

    @classmethod
    def username(cls, name: str, *, response: bool = False) -> UserIdentity:
        return cls(1, name.encode(), response=response)

    @classmethod
    def password(cls, name: str, passcode: str, *, response: bool = False) -> UserIdentity:
        return cls(2, name.encode(), passcode.encode(), response=response)

    @classmethod
    def kerberos(cls, ticket: bytes, *, response: bool = False) -> UserIdentity:
        return cls(3, ticket, response=response)

    @classmethod
    def saml(cls, assertion: str | bytes, *, response: bool = False) -> UserIdentity:
        return cls(4, _octets(assertion), response=response)

    @classmethod
    def jwt(cls, token: str | bytes, *, response: bool = False) -> UserIdentity:
        return cls(5, _octets(token), response=response)

    def encode(self) -> bytes:
        fields = _bytes16(self.primary) + _bytes16(self.secondary)
        return _item(self.kind, bytes((self.type, self.response)) + fields)

    @classmethod
    def decode(cls, reader: _Reader) -> UserIdentity:
        kind = reader.uint8("user identity type")
        response = reader.uint8("positive response requested") == 1
        primary = reader.bytes16("primary field")
        return cls(kind, primary, reader.bytes16("secondary field"), response)


def _octets(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


@dataclass(frozen=True, slots=True)
class UserIdentityResponse:
    """User Identity answer 59H (PS3.7 D.3.3.7.2)."""

    kind: ClassVar[int] = 0x59
    response: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        return _item(self.kind, _bytes16(self.response))

    @classmethod
    def decode(cls, reader: _Reader) -> UserIdentityResponse:
        return cls(reader.bytes16("server response"))


UserItem = (
    MaximumLength
    | ImplementationClassUID
    | AsynchronousOperationsWindow
    | RoleSelection
    | ImplementationVersionName
    | SOPClassExtendedNegotiation
    | SOPClassCommonExtendedNegotiation
    | UserIdentity
    | UserIdentityResponse
)
_USER_ITEMS: dict[int, type[UserItem]] = {
    item.kind: item
    for item in (
        MaximumLength,
        ImplementationClassUID,
        AsynchronousOperationsWindow,
        RoleSelection,
        ImplementationVersionName,
        SOPClassExtendedNegotiation,
        SOPClassCommonExtendedNegotiation,
        UserIdentity,
        UserIdentityResponse,
    )
}


# --- presentation contexts, PS3.8 9.3.2.2 and 9.3.3.2 ------------------------------------


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """Presentation Context 20H of an A-ASSOCIATE-RQ: an odd `id` of 1 to 255, one abstract
    syntax, one or more transfer syntaxes."""

    kind: ClassVar[int] = 0x20
    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]

    def encode(self) -> bytes:
        body = bytes((self.id, 0, 0, 0)) + _item(0x30, self.abstract_syntax.encode("ascii"))
        body += b"".join(_item(0x40, uid.encode("ascii")) for uid in self.transfer_syntaxes)
        return _item(self.kind, body)

    @classmethod
    def decode(cls, reader: _Reader) -> ProposedContext:
        identifier = reader.uint8("presentation context ID")
        reader.take(3, "reserved")
        abstract: list[str] = []
        transfer: list[str] = []
        for kind, body in _items(reader.rest(), reader.what):
            if kind == 0x30:
                abstract.append(_uid(body))
            elif kind == 0x40:
                transfer.append(_uid(body))
        if len(abstract) != 1 or not transfer:
            raise ProtocolViolation(
                f"{reader.what} {identifier}: {len(abstract)} abstract and {len(transfer)} "
                "transfer syntaxes, 1 and at least 1 are due"
            )
        return cls(identifier, abstract[0], tuple(transfer))


@dataclass(frozen=True, slots=True)
class ContextResult:
    """Presentation Context 21H of an A-ASSOCIATE-AC: `result` 0 accepted, 1 rejected by the
    user, 2 no reason, 3 abstract syntax and 4 transfer syntaxes not supported. The transfer
    syntax means something with result 0 only."""

    kind: ClassVar[int] = 0x21
    id: int
    result: int
    transfer_syntax: str

    def encode(self) -> bytes:
        body = bytes((self.id, 0, self.result, 0))
        return _item(self.kind, body + _item(0x40, self.transfer_syntax.encode("ascii")))

    @classmethod
    def decode(cls, reader: _Reader) -> ContextResult:
        identifier = reader.uint8("presentation context ID")
        reader.take(1, "reserved")
        result = reader.uint8("result")
        reader.take(1, "reserved")
        if result:
            return cls(identifier, result, "")
        transfer = [_uid(body) for kind, body in _items(reader.rest(), reader.what) if kind == 0x40]
        if len(transfer) != 1:
            raise ProtocolViolation(
                f"{reader.what} {identifier}: accepted with {len(transfer)} transfer syntaxes"
            )
        return cls(identifier, result, transfer[0])


# --- PDUs, PS3.8 9.3.2 to 9.3.8 ------------------------------------------------------------


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
        titles = _ae_title(self.called_ae_title) + _ae_title(self.calling_ae_title)
        return _associate_pdu(self, titles + bytes(32))

    @classmethod
    def decode(cls, body: memoryview) -> AssociateRQ:
        reader = _Reader("A-ASSOCIATE-RQ", body)
        version, echo = _fixed_fields(reader)
        name, contexts, user_items = _variable_items(reader, ProposedContext)
        if not contexts:
            raise ProtocolViolation("A-ASSOCIATE-RQ: no presentation context, at least 1 is due")
        identifiers = {context.id for context in contexts}
        if len(identifiers) != len(contexts) or any(
            not identifier & 1 for identifier in identifiers
        ):
            raise ProtocolViolation("A-ASSOCIATE-RQ: presentation context IDs not odd and unique")
        called, calling = _read_ae_title(echo[:16]), _read_ae_title(echo[16:32])
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
        titles = self.called_ae_title.encode("ascii").ljust(16)
        titles += self.calling_ae_title.encode("ascii").ljust(16)
        return _associate_pdu(self, self.echo or titles + bytes(32))

    @classmethod
    def decode(cls, body: memoryview) -> AssociateAC:
        reader = _Reader("A-ASSOCIATE-AC", body)
        version, echo = _fixed_fields(reader)
        name, contexts, user_items = _variable_items(reader, ContextResult)
        called, calling = _read_ae_title(echo[:16]), _read_ae_title(echo[16:32])
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
        reader = _Reader("P-DATA-TF", body)
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


def decode_items(data: bytes) -> list[ProposedContext | ContextResult | UserItem]:
    """The presentation context and user information items in ``data``, unknown ones skipped."""
    found: list[ProposedContext | ContextResult | UserItem] = []
    for kind, body in _items(memoryview(data), "items"):
        if kind == ProposedContext.kind:
            found.append(ProposedContext.decode(_Reader("presentation context", body)))
        elif kind == ContextResult.kind:
            found.append(ContextResult.decode(_Reader("presentation context", body)))
        elif kind in _USER_ITEMS:
            found.append(_USER_ITEMS[kind].decode(_Reader(f"item {kind:02X}H", body)))
    return found


def _associate_pdu(pdu: AssociateRQ | AssociateAC, fixed: bytes) -> bytes:
    user = b"".join(item.encode() for item in sorted(pdu.user_information, key=_kind))
    body = b"".join(
        (
            _UINT16.pack(pdu.protocol_version) + bytes(2),
            fixed,
            _item(0x10, pdu.application_context.encode("ascii")),
            *(context.encode() for context in pdu.contexts),
            _item(0x50, user),
        )
    )
    return _PDU_HEADER.pack(pdu.kind, len(body)) + body


def _kind(item: UserItem) -> int:
    return item.kind


def _fixed_fields(reader: _Reader) -> tuple[int, memoryview]:
    version = reader.uint16("protocol version")
    reader.take(2, "reserved")
    return version, reader.take(64, "AE titles")


def _variable_items(
    reader: _Reader, context_class: type[T]
) -> tuple[str, tuple[T, ...], tuple[UserItem, ...]]:
    """Application context, presentation contexts and user information, in whatever order."""
    names: list[str] = []
    contexts: list[T] = []
    user: list[UserItem] = []
    wanted = context_class.kind  # type: ignore[attr-defined]
    for kind, body in _items(reader.rest(), reader.what):
        if kind == 0x10:
            names.append(_uid(body))
        elif kind == wanted:
            item = _Reader("presentation context", body)
            contexts.append(context_class.decode(item))  # type: ignore[attr-defined]
        elif kind == 0x50:
            user.extend(_user_items(body))
    if len(names) != 1:
        raise ProtocolViolation(f"{reader.what}: {len(names)} application context items, 1 is due")
    if len(contexts) > 128:
        raise ProtocolViolation(f"{reader.what}: {len(contexts)} presentation contexts, over 128")
    return names[0], tuple(contexts), tuple(user)


def _user_items(body: memoryview) -> Iterator[UserItem]:
    for kind, part in _items(body, "user information"):
        if kind in _USER_ITEMS:
            yield _USER_ITEMS[kind].decode(_Reader(f"user information item {kind:02X}H", part))


def _items(data: memoryview, what: str) -> Iterator[tuple[int, memoryview]]:
    reader = _Reader(what, data)
    while reader.offset < len(data):
        kind = reader.uint8("item type")
        reader.take(1, "reserved")
        length = reader.uint16("item length")
        yield kind, reader.take(length, f"item {kind:02X}H")
