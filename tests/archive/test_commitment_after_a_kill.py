"""A storage commitment request that was answered with success is reported on, come what may."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import peers
import pydicom
import pytest
from peers import SECONDS, Server, dimse, free_port, serving, wait_until
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pynetdicom import AE, evt

pytestmark = pytest.mark.interop

PUSH, PUSH_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
CT = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))

#: twistd, whose process is killed when it begins to decide what was asked for.
DIES = """
import os, signal
from twisted.scripts.twistd import run
from twisted_dimse.archive.commitment import ArchiveCommitment
ArchiveCommitment.commit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
run()
"""

#: A sitecustomize: so is the second of several workers.
SECOND_DIES = """
import os, signal
from twisted_dimse.archive.commitment import ArchiveCommitment
commit = ArchiveCommitment.commit

def dies(self, *args):
    part = self._archive._folder.part
    if part is not None and part.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return commit(self, *args)

ArchiveCommitment.commit = dies
"""


class Modality:
    """A node that asks for commitment and takes the reports, and images."""

    def __init__(self) -> None:
        self.reports: dict[str, Dataset] = {}
        self.came = 0
        self.associations: list[Any] = []
        self.port = free_port()
        node = AE("MODALITY")
        node.add_supported_context(PUSH, scu_role=True, scp_role=True)
        node.add_supported_context(CT.SOPClassUID)
        self._handlers: Any = [
            (evt.EVT_N_EVENT_REPORT, self._take),
            (evt.EVT_C_STORE, lambda _event: 0),
        ]
        self._server = node.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=self._handlers
        )

    def __enter__(self) -> Modality:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        assert self._server is not None
        self._server.shutdown()

    def end(self) -> None:
        """End the associations that stayed."""
        for association in self.associations:
            association.abort()
        self.associations.clear()

    def _take(self, event: Any) -> Any:
        report = event.event_information
        self.reports[report.TransactionUID] = report
        self.came += 1
        return 0, None

    def ask(self, server: Server, transaction: str) -> int:
        """Ask for what is there and for what is not; the status."""
        keys = Dataset()
        keys.TransactionUID = transaction
        keys.ReferencedSOPSequence = [reference(CT.SOPInstanceUID), reference("1.2.3")]
        node = AE("MODALITY")
        node.add_requested_context(PUSH)
        association = node.associate("127.0.0.1", server.port, evt_handlers=self._handlers)
        self.associations.append(association)
        status, _ = association.send_n_action(keys, 1, PUSH, PUSH_INSTANCE)
        return int(status.Status)

    def check(self, transaction: str) -> None:
        """Wait for the report on a transaction."""
        wait_until(lambda: transaction in self.reports, within=SECONDS)
        report = self.reports[transaction]
        [kept], [failed] = report.ReferencedSOPSequence, report.FailedSOPSequence
        assert kept.ReferencedSOPInstanceUID == CT.SOPInstanceUID
        assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == ("1.2.3", 0x0112)


def reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT.SOPClassUID, uid
    return item


def test_what_was_asked_for_is_decided_and_reported_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "archive"
    with Modality() as modality:
        peer = ("--peer", f"MODALITY=127.0.0.1:{modality.port}")
        with monkeypatch.context() as patch:
            patch.setattr(peers, "TWISTD", [sys.executable, "-c", DIES])
            server = Server(*peer, directory=directory).started()
            dimse("store", server.peer, CT.filename).succeeded()
            assert modality.ask(server, "2.25.1") == 0
            server.wait()
        assert modality.came == 0
        with serving(*peer, directory=directory):
            modality.check("2.25.1")
        with serving(*peer, directory=directory):  # and not once more
            pass
        assert modality.came == 1


def test_what_a_worker_was_asked_for_that_died_is_reported_by_another(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SECOND_DIES)
    variables = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with Modality() as modality:
        words = ("--workers", 2, "--peer", f"MODALITY=127.0.0.1:{modality.port}")
        with serving(*words, directory=tmp_path / "archive", variables=variables) as server:
            for number in (1, 2):
                server.wait_for_line(f"worker {number}, process .* takes associations")
            dimse("store", server.peer, CT.filename).succeeded()
            asked = 0  # on associations that stay, until the second worker has one
            while not any("worker 2" in line and "signal 9" in line for line in server.out):
                assert asked < 40
                asked += 1
                assert modality.ask(server, f"2.25.{asked}") == 0
            modality.check(f"2.25.{asked}")
            modality.end()
