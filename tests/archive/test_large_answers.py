"""A query with very many answers is sent as the peer takes them, and ends when it is cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import Server, dcmtk, dimse, run, serving

from twisted_dimse.archive.folder import ArchiveFolder
from twisted_dimse.archive.header import InstanceHeader

pytestmark = pytest.mark.interop

SECONDARY_CAPTURE, EXPLICIT = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.1.2.1"
STUDIES = 3000


def header(number: int) -> InstanceHeader:
    values = {
        0x00100020: b"P%d" % number,
        0x0020000D: b"1.2.3.%d" % number,
        0x0020000E: b"1.2.4.%d" % number,
    }
    uid = f"1.2.5.{number}"
    return InstanceHeader(f"{uid}.dcm", SECONDARY_CAPTURE, uid, EXPLICIT, 0, 0, values)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("large") / "archive"
    with ArchiveFolder(str(directory)) as folder:
        folder.index.add(map(header, range(STUDIES)))
    with serving(directory=directory) as server:
        yield server


def test_all_are_answered(archive: Server) -> None:
    done = dimse("find", archive.peer, "-L", "STUDY", "-k", "StudyInstanceUID", "--json")
    lines = done.succeeded().out.splitlines()
    assert len(lines) == len(set(lines)) == STUDIES


def test_a_cancelled_query_ends(archive: Server) -> None:
    done = run(
        dcmtk("findscu"), "-v", "--cancel", 3, "-S", "-k", "0008,0052=STUDY",
        "-k", "StudyInstanceUID", "-aec", "X", "127.0.0.1", archive.port,
    )  # fmt: skip
    assert "(Cancel" in done.said, done.said[-2000:]
    assert done.said.count("(Pending)") < STUDIES / 2
