"""Query/Retrieve with GDCM's gdcmscu.

GDCM 3.0 aborts itself (SIGABRT) after each release, whoever the server is, before it prints what it
found. So its exit status says nothing; what we were asked, and how the association ended, does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers
import pytest
import studies
from loop import Loop
from pydicom import dcmread
from pydicom.data import get_testdata_file

from twisted_dimse import Handler, Peer
from twisted_dimse.services.query_retrieve import QueryRetrieveHandler

pytestmark = pytest.mark.interop

STUDY = f"{studies.ROOT}.1"


class Ends(Handler):
    """Knows how each association ended."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.ends: list[BaseException | None] = []

    def released(self, request: Any) -> None:
        self.ends.append(None)

    def aborted(self, request: Any) -> None:
        self.ends.append(request.reason)


class Storing(Ends):
    def __init__(self) -> None:
        super().__init__()
        self.stored: list[str] = []

    def store(self, request: Any, dataset: Any) -> int:
        self.stored.append(request.sop_instance_uid)
        return 0


class Noting(Ends, QueryRetrieveHandler):
    """Knows what was answered."""

    def __init__(self) -> None:
        held = studies.instances()
        super().__init__(lambda: held)
        self.answered: list[Any] = []

    def _answers(self, *args: Any) -> Any:
        for status, answer in super()._answers(*args):
            self.answered.append(answer)
            yield status, answer


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with Loop() as made:
        yield made


def ask(loop: Loop, handler: Ends, *words: str | Path | int, **options: Any) -> peers.Done:
    port = loop.listen(handler, **options)
    command = [peers.program("gdcmscu"), "127.0.0.1", port, "--aetitle", "GDCM", "--call", "OURS"]
    done = peers.run(command, *words)
    peers.wait_until(lambda: handler.ends, peers.SECONDS)
    return done


def test_it_echoes(loop: Loop) -> None:
    handler = Noting()
    ask(loop, handler, "--echo")
    assert handler.ends == [None]


def test_it_stores(loop: Loop) -> None:
    handler = Storing()
    ask(loop, handler, "--store", str(get_testdata_file("CT_small.dcm")))
    assert handler.ends == [None]
    assert handler.stored == [dcmread(get_testdata_file("CT_small.dcm")).SOPInstanceUID]


@pytest.mark.parametrize(
    ("words", "unique", "condition"),
    [
        (
            ["--patientroot", "--patient", "--key", "10,10=Doe*", "--key", "10,20="],
            "PatientID",
            lambda e: e.PatientID == "P1",
        ),
        (
            ["--studyroot", "--study", "--key", "8,20=20240229-", "--key", "20,d="],
            "StudyInstanceUID",
            lambda e: e.StudyDate >= "20240229",
        ),
        (
            ["--studyroot", "--series", "--key", f"20,d={STUDY}", "--key", "20,e="],
            "SeriesInstanceUID",
            lambda e: e.StudyInstanceUID == STUDY,
        ),
    ],
    ids=["patient", "study", "series"],
)
def test_it_finds(loop: Loop, words: list[str], unique: str, condition: Any) -> None:
    handler = Noting()
    ask(loop, handler, "--find", *words)
    assert handler.ends == [None]
    assert studies.of(handler.answered, unique) == studies.uids(unique, condition)


def test_it_moves_to_itself(loop: Loop, tmp_path: Path) -> None:
    handler, port = Noting(), peers.free_port()
    words = ["--move", "--studyroot", "--study", "--key", f"20,d={STUDY}"]
    words += ["--port-scp", str(port), "--output", str(tmp_path)]
    ask(loop, handler, *words, peers={"GDCM": Peer("GDCM", f"127.0.0.1:{port}")})
    kept = [str(dcmread(path).SOPInstanceUID) for path in tmp_path.iterdir()]
    assert sorted(kept) == studies.uids("SOPInstanceUID", lambda e: e.PatientID == "P1")
