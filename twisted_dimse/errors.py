"""The error tree: everything that can end an association or an operation.

`DimseError` is the root. What happened to the transport, the association or the
operation tells which branch; each error's text is one line that a person can act on.

    try:
        await association.store("image.dcm")
    except StatusError as error:       # the peer answered with a failure status
        print(hex(error.status), error.comment)
    except DimseError as error:        # no answer: refused, rejected, aborted, lost, late
        print(error)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REJECT_RESULTS = {1: "permanent", 2: "transient"}
REJECT_SOURCES = {
    1: "service-user",
    2: "service-provider (ACSE)",
    3: "service-provider (presentation)",
}
REJECT_REASONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
ABORT_SOURCES = {0: "service-user", 1: "reserved", 2: "service-provider"}
ABORT_REASONS = {
    0: "reason not specified",
    1: "unrecognized PDU",
    2: "unexpected PDU",
    3: "reserved",
    4: "unrecognized PDU parameter",
    5: "unexpected PDU parameter",
    6: "invalid PDU parameter value",
}


class DimseError(Exception):
    """The root of all errors of this package."""


class ConnectionFailed(DimseError):
    """No connection came about: refused, unknown host, TLS failure."""


class ConnectionLost(DimseError):
    """The transport ended while the association was alive."""


class AssociationRejected(DimseError):
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4), received, or to be sent when a handler raises it.

    `result` is 1 (permanent) or 2 (transient), `source` 1 to 3, and the meaning of
    `reason` depends on the source.
    """

    def __init__(self, result: int = 1, source: int = 1, reason: int = 1) -> None:
        super().__init__(result, source, reason)
        self.result = result
        self.source = source
        self.reason = reason

    @property
    def meaning(self) -> str:
        """The reason in the standard's words."""
        return REJECT_REASONS.get((self.source, self.reason), f"reserved reason {self.reason}")

    def __str__(self) -> str:
        result = REJECT_RESULTS.get(self.result, f"result {self.result}")
        source = REJECT_SOURCES.get(self.source, f"source {self.source}")
        return f"association rejected ({result}) by the {source}: {self.meaning}"


class AssociationAborted(DimseError):
    """An A-ABORT (PS3.8 9.3.8), received, or sent by us when `by_us` is true."""

    def __init__(
        self, source: int = 0, reason: int = 0, *, by_us: bool = False, why: str = ""
    ) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason
        self.by_us = by_us
        self.why = why

    def __str__(self) -> str:
        who = "us" if self.by_us else "the peer"
        text = f"association aborted by {who}"
        if self.source == 2:
            text += f" (service-provider, {ABORT_REASONS.get(self.reason, str(self.reason))})"
        return f"{text}: {self.why}" if self.why else text


class AssociationTimeout(DimseError):
    """The peer did not answer, or a message did not move on, in the time allowed."""


class ContextNotAccepted(DimseError):
    """No accepted presentation context serves the operation."""


class ProtocolViolation(DimseError):
    """A peer, or a caller, broke PS3.7 or PS3.8; `reason` is the A-ABORT reason for it."""

    def __init__(self, text: str, reason: int = 6) -> None:
        super().__init__(text)
        self.reason = reason


class StatusError(DimseError):
    """A failure status (PS3.7 annex C): answered by the peer, or raised by a handler to answer it.

    `elements` holds further elements of the response by keyword, such as
    ``OffendingElement`` (a sequence of tags as int) or ``ErrorID``. `dataset` is the data set
    that came, or shall go, with the response. Where the peer answered, `meaning` has the status in
    words and `command` the whole command set; `outcome` is set where a move or get failed, with
    its sub-operation counts.
    """

    def __init__(
        self,
        status: int,
        comment: str = "",
        *,
        dataset: Any = None,
        outcome: Any = None,
        command: Mapping[str, Any] | None = None,
        meaning: str = "",
        **elements: Any,
    ) -> None:
        super().__init__(status, comment)
        self.status = status
        self.comment = comment
        self.dataset = dataset
        self.outcome = outcome
        self.command = command
        self.meaning = meaning
        self.elements = elements

    def __str__(self) -> str:
        text = f"status 0x{self.status:04X}"
        if self.meaning:
            text += f" ({self.meaning})"
        return f"{text}: {printable(self.comment)}" if self.comment else text


def printable(text: str) -> str:
    """What a peer wrote, fit for one line of a log or a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
