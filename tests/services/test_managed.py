"""Managed instances: what the N- services answer for a mapping of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from facts import facts
from memory import World
from places import Place, serving
from pydicom import Dataset
from twisted.internet.defer import Deferred, succeed

from twisted_dimse import Association, StatusError
from twisted_dimse.keys import as_dataset
from twisted_dimse.services import managed
from twisted_dimse.services.managed import (
    FILM_BOX,
    FILM_SESSION,
    META_SOP_CLASSES,
    PRINTER,
    PRINTER_INSTANCE,
    UPS_PULL,
    UPS_PUSH,
    UPS_QUERY,
    UPS_WATCH,
    ManagedHandler,
    ManagedInstance,
)

GRAYSCALE_PRINT = "1.2.840.10008.5.1.1.9"
AVAILABILITY = "1.2.840.10008.5.1.4.33"
RT_VERIFICATION = "1.2.840.10008.5.1.4.34.8"
CLASSES = (GRAYSCALE_PRINT, FILM_SESSION, UPS_PUSH, UPS_WATCH, UPS_PULL, UPS_QUERY, AVAILABILITY)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


class Service:
    """A handler with an association to it."""

    def __init__(self, world: World, handler: ManagedHandler | None = None) -> None:
        printer = ManagedInstance(PRINTER, as_dataset({"PrinterStatus": "NORMAL"}))
        self.handler = handler or ManagedHandler(
            (*CLASSES, RT_VERIFICATION), {PRINTER_INSTANCE: printer}
        )
        self.place: Place = serving(world, self.handler)
        contexts = [*CLASSES, RT_VERIFICATION]
        self.association: Association = world.result(
            world.connect(self.place.peer, contexts=contexts)
        )
        self._world = world

    def __call__(self, operation: str, *args: Any, **options: Any) -> Any:
        return self._world.result(getattr(self.association, operation)(*args, **options))

    def status(self, operation: str, *args: Any, **options: Any) -> int:
        return int(self(operation, *args, check=False, **options).status)


@pytest.fixture
def service(world: World) -> Service:
    return Service(world)


def test_an_instance_is_created_read_changed_and_deleted(service: Service) -> None:
    film = {"NumberOfCopies": "2", "FilmDestination": "PROCESSOR"}
    assert service("n_create", FILM_SESSION, film, "1.2.3").sop_instance_uid == "1.2.3"
    read = service("n_get", FILM_SESSION, "1.2.3")
    assert (read.status, read.dataset.NumberOfCopies) == (0, 2)
    assert service("n_set", FILM_SESSION, "1.2.3", {"NumberOfCopies": "3"}).status == 0
    read = service("n_get", FILM_SESSION, "1.2.3", ["NumberOfCopies"])
    assert [(e.keyword, e.value) for e in read.dataset] == [("NumberOfCopies", 3)]
    assert service("n_delete", FILM_SESSION, "1.2.3").status == 0
    assert service.status("n_get", FILM_SESSION, "1.2.3") == 0x0112


def test_an_instance_without_a_uid_gets_one(service: Service) -> None:
    uid = service("n_create", FILM_SESSION, {"NumberOfCopies": "1"}).sop_instance_uid
    assert uid.startswith("2.25.")
    assert uid in service.handler.instances


@pytest.mark.parametrize(
    ("operation", "args"),
    [
        ("n_get", ()),
        ("n_set", ({"NumberOfCopies": "1"},)),
        ("n_delete", ()),
        ("n_action", (1,)),
    ],
)
@pytest.mark.parametrize(
    ("class_uid", "instance", "status"),
    [
        (FILM_SESSION, "1.2.9", 0x0112),
        (FILM_SESSION, "1.02", 0x0117),
        (FILM_SESSION, PRINTER_INSTANCE, 0x0119),
        (UPS_PUSH, "1.2.9", 0xC307),
        (RT_VERIFICATION, "1.2.9", 0xC112),
    ],
    ids=["unknown", "no-uid", "of-another-class", "ups", "rt-verification"],
)
def test_an_instance_that_is_not_there_has_its_status(
    service: Service, operation: str, args: Any, class_uid: str, instance: str, status: int
) -> None:
    assert service.status(operation, class_uid, instance, *args) == status


def test_a_duplicate_is_refused_and_the_first_stays(service: Service) -> None:
    service("n_create", FILM_SESSION, {"NumberOfCopies": "1"}, "1.2.3")
    assert service.status("n_create", FILM_SESSION, {"NumberOfCopies": "2"}, "1.2.3") == 0x0111
    assert service.handler.instances["1.2.3"].attributes.NumberOfCopies == 1


def test_what_is_no_uid_makes_no_instance(service: Service) -> None:
    assert service.status("n_create", FILM_SESSION, {}, "1.2.x") == 0x0117
    assert set(service.handler.instances) == {PRINTER_INSTANCE}


def test_attributes_that_are_not_there_are_listed_in_a_warning(service: Service) -> None:
    service("n_create", FILM_SESSION, {"NumberOfCopies": "1"}, "1.2.3")
    service("n_create", UPS_PUSH, {"ProcedureStepState": "SCHEDULED"}, "1.2.4")
    names = ["NumberOfCopies", "FilmDestination", "ProcedureStepState"]
    read = service("n_get", FILM_SESSION, "1.2.3", names)
    assert (read.status, len(read.dataset)) == (0x0107, 1)
    assert read.command["AttributeIdentifierList"] == (0x20000040, 0x00741000)
    read = service("n_get", UPS_PUSH, "1.2.4", names, context=UPS_WATCH)
    assert (read.status, read.dataset.ProcedureStepState) == (0x0001, "SCHEDULED")


def test_nothing_to_set_is_no_set(service: Service) -> None:
    service("n_create", FILM_SESSION, {"NumberOfCopies": "1"}, "1.2.3")
    assert service.status("n_set", FILM_SESSION, "1.2.3", None) == 0x0212


# --- classes that commands name, and contexts


def test_a_meta_sop_class_carries_its_members_and_no_others(service: Service) -> None:
    meta = {"context": GRAYSCALE_PRINT}
    assert service.status("n_create", FILM_BOX, {"FilmOrientation": "PORTRAIT"}, **meta) == 0
    assert service.status("n_get", PRINTER, PRINTER_INSTANCE, **meta) == 0
    assert service.status("n_create", UPS_PUSH, {}, **meta) == 0x0118
    assert service.status("n_create", FILM_BOX, {}, context=FILM_SESSION) == 0x0118


def test_the_classes_of_ups_share_instances_that_commands_name_by_push(service: Service) -> None:
    service("n_create", UPS_PUSH, {"ProcedureStepState": "SCHEDULED"}, "1.2.4")
    for syntax in (UPS_WATCH, UPS_PULL):
        assert service.status("n_get", UPS_PUSH, "1.2.4", context=syntax) == 0
        assert service.status("n_get", syntax, "1.2.4") == 0
    assert service.status("n_get", FILM_SESSION, "1.2.4", context=UPS_PULL) == 0x0118


def test_meta_sop_classes_have_the_members_of_the_standard() -> None:
    rows = facts("sop_classes")["meta_sop_classes"]
    members = {row["uid"]: tuple(row["members"]) for row in rows if row["members"]}
    assert members == META_SOP_CLASSES


def test_named_classes_are_those_of_the_standard() -> None:
    uids = {row["uid"]: row["keyword"] for row in facts("sop_classes")["sop_classes"]}
    assert [uids[uid] for uid in (managed.MEDIA_CREATION, FILM_SESSION, FILM_BOX, PRINTER)] == [
        "MediaCreationManagement",
        "BasicFilmSession",
        "BasicFilmBox",
        "Printer",
    ]
    assert [uids[uid] for uid in managed.INSTANCES_OF] == [
        "UnifiedProcedureStepWatch",
        "UnifiedProcedureStepPull",
        "UnifiedProcedureStepEvent",
        "UnifiedProcedureStepQuery",
        "ModalityPerformedProcedureStepRetrieve",
        "ModalityPerformedProcedureStepNotification",
    ]


# --- C-FIND of UPS


def test_unified_procedure_steps_can_be_found(service: Service) -> None:
    for number, label in enumerate(("Fusion", "Segment"), 1):
        step = {"ProcedureStepLabel": label, "ProcedureStepState": "SCHEDULED"}
        service("n_create", UPS_PUSH, step, f"1.2.{number}")
    keys = {"ProcedureStepLabel": "Seg*", "SOPInstanceUID": "", "ProcedureStepState": ""}
    for syntax in (UPS_PULL, UPS_WATCH, UPS_QUERY):
        (found,) = service("find", keys, level=None, model=syntax)
        assert (found.SOPInstanceUID, found.ProcedureStepState) == ("1.2.2", "SCHEDULED")
    with pytest.raises(StatusError) as refused:
        service("find", keys, level=None, model=AVAILABILITY)
    assert refused.value.status == 0x0211


# --- hooks


class Printing(ManagedHandler):
    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__((*CLASSES, RT_VERIFICATION))
        self.answers = answers
        self.calls: list[str] = []

    def _answer(self, name: str) -> Any:
        self.calls.append(name)
        answer = self.answers.get(name)
        return answer() if isinstance(answer, Callable) else answer  # type: ignore[arg-type]

    def creating(self, request: Any, uid: str, attributes: Dataset) -> Any:
        attributes.setdefault("MediumType", "BLUE FILM")
        return self._answer("creating")

    def changing(self, request: Any, instance: ManagedInstance, changes: Dataset) -> Any:
        return self._answer("changing")

    def deleting(self, request: Any, instance: ManagedInstance) -> Any:
        return self._answer("deleting")

    def action(self, request: Any, instance: ManagedInstance) -> Any:
        return self._answer("action")

    def event(self, request: Any) -> Any:
        return self._answer("event")


def refuse() -> None:
    raise StatusError(0xC616)


async def refuse_later() -> int:
    return 0xC616


FAILURES = [0xC616, refuse, refuse_later, lambda: succeed((0xC616, None))]


@pytest.mark.parametrize("failure", FAILURES, ids=["status", "raise", "coroutine", "deferred"])
def test_a_hook_that_fails_leaves_everything_as_it_was(world: World, failure: Any) -> None:
    service = Service(world, Printing({}))
    service("n_create", FILM_SESSION, {"NumberOfCopies": "1"}, "1.2.3")
    assert service.handler.instances["1.2.3"].attributes.MediumType == "BLUE FILM"
    service.handler.answers = dict.fromkeys(  # type: ignore[attr-defined]
        ("creating", "changing", "deleting", "action", "event"), failure
    )
    assert service.status("n_create", FILM_SESSION, {}, "1.2.4") == 0xC616
    assert service.status("n_set", FILM_SESSION, "1.2.3", {"NumberOfCopies": "2"}) == 0xC616
    assert service.status("n_delete", FILM_SESSION, "1.2.3") == 0xC616
    assert service.status("n_action", FILM_SESSION, "1.2.3", 1) == 0xC616
    assert service.status("n_event_report", FILM_SESSION, "1.2.3", 1) == 0xC616
    assert list(service.handler.instances) == ["1.2.3"]
    assert service.handler.instances["1.2.3"].attributes.NumberOfCopies == 1


def test_a_hook_may_warn_and_answer_with_attributes(world: World) -> None:
    answer = as_dataset({"ReferencedImageBoxSequence": [{"ReferencedSOPInstanceUID": "1.2.5"}]})
    service = Service(world, Printing({"creating": (0xB605, answer), "action": answer}))
    created = service("n_create", FILM_SESSION, {}, "1.2.3")
    assert (created.status, created.sop_instance_uid) == (0xB605, "1.2.3")
    (box,) = created.dataset.ReferencedImageBoxSequence
    assert box.ReferencedSOPInstanceUID == "1.2.5"
    assert service("n_action", FILM_SESSION, "1.2.3", 1).dataset == created.dataset


def test_without_hooks_there_are_no_actions_and_no_events(service: Service) -> None:
    service("n_create", FILM_SESSION, {}, "1.2.3")
    assert service.status("n_action", FILM_SESSION, "1.2.3", 1) == 0x0123
    assert service.status("n_event_report", FILM_SESSION, "1.2.3", 1) == 0x0113
    assert service.status("n_event_report", FILM_BOX, "1.2.3", 1, context=UPS_PUSH) == 0x0118


def test_of_two_that_create_the_same_at_once_one_is_the_duplicate(world: World) -> None:
    waiting: list[Deferred[None]] = []

    def later() -> Deferred[None]:
        waiting.append(Deferred())
        return waiting[-1]

    service = Service(world, Printing({"creating": later}))
    other = world.result(world.connect(service.place.peer, contexts=[FILM_SESSION]))
    both = [
        association.n_create(FILM_SESSION, {}, "1.2.3", check=False)
        for association in (service.association, other)
    ]
    world.run()
    for each in waiting:
        each.callback(None)
    assert sorted(world.result(each).status for each in both) == [0, 0x0111]


def test_text_in_any_character_set_is_kept_and_given_back(service: Service) -> None:
    first = {"PatientName": "Müller", "SpecificCharacterSet": "ISO_IR 100"}
    second = {"ProcedureStepLabel": "Люкc", "SpecificCharacterSet": "ISO_IR 144"}
    service("n_create", UPS_PUSH, first, "1.2.3")
    read = service("n_get", UPS_PUSH, "1.2.3").dataset
    assert (read.SpecificCharacterSet, str(read.PatientName)) == ("ISO_IR 100", "Müller")
    service("n_set", UPS_PUSH, "1.2.3", second)
    read = service("n_get", UPS_PUSH, "1.2.3").dataset
    assert (str(read.PatientName), read.ProcedureStepLabel) == ("Müller", "Люкc")
    assert read.SpecificCharacterSet == "ISO_IR 192"
