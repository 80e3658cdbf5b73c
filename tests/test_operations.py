"""What either side asks of the other, how it queues, how it is answered and how it is cancelled."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import raw
from hypothesis import given
from hypothesis import strategies as st
from memory import (
    BIG_ENDIAN,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
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
from pydicom.uid import UID
from twisted.internet.defer import CancelledError, Deferred

from twisted_dimse import (
    PATIENT_ROOT,
    STUDY_ROOT,
    VERIFICATION,
    AssociationAborted,
    ConnectionLost,
    ContextNotAccepted,
    DimseError,
    Handler,
    Peer,
    PresentationContext,
    ProtocolViolation,
    StatusError,
)
from twisted_dimse.datastream import NotDicom, decode_dataset, encode_dataset

CT_SMALL = get_testdata_file("CT_small.dcm")
JPEG_FILE = get_testdata_file("JPEG2000.dcm")
DICOMDIR = get_testdata_file("DICOMDIR")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

ALL_SYNTAXES = [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED]


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def messages(script: Script, field: int | None = None) -> list[Any]:
    return [m for m in script.messages if field is None or m.field == field]


def ids(script: Script) -> list[int]:
    """The message IDs of the requests that came, in order."""
    requests = [m.command for m in script.messages if raw.MESSAGE_ID in m.command]
    return [raw.number(command, raw.MESSAGE_ID) for command in requests]


def answer(script: Script, message_id: int, status: int = 0, context: int | None = None) -> None:
    """Answer a request that has come."""
    request = next(
        m
        for m in script.messages
        if raw.MESSAGE_ID in m.command and raw.number(m.command, raw.MESSAGE_ID) == message_id
    )
    script.command(context or request.context, raw.response(request.command, status))


def find_response(message_id: int, status: int, *, data: bool) -> bytes:
    return raw.command(
        {
            raw.AFFECTED_CLASS: STUDY_ROOT.find,
            raw.FIELD: 0x8020,
            raw.RESPONDED_TO: message_id,
            raw.DATA_SET_TYPE: raw.DATA_SET if data else raw.NO_DATA_SET,
            raw.STATUS: status,
        }
    )


def study(uid: str) -> Dataset:
    dataset = Dataset()
    dataset.StudyInstanceUID = uid
    return dataset


def windowed(count: int) -> Script:
    """A peer that agrees to any window up to ``count``."""
    return Script(user_items=b"\x53\0\0\4" + count.to_bytes(2, "big") * 2)


# --- C-ECHO and C-STORE


def test_an_echo_is_answered(world: World) -> None:
    requestor, _ = world.associate()
    response = world.result(requestor.echo())
    assert (response.status, response.dataset) == (0, None)
    assert response.command["CommandField"] == 0x8030
    assert response.command["MessageIDBeingRespondedTo"] == 1


def test_the_acceptor_asks_where_it_has_the_role(world: World) -> None:
    requestor, acceptor = world.associate(roles={VERIFICATION: "both"})
    assert world.result(acceptor.echo()).status == 0
    assert world.result(requestor.echo()).status == 0


def test_nobody_asks_without_the_role(world: World) -> None:
    _, acceptor = world.associate()
    with pytest.raises(ContextNotAccepted):
        outcome(acceptor.echo())


@pytest.mark.parametrize("as_path", [str, Path])
def test_a_file_is_sent_as_it_is(world: World, as_path: Callable[[str], Any]) -> None:
    received: list[Any] = []

    def store(request: Any, dataset: Dataset) -> int:
        received.append((request.encoded_dataset, dataset.PatientID, request.sop_instance_uid))
        return 0

    requestor, _ = world.associate(Serving(store=store), contexts=[(CT, [EXPLICIT])])
    response = world.result(requestor.store(as_path(CT_SMALL)))
    dataset = dcmread(CT_SMALL)
    ((data, patient, instance),) = received
    assert Path(CT_SMALL).read_bytes().endswith(data)
    assert (patient, instance) == (dataset.PatientID, dataset.SOPInstanceUID)
    assert response.sop_instance_uid == dataset.SOPInstanceUID


@pytest.mark.parametrize("accepted", [EXPLICIT, IMPLICIT, DEFLATED])
def test_an_uncompressed_dataset_is_encoded_to_what_was_accepted(
    world: World, accepted: str
) -> None:
    received: list[Any] = []
    dataset = dcmread(CT_SMALL)
    requestor, _ = world.associate(
        Serving(store=lambda *both: received.append(both)),
        contexts=[(CT, [accepted])],
    )
    assert world.result(requestor.store(dataset)).status == 0
    ((request, copy),) = received
    assert request.context.transfer_syntax == accepted
    assert copy == dataset
    assert len(request.encoded_dataset) % 2 == 0


def test_a_dataset_goes_out_in_its_own_syntax_where_that_was_accepted(world: World) -> None:
    handler = Serving()
    contexts = [PresentationContext(CT, (syntax,)) for syntax in (IMPLICIT, DEFLATED, EXPLICIT)]
    requestor, _ = world.associate(handler, contexts=contexts)
    world.result(requestor.store(dcmread(CT_SMALL)))
    (request,) = handler.requests
    assert request.context.transfer_syntax == EXPLICIT


def test_a_compressed_dataset_is_not_sent_as_something_else(world: World) -> None:
    dataset = dcmread(JPEG_FILE)
    handler = Serving()
    handler.contexts = [dataset.SOPClassUID]
    requestor, _ = world.associate(handler, contexts=[(dataset.SOPClassUID, [EXPLICIT])])
    with pytest.raises(ContextNotAccepted, match="JPEG 2000"):
        outcome(requestor.store(dataset))


@pytest.mark.parametrize("size", [0, 1, 998, 1000, 100_000])
@pytest.mark.parametrize("seekable", [True, False])
@pytest.mark.parametrize("limit", [50, 16384, 0])
def test_a_source_is_streamed(world: World, size: int, seekable: bool, limit: int) -> None:
    received: list[bytes] = []
    requestor, _ = world.associate(
        Serving(store=lambda request, _: received.append(request.encoded_dataset)),
        server={"max_pdu_length": limit},
    )
    one = Tracked(size=size, seekable=seekable)
    assert world.result(requestor.store(one)).status == 0
    assert received == [one.data]
    assert (one.opened, Tracked.open_files) == (1, 0)


def test_a_source_that_knows_no_size_and_has_nothing_sends_nothing(world: World) -> None:
    class Empty(Tracked):
        def open(self) -> Any:
            return io.BufferedReader(io.BytesIO(b""))  # type: ignore[arg-type]

    received: list[bytes] = []

    class Sink:
        def write(self, data: Any) -> None:
            received.append(bytes(data))

        def finish(self) -> int:
            return 0

    requestor, _ = world.associate(Serving(store_sink=lambda _: Sink()))
    assert world.result(requestor.store(Empty())).status == 0
    assert b"".join(received) == b""


def test_uids_may_be_those_of_pydicom(world: World) -> None:
    requestor, _ = world.associate(contexts=[(UID(CT), [UID(EXPLICIT)]), UID(VERIFICATION)])
    assert world.result(requestor.store(source(UID("1.2.3")))).sop_instance_uid == "1.2.3"
    assert [type(one.abstract_syntax) for one in requestor.accepted] == [str, str]


def test_a_store_says_priority_and_originator(world: World) -> None:
    handler = Serving()
    requestor, _ = world.associate(handler)
    world.result(requestor.store(source(), priority="high", move_originator=("MOVER", 77)))
    world.result(requestor.store(source(), priority=2))
    first, second = [request.command for request in handler.requests]
    assert first["Priority"] == 1
    assert first["MoveOriginatorApplicationEntityTitle"] == "MOVER"
    assert first["MoveOriginatorMessageID"] == 77
    assert second["Priority"] == 2
    assert "MoveOriginatorMessageID" not in second


def test_a_context_may_be_chosen(world: World) -> None:
    handler = Serving()
    requestor, _ = world.associate(handler, contexts=[(CT, [IMPLICIT]), (CT, [EXPLICIT])])
    world.result(requestor.store(source(), context=3))
    world.result(requestor.store(source(), context=CT))
    assert [request.context.id for request in handler.requests] == [3, 1]


class Opening(Tracked):
    """What comes of `open`; an error is raised."""

    def __init__(self, opened: Any) -> None:
        super().__init__()
        self._opened = opened

    def open(self) -> Any:
        if isinstance(self._opened, Exception):
            raise self._opened
        return self._opened


class Nameless(Tracked):
    """Does not know which instance it is."""

    @property
    def sop_instance_uid(self) -> str:
        raise LookupError("no such row")

    @sop_instance_uid.setter
    def sop_instance_uid(self, uid: str) -> None:
        pass


class Reading:
    """Knows `read` and no more; an iterator says what comes of it."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def read(self, size: int) -> Any:
        return self._values.read(size) if hasattr(self._values, "read") else next(self._values, "")

    def close(self) -> None:
        pass


