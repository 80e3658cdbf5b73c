"""All eleven services with pynetdicom, in both roles, and the service classes on them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import peers
import pytest
import studies
from loop import Loop
from pydicom import Dataset

from twisted_dimse import (
    PATIENT_ROOT,
    STUDY_ROOT,
    VERIFICATION,
    Handler,
    Peer,
    connect,
    move,
    query,
    retrieve,
)
from twisted_dimse.keys import as_dataset
from twisted_dimse.services import procedure_step
from twisted_dimse.services.combined import CombinedHandler
from twisted_dimse.services.commitment import (
    CommitmentHandler,
    Reference,
    request_commitment,
)
from twisted_dimse.services.managed import (
    FILM_SESSION,
    PRINTER,
    PRINTER_INSTANCE,
    PROCEDURE_STEP,
    UPS_PULL,
    UPS_PUSH,
    ManagedHandler,
    ManagedInstance,
)
from twisted_dimse.services.procedure_step import ProcedureStepHandler
from twisted_dimse.services.query_retrieve import QueryRetrieveHandler
from twisted_dimse.services.worklist import WorklistHandler, worklist
from twisted_dimse.uids import (
    MODALITY_WORKLIST_FIND,
    STORAGE_COMMITMENT_PUSH,
    STORAGE_COMMITMENT_PUSH_INSTANCE,
)

if find_spec("pynetdicom") is None:
    peers.absent("pynetdicom")

from pynetdicom import AE, build_context, build_role, evt

pytestmark = pytest.mark.interop

GRAYSCALE_PRINT = "1.2.840.10008.5.1.1.9"
STUDY = f"{studies.ROOT}.1"
ONE, OTHER = Reference(studies.CT, "1.2.1"), Reference(studies.CT, "1.2.9")
SECONDS = 60


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with Loop() as made:
        yield made


# --- pynetdicom asks us


class Printing(ManagedHandler):
    def action(self, request: Any, instance: ManagedInstance) -> Any:
        return 0, as_dataset({"PrinterName": f"action {request.action_type}"})

    def event(self, request: Any) -> Any:
        return 0, as_dataset({"PrinterName": f"event {request.event_type}"})


class Storing(Handler):
    def __init__(self) -> None:
        self.stored: list[str] = []

    def store(self, request: Any, dataset: Dataset | None) -> int:
        self.stored.append(request.sop_instance_uid)
        return 0


class Keeper(CommitmentHandler):
    def commit(self, request: Any, references: Any) -> Any:
        return {ONE.sop_instance_uid: 0}


def scheduled(number: int) -> Dataset:
    step = {"Modality": "CT", "ScheduledProcedureStepStartDate": "20240110"}
    made: Dataset = as_dataset(
        {"PatientID": f"W{number}", "ScheduledProcedureStepSequence": [step]}
    )
    return made


class Ours:
    """A server of ours for everything."""

    def __init__(self, loop: Loop) -> None:
        held = studies.instances()
        self.storing = Storing()
        self.destination = peers.free_port()
        self.reports = peers.free_port()
        printer = ManagedInstance(PRINTER, as_dataset({"PrinterStatus": "NORMAL"}))
        classes = (GRAYSCALE_PRINT, UPS_PUSH, UPS_PULL)
        self.managed = Printing(classes, {PRINTER_INSTANCE: printer})
        self.steps = ProcedureStepHandler()
        handler = CombinedHandler(
            self.storing,
            QueryRetrieveHandler(lambda: held),
            WorklistHandler(lambda: [scheduled(1), scheduled(2)]),
            Keeper(reactor=loop.reactor),
            self.steps,
            self.managed,
        )
        self.port = loop.listen(
            handler,
            peers={
                "DESTINATION": Peer("DESTINATION", f"127.0.0.1:{self.destination}"),
                "REPORTS": Peer("REPORTS", f"127.0.0.1:{self.reports}"),
            },
        )


@pytest.fixture(scope="module")
def ours(loop: Loop) -> Ours:
    return Ours(loop)


class Asking:
    """An association of pynetdicom's with a server of ours."""

    def __init__(
        self, port: int, *contexts: str, title: str = "PYNETDICOM", **options: Any
    ) -> None:
        self.ae = AE(ae_title=title)
        self.ae.dimse_timeout = self.ae.acse_timeout = SECONDS
        for uid in contexts:
            self.ae.add_requested_context(uid)
        self.association = self.ae.associate("127.0.0.1", port, **options)
        assert self.association.is_established

    def __enter__(self) -> Any:
        return self.association

    def __exit__(self, *_: object) -> None:
        self.association.release()


