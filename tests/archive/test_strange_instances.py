"""Data sets that are not as they should be, octet by octet over loopback: a status, or kept and
found, and a server that goes on."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import pytest
from peers import Server, serving
from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from raw import COMMENT, SECONDARY_CAPTURE, Client, Message, text

FIND, GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
EXPLICIT = "1.2.840.10008.1.2.1"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def archive() -> Iterator[Server]:
    with serving() as server:
        yield server


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) & 1)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


class Instance:
    """UIDs of its own, and its elements in order."""

    def __init__(self) -> None:
        number = next(_numbers)
        self.study = f"1.2.840.99.7.{number}"
        self.uid = f"{self.study}.1.1"
        self.elements = {
            "class": element(0x00080016, b"UI", SECONDARY_CAPTURE.encode()),
            "instance": element(0x00080018, b"UI", self.uid.encode()),
            "name": element(0x00100010, b"PN", b"Doe^Jane"),
            "id": element(0x00100020, b"LO", f"P{number}".encode()),
            "study": element(0x0020000D, b"UI", self.study.encode()),
            "series": element(0x0020000E, b"UI", f"{self.study}.1".encode()),
        }

    @property
    def data(self) -> bytes:
        return b"".join(self.elements.values())


def store(server: Server, instance: Instance, uid: str = "") -> Message:
    with Client(server.port) as client:
        client.associate()
        answer = client.store(uid or instance.uid, instance.data)
        assert client.echo() == 0
        client.release()
        return answer


def find(server: Server, instance: Instance, name: str = "") -> list[Dataset]:
    """Its study, by the patient's name if one is given, and its image."""
    node = AE()
    node.add_requested_context(FIND)
    association = node.associate("127.0.0.1", server.port)
    study, image = Dataset(), Dataset()
    study.QueryRetrieveLevel, study.PatientName, study.PatientID = "STUDY", name, ""
    image.QueryRetrieveLevel, image.SOPInstanceUID = "IMAGE", ""
    study.StudyInstanceUID = image.StudyInstanceUID = instance.study
    image.SeriesInstanceUID = f"{instance.study}.1"
    found = []
    for identifier in (study, image):
        answers = list(association.send_c_find(identifier, FIND))
        assert answers[-1][0].Status == 0
        found += [dataset for _, dataset in answers if dataset is not None]
    association.release()
    return found


def got(server: Server, instance: Instance) -> list[bytes]:
    """The data sets that a C-GET of the instance's study brings, as they are encoded."""
    node = AE()
    node.add_requested_context(GET)
    node.add_requested_context(SECONDARY_CAPTURE, EXPLICIT)
    came: list[bytes] = []

    def keep(event: evt.Event) -> int:
        came.append(event.request.DataSet.getvalue())
        return 0

    association = node.associate(
        "127.0.0.1",
        server.port,
        ext_neg=[build_role(SECONDARY_CAPTURE, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, keep)],
    )
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", instance.study
    answers = list(association.send_c_get(identifier, GET))
    association.release()
    assert answers[-1][0].Status == 0
    return came


@pytest.mark.parametrize("missing", ["study", "series"])
def test_without_a_study_or_series_it_is_refused_and_what_is_missing_is_named(
    archive: Server, missing: str
) -> None:
    instance = Instance()
    del instance.elements[missing]
    answer = store(archive, instance)
    assert answer.status == 0xA900
    assert missing.capitalize() in text(answer.command, COMMENT)


def test_another_sop_instance_uid_than_the_commands_is_kept(archive: Server) -> None:
    instance = Instance()
    assert store(archive, instance, uid=f"{instance.uid}.9").status == 0
    _, image = find(archive, instance)
    assert image.SOPInstanceUID == instance.uid
    assert got(archive, instance) == [instance.data]


def test_garbage_alone_is_refused(archive: Server) -> None:
    instance = Instance()
    instance.elements = {"garbage": bytes(range(256)) * 16}
    assert store(archive, instance).status == 0xA900


def test_garbage_behind_the_identification_is_kept(archive: Server) -> None:
    instance = Instance()
    instance.elements["garbage"] = bytes(range(255, 0, -1)) * 16
    assert store(archive, instance).status == 0
    study, image = find(archive, instance)
    assert study.PatientName == "Doe^Jane"
    assert image.SOPInstanceUID == instance.uid
    assert got(archive, instance) == [instance.data]


def test_tags_out_of_order_are_kept(archive: Server) -> None:
    instance = Instance()
    instance.elements = dict(reversed(instance.elements.items()))
    assert store(archive, instance).status == 0
    study, image = find(archive, instance)
    assert study.PatientName == "Doe^Jane"
    assert image.SOPInstanceUID == instance.uid
    assert got(archive, instance) == [instance.data]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("term", [b"NONSENSE", b"ISO_IR 192", b"ISO 2022 IR 87\\", b"\xff\xfe"])
def test_text_in_no_known_character_set_is_kept_and_found(archive: Server, term: bytes) -> None:
    instance = Instance()
    instance.elements["name"] = element(0x00100010, b"PN", b"Do\xe9^\x1b$BJane\xff")
    instance.elements = {"set": element(0x00080005, b"CS", term), **instance.elements}
    assert store(archive, instance).status == 0
    study, image = find(archive, instance, "do*")
    assert study.PatientID == instance.elements["id"][8:].decode().strip()
    assert image.SOPInstanceUID == instance.uid
    assert len(find(archive, instance, "roe*")) == 1  # the image alone
    assert got(archive, instance) == [instance.data]


BROKEN_SEQUENCES = {
    "cut": bytes.fromhex("feff00e0 ff000000") + b"1234",
    "no-items": b"\xff" * 40,
    "deep": bytes.fromhex("feff00e0 ffffffff 40007502 53510000 ffffffff") * 3000,
    "number-of-odd-length": bytes.fromhex("feff00e0 0b000000 28001000 55530300") + b"abc",
}


@pytest.mark.parametrize("value", BROKEN_SEQUENCES.values(), ids=BROKEN_SEQUENCES)
def test_a_broken_sequence_is_kept_and_hinders_no_query(archive: Server, value: bytes) -> None:
    instance = Instance()
    header = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, len(value))
    instance.elements["sequence"] = header + value + b"\0" * (len(value) & 1)
    assert store(archive, instance).status == 0
    keys = Dataset()
    keys.QueryRetrieveLevel, keys.StudyInstanceUID = "SERIES", instance.study
    keys.SeriesInstanceUID, item = "", Dataset()
    item.ScheduledProcedureStepID, item.Rows = "1", 7
    keys.RequestAttributesSequence = [item]
    node = AE()
    node.add_requested_context(FIND)
    association = node.associate("127.0.0.1", archive.port)
    answers = list(association.send_c_find(keys, FIND))
    association.release()
    assert [status.Status for status, _ in answers] == [0xFF00, 0]  # nothing is known of it
    assert got(archive, instance) == [instance.data]