def _without(keyword: str) -> Dataset:
    dataset = dcmread(CT_SMALL)
    del dataset[keyword]
    return dataset


def _no_handler() -> Handler:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (lambda a: a.store("/nowhere/image.dcm"), FileNotFoundError),
        (lambda a: a.store(__file__), NotDicom),
        (lambda a: a.store(DICOMDIR), NotDicom),
        (lambda a: a.store(source(), context=77), ContextNotAccepted),
        (lambda a: a.store(source(), context="1.2.3"), ContextNotAccepted),
        (lambda a: a.store(source(), priority="urgent"), ValueError),
        (lambda a: a.store(Tracked(fails_at=-1)), OSError),
        (lambda a: a.find({}, model="1.2.3"), ContextNotAccepted),
        (lambda a: a.find({}, priority="urgent"), ValueError),
        (lambda a: a.n_get("1.2.3", "1.2.3.4"), ContextNotAccepted),
        (lambda a: a.n_get(STEP, "1.2.3.4", ["NoSuchKeyword"]), ValueError),
        (lambda a: a.n_set(STEP, "1.2.3.4", {"Rows": "no number"}), ValueError),
        (lambda a: a.move({}, destination="over sixteen characters"), ValueError),
        (lambda a: a.store(12), TypeError),
        (lambda a: a.store(Dataset()), TypeError),
        (lambda a: a.store(_without("SOPClassUID")), TypeError),
        (lambda a: a.store(Opening("no file")), TypeError),
        (lambda a: a.store(Opening(ZeroDivisionError())), ZeroDivisionError),
        (lambda a: a.store(Nameless()), LookupError),
        (lambda a: a.store(source(), move_originator="TITLE"), ValueError),
        (lambda a: a.find(12), TypeError),
        (lambda a: a.get(None), TypeError),
        (lambda a: a.get({}, handler=_no_handler), ZeroDivisionError),
        (lambda a: a.n_get(STEP, "1.2.3.4", 12), TypeError),
        (lambda a: a.n_get(STEP, "1.2.3.4", [1.5]), ValueError),
    ],
)
def test_what_cannot_be_sent_fails_alone(
    world: World, what: Callable[[Any], Deferred[Any]], error: type[Exception]
) -> None:
    requestor, _ = world.associate()
    failed = what(requestor)
    assert isinstance(failed, Deferred)
    with pytest.raises(error):
        outcome(failed)
    assert world.result(requestor.echo()).status == 0
    assert len(raw.messages(bytes(world.link.to_acceptor.record))) == 1


