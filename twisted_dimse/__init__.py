"""DICOM networking for Twisted: the upper layer (PS3.8) and DIMSE (PS3.7), both roles.

    async with await connect("PACS@127.0.0.1:11112", contexts=[VERIFICATION]) as association:
        await association.echo()

    port = await listen("tcp:11112:interface=127.0.0.1", MyHandler())

What is named here is what is promised. Each name is imported when it is first used, so that a
program which needs little starts quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from twisted_dimse.results import Response, RetrieveOutcome
    from twisted_dimse.server import AssociationFactory, listen
    from twisted_dimse.services.query_retrieve import move, query, retrieve
    from twisted_dimse.services.sending import store_files
    from twisted_dimse.services.storage import StoreOutcome
    from twisted_dimse.uids import PATIENT_ROOT, PATIENT_STUDY_ONLY, STUDY_ROOT, VERIFICATION
    from twisted_dimse.upperlayer.negotiation import AcceptedContext, PresentationContext, Window
    from twisted_dimse.upperlayer.pdu import UserIdentity

__version__ = "0.1.0"

_WHERE = {
    "connect": "client",
    "Association": "association",
    "store_files": "services.sending",
    "StoreOutcome": "services.storage",
    "query": "services.query_retrieve",
    "retrieve": "services.query_retrieve",
    "move": "services.query_retrieve",
    "listen": "server",
    "AssociationFactory": "server",
    "Handler": "handler",
    "Request": "handler",
    "AssociationRequest": "handler",
    "Peer": "peer",
    "PresentationContext": "upperlayer.negotiation",
    "AcceptedContext": "upperlayer.negotiation",
    "Window": "upperlayer.negotiation",
    "UserIdentity": "upperlayer.pdu",
    "Timeouts": "protocol",
    "Response": "results",
    "RetrieveOutcome": "results",
    "VERIFICATION": "uids",
    "PATIENT_ROOT": "uids",
    "STUDY_ROOT": "uids",
    "PATIENT_STUDY_ONLY": "uids",
    "DimseError": "errors",
    "ConnectionFailed": "errors",
    "ConnectionLost": "errors",
    "AssociationRejected": "errors",
    "AssociationAborted": "errors",
    "AssociationTimeout": "errors",
    "ContextNotAccepted": "errors",
    "ProtocolViolation": "errors",
    "StatusError": "errors",
}

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
    "RetrieveOutcome",
    "StatusError",
    "StoreOutcome",
    "Timeouts",
    "UserIdentity",
    "Window",
    "__version__",
    "connect",
    "listen",
    "move",
    "query",
    "retrieve",
    "store_files",
]


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
