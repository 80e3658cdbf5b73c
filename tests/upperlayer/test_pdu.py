"""PDUs and items: what is let pass, what is refused, and whatever else may come."""

from __future__ import annotations

import struct
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from facts import facts, name_of
from hypothesis import given
from hypothesis import strategies as st
from pdu_samples import (
    ABSTRACT,
    ACCEPTED,
    COMMON,
    CT,
    IMPLICIT,
    MAXIMUM,
    NAME,
    PDUS,
    PROPOSED,
    REQUEST,
    TRANSFER,
    USER,
    associate,
    decoded,
    item,
)
from strategies import damaged, pdus, user_items

from twisted_dimse.errors import ProtocolViolation
from twisted_dimse.upperlayer import pdu

FACTS = facts("pdus")


# --- how often an item comes


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(associate(1, PROPOSED.encode() + USER), id="request-without-10"),
        pytest.param(associate(1, NAME * 2 + PROPOSED.encode() + USER), id="request-with-two-10"),
        pytest.param(associate(1, NAME + USER), id="request-without-20"),
        pytest.param(associate(2, ACCEPTED.encode() + USER), id="acceptance-without-10"),
        pytest.param(
            associate(2, NAME * 2 + ACCEPTED.encode() + USER), id="acceptance-with-two-10"
        ),
        pytest.param(
            associate(1, NAME + item(0x20, b"\x01\0\0\0" + TRANSFER)), id="context-without-30"
        ),
        pytest.param(
            associate(1, NAME + item(0x20, b"\x01\0\0\0" + ABSTRACT * 2 + TRANSFER)),
            id="context-with-two-30",
        ),
        pytest.param(
            associate(1, NAME + item(0x20, b"\x01\0\0\0" + ABSTRACT)), id="context-without-40"
        ),
        pytest.param(associate(2, NAME + item(0x21, b"\x01\0\0\0")), id="accepted-without-40"),
        pytest.param(
            associate(2, NAME + item(0x21, b"\x01\0\0\0" + TRANSFER * 2)), id="accepted-with-two-40"
        ),
    ],
)
def test_an_item_that_is_lacking_or_one_too_many_is_a_violation(octets: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        decoded(octets)


def test_a_pdu_without_user_information_is_taken_as_one_with_the_defaults() -> None:
    value = decoded(associate(1, NAME + PROPOSED.encode()))
    assert isinstance(value, pdu.AssociateRQ)
    assert value.user_information == ()


def test_an_acceptance_without_any_context_result_is_taken() -> None:
    value = decoded(associate(2, NAME + USER))
    assert isinstance(value, pdu.AssociateAC)
    assert value.contexts == ()


@pytest.mark.parametrize("result", [1, 2, 3, 4, 255])
@pytest.mark.parametrize("sub_items", [b"", TRANSFER, TRANSFER * 2, b"\x40\0\xff\xff"])
def test_sub_items_of_a_context_that_is_not_accepted_are_not_tested(
    result: int, sub_items: bytes
) -> None:
    octets = item(0x21, bytes((1, 0, result, 0)) + sub_items)
    assert pdu.decode_items(octets) == [pdu.ContextResult(1, result, "")]


@pytest.mark.parametrize("identifiers", [(1, 1), (2,), (0,), (1, 3, 5, 3), (254,)])
def test_context_ids_that_are_even_or_come_twice_are_a_violation(identifiers: tuple[int]) -> None:
    contexts = b"".join(
        pdu.ProposedContext(identifier, CT, (IMPLICIT,)).encode() for identifier in identifiers
    )
    with pytest.raises(ProtocolViolation, match="odd and unique"):
        decoded(associate(1, NAME + contexts + USER))


def test_128_contexts_are_taken() -> None:
    contexts = tuple(pdu.ProposedContext(2 * n + 1, CT, (IMPLICIT,)) for n in range(128))
    request = pdu.AssociateRQ("A", "B", contexts, (MAXIMUM,))
    assert decoded(request.encode()) == request


# --- tolerances


@pytest.mark.parametrize("padding", [b"\0", b" ", b"\0\0"])
def test_a_padded_uid_is_taken_without_its_padding(padding: bytes) -> None:
    found = pdu.decode_items(item(0x52, b"1.2.3" + padding))
    assert found == [pdu.ImplementationClassUID("1.2.3")]


@pytest.mark.parametrize(
    "field", [b"  WS            ", b"WS".ljust(16, b"\0"), b"WS\0garbage......"]
)
def test_spaces_and_nuls_around_a_title_carry_no_meaning(field: bytes) -> None:
    octets = bytearray(REQUEST.encode())
    octets[26:42] = field
    value = decoded(bytes(octets))
    assert isinstance(value, pdu.AssociateRQ)
    assert value.calling_ae_title == "WS"


UNKNOWN = [kind for kind in range(256) if kind not in (0x10, 0x20, 0x21, 0x30, 0x40, 0x50)]


def test_items_of_unknown_type_are_skipped_wherever_they_stand() -> None:
    for kind in UNKNOWN:
        strange = item(kind, b"whatever")
        context_item = item(0x20, b"\x01\0\0\0" + strange + ABSTRACT + strange + TRANSFER)
        octets = associate(1, strange + NAME + context_item + strange + USER + strange)
        value = decoded(octets)
        assert isinstance(value, pdu.AssociateRQ)
        assert value.contexts == (pdu.ProposedContext(1, CT, (IMPLICIT,)),)


def test_user_information_of_unknown_type_is_skipped() -> None:
    for kind in range(256):
        if not 0x51 <= kind <= 0x59:
            strange = item(kind, b"whatever")
            user = item(0x50, strange + MAXIMUM.encode() + strange)
            value = decoded(associate(1, NAME + PROPOSED.encode() + user))
            assert isinstance(value, pdu.AssociateRQ)
            assert value.user_information == (MAXIMUM,)


def test_octets_that_a_later_version_appends_to_common_extended_negotiation_are_skipped() -> None:
    octets = COMMON.encode()
    later = b"\x57\x01" + struct.pack(">H", len(octets) - 4 + 6) + octets[4:] + b"future"
    assert pdu.decode_items(later) == [COMMON]


# --- violations


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(range(1, 8))))
def test_an_unknown_pdu_type_is_an_unrecognized_pdu(kind: int) -> None:
    with pytest.raises(ProtocolViolation, match="unknown type") as violation:
        pdu.decode(kind, bytes(4))
    assert violation.value.reason == 1


