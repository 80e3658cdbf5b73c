"""Events: each thing that happens is told once, in order, with figures that are right."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import raw
from memory import CT, Peer, Serving, Tracked, World, outcome, source
from pydicom import Dataset
from twisted.internet.defer import Deferred, fail

from twisted_dimse import AssociationRejected, DimseError, StatusError, Timeouts, telemetry
from twisted_dimse.telemetry import (
    AssociationConnecting,
    AssociationEnded,
    AssociationNegotiated,
    AssociationNotMade,
    CommandReceived,
    CommandSent,
    HandlerFailed,
    OperationBegun,
    OperationEnded,
    PDUReceived,
    PDUSent,
    SubOperationEnded,
)
from twisted_dimse.upperlayer import pdu


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture
def events() -> Iterator[list[Any]]:
    seen: list[Any] = []
    unsubscribe = telemetry.subscribe(seen.append)
    yield seen
    unsubscribe()
    assert not telemetry.subscribers


def of(events: list[Any], kind: type, association: Any = None) -> list[Any]:
    return [
        event
        for event in events
        if type(event) is kind and (association is None or event.association == association.number)
    ]


# --- subscribing


def test_every_subscriber_hears_until_it_unsubscribes() -> None:
    first: list[object] = []
    second: list[object] = []
    leave_first, leave_second = (telemetry.subscribe(one.append) for one in (first, second))
    telemetry.emit("a")
    leave_first()
    leave_first()  # once more does nothing
    telemetry.emit("b")
    leave_second()
    telemetry.emit("c")
    assert (first, second) == (["a"], ["a", "b"])
    assert telemetry.subscribers == ()


def test_the_same_callable_may_subscribe_twice() -> None:
    seen: list[object] = []
    leave = [telemetry.subscribe(seen.append) for _ in range(2)]
    telemetry.emit("a")
    leave[0]()
    telemetry.emit("b")
    leave[1]()
    assert seen == ["a", "a", "b"]


def test_a_subscriber_that_fails_is_logged_and_the_others_hear(
    world: World, events: list[Any]
) -> None:
    def fails(_event: object) -> None:
        raise ZeroDivisionError

    leave = telemetry.subscribe(fails)
    telemetry.emit("a")
    leave()
    assert events == ["a"]
    world.logged(ZeroDivisionError)


def test_events_are_frozen() -> None:
    event = AssociationConnecting(1, "requestor", "10.0.0.1")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.role = "acceptor"  # type: ignore[misc]


# --- associations


def test_an_association_is_told_from_its_beginning_to_its_end(
    world: World, events: list[Any]
) -> None:
    requestor, acceptor = world.associate(
        server={"max_pdu_length": 4096}, calling_ae_title="ME", max_pdu_length=8192, window=3
    )
    world.advance(2)
    world.result(requestor.echo())
    world.result(requestor.release())
    for side, role in ((requestor, "requestor"), (acceptor, "acceptor")):
        (begun,) = of(events, AssociationConnecting, side)
        (made,) = of(events, AssociationNegotiated, side)
        (ended,) = of(events, AssociationEnded, side)
        assert begun == AssociationConnecting(side.number, role, "10.0.0.1")
        assert (made.role, made.calling_ae_title, made.called_ae_title) == (role, "ME", "SERVER")
        assert (made.proposed, made.accepted) == (len(side.agreement.results), len(side.accepted))
        assert (made.max_send_length, made.max_receive_length) == (
            (4096, 8192) if side is requestor else (8192, 4096)
        )
        assert (made.invoked, made.performed, made.seconds) == (3, 3, 0)
        assert (ended.how, ended.by_us, ended.messages, ended.seconds) == ("released", False, 1, 2)
    wires = world.link.wires
    requestor_end, acceptor_end = (
        of(events, AssociationEnded, side)[0] for side in (requestor, acceptor)
    )
    assert requestor_end.octets_sent == acceptor_end.octets_received == wires[0].delivered
    assert acceptor_end.octets_sent == requestor_end.octets_received == wires[1].delivered


def test_a_rejection_is_told_on_both_sides(world: World, events: list[Any]) -> None:
    with pytest.raises(AssociationRejected):
        world.associate(Serving(associate=lambda _: fail(AssociationRejected(1, 1, 3))))
    told = [(e.role, e.result, e.source, e.reason) for e in of(events, AssociationNotMade)]
    assert sorted(told) == [("acceptor", 1, 1, 3), ("requestor", 1, 1, 3)]
    assert not of(events, AssociationNegotiated)


ENDS: dict[str, tuple[Callable[[World, Any, Any], None], tuple[str, bool], tuple[str, bool]]] = {
    "release": (lambda w, r, a: w.watch(r.release()), ("released", False), ("released", False)),
    "abort": (lambda w, r, a: r.abort(), ("aborted", True), ("aborted", False)),
    "abort by the peer": (lambda w, r, a: a.abort(), ("aborted", False), ("aborted", True)),
    "loss": (lambda w, r, a: w.link.lose(), ("lost", False), ("lost", False)),
    "time-out": (lambda w, r, a: w.advance(10), ("aborted", True), ("aborted", False)),
    "violation": (
        lambda w, r, a: w.link.requestor.write(b"\x2a\0\0\0\0\0"),
        ("aborted", False),
        ("aborted", True),
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_each_end_is_told_once_on_each_side(world: World, events: list[Any], end: str) -> None:
    how, requestors, acceptors = ENDS[end]
    requestor, acceptor = world.associate(timeouts=Timeouts(idle=10))
    how(world, requestor, acceptor)
    world.run()
    for side, expected in ((requestor, requestors), (acceptor, acceptors)):
        (ended,) = of(events, AssociationEnded, side)
        assert (ended.how, ended.by_us) == expected
        assert bool(ended.reason) == (ended.how != "released")


# --- operations


def test_an_operation_is_told_on_both_sides_with_its_size_and_time(
    world: World, events: list[Any]
) -> None:
    answer: Deferred[int] = Deferred()
    requestor, acceptor = world.associate(Serving(store=lambda *_: answer))
    one = source(size=100_000)
    storing = requestor.store(one, check=False)
    world.advance(3)
    answer.callback(0xA700)
    world.result(storing)
    for side, role in ((requestor, "scu"), (acceptor, "scp")):
        assert of(events, OperationBegun, side) == [OperationBegun(side.number, role, "C-STORE", 1)]
        assert of(events, OperationEnded, side) == [
            OperationEnded(side.number, role, "C-STORE", 1, 0xA700, len(one.data), 3)
        ]


def test_every_operation_that_began_ends_once_whatever_happens(
    world: World, events: list[Any]
) -> None:
    answers: list[Deferred[int]] = []

    def echo(_request: Any) -> Deferred[int]:
        answers.append(Deferred())
        return answers[-1]

    requestor, _ = world.associate(Serving(echo=echo, n_get=lambda _: 1 / 0), window=8)
    asked = [requestor.echo() for _ in range(4)]
    asked.append(requestor.n_get("1.2.840.10008.3.1.2.3.3", "1.2"))
    asked.append(requestor.find({}))
    asked.append(requestor.store(Tracked(size=2_000_000)))
    asked.append(requestor.store(Tracked(fails_at=-1)))
    asked[1].cancel()
    asked[5].cancel()
    world.link.turn()
    world.link.turn()
    answers[0].callback(0)
    world.link.turn()
    world.link.lose()
    for one in asked:
        one.addErrback(lambda _: None)
    world.logged(ZeroDivisionError)
    begun = {(e.association, e.role, e.message_id) for e in of(events, OperationBegun)}
    ended = [(e.association, e.role, e.message_id) for e in of(events, OperationEnded)]
    assert sorted(begun) == sorted(ended)
    assert len(begun) > 6


def test_an_operation_that_is_withdrawn_has_ended_too(world: World, events: list[Any]) -> None:
    requestor, _ = world.associate(window=4)
    world.link.to_acceptor.stalled = True
    stores = [requestor.store(Tracked(size=1_000_000)) for _ in range(2)]
    stores[1].cancel()
    world.link.to_acceptor.stalled = False
    world.result(stores[0])
    stores[1].addErrback(lambda _: None)
    begun = [e.message_id for e in of(events, OperationBegun, requestor)]
    assert sorted(e.message_id for e in of(events, OperationEnded, requestor)) == begun


def test_a_handler_that_fails_is_told(world: World, events: list[Any]) -> None:
    requestor, acceptor = world.associate(Serving(echo=lambda _: 1 / 0))
    with pytest.raises(StatusError):
        world.result(requestor.echo())
    error = world.logged(ZeroDivisionError)
    assert of(events, HandlerFailed) == [HandlerFailed(acceptor.number, "C-ECHO-RQ", error)]


def test_suboperations_are_told(world: World, events: list[Any]) -> None:
    sources = [source("1.2.1"), source("1.2.2")]
    requestor, acceptor = world.associate(
        Serving(get=lambda _: sources, move=lambda _: sources),
        {"peers": {"DEST": Peer("DEST", world.serve())}},
        handler=Serving(),
    )
    world.result(requestor.get({}))
    world.result(requestor.move({}, destination="DEST"))
    told = of(events, SubOperationEnded, acceptor)
    assert [(e.name, e.message_id, e.sop_instance_uid, e.status, e.remaining) for e in told] == [
        ("C-GET", 1, "1.2.1", 0, 1),
        ("C-GET", 1, "1.2.2", 0, 0),
        ("C-MOVE", 2, "1.2.1", 0, 1),
        ("C-MOVE", 2, "1.2.2", 0, 0),
    ]


# --- commands and PDUs


def test_each_command_is_told_as_it_goes_and_as_it_comes(world: World, events: list[Any]) -> None:
    requestor, acceptor = world.associate(Serving(find=lambda _: [Dataset(), Dataset()]))
    world.result(requestor.find({}))
    sent = [(e.context_id, e.command) for e in of(events, CommandSent)]
    received = [(e.context_id, e.command) for e in of(events, CommandReceived)]
    assert len(sent) == len(received) == 4
    for (context, command), (same, other) in zip(sent, received, strict=True):
        assert context == same
        assert command.items() <= other.items()
    names = [e.command.name for e in of(events, CommandReceived, requestor)]
    assert names == ["C-FIND-RSP"] * 3
    assert [e.command.name for e in of(events, CommandSent, requestor)] == ["C-FIND-RQ"]
    assert len(of(events, CommandSent, acceptor)) == 3


@pytest.mark.parametrize("most", [None, 50])
@pytest.mark.parametrize("limit", [512, 0])
def test_each_pdu_is_told_on_both_sides_with_its_size(
    world: World, events: list[Any], most: int | None, limit: int
) -> None:
    world.most = most
    requestor, acceptor = world.associate(
        Serving(n_get=lambda _: _large()), {"max_pdu_length": limit}, max_pdu_length=limit
    )
    world.result(requestor.store(source(size=2000)))
    world.result(requestor.n_get("1.2.840.10008.3.1.2.3.3", "1.2"))
    world.result(requestor.release())
    for wire, sender, receiver in (
        (world.link.to_acceptor, requestor, acceptor),
        (world.link.to_requestor, acceptor, requestor),
    ):
        on_the_wire = [(kind, len(body) + 6) for kind, body in raw.stream(bytes(wire.record))]
        sent = [(e.kind, e.octets) for e in of(events, PDUSent, sender)]
        received = [(e.kind, e.octets) for e in of(events, PDUReceived, receiver)]
        assert sorted(sent) == sorted(on_the_wire)
        assert received == on_the_wire
        for event in (*of(events, PDUSent, sender), *of(events, PDUReceived, receiver)):
            assert (event.pdu is None) == (event.kind == pdu.P_DATA_TF)


def _large() -> Dataset:
    dataset = Dataset()
    dataset.add_new(0x7FE00010, "OB", bytes(2000))
    return dataset


def test_who_subscribes_late_hears_from_then_on(world: World) -> None:
    requestor, _ = world.associate()
    world.result(requestor.echo())
    seen: list[Any] = []
    leave = telemetry.subscribe(seen.append)
    world.result(requestor.store(source()))
    world.result(requestor.echo())
    leave()
    world.result(requestor.echo())
    assert {type(event) for event in seen} == {
        OperationBegun,
        OperationEnded,
        CommandSent,
        CommandReceived,
        PDUSent,
        PDUReceived,
    }
    assert len(of(seen, OperationEnded)) == 4


def test_no_event_is_made_while_nobody_hears(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("an event was made")

    for name, value in vars(telemetry).items():
        if isinstance(value, type) and dataclasses.is_dataclass(value):
            monkeypatch.setattr(telemetry, name, never)
    requestor, acceptor = world.associate(
        Serving(get=lambda _: [source()], find=lambda _: [Dataset()]), roles={CT: "both"}
    )
    world.result(requestor.store(source(size=100_000)))
    world.result(requestor.find({}))
    world.result(requestor.get({}, handler=Serving()))
    acceptor.abort()
    world.run()
    with pytest.raises(DimseError):
        outcome(requestor.echo())