def test_a_class_that_was_not_accepted_is_named(world: World) -> None:
    requestor, _ = world.associate(contexts=[VERIFICATION])
    with pytest.raises(ContextNotAccepted, match="CT Image Storage"):
        outcome(requestor.store(source()))


# --- statuses


def test_a_failure_status_is_an_error_with_all_that_came(world: World) -> None:
    def store(_request: Any, _dataset: Any) -> None:
        raise StatusError(0xA900, "no Rows", OffendingElement=(0x00280010,), ErrorID=5)

    requestor, _ = world.associate(Serving(store=store))
    with pytest.raises(StatusError) as caught:
        world.result(requestor.store(source()))
    error = caught.value
    assert (error.status, error.comment) == (0xA900, "no Rows")
    assert error.elements == {"OffendingElement": (0x00280010,), "ErrorID": 5}
    assert error.meaning
    assert error.command is not None
    assert error.command["CommandField"] == 0x8001


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB007, 0x0001, 0x0107])
def test_success_and_warning_are_results(world: World, status: int) -> None:
    requestor, _ = world.associate(Serving(store=status))
    assert world.result(requestor.store(source())).status == status


@pytest.mark.parametrize("status", [0xA700, 0xC000, 0x0110, 0x0211, 0x4444])
def test_without_check_a_failure_is_a_result_too(world: World, status: int) -> None:
    requestor, _ = world.associate(Serving(store=status, n_get=status))
    with pytest.raises(StatusError):
        world.result(requestor.store(source()))
    assert world.result(requestor.store(source(), check=False)).status == status
    assert world.result(requestor.n_get(STEP, "1.2", check=False)).status == status


# --- the window


@pytest.mark.parametrize("window", [1, 2, 8, 100])
def test_operations_go_out_up_to_the_window(world: World, window: int) -> None:
    requestor, script = world.called(windowed(window), window=window)
    echoes = [requestor.echo() for _ in range(window + 5)]
    world.run()
    assert ids(script) == list(range(1, window + 1))
    answer(script, window)
    world.run()
    assert ids(script) == list(range(1, window + 2))
    assert [echo.called for echo in echoes] == [
        number == window - 1 for number in range(window + 5)
    ]
    for echo in echoes:
        echo.addErrback(lambda f: f.trap(DimseError))


def test_without_a_window_operations_queue(world: World) -> None:
    requestor, script = world.called()
    tracked = [Tracked(f"1.2.{n}") for n in range(3)]
    stores = [world.watch(requestor.store(one)) for one in tracked]
    for number in range(1, 4):
        world.run()
        assert ids(script) == list(range(1, number + 1))
        # Nothing but the next is open before its turn.
        assert sum(one.opened for one in tracked) == min(number + 1, 3)
        answer(script, number)
    world.run()
    assert [outcome(store).status for store in stores] == [0, 0, 0]
    assert Tracked.open_files == 0


def test_a_peer_that_answers_no_window_gets_one_at_a_time(world: World) -> None:
    requestor, script = world.called(window=8)
    for _ in range(3):
        requestor.echo().addErrback(lambda f: f.trap(DimseError))
    world.run()
    assert ids(script) == [1]


