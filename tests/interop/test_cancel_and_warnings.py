"""Retrievals that are cancelled, and sub-operations that end with a warning, between the archive,
DCMTK and pynetdicom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import raw
from peers import Server, dcmtk, dimse, free_port, run, serving
from pydicom import Dataset
from pynetdicom import AE, build_role, evt

from twisted_dimse import STUDY_ROOT
from twisted_dimse.datastream import part10_header

pytestmark = pytest.mark.interop

STUDY, MANY = "1.2.3", 150
WARNING = 0xB000  # Coercion of data elements


@pytest.fixture(scope="module")
def destination() -> int:
    return free_port()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, destination: int) -> Iterator[Server]:
    """An archive with a study of many instances."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(MANY):
        uid = f"1.2.9.{number}"
        meta = part10_header(raw.SECONDARY_CAPTURE, uid, raw.EXPLICIT)
        (folder / str(number)).write_bytes(meta + raw.dataset(uid, 20_000, study=STUDY))
    with serving("--peer", f"DEST=127.0.0.1:{destination}") as server:
        dimse("store", server.peer, folder).succeeded()
        yield server


def test_movescu_cancels_what_it_has_had_enough_of(
    archive: Server, destination: int, tmp_path: Path
) -> None:
    done = run(
        dcmtk("movescu"), "-v", "--cancel", 2, "-S", "-aem", "DEST", "--port", destination,
        "-od", tmp_path, "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}",
        "-aec", "X", "127.0.0.1", archive.port,
    )  # fmt: skip
    assert "Cancel" in done.said, done.said[-2000:]
    assert 2 <= len(list(tmp_path.iterdir())) < MANY


# --- warnings


def answer_to(number: str) -> int:
    """The status of a destination for an instance: two are coerced, one cannot be taken."""
    return {"1": WARNING, "2": WARNING, "3": 0xA700}.get(number, 0)


def _store(event: Any) -> int:
    return answer_to(str(event.request.AffectedSOPInstanceUID).rsplit(".", 1)[1])


HANDLERS: list[Any] = [(evt.EVT_C_STORE, _store)]


def keys() -> Dataset:
    """Seven of the instances."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "IMAGE", STUDY
    identifier.SeriesInstanceUID = "1.2.3.4"
    identifier.SOPInstanceUID = [f"1.2.9.{number}" for number in range(7)]
    return identifier


@contextmanager
def taking(port: int) -> Iterator[None]:
    node = AE("DEST")
    node.add_supported_context(raw.SECONDARY_CAPTURE)
    server = node.start_server(("127.0.0.1", port), block=False, evt_handlers=HANDLERS)
    assert server is not None
    try:
        yield
    finally:
        server.shutdown()


def check(answers: list[Any]) -> None:
    """The counts of the pending responses, and those of the last."""
    *pending, (last, failed) = answers
    assert {status.Status for status, _ in pending} <= {0xFF00}
    assert (last.Status, counts(last)) == (WARNING, (4, 1, 2))
    assert failed.FailedSOPInstanceUIDList == "1.2.9.3"
    done = [sum(counts(status)) for status, _ in pending]
    assert done == sorted(done)


def counts(status: Any) -> tuple[int, int, int]:
    return (
        status.NumberOfCompletedSuboperations,
        status.NumberOfFailedSuboperations,
        status.NumberOfWarningSuboperations,
    )


def test_warnings_of_a_destination_are_counted_in_a_c_move(
    archive: Server, destination: int
) -> None:
    node = AE()
    node.add_requested_context(STUDY_ROOT.move)
    association = node.associate("127.0.0.1", archive.port)
    with taking(destination):
        answers = list(association.send_c_move(keys(), "DEST", STUDY_ROOT.move))
    association.release()
    check(answers)


def test_warnings_of_a_requestor_are_counted_in_a_c_get(archive: Server) -> None:
    node = AE()
    node.add_requested_context(STUDY_ROOT.get)
    node.add_requested_context(raw.SECONDARY_CAPTURE)
    association = node.associate(
        "127.0.0.1", archive.port, evt_handlers=HANDLERS,
        ext_neg=[build_role(raw.SECONDARY_CAPTURE, scp_role=True)],
    )  # fmt: skip
    answers = list(association.send_c_get(keys(), STUDY_ROOT.get))
    association.release()
    check(answers)
