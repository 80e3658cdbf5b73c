"""PostgreSQL is stopped and started again under an archive: what each service answers meanwhile,
and that each goes on by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest
from databases import PostgreSQL
from peers import SECONDS, Server, serving, wait_until
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pynetdicom import AE, build_role, evt
from test_commitment_after_a_kill import CT, Modality

from twisted_dimse.uids import STUDY_ROOT

pytestmark = pytest.mark.interop

MR = pydicom.dcmread(str(get_testdata_file("MR_small.dcm")))
SUCCESS, OUT_OF_RESOURCES, CANNOT_CALCULATE, RESOURCE_LIMITATION = 0, 0xA700, 0xA701, 0x0213


class Client:
    """A node that asks for each service; what it got, by SOP Instance UIDs."""

    def __init__(self, server: Server) -> None:
        node = AE("MODALITY")
        for context in (*STUDY_ROOT[1:], CT.SOPClassUID, MR.SOPClassUID):
            node.add_requested_context(str(context))
        self.got: list[str] = []
        self._association = node.associate(
            "127.0.0.1",
            server.port,
            ext_neg=[build_role(CT.SOPClassUID, scu_role=True, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, self._take)],
        )
        assert self._association.is_established

    def end(self) -> None:
        self._association.release()

    def _take(self, event: Any) -> int:
        self.got.append(event.request.AffectedSOPInstanceUID)
        return 0

    def store(self, dataset: Dataset) -> int:
        return int(self._association.send_c_store(dataset).Status)

    def find(self) -> tuple[int, int]:
        """The last status, and how many were found."""
        keys = Dataset()
        keys.QueryRetrieveLevel, keys.StudyInstanceUID = "STUDY", ""
        answers = [int(status.Status) for status, _ in self._association.send_c_find(keys, FIND)]
        return answers[-1], len(answers) - 1

    def get(self) -> int:
        *_, (status, _) = self._association.send_c_get(study(), GET)
        return int(status.Status)

    def move(self) -> int:
        *_, (status, _) = self._association.send_c_move(study(), "MODALITY", MOVE)
        return int(status.Status)


FIND, MOVE, GET = map(str, STUDY_ROOT[1:])


def study() -> Dataset:
    keys = Dataset()
    keys.QueryRetrieveLevel, keys.StudyInstanceUID = "STUDY", CT.StudyInstanceUID
    return keys


@pytest.mark.parametrize("workers", [1, 2])
def test_each_service_says_so_and_goes_on_by_itself(
    tmp_path: Path, postgresql: PostgreSQL, workers: int
) -> None:
    words = ["--database", postgresql.database(), "--workers", workers]
    with Modality() as modality:
        words += ["--peer", f"MODALITY=127.0.0.1:{modality.port}"]
        with serving(*words, directory=tmp_path / "archive") as server:
            for number in range(1, workers + 1):
                if workers > 1:
                    server.wait_for_line(f"worker {number}, process .* takes associations")
            # On associations that stay, and on new ones.
            client = Client(server)
            assert client.store(CT) == SUCCESS
            assert (client.find(), client.get(), client.move()) == ((0, 1), 0, 0)
            assert modality.ask(server, "2.25.1") == SUCCESS
            modality.check("2.25.1")
            postgresql.crash()
            another = Client(server)
            for one in (client, another):
                assert one.store(MR) == SUCCESS
                assert one.find() == (OUT_OF_RESOURCES, 0)
                assert (one.get(), one.move()) == (CANNOT_CALCULATE, CANNOT_CALCULATE)
            assert modality.ask(server, "2.25.2") == RESOURCE_LIMITATION
            server.wait_for_line("indexing failed, and is tried again every 5 s")
            postgresql.start()
            wait_until(lambda: client.find() == (SUCCESS, 2), within=SECONDS)
            last = Client(server)
            for one in (client, another, last):
                one.got.clear()
                assert one.find() == (SUCCESS, 2)
                assert (one.get(), one.move()) == (SUCCESS, SUCCESS)
                assert one.got == [CT.SOPInstanceUID]
            assert modality.ask(server, "2.25.2") == SUCCESS
            modality.check("2.25.2")
            modality.end()
            for one in (client, another, last):
                one.end()
