"""Messages: command sets from fragments, data sets as streams, and the fragments that go out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import command_sets, cuts

from twisted_dimse.dimse.command import CommandSet, encode
from twisted_dimse.dimse.message import Assembler, fragment_size, fragments
from twisted_dimse.errors import ProtocolViolation
from twisted_dimse.upperlayer.framing import Fragment, Framer, p_data_header

ECHO = {"CommandField": 0x0030, "MessageID": 7, "CommandDataSetType": 0x0101}
STORE = {"CommandField": 0x0001, "MessageID": 8, "CommandDataSetType": 0x0001}


def command(data: bytes, *, last: bool = True, context: int = 1) -> Fragment:
    return Fragment(context, True, last, data)


def data(octets: bytes, *, last: bool = True, context: int = 1) -> Fragment:
    return Fragment(context, False, last, octets)


def awaiting_data(context: int = 1) -> Assembler:
    assembler = Assembler()
    assembler.command_fragment(command(encode(STORE), context=context))
    return assembler


# --- assembly


def test_a_command_set_in_one_fragment_is_whole_at_once() -> None:
    assembler = Assembler()
    found = assembler.command_fragment(command(encode(ECHO), context=5))
    assert found is not None
    assert found.MessageID == 7
    assert assembler.context_id == 5
    assert assembler.between_messages


def test_a_command_set_may_come_in_any_number_of_fragments() -> None:
    octets = encode(ECHO)
    assembler = Assembler()
    for at in range(len(octets) - 1):
        assert assembler.command_fragment(command(octets[at : at + 1], last=False)) is None
        assert not assembler.between_messages
    found = assembler.command_fragment(command(octets[-1:]))
    assert found is not None
    assert found.MessageID == 7


def test_the_last_fragment_of_a_command_set_may_be_empty() -> None:
    assembler = Assembler()
    assert assembler.command_fragment(command(encode(ECHO), last=False)) is None
    found = assembler.command_fragment(command(b""))
    assert found is not None
    assert found.MessageID == 7


def test_a_command_set_keeps_nothing_of_the_chunk_that_it_came_in() -> None:
    chunk = bytearray(encode(ECHO | {"AffectedSOPClassUID": "1.2.3"}))
    found = Assembler().command_fragment(command(memoryview(chunk)))  # type: ignore[arg-type]
    chunk[:] = bytes(len(chunk))
    assert found is not None
    assert found.AffectedSOPClassUID == "1.2.3"


def test_a_message_with_a_data_set_ends_with_its_last_fragment() -> None:
    assembler = awaiting_data()
    assert assembler.expects_data
    assembler.data_fragment(data(b"some", last=False))
    assert assembler.expects_data
    assembler.data_fragment(data(b"more"))
    assert assembler.between_messages


def test_messages_follow_one_another_in_different_contexts() -> None:
    assembler = Assembler()
    for context in (1, 3, 255):
        assert assembler.command_fragment(command(encode(STORE), context=context)) is not None
        assembler.data_fragment(data(b"data", context=context))
        assert assembler.between_messages


# --- what is refused


def test_a_command_before_the_end_of_a_data_set_is_an_unexpected_pdu() -> None:
    assembler = awaiting_data()
    assembler.data_fragment(data(b"some", last=False))
    with pytest.raises(ProtocolViolation, match="before the end of the data set") as violation:
        assembler.command_fragment(command(encode(ECHO)))
    assert violation.value.reason == 2


def test_data_that_no_command_announces_is_an_unexpected_pdu() -> None:
    with pytest.raises(ProtocolViolation, match="without a command") as violation:
        Assembler().data_fragment(data(b"data"))
    assert violation.value.reason == 2


def test_data_within_a_command_set_is_an_unexpected_pdu() -> None:
    assembler = Assembler()
    assembler.command_fragment(command(encode(STORE)[:20], last=False))
    with pytest.raises(ProtocolViolation, match="without a command"):
        assembler.data_fragment(data(b"data"))


def test_data_behind_a_command_that_has_none_is_an_unexpected_pdu() -> None:
    assembler = Assembler()
    assembler.command_fragment(command(encode(ECHO)))
    with pytest.raises(ProtocolViolation, match="without a command"):
        assembler.data_fragment(data(b"data"))


def test_a_data_set_in_another_context_than_its_command_is_an_unexpected_parameter() -> None:
    with pytest.raises(ProtocolViolation, match="two contexts") as violation:
        awaiting_data(1).data_fragment(data(b"data", context=3))
    assert violation.value.reason == 5


def test_a_command_set_in_two_contexts_is_an_unexpected_parameter() -> None:
    assembler = Assembler()
    assembler.command_fragment(command(encode(ECHO)[:20], last=False, context=1))
    with pytest.raises(ProtocolViolation, match="two contexts") as violation:
        assembler.command_fragment(command(encode(ECHO)[20:], context=3))
    assert violation.value.reason == 5


def test_a_command_set_without_end_is_refused_and_not_collected() -> None:
    assembler = Assembler()
    for _ in range(64):
        assert assembler.command_fragment(command(bytes(1024), last=False)) is None
    with pytest.raises(ProtocolViolation, match="over 65536"):
        assembler.command_fragment(command(b"\0", last=False))


def test_a_command_set_too_long_in_one_fragment_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="over 65536"):
        Assembler().command_fragment(command(bytes(65537)))


def test_what_is_no_command_set_is_refused() -> None:
    with pytest.raises(ProtocolViolation):
        Assembler().command_fragment(command(b"GET / HTTP/1.1\r\n"))


# --- fragments that go out (PS3.8 D.1, E.1)

LIMITS = [8, 9, 10, 11, 100, 4096, 16384, 262144]


@given(st.binary(max_size=400), st.integers(8, 420))
def test_fragments_joined_are_the_data(octets: bytes, limit: int) -> None:
    assert b"".join(fragments(octets, limit)) == octets


@given(st.binary(max_size=400), st.integers(8, 420))
def test_every_fragment_but_the_last_has_an_even_length(octets: bytes, limit: int) -> None:
    found = [len(fragment) for fragment in fragments(octets, limit)]
    assert all(size % 2 == 0 for size in found[:-1])
    assert all(found)


@given(st.binary(max_size=400), st.integers(8, 420))
def test_no_fragment_makes_a_pdu_longer_than_the_peer_takes(octets: bytes, limit: int) -> None:
    for fragment in fragments(octets, limit):
        pdu = p_data_header(1, False, True, len(fragment)) + fragment
        assert len(pdu) - 6 <= limit


@pytest.mark.parametrize("limit", LIMITS)
def test_a_fragment_is_as_long_as_the_limit_and_an_even_length_allow(limit: int) -> None:
    size = fragment_size(limit)
    assert size % 2 == 0
    assert limit - 6 - size in (0, 1)


def test_without_a_limit_there_is_one_fragment() -> None:
    [fragment] = fragments(bytes(1 << 20), 0)
    assert len(fragment) == 1 << 20
    assert fragment_size(0) == 0


@pytest.mark.parametrize("limit", range(1, 8))
def test_a_limit_without_room_for_a_fragment_is_a_violation(limit: int) -> None:
    with pytest.raises(ProtocolViolation, match="no room"):
        fragment_size(limit)
    with pytest.raises(ProtocolViolation, match="no room"):
        list(fragments(b"data", limit))


def test_fragments_are_slices_and_no_copies() -> None:
    octets = bytes(100)
    assert all(fragment.obj is octets for fragment in fragments(octets, 20))


# --- from fragments to messages again


def sent(values: dict[str, Any], octets: bytes, limit: int, context: int) -> bytes:
    """A message as it goes over the wire."""
    stream = b""
    parts: Iterable[tuple[bool, bytes]] = [(True, encode(values))]
    if CommandSet(values).has_data_set:
        parts = [*parts, (False, octets)]
    for is_command, part in parts:
        pieces = list(fragments(part, limit)) or [memoryview(b"")]
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            stream += p_data_header(context, is_command, last, len(piece)) + piece
    return stream


@given(st.data())
def test_messages_come_out_as_they_went_in_however_the_stream_is_cut(
    draw: st.DataObject,
) -> None:
    messages = draw.draw(
        st.lists(
            st.tuples(command_sets, st.binary(max_size=100), st.sampled_from([1, 3, 255])),
            max_size=4,
        )
    )
    limit = draw.draw(st.one_of(st.just(0), st.integers(8, 200)))
    stream = b"".join(sent(values, octets, limit, context) for values, octets, context in messages)
    framer, assembler = Framer(limit), Assembler()
    found: list[tuple[CommandSet, bytes, int]] = []
    for chunk in draw.draw(cuts(stream)):
        for part in framer.receive(chunk):
            assert isinstance(part, Fragment)
            if part.is_command:
                whole = assembler.command_fragment(part)
                if whole is not None:
                    del whole["CommandGroupLength"]
                    found.append((whole, b"", part.context_id))
            else:
                assembler.data_fragment(part)
                values, octets, context = found[-1]
                found[-1] = (values, octets + bytes(part.data), context)
    assert assembler.between_messages
    assert found == [
        (values, octets if CommandSet(values).has_data_set else b"", context)
        for values, octets, context in messages
    ]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.binary(max_size=40)), max_size=10))
def test_arbitrary_fragments_are_messages_or_a_violation(
    parts: list[tuple[bool, bool, bytes]],
) -> None:
    assembler = Assembler()
    try:
        for is_command, last, octets in parts:
            if is_command:
                assembler.command_fragment(command(octets, last=last))
            else:
                assembler.data_fragment(data(octets, last=last))
    except ProtocolViolation:
        return
