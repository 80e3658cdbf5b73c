"""`dimse store` and the library send to real receivers, which get what the files hold.

Every file of pydicom and pydicom-data goes to DCMTK's storescp, which keeps octets as they come,
and to pynetdicom's server; pynetdicom's storescp, which names files by SOP Instance UID, gets the
largest batch without two files of the same instance.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import corpus
import peers
import pydicom
import pytest
from corpus import Image

pytestmark = pytest.mark.interop

COLOR_PALETTE_STORAGE = "1.2.840.10008.5.1.4.39.1"
_PALETTES = {
    f"palettes/{name}.dcm": "Color Palette Storage is not accepted"
    for name in (
        "fall",
        "hotiron",
        "hotmetalblue",
        "pet",
        "pet20step",
        "spring",
        "summer",
        "winter",
    )
}
_RETIRED = "the retired SOP class is not accepted"
_NO_UIDS = "C210H: no SOP Class and SOP Instance UID in the data set"
#: What a receiver refuses, and why.
REFUSED: dict[str, dict[str, str]] = {
    "storescp-of-DCMTK": _PALETTES,
    "pynetdicom": {
        "color-pl.dcm": _RETIRED,
        "color-px.dcm": _RETIRED,
    },
    "storescp-of-pynetdicom": {
        **_PALETTES,
        "color-pl.dcm": _RETIRED,
        "charset_files/chrSQEncoding.dcm": _NO_UIDS,
        "test_files/UN_sequence.dcm": _NO_UIDS,
        "test_files/no_meta_group_length.dcm": _NO_UIDS,
        "test_files/priv_SQ.dcm": _NO_UIDS,
        "test_files/SC_rgb_jpeg.dcm": "A701H: not in the transfer syntax that it says",
    },
}

#: What a receiver has got: data sets, by SOP Instance UID where it keeps that.
Received = Callable[[], list[tuple[str, bytes]]]
Receiver = Callable[[Path], AbstractContextManager[tuple[int, Received]]]


@contextmanager
def storescp_of_dcmtk(folder: Path) -> Iterator[tuple[int, Received]]:
    def received() -> list[tuple[str, bytes]]:
        return [("", corpus.data_set_of(path)) for path in folder.iterdir()]

    with peers.dcmtk_storescp(folder, "+uf", "-pdu", "131072") as port:
        yield port, received


@contextmanager
def server_of_pynetdicom(_folder: Path) -> Iterator[tuple[int, Received]]:
    from pynetdicom import AE, AllStoragePresentationContexts, evt
    from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

    came: list[tuple[str, bytes]] = []

    def keep(event: Any) -> int:
        request = event.request
        came.append((str(request.AffectedSOPInstanceUID), request.DataSet.getvalue()))
        return 0

    entity = AE(ae_title="PYNETDICOM")
    entity.maximum_pdu_size = 0
    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, corpus.syntaxes())
    entity.add_supported_context(COLOR_PALETTE_STORAGE, corpus.syntaxes())
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)]
    )
    assert server is not None
    try:
        yield server.server_address[1], lambda: came
    finally:
        server.shutdown()


RECEIVERS: dict[str, Receiver] = {
    "storescp-of-DCMTK": storescp_of_dcmtk,
    "pynetdicom": server_of_pynetdicom,
}


def by_dimse_store(port: int, images: list[Image], _folder: Path) -> dict[str, int]:
    """Status by path."""
    words = ["store", f"ANY-SCP@127.0.0.1:{port}", *(image.path for image in images), "--json"]
    done = peers.dimse(*words, seconds=60)
    *lines, summary = (json.loads(line) for line in done.out.splitlines())
    count = len(images)
    assert summary["sent"] + summary["failed"] == count, done.err
    assert done.status == (1 if summary["failed"] else 0), done.err
    return {line["path"]: line["status"] for line in lines}


def by_the_library(port: int, images: list[Image], folder: Path) -> dict[str, int]:
    job = folder / "job.json"
    job.write_text(json.dumps([(str(i.path), i.sop_class, i.syntax) for i in images]))
    program = Path(__file__).with_name("send_with_library.py")
    command = [sys.executable, program, f"ANY-SCP@127.0.0.1:{port}", job]
    done = peers.run(command, seconds=60).succeeded()
    return dict(json.loads(line) for line in done.out.splitlines())


SENDERS = {"dimse-store": by_dimse_store, "library": by_the_library}


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("receiver", RECEIVERS)
def test_every_file_arrives_as_it_is(receiver: str, sender: str, tmp_path: Path) -> None:
    folder = tmp_path / "received"
    folder.mkdir()
    images = list(corpus.images())
    with RECEIVERS[receiver](folder) as (port, received):
        statuses = SENDERS[sender](port, images, tmp_path)
    came = received()

    refused = {image.name for image in images if statuses[str(image.path)] != 0}
    assert refused == REFUSED[receiver].keys()
    named = any(uid for uid, _ in came)
    difference = Counter((i.uid * named, i.data) for i in images if i.name not in refused)
    difference.subtract(came)
    assert {uid or len(data) for (uid, data), count in difference.items() if count} == set()


def test_storescp_of_pynetdicom_keeps_the_same_data_sets(tmp_path: Path) -> None:
    """It writes what pydicom makes of them, in files with the data sets' SOP Instance UIDs."""
    folder = tmp_path / "received"
    folder.mkdir()
    images = max(corpus.batches(corpus.images()), key=len)
    with peers.pynetdicom_storescp(folder) as port:
        statuses = by_dimse_store(port, images, tmp_path)

    refused = {image.name for image in images if statuses[str(image.path)] != 0}
    assert refused == REFUSED["storescp-of-pynetdicom"].keys()
    kept = {re.sub(r"^[A-Z]+\.", "", path.name): path for path in folder.iterdir()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        different = {
            image.name
            for image in images
            if image.name not in refused and read(image.path) != read(kept.pop(name_of(image)))
        }
    assert different == set()
    assert kept.keys() <= {name_of(image) for image in images if image.name in refused}


def name_of(image: Image) -> str:
    """What pynetdicom's storescp calls a file, without its prefix."""
    return re.sub(r"[^\d.]", "_", image.data_uid)


def read(path: Path) -> pydicom.Dataset:
    """A data set without its group lengths, which pydicom does not write."""
    dataset = pydicom.dcmread(path, force=True)
    for tag in sorted(dataset.keys()):
        if tag.element == 0:
            del dataset[tag]
    return dataset
