"""Storage commitment, both halves, between two of our own and under one clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from facts import facts
from hypothesis import given
from hypothesis import strategies as st
from memory import Serving, World, source
from places import Place, serving
from pydicom import Dataset
from twisted.internet.defer import Deferred

from twisted_dimse import (
    Association,
    AssociationTimeout,
    ConnectionLost,
    Handler,
    StatusError,
    Timeouts,
)
from twisted_dimse.datastream import decode_dataset, encode_dataset
from twisted_dimse.keys import as_dataset
from twisted_dimse.services import commitment, commitment_reports
from twisted_dimse.services.combined import CombinedHandler
from twisted_dimse.services.commitment import (
    CommitmentHandler,
    CommitmentOutcome,
    CommitmentReceiver,
    Reference,
    ReportOverdue,
    request_commitment,
)
from twisted_dimse.services.worklist import WorklistHandler
from twisted_dimse.uids import STORAGE_COMMITMENT_PUSH as PUSH
from twisted_dimse.uids import STORAGE_COMMITMENT_PUSH_INSTANCE as PUSH_INSTANCE

CT = "1.2.840.10008.5.1.4.1.1.2"
ONE, TWO, THREE = (Reference(CT, f"1.2.{number}") for number in (1, 2, 3))


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


class Keeper(CommitmentHandler):
    """Keeps the instances 1.2.1 and 1.2.2; answers when `ready` fires, if that is set."""

    def __init__(self, world: World, **options: Any) -> None:
        super().__init__(reactor=world.clock, **options)
        self.asked: list[tuple[Reference, ...]] = []
        self.gone: list[Any] = []
        self.ready: Deferred[Any] | None = None
        self.addresses: dict[str, Any] = {}

    def commit(self, request: Any, references: Any) -> Any:
        self.asked.append(references)
        reasons = {"1.2.1": None, "1.2.2": 0, "1.2.3": 0x0213}
        if self.ready is None:
            return reasons
        return self.ready.addCallback(lambda _: reasons)

    def resolve(self, ae_title: str) -> Any:
        return self.addresses.get(ae_title)

    def undelivered(self, report: Any, error: BaseException) -> None:
        self.gone.append(report)


def ask(world: World, place: Place, *instances: Any, **options: Any) -> Deferred[Any]:
    return request_commitment(
        place.peer, instances or [ONE], reactor=world.clock, calling_ae_title="MODALITY", **options
    )


# --- on the same association


def test_what_is_kept_and_what_is_not_is_reported_on_the_same_association(world: World) -> None:
    keeper = Keeper(world)
    place = serving(world, keeper)
    outcome = world.result(ask(world, place, ONE, TWO, THREE))
    assert outcome.committed == (ONE, TWO)
    assert outcome.failed == {THREE: 0x0213}
    assert not outcome.ok
    assert keeper.asked == [(ONE, TWO, THREE)]
    assert len(world.links) == 1
    assert len(world.lines("released after")) == 2


def test_the_report_may_take_its_time(world: World) -> None:
    keeper = Keeper(world)
    keeper.ready = Deferred()
    outcome = ask(world, serving(world, keeper), ONE)
    world.advance(30)
    assert not outcome.called
    keeper.ready.callback(None)
    assert world.result(outcome).ok


@pytest.mark.parametrize("timeouts", [None, 20, Timeouts(idle=20)], ids=str)
def test_a_silent_wait_for_the_report_is_as_long_as_was_asked_for(
    world: World, timeouts: Any
) -> None:
    keeper = Keeper(world)
    keeper.ready = Deferred()
    place = serving(world, keeper, timeouts=Timeouts(idle=None))
    outcome = ask(world, place, ONE, wait=2000, timeouts=timeouts)
    world.advance(1900)
    assert not outcome.called
    keeper.ready.callback(None)
    assert world.result(outcome).ok


def test_paths_datasets_sources_and_pairs_are_instances(world: World, tmp_path: Any) -> None:
    keeper = Keeper(world)
    dataset = as_dataset({"SOPClassUID": CT, "SOPInstanceUID": "1.2.1"})
    path = tmp_path / "two.dcm"
    dataset.SOPInstanceUID = "1.2.2"
    path.write_bytes(encode_dataset(dataset, "1.2.840.10008.1.2.1"))
    dataset.SOPInstanceUID = "1.2.1"
    world.result(ask(world, serving(world, keeper), dataset, path, source("1.2.3"), (CT, "1.2.4")))
    assert keeper.asked == [(ONE, TWO, THREE, Reference(CT, "1.2.4"))]


def test_what_the_keeper_does_not_mention_is_not_committed(world: World) -> None:
    other = Reference(CT, "1.2.9")
    outcome = world.result(ask(world, serving(world, Keeper(world)), ONE, other))
    assert (outcome.committed, outcome.failed) == ((ONE,), {other: 0x0112})


def test_a_keeper_that_fails_commits_to_nothing(world: World) -> None:
    class Broken(Keeper):
        def commit(self, request: Any, references: Any) -> Any:
            raise OSError("the disk is gone")

    outcome = world.result(ask(world, serving(world, Broken(world)), ONE, TWO))
    assert outcome.failed == {ONE: 0x0110, TWO: 0x0110}
    assert isinstance(world.logged(), OSError)


def test_without_a_report_in_time_the_transaction_is_named(world: World) -> None:
    keeper = Keeper(world)
    keeper.ready = Deferred()
    outcome = ask(world, serving(world, keeper), ONE, wait=20)
    world.advance(19)
    assert not outcome.called
    world.advance(2)
    with pytest.raises(ReportOverdue, match="within 20 s") as late:
        world.result(outcome)
    assert isinstance(late.value, AssociationTimeout)
    assert late.value.transaction_uid.startswith("2.25.")


def test_where_nobody_else_listens_the_end_of_the_association_is_the_end(world: World) -> None:
    keeper = Keeper(world)
    keeper.ready = Deferred()
    outcome = ask(world, serving(world, keeper), ONE)
    world.run()
    world.link.lose()
    with pytest.raises(ConnectionLost, match="no report can come"):
        world.result(outcome)


def test_a_refused_request_fails_with_its_status(world: World) -> None:
    place = serving(world, Serving(n_action=0x0213), "SERVER")
    place.factory.handler.contexts = (PUSH,)
    with pytest.raises(StatusError) as refused:
        world.result(ask(world, place, ONE))
    assert refused.value.status == 0x0213


def test_nothing_cannot_be_committed(world: World) -> None:
    with pytest.raises(ValueError):
        world.result(request_commitment("A@b:1", [], reactor=world.clock))


def test_a_report_that_overtakes_the_response_is_taken(world: World) -> None:
    class Hasty(Handler):
        contexts = (PUSH,)

        async def n_action(self, request: Any) -> int:
            transaction = str(request.dataset.TransactionUID)
            report = CommitmentOutcome(transaction, (ONE,)).to_dataset()
            await request.association.n_event_report(PUSH, PUSH_INSTANCE, 1, report)
            return 0

    assert world.result(ask(world, serving(world, Hasty()), ONE)).ok


# --- on a new association


class Gone(Keeper):
    """Is still at work when the association of the request has ended."""

    def __init__(self, world: World, **options: Any) -> None:
        super().__init__(world, **options)
        self.ready = Deferred()


def request(world: World, place: Place, *instances: Reference, transaction: str = "1.2.99") -> int:
    """A request on an association that is released at once; the status of its response."""
    association = world.result(
        world.connect(place.peer, contexts=[PUSH], calling_ae_title="MODALITY")
    )
    keys = CommitmentOutcome(transaction, instances or (ONE,)).to_dataset()
    response = world.result(association.n_action(PUSH, PUSH_INSTANCE, 1, keys))
    world.result(association.release())
    return int(response.status)


def test_a_report_comes_on_a_new_association_where_the_first_has_ended(world: World) -> None:
    keeper = Gone(world)
    reports: list[Any] = []
    receiver = CommitmentReceiver(lambda outcome, request: reports.append((outcome, request)))
    keeper.addresses["MODALITY"] = serving(world, receiver, "MODALITY").peer
    place = serving(world, keeper)
    assert request(world, place, ONE, THREE) == 0
    keeper.ready.callback(None)
    world.run()
    ((outcome, came),) = reports
    assert (outcome.transaction_uid, outcome.committed) == ("1.2.99", (ONE,))
    assert outcome.failed == {THREE: 0x0213}
    assert came.event_type == 2
    association: Association = came.association
    assert (association.calling_ae_title, association.called_ae_title) == ("SERVER", "MODALITY")
    (context,) = association.agreement.contexts.values()
    assert (context.scu, context.scp) == (True, False)
    assert not keeper.reporter.waiting


def test_an_endpoint_of_its_own_takes_the_report_for_as_long_as_it_takes(world: World) -> None:
    here = Place(world, "MODALITY")

    class Elsewhere(Keeper):
        def n_action(self, request: Any) -> Any:
            status = super().n_action(request)
            world.clock.callLater(0, request.association.abort)
            return status

    keeper = Elsewhere(world)
    keeper.addresses["MODALITY"] = here.peer
    outcome = world.result(ask(world, serving(world, keeper), ONE, receive=here))
    assert outcome.ok
    assert here.connections == 1
    assert here.factory is None


def test_a_receiver_that_serves_already_takes_the_report(world: World) -> None:
    receiver = CommitmentReceiver()
    handler = CombinedHandler(WorklistHandler(list), receiver)
    here = serving(world, handler, "MODALITY")
    keeper = Gone(world)
    keeper.addresses["MODALITY"] = here.peer
    place = serving(world, keeper)
    outcome = ask(world, place, ONE, receive=receiver)
    world.run()
    world.links[0].lose()
    world.run()
    keeper.ready.callback(None)
    assert world.result(outcome).ok
    assert here.factory is not None


def test_a_requestor_that_refuses_reports_on_its_association_gets_them_on_another(
    world: World,
) -> None:
    keeper = Keeper(world)
    reports: list[Any] = []
    receiver = CommitmentReceiver(lambda outcome, request: reports.append(outcome))
    keeper.addresses["MODALITY"] = serving(world, receiver, "MODALITY").peer
    association = world.result(
        world.connect(
            serving(world, keeper).peer,
            contexts=[PUSH],
            calling_ae_title="MODALITY",
            handler=Serving(n_event_report=0x0211),
        )
    )
    keys = CommitmentOutcome("1.2.99", (ONE,)).to_dataset()
    world.result(association.n_action(PUSH, PUSH_INSTANCE, 1, keys))
    assert [outcome.committed for outcome in reports] == [(ONE,)]
    world.result(association.release())


# --- trying again


def test_a_report_that_cannot_be_delivered_is_tried_again_with_growing_delays(
    world: World,
) -> None:
    keeper = Gone(world, delays=(1, 10, 100))
    here = Place(world, "MODALITY")
    reports: list[Any] = []
    keeper.addresses["MODALITY"] = here.peer
    place = serving(world, keeper)
    request(world, place)
    keeper.ready.callback(None)
    world.run()
    (waiting,) = keeper.reporter.waiting
    assert waiting.outcome.transaction_uid == "1.2.99"
    world.advance(1)
    world.advance(9.5)
    assert keeper.reporter.waiting
    here.listen(
        serving(
            world, CommitmentReceiver(lambda outcome, _: reports.append(outcome)), "MODALITY"
        ).factory
    )
    world.advance(1)
    assert [outcome.committed for outcome in reports] == [(ONE,)]
    assert not keeper.reporter.waiting
    assert not keeper.gone
    assert len(world.lines("again in")) == 2


def test_it_is_given_up_in_the_end(world: World) -> None:
    keeper = Gone(world, delays=(1, 10))
    place = serving(world, keeper)
    request(world, place)
    keeper.ready.callback(None)
    world.advance(20)
    (report,) = keeper.gone
    assert (report.sender, report.receiver) == ("SERVER", "MODALITY")
    assert report.outcome.committed == (ONE,)
    assert not keeper.reporter.waiting
    assert world.lines("given up")


def test_a_refused_report_is_tried_again(world: World) -> None:
    keeper = Gone(world, delays=(1,))
    keeper.addresses["MODALITY"] = serving(world, CommitmentReceiver(), "MODALITY").peer
    place = serving(world, keeper)
    request(world, place)
    keeper.ready.callback(None)
    world.run()
    assert keeper.reporter.waiting
    world.advance(2)
    assert len(keeper.gone) == 1


def test_at_the_end_of_the_program_no_timer_is_left(world: World) -> None:
    keeper = Gone(world, delays=(1, 10))
    place = serving(world, keeper)
    request(world, place)
    keeper.ready.callback(None)
    world.run()
    (report,) = keeper.reporter.stop()
    assert report.outcome.transaction_uid == "1.2.99"
    world.advance(60)
    assert not keeper.gone


class Careful(Gone):
    """Keeps a report until it is delivered."""

    def __init__(self, world: World, **options: Any) -> None:
        super().__init__(world, **options)
        self.kept: list[str] = []
        self.saved: Deferred[None] = Deferred()

    def decided(self, report: Any) -> Any:
        self.kept.append(report.outcome.transaction_uid)
        return self.saved

    def delivered(self, report: Any) -> None:
        self.kept.remove(report.outcome.transaction_uid)


def test_a_report_can_be_kept_from_before_it_goes_out_until_it_is_delivered(world: World) -> None:
    keeper = Careful(world, delays=(1, 10))
    here = Place(world, "MODALITY")
    keeper.addresses["MODALITY"] = here.peer
    request(world, serving(world, keeper))
    keeper.ready.callback(None)
    world.run()
    assert (keeper.kept, keeper.reporter.waiting) == (["1.2.99"], ())
    keeper.saved.callback(None)
    world.run()
    assert keeper.reporter.waiting
    reports: list[Any] = []
    receiver = CommitmentReceiver(lambda outcome, _: reports.append(outcome))
    here.listen(serving(world, receiver, "MODALITY").factory)
    world.advance(2)
    assert (len(reports), keeper.kept) == (1, [])


def test_a_report_that_cannot_be_kept_goes_out_all_the_same(world: World) -> None:
    keeper = Careful(world)
    keeper.saved = None  # type: ignore[assignment]
    keeper.decided = lambda report: 1 / 0  # type: ignore[assignment]
    keeper.delivered = keeper.gone.append  # type: ignore[method-assign]
    receiver = CommitmentReceiver(lambda outcome, _: None)
    keeper.addresses["MODALITY"] = serving(world, receiver, "MODALITY").peer
    request(world, serving(world, keeper))
    keeper.ready.callback(None)
    world.run()
    assert len(keeper.gone) == 1
    assert isinstance(world.logged(), ZeroDivisionError)


def test_the_report_on_a_duplicate_says_nothing_of_the_one_that_is_kept(world: World) -> None:
    keeper = Careful(world)
    receiver = CommitmentReceiver(lambda outcome, _: None)
    keeper.addresses["MODALITY"] = serving(world, receiver, "MODALITY").peer
    place = serving(world, keeper)
    request(world, place)
    keeper.ready.callback(None)
    world.run()
    request(world, place)
    assert keeper.kept == ["1.2.99"]
    keeper.saved.callback(None)
    world.run()
    assert keeper.kept == []


class Noting(Gone):
    """Notes a request before it is answered."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.noted: list[tuple[str, Any]] = []
        self.saved: Deferred[None] = Deferred()

    def requested(self, request: Any, transaction_uid: str, references: Any) -> Any:
        self.noted.append((transaction_uid, references))
        return self.saved