def test_it_echoes_and_stores(ours: Ours) -> None:
    image = studies.instances()[0]
    with Asking(ours.port, VERIFICATION, studies.CT) as association:
        assert association.send_c_echo().Status == 0
        assert association.send_c_store(image).Status == 0
    assert str(image.SOPInstanceUID) in ours.storing.stored


def test_it_finds_at_every_level(ours: Ours) -> None:
    with Asking(ours.port, PATIENT_ROOT.find, STUDY_ROOT.find) as association:
        for model, level, keys, unique in (
            (PATIENT_ROOT, "PATIENT", {}, "PatientID"),
            (STUDY_ROOT, "STUDY", {}, "StudyInstanceUID"),
            (STUDY_ROOT, "SERIES", {"StudyInstanceUID": STUDY}, "SeriesInstanceUID"),
        ):
            asked = as_dataset({"QueryRetrieveLevel": level, unique: "", **keys})
            answers = list(association.send_c_find(asked, model.find))
            assert answers[-1][0].Status == 0
            found = [identifier for status, identifier in answers[:-1]]
            under = keys.get("StudyInstanceUID")
            expected = studies.uids(unique, lambda e, u=under: u in (None, e.StudyInstanceUID))
            assert studies.of(found, unique) == expected


def test_it_cancels_what_it_asked(loop: Loop) -> None:
    taken: list[int] = []

    class Endless(QueryRetrieveHandler):
        def find(self, request: Any) -> Iterator[Dataset]:
            for number in range(1_000_000):
                taken.append(number)
                yield as_dataset({"StudyInstanceUID": f"1.2.{number}"})

    port = loop.listen(Endless(list))
    with Asking(port, STUDY_ROOT.find) as association:
        asked = as_dataset({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""})
        statuses = []
        for status, _ in association.send_c_find(asked, STUDY_ROOT.find, msg_id=7):
            statuses.append(status.Status)
            if len(statuses) == 3:
                association.send_c_cancel(7, query_model=STUDY_ROOT.find)
    assert statuses[-1] == 0xFE00
    assert len(taken) < 1_000_000


def test_it_reads_the_worklist(ours: Ours) -> None:
    with Asking(ours.port, MODALITY_WORKLIST_FIND) as association:
        keys = {"PatientID": "W2", "ScheduledProcedureStepSequence": [{"Modality": ""}]}
        answers = list(association.send_c_find(as_dataset(keys), MODALITY_WORKLIST_FIND))
    assert [status.Status for status, _ in answers] == [0xFF00, 0]
    assert answers[0][1].ScheduledProcedureStepSequence[0].Modality == "CT"


def test_it_gets(ours: Ours) -> None:
    stored: list[str] = []
    handlers = [(evt.EVT_C_STORE, lambda event: _kept(event, stored))]
    roles = [build_role(uid, scp_role=True) for uid in (studies.CT, studies.SC)]
    contexts = (STUDY_ROOT.get, studies.CT, studies.SC)
    with Asking(ours.port, *contexts, ext_neg=roles, evt_handlers=handlers) as association:
        keys = as_dataset({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY})
        answers = list(association.send_c_get(keys, STUDY_ROOT.get))
    assert [status.Status for status, _ in answers] == [0xFF00] * 4 + [0]
    assert sorted(stored) == studies.uids("SOPInstanceUID", lambda e: e.PatientID == "P1")


def _kept(event: Any, stored: list[str]) -> int:
    stored.append(str(event.request.AffectedSOPInstanceUID))
    return 0


def serving(
    port: int, handlers: Any, *contexts: str, title: str = "PYNETDICOM", **roles: Any
) -> Any:
    """A server of pynetdicom's, in a thread of its own."""
    ae = AE(ae_title=title)
    ae.dimse_timeout = ae.acse_timeout = SECONDS
    for uid in contexts:
        ae.add_supported_context(uid, **roles)
    return ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)


def test_it_moves(ours: Ours) -> None:
    stored: list[str] = []
    handlers = [(evt.EVT_C_STORE, lambda event: _kept(event, stored))]
    server = serving(ours.destination, handlers, studies.CT, studies.SC)
    try:
        with Asking(ours.port, STUDY_ROOT.move) as association:
            keys = as_dataset({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY})
            answers = list(association.send_c_move(keys, "DESTINATION", STUDY_ROOT.move))
    finally:
        server.shutdown()
    assert answers[-1][0].Status == 0
    assert answers[-1][0].NumberOfCompletedSuboperations == 4
    assert sorted(stored) == studies.uids("SOPInstanceUID", lambda e: e.PatientID == "P1")