@given(order=st.permutations(range(1, 9)))
def test_answers_may_come_in_any_order(order: list[int]) -> None:
    with World() as world:
        requestor, script = world.called(windowed(8), window=8)
        stores = [world.watch(requestor.store(source(f"1.2.{n}"))) for n in range(1, 9)]
        world.run()
        for message_id in order:
            answer(script, message_id, 0xB000 + message_id)
            world.run()
        results = [outcome(store) for store in stores]
        assert [r.status for r in results] == [0xB000 + n for n in range(1, 9)]


def test_message_ids_go_round_and_skip_what_is_outstanding(world: World) -> None:
    requestor, script = world.called(windowed(4), window=4)
    requestor._invocations._last_id = 0xFFFC
    echoes = [requestor.echo() for _ in range(4)]
    world.run()
    assert ids(script) == [0xFFFD, 0xFFFE, 0xFFFF, 1]
    requestor._invocations._last_id = 0xFFFC  # as if 65,535 others had come and gone
    answer(script, 0xFFFE)
    later = requestor.echo()
    world.run()
    assert ids(script)[4:] == [0xFFFE]
    answer(script, 0xFFFD)
    last = requestor.echo()
    world.run()
    assert ids(script)[5:] == [2]  # 1 and FFFFH are still under way
    for deferred in [*echoes, later, last]:
        deferred.addErrback(lambda f: f.trap(DimseError))


def test_many_operations_that_cannot_begin_fail_one_by_one(world: World) -> None:
    """However many wait in line behind each other."""
    requestor, script = world.called()
    first = requestor.echo()
    failing = [requestor.store(Tracked(fails_at=-1)) for _ in range(3000)]
    last = requestor.echo()
    world.run()
    answer(script, 1)
    world.run()
    for one in failing:
        with pytest.raises(OSError, match="cannot be opened"):
            outcome(one)
    answer(script, ids(script)[-1])
    world.run()
    assert [outcome(first).status, outcome(last).status] == [0, 0]


def test_operations_submitted_from_a_callback_are_served_in_turn(world: World) -> None:
    requestor, _ = world.associate()
    count = 0

    def again(_response: Any) -> Any:
        nonlocal count
        count += 1
        return requestor.echo().addCallback(again) if count < 200 else None

    world.result(requestor.echo().addCallback(again))
    assert count == 200


# --- sources that fail


@pytest.mark.parametrize("seekable", [True, False])
def test_a_source_that_fails_in_the_middle_aborts(world: World, seekable: bool) -> None:
    handler = Serving()
    requestor, _ = world.associate(handler, window=4)
    whole = requestor.store(source("1.2.1"))
    broken = requestor.store(Tracked("1.2.2", size=2_000_000, fails_at=900_000, seekable=seekable))
    behind = requestor.store(Tracked("1.2.3"))
    world.run()
    assert outcome(whole).status == 0
    for failed in (broken, behind):
        with pytest.raises(DimseError, match="the disk is broken"):
            outcome(failed)
    assert [request.sop_instance_uid for request in handler.requests] == ["1.2.1"]
    (end,) = handler.ends
    assert isinstance(end, AssociationAborted)
    assert Tracked.open_files == 0


@pytest.mark.parametrize("opened", [io.StringIO("text"), iter("text")])
def test_a_source_that_gives_no_octets_aborts(world: World, opened: Any) -> None:
    requestor, _ = world.associate()
    with pytest.raises(DimseError, match="cannot be read"):
        world.result(requestor.store(Opening(Reading(opened))))
    assert world.faults == []


@pytest.mark.parametrize("ended", [True, False])
def test_a_source_that_cannot_be_closed_is_logged_and_does_no_harm(
    world: World, ended: bool
) -> None:
    class Stuck(io.BytesIO):
        def close(self) -> None:
            raise ZeroDivisionError

    requestor, _ = world.associate()
    world.link.to_acceptor.stalled = not ended
    stored = requestor.store(Opening(Stuck(encoded(size=0 if ended else 2_000_000))))
    if ended:
        assert world.result(stored).status == 0
        assert world.result(requestor.echo()).status == 0
    else:
        world.run()
        requestor.abort()
        with pytest.raises(AssociationAborted):
            outcome(stored)
    world.logged(ZeroDivisionError)
    assert world.faults == []


def test_a_source_that_ends_early_aborts(world: World) -> None:
    class Short(Tracked):
        def open(self) -> Any:
            file = super().open()
            end = file.seek

            def seek(offset: int, whence: int = 0) -> int:
                return end(offset, whence) + (50 if whence == 2 else 0)

            file.seek = seek
            return file

    requestor, _ = world.associate()
    with pytest.raises(DimseError, match="50 octets early"):
        world.result(requestor.store(Short()))
    assert Tracked.open_files == 0


