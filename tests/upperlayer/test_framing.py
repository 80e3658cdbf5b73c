"""The framer: any cut of a stream gives the same, what is wrong is refused at its header."""

from __future__ import annotations

import dataclasses
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import cuts, damaged, p_data, pdus, pieces

from twisted_dimse.errors import ProtocolViolation
from twisted_dimse.upperlayer import pdu
from twisted_dimse.upperlayer.framing import (
    MAX_ASSOCIATION_PDU,
    Fragment,
    Framer,
    p_data_header,
)

COMMAND = pdu.PresentationDataValue(1, True, True, b"command.")
DATA = pdu.PresentationDataValue(1, False, False, b"data")
LAST = pdu.PresentationDataValue(1, False, True, b"the last of the data")

Value = tuple[int, bool, bool, bytes]


def whole(parts: list[Fragment | pdu.PDU]) -> list[Value | pdu.PDU]:
    """Control PDUs, and data values put together again from their slices."""
    found: list[Value | pdu.PDU] = []
    octets = b""
    for part in parts:
        if not isinstance(part, Fragment):
            assert not octets, "a PDU within a data value"
            found.append(part)
            continue
        octets += bytes(part.data)
        if part.ends_value:
            found.append((part.context_id, part.is_command, part.is_last, octets))
            octets = b""
        else:
            assert not part.is_last, "the last slice of a value alone may be the last of its set"
    assert not octets, "a data value without an end"
    return found


def meant(values: list[pdu.PDU]) -> list[Value | pdu.PDU]:
    """What `whole` has to give for these PDUs."""
    found: list[Value | pdu.PDU] = []
    for value in values:
        if isinstance(value, pdu.PDataTF):
            found += [(v.context_id, v.is_command, v.is_last, v.fragment) for v in value.values]
        else:
            found.append(value)
    return found


def received(framer: Framer, chunks: list[bytes]) -> list[Fragment | pdu.PDU]:
    return [part for chunk in chunks for part in framer.receive(chunk)]


def header(kind: int, length: int) -> bytes:
    return struct.pack(">BxI", kind, length)


# --- cuts


@given(st.data())
def test_any_cut_of_a_stream_gives_the_same(data: st.DataObject) -> None:
    values = data.draw(st.lists(pdus, max_size=6))
    chunks = data.draw(cuts(b"".join(value.encode() for value in values)))
    framer = Framer()
    assert whole(received(framer, chunks)) == meant(values)
    assert framer.between_pdus


STREAM: list[pdu.PDU] = [
    pdu.PDataTF((COMMAND, DATA)),
    pdu.PDataTF((LAST, pdu.PresentationDataValue(3, True, True, b""))),
    pdu.AssociateRJ(1, 1, 1),
    pdu.PDataTF((DATA,)),
    pdu.ReleaseRQ(),
]
OCTETS = b"".join(value.encode() for value in STREAM)


def test_a_cut_at_each_place_gives_the_same() -> None:
    for place in range(len(OCTETS) + 1):
        framer = Framer()
        assert whole(received(framer, list(pieces(OCTETS, [place])))) == meant(STREAM)


def test_octet_by_octet_gives_the_same() -> None:
    assert whole(received(Framer(), [bytes((octet,)) for octet in OCTETS])) == meant(STREAM)


@pytest.mark.parametrize("size", [1, 2, 7, 499, 500, 501, 5000])
def test_a_pdu_alone_in_its_chunk_gives_what_it_gives_among_others(size: int) -> None:
    """Those of up to 512 octets have a way of their own."""
    values = [
        pdu.PDataTF((pdu.PresentationDataValue(5, is_command, is_last, bytes(size)),))
        for is_command in (False, True)
        for is_last in (False, True)
    ]
    alone, together = Framer(), Framer()
    each = [part for value in values for part in alone.receive(value.encode())]
    assert each == together.receive(b"".join(value.encode() for value in values))
    assert whole(each) == meant([*values])


