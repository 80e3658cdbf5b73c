"""The modality worklist, both halves, between two of our own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from facts import facts
from memory import World
from places import serving
from pydicom import Dataset
from twisted.internet.defer import Deferred, succeed

from twisted_dimse import StatusError
from twisted_dimse.keys import as_dataset
from twisted_dimse.services.worklist import WorklistHandler, worklist
from twisted_dimse.uids import MODALITY_WORKLIST_FIND

(MODEL,) = (m for m in facts("query_retrieve")["models"] if m["model"] == "modality_worklist")
STEP = "ScheduledProcedureStepSequence"


def item(number: int, **more: Any) -> Dataset:
    step = {
        "ScheduledStationAETitle": "CT1",
        "ScheduledProcedureStepStartDate": "20240229",
        "ScheduledProcedureStepStartTime": "1030",
        "Modality": "CT",
        "ScheduledPerformingPhysicianName": "Roe^Richard",
        "ScheduledProcedureStepID": f"S{number}",
    }
    steps = {name: more.pop(name, value) for name, value in step.items()}
    made: Dataset = as_dataset(
        {
            "PatientName": "Doe^Jane",
            "PatientID": str(number),
            "StudyInstanceUID": f"1.2.{number}",
            "AccessionNumber": f"A{number}",
            STEP: [steps],
            **more,
        }
    )
    return made


ITEMS = [
    item(1),
    item(2, Modality="MR", ScheduledStationAETitle="MR1"),
    item(3, ScheduledProcedureStepStartDate="20240301", ScheduledProcedureStepStartTime="09"),
    item(4, PatientName="Yamada^Tarou=山田^太郎", SpecificCharacterSet="ISO_IR 192"),
    item(5, ScheduledPerformingPhysicianName=""),
]


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def ask(world: World, keys: Any, items: Any = lambda: ITEMS, **options: Any) -> list[Dataset]:
    place = serving(world, WorklistHandler(items))
    found: list[Dataset] = world.result(worklist(place.peer, keys, reactor=world.clock, **options))
    return found


def numbers(found: list[Dataset]) -> list[int]:
    return [int(match.PatientID) for match in found]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({f"{STEP}.Modality": "MR"}, [2]),
        ({f"{STEP}.ScheduledStationAETitle": "CT1"}, [1, 3, 4, 5]),
        ({f"{STEP}.ScheduledProcedureStepStartDate": "20240301-"}, [3]),
        ({f"{STEP}.ScheduledProcedureStepStartTime": "0900"}, [3]),
        (
            {
                f"{STEP}.ScheduledProcedureStepStartDate": "20240229-20240301",
                f"{STEP}.ScheduledProcedureStepStartTime": "1000-1200",
            },
            [1, 2, 3, 4, 5],
        ),
        ({f"{STEP}.ScheduledPerformingPhysicianName": "roe*"}, [1, 2, 3, 4]),
        ({"PatientName": "山田*"}, [4]),
        ({"PatientID": "3"}, [3]),
        ({"AccessionNumber": "A5"}, [5]),
        ({f"{STEP}.Modality": "CT", "PatientID": "2"}, []),
    ],
    ids=repr,
)
def test_a_key_means_the_scheduled_steps_that_have_it(
    world: World, keys: dict[str, Any], expected: list[int]
) -> None:
    assert numbers(ask(world, keys)) == expected


def test_all_that_a_worklist_has_to_give_is_asked_for_and_given(world: World) -> None:
    keys = {f"{STEP}.ScheduledProcedureStepID": "S1"}
    (found,) = ask(world, keys)
    (step,) = found[STEP].value
    for row in MODEL["keys"]:
        if row["return_type"] in ("1", "2"):
            assert row["keyword"] in found
    for row in MODEL["keys"][0]["items"]:
        if row["return_type"] in ("1", "2"):
            assert row["keyword"] in step
    assert step.ScheduledProcedureStepStartTime == "1030"


def test_without_filling_only_what_was_asked_for_comes(world: World) -> None:
    (found,) = ask(world, {"PatientID": "1", f"{STEP}.Modality": ""}, fill=False)
    assert [element.keyword for element in found] == ["PatientID", STEP]
    assert [element.keyword for element in found[STEP].value[0]] == ["Modality"]


def test_a_key_that_nobody_knows_is_left_out_with_another_status(world: World) -> None:
    handler = WorklistHandler(lambda: ITEMS[:1])
    place = serving(world, handler)
    statuses: list[int] = []
    answers = handler._answers

    async def noting(*args: Any) -> AsyncIterator[Any]:
        async for status, answer in answers(*args):
            statuses.append(status)
            yield status, answer

    handler._answers = noting  # type: ignore[method-assign]
    for keys in ({"PatientID": ""}, {"PatientID": "", "DetectorID": ""}):
        (found,) = world.result(worklist(place.peer, keys, reactor=world.clock))
        assert "DetectorID" not in found
    assert statuses == [0xFF00, 0xFF01]


async def one_by_one() -> AsyncIterator[Dataset]:
    for each in ITEMS:
        yield each


async def later() -> list[Dataset]:
    return ITEMS


@pytest.mark.parametrize(
    "items",
    [lambda: iter(ITEMS), one_by_one, later, lambda: succeed(ITEMS), lambda: succeed(one_by_one())],
    ids=["iterator", "async-iterator", "coroutine", "deferred", "deferred-async-iterator"],
)
def test_items_may_come_in_any_way(world: World, items: Any) -> None:
    assert numbers(ask(world, {}, items)) == [1, 2, 3, 4, 5]


def test_the_items_are_closed_where_a_query_is_cancelled(world: World) -> None:
    """Also where that takes its time, as with a cursor of a database."""
    closed: list[bool] = []
    ready: Deferred[None] = Deferred()

    async def endless() -> AsyncIterator[Dataset]:
        try:
            while True:
                yield ITEMS[0]
        finally:
            await ready
            closed.append(True)

    place = serving(world, WorklistHandler(endless))
    asking = world.connect(place.peer, contexts=[MODALITY_WORKLIST_FIND])
    association = world.result(asking)

    async def first() -> Dataset:
        async with association.find_each({"PatientID": ""}, level=None) as found:
            async for match in found:
                return match
        raise AssertionError("nothing was found")

    found = Deferred.fromCoroutine(first())
    world.run()
    ready.callback(None)
    assert world.result(found).PatientID == "1"
    assert closed == [True]


def test_more_than_one_item_in_the_key_is_refused(world: World) -> None:
    keys = {STEP: [{"Modality": "CT"}, {"Modality": "MR"}]}
    with pytest.raises(StatusError) as refused:
        ask(world, keys, fill=False)
    assert refused.value.status == 0xA900
    assert refused.value.elements["OffendingElement"] == (0x00400100,)


def test_a_failure_of_the_source_is_answered_and_logged(world: World) -> None:
    def broken() -> Any:
        raise OSError("the database is gone")

    with pytest.raises(StatusError) as failed:
        ask(world, {}, broken)
    assert failed.value.status == 0xC000
    assert isinstance(world.logged(), OSError)


def test_an_answer_is_in_the_character_set_of_the_question(world: World) -> None:
    keys = {"PatientName": "Müller", "SpecificCharacterSet": "ISO_IR 100"}
    stored = item(9, PatientName="Müller", SpecificCharacterSet="ISO_IR 192")
    (found,) = ask(world, keys, lambda: [stored])
    assert (found.SpecificCharacterSet, str(found.PatientName)) == ("ISO_IR 100", "Müller")


def test_extended_negotiation_is_answered_with_nothing_taken(world: World) -> None:
    place = serving(world, WorklistHandler(list))
    association = world.result(
        world.connect(
            place.peer,
            contexts=[MODALITY_WORKLIST_FIND],
            extended={MODALITY_WORKLIST_FIND: b"\1\1\1\1"},
        )
    )
    assert association.agreement.extended == {MODALITY_WORKLIST_FIND: b"\1\1\0\0"}
    world.result(association.release())
