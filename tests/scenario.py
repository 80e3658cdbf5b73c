"""Every service once, both roles, over loopback, on whichever reactor is named: a program.

    python tests/scenario.py epoll|select|poll|asyncio|uvloop FOLDER

Some instances are filed in the folder. Prints ``ok`` at its end. `test_reactors` runs it on each
reactor, since a process has only one.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

SIZES = (0, 251, 2510, 300_194, 2_000_219)


def install(name: str) -> None:
    """Install the reactor called ``name``."""
    if name == "asyncio":
        from twisted.internet import asyncioreactor

        asyncioreactor.install(asyncio.new_event_loop())
    elif name == "uvloop":
        from twisted_dimse import uvloop_reactor

        uvloop_reactor.install()
    else:
        module = __import__(f"twisted.internet.{name}reactor", fromlist=["install"])
        module.install()


def instances() -> list[Any]:
    """What is filed: nothing, an odd number of octets, a few, and more than one block of them."""
    from pydicom.uid import CTImageStorage

    from twisted_dimse.datastream import BytesSource
    from twisted_dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN

    return [
        BytesSource(CTImageStorage, f"1.2.{size}", EXPLICIT_VR_LITTLE_ENDIAN, data)
        for size, data in ((size, bytes(range(251)) * (size // 251)) for size in SIZES)
    ]


async def main(reactor: Any, name: str, folder: str) -> None:
    from pydicom import Dataset
    from pydicom.data import get_testdata_file
    from pydicom.uid import CTImageStorage
    from twisted.internet.defer import Deferred
    from twisted.internet.task import deferLater

    from twisted_dimse import STUDY_ROOT, VERIFICATION, Handler, StatusError, connect, listen
    from twisted_dimse.uids import MODALITY_PERFORMED_PROCEDURE_STEP

    image = get_testdata_file("CT_small.dcm")
    served = [VERIFICATION, *STUDY_ROOT[1:], CTImageStorage, MODALITY_PERFORMED_PROCEDURE_STEP]
    stored: list[str] = []

    def study(number: int) -> Dataset:
        dataset = Dataset()
        dataset.PatientID = str(number)
        return dataset

    class Everything(Handler):
        contexts = served

        async def echo(self, request: Any) -> None:
            if name in ("asyncio", "uvloop"):
                await Deferred.fromFuture(asyncio.ensure_future(asyncio.sleep(0.001)))
            else:
                await deferLater(reactor, 0.001)

        def store(self, request: Any, dataset: Any) -> int:
            stored.append(request.sop_instance_uid)
            return 0

        async def find(self, request: Any) -> Any:
            for number in range(300):
                yield study(number)

        def get(self, request: Any) -> Any:
            return [image, image]

        def move(self, request: Any) -> Any:
            return (path for path in (image, image, image))

        def n_get(self, request: Any) -> Any:
            return study(1)

        def n_set(self, request: Any) -> Any:
            return request.dataset

        def n_create(self, request: Any) -> Any:
            dataset = study(2)
            dataset.SOPInstanceUID = "1.2.3.4"
            return dataset

        def n_action(self, request: Any) -> Any:
            return 0, study(request.action_type)

        def n_delete(self, request: Any) -> Any:
            raise StatusError(0x0112, "no such instance")

        def n_event_report(self, request: Any) -> Any:
            return None

    port = await listen("tcp:0:interface=127.0.0.1", Everything(), reactor=reactor)
    address = f"127.0.0.1:{port.getHost().port}"
    port.factory.peers["SELF"] = f"SELF@{address}"
    association = await connect(f"SCP@{address}", contexts=served, window=3, reactor=reactor)
    async with association:
        assert (await association.echo()).status == 0
        await association.store(image)
        assert len(await association.find({})) == 300
        async with association.find_each({}) as matches:
            async for match in matches:
                assert match.PatientID == "0"
                break
        received = Everything()
        outcome = await association.get({"StudyInstanceUID": "1.2"}, handler=received)
        assert (outcome.status, outcome.completed) == (0, 2)
        outcome = await association.move({"StudyInstanceUID": "1.2"}, destination="SELF")
        assert (outcome.status, outcome.completed) == (0, 3)
        step = MODALITY_PERFORMED_PROCEDURE_STEP
        assert (await association.n_get(step, "1.2.3")).dataset == study(1)
        assert (await association.n_set(step, "1.2.3", study(7))).dataset == study(7)
        assert (await association.n_create(step)).sop_instance_uid == "1.2.3.4"
        assert (await association.n_action(step, "1.2.3", 5)).dataset == study(5)
        await association.n_event_report(step, "1.2.3", 1)
        reply = await association.n_delete(step, "1.2.3", check=False)
        assert (reply.status, reply.comment) == (0x0112, "no such instance")
    assert len(stored) == 6
    await port.stopListening()
    await file_instances(reactor, folder)
    print("ok", type(reactor).__name__)


async def file_instances(reactor: Any, folder: str) -> None:
    """Store `instances` under one window, durably, in a folder."""
    from pydicom.uid import CTImageStorage
    from twisted.internet.defer import gatherResults

    from twisted_dimse import connect, listen
    from twisted_dimse.services.files import InstanceFiles
    from twisted_dimse.services.storage import FilingHandler

    handler = FilingHandler(InstanceFiles(folder, reactor=reactor))
    port = await listen("tcp:0:interface=127.0.0.1", handler, reactor=reactor)
    peer = f"SCP@127.0.0.1:{port.getHost().port}"
    async with await connect(peer, contexts=[CTImageStorage], window=3, reactor=reactor) as one:
        await gatherResults([one.store(instance) for instance in instances()])
    await port.stopListening()


if __name__ == "__main__":
    install(sys.argv[1])
    from twisted.internet import task

    task.react(main, sys.argv[1:])
