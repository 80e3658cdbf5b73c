"""The items and sub-items of the association PDUs: presentation contexts (PS3.8 9.3.2.2, 9.3.3.2)
and user information (PS3.8 annex D, PS3.7 annex D.3.3).

Each is a frozen value that knows its two directions: ``encode()`` gives its octets, `decode_items`
gives values back.

    item = MaximumLength(16384)
    assert decode_items(item.encode()) == [item]

Items of unknown type are skipped (PS3.8 9.3.1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from twisted_dimse.errors import ProtocolViolation
from twisted_dimse.upperlayer.fields import (
    Reader,
    bytes16,
    each_item,
    encode_item,
    read_uid,
    text16,
)

_UINT16 = struct.Struct(">H")
_UINT32 = struct.Struct(">I")

# --- user information, PS3.8 annex D and PS3.7 annex D.3.3 -------------------------------


@dataclass(frozen=True, slots=True)
class MaximumLength:
    """Maximum Length 51H (PS3.8 D.1): the most octets of one P-DATA-TF that its
    sender receives, the six of the header not counted; 0 means no limit."""

    kind: ClassVar[int] = 0x51
    octets: int

    def encode(self) -> bytes:
        return encode_item(self.kind, _UINT32.pack(self.octets))

    @classmethod
    def decode(cls, reader: Reader) -> MaximumLength:
        return cls(reader.uint32("maximum length"))


@dataclass(frozen=True, slots=True)
class ImplementationClassUID:
    """Implementation Class UID 52H (PS3.7 D.3.3.2)."""

    kind: ClassVar[int] = 0x52
    uid: str

    def encode(self) -> bytes:
        return encode_item(self.kind, self.uid.encode("ascii"))

    @classmethod
    def decode(cls, reader: Reader) -> ImplementationClassUID:
        return cls(read_uid(reader.rest()))


@dataclass(frozen=True, slots=True)
class AsynchronousOperationsWindow:
    """Asynchronous Operations Window 53H (PS3.7 D.3.3.3), seen from the requestor; 0 means
    no limit."""

    kind: ClassVar[int] = 0x53
    invoked: int
    performed: int

    def encode(self) -> bytes:
        return encode_item(self.kind, _UINT16.pack(self.invoked) + _UINT16.pack(self.performed))

    @classmethod
    def decode(cls, reader: Reader) -> AsynchronousOperationsWindow:
        return cls(reader.uint16("operations invoked"), reader.uint16("operations performed"))


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """SCP/SCU Role Selection 54H (PS3.7 D.3.3.4); both roles are the requestor's."""

    kind: ClassVar[int] = 0x54
    sop_class_uid: str
    scu: bool
    scp: bool

    def encode(self) -> bytes:
        return encode_item(self.kind, text16(self.sop_class_uid) + bytes((self.scu, self.scp)))

    @classmethod
    def decode(cls, reader: Reader) -> RoleSelection:
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
        return encode_item(self.kind, self.name.encode("ascii"))

    @classmethod
    def decode(cls, reader: Reader) -> ImplementationVersionName:
        return cls(bytes(reader.rest()).rstrip(b"\x00 ").decode("latin-1"))


@dataclass(frozen=True, slots=True)
class SOPClassExtendedNegotiation:
    """SOP Class Extended Negotiation 56H (PS3.7 D.3.3.5); the meaning of `information` is the
    service class's own."""

    kind: ClassVar[int] = 0x56
    sop_class_uid: str
    information: bytes

    def encode(self) -> bytes:
        return encode_item(self.kind, text16(self.sop_class_uid) + self.information)

    @classmethod
    def decode(cls, reader: Reader) -> SOPClassExtendedNegotiation:
        return cls(reader.uid16("SOP class UID"), bytes(reader.rest()))