def test_a_request_can_be_noted_before_it_is_answered(world: World) -> None:
    keeper = Noting(world)
    place = serving(world, keeper)
    association = world.result(world.connect(place.peer, contexts=[PUSH]))
    keys = CommitmentOutcome("1.2.99", (ONE, THREE)).to_dataset()
    answer = association.n_action(PUSH, PUSH_INSTANCE, 1, keys)
    world.run()
    assert (keeper.noted, answer.called, keeper.asked) == ([("1.2.99", (ONE, THREE))], False, [])
    keeper.saved.callback(None)
    assert world.result(answer).status == 0
    assert keeper.asked == [(ONE, THREE)]
    world.result(association.release())


def test_a_request_that_cannot_be_noted_is_refused_and_can_be_sent_again(world: World) -> None:
    keeper = Noting(world)
    place = serving(world, keeper)
    keeper.saved.errback(StatusError(0x0213))
    with pytest.raises(StatusError) as refused:
        request(world, place)
    assert refused.value.status == 0x0213
    assert keeper.asked == []
    keeper.saved = Deferred()
    keeper.saved.callback(None)
    assert request(world, place) == 0
    assert keeper.asked == [(ONE,)]


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"action_type": 2}, 0x0123),
        ({"instance_uid": "1.2.3"}, 0x0112),
        ({"class_uid": "1.2.840.10008.1.20.2"}, 0x0118),
        ({"keys": None}, 0x0115),
        ({"keys": {}}, 0x0115),
        ({"keys": {"TransactionUID": "1.2.99"}}, 0x0115),
        ({"keys": {"TransactionUID": "1.2.99", "ReferencedSOPSequence": []}}, 0x0115),
        ({"keys": {"TransactionUID": "not a UID", "ReferencedSOPSequence": [{}]}}, 0x0115),
        ({"keys": {"TransactionUID": "1.2.99", "ReferencedSOPSequence": [{}]}}, 0x0115),
        (
            {
                "keys": {
                    "TransactionUID": "1.2.99",
                    "ReferencedSOPSequence": [{"ReferencedSOPInstanceUID": "1.2.3"}],
                }
            },
            0x0115,
        ),
    ],
    ids=repr,
)
def test_a_request_that_is_none_is_refused(
    world: World, changes: dict[str, Any], status: int
) -> None:
    keeper = Keeper(world)
    association = world.result(world.connect(serving(world, keeper).peer, contexts=[PUSH]))
    arguments = {
        "class_uid": PUSH,
        "instance_uid": PUSH_INSTANCE,
        "action_type": 1,
        "keys": CommitmentOutcome("1.2.99", (ONE,)).to_dataset(),
        **changes,
    }
    keys = arguments.pop("keys")
    response = world.result(
        association.n_action(*arguments.values(), keys, context=PUSH, check=False)
    )
    assert response.status == status
    assert not keeper.asked
    world.result(association.release())