@pytest.mark.parametrize("row", [row for row in FACTS["pdus"] if "total_size" in row], ids=name_of)
@pytest.mark.parametrize("length", [0, 3, 5, 4096])
def test_a_pdu_of_fixed_length_with_another_length_is_a_violation(row: Any, length: int) -> None:
    with pytest.raises(ProtocolViolation, match="instead of 4"):
        pdu.decode(row["type"], bytes(length))


@pytest.mark.parametrize(
    "row", [row for row in FACTS["pdus"] if "minimum_length_field" in row], ids=name_of
)
def test_an_association_pdu_under_its_least_length_is_a_violation(row: Any) -> None:
    with pytest.raises(ProtocolViolation, match="under 68"):
        pdu.decode(row["type"], bytes(row["minimum_length_field"] - 1))
    pdu.check_header(row["type"], row["minimum_length_field"])


@pytest.mark.parametrize("length", [0, 1])
def test_a_presentation_data_value_without_a_control_header_is_a_violation(length: int) -> None:
    with pytest.raises(ProtocolViolation, match=f"value of length {length}"):
        pdu.decode(pdu.P_DATA_TF, struct.pack(">IBB", length, 1, 3))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0\0\0\x02\x01", id="no-control-header"),
        pytest.param(b"\0\0\0\x05\x01\x03ab", id="fragment-too-short"),
        pytest.param(b"\0\0\0\x02\x01\x03\0\0", id="octets-behind-the-last"),
        pytest.param(b"\xff\xff\xff\xff\x01\x03ab", id="length-of-4-GiB"),
    ],
)
def test_a_presentation_data_value_that_does_not_fit_its_pdu_is_a_violation(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        pdu.decode(pdu.P_DATA_TF, body)


def test_a_violation_says_the_item_the_offset_and_what_was_found() -> None:
    octets = associate(1, NAME + PROPOSED.encode() + item(0x50, item(0x53, b"\0\x04\0")))
    with pytest.raises(ProtocolViolation) as violation:
        decoded(octets)
    assert str(violation.value) == (
        "user information item 53H: operations performed at offset 2 needs 2 octets, 1 are left"
    )


# --- what cannot be encoded


def test_an_item_may_fill_its_length_field() -> None:
    value = pdu.SOPClassExtendedNegotiation(CT, bytes(65535 - 2 - len(CT)))
    assert pdu.decode_items(value.encode()) == [value]


@pytest.mark.parametrize("title", ["", " ", "   ", "SEVENTEEN_LETTERS", "MÜLLER", "A\\B", "A\nB"])
@pytest.mark.parametrize("which", ["called", "calling"])
def test_a_request_with_a_bad_title_cannot_be_encoded(title: str, which: str) -> None:
    titles = (title, "WS") if which == "called" else ("WS", title)
    with pytest.raises(ValueError, match="AE title"):
        pdu.AssociateRQ(*titles, (PROPOSED,), (MAXIMUM,)).encode()


@pytest.mark.parametrize(
    "value",
    [
        pdu.SOPClassExtendedNegotiation(CT, bytes(65536 - 2 - len(CT))),
        pdu.UserIdentity(3, bytes(65536)),
        pdu.UserIdentityResponse(bytes(65536)),
        pdu.ProposedContext(1, CT, ("1" * 64,) * 1000),
        pdu.ImplementationVersionName(""),
        pdu.ImplementationVersionName("SEVENTEEN_LETTERS"),
        pdu.ImplementationClassUID("1.2.ü"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_too_long_for_its_item_cannot_be_encoded(value: Any) -> None:
    with pytest.raises(ValueError):
        value.encode()


# --- anything at all


@given(pdus)
def test_any_pdu_decodes_to_what_was_encoded(value: pdu.PDU) -> None:
    octets = value.encode()
    assert octets[0] == value.kind
    assert int.from_bytes(octets[2:6], "big") == len(octets) - 6
    assert decoded(octets) == value


@given(user_items)
def test_any_user_information_item_decodes_to_what_was_encoded(value: pdu.UserItem) -> None:
    octets = value.encode()
    assert octets[0] == value.kind
    assert pdu.decode_items(octets) == [value]


@given(st.integers(0, 255), st.binary(max_size=300))
def test_arbitrary_octets_are_a_pdu_or_a_violation(kind: int, body: bytes) -> None:
    try:
        value = pdu.decode(kind, body)
    except ProtocolViolation:
        return
    assert value.kind == kind


@given(st.data())
def test_a_damaged_pdu_is_a_pdu_or_a_violation(data: st.DataObject) -> None:
    octets = data.draw(damaged(data.draw(pdus).encode()))
    if not octets:
        return
    try:
        value = decoded(octets)
    except ProtocolViolation:
        return
    if not (isinstance(value, pdu.AssociateRQ | pdu.AssociateAC)):
        assert decoded(value.encode()) == value


# --- values


@pytest.mark.parametrize("value", [*PDUS.values(), MAXIMUM, COMMON, PROPOSED], ids=type)
def test_a_value_cannot_be_changed(value: Any) -> None:
    before = value.encode()
    for field in fields(value):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field.name, None)
    assert value.encode() == before


# --- the look-up


def test_items_are_found_by_their_class() -> None:
    roles = (pdu.RoleSelection("1.2", True, False), pdu.RoleSelection("1.3", False, True))
    request = pdu.AssociateRQ("A", "B", (PROPOSED,), (MAXIMUM, *roles))
    assert request.items(pdu.RoleSelection) == list(roles)
    assert request.item(pdu.RoleSelection) == roles[0]
    assert request.item(pdu.UserIdentity) is None
