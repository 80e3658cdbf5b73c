"""The way of the octets: order, bounds and back-pressure, in memory and over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import raw
from hypothesis import example, given, settings
from hypothesis import strategies as st
from memory import (
    CT,
    EXPLICIT,
    IMPLICIT,
    STEP,
    Serving,
    Tracked,
    World,
    fired,
    outcome,
    source,
)
from pydicom import Dataset
from sockets import Sockets
from strategies import cuts, damaged, ends_of_pdus, pieces
from twisted.internet.defer import Deferred

from twisted_dimse import (
    VERIFICATION,
    AssociationAborted,
    AssociationTimeout,
    ConnectionLost,
    DimseError,
    Timeouts,
    protocol,
)
from twisted_dimse.outgoing import BLOCK
from twisted_dimse.protocol import AssociationProtocol

LIMITS = [*range(8, 24), 33, 127, 1000, 16384, BLOCK, 0]


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with Sockets() as sockets:
        yield sockets


def checked(stream: bytes, limit: int) -> list[Any]:
    """The messages of a recorded direction, after a look at each fragment."""
    inside: tuple[int, int] | None = None
    for kind, body in raw.stream(stream):
        if kind != raw.P_DATA:
            continue
        assert not limit or len(body) <= limit
        for context, control, data in raw.values(body):
            if inside is not None:
                assert (context, control & raw.COMMAND) == inside, "two messages are mixed"
            assert len(data) % 2 == 0
            assert data or control & raw.LAST
            inside = None if control & raw.LAST else (context, control & raw.COMMAND)
    assert inside is None
    return raw.messages(stream)


def patient(size: int) -> Dataset:
    dataset = Dataset()
    dataset.PixelData = bytes(size)
    dataset["PixelData"].VR = "OB"
    return dataset


# --- every maximum length


@pytest.mark.parametrize("limit", LIMITS)
def test_both_directions_keep_to_the_maximum_length_of_the_other(limit: int) -> None:
    with World() as world:
        _check_both_directions(world, limit)
        wires = world.link.wires
        assert [len(checked(bytes(wire.record), limit)) for wire in wires] == [3, 3]


@pytest.mark.parametrize("limit", LIMITS)
def test_over_sockets_both_directions_keep_to_the_maximum_length_of_the_other(
    sockets: Sockets, limit: int
) -> None:
    _check_both_directions(sockets, limit)
    assert [len(checked(sockets.received(n), limit)) for n in (0, 1)] == [3, 3]


def _check_both_directions(world: World, limit: int) -> None:
    stored: list[bytes] = []
    requestor, _ = world.associate(
        Serving(
            store=lambda request, _: stored.append(request.encoded_dataset),
            n_get=lambda _: patient(901),
        ),
        {"max_pdu_length": limit},
        max_pdu_length=limit,
    )
    one = source(size=1001)
    assert world.result(requestor.store(one)).status == 0
    assert stored == [one.data]
    assert world.result(requestor.n_get(STEP, "1.2.3")).dataset.PixelData == bytes(902)
    assert world.result(requestor.echo()).status == 0


def test_a_command_of_more_pieces_than_one_send_takes_goes_out_whole(sockets: Sockets) -> None:
    handler = Serving(n_get=0)
    requestor, _ = sockets.associate(handler, {"max_pdu_length": 8})
    tags = [0x00100000 + number for number in range(1200)]
    sockets.result(requestor.n_get(STEP, "1.2.3", tags))
    assert handler.requests[0].attributes == tuple(tags)


def test_tcp_holds_back_no_small_message_and_finds_out_that_a_peer_is_dead() -> None:
    with Sockets(kind="tcp") as sockets:
        for association in sockets.associate():
            transport = association.protocol.transport
            assert transport.getTcpNoDelay()
            assert transport.getTcpKeepAlive()


# --- the two ways out


operations = st.lists(
    st.one_of(
        st.just("echo"),
        st.just("n_get"),
        st.integers(0, 3000),
        st.sampled_from([70_000, 262_000, 600_000]),
    ),
    min_size=1,
    max_size=6,
)


@given(
    asked=operations,
    limit=st.sampled_from([512, 1001, 16384, BLOCK, 0]),
    octets=st.sampled_from([1, 2048, 5000, 40_000, 400_000]),
)
@settings(max_examples=30)
@example(asked=[262_000, 0], limit=BLOCK, octets=1)
def test_both_ways_out_send_the_same_octets(asked: list[Any], limit: int, octets: int) -> None:
    """``sendmsg`` with what the socket leaves over, and ``transport.write``."""
    with World() as world:
        _ask(world, asked, limit)
        in_memory = [bytes(wire.record) for wire in world.link.wires]
    with Sockets(octets) as sockets:
        _ask(sockets, asked, limit)
        over_sockets = [sockets.received(0), sockets.received(1)]
    assert over_sockets == in_memory


def _ask(world: World, asked: list[Any], limit: int) -> None:
    requestor, _ = world.associate(
        Serving(n_get=lambda _: patient(200_000)),
        {"max_pdu_length": limit},
        max_pdu_length=limit,
        window=8,
    )
    calls: dict[Any, Callable[[], Deferred[Any]]] = {
        "echo": requestor.echo,
        "n_get": lambda: requestor.n_get(STEP, "1.2.3"),
    }
    answers = [
        calls[one]() if one in calls else requestor.store(Tracked(size=one)) for one in asked
    ]
    world.run()
    assert [outcome(answer).status for answer in answers] == [0] * len(asked)
    assert world.result(requestor.release()) is None
    assert Tracked.open_files == 0


def test_over_tcp_both_ways_out_send_the_same_octets() -> None:
    asked = ["echo", 70_000, "n_get", 600_000, "n_get", 3]
    with World() as world:
        _ask(world, asked, 1001)
        in_memory = [bytes(wire.record) for wire in world.link.wires]
    with Sockets(kind="tcp") as sockets:
        _ask(sockets, asked, 1001)
        assert [sockets.received(0), sockets.received(1)] == in_memory


def test_the_socket_takes_only_a_part_at_a_time(sockets: Sockets) -> None:
    """Else these tests would show nothing."""
    requestor, _ = sockets.associate()
    sockets.result(requestor.store(source(size=2_000_000)))
    assert sockets.transports[1].most > 1000


def test_both_directions_at_once(sockets: Sockets) -> None:
    received: list[int] = []

    def store(request: Any, _dataset: Any) -> int:
        received.append(len(request.encoded_dataset))
        return 0

    requestor, acceptor = sockets.associate(
        Serving(store=store), handler=Serving(store=store), window=4, roles={CT: "both"}
    )
    stores = [
        side.store(Tracked(f"1.2.{number}", size=300_000))
        for number in range(8)
        for side in (requestor, acceptor)
    ]
    sockets.run()
    assert [outcome(one).status for one in stores] == [0] * 16
    assert len(received) == 16
    assert len(set(received)) == 1


# --- what is buffered stays bounded


@pytest.mark.parametrize("limit", [512, 16384, 0])
def test_a_peer_that_takes_nothing_makes_nothing_pile_up(world: World, limit: int) -> None:
    requestor, _ = world.associate(server={"max_pdu_length": limit}, window=16)
    world.link.to_acceptor.stalled = True
    stores = [requestor.store(Tracked(size=1_000_000)) for _ in range(16)]
    world.run()
    assert len(world.link.to_acceptor.waiting) < 2 * BLOCK
    world.link.to_acceptor.stalled = False
    world.run()
    assert [outcome(store).status for store in stores] == [0] * 16
    assert world.link.to_acceptor.most_waiting < 2 * BLOCK


@pytest.mark.parametrize("limit", [512, 16384, 0])
def test_a_socket_that_takes_nothing_makes_nothing_pile_up(sockets: Sockets, limit: int) -> None:
    requestor, _ = sockets.associate(server={"max_pdu_length": limit}, window=16)
    sockets.transports[0].pauseProducing()
    stores = [requestor.store(Tracked(size=1_000_000)) for _ in range(16)]
    sockets.run()
    assert not any(store.called for store in stores)
    sockets.transports[0].resumeProducing()
    sockets.run()
    assert [outcome(store).status for store in stores] == [0] * 16
    assert sockets.transports[1].most < 2 * BLOCK


@pytest.mark.parametrize("over", [World, Sockets])
def test_matches_are_made_as_the_peer_takes_them(over: type[World]) -> None:
    made = 0

    def find(_request: Any) -> Iterator[Dataset]:
        nonlocal made
        for _ in range(20_000):
            made += 1
            yield match

    match = patient(400)
    with over() as world:
        requestor, acceptor = world.associate(Serving(find=find))
        if isinstance(world, Sockets):
            world.transports[1].pauseProducing()
        else:
            world.link.to_requestor.stalled = True
        finding = requestor.find({})
        world.run()
        assert 0 < made < 2500
        assert len(acceptor.protocol.sender.outgoing.queue) <= 100
        finding.cancel()
        finding.addErrback(lambda _: None)


@pytest.mark.parametrize("over", [World, Sockets])
def test_a_slow_sink_stops_the_sender(over: type[World]) -> None:
    waits: list[Deferred[None]] = []
    octets = 0

    class Sink:
        def write(self, data: Any) -> Deferred[None]:
            nonlocal octets
            octets += len(data)
            waits.append(Deferred())
            return waits[-1]

        def finish(self) -> int:
            return 0

        def abandon(self) -> None:
            pass

    with over() as world:
        requestor, _ = world.associate(
            Serving(store_sink=lambda _: Sink()), {"max_pdu_length": 16384}, window=8
        )
        tracked = [Tracked(size=1_000_000) for _ in range(4)]
        stores = [requestor.store(one) for one in tracked]
        world.run()
        assert octets <= 16384
        assert len(waits) == 1
        if not isinstance(world, Sockets):
            assert len(world.link.to_acceptor.waiting) < 2 * BLOCK
        while not fired(stores[-1]):
            waits[-1].callback(None)
            world.run()
        assert octets == sum(len(one.data) for one in tracked)
        assert [outcome(store).status for store in stores] == [0] * 4


class WaitingSink:
    """Takes its time with what is written until ``wait`` fires; ``events`` are its calls."""

    def __init__(self, events: list[str], wait: Deferred[None]) -> None:
        self._events = events
        self._wait = wait

    def write(self, _data: Any) -> Deferred[None] | None:
        self._events.append("write")
        return None if self._wait.called else self._wait

    def finish(self) -> int:
        self._events.append("finish")
        return 0

    def abandon(self) -> None:
        self._events.append("abandon")


@pytest.mark.parametrize("leaks", [False, True], ids=["quiet", "leaking"])
@pytest.mark.parametrize("most", [None, 1, 20])
def test_a_paused_transport_keeps_what_has_come_in_order(
    world: World, leaks: bool, most: int | None
) -> None:
    """Two commands and a release behind a slice that takes its time."""
    wait: Deferred[None] = Deferred()
    events: list[str] = []

    request = raw.associate_rq([(1, VERIFICATION, ["1.2.840.10008.1.2"]), (3, CT, ["1.2.3.4"])])
    sink = WaitingSink(events, wait)
    handler = Serving(store_sink=lambda _: sink, echo=lambda _: events.append("echo"))
    _, script = world.call(handler, request)
    world.most = most
    world.link.acceptor.leaks = leaks
    store = raw.store_rq("1.2.3", 5, CT)
    script.send(
        raw.p_data((3, 3, store)),
        raw.p_data((3, 0, b"ab"), (3, 2, b"cd")),
        raw.p_data((1, 3, raw.echo_rq(6))),
        raw.p_data((1, 3, raw.echo_rq(7))),
        raw.pdu(raw.RELEASE_RQ, bytes(4)),
    )
    world.run()
    assert events == ["write"]
    wait.callback(None)
    world.run()
    assert events.count("write") == (4 if most == 1 else 2)
    assert [event for event in events if event != "write"] == ["finish", "echo", "echo"]
    assert script.kinds[-1] == raw.RELEASE_RP
    assert [raw.number(m.command, raw.RESPONDED_TO) for m in script.messages] == [5, 6, 7]


@pytest.mark.parametrize("last", [True, False])
def test_what_waits_when_the_connection_is_lost_is_not_performed(world: World, last: bool) -> None:
    wait: Deferred[None] = Deferred()
    events: list[str] = []

    request = raw.associate_rq([(1, VERIFICATION, ["1.2.840.10008.1.2"]), (3, CT, ["1.2.3.4"])])
    sink = WaitingSink(events, wait)
    handler = Serving(store_sink=lambda _: sink, echo=lambda _: events.append("echo"))
    acceptor, script = world.call(handler, request)
    script.send(
        raw.p_data((3, 3, raw.store_rq("1.2.3", 5, CT))),
        raw.p_data((3, 2 if last else 0, b"ab")),
        raw.p_data((1, 3, raw.echo_rq(6))) if last else b"",
        raw.pdu(raw.ABORT, b"\0\0\0\0") if last else b"",
    )
    world.run()
    world.link.lose()
    wait.callback(None)
    assert events == ["write", "abandon"]
    end = outcome(acceptor.closed)
    assert isinstance(end, AssociationAborted if last else ConnectionLost)


# --- over sockets: order and ends


def test_a_control_pdu_stands_behind_all_that_was_sent(sockets: Sockets) -> None:
    requestor, _ = sockets.associate(server={"max_pdu_length": 1000}, window=4)
    stores = [requestor.store(source(size=300_000)) for _ in range(4)]
    released = requestor.release()
    sockets.run()
    assert [outcome(store).status for store in stores] == [0] * 4
    assert outcome(released) is None
    kinds = [kind for kind, _ in raw.stream(sockets.received(0))]
    assert kinds[-1] == raw.RELEASE_RQ
    assert set(kinds[1:-1]) == {raw.P_DATA}


def test_an_abort_comes_between_two_pdus(sockets: Sockets) -> None:
    requestor, acceptor = sockets.associate(server={"max_pdu_length": 1000})
    stored = requestor.store(Tracked(size=3_000_000))
    for _ in range(20):
        sockets.clock.turn()
    requestor.abort()
    sockets.run()
    with pytest.raises(AssociationAborted):
        outcome(stored)
    pdus = list(raw.stream(sockets.received(0)))
    assert pdus[-1] == (raw.ABORT, bytes(4))
    assert all(len(body) in (1000, 0) or kind != raw.P_DATA for kind, body in pdus[2:-1])
    assert isinstance(outcome(acceptor.closed), AssociationAborted)
    assert Tracked.open_files == 0


def test_a_socket_that_takes_nothing_is_given_up_after_the_time_out(sockets: Sockets) -> None:
    requestor, _ = sockets.associate(timeouts=Timeouts(dimse=20, artim=5))
    sockets.transports[0].pauseProducing()
    stored = requestor.store(Tracked(size=3_000_000))
    sockets.advance(19.5)
    assert not stored.called
    sockets.advance(0.5)
    with pytest.raises(AssociationTimeout, match="the peer took no data for 20 s"):
        outcome(stored)
    assert Tracked.open_files == 0
    assert sockets.transports[1].connected
    sockets.advance(5)
    assert not sockets.transports[1].connected
    assert isinstance(outcome(requestor.closed), AssociationTimeout)


@pytest.mark.parametrize("which", [0, 1])
def test_a_connection_that_breaks_ends_both_sides(sockets: Sockets, which: int) -> None:
    requestor, acceptor = sockets.associate(window=4)
    stores = [requestor.store(Tracked(size=2_000_000)) for _ in range(4)]
    for _ in range(30):
        sockets.clock.turn()
    sockets.transports[which].abortConnection()
    sockets.run()
    for store in stores:
        with pytest.raises(DimseError):
            outcome(store)
    for side in (requestor, acceptor):
        assert isinstance(outcome(side.closed), ConnectionLost)
    assert Tracked.open_files == 0


@pytest.mark.parametrize(("fragments_of", "largest"), [(16384, 262144), (64, 65536)])
def test_the_buffer_for_reading_grows_with_data_sets_only(fragments_of: int, largest: int) -> None:
    """And not with those in very small fragments, each of which takes its time."""
    sizes: list[int] = []

    class Sink:
        def write(self, _data: Any) -> None:
            sizes.append(sockets.transports[0].bufferSize)

        def finish(self) -> int:
            return 0

        def abandon(self) -> None:
            pass

    with Sockets(1 << 20) as sockets:
        requestor, _ = sockets.associate(
            Serving(store_sink=lambda _: Sink()), {"max_pdu_length": fragments_of}
        )
        assert sockets.transports[0].bufferSize == 65536
        sockets.result(requestor.store(source(size=3_000_000)))
        assert max(sizes) == largest
        assert sockets.transports[0].bufferSize == 65536


def test_many_small_requests_of_one_turn_go_out_in_order(sockets: Sockets) -> None:
    order: list[int] = []
    requestor, _ = sockets.associate(
        Serving(echo=lambda request: order.append(request.message_id)), window=100
    )
    echoes = [requestor.echo() for _ in range(1000)]
    sockets.run()
    assert all(outcome(echo).status == 0 for echo in echoes)
    assert order == list(range(1, 1001))


# --- however the octets are cut


def conversation() -> bytes:
    """What a requestor sends: echoes, instances in several fragments, the release."""
    whole = raw.COMMAND | raw.LAST
    pdus = [raw.p_data((1, whole, raw.echo_rq(1)))]
    for number, size in ((2, 0), (3, 200), (4, 1200)):
        data = raw.dataset(f"1.2.{number}", size, sop_class=CT)
        command = raw.store_rq(f"1.2.{number}", number, CT)
        pdus.append(raw.p_data((3, raw.COMMAND, command[:10]), (3, whole, command[10:])))
        pdus += [raw.p_data((3, 0, data[at : at + 100])) for at in range(0, len(data), 100)]
        pdus += [raw.p_data((3, raw.LAST, b"")), raw.p_data((1, whole, raw.echo_rq(number + 10)))]
    return b"".join([*pdus, raw.pdu(raw.RELEASE_RQ, bytes(4))])


CONVERSATION = conversation()


def heard(chunks: list[bytes]) -> tuple[Any, ...]:
    """What comes of a stream that arrives in these chunks: what is handed to the handler, why the
    association ended, whether with an A-ABORT, and what was answered."""
    contexts = ((1, VERIFICATION, (IMPLICIT,)), (3, CT, (EXPLICIT,)))
    with World() as world:
        handler = Serving(store=lambda *_: 0, echo=0)
        acceptor, script = world.call(handler, raw.associate_rq(contexts))
        for chunk in chunks:
            if chunk and not script.transport.lost:
                script.send(chunk)
                world.run()
        came = [
            (request.message_id, request.command, request.encoded_dataset)
            for request in handler.requests
        ]
        reason = str(acceptor._reason)
        received, aborted = bytes(script.received), script.abort
    return came, reason, aborted, received


def test_a_conversation_that_comes_octet_by_octet_goes_as_one_that_comes_at_once() -> None:
    at_once = heard([CONVERSATION])
    assert len(at_once[0]) == 7
    assert at_once[1:3] == ("None", None)
    assert heard([bytes((octet,)) for octet in CONVERSATION]) == at_once
    assert heard(list(pieces(CONVERSATION, ends_of_pdus(CONVERSATION)))) == at_once


@given(st.data())
@settings(max_examples=30)
def test_a_damaged_conversation_ends_the_same_however_it_is_cut(data: st.DataObject) -> None:
    stream = data.draw(st.one_of(st.just(CONVERSATION), damaged(CONVERSATION)))
    at_once, cut = heard([stream]), heard(data.draw(cuts(stream)))
    assert cut[:2] == at_once[:2]
    assert (cut[2] is None) == (at_once[2] is None)  # the reason is that of the first that is seen
    if at_once[2] is None:  # an abort drops the answers that wait for the end of their chunk
        assert cut[3] == at_once[3]


# --- what comes of one read is bounded


def test_of_many_messages_in_one_read_others_have_the_reactor_in_between(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [0]
    next_turn = AssociationProtocol._next_turn

    def turned(protocol: AssociationProtocol) -> Deferred[Any]:
        turns.append(0)
        return next_turn(protocol)

    def echo(_request: Any) -> None:
        turns[-1] += 1

    monkeypatch.setattr(AssociationProtocol, "_next_turn", turned)
    whole = raw.COMMAND | raw.LAST
    burst = b"".join(raw.p_data((1, whole, raw.echo_rq(number + 1))) for number in range(1000))
    _, script = world.call(Serving(echo=echo), raw.associate_rq([(1, VERIFICATION, (IMPLICIT,))]))
    script.send(burst + raw.pdu(raw.RELEASE_RQ, bytes(4)))
    world.run()
    answered = [raw.number(one.command, raw.RESPONDED_TO) for one in script.messages]
    assert script.kinds[-1] == raw.RELEASE_RP
    assert answered == list(range(1, 1001))
    assert sum(turns) == 1000
    assert max(turns) <= 128


def test_nothing_waits_for_another_turn_when_the_connection_is_lost(world: World) -> None:
    _, script = world.call(Serving(echo=0), raw.associate_rq([(1, VERIFICATION, (IMPLICIT,))]))
    script.send(raw.p_data((1, raw.COMMAND | raw.LAST, raw.echo_rq())) * 200)
    world.link.turn()
    timers = len(world.clock.getDelayedCalls())
    world.link.lose()
    assert timers > 0
    assert world.clock.getDelayedCalls() == []


def test_what_is_left_of_a_read_is_not_performed_when_the_association_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_MOST_A_TURN", 10)
    handler = Serving(echo=lambda request: request.association.abort())
    _, script = world.call(handler, raw.associate_rq([(1, VERIFICATION, (IMPLICIT,))]))
    echo = raw.p_data((1, raw.COMMAND | raw.LAST, raw.echo_rq()))
    script.send(echo * 100)
    world.run()
    assert len(handler.requests) == 1
    assert script.abort == (0, 0)


def test_an_error_of_ours_that_ends_the_connection_is_none_of_tls(world: World) -> None:
    requestor, _ = world.associate()
    closed = requestor.closed
    world.link.requestor.connection_lost(ZeroDivisionError("oops"))
    assert str(outcome(closed)) == "it failed here, see the log (ZeroDivisionError)"