def test_a_transaction_in_progress_is_not_begun_twice(world: World) -> None:
    keeper = Gone(world)
    reports: list[CommitmentOutcome] = []
    receiver = CommitmentReceiver(lambda outcome, _: reports.append(outcome))
    keeper.addresses["MODALITY"] = serving(world, receiver, "MODALITY").peer
    place = serving(world, keeper)
    request(world, place, ONE)
    request(world, place, ONE)
    assert [report.failed for report in reports] == [{ONE: 0x0131}]
    keeper.ready.callback(None)
    world.run()
    assert [report.ok for report in reports] == [False, True]
    assert len(keeper.asked) == 1
    request(world, place, ONE)
    assert len(keeper.asked) == 2


@pytest.mark.parametrize(
    ("event_type", "transaction", "status"),
    [(3, "1.2.99", 0x0113), (1, "", 0x0115), (1, "1.2.99", 0x0110)],
)
def test_a_report_that_is_none_or_that_nobody_expects_is_refused(
    world: World, event_type: int, transaction: str, status: int
) -> None:
    place = serving(world, CommitmentReceiver())
    association = world.result(world.connect(place.peer, contexts=[PUSH], roles={PUSH: "scp"}))
    report = CommitmentOutcome(transaction, (ONE,)).to_dataset()
    response = world.result(
        association.n_event_report(PUSH, PUSH_INSTANCE, event_type, report, check=False)
    )
    assert response.status == status
    world.result(association.release())


