"""The C-STORE sub-operations of C-GET and C-MOVE: counts, the final status, cancel, and the
association to the destination (PS3.4 C.4.2, C.4.3)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import raw
from memory import (
    CT,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    MR,
    Endpoint,
    Serving,
    Tracked,
    World,
    encoded,
    outcome,
)
from twisted.internet.defer import Deferred, fail

from twisted_dimse import Peer, StatusError
from twisted_dimse.datastream import BytesSource
from twisted_dimse.dimse.command import HIGH
from twisted_dimse.suboperations import Counts
from twisted_dimse.transcoding import Transcoder


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


FAILURES = (0x0110, 0xA700, 0xA900, 0xC000)


def uid(number: int) -> str:
    return f"1.2.{number}"


class Receiving(Serving):
    """Answers the store of each instance with its status, or with a Deferred of it."""

    def __init__(self, *statuses: Any) -> None:
        super().__init__()
        self.contexts = None  # type: ignore[assignment]
        self.statuses = statuses
        self.received: list[str] = []

    def store(self, request: Any, dataset: Any) -> Any:
        self.received.append(request.sop_instance_uid)
        return self.statuses[int(request.sop_instance_uid.rpartition(".")[2])]


def retrieval(
    world: World, service: str, receiver: Receiving, given: Any, **options: Any
) -> tuple[Any, Deferred[Any]]:
    """A C-GET or C-MOVE of ``given`` with ``receiver`` at its end; who asks for it, and the
    Deferred of its result."""
    destination = Peer("DEST", world.serve(receiver))
    serving = Serving(**{service: lambda _: given})
    requestor, _ = world.associate(serving, {"peers": {"DEST": destination}}, **options)
    if service == "get":
        return requestor, requestor.get({}, handler=receiver)
    return requestor, requestor.move({}, destination="DEST")


def responses(world: World) -> list[Any]:
    """The responses of the C-GET or C-MOVE, in order."""
    messages = raw.messages(bytes(world.links[0].to_requestor.record))
    return [m for m in messages if m.field in (0x8010, 0x8021)]


def counts(message: Any) -> list[int | None]:
    """Remaining, completed, failed and warning, None for one that is not there."""
    tags = range(0x1020, 0x1024)
    return [raw.number(message.command, t) if t in message.command else None for t in tags]


@pytest.mark.parametrize("service", ["get", "move"])
@pytest.mark.parametrize(
    ("statuses", "final"),
    [
        ((0, 0), 0x0000),
        ((0, 0xB000), 0xB000),
        ((0xB007,), 0xB000),
        ((0, 0xA700), 0xB000),
        ((0xB000, 0x0110), 0xB000),
        ((0xA700, 0xC000), 0xA702),
        ((0, 0xB006, 0xA900, 0), 0xB000),
    ],
    ids=["done", "warned", "all-warned", "failed", "warned-and-failed", "all-failed", "mixed"],
)
def test_every_response_has_the_counts_and_the_last_its_status_by_rule(
    world: World, service: str, statuses: tuple[int, ...], final: int
) -> None:
    receiver = Receiving(*statuses)
    sources = [Tracked(uid(number)) for number in range(len(statuses))]
    _, asked = retrieval(world, service, receiver, sources)
    try:
        result = world.result(asked)
    except StatusError as error:
        result = error.outcome
    failed = [uid(n) for n, status in enumerate(statuses) if status in FAILURES]
    warned = sum(status >> 12 == 0xB for status in statuses)
    completed = statuses.count(0)
    assert receiver.received == [uid(number) for number in range(len(statuses))]
    assert (result.status, result.completed, result.failed, result.warning) == (
        final,
        completed,
        len(failed),
        warned,
    )
    assert result.failed_sop_instance_uids == tuple(failed)
    *pending, last = responses(world)
    assert [message.status for message in pending] == [0xFF00] * len(statuses)
    for number, message in enumerate(pending, 1):
        remaining, *ended = counts(message)
        assert (remaining, sum(ended)) == (len(statuses) - number, number)
    assert counts(last) == [None, completed, len(failed), warned]
    assert (last.data is not None) == bool(failed)


@pytest.mark.parametrize("service", ["get", "move"])
def test_a_cancel_stops_after_the_instance_under_way(world: World, service: str) -> None:
    slow: Deferred[int] = Deferred()
    receiver = Receiving(0, slow, 0, 0, 0)
    sources = [Tracked(uid(number)) for number in range(5)]
    requestor, asked = retrieval(world, service, receiver, sources)
    world.run()
    assert receiver.received == [uid(0), uid(1)]
    requestor.cancel(asked)
    world.run()
    assert not asked.called
    slow.callback(0)
    result = world.result(asked)
    assert receiver.received == [uid(0), uid(1)]
    assert (result.status, result.completed, result.remaining) == (0xFE00, 2, 3)
    assert counts(responses(world)[-1]) == [3, 2, 0, 0]
    assert Tracked.open_files == 0


def test_what_is_transcoded_when_a_cancel_comes_does_not_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow: Deferred[int] = Deferred()
    held: Deferred[None] = Deferred()

    @asynccontextmanager
    async def transcoded(_: Any, source: Any, syntax: str) -> AsyncIterator[BytesSource]:
        if source.sop_instance_uid == uid(1):
            await held
        yield BytesSource(CT, source.sop_instance_uid, syntax, source.data)

    monkeypatch.setattr(Transcoder, "transcoded", transcoded)
    receiver = Receiving(slow, 0, 0)
    sources = [BytesSource(CT, uid(number), JPEG, encoded(uid(number))) for number in range(3)]
    requestor, asked = retrieval(world, "get", receiver, sources)
    world.run()
    requestor.cancel(asked)
    world.run()
    held.callback(None)
    world.run()
    slow.callback(0)
    result = world.result(asked)
    assert receiver.received == [uid(0)]
    assert (result.status, result.completed, result.remaining) == (0xFE00, 1, 2)


def test_instances_of_a_c_get_are_asked_for_as_they_are_sent(world: World) -> None:
    slow: Deferred[int] = Deferred()
    drawn: list[int] = []

    def given() -> Iterator[Tracked]:
        for number in range(1_000_000):
            drawn.append(number)
            yield Tracked(uid(number))

    receiver = Receiving(0, 0, slow)
    requestor, asked = retrieval(world, "get", receiver, given())
    world.run()
    assert len(receiver.received) == 3
    assert len(drawn) <= 4
    requestor.cancel(asked)
    slow.callback(0)
    world.run()
    assert outcome(asked).completed == 3
    assert len(drawn) <= 4


def test_one_association_takes_all_classes_and_syntaxes_to_the_destination(world: World) -> None:
    kinds = [(CT, EXPLICIT), (MR, EXPLICIT), (CT, JPEG), (MR, IMPLICIT), (CT, EXPLICIT)]
    sources = [
        BytesSource(sop_class, uid(number), syntax, encoded(uid(number)))
        for number, (sop_class, syntax) in enumerate(kinds)
    ]
    receiver = Receiving(*[0] * len(kinds))
    _, asked = retrieval(world, "move", receiver, iter(sources))
    assert world.result(asked).completed == len(kinds)
    assert len(world.links) == 2, "the destination was connected to once"
    received = raw.messages(bytes(world.links[1].to_acceptor.record))
    assert [m.data for m in received] == [source.data for source in sources]


@pytest.mark.parametrize("service", ["get", "move"])
def test_the_next_instance_is_ready_while_the_answer_is_waited_for(
    world: World, service: str
) -> None:
    slow: Deferred[int] = Deferred()
    sources = [Tracked(uid(number)) for number in range(3)]
    _, asked = retrieval(world, service, Receiving(slow, 0, 0), sources)
    world.run()
    assert [source.opened for source in sources] == [1, 1, 0]
    slow.callback(0)
    assert world.result(asked).completed == 3


@pytest.mark.parametrize("service", ["get", "move"])
def test_an_instance_that_cannot_be_read_fails_alone(world: World, service: str) -> None:
    sources = [Tracked(uid(0)), Tracked(uid(1), fails_at=-1), Tracked(uid(2))]
    receiver = Receiving(0, 0, 0)
    _, asked = retrieval(world, service, receiver, sources)
    result = world.result(asked)
    assert receiver.received == [uid(0), uid(2)]
    assert (result.status, result.completed, result.failed) == (0xB000, 2, 1)
    assert result.failed_sop_instance_uids == (uid(1),)


@pytest.mark.parametrize("service", ["get", "move"])
@pytest.mark.parametrize("what", ["sop_class_uid", "sop_instance_uid", "transfer_syntax", "open"])
def test_a_source_that_fails_in_any_way_fails_alone(world: World, service: str, what: str) -> None:
    def fail(_self: Any, *_args: Any) -> Any:
        raise ZeroDivisionError("no such row")

    attribute = fail if what == "open" else property(fail, lambda _self, _value: None)
    broken = type("Broken", (Tracked,), {what: attribute})(uid(1))
    receiver = Receiving(0, 0, 0)
    _, asked = retrieval(world, service, receiver, [Tracked(uid(0)), broken, Tracked(uid(2))])
    result = world.result(asked)
    assert receiver.received == [uid(0), uid(2)]
    assert (result.status, result.completed, result.failed) == (0xB000, 2, 1)


def test_what_a_cancel_finds_already_drawn_is_told_as_remaining(world: World) -> None:
    """Of instances that cannot be counted those that are known of."""
    gate: Deferred[None] = Deferred()

    async def given() -> AsyncIterator[Tracked]:
        yield Tracked(uid(0))
        await gate
        yield Tracked(uid(1))

    receiver = Receiving(0, 0)
    requestor, asked = retrieval(world, "get", receiver, given())
    world.run()
    requestor.cancel(asked)
    world.run()
    gate.callback(None)
    result = world.result(asked)
    assert receiver.received == [uid(0)]
    assert (result.status, result.completed, result.remaining) == (0xFE00, 1, 1)


@pytest.mark.parametrize("service", ["get", "move"])
@pytest.mark.parametrize("cancelled", [False, True], ids=["to its end", "cancelled"])
def test_an_iterator_of_instances_is_closed(world: World, service: str, cancelled: bool) -> None:
    slow: Deferred[int] = Deferred()
    closed: list[bool] = []

    def given() -> Iterator[Tracked]:
        try:
            for number in range(10):
                yield Tracked(uid(number))
        finally:
            closed.append(True)

    requestor, asked = retrieval(world, service, Receiving(slow, *[0] * 9), given())
    world.run()
    if cancelled:
        requestor.cancel(asked)
    slow.callback(0)
    world.result(asked)
    assert closed == [True]


def test_a_c_store_of_a_c_move_says_who_asked_for_it_and_has_its_priority(world: World) -> None:
    destination = Serving()
    peers = {"peers": {"DEST": Peer("DEST", world.serve(destination))}}
    serving = Serving(move=lambda _: [Tracked(uid(0))])
    requestor, _ = world.associate(serving, peers, calling_ae_title="ASKER")
    world.result(requestor.move({}, destination="DEST", priority="high"))
    (stored,), (asked,) = destination.requests, serving.requests
    assert stored.command.MoveOriginatorApplicationEntityTitle == "ASKER"
    assert stored.command.MoveOriginatorMessageID == asked.message_id
    assert stored.command.Priority == asked.command.Priority == HIGH


def test_no_more_contexts_are_proposed_to_a_destination_than_fit(world: World) -> None:
    kinds = [f"1.2.840.10008.5.1.4.1.1.9999.{number}" for number in range(200)]
    sources = [
        BytesSource(sop_class, uid(number), EXPLICIT, encoded(uid(number)))
        for number, sop_class in enumerate(kinds)
    ]
    receiver = Receiving(*[0] * len(kinds))
    receiver.contexts = kinds
    _, asked = retrieval(world, "move", receiver, sources)
    assert world.result(asked).completed == len(kinds)
    assert len(world.links) > 2


def test_a_destination_that_is_not_there_is_called_once_and_all_have_failed(world: World) -> None:
    """Also those that were not looked at yet."""
    called: list[Any] = []

    class Refusing(Endpoint):
        def connect(self, factory: Any) -> Deferred[Any]:
            called.append(factory)
            return fail(OSError("refused"))

    sources = [Tracked(uid(number)) for number in range(1200)]
    peers = {"peers": {"DEST": Peer("DEST", Refusing(world, None))}}
    requestor, _ = world.associate(Serving(move=lambda _: iter(sources)), peers)
    with pytest.raises(StatusError) as caught:
        world.result(requestor.move({}, destination="DEST"))
    result: Any = caught.value.outcome
    assert (result.status, result.completed, result.failed) == (0xA702, 0, 1200)
    assert len(result.failed_sop_instance_uids) == 1200
    assert len(called) == 1


def test_counts_beyond_what_a_response_can_say_are_the_most_that_it_can() -> None:
    counts = Counts(70_000, 70_000, 70_000, 70_000)
    assert set(counts.elements(remaining=True).values()) == {0xFFFF}