def test_it_creates_sets_gets_acts_and_deletes(ours: Ours) -> None:
    with Asking(ours.port, GRAYSCALE_PRINT) as association:
        meta = {"meta_uid": GRAYSCALE_PRINT}
        film = as_dataset({"NumberOfCopies": "1"})
        status, _ = association.send_n_create(film, FILM_SESSION, "1.2.3", **meta)
        assert status.Status == 0
        film.NumberOfCopies = 2
        status, _ = association.send_n_set(film, FILM_SESSION, "1.2.3", **meta)
        assert status.Status == 0
        status, read = association.send_n_get([0x20000010], FILM_SESSION, "1.2.3", **meta)
        assert (status.Status, read.NumberOfCopies) == (0, 2)
        status, reply = association.send_n_action(film, 1, FILM_SESSION, "1.2.3", **meta)
        assert (status.Status, reply.PrinterName) == (0, "action 1")
        status = association.send_n_delete(FILM_SESSION, "1.2.3", **meta)
        assert status.Status == 0
        status, _ = association.send_n_get([], FILM_SESSION, "1.2.3", **meta)
        assert status.Status == 0x0112


def test_it_reads_the_printer_and_reports_events(ours: Ours) -> None:
    with Asking(ours.port, GRAYSCALE_PRINT) as association:
        meta = {"meta_uid": GRAYSCALE_PRINT}
        status, read = association.send_n_get([0x21100010], PRINTER, PRINTER_INSTANCE, **meta)
        assert (status.Status, read.PrinterStatus) == (0, "NORMAL")
        status, reply = association.send_n_event_report(
            as_dataset({"PrinterStatus": "WARNING"}), 2, PRINTER, PRINTER_INSTANCE, **meta
        )
        assert (status.Status, reply.PrinterName) == (0, "event 2")


def test_it_uses_unified_procedure_steps_by_their_classes(ours: Ours) -> None:
    with Asking(ours.port, UPS_PUSH, UPS_PULL) as association:
        step = as_dataset({"ProcedureStepState": "SCHEDULED", "ProcedureStepLabel": "Fusion"})
        status, _ = association.send_n_create(step, UPS_PUSH, "1.2.7")
        assert status.Status == 0
        status, read = association.send_n_get([], UPS_PUSH, "1.2.7", meta_uid=UPS_PULL)
        assert read.ProcedureStepLabel == "Fusion"
        keys = as_dataset({"ProcedureStepLabel": "Fus*", "SOPInstanceUID": ""})
        answers = list(association.send_c_find(keys, UPS_PULL))
        assert answers[0][1].SOPInstanceUID == "1.2.7"


STEP = {
    "ScheduledStepAttributesSequence": [{"StudyInstanceUID": "1.2.3"}],
    "PerformedProcedureStepID": "P1",
    "PerformedStationAETitle": "CT1",
    "PerformedProcedureStepStartDate": "20240229",
    "PerformedProcedureStepStartTime": "1030",
    "PerformedProcedureStepStatus": "IN PROGRESS",
    "Modality": "CT",
}


def test_it_performs_a_procedure_step(ours: Ours) -> None:
    with Asking(ours.port, PROCEDURE_STEP) as association:
        status, _ = association.send_n_create(as_dataset(STEP), PROCEDURE_STEP, "1.2.8")
        assert status.Status == 0
        end = {
            "PerformedProcedureStepStatus": "COMPLETED",
            "PerformedProcedureStepEndDate": "20240229",
            "PerformedProcedureStepEndTime": "1100",
            "PerformedSeriesSequence": [{"SeriesInstanceUID": "1.2.3.4"}],
        }
        status, _ = association.send_n_set(as_dataset(end), PROCEDURE_STEP, "1.2.8")
        assert status.Status == 0
        status, _ = association.send_n_set(as_dataset(end), PROCEDURE_STEP, "1.2.8")
        assert (status.Status, status.ErrorID) == (0x0110, 0xA710)


