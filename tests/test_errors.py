"""The error tree: what each error says, in the words of the standard."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from facts import facts

from twisted_dimse import errors
from twisted_dimse.errors import (
    AssociationAborted,
    AssociationRejected,
    DimseError,
    ProtocolViolation,
    StatusError,
)
from twisted_dimse.upperlayer import pdu

CODES = facts("pdus")["codes"]
NEGOTIATION = facts("negotiation")
REASONS = [
    (int(source), int(reason), text)
    for source, reasons in CODES["associate_rj"]["reason_by_source"].items()
    for reason, text in reasons.items()
]


@pytest.mark.parametrize(
    "name",
    [
        "ConnectionFailed",
        "ConnectionLost",
        "AssociationRejected",
        "AssociationAborted",
        "AssociationTimeout",
        "ContextNotAccepted",
        "ProtocolViolation",
        "StatusError",
    ],
)
def test_every_error_is_a_dimse_error(name: str) -> None:
    assert issubclass(getattr(errors, name), DimseError)


# --- rejections (PS3.8 9.3.4)


@pytest.mark.parametrize(("source", "reason", "text"), REASONS)
def test_a_rejection_says_in_words_what_the_standard_says(
    source: int, reason: int, text: str
) -> None:
    error = AssociationRejected(1, source, reason)
    assert error.meaning == (f"reserved reason {reason}" if text == "reserved" else text)
    assert str(error).endswith(error.meaning)


@pytest.mark.parametrize(
    ("source", "reason", "text"),
    [
        (int(source), int(reason), text)
        for source, reasons in NEGOTIATION["associate_rj"]["reasons"].items()
        for reason, text in reasons.items()
    ],
)
def test_the_reasons_are_those_of_negotiation(source: int, reason: int, text: str) -> None:
    assert errors.REJECT_REASONS[source, reason] == text


@pytest.mark.parametrize(("code", "text"), CODES["associate_rj"]["result"].items())
def test_a_rejection_says_whether_to_try_again(code: str, text: str) -> None:
    word = errors.REJECT_RESULTS[int(code)]
    assert text == f"rejected-{word}"
    assert f"({word})" in str(AssociationRejected(int(code), 1, 1))


@pytest.mark.parametrize(("code", "text"), CODES["associate_rj"]["source"].items())
def test_a_rejection_says_who_rejected(code: str, text: str) -> None:
    assert errors.REJECT_SOURCES[int(code)] == text
    assert f"by the {text}" in str(AssociationRejected(1, int(code), 1))


@pytest.mark.parametrize(
    "row", NEGOTIATION["associate_rj"]["typical"], ids=lambda row: row["when"].replace(" ", "-")
)
def test_a_typical_rejection_goes_over_the_wire_as_it_is(row: Any) -> None:
    error = AssociationRejected(*row["rj"])
    octets = pdu.AssociateRJ(error.result, error.source, error.reason).encode()
    assert pdu.decode(octets[0], octets[6:]) == pdu.AssociateRJ(*row["rj"])
    assert "reserved" not in str(error)


def test_a_rejection_with_codes_that_nobody_has_heard_of_can_be_read() -> None:
    assert str(AssociationRejected(9, 8, 7)) == (
        "association rejected (result 9) by the source 8: reserved reason 7"
    )


# --- aborts (PS3.8 9.3.8)


@pytest.mark.parametrize(("code", "text"), CODES["abort"]["source"].items())
def test_the_sources_of_an_abort_are_those_of_the_standard(code: str, text: str) -> None:
    assert errors.ABORT_SOURCES[int(code)] == text == NEGOTIATION["abort"]["sources"][code]


@pytest.mark.parametrize(("code", "text"), NEGOTIATION["abort"]["reasons"].items())
def test_an_abort_by_the_provider_says_its_reason(code: str, text: str) -> None:
    assert CODES["abort"]["reason"][code] in text
    assert text in str(AssociationAborted(2, int(code)))


def test_the_reason_of_an_abort_by_a_user_means_nothing_and_is_not_said() -> None:
    assert str(AssociationAborted(0, 6)) == "association aborted by the peer"


def test_an_abort_says_who_and_why() -> None:
    error = AssociationAborted(2, 1, by_us=True, why="PDU of unknown type 47H")
    assert str(error) == (
        "association aborted by us (service-provider, unrecognized PDU): PDU of unknown type 47H"
    )


def test_an_abort_with_reserved_values_can_be_read() -> None:
    assert "77" in str(AssociationAborted(2, 77))
    assert str(AssociationAborted(1, 3)) == "association aborted by the peer"


# --- the rest


def test_a_violation_carries_the_reason_of_the_abort_that_answers_it() -> None:
    assert ProtocolViolation("text").reason == 6
    assert ProtocolViolation("text", reason=1).reason == 1


def test_a_status_error_says_code_meaning_and_comment() -> None:
    error = StatusError(0xA700, "disk full", meaning="Refused, out of resources")
    assert str(error) == "status 0xA700 (Refused, out of resources): disk full"
    assert str(StatusError(0x0110)) == "status 0x0110"


def test_a_status_error_keeps_further_elements_by_keyword() -> None:
    error = StatusError(0x0110, ErrorID=0xA710, OffendingElement=(0x0040_0252,))
    assert error.elements == {"ErrorID": 0xA710, "OffendingElement": (0x0040_0252,)}


@pytest.mark.parametrize(
    "error",
    [
        AssociationRejected(2, 3, 2),
        AssociationAborted(2, 6),
        ProtocolViolation("text", reason=1),
        StatusError(0xA700, "disk full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_can_be_sent_to_another_process(error: DimseError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