def test_files_are_closed_when_the_association_ends_first(world: World) -> None:
    requestor, _ = world.associate(window=4)
    world.link.to_acceptor.stalled = True
    stores = [requestor.store(Tracked(size=1_000_000)) for _ in range(6)]
    world.run()
    assert Tracked.open_files > 0
    world.link.lose()
    for store in stores:
        with pytest.raises(ConnectionLost):
            outcome(store)
    assert Tracked.open_files == 0


# --- cancelling


def test_what_waits_in_line_and_is_cancelled_is_never_sent(world: World) -> None:
    requestor, script = world.called()
    first = requestor.echo()
    tracked = Tracked()
    cancelled = requestor.store(tracked)
    cancelled.cancel()
    with pytest.raises(CancelledError):
        outcome(cancelled)
    last = requestor.echo()
    world.run()
    answer(script, 1)
    world.run()
    answer(script, ids(script)[-1])
    world.run()
    assert [outcome(first).status, outcome(last).status] == [0, 0]
    assert [message.field for message in script.messages] == [raw.C_ECHO_RQ, raw.C_ECHO_RQ]
    assert tracked.opened == 1  # as the next one, ahead of its turn
    assert Tracked.open_files == 0


@pytest.mark.parametrize("what", ["store", "find"])
def test_what_is_numbered_but_not_yet_on_its_way_is_withdrawn(world: World, what: str) -> None:
    requestor, script = world.called(windowed(4), window=4)
    world.link.to_acceptor.stalled = True
    large = requestor.store(Tracked(size=1_000_000))
    cancelled = requestor.store(Tracked()) if what == "store" else requestor.find({})
    last = requestor.echo()
    world.run()
    cancelled.cancel()
    with pytest.raises(CancelledError):
        outcome(cancelled)
    world.link.to_acceptor.stalled = False
    world.run()
    assert [m.field for m in script.messages] == [raw.C_STORE_RQ, raw.C_ECHO_RQ]
    for message_id in ids(script):
        answer(script, message_id)
    world.run()
    assert [outcome(large).status, outcome(last).status] == [0, 0]
    assert Tracked.open_files == 0
    assert world.result(requestor.release()) is None  # nothing is outstanding


def test_a_store_under_way_goes_on_when_nobody_waits_for_it_any_more(world: World) -> None:
    handler = Serving()
    requestor, _ = world.associate(handler)
    store = requestor.store(source(size=1_000_000))
    world.link.turn()
    store.cancel()
    with pytest.raises(CancelledError):
        outcome(store)
    assert world.result(requestor.echo()).status == 0
    assert [request.sop_instance_uid for request in handler.requests] == ["1.2.3.4"]


@pytest.mark.parametrize(
    "begin",
    [
        lambda a: a.find({}),
        lambda a: a.move({}, destination="DEST"),
        lambda a: a.get({}),
    ],
    ids=["find", "move", "get"],
)
def test_a_cancelled_query_is_cancelled_on_the_wire_and_keeps_its_slot(
    world: World, begin: Callable[[Any], Deferred[Any]]
) -> None:
    requestor, script = world.called()
    query = begin(requestor)
    world.run()
    query.cancel()
    with pytest.raises(CancelledError):
        outcome(query)
    echo = requestor.echo()
    world.run()
    request, cancel = script.messages
    assert cancel.field == 0x0FFF
    assert cancel.context == request.context
    assert raw.number(cancel.command, raw.RESPONDED_TO) == 1
    answer(script, 1, 0xFE00)
    world.run()
    assert ids(script) == [1, 2]
    answer(script, 2)
    world.run()
    assert outcome(echo).status == 0


def test_cancelling_by_the_association_gives_the_outcome_so_far(world: World) -> None:
    requestor, script = world.called()
    find = requestor.find({})
    world.run()
    script.command(script.messages[0].context, find_response(1, 0xFF00, data=True), b"")
    world.run()
    requestor.cancel(find)
    world.run()
    assert not find.called
    assert [message.field for message in script.messages] == [0x0020, 0x0FFF]
    answer(script, 1, 0xFE00)
    world.run()
    assert outcome(find) == [Dataset()]


def test_a_move_that_is_cancelled_before_its_turn_gives_an_empty_outcome(world: World) -> None:
    requestor, script = world.called()
    requestor.echo().addErrback(lambda f: f.trap(DimseError))
    move = requestor.move({}, destination="DEST")
    requestor.cancel(move)
    result = outcome(move)
    assert (result.status, result.completed, result.remaining) == (0xFE00, 0, 0)
    world.run()
    assert len(script.messages) == 1


def test_cancelling_what_has_ended_or_cannot_be_cancelled_does_nothing(world: World) -> None:
    requestor, script = world.called()
    echo = requestor.echo()
    world.run()
    requestor.cancel(echo)
    answer(script, 1)
    world.run()
    requestor.cancel(echo)
    echo.cancel()
    world.run()
    assert outcome(echo).status == 0
    assert len(script.messages) == 1