class Reports:
    """Takes a storage commitment report in a thread of pynetdicom's."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.event_type = 0
        self.report = Dataset()
        self.handlers = [(evt.EVT_N_EVENT_REPORT, self._take)]

    def _take(self, event: Any) -> Any:
        self.event_type, self.report = event.event_type, event.event_information
        self.came.set()
        return 0, None

    def check(self, transaction: str) -> None:
        assert self.came.wait(SECONDS)
        assert (self.event_type, self.report.TransactionUID) == (2, transaction)
        (kept,) = self.report.ReferencedSOPSequence
        (failed,) = self.report.FailedSOPSequence
        assert kept.ReferencedSOPInstanceUID == ONE.sop_instance_uid
        assert failed.ReferencedSOPInstanceUID == OTHER.sop_instance_uid
        assert failed.FailureReason == 0x0112


def commitment_request(transaction: str) -> Dataset:
    references = [
        {
            "ReferencedSOPClassUID": each.sop_class_uid,
            "ReferencedSOPInstanceUID": each.sop_instance_uid,
        }
        for each in (ONE, OTHER)
    ]
    made: Dataset = as_dataset({"TransactionUID": transaction, "ReferencedSOPSequence": references})
    return made


def test_it_asks_for_commitment_and_gets_the_report_on_the_same_association(ours: Ours) -> None:
    reports = Reports()
    with Asking(ours.port, STORAGE_COMMITMENT_PUSH, evt_handlers=reports.handlers) as association:
        status, _ = association.send_n_action(
            commitment_request("1.2.77.1"),
            1,
            STORAGE_COMMITMENT_PUSH,
            STORAGE_COMMITMENT_PUSH_INSTANCE,
        )
        assert status.Status == 0
        reports.check("1.2.77.1")


def test_it_asks_for_commitment_and_gets_the_report_on_a_new_association(
    ours: Ours, loop: Loop
) -> None:
    reports = Reports()
    server = serving(
        ours.reports, reports.handlers, STORAGE_COMMITMENT_PUSH, scu_role=False, scp_role=True
    )
    try:
        with Asking(ours.port, STORAGE_COMMITMENT_PUSH, title="REPORTS") as association:
            association.send_n_action(
                commitment_request("1.2.77.2"),
                1,
                STORAGE_COMMITMENT_PUSH,
                STORAGE_COMMITMENT_PUSH_INSTANCE,
            )
        reports.check("1.2.77.2")
    finally:
        server.shutdown()


# --- we ask pynetdicom


class Theirs:
    """A server of pynetdicom's for all eleven services."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.instances = studies.instances()
        self.stored: list[str] = []
        self.kept: dict[str, Dataset] = {}
        self.events: list[int] = []
        self.cancelled = threading.Event()
        self.later: list[threading.Thread] = []
        self.report_elsewhere = 0
        self.port, self.destination = peers.free_port(), peers.free_port()
        self.peer = f"PYNETDICOM@127.0.0.1:{self.port}"
        ae = AE(ae_title="PYNETDICOM")
        ae.dimse_timeout = ae.acse_timeout = SECONDS
        for uid in (
            *(VERIFICATION, *STUDY_ROOT[1:], *PATIENT_ROOT[1:], MODALITY_WORKLIST_FIND),
            *(GRAYSCALE_PRINT, PROCEDURE_STEP, UPS_PUSH, STORAGE_COMMITMENT_PUSH),
        ):
            ae.add_supported_context(uid)
        for uid in (studies.CT, studies.MR, studies.SC):
            ae.add_supported_context(uid, scu_role=True, scp_role=True)
        handlers: list[Any] = [
            (getattr(evt, f"EVT_{name.upper()}"), getattr(self, name))
            for name in (
                *("c_echo", "c_store", "c_find", "c_get", "c_move", "n_event_report", "n_get"),
                *("n_set", "n_action", "n_create", "n_delete"),
            )
        ]
        self.server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def close(self) -> None:
        for thread in self.later:
            thread.join(SECONDS)
        self.server.shutdown()

    def c_echo(self, event: Any) -> int:
        return 0

    def c_store(self, event: Any) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    def c_find(self, event: Any) -> Iterator[Any]:
        keys = event.identifier
        if keys.get("PatientID") == "ENDLESS":
            yield from self._endless(event)
            return
        unique = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID"}
        level = keys.get("QueryRetrieveLevel")
        if level is None:
            yield 0xFF00, scheduled(1)
            return
        name = unique.get(level, "SOPInstanceUID")
        study = keys.get("StudyInstanceUID")
        seen = set()
        for each in self.instances:
            if (not study or each.StudyInstanceUID == study) and each[name].value not in seen:
                seen.add(each[name].value)
                answer = Dataset()
                answer.QueryRetrieveLevel = level
                setattr(answer, name, each[name].value)
                if level == "IMAGE":
                    answer.SOPClassUID = each.SOPClassUID
                yield 0xFF00, answer

    def _endless(self, event: Any) -> Iterator[Any]:
        while not event.is_cancelled:
            yield 0xFF00, as_dataset({"StudyInstanceUID": "1.2.3"})
        self.cancelled.set()
        yield 0xFE00, None

    def _wanted(self, event: Any) -> list[Any]:
        return [
            each
            for each in self.instances
            if each.StudyInstanceUID == event.identifier.StudyInstanceUID
        ]

    def c_get(self, event: Any) -> Iterator[Any]:
        found = self._wanted(event)
        yield len(found)
        for each in found:
            yield 0xFF00, each

    def c_move(self, event: Any) -> Iterator[Any]:
        if event.move_destination != "OURS":
            yield None, None
            return
        classes = {str(each.SOPClassUID) for each in self._wanted(event)}
        contexts = [build_context(uid) for uid in classes]
        yield "127.0.0.1", self.destination, {"contexts": contexts}
        yield from self.c_get(event)

    def n_event_report(self, event: Any) -> Any:
        self.events.append(event.event_type)
        return 0, None

    def n_create(self, event: Any) -> Any:
        self.kept[str(event.request.AffectedSOPInstanceUID)] = event.attribute_list
        return 0, event.attribute_list

    def n_get(self, event: Any) -> Any:
        kept = self.kept.get(str(event.request.RequestedSOPInstanceUID))
        return (0x0112, None) if kept is None else (0, kept)

    def n_set(self, event: Any) -> Any:
        kept = self.kept[str(event.request.RequestedSOPInstanceUID)]
        kept.update(event.modification_list)
        return 0, kept

    def n_delete(self, event: Any) -> int:
        return 0 if self.kept.pop(str(event.request.RequestedSOPInstanceUID), None) else 0x0112

    def n_action(self, event: Any) -> Any:
        if event.request.RequestedSOPClassUID != STORAGE_COMMITMENT_PUSH:
            return 0, as_dataset({"PrinterName": f"action {event.action_type}"})
        thread = threading.Thread(target=self._report, args=(event, event.action_information))
        self.later.append(thread)
        thread.start()
        return 0, None

    def _report(self, event: Any, asked: Dataset) -> None:
        report = as_dataset({"TransactionUID": str(asked.TransactionUID)})
        kept, *failed = asked.ReferencedSOPSequence
        for each in failed:
            each.FailureReason = 0x0213
        report.ReferencedSOPSequence, report.FailedSOPSequence = [kept], failed
        if not self.report_elsewhere:
            self._send(event.assoc, report)
            return
        ae = AE(ae_title="PYNETDICOM")
        ae.add_requested_context(STORAGE_COMMITMENT_PUSH)
        role = build_role(STORAGE_COMMITMENT_PUSH, scp_role=True)
        association = ae.associate(
            "127.0.0.1", self.report_elsewhere, ae_title="OURS", ext_neg=[role]
        )
        self._send(association, report)
        association.release()

    def _send(self, association: Any, report: Dataset) -> None:
        association.send_n_event_report(
            report, 2, STORAGE_COMMITMENT_PUSH, STORAGE_COMMITMENT_PUSH_INSTANCE
        )

    def ask(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return self.loop.run(
            function, self.peer, *args, reactor=self.loop.reactor, timeouts=SECONDS, **options
        )


@pytest.fixture(scope="module")
def theirs(loop: Loop) -> Iterator[Theirs]:
    made = Theirs(loop)
    yield made
    made.close()


def test_all_eleven_services_are_had_from_pynetdicom(theirs: Theirs, loop: Loop) -> None:
    image = studies.instances()[0]
    receiver = Storing()
    here = loop.listen(receiver)
    theirs.destination = here

    async def conversation() -> None:
        contexts = [VERIFICATION, *STUDY_ROOT[1:], GRAYSCALE_PRINT, studies.CT, studies.SC]
        association = await connect(
            theirs.peer,
            contexts=contexts,
            roles={studies.CT: "both", studies.SC: "both"},
            handler=receiver,
            reactor=loop.reactor,
            timeouts=SECONDS,
        )
        async with association:
            assert (await association.echo()).status == 0
            assert (await association.store(image)).status == 0
            assert len(await association.find({"StudyInstanceUID": ""})) == 4
            keys = {"StudyInstanceUID": STUDY}
            assert (await association.get(keys)).completed == 4
            assert (await association.move(keys, destination="OURS")).completed == 4
            print_ = {"context": GRAYSCALE_PRINT}
            film = {"NumberOfCopies": "1"}
            created = await association.n_create(FILM_SESSION, film, "1.2.3", **print_)
            assert created.sop_instance_uid == "1.2.3"
            await association.n_set(FILM_SESSION, "1.2.3", {"NumberOfCopies": "2"}, **print_)
            read = await association.n_get(FILM_SESSION, "1.2.3", ["NumberOfCopies"], **print_)
            assert read.dataset.NumberOfCopies == 2
            acted = await association.n_action(FILM_SESSION, "1.2.3", 1, film, **print_)
            assert acted.dataset.PrinterName == "action 1"
            await association.n_event_report(PRINTER, PRINTER_INSTANCE, 3, film, **print_)
            await association.n_delete(FILM_SESSION, "1.2.3", **print_)
            gone = await association.n_get(FILM_SESSION, "1.2.3", check=False, **print_)
            assert gone.status == 0x0112

    loop.run(conversation)
    assert theirs.events == [3]
    assert str(image.SOPInstanceUID) in theirs.stored
    wanted = studies.uids("SOPInstanceUID", lambda e: e.PatientID == "P1")
    assert sorted(receiver.stored) == sorted(wanted * 2)


def test_query_retrieve_and_move_do_it_by_themselves(theirs: Theirs, loop: Loop) -> None:
    found = theirs.ask(query, {"StudyInstanceUID": ""})
    assert studies.of(found, "StudyInstanceUID") == studies.uids("StudyInstanceUID")
    wanted = studies.uids("SOPInstanceUID", lambda e: e.PatientID == "P1")
    receiver = Storing()
    outcome = theirs.ask(retrieve, {"StudyInstanceUID": STUDY}, handler=receiver)
    assert (outcome.status, sorted(receiver.stored)) == (0, wanted)
    receiver = Storing()
    theirs.destination = peers.free_port()
    outcome = theirs.ask(
        move,
        {"StudyInstanceUID": STUDY},
        destination="OURS",
        receive=f"tcp:{theirs.destination}:interface=127.0.0.1",
        handler=receiver,
    )
    assert (outcome.status, sorted(receiver.stored)) == (0, wanted)


def test_a_query_is_cancelled_where_it_found_enough(theirs: Theirs) -> None:
    found = theirs.ask(query, {"PatientID": "ENDLESS"}, limit=3)
    assert len(found) == 3
    assert theirs.cancelled.wait(SECONDS)


def test_its_worklist_is_read(theirs: Theirs) -> None:
    (found,) = theirs.ask(worklist, {"ScheduledProcedureStepSequence.Modality": "CT"})
    assert found.PatientID == "W1"


def test_its_procedure_steps_are_begun_and_completed(theirs: Theirs) -> None:
    uid = theirs.ask(procedure_step.create, STEP)
    series = {"PerformedSeriesSequence": [{"SeriesInstanceUID": "1.2.3.4"}]}
    theirs.ask(procedure_step.complete, uid, series)
    kept = theirs.kept[uid]
    assert kept.PerformedProcedureStepStatus == "COMPLETED"
    assert kept.PerformedSeriesSequence[0].SeriesInstanceUID == "1.2.3.4"


def test_it_commits_itself_by_a_report_on_the_same_association(theirs: Theirs) -> None:
    theirs.report_elsewhere = 0
    outcome = theirs.ask(request_commitment, [ONE, OTHER], wait=SECONDS)
    assert (outcome.committed, outcome.failed) == ((ONE,), {OTHER: 0x0213})


def test_it_commits_itself_by_a_report_on_a_new_association(theirs: Theirs) -> None:
    theirs.report_elsewhere = peers.free_port()
    outcome = theirs.ask(
        request_commitment,
        [ONE, OTHER],
        wait=SECONDS,
        calling_ae_title="OURS",
        receive=f"tcp:{theirs.report_elsewhere}:interface=127.0.0.1",
    )
    assert (outcome.committed, outcome.failed) == ((ONE,), {OTHER: 0x0213})
