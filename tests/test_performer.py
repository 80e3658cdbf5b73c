"""What becomes of requests: the handler's answers, its failures, and what it may not be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import raw
from hypothesis import given
from hypothesis import strategies as st
from memory import (
    CT,
    EXPLICIT,
    STEP,
    Script,
    Serving,
    Tracked,
    World,
    encoded,
    fired,
    outcome,
    source,
)
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from twisted.internet.defer import Deferred, fail, succeed

from twisted_dimse import (
    STUDY_ROOT,
    VERIFICATION,
    AssociationAborted,
    DimseError,
    Handler,
    Peer,
    StatusError,
)
from twisted_dimse.datastream import BytesSource, as_source, encode_dataset
from twisted_dimse.suboperations import Instances

CT_SMALL = get_testdata_file("CT_small.dcm")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

C_SERVICES = ["store", "find", "move", "get"]
N_SERVICES = ["n_event_report", "n_get", "n_set", "n_action", "n_create", "n_delete"]
SERVICES = ["echo", *C_SERVICES, *N_SERVICES]

#: Contexts 1, 3, 5 of the scripted requestor.
REQUEST = raw.associate_rq(
    [
        (1, VERIFICATION, [EXPLICIT]),
        (3, CT, [EXPLICIT]),
        (5, STUDY_ROOT.find, [EXPLICIT]),
        (7, STEP, [EXPLICIT]),
    ]
)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def ask(association: Any, service: str) -> Deferred[Any]:
    """Any of the eleven services."""
    instance = (STEP, "1.2.3")
    calls: dict[str, Callable[[], Deferred[Any]]] = {
        "echo": association.echo,
        "store": lambda: association.store(source(), check=False),
        "find": lambda: association.find({}),
        "move": lambda: association.move({}, destination="DEST"),
        "get": lambda: association.get({}, handler=Serving()),
        "n_event_report": lambda: association.n_event_report(*instance, 1, check=False),
        "n_get": lambda: association.n_get(*instance, check=False),
        "n_set": lambda: association.n_set(*instance, Dataset(), check=False),
        "n_action": lambda: association.n_action(*instance, 1, check=False),
        "n_create": lambda: association.n_create(STEP, check=False),
        "n_delete": lambda: association.n_delete(*instance, check=False),
    }
    return calls[service]()


def status_of(world: World, deferred: Deferred[Any]) -> int:
    """The status of an answer, whether it is a failure or not."""
    try:
        result = world.result(deferred)
    except StatusError as error:
        return error.status
    return 0 if isinstance(result, list) else int(result.status)


def answers(script: Script) -> list[tuple[int, int]]:
    """Message ID and status of each response that came."""
    return [
        (raw.number(m.command, raw.RESPONDED_TO), m.status)
        for m in script.messages
        if raw.RESPONDED_TO in m.command
    ]


def patient(name: str = "7") -> Dataset:
    dataset = Dataset()
    dataset.PatientID = name
    return dataset


async def _coroutine(value: Any) -> Any:
    return value


async def _slow(value: Any) -> Any:
    await succeed(None)
    return value


WAYS: dict[str, Callable[[Any], Any]] = {
    "value": lambda value: value,
    "Deferred": succeed,
    "coroutine": _coroutine,
    "coroutine that waits": _slow,
}


# --- what a method may give


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("value", "status"), [(None, 0), (0, 0), (0xA700, 0xA700), (0xB000, 0xB000), (0x0112, 0x0112)]
)
def test_a_method_gives_nothing_or_a_status(
    world: World, service: str, way: str, value: int | None, status: int
) -> None:
    if service == "move" and value is None:
        status = 0xA801  # nobody is called DEST here
    requestor, _ = world.associate(Serving(**{service: lambda *_: WAYS[way](value)}))
    find_warns = service == "find" and status == 0xB000
    assert status_of(world, ask(requestor, service)) == (0 if find_warns else status)
    assert raw.messages(bytes(world.link.to_requestor.record))[-1].status == status


@pytest.mark.parametrize("service", ["n_get", "n_set", "n_action", "n_create", "n_event_report"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("value", "status"),
    [(patient(), 0), ((0, patient()), 0), ((0xB000, patient()), 0xB000), ((0, None), 0)],
    ids=["Dataset", "pair", "warning", "pair without"],
)
def test_a_method_gives_a_data_set(
    world: World, service: str, way: str, value: Any, status: int
) -> None:
    requestor, _ = world.associate(Serving(**{service: lambda _: WAYS[way](value)}))
    response = world.result(ask(requestor, service))
    expected = value[1] if isinstance(value, tuple) else value
    assert (response.status, response.dataset) == (status, expected)


@pytest.mark.parametrize("service", ["echo", "store", "n_delete"])
def test_a_response_that_has_no_data_set_gets_none(world: World, service: str) -> None:
    """PS3.7 9.3.1.2, 9.3.5.2, 10.3.6.2."""
    requestor, _ = world.associate(Serving(**{service: lambda *_: (0x0107, patient())}))
    assert status_of(world, ask(requestor, service)) == 0x0107
    (response,) = raw.messages(bytes(world.link.to_requestor.record))
    assert response.data is None


@pytest.mark.parametrize("service", ["echo", "store", "n_delete"])
def test_a_data_set_alone_says_nothing_where_a_status_is_due(world: World, service: str) -> None:
    requestor, _ = world.associate(Serving(**{service: lambda *_: patient()}))
    expected = 0xC000 if service == "store" else 0x0110
    assert status_of(world, ask(requestor, service)) == expected
    world.logged(TypeError)


def test_a_query_ends_without_a_data_set(world: World) -> None:
    """PS3.7 9.1.2.1: an Identifier comes with pending statuses only."""
    requestor, _ = world.associate(Serving(find=lambda _: [patient(), (0xA700, patient())]))
    assert status_of(world, ask(requestor, "find")) == 0xA700
    found, end = raw.messages(bytes(world.link.to_requestor.record))
    assert (found.data is None, end.data is None) == (False, True)


@pytest.mark.parametrize("service", SERVICES)
def test_an_answer_may_come_later(world: World, service: str) -> None:
    answer: Deferred[int] = Deferred()
    requestor, _ = world.associate(Serving(**{service: lambda *_: answer}))
    asked = ask(requestor, service)
    world.advance(50)
    assert not asked.called
    answer.callback(0x0110)
    assert status_of(world, asked) == 0x0110


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_handler_does_not_serve_is_unrecognized(world: World, service: str) -> None:
    class Nothing(Handler):
        contexts = Serving.contexts

    requestor, _ = world.associate(Nothing())
    expected = 0 if service == "echo" else 0x0211
    assert status_of(world, ask(requestor, service)) == expected


def _list(items: list[Any]) -> Any:
    return items


def _generator(items: list[Any]) -> Any:
    return (item for item in items)


async def _async_generator(items: list[Any]) -> Any:
    for item in items:
        yield item


async def _waiting_generator(items: list[Any]) -> Any:
    for item in items:
        await succeed(None)
        yield item


def _of_deferreds(items: list[Any]) -> Any:
    return [succeed(item) for item in items]


MANY = {
    "list": _list,
    "tuple": lambda items: (*items, items[0])[:-1] if len(items) > 2 else items,
    "generator": _generator,
    "async generator": _async_generator,
    "async generator that waits": _waiting_generator,
    "Deferreds": _of_deferreds,
    "Deferred of a list": succeed,
    "coroutine of a list": _coroutine,
    "Deferred of a generator": lambda items: succeed(_generator(items)),
    "coroutine of an async generator": lambda items: _coroutine(_async_generator(items)),
}


@pytest.mark.parametrize("way", MANY)
def test_find_gives_matches_in_any_iterable(world: World, way: str) -> None:
    matches = [patient(str(number)) for number in range(5)]
    requestor, _ = world.associate(Serving(find=lambda _: MANY[way](matches)))
    assert world.result(requestor.find({})) == matches


@pytest.mark.parametrize("way", MANY)
@pytest.mark.parametrize("service", ["get", "move"])
def test_get_and_move_give_instances_in_any_iterable(world: World, service: str, way: str) -> None:
    sources = [source(f"1.2.{number}") for number in range(5)]
    receiver = Serving()
    requestor, _ = world.associate(
        Serving(**{service: lambda _: MANY[way](sources)}),
        {"peers": {"DEST": Peer("DEST", world.serve(receiver))}},
        handler=receiver,
    )
    if service == "get":
        result = world.result(requestor.get({}))
    else:
        result = world.result(requestor.move({}, destination="DEST"))
    assert (result.status, result.completed) == (0, 5)
    assert [one.sop_instance_uid for one in receiver.requests] == [f"1.2.{n}" for n in range(5)]


@pytest.mark.parametrize("service", ["get", "move"])
@pytest.mark.parametrize(
    "one",
    [CT_SMALL, Path(CT_SMALL), dcmread(CT_SMALL), as_source(CT_SMALL)],
    ids=["text", "path", "Dataset", "source"],
)
def test_a_single_instance_need_not_be_in_a_list(world: World, service: str, one: Any) -> None:
    receiver = Serving()
    requestor, _ = world.associate(
        Serving(**{service: lambda _: one}),
        {"peers": {"DEST": Peer("DEST", world.serve(receiver))}},
        handler=receiver,
    )
    result = world.result(ask(requestor, service) if service == "move" else requestor.get({}))
    assert (result.status, result.completed, result.failed) == (0, 1, 0)
    assert len(receiver.requests) == 1


def test_find_may_give_matches_that_are_encoded_already(world: World) -> None:
    matches = [patient(str(number)) for number in range(3)]

    def find(request: Any) -> Any:
        return (encode_dataset(match, request.context.transfer_syntax) for match in matches)

    requestor, _ = world.associate(Serving(find=find))
    assert world.result(requestor.find({})) == matches


def test_find_gives_pending_statuses_with_its_matches(world: World) -> None:
    matches = [(0xFF01, patient("1")), (0xFF00, patient("2")), patient("3")]
    requestor, _ = world.associate(Serving(find=lambda _: matches))
    assert len(world.result(requestor.find({}))) == 3
    responses = raw.messages(bytes(world.link.to_requestor.record))
    assert [m.status for m in responses] == [0xFF01, 0xFF00, 0xFF00, 0]


def test_find_may_end_with_a_status_of_its_own(world: World) -> None:
    requestor, _ = world.associate(Serving(find=lambda _: [patient(), (0xA700, None), patient()]))
    assert status_of(world, requestor.find({})) == 0xA700
    assert len(raw.messages(bytes(world.link.to_requestor.record))) == 2


# --- what a method may raise


def _raise(error: Exception) -> Any:
    raise error


async def _raise_late(error: Exception) -> None:
    await succeed(None)
    raise error


RAISING: dict[str, Callable[[Exception], Any]] = {
    "raises": _raise,
    "fails": fail,
    "coroutine": _raise_late,
}


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("way", RAISING)
def test_a_status_error_is_the_answer(world: World, service: str, way: str) -> None:
    error = StatusError(0x0115, "too \N{SNOWMAN} cold", OffendingElement=(0x00100020,))
    requestor, _ = world.associate(Serving(**{service: lambda *_: RAISING[way](error)}))
    asked = ask(requestor, service)
    assert status_of(world, asked) == 0x0115
    (response,) = raw.messages(bytes(world.link.to_requestor.record))
    assert response.comment == "too ? cold"
    assert response.command[0x0901] == b"\x10\x00\x20\x00"


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("way", RAISING)
def test_any_other_exception_is_logged_once_and_the_association_lives(
    world: World, service: str, way: str
) -> None:
    methods = {service: lambda *_: RAISING[way](ZeroDivisionError("secret"))}
    requestor, _ = world.associate(Serving(**methods))
    expected = 0xC000 if service in C_SERVICES else 0x0110
    assert status_of(world, ask(requestor, service)) == expected
    world.logged(ZeroDivisionError)
    assert b"secret" not in world.link.to_requestor.record
    other = "n_get" if service == "echo" else "echo"
    assert status_of(world, ask(requestor, other)) in (0, 0x0211)


NONSENSE: dict[str, Any] = {
    "text": "success",
    "float": 0.0,
    "negative": -1,
    "too large": 0x10000,
    "object": object(),
    "empty tuple": (),
    "status that is none": ("0", None),
    "pending": 0xFF00,
    "pending pair": (0xFF00, None),
    "no data set": (0, object()),
    "bad element": (0, None, {"NoSuchKeyword": 1}),
    "bad value": (0, None, {"ErrorID": "text"}),
}


@pytest.mark.parametrize("service", ["echo", "store", *N_SERVICES])
@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_is_answered_as_a_failure_and_logged_once(
    world: World, service: str, nonsense: str
) -> None:
    requestor, _ = world.associate(Serving(**{service: lambda *_: NONSENSE[nonsense]}))
    expected = 0xC000 if service == "store" else 0x0110
    assert status_of(world, ask(requestor, service)) == expected
    world.logged(Exception)
    assert len(raw.messages(bytes(world.link.to_requestor.record))) == 1


def test_a_data_set_that_cannot_be_encoded_is_a_failure_too(world: World) -> None:
    broken = Dataset()
    broken.add_new(0x00280010, "US", "not a number")
    requestor, _ = world.associate(Serving(n_get=broken, find=lambda _: [broken]))
    assert status_of(world, ask(requestor, "n_get")) == 0x0110
    world.logged(Exception)
    assert status_of(world, ask(requestor, "find")) == 0xC000
    world.logged(Exception)


@pytest.mark.parametrize("given_", [12.5, ..., [1], ["no match"], [None]], ids=str)
def test_matches_that_are_none_are_a_failure(world: World, given_: Any) -> None:
    requestor, _ = world.associate(Serving(find=lambda _: given_))
    assert status_of(world, ask(requestor, "find")) == 0xC000
    world.logged(Exception)


def test_a_generator_that_fails_in_the_middle_has_sent_what_it_gave(world: World) -> None:
    def find(_request: Any) -> Iterator[Dataset]:
        yield patient("1")
        yield patient("2")
        raise ZeroDivisionError

    requestor, _ = world.associate(Serving(find=find))
    assert status_of(world, ask(requestor, "find")) == 0xC000
    world.logged(ZeroDivisionError)
    assert [m.status for m in raw.messages(bytes(world.link.to_requestor.record))] == [
        0xFF00,
        0xFF00,
        0xC000,
    ]


def test_a_request_whose_data_set_cannot_be_read_is_answered_so(world: World) -> None:
    def find(request: Any) -> list[Any]:
        return [request.dataset]

    _, script = world.call(Serving(find=find), _deflated())
    script.command(1, _request(0x0020, STUDY_ROOT.find, 1, data=True), b"no deflated data")
    world.run()
    assert answers(script) == [(1, 0xC000)]


def _deflated() -> bytes:
    return raw.associate_rq([(1, STUDY_ROOT.find, ["1.2.840.10008.1.2.1.99"])])


def _request(field: int, abstract: str, message_id: int | None, *, data: bool = False) -> bytes:
    elements: dict[int, Any] = {
        raw.AFFECTED_CLASS: abstract,
        raw.FIELD: field,
        raw.DATA_SET_TYPE: raw.DATA_SET if data else raw.NO_DATA_SET,
        raw.PRIORITY: 0,
    }
    if message_id is not None:
        elements[raw.MESSAGE_ID] = message_id
    return raw.command(elements)


# --- sinks


class Sink:
    """Records what is done to it; does what it is told."""

    def __init__(self, **methods: Any) -> None:
        self.calls: list[str] = []
        self.data = b""
        self.waits: list[Deferred[None]] = []
        self._methods = methods

    def write(self, data: Any) -> Any:
        self.calls.append("write")
        self.data += bytes(data)
        return self._do("write")

    def finish(self) -> Any:
        self.calls.append("finish")
        return self._do("finish")

    def abandon(self) -> None:
        self.calls.append("abandon")
        self._do("abandon")

    def _do(self, name: str) -> Any:
        method = self._methods.get(name)
        return method(self) if callable(method) else method

    @property
    def ends(self) -> list[str]:
        return [call for call in self.calls if call != "write"]


def wait(sink: Sink) -> Deferred[None]:
    """A write that takes until the test says."""
    sink.waits.append(Deferred())
    return sink.waits[-1]


def with_sink(world: World, sink: Sink, **options: Any) -> tuple[Any, Any]:
    return world.associate(Serving(store_sink=lambda _: sink), **options)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("value", "status"), [(None, 0), (0, 0), (0xB000, 0xB000)])
def test_a_sink_takes_the_data_and_gives_the_status(
    world: World, way: str, value: Any, status: int
) -> None:
    sink = Sink(finish=lambda _: WAYS[way](value))
    requestor, _ = with_sink(world, sink)
    one = source(size=500_000)
    assert world.result(requestor.store(one)).status == status
    assert sink.data == one.data
    assert sink.ends == ["finish"]
    assert sink.calls.count("write") > 1


def test_a_slice_is_valid_only_until_write_returns(world: World) -> None:
    """So a sink that keeps one has to copy it: nothing is copied for it."""
    kinds: set[type] = set()
    sink = Sink()
    plain = sink.write
    sink.write = lambda data: (kinds.add(type(data)), plain(data))[1]  # type: ignore[method-assign]
    requestor, _ = with_sink(world, sink)
    world.result(requestor.store(source(size=100_000)))
    assert kinds <= {bytes, memoryview}


def test_a_write_that_takes_time_pauses_the_transport(world: World) -> None:
    sink = Sink(write=wait)
    requestor, _ = with_sink(world, sink, server={"max_pdu_length": 1000})
    one = source(size=3000)
    stored = world.watch(requestor.store(one))
    for count in range(1, 5):
        world.run()
        assert sink.calls == ["write"] * count
        assert world.link.acceptor.paused
        sink.waits[-1].callback(None)
    assert sink.data == one.data
    assert sink.ends == ["finish"]
    assert not world.link.acceptor.paused
    assert world.result(stored).status == 0


def test_a_write_that_is_done_at_once_pauses_nothing(world: World) -> None:
    sink = Sink(write=lambda _: succeed(None))
    requestor, _ = with_sink(world, sink)
    paused: list[bool] = []
    world.link.acceptor.pauseProducing = lambda: paused.append(True)  # type: ignore[method-assign]
    assert world.result(requestor.store(source(size=100_000))).status == 0
    assert paused == []


FAILING: dict[str, tuple[Callable[[Any], Any], int]] = {
    "raises": (lambda _: _raise(ZeroDivisionError()), 0xC000),
    "raises a status": (lambda _: _raise(StatusError(0xA700)), 0xA700),
    "fails": (lambda _: fail(ZeroDivisionError()), 0xC000),
    "fails with a status": (lambda _: fail(StatusError(0xA700)), 0xA700),
}


@pytest.mark.parametrize("stage", ["write", "finish"])
@pytest.mark.parametrize("way", FAILING)
def test_a_sink_that_fails_is_let_go_and_the_rest_is_discarded(
    world: World, stage: str, way: str
) -> None:
    how, status = FAILING[way]
    sink = Sink(**{stage: how})
    requestor, _ = with_sink(world, sink)
    assert status_of(world, requestor.store(source(size=500_000), check=False)) == status
    if status == 0xC000:
        world.logged(ZeroDivisionError)
    if stage == "write":
        assert sink.calls == ["write", "abandon"]
    else:
        assert sink.ends == ["finish"]
    assert world.result(requestor.echo()).status == 0


@pytest.mark.parametrize("way", ["raises", "raises a status"])
def test_where_there_is_no_sink_the_data_set_is_discarded(world: World, way: str) -> None:
    how, status = FAILING[way]
    requestor, _ = world.associate(Serving(store_sink=how))
    assert status_of(world, requestor.store(source(size=500_000), check=False)) == status
    if status == 0xC000:
        world.logged(ZeroDivisionError)
    assert world.result(requestor.echo()).status == 0


def test_a_write_that_fails_late_discards_the_rest(world: World) -> None:
    sink = Sink(write=wait)
    requestor, _ = with_sink(world, sink)
    stored = requestor.store(source(size=500_000), check=False)
    world.run()
    sink.waits[0].errback(StatusError(0xA700, "full"))
    assert world.result(stored).status == 0xA700
    assert sink.calls == ["write", "abandon"]


@pytest.mark.parametrize("stage", ["nothing", "some", "waiting", "waiting for the last"])
def test_a_sink_is_abandoned_once_when_the_association_ends_first(world: World, stage: str) -> None:
    sink = Sink(write=wait if stage.startswith("waiting") else None)
    _, script = world.call(Serving(store_sink=lambda _: sink), REQUEST)
    script.send(raw.p_data((3, 3, raw.store_rq("1.2.3", sop_class=CT))))
    data = encoded(size=100)
    if stage in ("some", "waiting"):
        script.send(raw.p_data((3, 0, data)))
    elif stage == "waiting for the last":
        script.send(raw.p_data((3, 2, data)))
    world.run()
    world.link.lose()
    assert sink.ends == ["abandon"]
    for one in sink.waits:
        one.callback(None)
    assert sink.ends == ["abandon"]


@pytest.mark.parametrize("broken", ["abandon", "on_cancel"])
def test_who_fails_to_let_go_holds_up_nobody_else(world: World, broken: str) -> None:
    cancelled: list[int] = []

    def echo(request: Any) -> Deferred[None]:
        if broken == "on_cancel":
            request.on_cancel(lambda: 1 / 0)
        request.on_cancel(lambda: cancelled.append(request.message_id))
        return Deferred()

    sink = Sink(abandon=(lambda _: 1 / 0) if broken == "abandon" else None)
    handler = Serving(store_sink=lambda _: sink, echo=echo)
    requestor, acceptor = world.associate(handler, window=3, roles={CT: "both"})
    asked = [requestor.echo(), requestor.store(source(size=1_000_000))]
    asked.append(acceptor.store(Tracked(size=1_000_000)))
    world.link.to_requestor.stalled = True
    for _ in range(3):
        world.link.turn(100_000)
    world.link.lose()
    for one in asked:
        with pytest.raises(DimseError):
            outcome(one)
    assert cancelled == [1]
    assert sink.ends == ["abandon"]
    world.logged(ZeroDivisionError)


def test_finishing_is_not_interrupted_by_the_end_of_the_association(world: World) -> None:
    filed: list[Any] = []
    sink = Sink(finish=lambda _: Deferred(lambda _d: filed.append("cancelled")))
    requestor, _ = with_sink(world, sink)
    stored = requestor.store(source())
    world.run()
    assert sink.ends == ["finish"]
    world.link.lose()
    with pytest.raises(DimseError):
        outcome(stored)
    assert filed == []
    assert sink.ends == ["finish"]


# --- several at once


def test_as_many_operations_run_at_once_as_the_window_allows(world: World) -> None:
    running: dict[int, Deferred[int]] = {}

    def echo(request: Any) -> Deferred[int]:
        return running.setdefault(request.message_id, Deferred())

    requestor, _ = world.associate(Serving(echo=echo), window=5)
    echoes = [requestor.echo() for _ in range(8)]
    world.run()
    assert list(running) == [1, 2, 3, 4, 5]
    for message_id in (3, 5, 1, 2, 4, 6, 8, 7):
        running[message_id].callback(0xB000 + message_id)
        world.run()
    assert [outcome(one).status for one in echoes] == [0xB001 + n for n in range(8)]


def test_a_window_overrun_aborts(world: World) -> None:
    handler = Serving(echo=lambda _: Deferred())
    acceptor, script = world.call(handler, REQUEST)
    script.command(1, raw.echo_rq(1))
    script.command(1, raw.echo_rq(2))
    world.run()
    assert script.abort == (2, 2)
    assert len(handler.requests) == 1
    assert "operations agreed" in str(acceptor._reason)


def test_a_message_id_that_is_in_use_is_a_duplicate(world: World) -> None:
    handler = Serving(echo=lambda _: Deferred())
    request = raw.associate_rq([(1, VERIFICATION, [EXPLICIT])], user_items=b"\x53\0\0\4\0\5\0\5")
    _, script = world.call(handler, request)
    script.command(1, raw.echo_rq(7))
    script.command(1, raw.echo_rq(7))
    script.command(1, raw.echo_rq(8))
    world.run()
    assert answers(script) == [(7, 0x0210)]
    assert len(handler.requests) == 2


def test_a_message_id_can_be_used_again_once_it_is_answered(world: World) -> None:
    _, script = world.call(Serving(), REQUEST)
    for _ in range(3):
        script.command(1, raw.echo_rq(7))
        script.command(3, raw.store_rq("1.2.3", 7, CT), encoded("1.2.3"))
    world.run()
    assert answers(script) == [(7, 0)] * 6


@given(order=st.permutations(range(6)), most=st.sampled_from([None, 100, 5000]))
def test_data_sets_of_responses_are_never_mixed(order: list[int], most: int | None) -> None:
    waiting: dict[int, Deferred[Any]] = {}
    with World() as world:
        requestor, _ = world.associate(
            Serving(n_get=lambda request: waiting.setdefault(request.message_id - 1, Deferred())),
            window=8,
            max_pdu_length=512,
        )
        world.most = most
        replies = [requestor.n_get(STEP, "1.2.3") for _ in range(6)]
        world.run()
        for number in order:
            waiting[number].callback(patient(f"{number}" * 3000))
        world.run()
        for number, reply in enumerate(replies):
            assert outcome(reply).dataset.PatientID == f"{number}" * 3000


# --- cancelled by the peer


@pytest.mark.parametrize("service", ["find", "get"])
def test_a_cancelled_operation_ends_so(world: World, service: str) -> None:
    requests: list[Any] = []
    closed: list[bool] = []

    def many(request: Any) -> Iterator[Any]:
        requests.append(request)
        try:
            for number in range(1_000_000):
                yield patient() if service == "find" else source(f"1.2.{number}")
        finally:
            closed.append(request.cancelled)

    requestor, _ = world.associate(Serving(**{service: many}))
    asked = ask(requestor, service)
    for _ in range(20):
        world.link.turn(2000)
        world.clock.turn()
    requestor.cancel(asked)
    result = world.result(asked)
    assert requests[0].cancelled
    assert closed == [True]
    responses = raw.messages(bytes(world.link.to_requestor.record))
    assert responses[-1].status == 0xFE00
    if service == "get":
        assert result.completed + result.remaining >= result.completed > 0
        assert result.status == 0xFE00


def test_a_handler_hears_of_the_cancel_while_it_waits(world: World) -> None:
    cancelled: list[str] = []

    def find(request: Any) -> Deferred[Any]:
        request.on_cancel(lambda: cancelled.append("callback"))
        return Deferred(lambda _: cancelled.append("Deferred"))

    requestor, _ = world.associate(Serving(find=find))
    asked = requestor.find({})
    world.run()
    requestor.cancel(asked)
    assert world.result(asked) == []
    assert sorted(cancelled) == ["Deferred", "callback"]


def test_a_late_on_cancel_is_called_at_once() -> None:
    from twisted_dimse.dimse.command import CommandSet
    from twisted_dimse.handler import Request

    request: Any = Request(None, None, CommandSet(MessageID=1))  # type: ignore[arg-type]
    calls: list[int] = []
    request.on_cancel(lambda: calls.append(1))
    request.cancel()
    request.cancel()
    request.on_cancel(lambda: calls.append(2))
    assert calls == [1, 2]


@pytest.mark.parametrize("message_id", [1, 99, None])
def test_a_cancel_for_what_is_over_or_never_was_does_nothing(
    world: World, message_id: int | None
) -> None:
    _, script = world.call(Serving(), REQUEST)
    script.command(1, raw.echo_rq(1))
    cancel: dict[int, Any] = {raw.FIELD: 0x0FFF, raw.DATA_SET_TYPE: raw.NO_DATA_SET}
    if message_id is not None:
        cancel[raw.RESPONDED_TO] = message_id
    script.command(1, raw.command(cancel))
    script.command(1, raw.echo_rq(2))
    world.run()
    assert answers(script) == [(1, 0), (2, 0)]


def test_what_is_performed_is_cancelled_when_the_association_ends(world: World) -> None:
    cancelled: list[int] = []
    late: list[Deferred[int]] = []

    def echo(request: Any) -> Deferred[int]:
        request.on_cancel(lambda: cancelled.append(request.message_id))
        late.append(Deferred(lambda d: d.callback(0)))
        return late[-1]

    requestor, _ = world.associate(Serving(echo=echo), window=3)
    echoes = [requestor.echo() for _ in range(3)]
    world.run()
    requestor.abort()
    world.run()
    assert cancelled == [1, 2, 3]
    for one in echoes:
        with pytest.raises(AssociationAborted):
            outcome(one)


# --- what is not performed


@pytest.mark.parametrize("field", [0x0002, 0x0040, 0x0160, 0x7FFF, 0x0FFE])
@pytest.mark.parametrize("data", [True, False])
def test_an_unknown_operation_is_unrecognized(world: World, field: int, data: bool) -> None:
    _, script = world.call(Serving(), REQUEST)
    script.command(1, _request(field, VERIFICATION, 5, data=data), bytes(100) if data else None)
    script.command(1, raw.echo_rq(6))
    world.run()
    assert answers(script) == [(5, 0x0211), (6, 0)]


def test_an_operation_without_a_message_id_aborts(world: World) -> None:
    _, script = world.call(Serving(), REQUEST)
    script.command(1, _request(raw.C_ECHO_RQ, VERIFICATION, None))
    world.run()
    assert script.abort == (2, 6)


@pytest.mark.parametrize(("field", "context"), [(0x0001, 3), (0x0020, 5), (0x0021, 5), (0x0010, 5)])
def test_a_service_that_needs_a_data_set_is_not_performed_without(
    world: World, field: int, context: int
) -> None:
    handler = Serving()
    _, script = world.call(handler, REQUEST)
    script.command(context, _request(field, CT, 5))
    world.run()
    assert answers(script) == [(5, 0x0212)]
    assert handler.requests == []


def test_data_that_no_service_asked_for_is_let_pass(world: World) -> None:
    _, script = world.call(Serving(), REQUEST)
    script.command(1, _request(raw.C_ECHO_RQ, VERIFICATION, 5, data=True), bytes(100_000)[:16000])
    script.command(1, raw.echo_rq(6))
    world.run()
    assert answers(script) == [(5, 0), (6, 0)]


def test_a_role_that_was_not_agreed_is_not_performed(world: World) -> None:
    handler = Serving()
    requestor, script = world.called(handler=handler)
    script.command(1, raw.echo_rq(5))
    script.command(3, raw.store_rq("1.2.3", 6, CT), encoded("1.2.3"))
    world.run()
    assert answers(script) == [(5, 0x0211), (6, 0x0211)]
    assert handler.requests == []
    assert not requestor.closed.called


def test_an_event_report_needs_no_role(world: World) -> None:
    handler = Serving(n_event_report=None)
    _, script = world.called(handler=handler, contexts=[STEP])
    elements = {raw.AFFECTED_CLASS: STEP, raw.FIELD: 0x0100, raw.MESSAGE_ID: 5, 0x1002: 1}
    script.command(1, raw.command({**elements, raw.DATA_SET_TYPE: raw.NO_DATA_SET}))
    world.run()
    assert answers(script) == [(5, 0)]
    assert handler.requests[0].event_type == 1


@pytest.mark.parametrize("context", [2, 9, 255])
def test_a_context_that_was_not_accepted_aborts(world: World, context: int) -> None:
    _, script = world.call(Serving(), REQUEST)
    script.command(context, raw.echo_rq(5))
    world.run()
    assert script.abort == (2, 5)


# --- retrieving


def test_a_move_goes_to_the_destination_on_one_association(world: World) -> None:
    receiver = Serving()
    receiver.contexts = None  # type: ignore[assignment]
    destination = world.serve(receiver)
    sources = [source("1.2.1"), source("1.2.2"), source("1.2.3")]
    requestor, acceptor = world.associate(
        Serving(move=lambda _: sources),
        {"peers": {"DEST": Peer("DEST", destination)}, "ae_title": "ARCHIVE"},
        calling_ae_title="WORKSTATION",
    )
    progress: list[Any] = []
    result = world.result(
        requestor.move({}, destination="DEST", progress=progress.append, priority="low")
    )
    assert (result.status, result.completed, result.remaining) == (0, 3, 0)
    assert [(one.completed, one.remaining) for one in progress] == [(1, 2), (2, 1), (3, 0)]
    assert len(world.links) == 2
    assert not destination.factory.associations
    command = receiver.requests[0].command
    assert command["MoveOriginatorApplicationEntityTitle"] == "WORKSTATION"
    assert command["MoveOriginatorMessageID"] == 1
    assert command["Priority"] == 2
    assert receiver.requests[0].association.calling_ae_title == "ARCHIVE"
    assert not acceptor.closed.called


@pytest.mark.parametrize(
    ("resolve", "status"),
    [
        (lambda _: None, 0xA801),
        (lambda _: succeed(None), 0xA801),
        (lambda _: _raise(ZeroDivisionError()), 0xC000),
    ],
    ids=["unknown", "unknown later", "fails"],
)
def test_a_destination_that_is_unknown_is_answered_so(
    world: World, resolve: Any, status: int
) -> None:
    requestor, _ = world.associate(Serving(move=lambda _: [source()], resolve=resolve))
    assert status_of(world, requestor.move({}, destination="DEST")) == status
    if status == 0xC000:
        world.logged(ZeroDivisionError)


@pytest.mark.parametrize("way", WAYS)
def test_a_handler_resolves_destinations(world: World, way: str) -> None:
    receiver = Serving()
    peer = Peer("DEST", world.serve(receiver))
    requestor, _ = world.associate(
        Serving(move=lambda _: [source()], resolve=lambda _: WAYS[way](peer))
    )
    assert world.result(requestor.move({}, destination="DEST")).completed == 1
    assert len(receiver.requests) == 1


def test_a_destination_that_cannot_be_reached_fails_every_suboperation(world: World) -> None:
    destination = world.serve()
    destination.refusal = OSError("no route")
    requestor, _ = world.associate(
        Serving(move=lambda _: [source("1.2.1"), source("1.2.2")]),
        {"peers": {"DEST": Peer("DEST", destination)}},
    )
    with pytest.raises(StatusError) as caught:
        world.result(requestor.move({}, destination="DEST"))
    assert caught.value.status == 0xA702
    assert caught.value.outcome.failed_sop_instance_uids == ("1.2.1", "1.2.2")


@pytest.mark.parametrize("lost_after", [100, 2000, 50_000])
def test_a_destination_that_is_lost_fails_what_is_left(world: World, lost_after: int) -> None:
    destination = world.serve()
    sources = [Tracked(f"1.2.{number}", size=20_000) for number in range(5)]
    requestor, _ = world.associate(
        Serving(move=lambda _: sources), {"peers": {"DEST": Peer("DEST", destination)}}
    )
    moving = requestor.move({}, destination="DEST")
    while len(world.links) == 1:
        world.link.turn()
    world.link.to_acceptor.breaks_at = lost_after
    try:
        result = world.result(moving)
    except StatusError as error:
        result = error.outcome
    assert result.status in (0xA702, 0xB000)
    assert result.completed + result.failed == 5
    assert len(result.failed_sop_instance_uids) == result.failed
    assert Tracked.open_files == 0
    assert world.result(requestor.echo()).status == 0


def test_instances_that_cannot_be_sent_are_counted_and_the_others_go(world: World) -> None:
    items = [source("1.2.1"), "/nowhere.dcm", Tracked("1.2.3", fails_at=-1), source("1.2.4"), 12]
    receiver = Serving()
    requestor, _ = world.associate(Serving(get=lambda _: items))
    result = world.result(requestor.get({}, handler=receiver))
    assert (result.status, result.completed, result.failed) == (0xB000, 2, 3)
    assert result.failed_sop_instance_uids == ("1.2.3",)


def test_instances_may_be_counted_beforehand(world: World) -> None:
    requestor, _ = world.associate(
        Serving(get=lambda _: Instances((source(f"1.2.{n}") for n in range(3)), 3))
    )
    progress: list[Any] = []
    world.result(requestor.get({}, handler=Serving(), progress=progress.append))
    assert [one.remaining for one in progress] == [2, 1, 0]


def test_nothing_to_retrieve_is_a_success(world: World) -> None:
    requestor, _ = world.associate(Serving(get=lambda _: []))
    result = world.result(requestor.get({}))
    assert (result.status, result.completed, result.failed) == (0, 0, 0)


@pytest.mark.parametrize("ends", ["requestor", "destination"])
def test_a_retrieve_ends_with_its_association_and_leaves_nothing_open(
    world: World, ends: str
) -> None:
    destination = world.serve(Serving(store=lambda *_: Deferred()))
    closed: list[bool] = []

    def move(_request: Any) -> Iterator[Any]:
        try:
            for number in range(100):
                yield Tracked(f"1.2.{number}")
        finally:
            closed.append(True)

    requestor, _ = world.associate(
        Serving(move=move), {"peers": {"DEST": Peer("DEST", destination)}}
    )
    moving = requestor.move({}, destination="DEST")
    world.run()
    assert not fired(moving)
    if ends == "requestor":
        requestor.abort()
    else:
        destination.factory.abort_all()
    world.advance(100)
    moving.addErrback(lambda f: f.trap(DimseError))
    assert fired(moving)
    assert closed == [True]
    assert Tracked.open_files == 0
    assert not destination.factory.associations


def test_a_stored_data_set_goes_on_as_what_it_is(world: World) -> None:
    received: list[Any] = []
    jpeg = "1.2.840.10008.1.2.4.50"
    requestor, _ = world.associate(
        Serving(store=lambda _request, dataset: received.append(dataset)),
        contexts=[(CT, [jpeg])],
    )
    octets = encode_dataset(dcmread(str(get_testdata_file("CT_small.dcm"))), EXPLICIT)
    world.result(requestor.store(BytesSource(CT, "1.2.3", jpeg, octets)))
    assert as_source(received[0]).transfer_syntax == jpeg