@dataclass(frozen=True, slots=True)
class SOPClassCommonExtendedNegotiation:
    """SOP Class Common Extended Negotiation 57H (PS3.7 D.3.3.6): what a SOP class is like."""

    kind: ClassVar[int] = 0x57
    sop_class_uid: str
    service_class_uid: str
    related_general_sop_class_uids: tuple[str, ...] = ()

    def encode(self) -> bytes:
        related = b"".join(text16(uid) for uid in self.related_general_sop_class_uids)
        return encode_item(
            self.kind,
            text16(self.sop_class_uid) + text16(self.service_class_uid) + bytes16(related),
        )

    @classmethod
    def decode(cls, reader: Reader) -> SOPClassCommonExtendedNegotiation:
        sop_class = reader.uid16("SOP class UID")
        service_class = reader.uid16("service class UID")
        related = Reader(reader.what, memoryview(reader.bytes16("related general SOP classes")))
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
        """A user ``name`` alone; with ``response`` the acceptor is asked for an answer."""
        return cls(1, name.encode(), response=response)

    @classmethod
    def password(cls, name: str, passcode: str, *, response: bool = False) -> UserIdentity:
        """A user ``name`` with a ``passcode``, which goes out as it is; ``response`` as before."""
        return cls(2, name.encode(), passcode.encode(), response=response)

    @classmethod
    def kerberos(cls, ticket: bytes, *, response: bool = False) -> UserIdentity:
        """A Kerberos service ``ticket``, encoded; a ``response`` is a server ticket."""
        return cls(3, ticket, response=response)

    @classmethod
    def saml(cls, assertion: str | bytes, *, response: bool = False) -> UserIdentity:
        """A SAML ``assertion``, XML in UTF-8; a ``response`` is a SAML response."""
        return cls(4, _octets(assertion), response=response)

    @classmethod
    def jwt(cls, token: str | bytes, *, response: bool = False) -> UserIdentity:
        """A JSON Web ``token``; with ``response`` the acceptor is asked for an answer."""
        return cls(5, _octets(token), response=response)

    def encode(self) -> bytes:
        """The item. Raises `ValueError` for a field of over 65,535 octets."""
        fields = bytes16(self.primary) + bytes16(self.secondary)
        return encode_item(self.kind, bytes((self.type, self.response)) + fields)

    @classmethod
    def decode(cls, reader: Reader) -> UserIdentity:
        """From the body of an item, which ``reader`` has. Raises `ProtocolViolation`."""
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
        return encode_item(self.kind, bytes16(self.response))

    @classmethod
    def decode(cls, reader: Reader) -> UserIdentityResponse:
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
        body = bytes((self.id, 0, 0, 0)) + encode_item(0x30, self.abstract_syntax.encode("ascii"))
        body += b"".join(encode_item(0x40, uid.encode("ascii")) for uid in self.transfer_syntaxes)
        return encode_item(self.kind, body)

    @classmethod
    def decode(cls, reader: Reader) -> ProposedContext:
        identifier = reader.uint8("presentation context ID")
        reader.take(3, "reserved")
        abstract: list[str] = []
        transfer: list[str] = []
        for kind, body in each_item(reader.rest(), reader.what):
            if kind == 0x30:
                abstract.append(read_uid(body))
            elif kind == 0x40:
                transfer.append(read_uid(body))
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
        return encode_item(
            self.kind, body + encode_item(0x40, self.transfer_syntax.encode("ascii"))
        )

    @classmethod
    def decode(cls, reader: Reader) -> ContextResult:
        identifier = reader.uint8("presentation context ID")
        reader.take(1, "reserved")
        result = reader.uint8("result")
        reader.take(1, "reserved")
        if result:
            return cls(identifier, result, "")
        transfer = [
            read_uid(body) for kind, body in each_item(reader.rest(), reader.what) if kind == 0x40
        ]
        if len(transfer) != 1:
            raise ProtocolViolation(
                f"{reader.what} {identifier}: accepted with {len(transfer)} transfer syntaxes"
            )
        return cls(identifier, result, transfer[0])


def decode_items(data: bytes) -> list[ProposedContext | ContextResult | UserItem]:
    """The presentation context and user information items in ``data``, unknown ones skipped."""
    found: list[ProposedContext | ContextResult | UserItem] = []
    for kind, body in each_item(memoryview(data), "items"):
        if kind == ProposedContext.kind:
            found.append(ProposedContext.decode(Reader("presentation context", body)))
        elif kind == ContextResult.kind:
            found.append(ContextResult.decode(Reader("presentation context", body)))
        elif kind in _USER_ITEMS:
            found.append(_USER_ITEMS[kind].decode(Reader(f"item {kind:02X}H", body)))
    return found


def user_items(body: memoryview) -> Iterator[UserItem]:
    for kind, part in each_item(body, "user information"):
        if kind in _USER_ITEMS:
            yield _USER_ITEMS[kind].decode(Reader(f"user information item {kind:02X}H", part))
