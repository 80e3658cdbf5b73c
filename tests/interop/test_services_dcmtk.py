"""Query/Retrieve and the modality worklist with DCMTK's programs, in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers
import pytest
import studies
from loop import Keeping, Loop
from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from twisted.internet.defer import Deferred

from twisted_dimse import (
    PATIENT_ROOT,
    STUDY_ROOT,
    VERIFICATION,
    Handler,
    Peer,
    StatusError,
    connect,
    listen,
    move,
    query,
    retrieve,
    store_files,
)
from twisted_dimse.keys import as_dataset
from twisted_dimse.services.combined import CombinedHandler
from twisted_dimse.services.query_retrieve import QueryRetrieveHandler
from twisted_dimse.services.worklist import WorklistHandler, worklist

pytestmark = pytest.mark.interop

STUDY = f"{studies.ROOT}.1"
STEP = "ScheduledProcedureStepSequence"


def scheduled(number: int, modality: str, date: str, name: str) -> Dataset:
    made: Dataset = as_dataset(
        {
            "SpecificCharacterSet": "ISO_IR 100",
            "PatientName": name,
            "PatientID": f"W{number}",
            "AccessionNumber": f"N{number}",
            "StudyInstanceUID": f"{studies.ROOT}.9.{number}",
            "RequestedProcedureID": f"R{number}",
            "RequestedProcedureDescription": "Chest",
            STEP: [
                {
                    "Modality": modality,
                    "ScheduledStationAETitle": f"{modality}1",
                    "ScheduledProcedureStepStartDate": date,
                    "ScheduledProcedureStepStartTime": "1030",
                    "ScheduledPerformingPhysicianName": "Roe^Richard",
                    "ScheduledProcedureStepDescription": "Chest",
                    "ScheduledProcedureStepID": f"S{number}",
                }
            ],
        }
    )
    return made


WORKLIST = [
    scheduled(1, "CT", "20240110", "Doe^Jane"),
    scheduled(2, "MR", "20240111", "Müller^Jörg"),
    scheduled(3, "CT", "20240112", "Roe^Anna"),
]


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with Loop() as made:
        yield made


class Ours:
    """A server of ours, and the places that it knows for C-MOVE."""

    def __init__(self, loop: Loop) -> None:
        held = studies.instances()
        self.destination = peers.free_port()
        self.port = loop.listen(
            CombinedHandler(QueryRetrieveHandler(lambda: held), WorklistHandler(lambda: WORKLIST)),
            peers={"MOVESCU": Peer("MOVESCU", f"127.0.0.1:{self.destination}")},
        )


@pytest.fixture(scope="module")
def ours(loop: Loop) -> Ours:
    return Ours(loop)


def dcmtk_query(port: int, folder: Path, *words: str) -> list[Dataset]:
    """The answers that findscu gets."""
    command = [*peers.dcmtk("findscu"), "-X", "-od", folder, *words, "127.0.0.1", port]
    peers.run(command).succeeded()
    return [dcmread(path, force=True) for path in sorted(folder.iterdir())]


def keys(**values: str) -> list[str]:
    return [word for name, value in values.items() for word in ("-k", f"{name}={value}")]


# --- findscu, getscu and movescu against us

QUERIES: list[Any] = [
    ("-P", "PATIENT", {"PatientName": "*"}, "PatientID", lambda each: True),
    ("-P", "PATIENT", {"PatientID": "P2"}, "PatientID", lambda each: each.PatientID == "P2"),
    (
        "-P",
        "STUDY",
        {"PatientID": "P3", "StudyDate": "20240315-"},
        "StudyInstanceUID",
        lambda each: each.AccessionNumber == "A4",
    ),
    (
        "-S",
        "STUDY",
        {"PatientName": "Doe^*", "AccessionNumber": "?1"},
        "StudyInstanceUID",
        lambda each: each.PatientID == "P1",
    ),
    (
        "-S",
        "STUDY",
        {"StudyDate": "20240111-20240301", "StudyTime": "1030"},
        "StudyInstanceUID",
        lambda each: "20240111" <= each.StudyDate <= "20240301",
    ),
    (
        "-S",
        "STUDY",
        {"ModalitiesInStudy": "MR"},
        "StudyInstanceUID",
        lambda each: each.Modality == "MR",
    ),
    (
        "-S",
        "SERIES",
        {"StudyInstanceUID": STUDY, "SeriesInstanceUID": "", "Modality": ""},
        "SeriesInstanceUID",
        lambda each: each.StudyInstanceUID == STUDY,
    ),
    (
        "-S",
        "IMAGE",
        {"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{STUDY}.1", "InstanceNumber": "2"},
        "SOPInstanceUID",
        lambda each: each.SOPInstanceUID == f"{STUDY}.1.2",
    ),
    ("-S", "STUDY", {"StudyInstanceUID": "1.2.9"}, "StudyInstanceUID", lambda each: False),
]


@pytest.mark.parametrize(
    ("model", "level", "asked", "unique", "condition"),
    QUERIES,
    ids=[f"{row[1]}-{'-'.join(row[2])}" for row in QUERIES],
)
def test_findscu_finds_what_there_is(
    ours: Ours, tmp_path: Path, model: str, level: str, asked: Any, unique: str, condition: Any
) -> None:
    words = keys(**{"QueryRetrieveLevel": level, unique: "", **asked})
    found = dcmtk_query(ours.port, tmp_path, model, *words)
    assert studies.of(found, unique) == studies.uids(unique, condition)


def test_findscu_asks_and_reads_in_any_script(ours: Ours, tmp_path: Path) -> None:
    words = keys(QueryRetrieveLevel="PATIENT", SpecificCharacterSet="ISO_IR 192", PatientID="")
    (found,) = dcmtk_query(ours.port, tmp_path, "-P", *words, *keys(PatientName="*=山田*"))
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert str(found.PatientName) == studies.PATIENTS[2][1]


def test_findscu_asks_in_utf_8_and_does_not_say_so(ours: Ours, tmp_path: Path) -> None:
    """As somebody types it at a terminal."""
    words = keys(QueryRetrieveLevel="PATIENT", PatientID="")
    (found,) = dcmtk_query(ours.port, tmp_path, "-P", *words, *keys(PatientName="*=山田*"))
    assert str(found.PatientName) == studies.PATIENTS[2][1]


def test_findscu_is_refused_a_series_of_no_study(ours: Ours) -> None:
    words = keys(QueryRetrieveLevel="SERIES", SeriesInstanceUID="")
    done = peers.run(peers.dcmtk("findscu"), "-v", "-S", *words, "127.0.0.1", ours.port)
    assert "DataSetDoesNotMatchSOPClass" in done.said.replace(" ", "")


def test_findscu_may_cancel_what_it_asked(loop: Loop, tmp_path: Path) -> None:
    study = studies.instances()[0]
    taken: list[int] = []

    def many() -> Iterator[Dataset]:
        for number in range(100_000):
            each = Dataset()
            each.update(study)
            each.StudyInstanceUID = f"1.2.{number}"
            taken.append(number)
            yield each

    class Endless(QueryRetrieveHandler):
        def _answers(self, identifier: Any, *rest: Any) -> Any:
            for each in self._instances():
                yield 0xFF00, each

    port = loop.listen(Endless(many))
    words = keys(QueryRetrieveLevel="STUDY", StudyInstanceUID="")
    done = peers.run(peers.dcmtk("findscu"), "-v", "--cancel", 3, "-S", *words, "127.0.0.1", port)
    assert "Cancel" in done.said
    assert len(taken) < 100_000


RETRIEVALS: list[Any] = [
    (
        "-P",
        {"QueryRetrieveLevel": "PATIENT", "PatientID": "P3"},
        lambda each: each.PatientID == "P3",
    ),
    (
        "-S",
        {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY},
        lambda each: each.PatientID == "P1",
    ),
    (
        "-S",
        {
            "QueryRetrieveLevel": "SERIES",
            "StudyInstanceUID": STUDY,
            "SeriesInstanceUID": f"{STUDY}.1",
        },
        lambda each: each.SeriesInstanceUID == f"{STUDY}.1",
    ),
    (
        "-S",
        {
            "QueryRetrieveLevel": "IMAGE",
            "StudyInstanceUID": STUDY,
            "SeriesInstanceUID": f"{STUDY}.1",
            "SOPInstanceUID": f"{STUDY}.1.1\\{STUDY}.1.3",
        },
        lambda each: each.SOPInstanceUID in (f"{STUDY}.1.1", f"{STUDY}.1.3"),
    ),
]


@pytest.mark.parametrize(
    ("tool", "model", "asked", "condition"),
    [("getscu", *row) for row in RETRIEVALS] + [("movescu", *row) for row in RETRIEVALS[:2]],
    ids=lambda value: value if isinstance(value, str) and value.endswith("scu") else "",
)
def test_getscu_and_movescu_fetch_what_there_is(
    ours: Ours, tmp_path: Path, tool: str, model: str, asked: Any, condition: Any
) -> None:
    receive = ["-aem", "MOVESCU", "--port", ours.destination] if tool == "movescu" else []
    words = [model, *receive, "-od", tmp_path, *keys(**asked), "127.0.0.1", ours.port]
    peers.run(peers.dcmtk(tool), *words).succeeded()
    kept = [str(dcmread(path).SOPInstanceUID) for path in tmp_path.iterdir()]
    assert sorted(kept) == studies.uids("SOPInstanceUID", condition)


def test_movescu_is_told_that_its_destination_is_not_known(ours: Ours) -> None:
    words = keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=STUDY)
    done = peers.run(
        peers.dcmtk("movescu"), "-v", "-S", "-aem", "NOBODY", *words, "127.0.0.1", ours.port
    )
    assert "MoveDestinationUnknown" in done.said.replace(" ", "")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"PatientName": "", f"{STEP}[0].Modality": "CT"}, ["W1", "W3"]),
        (
            {"PatientName": "", f"{STEP}[0].ScheduledProcedureStepStartDate": "20240111-"},
            ["W2", "W3"],
        ),
        ({"PatientName": "roe*", f"{STEP}[0].Modality": ""}, ["W3"]),
    ],
    ids=["modality", "date", "name"],
)
def test_findscu_reads_the_worklist(
    ours: Ours, tmp_path: Path, asked: dict[str, str], expected: list[str]
) -> None:
    found = dcmtk_query(ours.port, tmp_path, "-W", *keys(**asked, PatientID=""))
    assert studies.of(found, "PatientID") == expected
    assert all(match[STEP].value for match in found)


# --- we against dcmqrscp and wlmscpfs


class Archive:
    """dcmqrscp with all the instances in it."""

    def __init__(self, port: int, destination: int) -> None:
        self.peer = f"ANY-SCP@127.0.0.1:{port}"
        self.destination = destination


@pytest.fixture(scope="module")
def archive(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("dcmqrscp")
    (folder / "db").mkdir()
    port, destination = peers.free_port(), peers.free_port()
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nours = (OURS, localhost, {destination})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nANY-SCP {folder / 'db'} RW (100, 1024mb) ANY\nAETable END\n"
    )
    command = peers.dcmtk("dcmqrscp")
    with peers.listening(command, "-c", configuration, port, port=port):
        made = Archive(port, destination)
        paths = studies.write(folder / "files")
        sent = loop.run(store_files, made.peer, paths, reactor=loop.reactor)
        assert all(outcome.ok for outcome in sent)
        yield made


@pytest.mark.parametrize(
    ("model", "level", "asked", "unique", "condition"),
    QUERIES,
    ids=[f"{row[1]}-{'-'.join(row[2])}" for row in QUERIES],
)
def test_a_query_finds_what_dcmqrscp_has(
    loop: Loop, archive: Archive, model: str, level: str, asked: Any, unique: str, condition: Any
) -> None:
    if "ModalitiesInStudy" in asked:
        condition = lambda _: True  # noqa: E731 - it does not match by it
    chosen = PATIENT_ROOT if model == "-P" else None
    found = loop.run(
        query,
        archive.peer,
        {unique: "", **asked},
        level=level,
        model=chosen,
        reactor=loop.reactor,
    )
    assert studies.of(found, unique) == studies.uids(unique, condition)


@pytest.mark.parametrize(
    ("model", "asked", "condition"),
    RETRIEVALS,
    ids=[row[1]["QueryRetrieveLevel"] for row in RETRIEVALS],
)
def test_retrieve_fetches_what_dcmqrscp_has(
    loop: Loop, archive: Archive, model: str, asked: Any, condition: Any
) -> None:
    receiver = Keeping()
    outcome = loop.run(retrieve, archive.peer, asked, handler=receiver, reactor=loop.reactor)
    assert sorted(receiver.kept) == studies.uids("SOPInstanceUID", condition)
    assert (outcome.status, outcome.completed) == (0, len(receiver.kept))


def test_move_fetches_what_dcmqrscp_has_with_a_receiver_of_its_own(
    loop: Loop, archive: Archive
) -> None:
    receiver = Keeping()
    outcome = loop.run(
        move,
        archive.peer,
        {"StudyInstanceUID": STUDY},
        destination="OURS",
        receive=f"tcp:{archive.destination}:interface=127.0.0.1",
        handler=receiver,
        reactor=loop.reactor,
    )
    assert (outcome.status, outcome.completed) == (0, 4)
    assert sorted(receiver.kept) == studies.uids("SOPInstanceUID", lambda e: e.PatientID == "P1")


def test_a_query_of_dcmqrscp_is_cancelled_where_it_found_enough(
    loop: Loop, archive: Archive
) -> None:
    async def ask() -> tuple[str, int]:
        contexts = [VERIFICATION, STUDY_ROOT.find]
        async with await connect(
            archive.peer, contexts=contexts, reactor=loop.reactor
        ) as association:
            async with association.find_each({"StudyInstanceUID": ""}, level="STUDY") as found:
                async for match in found:
                    first = str(match.StudyInstanceUID)
                    break
            return first, (await association.echo()).status  # which waits for the last response

    first, status = loop.run(ask)
    assert first in studies.uids("StudyInstanceUID")
    assert status == 0


def test_a_move_of_dcmqrscp_is_cancelled(loop: Loop, archive: Archive) -> None:
    """It looks for a C-CANCEL before each sub-operation; the first is held until it was sent."""
    begun: Deferred[None] = Deferred()
    held: Deferred[int] = Deferred()

    class Holding(Handler):
        def store(self, request: Any, dataset: Any) -> Deferred[int]:
            begun.callback(None)
            return held

    async def ask() -> Any:
        reactor = loop.reactor
        where = f"tcp:{archive.destination}:interface=127.0.0.1"
        port = await listen(where, Holding(), reactor=reactor)
        contexts = [STUDY_ROOT.move]
        async with await connect(archive.peer, contexts=contexts, reactor=reactor) as association:
            moving = association.move({"StudyInstanceUID": STUDY}, destination="OURS")
            await begun
            association.cancel(moving)
            held.callback(0)
            outcome = await moving
        await port.stopListening()
        return outcome

    outcome = loop.run(ask)
    assert (outcome.status, outcome.completed) == (0xFE00, 1)


def test_dcmqrscp_does_not_know_the_destination(loop: Loop, archive: Archive) -> None:
    with pytest.raises(StatusError, match="destination") as refused:
        loop.run(
            move,
            archive.peer,
            {"StudyInstanceUID": STUDY},
            destination="NOBODY",
            reactor=loop.reactor,
        )
    assert refused.value.status == 0xA801


@pytest.fixture(scope="module")
def worklists(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of wlmscpfs."""
    folder = tmp_path_factory.mktemp("wlmscpfs")
    (folder / "ANY-SCP").mkdir()
    (folder / "ANY-SCP" / "lockfile").touch()
    for number, item in enumerate(WORKLIST):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2", f"1.2.{number}"
        meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        made = FileDataset("", item, file_meta=meta, preamble=bytes(128))
        made.save_as(folder / "ANY-SCP" / f"{number}.wl", enforce_file_format=True)
    port = peers.free_port()
    words = ["-csk", "-dfr", "-dfp", folder, port]
    with peers.listening(peers.dcmtk("wlmscpfs"), *words, port=port):
        yield port


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({f"{STEP}.Modality": "CT"}, ["W1", "W3"]),
        ({f"{STEP}.ScheduledProcedureStepStartDate": "20240111-20240131"}, ["W2", "W3"]),
        ({"PatientName": "Roe*"}, ["W3"]),
        ({}, ["W1", "W2", "W3"]),
    ],
    ids=["modality", "date", "name", "all"],
)
def test_the_worklist_of_wlmscpfs_is_read(
    loop: Loop, worklists: int, asked: dict[str, str], expected: list[str]
) -> None:
    peer = f"ANY-SCP@127.0.0.1:{worklists}"
    found = loop.run(worklist, peer, asked, reactor=loop.reactor)
    assert studies.of(found, "PatientID") == expected
    names = {str(match.PatientID): str(match.PatientName) for match in found}
    assert names.get("W2", "Müller^Jörg") == "Müller^Jörg"
    assert all(match[STEP].value[0].ScheduledStationAETitle for match in found)
