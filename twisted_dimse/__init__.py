"""DICOM networking for Twisted: the upper layer (PS3.8) and DIMSE (PS3.7), both roles.

    async with await connect("PACS@127.0.0.1:11112", contexts=[VERIFICATION]) as association:
        await association.echo()

    port = await listen("tcp:11112:interface=127.0.0.1", MyHandler())
"""

from __future__ import annotations

from twisted_dimse.association import Association
from twisted_dimse.client import connect
from twisted_dimse.errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationTimeout,
    ConnectionFailed,
    ConnectionLost,
    ContextNotAccepted,
    DimseError,
    ProtocolViolation,
    StatusError,
)
from twisted_dimse.handler import AssociationRequest, Handler, Request
from twisted_dimse.peer import Peer
from twisted_dimse.protocol import Timeouts
from twisted_dimse.results import Response
from twisted_dimse.server import AssociationFactory, listen
from twisted_dimse.uids import PATIENT_ROOT, PATIENT_STUDY_ONLY, STUDY_ROOT, VERIFICATION
from twisted_dimse.upperlayer.negotiation import AcceptedContext, PresentationContext, Window
from twisted_dimse.upperlayer.pdu import UserIdentity

__version__ = "0.1.0"

__all__ = [
    "PATIENT_ROOT",
    "PATIENT_STUDY_ONLY",
    "STUDY_ROOT",
    "VERIFICATION",
    "AcceptedContext",
    "Association",
    "AssociationAborted",
    "AssociationFactory",
    "AssociationRejected",
    "AssociationRequest",
    "AssociationTimeout",
    "ConnectionFailed",
    "ConnectionLost",
    "ContextNotAccepted",
    "DimseError",
    "Handler",
    "Peer",
    "PresentationContext",
    "ProtocolViolation",
    "Request",
    "Response",
    "StatusError",
    "Timeouts",
    "UserIdentity",
    "Window",
    "__version__",
    "connect",
    "listen",
]