# --- C-FIND


def test_find_gives_the_matches(world: World) -> None:
    asked: list[Dataset] = []

    def find(request: Any) -> list[Dataset]:
        asked.append(request.dataset)
        return [study("1.1"), study("1.2")]

    requestor, _ = world.associate(Serving(find=find))
    keys = {"PatientName": "DOE*", "StudyInstanceUID": ""}
    assert world.result(requestor.find(keys)) == [study("1.1"), study("1.2")]
    assert asked[0].QueryRetrieveLevel == "STUDY"
    assert asked[0].PatientName == "DOE*"


@pytest.mark.parametrize(
    ("keys", "level", "sent"),
    [
        ({}, "STUDY", "STUDY"),
        ({"QueryRetrieveLevel": "SERIES"}, "STUDY", "SERIES"),
        ({}, "IMAGE", "IMAGE"),
        ({}, None, None),
    ],
)
def test_the_level_is_filled_in_where_it_lacks(
    world: World, keys: Any, level: str | None, sent: str | None
) -> None:
    handler = Serving(find=[])
    requestor, _ = world.associate(handler)
    dataset = Dataset()
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    before = dataset.to_json_dict()
    world.result(requestor.find(dataset, level=level))
    assert handler.requests[0].dataset.get("QueryRetrieveLevel") == sent
    assert dataset.to_json_dict() == before


@pytest.mark.parametrize(
    ("contexts", "model", "uid"),
    [
        ([PATIENT_ROOT.find, STUDY_ROOT.find], None, STUDY_ROOT.find),
        ([PATIENT_ROOT.find], None, PATIENT_ROOT.find),
        ([PATIENT_ROOT.find, STUDY_ROOT.find], PATIENT_ROOT, PATIENT_ROOT.find),
        ([PATIENT_ROOT.find, STUDY_ROOT.find], PATIENT_ROOT.find, PATIENT_ROOT.find),
    ],
)
def test_the_model_is_the_one_named_or_the_one_accepted(
    world: World, contexts: Any, model: Any, uid: str
) -> None:
    handler = Serving(find=[])
    requestor, _ = world.associate(handler, contexts=contexts)
    world.result(requestor.find({}, model=model))
    assert handler.requests[0].sop_class_uid == uid


def test_a_find_that_fails_fails(world: World) -> None:
    def find(_request: Any) -> Iterator[Any]:
        yield study("1.1")
        raise StatusError(0xA700, "too many")

    requestor, _ = world.associate(Serving(find=find))
    with pytest.raises(StatusError, match="too many"):
        world.result(requestor.find({}))


def test_matches_come_one_by_one(world: World) -> None:
    requestor, script = world.called()
    seen: list[str] = []

    async def read() -> None:
        async with requestor.find_each({}) as matches:
            async for match in matches:
                seen.append(match.StudyInstanceUID)

    reading = Deferred.fromCoroutine(read())
    world.run()
    context = script.messages[0].context
    for uid in ("1.1", "1.2"):
        data = encode_dataset(study(uid), EXPLICIT)
        script.command(context, find_response(1, 0xFF00, data=True), data)
        world.run()
        assert seen[-1] == uid
    answer(script, 1)
    world.run()
    assert fired(reading)


@pytest.mark.parametrize("how", ["break", "error", "aclose", "drop"])
def test_leaving_a_find_early_cancels_it(world: World, how: str) -> None:
    def find(_request: Any) -> Iterator[Dataset]:
        for number in range(100_000):
            yield study(f"1.{number}")

    requestor, _ = world.associate(Serving(find=find))

    async def read() -> None:
        async with requestor.find_each({}) as matches:
            async for _match in matches:
                if how == "error":
                    raise ZeroDivisionError
                break

    async def read_by_hand() -> None:
        matches = requestor.find_each({})
        await anext(matches)
        if how == "aclose":
            await matches.aclose()

    if how == "error":
        with pytest.raises(ZeroDivisionError):
            world.result(read())
    else:
        world.result(read() if how == "break" else read_by_hand())
    world.run()
    sent = [m.field for m in raw.messages(bytes(world.link.to_acceptor.record))]
    assert sent == [0x0020, 0x0FFF]
    assert len(raw.messages(bytes(world.link.to_requestor.record))) < 50_000
    assert world.result(requestor.echo()).status == 0


def test_a_slow_reader_pauses_the_transport_and_another_operation_frees_it(world: World) -> None:
    requestor, _ = world.associate(
        Serving(find=lambda _: (study(f"1.{n}") for n in range(5_000))), window=2
    )
    matches = requestor.find_each({})

    async def one() -> Any:
        return await anext(matches)

    world.result(one())
    assert world.link.requestor.paused
    assert world.result(requestor.echo()).status == 0
    world.result(matches.aclose())


