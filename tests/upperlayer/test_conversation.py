"""Two providers against each other, with any cut of the stream, any order and any end.

What is checked after each step and at the end is what an association may rely on: whoever has begun
comes to an end, is told of it once, and data arrives whole and in order as long as neither aborts.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pdu_samples import CT, IMPLICIT

from twisted_dimse.upperlayer import negotiation, pdu
from twisted_dimse.upperlayer.framing import Fragment, p_data_header
from twisted_dimse.upperlayer.negotiation import Policy, PresentationContext, Proposal
from twisted_dimse.upperlayer.provider import (
    AbortIndication,
    AssociateConfirmation,
    AssociateIndication,
    Order,
    Provider,
    ProviderEvent,
    ReleaseConfirmation,
    ReleaseIndication,
)
from twisted_dimse.upperlayer.state import State

POLICY = Policy({CT: ()})
PROPOSAL = Proposal("ARCHIVE", "MODALITY", (PresentationContext(CT, (IMPLICIT,)),))
DATA = b"0123456789"


class Side:
    """A provider, its user, its timer and its half of the transport."""

    def __init__(self, *, requestor: bool) -> None:
        self.provider = Provider(requestor=requestor, max_pdu_length=4096)
        self.peer: Side = self
        self.coming = bytearray()  # sent by the peer and not yet here
        self.transport_open = False
        self.timer = False
        self.release_to_answer = False
        self.accepted: bool | None = None
        self.received: list[bytes] = []
        self.sent = 0
        self.ends: list[str] = []

    # what the user does

    def send(self) -> None:
        if self.provider.may_send_data and not self.ends:
            self.sent += 1
            self.peer.coming += p_data_header(1, False, True, len(DATA)) + DATA

    def release(self) -> None:
        if self.provider.established:
            self.handle(self.provider.release())

    def answer(self) -> None:
        if self.release_to_answer and self.provider.state in ANSWERABLE:
            self.release_to_answer = False
            self.handle(self.provider.answer_release())

    def abort(self) -> None:
        if self.provider.state not in (State.Sta1, State.Sta2, State.Sta13):
            self.handle(self.provider.abort())

    # what happens to it

    def deliver(self, count: int) -> None:
        chunk = bytes(self.coming[:count])
        del self.coming[:count]
        if self.transport_open:
            self.handle(self.provider.receive(chunk))

    def lose(self) -> None:
        if self.transport_open:
            self.transport_open = False
            self.handle(self.provider.transport_closed())
            self.peer.notice()

    def notice(self) -> None:
        """The peer closed: that comes after all it has sent."""
        if self.transport_open:
            self.deliver(len(self.coming))
        if self.transport_open:
            self.transport_open = False
            self.handle(self.provider.transport_closed())

    def expire(self) -> None:
        if self.timer:
            self.timer = False
            self.handle(self.provider.artim_expired())

    def handle(self, events: list[ProviderEvent]) -> None:
        self.peer.coming += self.provider.data_to_send()
        for event in events:
            match event:
                case Fragment():
                    self.take(event)
                case AssociateIndication(request) if self.provider.state is State.Sta3:
                    answer, _agreement = negotiation.accept(request, POLICY)
                    self.accepted = True
                    self.handle(self.provider.accept(answer))
                case AssociateIndication():
                    pass  # what ended the association came in the same chunk
                case AssociateConfirmation(answer):
                    self.accepted = isinstance(answer, pdu.AssociateAC)
                case ReleaseIndication():
                    self.release_to_answer = True
                case ReleaseConfirmation():
                    self.ends.append("released")
                case AbortIndication():
                    self.ends.append("aborted")
                case Order.START_ARTIM:
                    self.timer = True
                case Order.STOP_ARTIM:
                    self.timer = False
                case Order.CLOSE_TRANSPORT:
                    assert self.provider.closed
                    self.transport_open = False
                    self.peer.notice()
                case Order.OPEN_TRANSPORT:
                    raise AssertionError("opened before")

    def take(self, fragment: Fragment) -> None:
        assert not self.ends, "data after the end"
        if not self.received or len(self.received[-1]) == len(DATA):
            self.received.append(b"")
        self.received[-1] += bytes(fragment.data)
        assert fragment.ends_value == (len(self.received[-1]) == len(DATA))


ANSWERABLE = (State.Sta8, State.Sta9, State.Sta12)


def connected() -> tuple[Side, Side]:
    """Both sides with the transport just open: the request is under way."""
    requestor, acceptor = Side(requestor=True), Side(requestor=False)
    requestor.peer, acceptor.peer = acceptor, requestor
    assert requestor.provider.associate(negotiation.propose(PROPOSAL)) == [Order.OPEN_TRANSPORT]
    for side in (requestor, acceptor):
        side.transport_open = True
        side.handle(side.provider.transport_opened())
    return requestor, acceptor


def exchange(*sides: Side) -> None:
    """Deliver until nothing is under way."""
    while any(side.coming for side in sides):
        for side in sides:
            side.deliver(len(side.coming))


def established() -> tuple[Side, Side]:
    requestor, acceptor = connected()
    exchange(requestor, acceptor)
    assert requestor.provider.established
    assert acceptor.provider.established
    return requestor, acceptor


def finish(*sides: Side) -> None:
    """What a sensible user does where it must: answer, wait for the timer, or give up."""
    for _ in range(4):
        exchange(*sides)
        for side in sides:
            side.answer()
            exchange(*sides)
    for act in (Side.expire, Side.abort, Side.expire):
        for side in sides:
            act(side)
            exchange(*sides)


def check_ends(*sides: Side) -> None:
    for side in sides:
        assert side.provider.closed, side.provider.state
        assert not side.transport_open
        assert not side.timer, "a timer is left running"
        assert len(side.ends) <= 1, side.ends
        assert all(octets == DATA for octets in side.received[:-1])
        assert all(DATA.startswith(octets) for octets in side.received)
        assert len(side.received) <= side.peer.sent


# --- conversations


def test_an_association_is_made_and_released() -> None:
    requestor, acceptor = established()
    requestor.release()
    exchange(requestor, acceptor)
    acceptor.answer()
    exchange(requestor, acceptor)
    check_ends(requestor, acceptor)
    assert requestor.ends == ["released"]


def test_the_acceptor_may_ask_for_release_too() -> None:
    requestor, acceptor = established()
    acceptor.release()
    exchange(requestor, acceptor)
    requestor.answer()
    exchange(requestor, acceptor)
    check_ends(requestor, acceptor)
    assert acceptor.ends == ["released"]


@pytest.mark.parametrize("first", ["requestor", "acceptor"])
def test_a_release_collision_ends_with_both_sides_released(first: str) -> None:
    requestor, acceptor = established()
    requestor.release()
    acceptor.release()
    exchange(requestor, acceptor)
    sides = [requestor, acceptor] if first == "requestor" else [acceptor, requestor]
    for side in sides * 2:
        side.answer()
        exchange(requestor, acceptor)
    check_ends(requestor, acceptor)
    assert (requestor.ends, acceptor.ends) == (["released"], ["released"])


@pytest.mark.parametrize("place", range(24))
def test_a_release_collision_may_be_cut_anywhere(place: int) -> None:
    requestor, acceptor = established()
    requestor.release()
    acceptor.release()
    for _ in range(4):
        for side in (requestor, acceptor):
            side.deliver(place % 10)
            side.answer()
            side.deliver(len(side.coming))
            side.answer()
    check_ends(requestor, acceptor)
    assert (requestor.ends, acceptor.ends) == (["released"], ["released"])


def test_data_that_was_under_way_when_the_other_side_asked_for_release_arrives() -> None:
    requestor, acceptor = established()
    acceptor.send()
    requestor.release()
    exchange(requestor, acceptor)
    acceptor.send()
    acceptor.answer()
    exchange(requestor, acceptor)
    assert requestor.received == [DATA, DATA]
    check_ends(requestor, acceptor)


@pytest.mark.parametrize("who", ["requestor", "acceptor"])
def test_an_abort_ends_both_sides_at_once(who: str) -> None:
    requestor, acceptor = established()
    side = requestor if who == "requestor" else acceptor
    side.abort()
    exchange(requestor, acceptor)
    check_ends(requestor, acceptor)
    assert (requestor.ends, acceptor.ends) == (["aborted"], ["aborted"])


def test_aborts_that_cross_end_both_sides() -> None:
    requestor, acceptor = established()
    requestor.abort()
    acceptor.abort()
    exchange(requestor, acceptor)
    check_ends(requestor, acceptor)
    assert (requestor.ends, acceptor.ends) == (["aborted"], ["aborted"])


def test_an_abort_while_the_request_is_under_way_ends_both_sides() -> None:
    requestor, acceptor = connected()
    requestor.abort()
    exchange(requestor, acceptor)
    check_ends(requestor, acceptor)


def test_a_transport_that_is_lost_is_told_to_both_sides() -> None:
    requestor, acceptor = established()
    requestor.lose()
    check_ends(requestor, acceptor)
    assert (requestor.ends, acceptor.ends) == (["aborted"], ["aborted"])


def test_a_peer_that_stays_silent_after_our_abort_is_cut_off_by_the_timer() -> None:
    requestor, acceptor = established()
    acceptor.coming = Nowhere()
    requestor.abort()
    assert requestor.timer
    requestor.expire()
    assert requestor.provider.closed
    assert not requestor.transport_open


class Nowhere(bytearray):
    """A line that swallows what is sent."""

    def __iadd__(self, _octets: object) -> Nowhere:  # type: ignore[override,misc]
        return self


# --- any conversation

STEPS = st.one_of(
    st.tuples(st.sampled_from(["send", "release", "answer", "abort", "expire", "lose"])),
    st.tuples(st.just("deliver"), st.integers(0, 80)),
    st.tuples(st.just("deliver"), st.just(1 << 20)),
)


@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 1), STEPS), max_size=40),
)
def test_any_conversation_ends_on_both_sides_and_each_is_told_once(
    from_the_start: bool, steps: list[tuple[int, tuple[str, *tuple[int, ...]]]]
) -> None:
    sides = connected() if from_the_start else established()
    for index, (what, *arguments) in steps:
        getattr(sides[index], what)(*arguments)
    finish(*sides)
    check_ends(*sides)


ORDERLY = st.one_of(
    st.tuples(st.sampled_from(["send", "send", "release", "answer"])),
    st.tuples(st.just("deliver"), st.integers(0, 40)),
)


@given(st.lists(st.tuples(st.integers(0, 1), ORDERLY), max_size=60))
def test_without_aborts_all_that_was_sent_arrives_and_both_are_released(
    steps: list[tuple[int, tuple[str, *tuple[int, ...]]]],
) -> None:
    sides = established()
    for index, (what, *arguments) in steps:
        getattr(sides[index], what)(*arguments)
    exchange(*sides)
    sides[0].release()
    finish(*sides)
    check_ends(*sides)
    for side in sides:
        assert "aborted" not in side.ends
        assert side.received == [DATA] * side.peer.sent
    assert any(side.ends == ["released"] for side in sides)


def octets_of_a_conversation() -> Iterator[bytes]:
    """All that a requestor sends over its life."""
    requestor, acceptor = connected()
    yield bytes(acceptor.coming)
    exchange(requestor, acceptor)
    for act in (Side.send, Side.send, Side.release):
        act(requestor)
        yield bytes(acceptor.coming)
        exchange(requestor, acceptor)


def test_a_requestor_that_vanishes_after_any_octet_leaves_nothing_behind() -> None:
    stream = b"".join(octets_of_a_conversation())
    for place in range(len(stream)):
        acceptor = Side(requestor=False)
        acceptor.peer = Side(requestor=True)
        acceptor.transport_open = True
        acceptor.handle(acceptor.provider.transport_opened())
        acceptor.coming += stream[:place]
        while acceptor.coming:
            acceptor.deliver(1)
        acceptor.lose()
        assert acceptor.provider.closed
        assert not acceptor.timer
        assert len(acceptor.ends) == (1 if acceptor.accepted else 0)