def test_a_framer_is_between_pdus_at_their_ends_only() -> None:
    ends = {0}
    for value in STREAM:
        ends.add(max(ends) + len(value.encode()))
    for place in range(len(OCTETS) + 1):
        framer = Framer()
        framer.receive(OCTETS[:place])
        assert framer.between_pdus == (place in ends), place


def test_a_fragment_is_a_slice_of_the_chunk_and_no_copy() -> None:
    chunk = pdu.PDataTF((dataclasses.replace(LAST, fragment=bytes(1000)),)).encode()
    [part] = Framer().receive(chunk)
    assert isinstance(part, Fragment)
    assert isinstance(part.data, memoryview)
    assert part.data.obj is chunk


@pytest.mark.parametrize("is_command", [False, True])
@pytest.mark.parametrize("is_last", [False, True])
def test_each_slice_of_a_value_says_whether_it_is_of_a_command(
    is_command: bool, is_last: bool
) -> None:
    framer = Framer()
    octets = p_data_header(7, is_command, is_last, 100) + bytes(100)
    parts = received(framer, [octets[:50], octets[50:90], octets[90:]])
    assert [part[:3] for part in parts if isinstance(part, Fragment)] == [
        (7, is_command, False),
        (7, is_command, False),
        (7, is_command, is_last),
    ]


def test_a_chunk_inside_a_value_is_handed_on_as_it_is() -> None:
    framer = Framer()
    octets = p_data_header(1, False, True, 100) + bytes(100)
    framer.receive(octets[:50])
    chunk = octets[50:90]
    [part] = framer.receive(chunk)
    assert isinstance(part, Fragment)
    assert part.data is chunk
    assert not part.ends_value
    assert not part.is_last


# --- values in a P-DATA-TF (PS3.8 annex E)


def test_a_command_and_its_data_may_come_in_one_pdu() -> None:
    parts = Framer().receive(pdu.PDataTF((COMMAND, LAST)).encode())
    assert whole(parts) == [(1, True, True, b"command."), (1, False, True, LAST.fragment)]


def test_two_values_of_the_same_kind_in_one_pdu_are_taken() -> None:
    parts = Framer().receive(pdu.PDataTF((DATA, LAST)).encode())
    assert whole(parts) == [(1, False, False, b"data"), (1, False, True, LAST.fragment)]


@pytest.mark.parametrize("is_command", [False, True])
@pytest.mark.parametrize("is_last", [False, True])
def test_a_value_without_a_fragment_is_taken(is_command: bool, is_last: bool) -> None:
    empty = pdu.PresentationDataValue(7, is_command, is_last, b"")
    parts = Framer().receive(pdu.PDataTF((empty, DATA)).encode())
    assert whole(parts) == [(7, is_command, is_last, b""), (1, False, False, b"data")]


def test_bits_2_to_7_of_the_control_header_are_not_tested() -> None:
    octets = bytearray(pdu.PDataTF((LAST,)).encode())
    octets[11] |= 0xFC
    assert whole(Framer().receive(bytes(octets))) == [(1, False, True, LAST.fragment)]


def test_nothing_received_is_nothing() -> None:
    assert Framer().receive(b"") == []


@given(p_data)
def test_each_pdu_is_told_with_its_size_and_all_but_p_data_with_what_it_is(
    value: pdu.PDataTF,
) -> None:
    told: list[tuple[int, int, pdu.PDU | None]] = []
    framer = Framer()
    framer.on_pdu = lambda *pdu: told.append(pdu)
    octets = value.encode()
    for octet in octets * 2 + pdu.ReleaseRQ().encode():
        framer.receive(bytes((octet,)))
    in_one_piece = Framer()
    in_one_piece.on_pdu = lambda *pdu: told.append(pdu)
    in_one_piece.receive(octets)
    assert told == [
        (4, len(octets), None),
        (4, len(octets), None),
        (5, 10, pdu.ReleaseRQ()),
        (4, len(octets), None),
    ]


