"""Data sets as streams: sources of each kind, encoding and decoding, and files of Part 10."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import struct
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import corpus
import pydicom
import pytest
from facts import examples, name_of
from hypothesis import given
from hypothesis import strategies as st
from memory import BIG_ENDIAN, CT, DEFLATED, EXPLICIT, IMPLICIT, JPEG, Tracked, encoded
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from twisted_dimse import StatusError
from twisted_dimse.datastream import (
    MAX_DATA_SET,
    BytesSource,
    CollectingSink,
    DatasetSource,
    DiscardingSink,
    FileSource,
    NotDicom,
    as_source,
    decode_dataset,
    encode_dataset,
    expand_paths,
    part10_header,
    syntaxes_for,
)

UNCOMPRESSED = [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED]
# Between these a data set can be encoded anew without a look at its pixels.
LITTLE_ENDIAN = [IMPLICIT, EXPLICIT, DEFLATED]
ROWS = examples("data_set")
IMAGES = corpus.images()
CT_SMALL = get_testdata_file("CT_small.dcm")


# --- encoding and decoding


def dataset_of(row: Any) -> Dataset:
    dataset = Dataset()
    for tag, vr, _keyword, value in row["meaning"]["elements"]:
        dataset.add_new(int(tag, 16), vr, value)
    return dataset


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_a_data_set_is_encoded_as_the_standard_shows(row: Any) -> None:
    data = encode_dataset(dataset_of(row), row["transfer_syntax"])
    expected = bytes.fromhex(row["hex"])
    if row["transfer_syntax"] == DEFLATED:  # another compressor may give other octets
        data, expected = (zlib.decompressobj(-15).decompress(one) for one in (data, expected))
    assert data == expected
    assert len(data) % 2 == 0


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_a_data_set_is_read_as_the_standard_shows(row: Any) -> None:
    dataset = decode_dataset(bytes.fromhex(row["hex"]), row["transfer_syntax"])
    found = [
        [f"{int(element.tag):08X}", element.VR, element.keyword, str(element.value or "")]
        for element in dataset
    ]
    assert found == row["meaning"]["elements"]


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_what_is_encoded_can_be_read_again(syntax: str) -> None:
    dataset = dcmread(CT_SMALL)
    data = encode_dataset(dataset, syntax)
    assert len(data) % 2 == 0
    assert decode_dataset(data, syntax) == dataset
    assert decode_dataset(io.BytesIO(data), syntax) == dataset


def test_group_2_stays_out_of_the_data_set() -> None:
    dataset = Dataset()
    dataset.PatientID = "7"
    dataset.file_meta = dcmread(CT_SMALL).file_meta
    assert encode_dataset(dataset, IMPLICIT) == bytes.fromhex("10002000020000003720")


def test_a_data_set_that_pydicom_cannot_write_is_an_error() -> None:
    dataset = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.add_new(0x00280010, "US", "not a number")
    with pytest.raises(ValueError):
        encode_dataset(dataset, EXPLICIT)


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
@given(data=st.binary(max_size=300))
def test_any_octets_are_a_data_set_or_an_error(syntax: str, data: bytes) -> None:
    with warnings.catch_warnings(), contextlib.suppress(ValueError):
        warnings.simplefilter("ignore")
        decode_dataset(data, syntax)


def test_a_deflated_bomb_is_refused_before_it_goes_off() -> None:
    deflate = zlib.compressobj(9, wbits=-15)
    zeros = bytes(1 << 20)
    data = b"".join(deflate.compress(zeros) for _ in range(80)) + deflate.flush()
    assert len(data) < 1 << 20
    with pytest.raises(ValueError, match="inflates to over"):
        decode_dataset(data, DEFLATED)


def test_a_deflated_data_set_may_be_padded() -> None:
    data = encode_dataset(dcmread(CT_SMALL), DEFLATED)
    assert decode_dataset(data + b"\0", DEFLATED).PatientID == dcmread(CT_SMALL).PatientID


# --- files


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_a_file_is_a_source_of_its_data_set(image: Any) -> None:
    source = FileSource.of(image.path)
    assert source.offset == image.offset
    assert source.size == image.path.stat().st_size - image.offset
    assert source.transfer_syntax == image.syntax
    assert (source.sop_class_uid, source.sop_instance_uid) == (image.sop_class, image.uid)
    with source.open() as file:
        assert file.read() == image.path.read_bytes()[image.offset :]


@pytest.mark.parametrize("name", corpus.NOT_TO_BE_SENT)
def test_what_cannot_be_sent_says_so(name: str) -> None:
    with pytest.raises(NotDicom) as caught:
        FileSource.of(corpus.file_named(name))
    assert str(corpus.file_named(name)) in str(caught.value)


def test_a_file_is_read_only_at_its_head(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    header = part10_header(CT, "1.2.3", EXPLICIT)
    with path.open("wb") as file:
        file.write(header + encoded("1.2.3"))
        file.truncate(1 << 40)  # sparse
    source = FileSource.of(path)
    assert source.size == (1 << 40) - len(header)


def test_a_long_file_meta_information_is_read_to_its_end(tmp_path: Path) -> None:
    private = b"\2\0\2\1OB\0\0" + struct.pack("<I", 100_000) + bytes(100_000)
    header = part10_header(CT, "1.2.3", EXPLICIT)
    path = tmp_path / "long.dcm"
    path.write_bytes(header + private + encoded("1.2.3"))
    source = FileSource.of(path)
    assert source.offset == len(header) + len(private)
    with source.open() as file:
        assert file.read() == encoded("1.2.3")


@given(cut=st.integers(0, 400))
def test_a_file_that_is_cut_off_is_a_source_or_none(cut: int) -> None:
    content = part10_header(CT, "1.2.3", EXPLICIT) + encoded("1.2.3")
    with tempfile.NamedTemporaryFile() as file:
        file.write(content[:cut])
        file.flush()
        try:
            source = FileSource.of(file.name)
        except NotDicom:
            return
        assert source.size >= 0
        assert source.sop_instance_uid == "1.2.3"


@given(data=st.binary(max_size=600), marked=st.booleans())
def test_any_file_is_a_source_or_none(data: bytes, marked: bool) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(128) + b"DICM" + data if marked else data)
        file.flush()
        with contextlib.suppress(NotDicom):
            FileSource.of(file.name)


def test_a_file_that_cannot_be_read_is_an_os_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.dcm"):
        with pytest.raises(OSError):
            FileSource.of(path)


def test_a_source_can_be_opened_again() -> None:
    source = FileSource.of(CT_SMALL)
    with source.open() as first, source.open() as second:
        assert first.read() == second.read()


# --- other sources


def test_a_path_a_dataset_and_a_source_are_sources(tmp_path: Path) -> None:
    dataset = dcmread(CT_SMALL)
    tracked = Tracked()
    plain = BytesSource(CT, "1.2.3", EXPLICIT, b"data")
    assert isinstance(as_source(CT_SMALL), FileSource)
    assert isinstance(as_source(Path(CT_SMALL)), FileSource)
    assert isinstance(as_source(dataset), DatasetSource)
    assert as_source(tracked) is tracked
    assert as_source(plain) is plain
    assert plain.open().read() == b"data"


@pytest.mark.parametrize(
    "nothing", [None, 7, object(), Dataset(), b"octets"], ids=lambda nothing: type(nothing).__name__
)
def test_anything_else_is_no_source(nothing: Any) -> None:
    with pytest.raises(TypeError):
        as_source(nothing)


def _with_meta(syntax: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, "1.2.3"
    return dataset


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, JPEG])
def test_a_dataset_says_its_transfer_syntax(syntax: str) -> None:
    source = as_source(_with_meta(syntax))
    assert source.transfer_syntax == syntax
    assert (source.sop_class_uid, source.sop_instance_uid) == (CT, "1.2.3")


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_a_dataset_without_meta_is_as_it_was_read(syntax: str) -> None:
    dataset = decode_dataset(encode_dataset(_with_meta(syntax), syntax), syntax)
    assert as_source(dataset).transfer_syntax == syntax


def test_a_new_dataset_is_explicit() -> None:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, "1.2.3"
    assert as_source(dataset).transfer_syntax == EXPLICIT


@pytest.mark.parametrize("own", LITTLE_ENDIAN)
def test_an_uncompressed_dataset_can_be_sent_in_all_little_endian_syntaxes(own: str) -> None:
    source = as_source(_with_meta(own))
    assert syntaxes_for(source)[0] == own
    assert sorted(syntaxes_for(source)) == sorted(LITTLE_ENDIAN)
    for syntax in LITTLE_ENDIAN:
        other = source.in_syntax(syntax)  # type: ignore[attr-defined]
        with other.open() as file:
            assert decode_dataset(file.read(), syntax) == _with_meta(own)


@pytest.mark.parametrize(
    "source",
    [_with_meta(JPEG), _with_meta(BIG_ENDIAN), CT_SMALL, BytesSource(CT, "1.2.3", IMPLICIT, b"")],
    ids=type,
)
def test_anything_else_goes_out_as_it_is(source: Any) -> None:
    source = as_source(source)
    assert syntaxes_for(source) == (source.transfer_syntax,)


# --- the header of a file


@pytest.mark.parametrize("title", ["", "A", "AB", "SIXTEEN_LETTERS!"])
@pytest.mark.parametrize("instance", ["1.2.3", "1.2.34", "1." + "2" * 62])
def test_the_header_is_read_by_pydicom(title: str, instance: str) -> None:
    data = encoded(instance, 100)
    file = io.BytesIO(part10_header(CT, instance, EXPLICIT, title) + data)
    dataset = dcmread(file)
    meta = dataset.file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT, instance)
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.get("SourceApplicationEntityTitle", "") == title
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.ImplementationVersionName
    pydicom.dataset.validate_file_meta(meta, enforce_standard=True)
    assert dataset.SOPInstanceUID == instance
    length = meta.FileMetaInformationGroupLength
    assert file.getvalue()[132 + 12 + length :] == data


def test_the_header_and_a_file_are_each_other(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(part10_header(CT, "1.2.3", IMPLICIT, "ME") + b"the data")
    source = FileSource.of(path)
    assert source == FileSource(str(path), CT, "1.2.3", IMPLICIT, source.offset, 8)


# --- sinks


def test_a_collecting_sink_hands_over_what_it_collected() -> None:
    sink = CollectingSink(lambda data: data[::-1])
    for part in (b"ab", memoryview(b"cd"), b""):
        sink.write(part)
    assert sink.finish() == b"dcba"


def test_a_collecting_sink_is_bounded() -> None:
    sink = CollectingSink(bytes, 10)
    sink.write(bytes(10))
    with pytest.raises(StatusError) as caught:
        sink.write(b"1")
    assert caught.value.status == 0x0213
    sink.abandon()
    assert MAX_DATA_SET == 64 << 20


def test_a_discarding_sink_is_always_content() -> None:
    sink = DiscardingSink()
    sink.write(b"data")
    assert sink.finish() == 0
    sink.abandon()


# --- folders


def test_folders_are_walked_in_order_of_name(tmp_path: Path) -> None:
    for name in ("b/2.dcm", "b/1.dcm", "a/x/3.dcm", "c.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [Path(path).relative_to(tmp_path).as_posix() for path in expand_paths([str(tmp_path)])]
    assert found == ["c.dcm", "a/x/3.dcm", "b/1.dcm", "b/2.dcm"]
    assert list(expand_paths([tmp_path / "c.dcm", "absent"])) == [str(tmp_path / "c.dcm"), "absent"]


def test_links_to_folders_are_followed_and_not_round_in_circles(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "1.dcm").touch()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "there")
    (tmp_path / "here" / "round").symlink_to(tmp_path / "here")
    assert list(expand_paths([tmp_path / "here"])) == [f"{tmp_path}/here/linked/1.dcm"]


def test_a_folder_that_cannot_be_listed_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "1.dcm").touch()
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = [Path(path).name for path in expand_paths([tmp_path])]
    assert found == ["1.dcm", "closed"]