def test_a_report_that_comes_once_more_is_answered_once_more(world: World) -> None:
    receiver = CommitmentReceiver()
    place = serving(world, receiver)
    expected = receiver.expect("1.2.99")
    association = world.result(world.connect(place.peer, contexts=[PUSH], roles={PUSH: "scp"}))
    report = CommitmentOutcome("1.2.99", (ONE,)).to_dataset()
    for _ in range(2):
        assert world.result(association.n_event_report(PUSH, PUSH_INSTANCE, 1, report)).status == 0
    assert world.result(expected).committed == (ONE,)
    world.result(association.release())


# --- outcomes

REFERENCES = st.lists(
    st.builds(Reference, st.just(CT), st.integers(1, 9).map(lambda n: f"1.2.{n}")),
    unique=True,
    max_size=6,
)


@given(REFERENCES, st.data())
def test_an_outcome_goes_there_and_back(references: list[Reference], data: Any) -> None:
    kept = data.draw(st.lists(st.sampled_from(references), unique=True)) if references else []
    reasons = {
        each: data.draw(st.sampled_from(sorted(commitment.FAILURE_REASONS)))
        for each in references
        if each not in kept
    }
    outcome = CommitmentOutcome("1.2.99", tuple(kept), reasons)
    syntax = "1.2.840.10008.1.2"
    sent = decode_dataset(encode_dataset(outcome.to_dataset(), syntax), syntax)
    assert CommitmentOutcome.from_dataset(sent) == outcome
    assert outcome.event_type == (2 if reasons else 1)


@given(REFERENCES, REFERENCES, REFERENCES)
def test_only_what_was_said_to_be_kept_and_never_to_have_failed_is_kept(
    asked: list[Reference], committed: list[Reference], failed: list[Reference]
) -> None:
    report = CommitmentOutcome("1.2", tuple(committed), dict.fromkeys(failed, 0x0112))
    outcome = report.of(asked)
    assert {*outcome.committed, *outcome.failed} == set(asked)
    assert set(outcome.committed) == (set(asked) & set(committed)) - set(failed)


def test_failure_reasons_are_those_of_the_standard() -> None:
    (row,) = (
        row
        for row in facts("statuses")["service_classes"]
        if row["service_class"] == "Storage Commitment Push Model"
    )
    known = {int(each["code"], 16): each["meaning"] for each in row["failure_reasons"]}
    assert commitment.FAILURE_REASONS.keys() == known.keys()


def test_a_failure_without_a_reason_has_failed_all_the_same() -> None:
    report = Dataset()
    report.TransactionUID = "1.2.99"
    report.FailedSOPSequence = [commitment_reports._item(ONE)]
    assert CommitmentOutcome.from_dataset(report).failed == {ONE: 0x0110}