def test_a_lost_association_ends_an_iteration_with_its_reason(world: World) -> None:
    requestor, _ = world.called()

    async def read() -> None:
        async for _match in requestor.find_each({}):
            pass

    reading = Deferred.fromCoroutine(read())
    world.run()
    world.link.lose()
    with pytest.raises(ConnectionLost):
        outcome(reading)


@pytest.mark.parametrize("each", [True, False])
def test_a_match_that_cannot_be_read_fails_its_query_and_no_other(world: World, each: bool) -> None:
    requestor, script = world.called(
        windowed(2), window=2, contexts=[VERIFICATION, (STUDY_ROOT.find, [DEFLATED])]
    )

    async def read() -> list[Any]:
        return [match async for match in requestor.find_each({})]

    query = Deferred.fromCoroutine(read()) if each else requestor.find({})
    world.run()
    for _ in range(2):
        script.command(3, find_response(1, 0xFF00, data=True), b"no deflated data")
    world.run()
    with pytest.raises(DimseError, match="cannot be read"):
        outcome(query)
    echo = requestor.echo()
    world.run()
    assert ids(script) == [1, 2]
    answer(script, 1, 0xFE00)
    answer(script, 2)
    world.run()
    assert outcome(echo).status == 0


# --- C-MOVE and C-GET


def test_get_receives_through_its_handler(world: World) -> None:
    received: list[str] = []

    class Receiver(Handler):
        def store(self, request: Any, dataset: Any) -> int:
            received.append(request.sop_instance_uid)
            return 0 if request.sop_instance_uid != "1.2.2" else 0xA700

    sources = [source(f"1.2.{n}") for n in range(3)]
    requestor, _ = world.associate(Serving(get=lambda _: sources))
    progress: list[Any] = []
    result = world.result(requestor.get({}, handler=Receiver(), progress=progress.append))
    assert received == ["1.2.0", "1.2.1", "1.2.2"]
    assert (result.status, result.completed, result.failed) == (0xB000, 2, 1)
    assert result.failed_sop_instance_uids == ("1.2.2",)
    assert [(one.completed, one.remaining) for one in progress] == [(1, 2), (2, 1), (2, 0)]


def test_a_handler_of_a_get_may_be_a_class(world: World) -> None:
    requestor, _ = world.associate(Serving(get=lambda _: [source()]))
    assert world.result(requestor.get({}, handler=Serving)).completed == 1


def test_get_without_a_handler_receives_through_that_of_the_association(world: World) -> None:
    mine = Serving()
    requestor, _ = world.associate(Serving(get=lambda _: [source()]), handler=mine)
    assert world.result(requestor.get({})).completed == 1
    assert len(mine.requests) == 1


def test_a_failed_retrieve_is_an_error_with_its_outcome(world: World) -> None:
    requestor, _ = world.associate(Serving(get=lambda _: [source("1.2.1"), source("1.2.2")]))
    with pytest.raises(StatusError) as caught:
        world.result(requestor.get({}, handler=Serving(store=0xA700)))
    assert caught.value.status == 0xA702
    assert caught.value.outcome.failed == 2
    assert caught.value.outcome.failed_sop_instance_uids == ("1.2.1", "1.2.2")


@pytest.mark.parametrize("service", ["get", "move"])
def test_a_progress_callback_that_fails_is_logged_and_the_retrieve_goes_on(
    world: World, service: str
) -> None:
    receiver = Serving()
    destination = world.serve(receiver)
    requestor, _ = world.associate(
        Serving(get=lambda _: [source()], move=lambda _: [source()]),
        {"peers": {"DEST": Peer("DEST", destination)}},
    )

    def progress(_outcome: Any) -> None:
        raise ZeroDivisionError

    if service == "get":
        running = requestor.get({}, handler=receiver, progress=progress)
    else:
        running = requestor.move({}, destination="DEST", progress=progress)
    assert world.result(running).completed == 1
    world.logged(ZeroDivisionError)
    assert world.result(requestor.echo()).status == 0


# --- N- services


def test_the_n_services_carry_what_they_are_given(world: World) -> None:
    handler = Serving(
        n_get=lambda _: study("1.1"),
        n_set=lambda request: request.dataset,
        n_create=lambda _: None,
        n_delete=lambda _: 0,
        n_action=lambda request: (0, request.dataset),
        n_event_report=lambda _: None,
    )
    requestor, _ = world.associate(handler)
    step = (STEP, "1.2.3")
    assert world.result(requestor.n_get(*step, ["PatientID", 0x00100010])).dataset == study("1.1")
    assert world.result(requestor.n_set(*step, {"PatientID": "7"})).dataset.PatientID == "7"
    assert world.result(requestor.n_create(STEP, {"PatientID": "7"}, "1.2.3")).status == 0
    assert world.result(requestor.n_delete(*step)).status == 0
    assert world.result(requestor.n_action(*step, 5, study("1.9"))).dataset == study("1.9")
    assert world.result(requestor.n_event_report(*step, 6)).command["EventTypeID"] == 6
    requests = handler.requests
    assert requests[0].attributes == (0x00100020, 0x00100010)
    assert requests[2].sop_instance_uid == "1.2.3"
    assert requests[4].action_type == 5
    assert requests[5].event_type == 6
    assert [request.sop_class_uid for request in requests] == [STEP] * 6


