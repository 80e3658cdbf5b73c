"""What an archive gives back to programs that take one uncompressed transfer syntax alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import Server, dcmtk, dcmtk_storescp, dimse, free_port, run, serving
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pynetdicom import AE, build_role, evt

pytestmark = pytest.mark.interop

IMPLICIT, EXPLICIT, BIG_ENDIAN = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2"))
GET = "1.2.840.10008.5.1.4.1.2.2.3"

# Explicit, deflated, big endian, RLE, JPEG 2000 and JPEG-LS, each of a study of its own.
NAMES = ["CT_small.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm",
         "US1_J2KI.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_dcmtk.dcm"]  # fmt: skip
# Its JPEG is one that no plugin decodes.
UNDECODABLE = "JPEG-lossy.dcm"


def file_named(name: str) -> Path:
    return Path(str(get_testdata_file(name)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same with SOP Instance UIDs of their own, all in one study."""
    folder = tmp_path_factory.mktemp("files")
    written = []
    for number, name in enumerate([*NAMES, UNDECODABLE], 1):
        dataset = dcmread(file_named(name))
        dataset.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.5"
        if name == UNDECODABLE:
            dataset.StudyInstanceUID += ".1"
        dataset.SeriesInstanceUID = f"{dataset.StudyInstanceUID}.{number}"
        dataset.SOPInstanceUID = f"{dataset.SeriesInstanceUID}.1"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        written.append(folder / name)
        dataset.save_as(written[-1])
    return written


@pytest.fixture(scope="module")
def destination() -> int:
    return free_port()


@pytest.fixture(scope="module")
def archive(files: list[Path], destination: int) -> Iterator[Server]:
    with serving("--peer", f"PLAIN=127.0.0.1:{destination}") as server:
        dimse("store", server.peer, *files).succeeded()
        yield server


def check(folder: Path, files: list[Path], syntax: str = IMPLICIT) -> None:
    """All of ``files`` have come, in one transfer syntax and with the same pixels."""
    numpy = pytest.importorskip("numpy")
    came = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, folder.iterdir())}
    assert len(came) == len(files)
    for path in files:
        before = dcmread(path)
        after = came[before.SOPInstanceUID]
        assert after.file_meta.TransferSyntaxUID == syntax
        assert numpy.array_equal(after.pixel_array, before.pixel_array), path.name
        assert str(after.PatientName) == str(before.PatientName)


def keys(study: str = "") -> list[str]:
    uid = f"StudyInstanceUID=1.2.826.0.1.3680043.8.498.5{study}"
    return ["-S", "-k", "0008,0052=STUDY", "-k", uid, "-aec", "X"]


@pytest.fixture
def plain(destination: int, tmp_path: Path) -> Iterator[Path]:
    """The folder of a storescp that takes Implicit VR Little Endian alone."""
    folder = tmp_path / "came"
    folder.mkdir()
    with dcmtk_storescp(folder, accept="+xi", port=destination):
        yield folder


def test_movescu_has_all_sent_to_one_who_takes_implicit_vr_alone(
    archive: Server, files: list[Path], plain: Path
) -> None:
    run(
        dcmtk("movescu"), "-aem", "PLAIN", *keys(), "127.0.0.1", archive.port
    ).succeeded()  # fmt: skip
    check(plain, files[:-1])


def test_getscu_gets_all_in_explicit_vr(archive: Server, files: list[Path], tmp_path: Path) -> None:
    run(dcmtk("getscu"), "-od", tmp_path, *keys(), "127.0.0.1", archive.port).succeeded()
    check(tmp_path, files[:-1], EXPLICIT)


def test_what_cannot_be_decoded_fails_and_the_log_says_why(archive: Server, plain: Path) -> None:
    done = run(dcmtk("movescu"), "-d", "-aem", "PLAIN", *keys(".1"), "127.0.0.1", archive.port)
    assert re.search(r"Failed Suboperations +: 1", done.said), done.said
    assert not list(plain.iterdir())
    assert "JPEG Extended (Process 2 and 4) is not taken" in done.said  # the Error Comment
    archive.wait_for_line(
        r"C-MOVE: 1 sub-operations failed: JPEG Extended .* is not taken and cannot be decoded "
        r"here: .*gdcm"
    )


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG_ENDIAN])
def test_pynetdicom_gets_all_in_the_one_syntax_that_it_takes(
    archive: Server, files: list[Path], syntax: str
) -> None:
    numpy = pytest.importorskip("numpy")
    node = AE()
    node.add_requested_context(GET)
    classes = {dcmread(path, stop_before_pixels=True).SOPClassUID for path in files[:-1]}
    for uid in classes:
        node.add_requested_context(uid, syntax)
    came: dict[str, Any] = {}

    def keep(event: Any) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        came[dataset.SOPInstanceUID] = dataset
        return 0

    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.5"
    roles = [build_role(uid, scp_role=True) for uid in classes]
    association = node.associate(
        "127.0.0.1", archive.port, ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, keep)]
    )
    assert association.is_established
    statuses = [status.Status for status, _ in association.send_c_get(identifier, GET)]
    association.release()
    assert statuses[-1] == 0
    assert len(came) == len(files) - 1
    for path in files[:-1]:
        before = dcmread(path)
        after = came[before.SOPInstanceUID]
        assert after.file_meta.TransferSyntaxUID == syntax
        assert numpy.array_equal(after.pixel_array, before.pixel_array), path.name


def test_dimse_store_sends_all_in_implicit_vr(
    files: list[Path], plain: Path, destination: int
) -> None:
    done = dimse("store", f"X@127.0.0.1:{destination}", *files[:-1])
    done.succeeded()
    check(plain, files[:-1])


def test_dimse_store_says_what_it_could_not_decode(
    files: list[Path], plain: Path, destination: int
) -> None:
    done = dimse("store", f"X@127.0.0.1:{destination}", files[-1], "--json")
    assert done.status == 1
    assert "cannot be decoded here" in done.out
    assert not list(plain.iterdir())
