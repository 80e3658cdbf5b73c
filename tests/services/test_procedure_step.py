"""The modality performed procedure step, both halves, between two of our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from memory import Serving, World
from places import Place, serving
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from twisted.internet.defer import Deferred

from twisted_dimse import StatusError
from twisted_dimse.services import procedure_step
from twisted_dimse.services.managed import (
    PROCEDURE_STEP,
    PROCEDURE_STEP_NOTIFICATION,
    PROCEDURE_STEP_RETRIEVE,
)
from twisted_dimse.services.procedure_step import (
    ProcedureStepHandler,
    complete,
    create,
    discontinue,
    read,
    update,
)

STEP = {
    "ScheduledStepAttributesSequence": [{"StudyInstanceUID": "1.2.3"}],
    "PatientName": "Doe^Jane",
    "PerformedProcedureStepID": "P1",
    "PerformedStationAETitle": "CT1",
    "PerformedProcedureStepStartDate": "20240229",
    "PerformedProcedureStepStartTime": "1030",
    "PerformedProcedureStepStatus": "IN PROGRESS",
    "Modality": "CT",
}
SERIES = {"PerformedSeriesSequence": [{"SeriesInstanceUID": "1.2.3.4", "ProtocolName": "Chest"}]}
END = {"PerformedProcedureStepEndDate": "20240229", "PerformedProcedureStepEndTime": "1100"}


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


class Node:
    def __init__(self, world: World, handler: ProcedureStepHandler | None = None) -> None:
        self.handler = handler or ProcedureStepHandler()
        self.place: Place = serving(world, self.handler)
        self._world = world

    def __call__(self, function: Any, *args: Any, **options: Any) -> Any:
        return self._world.result(
            function(self.place.peer, *args, reactor=self._world.clock, **options)
        )

    def raw(self, operation: str, *args: Any) -> Any:
        """An operation as it is, with whatever status."""
        association = self._world.result(
            self._world.connect(self.place.peer, contexts=[PROCEDURE_STEP])
        )
        response = self._world.result(getattr(association, operation)(*args, check=False))
        self._world.result(association.release())
        return response

    def state(self, uid: str) -> str:
        return str(self.handler.instances[uid].attributes.PerformedProcedureStepStatus)


@pytest.fixture
def node(world: World) -> Node:
    return Node(world)


def test_a_step_is_begun_updated_and_completed(node: Node) -> None:
    uid = node(create, STEP)
    assert node.state(uid) == "IN PROGRESS"
    node(update, uid, {"PerformedProcedureStepDescription": "Chest"})
    node(complete, uid, SERIES)
    step = node(read, uid)
    assert step.PerformedProcedureStepStatus == "COMPLETED"
    assert step.PerformedProcedureStepDescription == "Chest"
    assert len(step.PerformedProcedureStepEndDate) == 8
    assert step.PerformedSeriesSequence[0].ProtocolName == "Chest"


def test_a_step_may_be_broken_off_without_series(node: Node) -> None:
    uid = node(create, STEP, instance_uid="1.2.9")
    assert uid == "1.2.9"
    node(discontinue, uid, END)
    assert node.state(uid) == "DISCONTINUED"


def test_a_modality_need_not_think_of_empty_attributes_and_its_own_keys_stay(node: Node) -> None:
    step = {name: value for name, value in STEP.items() if "Start" not in name}
    step.pop("PerformedProcedureStepStatus")
    given = procedure_step._copy(step)
    uid = node(create, given)
    kept = node.handler.instances[uid].attributes
    assert {keyword_for_tag(tag) for tag in procedure_step.TYPE_2} <= set(kept.dir())
    (scheduled,) = kept.ScheduledStepAttributesSequence
    assert scheduled.AccessionNumber == ""
    assert "AccessionNumber" not in given.ScheduledStepAttributesSequence[0]
    assert kept.PerformedProcedureStepStartDate


# --- what is refused


@pytest.mark.parametrize("tag", procedure_step.TYPE_1, ids=keyword_for_tag)
def test_what_a_new_step_must_have_is_named_when_it_is_missing(node: Node, tag: int) -> None:
    keyword = keyword_for_tag(tag)
    missing = node.raw("n_create", PROCEDURE_STEP, {**STEP, keyword: None}, "1.2.9")
    assert missing.status == 0x0121
    step = {name: value for name, value in STEP.items() if name != keyword}
    missing = node.raw("n_create", PROCEDURE_STEP, step, "1.2.9")
    assert missing.status == 0x0120
    assert missing.command["AttributeIdentifierList"] == (tag,)
    assert not node.handler.instances


def test_the_study_of_a_scheduled_step_must_be_named(node: Node) -> None:
    step = {**STEP, "ScheduledStepAttributesSequence": [{"AccessionNumber": "7"}]}
    response = node.raw("n_create", PROCEDURE_STEP, step, "1.2.9")
    assert response.status == 0x0120
    assert response.command["AttributeIdentifierList"] == (0x0020000D,)


@pytest.mark.parametrize("state", ["COMPLETED", "DISCONTINUED", "STARTED"])
def test_a_step_begins_in_progress(node: Node, state: str) -> None:
    step = {**STEP, "PerformedProcedureStepStatus": state}
    response = node.raw("n_create", PROCEDURE_STEP, step, "1.2.9")
    assert response.status == 0x0106
    assert response.dataset.PerformedProcedureStepStatus == state


def test_the_same_step_is_not_begun_twice(node: Node) -> None:
    uid = node(create, STEP)
    with pytest.raises(StatusError) as refused:
        node(create, STEP, instance_uid=uid)
    assert refused.value.status == 0x0111


@pytest.mark.parametrize("end", [complete, discontinue], ids=["completed", "discontinued"])
def test_once_it_has_ended_a_step_does_not_change(node: Node, end: Any) -> None:
    uid = node(create, STEP)
    node(end, uid, SERIES)
    for function, changes in ((update, {"StudyID": "7"}), (discontinue, {}), (complete, SERIES)):
        with pytest.raises(StatusError) as refused:
            node(function, uid, changes)
        assert refused.value.status == 0x0110
        assert refused.value.elements["ErrorID"] == 0xA710


def test_a_step_is_completed_with_its_end_and_its_series(node: Node) -> None:
    uid = node(create, STEP)
    ended = {"PerformedProcedureStepStatus": "COMPLETED"}
    for missing in ({}, END, SERIES):
        response = node.raw("n_set", PROCEDURE_STEP, uid, {**ended, **missing})
        assert response.status == 0x0121
    assert node.state(uid) == "IN PROGRESS"
    assert node.raw("n_set", PROCEDURE_STEP, uid, {**ended, **END, **SERIES}).status == 0


def test_a_state_that_is_none_is_refused(node: Node) -> None:
    uid = node(create, STEP)
    response = node.raw("n_set", PROCEDURE_STEP, uid, {"PerformedProcedureStepStatus": "DONE"})
    assert response.status == 0x0106


def test_what_only_a_new_step_is_given_may_be_repeated_and_not_changed(node: Node) -> None:
    uid = node(create, STEP)
    assert node.raw("n_set", PROCEDURE_STEP, uid, {"Modality": "CT"}).status == 0
    response = node.raw("n_set", PROCEDURE_STEP, uid, {"Modality": "MR"})
    assert (response.status, response.dataset.Modality) == (0x0106, "MR")


def test_an_unknown_step_and_a_deletion_have_their_statuses(node: Node) -> None:
    assert node.raw("n_set", PROCEDURE_STEP, "1.2.9", {"StudyID": "7"}).status == 0x0112
    uid = node(create, STEP)
    assert node.raw("n_delete", PROCEDURE_STEP, uid).status == 0x0211


def test_attributes_that_a_step_lacks_are_warned_of(node: Node, world: World) -> None:
    uid = node(create, STEP)
    association = world.result(world.connect(node.place.peer, contexts=[PROCEDURE_STEP_RETRIEVE]))
    asked = ["Modality", "Rows"]
    response = world.result(association.n_get(PROCEDURE_STEP_RETRIEVE, uid, asked))
    assert (response.status, response.dataset.Modality) == (0x0001, "CT")
    assert response.command["AttributeIdentifierList"] == (0x00280010,)
    world.result(association.release())


# --- hooks


class Noting(ProcedureStepHandler):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []
        self.answer: Any = None

    def begun(self, uid: str, step: Dataset) -> Any:
        self.seen.append(("begun", step.Modality))
        return self.answer

    def changed(self, uid: str, step: Dataset, state: str) -> Any:
        self.seen.append((state, step.Modality))
        return self.answer


def test_those_who_keep_steps_are_told_before_the_answer(world: World) -> None:
    handler = Noting()
    node = Node(world, handler)
    uid = node(create, STEP)
    node(update, uid, {"CommentsOnThePerformedProcedureStep": "calm"})
    node(complete, uid, SERIES)
    assert handler.seen == [("begun", "CT"), ("IN PROGRESS", "CT"), ("COMPLETED", "CT")]


def test_what_cannot_be_kept_is_refused(world: World) -> None:
    handler = Noting()
    node = Node(world, handler)
    handler.answer = _failing()
    with pytest.raises(StatusError) as refused:
        node(create, STEP, instance_uid="1.2.9")
    assert refused.value.status == 0x0213
    assert not handler.instances


async def _failing() -> None:
    raise StatusError(0x0213, "the database is full")


def test_of_two_that_end_a_step_at_once_the_second_is_late(world: World) -> None:
    handler = Noting()
    node = Node(world, handler)
    uid = node(create, STEP)
    handler.answer = Deferred()
    both = [
        end(node.place.peer, uid, SERIES, reactor=world.clock) for end in (complete, discontinue)
    ]
    world.run()
    handler.answer.callback(None)
    assert world.result(both[0]) is None
    with pytest.raises(StatusError) as late:
        world.result(both[1])
    assert late.value.elements["ErrorID"] == 0xA710
    assert node.state(uid) == "COMPLETED"


# --- notification


def test_those_who_have_associated_for_it_are_told_of_changes(world: World) -> None:
    node = Node(world)
    told: list[tuple[str, int]] = []

    def event(request: Any) -> int:
        told.append((request.sop_instance_uid, request.event_type))
        return 0

    listener = world.result(
        world.connect(
            node.place.peer,
            contexts=[PROCEDURE_STEP_NOTIFICATION],
            handler=Serving(n_event_report=event),
        )
    )
    uid = node(create, STEP)
    node(update, uid, {"CommentsOnThePerformedProcedureStep": "calm"})
    node(complete, uid, SERIES)
    other = node(create, STEP)
    node(discontinue, other)
    assert told == [(uid, 1), (uid, 4), (uid, 2), (other, 1), (other, 3)]
    world.result(listener.release())
    node(create, STEP)
    assert len(told) == 5


def test_who_makes_a_change_is_not_told_of_it(world: World) -> None:
    node = Node(world)
    told: list[int] = []
    handler = Serving(n_event_report=lambda request: told.append(request.event_type))
    contexts = [PROCEDURE_STEP, PROCEDURE_STEP_NOTIFICATION]
    association = world.result(world.connect(node.place.peer, contexts=contexts, handler=handler))
    world.result(create(association, STEP))
    assert told == []
    node(create, STEP)
    assert told == [1]
    world.result(association.release())


def test_a_listener_that_fails_harms_nobody(world: World) -> None:
    node = Node(world)
    listener = world.result(
        world.connect(node.place.peer, contexts=[PROCEDURE_STEP_NOTIFICATION], handler=Serving())
    )
    node(create, STEP)
    assert world.lines("was not told of a procedure step")
    listener.abort()


# --- an association that is there already


def test_one_association_may_do_it_all(world: World) -> None:
    node = Node(world)
    association = world.result(world.connect(node.place.peer, contexts=[PROCEDURE_STEP]))
    uid = world.result(create(association, STEP))
    world.result(complete(association, uid, SERIES))
    assert node.state(uid) == "COMPLETED"
    assert node.place.connections == 1
    world.result(association.release())