def test_a_result_names_the_instance_also_where_the_response_leaves_it_out(world: World) -> None:
    requestor, script = world.called()
    asked = [requestor.store(source("1.2.5")), requestor.n_delete(STEP, "1.2.6")]
    for message_id, response in [(1, 0x8001), (2, 0x8150)]:
        world.run()
        script.command(
            messages(script)[-1].context,
            raw.command(
                {
                    raw.FIELD: response,
                    raw.RESPONDED_TO: message_id,
                    raw.DATA_SET_TYPE: raw.NO_DATA_SET,
                    raw.STATUS: 0,
                }
            ),
        )
    world.run()
    assert [outcome(one).sop_instance_uid for one in asked] == ["1.2.5", "1.2.6"]


def test_a_created_instance_has_the_uid_that_the_peer_gave_it(world: World) -> None:
    def n_create(_request: Any) -> Dataset:
        created = Dataset()
        created.SOPInstanceUID = "1.2.99"
        return created

    requestor, _ = world.associate(Serving(n_create=n_create))
    assert world.result(requestor.n_create(STEP)).sop_instance_uid == "1.2.99"


def test_a_command_may_name_another_class_than_its_context(world: World) -> None:
    handler = Serving(n_action=lambda _: None)
    requestor, _ = world.associate(handler)
    world.result(requestor.n_action("1.2.840.10008.5.1.4.34.6.1", "1.2.3", 1, context=STEP))
    (request,) = handler.requests
    assert request.sop_class_uid == "1.2.840.10008.5.1.4.34.6.1"
    assert request.context.abstract_syntax == STEP


# --- answers that break the rules


def _echo_response(**changed: Any) -> bytes:
    elements: dict[int, Any] = {
        raw.AFFECTED_CLASS: VERIFICATION,
        raw.FIELD: 0x8030,
        raw.RESPONDED_TO: 1,
        raw.DATA_SET_TYPE: raw.NO_DATA_SET,
        raw.STATUS: 0,
    }
    names = {"field": raw.FIELD, "message_id": raw.RESPONDED_TO, "status": raw.STATUS}
    for name, value in changed.items():
        elements[names[name]] = value
    return raw.command({e: v for e, v in elements.items() if v is not None})


@pytest.mark.parametrize(
    "wrong",
    [
        {"message_id": 2},
        {"message_id": None},
        {"status": None},
        {"field": 0x8001},
        {"field": 0x8FFF},
        {"status": 0xFF00},
    ],
    ids=str,
)
def test_an_answer_that_fits_nothing_aborts(world: World, wrong: Any) -> None:
    requestor, script = world.called()
    echo = requestor.echo()
    world.run()
    script.command(1, _echo_response(**wrong))
    with pytest.raises(ProtocolViolation):
        world.result(echo)
    assert script.abort is not None
    assert script.abort[0] == 2


def test_an_answer_may_come_in_any_accepted_context(world: World) -> None:
    requestor, script = world.called()
    echo = requestor.echo()
    world.run()
    script.command(3, _echo_response())
    assert world.result(echo).status == 0


def test_data_behind_an_answer_that_needs_none_is_let_pass(world: World) -> None:
    requestor, script = world.called()
    echo = requestor.echo()
    world.run()
    elements = raw.elements(_echo_response())
    elements[raw.DATA_SET_TYPE] = b"\0\0"
    command = raw.command({e: v for e, v in elements.items() if e})
    script.command(1, command, encoded())
    assert world.result(echo).dataset.SOPInstanceUID == "1.2.3.4"


@given(data=st.binary(max_size=200))
def test_whatever_an_answer_carries_its_operation_ends(data: bytes) -> None:
    with World() as world:
        requestor, script = world.called(contexts=[(STEP, [DEFLATED, IMPLICIT])])
        reply = requestor.n_get(STEP, "1.2")
        world.run()
        command = raw.command(
            {raw.FIELD: 0x8110, raw.RESPONDED_TO: 1, raw.DATA_SET_TYPE: 0, raw.STATUS: 0}
        )
        script.command(1, command, data)
        world.run()
        assert fired(reply)
        reply.addErrback(lambda failure: failure.trap(DimseError))
        decode = requestor.n_get(STEP, "1.2")
        world.run()
        assert ids(script) == [1, 2]
        decode.addErrback(lambda failure: failure.trap(DimseError))


def test_what_comes_back_can_be_decoded_in_each_syntax() -> None:
    for syntax in ALL_SYNTAXES:
        assert decode_dataset(encode_dataset(study("1.5"), syntax), syntax) == study("1.5")
