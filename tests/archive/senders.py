"""A program that uses an archive as lines on its standard input ask, and answers each with a line.

send PORT SENDERS FIRST FILE    SENDERS associations with a window, each of which stores one new
                                instance after the other, numbered from FIRST, for as long as it
                                lives. The SOP Instance UID of each that was acknowledged goes
                                to FILE, a line each, as soon as it is. Answers when no
                                association is left.
find PORT FILE                  Answers with those of the SOP Instance UIDs in FILE that are
                                found, as JSON.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any, TextIO

from pydicom import Dataset
from twisted.internet import task
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThread

from twisted_dimse import STUDY_ROOT, DimseError, connect
from twisted_dimse.datastream import BytesSource, encode_dataset
from twisted_dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ROOT = "1.2.826.0.1.3680043.8.498.77"
MOST = 400  # instances of one sender, should nobody stop it


def instance(sender: int, number: int) -> BytesSource:
    """The instance ``number`` of a sender: its octets follow from both."""
    dataset = Dataset()
    dataset.SOPClassUID = SECONDARY_CAPTURE
    dataset.SOPInstanceUID = f"{ROOT}.{sender}.{number}"
    dataset.PatientID = f"P{sender}"
    dataset.PatientName = f"Sender^{sender}"
    dataset.StudyInstanceUID = f"{ROOT}.1{sender}"
    dataset.SeriesInstanceUID = f"{ROOT}.2{sender}"
    dataset.Modality = "OT"
    dataset.InstanceNumber = str(number)
    dataset.add_new(0x7FE00010, "OW", bytes((sender + number) % 251 for _ in range(4000)))
    data = encode_dataset(dataset, EXPLICIT_VR_LITTLE_ENDIAN)
    return BytesSource(SECONDARY_CAPTURE, dataset.SOPInstanceUID, EXPLICIT_VR_LITTLE_ENDIAN, data)


async def send(reactor: Any, port: int, sender: int, first: int, acknowledged: TextIO) -> None:
    try:
        association = await connect(
            f"ARCHIVE@127.0.0.1:{port}",
            contexts=[(SECONDARY_CAPTURE, [EXPLICIT_VR_LITTLE_ENDIAN])],
            window=4,
            reactor=reactor,
        )
        numbers = itertools.count(first)
        lanes = [
            Deferred.fromCoroutine(lane(association, sender, numbers, first, acknowledged))
            for _ in range(4)
        ]
        await DeferredList(lanes, consumeErrors=True)
    except DimseError:
        return


async def lane(
    association: Any, sender: int, numbers: Any, first: int, acknowledged: TextIO
) -> None:
    for number in numbers:
        if number >= first + MOST:
            return
        response = await association.store(instance(sender, number))
        acknowledged.write(f"{response.sop_instance_uid}\n")
        acknowledged.flush()


async def send_all(reactor: Any, port: str, senders: str, first: str, path: str) -> None:
    with open(path, "a") as acknowledged:
        sending = [
            Deferred.fromCoroutine(send(reactor, int(port), sender, int(first), acknowledged))
            for sender in range(int(senders))
        ]
        await DeferredList(sending)


async def find(reactor: Any, port: str, path: str) -> list[str]:
    peer = f"ARCHIVE@127.0.0.1:{port}"
    options: dict[str, Any] = {"extended": {STUDY_ROOT.find: b"\x01"}, "reactor": reactor}
    async with await connect(peer, contexts=[STUDY_ROOT.find], **options) as association:
        keys = {"SOPInstanceUID": Path(path).read_text().split()}
        matches = await association.find(keys, level="IMAGE")
    return [str(match.SOPInstanceUID) for match in matches]


async def main(reactor: Any) -> None:
    while line := await deferToThread(sys.stdin.readline):
        command, *words = line.split()
        done = await {"send": send_all, "find": find}[command](reactor, *words)
        print(json.dumps(done), flush=True)


if __name__ == "__main__":
    task.react(main)
