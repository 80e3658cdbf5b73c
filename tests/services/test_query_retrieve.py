"""Query/Retrieve, both halves, between two of our own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from memory import World
from places import Place, serving
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from twisted.internet.defer import CancelledError, Deferred

from twisted_dimse import PATIENT_ROOT, Handler, Peer, StatusError
from twisted_dimse.datastream import BytesSource, encode_dataset
from twisted_dimse.keys import as_dataset
from twisted_dimse.services import retrieval
from twisted_dimse.services.identifiers import QueryOptions
from twisted_dimse.services.query_retrieve import QueryRetrieveHandler, move, query, retrieve

CT, MR, SR = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "4", "88.11"))
EXPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"


def instance(
    number: int, *, patient: str = "7", study: str = "1", series: str = "1", **more: Any
) -> Dataset:
    uid = f"1.2.{study}"
    made: Dataset = as_dataset(
        {
            "SOPClassUID": CT,
            "SOPInstanceUID": f"{uid}.{series}.{number}",
            "StudyInstanceUID": uid,
            "SeriesInstanceUID": f"{uid}.{series}",
            "PatientID": patient,
            "PatientName": "Doe^Jane",
            "StudyDate": "20240229",
            "Modality": "CT",
            "InstanceNumber": str(number),
            **more,
        }
    )
    return made


ALL = [
    *(instance(number) for number in (1, 2)),
    instance(1, series="2", Modality="SR", SOPClassUID=SR),
    instance(1, study="2", StudyDate="20240301", StudyDescription="Chest"),
    instance(1, study="3", patient="8", PatientName="Roe^Richard", Modality="MR", SOPClassUID=MR),
]


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def archive(world: World, instances: list[Dataset] | None = None, **options: Any) -> Place:
    held = ALL if instances is None else instances
    return serving(world, QueryRetrieveHandler(lambda: held), **options)


class Keeping(Handler):
    """Keeps what it is sent; what is in `refused` it does not."""

    def __init__(self, *refused: str) -> None:
        self.kept: list[tuple[str, str]] = []
        self.refused = refused

    def store(self, request: Any, dataset: Any) -> int:
        if request.sop_instance_uid in self.refused:
            return 0xA700
        self.kept.append((request.sop_instance_uid, request.context.transfer_syntax))
        return 0

    @property
    def uids(self) -> list[str]:
        return sorted(uid for uid, _ in self.kept)


def of(found: list[Dataset], keyword: str) -> list[str]:
    return sorted(str(match.get(keyword)) for match in found)


# --- queries


def ask(world: World, place: Place, keys: Any, **options: Any) -> list[Dataset]:
    found: list[Dataset] = world.result(query(place.peer, keys, reactor=world.clock, **options))
    return found


@pytest.mark.parametrize(
    ("level", "keys", "unique", "expected"),
    [
        ("PATIENT", {"PatientName": "*"}, "PatientID", ["7", "8"]),
        ("PATIENT", {"PatientName": "roe*"}, "PatientID", ["8"]),
        ("STUDY", {"PatientID": "7"}, "StudyInstanceUID", ["1.2.1", "1.2.2"]),
        ("STUDY", {"StudyDate": "20240301-"}, "StudyInstanceUID", ["1.2.2"]),
        ("STUDY", {"ModalitiesInStudy": "SR"}, "StudyInstanceUID", ["1.2.1"]),
        ("STUDY", {"StudyInstanceUID": ["1.2.1", "1.2.3"]}, "StudyInstanceUID", ["1.2.1", "1.2.3"]),
        ("SERIES", {"StudyInstanceUID": "1.2.1"}, "SeriesInstanceUID", ["1.2.1.1", "1.2.1.2"]),
        (
            "SERIES",
            {"StudyInstanceUID": "1.2.1", "Modality": "CT"},
            "SeriesInstanceUID",
            ["1.2.1.1"],
        ),
        (
            "IMAGE",
            {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1", "InstanceNumber": "2"},
            "SOPInstanceUID",
            ["1.2.1.1.2"],
        ),
        ("STUDY", {"StudyInstanceUID": "1.9"}, "StudyInstanceUID", []),
    ],
)
def test_a_query_finds_the_entities_of_its_level(
    world: World, level: str, keys: dict[str, Any], unique: str, expected: list[str]
) -> None:
    found = ask(world, archive(world), {unique: "", **keys}, level=level)
    assert of(found, unique) == expected
    assert {match.QueryRetrieveLevel for match in found} <= {level}


def test_what_is_only_known_of_the_whole_is_computed(world: World) -> None:
    keys = {
        "StudyInstanceUID": "1.2.1",
        "ModalitiesInStudy": "",
        "SOPClassesInStudy": "",
        "NumberOfStudyRelatedSeries": "",
        "NumberOfStudyRelatedInstances": "",
        "RetrieveAETitle": "",
        "InstanceAvailability": "",
    }
    (study,) = ask(world, archive(world), keys)
    assert list(study.ModalitiesInStudy) == ["CT", "SR"]
    assert list(study.SOPClassesInStudy) == [CT, SR]
    assert study.NumberOfStudyRelatedSeries == 2
    assert study.NumberOfStudyRelatedInstances == 3
    assert (study.RetrieveAETitle, study.InstanceAvailability) == ("SERVER", "ONLINE")
    keys = {"PatientID": "7", "NumberOfPatientRelatedStudies": ""}
    (patient,) = ask(world, archive(world), keys, level="PATIENT")
    assert patient.NumberOfPatientRelatedStudies == 2


def test_a_key_of_which_nothing_is_known_is_left_out_and_the_status_says_so(world: World) -> None:
    place = archive(world)
    statuses: list[int] = []
    whole = place.factory.handler.find
    place.factory.handler.find = lambda request: (
        statuses.append(answer[0]) or answer for answer in whole(request)
    )
    (study,) = ask(world, place, {"StudyInstanceUID": "1.2.1", "StudyDescription": ""})
    assert study.StudyDescription == ""
    (study,) = ask(world, place, {"StudyInstanceUID": "1.2.1", "DetectorID": ""})
    assert "DetectorID" not in study
    assert statuses == [0xFF00, 0xFF01]


def test_an_identifier_that_does_not_fit_is_refused_with_its_element(world: World) -> None:
    with pytest.raises(StatusError) as refused:
        ask(world, archive(world), {"SeriesInstanceUID": ""}, level="SERIES")
    assert refused.value.status == 0xA900
    assert refused.value.elements["OffendingElement"] == (0x0020000D,)
    assert world.lines("released after")


def test_a_relational_query_is_answered_where_it_was_negotiated(world: World) -> None:
    keys = {"SeriesInstanceUID": "", "PatientName": "DOE*", "Modality": "CT"}
    place = archive(world)
    with pytest.raises(StatusError):
        ask(world, place, keys, level="SERIES")
    found = ask(world, place, keys, level="SERIES", negotiate=QueryOptions(relational=True))
    assert of(found, "SeriesInstanceUID") == ["1.2.1.1", "1.2.2.1"]
    assert of(found, "StudyInstanceUID") == ["1.2.1", "1.2.2"]


def test_after_the_limit_a_query_is_cancelled(world: World) -> None:
    many = [instance(1, study=str(number)) for number in range(500)]
    found = ask(world, archive(world, many), {"StudyInstanceUID": ""}, limit=3)
    assert len(found) == 3


def test_a_peer_with_patient_root_only_is_asked_by_it(world: World) -> None:
    class PatientRootOnly(QueryRetrieveHandler):
        def accepted_contexts(self) -> dict[str, tuple[str, ...]]:
            return {PATIENT_ROOT.find: ()}

    place = serving(world, PatientRootOnly(lambda: ALL))
    found = ask(world, place, {"PatientID": "7", "StudyInstanceUID": ""})
    assert of(found, "StudyInstanceUID") == ["1.2.1", "1.2.2"]


def test_names_in_any_script_go_there_and_back(world: World) -> None:
    held = [instance(1, PatientName="Yamada^Tarou=山田^太郎", SpecificCharacterSet="ISO_IR 192")]
    (found,) = ask(world, archive(world, held), {"PatientName": "山田*"})
    assert str(found.PatientName) == "Yamada^Tarou=山田^太郎"


def test_a_cancelled_query_ends_at_once(world: World) -> None:
    waiting: Deferred[None] = Deferred()

    class Slow(QueryRetrieveHandler):
        def find(self, request: Any) -> Any:
            return waiting

    asked = query(serving(world, Slow(list)).peer, {"PatientID": ""}, reactor=world.clock)
    world.run()
    asked.cancel()
    with pytest.raises(CancelledError):
        world.result(asked)


# --- C-GET


def fetch(world: World, place: Place, keys: Any, receiver: Handler, **options: Any) -> Any:
    return world.result(
        retrieve(place.peer, keys, handler=receiver, reactor=world.clock, **options)
    )


@pytest.mark.parametrize(
    ("level", "keys", "expected"),
    [
        ("PATIENT", {"PatientID": "7"}, ["1.2.1.1.1", "1.2.1.1.2", "1.2.1.2.1", "1.2.2.1.1"]),
        ("STUDY", {"StudyInstanceUID": "1.2.1"}, ["1.2.1.1.1", "1.2.1.1.2", "1.2.1.2.1"]),
        ("STUDY", {"StudyInstanceUID": ["1.2.2", "1.2.3"]}, ["1.2.2.1.1", "1.2.3.1.1"]),
        (
            "SERIES",
            {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1"},
            ["1.2.1.1.1", "1.2.1.1.2"],
        ),
        (
            "IMAGE",
            {
                "StudyInstanceUID": "1.2.1",
                "SeriesInstanceUID": "1.2.1.1",
                "SOPInstanceUID": "1.2.1.1.2",
            },
            ["1.2.1.1.2"],
        ),
        ("STUDY", {"StudyInstanceUID": "1.9"}, []),
    ],
)
def test_everything_under_the_unique_keys_is_fetched(
    world: World, level: str, keys: dict[str, Any], expected: list[str]
) -> None:
    receiver = Keeping()
    outcome = fetch(world, archive(world), keys, receiver, level=level)
    assert receiver.uids == expected
    assert (outcome.status, outcome.completed, outcome.failed) == (0, len(expected), 0)


def test_progress_is_told_as_it_goes(world: World) -> None:
    seen: list[tuple[int, int]] = []
    fetch(
        world,
        archive(world),
        {"StudyInstanceUID": "1.2.1"},
        Keeping(),
        progress=lambda outcome: seen.append((outcome.completed, outcome.remaining)),
    )
    assert seen == [(1, 2), (2, 1), (3, 0)]


class Silent(QueryRetrieveHandler):
    """Does not know SOP Classes in Study; with ``deaf`` it does not even answer at IMAGE level."""

    def __init__(self, instances: list[Dataset], deaf: bool = False) -> None:
        super().__init__(lambda: instances)
        self.deaf = deaf

    def find(self, request: Any) -> Any:
        if self.deaf and request.dataset.QueryRetrieveLevel == "IMAGE":
            raise StatusError(0xC000)
        return self._without(super().find(request))

    @staticmethod
    def _without(answers: Any) -> Any:
        for status, answer in answers:
            for keyword in ("SOPClassesInStudy", "AvailableTransferSyntaxUID"):
                if keyword in answer:
                    delattr(answer, keyword)
            yield status, answer


@pytest.mark.parametrize("deaf", [False, True], ids=["by-instance", "common-classes"])
def test_sop_classes_are_found_out_where_the_peer_does_not_list_them(
    world: World, deaf: bool
) -> None:
    receiver = Keeping()
    place = serving(world, Silent(ALL, deaf))
    outcome = fetch(world, place, {"StudyInstanceUID": "1.2.1"}, receiver)
    assert (outcome.status, outcome.completed) == (0, 3)


def test_known_sop_classes_need_no_query(world: World) -> None:
    receiver = Keeping()
    place = archive(world)
    fetch(world, place, {"StudyInstanceUID": "1.2.1"}, receiver, sop_classes=[CT, SR])
    assert (len(receiver.kept), place.connections) == (3, 1)


def many_classes(syntax: str, number: int = 130) -> list[Dataset]:
    """A study of more SOP classes than an association has contexts for. What is compressed cannot
    be decoded."""
    uids = [f"1.2.840.99.{at}" for at in range(number)]
    made = [instance(at, SOPClassUID=uid) for at, uid in enumerate(uids)]
    for each in made:
        each.file_meta = FileMetaDataset()
        each.file_meta.TransferSyntaxUID = syntax
        if syntax != EXPLICIT:
            each.PixelData = encapsulate([b"none"])
            each["PixelData"].is_undefined_length = True
    return made


class AnyClass(QueryRetrieveHandler):
    """Gives instances of any class, as they are encoded."""

    def accepted_contexts(self) -> dict[str, tuple[str, ...]]:
        classes = {str(each.SOPClassUID) for each in self._instances()}
        return {**super().accepted_contexts(), **dict.fromkeys(classes, ())}

    def get(self, request: Any) -> Any:
        return [
            BytesSource(
                str(each.SOPClassUID),
                str(each.SOPInstanceUID),
                str(each.file_meta.TransferSyntaxUID),
                encode_dataset(each, EXPLICIT),
            )
            for each in super().get(request)
        ]


@pytest.mark.parametrize("listed", [True, False], ids=["syntaxes-listed", "syntaxes-unknown"])
def test_what_no_context_was_left_for_comes_over_further_associations(
    world: World, listed: bool
) -> None:
    held = many_classes(EXPLICIT)

    class Archive(AnyClass):
        def find(self, request: Any) -> Any:
            answers = super().find(request)
            return answers if listed else Silent._without(answers)

    receiver = Keeping()
    place = serving(world, Archive(lambda: held))
    outcome = fetch(world, place, {"StudyInstanceUID": "1.2.1"}, receiver)
    assert len(receiver.kept) == len(set(receiver.kept)) == 130
    assert (outcome.status, outcome.completed, outcome.failed) == (0, 130, 0)
    assert outcome.failed_sop_instance_uids == ()


def test_a_transfer_syntax_that_comes_late_in_the_order_is_proposed_in_the_end(
    world: World,
) -> None:
    held = many_classes("1.2.840.10008.1.2.4.112", 40)
    receiver = Keeping()
    place = serving(world, AnyClass(lambda: held))
    outcome = fetch(world, place, {"StudyInstanceUID": "1.2.1"}, receiver)
    assert (outcome.status, outcome.completed) == (0, 40)
    assert {syntax for _, syntax in receiver.kept} == {"1.2.840.10008.1.2.4.112"}


def test_a_rare_class_is_found_where_the_peer_tells_no_classes_at_all(world: World) -> None:
    rare = "1.2.840.10008.5.1.4.1.1.9.2.1"  # hemodynamic waveform
    assert rare not in retrieval.COMMON_SOP_CLASSES
    held = [instance(1), instance(2, SOPClassUID=rare, Modality="HD")]

    class Taciturn(QueryRetrieveHandler):
        def find(self, request: Any) -> Any:
            for status, answer in super().find(request):
                for keyword in ("SOPClassesInStudy", "SOPClassUID"):
                    if keyword in answer:
                        delattr(answer, keyword)
                yield status, answer

    receiver = Keeping()
    place = serving(world, Taciturn(lambda: held))
    outcome = fetch(world, place, {"StudyInstanceUID": "1.2.1"}, receiver)
    assert (outcome.status, outcome.completed, outcome.failed) == (0, 2, 0)
    assert receiver.uids == ["1.2.1.1.1", "1.2.1.1.2"]


def test_what_the_receiver_refuses_is_not_asked_for_again(world: World) -> None:
    receiver = Keeping("1.2.1.1.2")
    place = archive(world)
    outcome = fetch(world, place, {"StudyInstanceUID": "1.2.1"}, receiver)
    assert (outcome.status, outcome.completed, outcome.failed) == (0xB000, 2, 1)
    assert outcome.failed_sop_instance_uids == ("1.2.1.1.2",)
    assert place.connections == 2


def test_the_outcome_of_several_associations_is_as_one_would_have_had_it(world: World) -> None:
    """An SR is fetched over a second one; what the receiver refused on the first stays failed."""
    receiver = Keeping("1.2.1.1.2")
    place = archive(world)
    outcome = fetch(world, place, {"StudyInstanceUID": "1.2.1"}, receiver, sop_classes=[CT])
    assert place.connections == 2
    assert receiver.uids == ["1.2.1.1.1", "1.2.1.2.1"]
    assert (outcome.status, outcome.completed, outcome.failed) == (0xB000, 2, 1)
    assert outcome.failed_sop_instance_uids == ("1.2.1.1.2",)


def test_roles_that_the_caller_asks_for_are_proposed(world: World) -> None:
    seen: list[tuple[bool, bool]] = []

    class Seeing(QueryRetrieveHandler):
        def get(self, request: Any) -> Any:
            found = request.association.accepted
            seen.extend((one.scu, one.scp) for one in found if one.abstract_syntax == CT)
            return super().get(request)

    place = serving(world, Seeing(lambda: ALL))
    keys = {"StudyInstanceUID": "1.2.2"}
    fetch(world, place, keys, Keeping(), sop_classes=[CT], roles={CT: "both"})
    assert set(seen) == {(True, True)}


def test_a_transfer_syntax_that_we_do_not_take_fails_and_is_named(world: World) -> None:
    held = many_classes(JPEG, 1)
    place = serving(world, AnyClass(lambda: held))
    with pytest.raises(StatusError, match=r"1\.2\.840\.99\.0") as failed:
        fetch(
            world,
            place,
            {"StudyInstanceUID": "1.2.1"},
            Keeping(),
            transfer_syntaxes=[EXPLICIT],
            sop_classes=["1.2.840.99.0"],
        )
    assert failed.value.status == 0xA702
    assert failed.value.outcome.failed_sop_instance_uids == ("1.2.1.1.0",)


def test_an_identifier_that_the_peer_refuses_fails_with_its_status(world: World) -> None:
    with pytest.raises(StatusError) as refused:
        fetch(world, archive(world), {"PatientID": "7"}, Keeping())
    assert refused.value.status == 0xA900


def test_the_common_sop_classes_leave_room_for_both_uncompressed_syntaxes() -> None:
    assert len(set(retrieval.COMMON_SOP_CLASSES)) == len(retrieval.COMMON_SOP_CLASSES)
    pairs = list(product(retrieval.TRANSFER_SYNTAXES[:2], retrieval.COMMON_SOP_CLASSES))
    assert len(pairs) <= 126
    assert len(set(retrieval.TRANSFER_SYNTAXES)) == len(retrieval.TRANSFER_SYNTAXES)


# --- C-MOVE


def moved_here(world: World, place: Place, here: Place, receiver: Keeping) -> Any:
    """The outcome for the first study."""
    keys = {"StudyInstanceUID": "1.2.1"}
    options = {"receive": here, "handler": receiver, "reactor": world.clock}
    return world.result(move(place.peer, keys, destination="ME", **options))


def test_a_move_with_a_receiver_of_its_own_needs_nothing_else(world: World) -> None:
    receiver, here = Keeping(), Place(world, "ME")
    place = archive(world, peers={"ME": here.peer})
    outcome = moved_here(world, place, here, receiver)
    assert (outcome.status, outcome.completed) == (0, 3)
    assert receiver.uids == ["1.2.1.1.1", "1.2.1.1.2", "1.2.1.2.1"]
    assert here.factory is None


def test_a_receiver_of_its_own_takes_what_was_asked_for_whatever_its_class(world: World) -> None:
    receiver, here = Keeping(), Place(world, "ME")
    private = instance(1, SOPClassUID="1.3.12.2.1107.5.9.1")
    place = archive(world, [private], peers={"ME": here.peer})
    assert moved_here(world, place, here, receiver).completed == 1
    assert receiver.uids == ["1.2.1.1.1"]


def test_the_calling_title_is_the_destination_if_none_is_named(world: World) -> None:
    receiver, here = Keeping(), Place(world, "ME")
    place = archive(world, peers={"ME": here.peer})
    keys = {"PatientID": "8"}
    moved = move(
        place.peer,
        keys,
        level="PATIENT",
        receive=here,
        handler=receiver,
        calling_ae_title="ME",
        reactor=world.clock,
    )
    assert world.result(moved).completed == 1


def test_an_unknown_destination_says_so_in_words_and_the_receiver_ends(world: World) -> None:
    here = Place(world, "ME")
    moved = move(
        archive(world).peer,
        {"StudyInstanceUID": "1.2.1"},
        destination="ME",
        receive=here,
        handler=Keeping(),
        reactor=world.clock,
    )
    with pytest.raises(StatusError, match="destination") as refused:
        world.result(moved)
    assert refused.value.status == 0xA801
    assert here.factory is None


def test_a_receiver_without_a_handler_makes_no_sense(world: World) -> None:
    moved = move(Peer("X", "x:1"), {"StudyInstanceUID": "1"}, receive=Place(world))
    with pytest.raises(ValueError, match="handler"):
        world.result(moved)


def test_a_peer_that_does_not_release_the_association_is_not_waited_for_long(world: World) -> None:
    here = Place(world, "ME")

    class Lingering(QueryRetrieveHandler):
        def move(self, request: Any) -> int:
            here.connect(_Idle())
            return 0

    moved = move(
        serving(world, Lingering(list)).peer,
        {"StudyInstanceUID": "1.2.1"},
        destination="ME",
        receive=here,
        handler=Keeping(),
        reactor=world.clock,
    )
    world.run()
    assert not moved.called
    world.advance(11)
    assert world.result(moved).status == 0


class _Idle:
    """Connects and says nothing."""

    def buildProtocol(self, _address: Any) -> Any:
        from twisted.internet.protocol import Protocol

        return Protocol()
