"""One value of each PDU, and octets of association PDUs that no value of ours would make."""

from __future__ import annotations

import struct

from twisted_dimse.upperlayer import pdu

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"

MAXIMUM = pdu.MaximumLength(28672)
IMPLEMENTATION = pdu.ImplementationClassUID("1.2.826.0.1.3680043.10.1234.7")
PROPOSED = pdu.ProposedContext(5, CT, (IMPLICIT, "1.2.840.10008.1.2.1"))
ACCEPTED = pdu.ContextResult(5, 0, IMPLICIT)
REQUEST = pdu.AssociateRQ("ARCHIVE", "MODALITY_1", (PROPOSED,), (MAXIMUM, IMPLEMENTATION))
ACCEPTANCE = pdu.AssociateAC("ARCHIVE", "MODALITY_1", (ACCEPTED,), (MAXIMUM, IMPLEMENTATION))
COMMON = pdu.SOPClassCommonExtendedNegotiation(CT, "1.2.840.10008.4.2", ("1.2.3", "1.2.3.4"))
DATA = pdu.PDataTF((pdu.PresentationDataValue(5, True, True, b"\x01\x02\x03\x04"),))

PDUS: dict[str, pdu.PDU] = {
    "A-ASSOCIATE-RQ": REQUEST,
    "A-ASSOCIATE-AC": ACCEPTANCE,
    "A-ASSOCIATE-RJ": pdu.AssociateRJ(2, 3, 1),
    "P-DATA-TF": DATA,
    "A-RELEASE-RQ": pdu.ReleaseRQ(),
    "A-RELEASE-RP": pdu.ReleaseRP(),
    "A-ABORT": pdu.Abort(2, 6),
}


def decoded(octets: bytes) -> pdu.PDU:
    return pdu.decode(octets[0], octets[6:])


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def associate(kind: int, items: bytes) -> bytes:
    """An association PDU of any items."""
    body = struct.pack(">H2x16s16s32x", 1, b"ARCHIVE".ljust(16), b"WS".ljust(16)) + items
    return struct.pack(">BxI", kind, len(body)) + body


# Items as octets.
NAME = item(0x10, APPLICATION_CONTEXT.encode())
USER = item(0x50, MAXIMUM.encode())
ABSTRACT = item(0x30, CT.encode())
TRANSFER = item(0x40, IMPLICIT.encode())