@pytest.mark.parametrize(("is_command", "is_last"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_header_of_a_fragment_is_that_of_a_pdu_with_it_alone(
    is_command: bool, is_last: bool
) -> None:
    value = pdu.PresentationDataValue(9, bool(is_command), bool(is_last), b"12345678")
    octets = p_data_header(9, bool(is_command), bool(is_last), 8) + b"12345678"
    assert octets == pdu.PDataTF((value,)).encode()


# --- what is refused, and when


def test_an_unknown_pdu_type_is_refused_at_its_first_octet() -> None:
    for kind in sorted(set(range(256)) - set(range(1, 8))):
        framer = Framer()
        with pytest.raises(ProtocolViolation, match="unknown type") as violation:
            framer.receive(bytes((kind,)))
        assert violation.value.reason == 1


def test_a_pdu_of_another_type_is_never_taken_for_data_whatever_it_looks_like() -> None:
    octets = bytearray(pdu.PDataTF((LAST,)).encode())
    for kind in sorted(set(range(256)) - {pdu.P_DATA_TF}):
        octets[0] = kind
        with pytest.raises(ProtocolViolation):
            Framer().receive(bytes(octets))


def test_an_unknown_pdu_type_behind_another_pdu_is_refused_at_its_first_octet() -> None:
    framer = Framer()
    framer.receive(OCTETS)
    with pytest.raises(ProtocolViolation, match="unknown type"):
        framer.receive(b"G")


def test_a_first_octet_of_a_value_header_is_not_taken_for_a_pdu_type() -> None:
    framer = Framer()
    framer.receive(header(pdu.P_DATA_TF, 0x0100_0000))
    assert framer.receive(b"\0") == []


@pytest.mark.parametrize("offered", [8, 4096, 262144])
def test_a_data_pdu_longer_than_offered_is_refused_at_its_header(offered: int) -> None:
    with pytest.raises(ProtocolViolation, match=f"over the {offered} offered"):
        Framer(offered).receive(header(pdu.P_DATA_TF, offered + 1))


@pytest.mark.parametrize("offered", [8, 4096, 262144])
def test_a_data_pdu_as_long_as_offered_is_taken(offered: int) -> None:
    octets = p_data_header(1, False, True, offered - 6) + bytes(offered - 6)
    assert whole(Framer(offered).receive(octets)) == [(1, False, True, bytes(offered - 6))]


def test_without_a_limit_a_data_pdu_may_have_any_length() -> None:
    framer = Framer(0)
    framer.receive(header(pdu.P_DATA_TF, 0xFFFF_FFFF))
    assert not framer.between_pdus


@pytest.mark.parametrize("kind", [pdu.ASSOCIATE_RQ, pdu.ASSOCIATE_AC])
def test_an_association_pdu_above_one_mebibyte_is_refused_at_its_header(kind: int) -> None:
    framer = Framer()
    with pytest.raises(ProtocolViolation, match="over 1048576"):
        framer.receive(header(kind, MAX_ASSOCIATION_PDU + 1))


@pytest.mark.parametrize("kind", [pdu.ASSOCIATE_RQ, pdu.ASSOCIATE_AC])
def test_an_association_pdu_of_one_mebibyte_may_come(kind: int) -> None:
    assert Framer().receive(header(kind, MAX_ASSOCIATION_PDU)) == []


@pytest.mark.parametrize(
    "kind", [pdu.ASSOCIATE_RJ, pdu.RELEASE_RQ, pdu.RELEASE_RP, pdu.ABORT], ids=hex
)
@pytest.mark.parametrize("length", [0, 3, 5, 0xFFFF_FFFF])
def test_a_pdu_of_fixed_length_with_another_is_refused_at_its_header(
    kind: int, length: int
) -> None:
    with pytest.raises(ProtocolViolation, match="instead of 4"):
        Framer().receive(header(kind, length))


@pytest.mark.parametrize("length", [0, 1, 5])
def test_a_data_pdu_without_room_for_a_value_is_refused_at_its_header(length: int) -> None:
    with pytest.raises(ProtocolViolation, match="without a value"):
        Framer().receive(header(pdu.P_DATA_TF, length))


@pytest.mark.parametrize(
    ("length", "value_length"), [(20, 0), (20, 1), (20, 17), (20, 0xFFFF_FFFF), (6, 3)]
)
def test_a_value_that_does_not_fit_its_pdu_is_refused_at_its_header(
    length: int, value_length: int
) -> None:
    octets = header(pdu.P_DATA_TF, length) + struct.pack(">IBB", value_length, 1, 0)
    with pytest.raises(ProtocolViolation, match="presentation data value"):
        Framer().receive(octets)


@pytest.mark.parametrize("left", [1, 2, 3, 4, 5])
def test_octets_too_few_for_another_value_are_refused_at_the_header_before_them(left: int) -> None:
    octets = header(pdu.P_DATA_TF, 20) + struct.pack(">IBB", 16 - left, 1, 0)
    with pytest.raises(ProtocolViolation, match="behind the last value"):
        Framer().receive(octets)


def test_what_came_before_a_violation_in_the_same_chunk_is_not_lost() -> None:
    with pytest.raises(ProtocolViolation) as violation:
        Framer().receive(OCTETS + b"G")
    assert whole(violation.value.parts) == meant(STREAM)  # type: ignore[attr-defined]


def test_after_a_violation_all_octets_are_dropped() -> None:
    framer = Framer()
    with pytest.raises(ProtocolViolation):
        framer.receive(header(pdu.P_DATA_TF, 20) + struct.pack(">IBB", 99, 1, 0))
    assert framer.failed
    for chunk in (b"\x05", OCTETS, b"G" * 10000, b""):
        assert framer.receive(chunk) == []
    assert kept(framer) == 0


# --- anything at all


def kept(framer: Framer) -> int:
    """How many octets a framer holds."""
    return len(framer._header) + len(framer._body)


@given(st.lists(st.binary(max_size=200), max_size=20), st.sampled_from([0, 8, 4096]))
def test_arbitrary_octets_are_parts_or_a_violation(chunks: list[bytes], limit: int) -> None:
    framer = Framer(limit)
    for chunk in chunks:
        try:
            framer.receive(chunk)
        except ProtocolViolation:
            assert framer.failed
            assert kept(framer) == 0


@given(st.data())
def test_a_damaged_stream_gives_parts_or_a_violation_however_it_is_cut(
    data: st.DataObject,
) -> None:
    values = data.draw(st.lists(pdus, min_size=1, max_size=4))
    stream = data.draw(damaged(b"".join(value.encode() for value in values)))
    limit = data.draw(st.sampled_from([0, 8, 30, 4096]))

    def outcome(chunks: list[bytes]) -> tuple[object, str]:
        framer, parts = Framer(limit), []
        for chunk in chunks:
            try:
                parts += framer.receive(chunk)
            except ProtocolViolation as violation:
                parts += violation.parts  # type: ignore[attr-defined]
                return started(parts), str(violation)
        return started(parts), ""

    assert outcome([stream]) == outcome(data.draw(cuts(stream)))


def started(parts: list[Fragment | pdu.PDU]) -> list[object]:
    """As `whole`, where the last value may lack its end."""
    left = []
    while parts and isinstance(parts[-1], Fragment) and not parts[-1].ends_value:
        left.append(bytes(parts.pop().data))
    return [*whole(parts), b"".join(reversed(left))]


def test_no_more_is_held_than_one_association_pdu() -> None:
    framer = Framer()
    framer.receive(header(pdu.ASSOCIATE_RQ, MAX_ASSOCIATION_PDU))
    most = 0
    for _ in range(MAX_ASSOCIATION_PDU // 65536):
        try:
            framer.receive(b"\xff" * 65536)
        except ProtocolViolation:
            break
        most = max(most, kept(framer))
    assert most < MAX_ASSOCIATION_PDU
    assert kept(framer) == 0


def test_data_is_never_held_however_it_comes() -> None:
    framer = Framer()
    size = 1 << 20
    stream = p_data_header(1, False, True, size) + bytes(size)
    for start, stop in pairwise(range(0, len(stream) + 4096, 4096)):
        framer.receive(stream[start:stop])
        assert kept(framer) < 6
