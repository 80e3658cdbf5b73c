"""Data sets as streams: sources to send from, sinks to receive into, and the Part 10 header.

A *source* has `sop_class_uid`, `sop_instance_uid`, `transfer_syntax` and ``open()``, which gives a
binary file at the data set's first byte. `as_source` makes one of a path or a pydicom Dataset.
A *sink* has ``write(slice)``, ``finish()`` and ``abandon()``; see `Sink`.

    source = as_source("image.dcm")
    with source.open() as data: ...
    part10_header(sop_class_uid, sop_instance_uid, transfer_syntax) + data    # a file again

This is the one place where data sets are encoded and decoded, by pydicom, when somebody wants to
look at one (PS3.5, PS3.10 7).
"""

from __future__ import annotations

import errno
import functools
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from twisted_dimse.dimse.status import RESOURCE_LIMITATION
from twisted_dimse.elements import SOP_CLASS_UID, SOP_INSTANCE_UID, ElementScan
from twisted_dimse.errors import StatusError
from twisted_dimse.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
    UNCOMPRESSED_TRANSFER_SYNTAXES,
    is_valid_uid,
)

if TYPE_CHECKING:
    from pydicom import Dataset
    from twisted.internet.defer import Deferred

MAX_DATA_SET = 64 << 20  # of a data set that is held in memory, not of an instance
_HEAD, _LONGEST_HEAD = 4096, 1 << 20
_PREAMBLE = 128
_BEFORE_META = bytes(_PREAMBLE) + b"DICM"
_LITTLE_ENDIAN = tuple(
    uid for uid in UNCOMPRESSED_TRANSFER_SYNTAXES if uid != EXPLICIT_VR_BIG_ENDIAN
)
_SMALL = 65536  # a data set that is read at once
_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"


class NotDicom(ValueError):
    """A file in which no data set that could be sent was found."""


class Source(Protocol):
    """An instance to send; `open` may be called more than once."""

    @property
    def sop_class_uid(self) -> str: ...

    @property
    def sop_instance_uid(self) -> str: ...

    @property
    def transfer_syntax(self) -> str: ...

    def open(self) -> BinaryIO: ...


class Sink(Protocol):
    """Takes one data set as it arrives.

    `write` gets a slice that is valid until it returns; a Deferred from it pauses the transport
    until it fires. After the last slice `finish` gives the status, now or by Deferred. `abandon`
    is called instead where the association ended first. A sink that has a method `write_slices`
    gets a list of those that came together at one stroke instead.
    """

    def write(self, data: bytes | memoryview) -> Deferred[Any] | None: ...

    def finish(self) -> Any: ...

    def abandon(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """The data set of a file on disk, from octet `offset` to the end, as it is encoded there."""

    path: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The whole data set; for a small one that costs less than `open`. Raises `OSError`."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, self.size, self.offset)
        finally:
            os.close(descriptor)
        if len(data) < self.size:
            raise OSError(errno.EIO, "the file has become shorter", self.path)
        return data

    def open(self) -> BinaryIO:
        file = open(self.path, "rb", buffering=0)
        file.seek(self.offset)
        return file

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileSource:
        """Read the header of a DICOM file, with or without file meta information.

        The SOP Class and Instance UID are those of the data set, which is what is sent; where
        it has none that are valid, those of the file meta information. Raises `NotDicom` where
        there is none, and `OSError`.
        """
        name = os.fspath(path)
        # What is no file, such as a FIFO, is not waited for.
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            head = os.read(descriptor, _HEAD)
            size = os.fstat(descriptor).st_size
            meta, offset = _file_meta(head)
            if offset + 12 > len(head) and size > len(head):
                head += os.read(descriptor, _LONGEST_HEAD)
                meta, offset = _file_meta(head)
        finally:
            os.close(descriptor)
        if offset > size:
            raise NotDicom(f"{name}: cut off within its file meta information")
        syntax = _text(meta, 0x0010) or _guess_syntax(head[offset : offset + 12])
        if syntax is None:
            raise NotDicom(f"{name}: not a DICOM file")
        sop_class, sop_instance = _text(meta, 0x0002), _text(meta, 0x0003)
        if not _agrees(meta, head):
            scan = ElementScan(syntax, (SOP_CLASS_UID, SOP_INSTANCE_UID))
            scan.feed(head[offset:])
            if not scan.done:
                _scan_file(scan, name, offset + len(head[offset:]))
            sop_class = _first_valid(scan.text(SOP_CLASS_UID), sop_class)
            sop_instance = _first_valid(scan.text(SOP_INSTANCE_UID), sop_instance)
        if sop_class == _MEDIA_STORAGE_DIRECTORY:
            raise NotDicom(f"{name}: a DICOMDIR, which belongs to media and is never sent")
        if not (sop_class and sop_instance):
            raise NotDicom(f"{name}: no SOP Class UID or no SOP Instance UID")
        return cls(name, sop_class, sop_instance, syntax, offset, size - offset)


@dataclass(frozen=True, slots=True)
class BytesSource:
    """An encoded data set in memory."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    data: bytes

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A pydicom Dataset, encoded when it is opened."""

    dataset: Dataset
    transfer_syntax: str

    @property
    def sop_class_uid(self) -> str:
        return str(self.dataset.SOPClassUID)

    @property
    def sop_instance_uid(self) -> str:
        return str(self.dataset.SOPInstanceUID)

    def open(self) -> BinaryIO:
        return io.BytesIO(encode_dataset(self.dataset, self.transfer_syntax))

    def in_syntax(self, transfer_syntax: str) -> DatasetSource:
        """The same Dataset to be encoded otherwise; only between uncompressed syntaxes."""
        return DatasetSource(self.dataset, transfer_syntax)


def as_source(item: Any) -> Source:
    """A source of what a caller may hand over: a path, a pydicom Dataset, or a source already.

    Raises `NotDicom` or `OSError` for a path that cannot be sent, `TypeError` for anything else.
    """
    if isinstance(item, (str, os.PathLike)):
        return FileSource.of(item)
    if isinstance(item, (FileSource, BytesSource, DatasetSource)) or hasattr(item, "open"):
        source: Source = item
        return source
    if hasattr(item, "SOPInstanceUID") and hasattr(item, "SOPClassUID"):
        return DatasetSource(item, _syntax_of(item))
    what = "a Dataset without one of them" if hasattr(item, "to_json_dict") else repr(item)
    raise TypeError(
        f"neither a path, a Dataset with SOP Class and Instance UID nor a source: {what}"
    )


def opener(source: Source) -> Callable[[], bytes | BinaryIO]:
    """How to get at the data set of a source when it is to be sent: whole where it is small."""
    if isinstance(source, FileSource) and source.size <= _SMALL:
        return source.read
    return source.open


def syntaxes_for(source: Source) -> tuple[str, ...]:
    """The transfer syntaxes in which a source can be sent, the best one first."""
    if isinstance(source, DatasetSource):
        own = source.transfer_syntax
        if own in _LITTLE_ENDIAN:  # words of pixels would have to be swapped otherwise
            return (own, *(uid for uid in _LITTLE_ENDIAN if uid != own))
    return (source.transfer_syntax,)


# --- encoding, by pydicom


def encode_dataset(dataset: Dataset, transfer_syntax: str) -> bytes:
    """The data set, encoded and of even length. Group 0002 is left out.

    Raises `ValueError` where pydicom cannot write it.
    """
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    file = DicomBytesIO()
    file.is_little_endian = transfer_syntax != EXPLICIT_VR_BIG_ENDIAN
    file.is_implicit_VR = transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
    try:
        write_dataset(file, dataset)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"data set cannot be encoded: {error}") from error
    data = file.getvalue()
    if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = deflate.compress(data) + deflate.flush()
    return data + b"\x00" if len(data) & 1 else data


def decode_dataset(
    data: bytes | BinaryIO, transfer_syntax: str, limit: int = MAX_DATA_SET
) -> Dataset:
    """A pydicom Dataset of an encoded one, whose values pydicom parses when they are looked at.

    Raises `ValueError` for what is not a data set, or inflates to over ``limit`` octets.
    """
    from pydicom.filereader import read_dataset

    file = io.BytesIO(data) if isinstance(data, bytes) else data
    if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        file = io.BytesIO(_inflate(file.read(), limit))
    implicit = transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
    try:
        dataset = read_dataset(file, implicit, transfer_syntax != EXPLICIT_VR_BIG_ENDIAN)
    except Exception as error:
        raise ValueError(f"data set cannot be read: {error}") from error
    return dataset


def set_transfer_syntax(dataset: Dataset, transfer_syntax: str) -> None:
    """Note how a Dataset was encoded, as pydicom has it for one that was read from a file."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)


def _inflate(data: bytes, limit: int) -> bytes:
    try:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        plain = inflate.decompress(data, limit)
    except zlib.error as error:
        raise ValueError(f"deflated data set cannot be inflated: {error}") from error
    if inflate.unconsumed_tail:
        raise ValueError(f"deflated data set inflates to over {limit} octets")
    return plain


# --- receiving


class CollectingSink:
    """Holds a data set, at most ``limit`` octets of it, and hands it to ``done`` when complete."""

    def __init__(self, done: Any, limit: int = MAX_DATA_SET) -> None:
        self._done = done
        self._limit = limit
        self._data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        if len(self._data) + len(data) > self._limit:
            self._data.clear()
            raise StatusError(RESOURCE_LIMITATION, f"data set of over {self._limit} octets")
        self._data += data

    def finish(self) -> Any:
        data, self._data = bytes(self._data), bytearray()
        return self._done(data)

    def abandon(self) -> None:
        self._data.clear()


class DiscardingSink:
    """Takes a data set and keeps nothing of it; answers success."""

    def write(self, data: bytes | memoryview) -> None:
        pass

    def finish(self) -> int:
        return 0

    def abandon(self) -> None:
        pass


# --- PS3.10 files

_ELEMENT = struct.Struct("<HH2sH")
_GROUP_LENGTH = struct.Struct("<HH2sHI")


def part10_header(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, source_ae_title: str = ""
) -> bytes:
    """Preamble, prefix and file meta information (PS3.10 7.1) to stand before a data set."""
    before, behind = _meta_around(sop_class_uid, transfer_syntax, source_ae_title)
    uid = _meta_uid(0x0003, sop_instance_uid)
    length = _GROUP_LENGTH.pack(2, 0, b"UL", 4, len(before) + len(uid) + len(behind))
    return b"".join((_BEFORE_META, length, before, uid, behind))


@functools.lru_cache(64)
def _meta_around(
    sop_class_uid: str, transfer_syntax: str, source_ae_title: str
) -> tuple[bytes, bytes]:
    """What stands in the file meta information before and behind the SOP Instance UID."""
    before = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01" + _meta_uid(
        0x0002, sop_class_uid
    )
    behind = _meta_uid(0x0010, transfer_syntax) + _META_IMPLEMENTATION
    if source_ae_title:
        behind += _meta_element(0x0016, b"AE", source_ae_title.encode("latin-1"), b" ")
    return before, behind


def _meta_element(element: int, vr: bytes, data: bytes, padding: bytes) -> bytes:
    if len(data) & 1:
        data += padding
    return _ELEMENT.pack(2, element, vr, len(data)) + data


def _meta_uid(element: int, uid: str) -> bytes:
    return _meta_element(element, b"UI", uid.encode("latin-1"), b"\x00")


_META_IMPLEMENTATION = _meta_uid(0x0012, IMPLEMENTATION_CLASS_UID) + _meta_element(
    0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode(), b" "
)


def _file_meta(head: bytes) -> tuple[dict[int, bytes], int]:
    """The elements of group 0002 at the front of a file, and where the data set begins."""
    offset = _PREAMBLE + 4 if head[_PREAMBLE : _PREAMBLE + 4] == b"DICM" else 0
    meta: dict[int, bytes] = {}
    while offset + 8 <= len(head):
        group, element, vr, length = _ELEMENT.unpack_from(head, offset)
        if group != 2:
            break
        value = offset + 8
        if vr in (b"OB", b"UN", b"UT"):
            if offset + 12 > len(head):
                break
            length = int.from_bytes(head[offset + 8 : offset + 12], "little")
            value = offset + 12
        meta[element] = head[value : value + length]
        offset = value + length
    return meta, offset


def _text(meta: dict[int, bytes], element: int) -> str:
    return meta.get(element, b"").rstrip(b"\x00 ").decode("latin-1")


def _agrees(meta: dict[int, bytes], head: bytes) -> bool:
    """Whether the data set in ``head`` has the UIDs of the file meta information, as explicit
    VR encodes them; so it is with most files, and the data set need not be scanned."""
    sop_class, sop_instance = meta.get(0x0002), meta.get(0x0003)
    if not (sop_class and sop_instance) or len(sop_class) > 64 or len(sop_instance) > 64:
        return False
    named = b"\x08\x00\x16\x00UI%c\x00%s\x08\x00\x18\x00UI%c\x00%s"
    return named % (len(sop_class), sop_class, len(sop_instance), sop_instance) in head


def _first_valid(data_set_uid: str, meta_uid: str) -> str:
    return data_set_uid if is_valid_uid(data_set_uid) or not meta_uid else meta_uid


def _guess_syntax(start: bytes) -> str | None:
    """The transfer syntax of a data set without file meta information, by its first element."""
    if len(start) < 8:
        return None
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    if start[1] == 0 and start[0] in (0x00, 0x02, 0x04, 0x08):
        if explicit:
            return EXPLICIT_VR_LITTLE_ENDIAN
        length = int.from_bytes(start[4:8], "little")
        return IMPLICIT_VR_LITTLE_ENDIAN if length < 1 << 16 else None
    if start[0] == 0 and start[1] in (0x04, 0x08) and explicit:
        return EXPLICIT_VR_BIG_ENDIAN
    return None


def _scan_file(scan: ElementScan, path: str, offset: int) -> None:
    with Path(path).open("rb") as file:
        file.seek(offset)
        while not scan.done and (data := file.read(1 << 16)):
            scan.feed(data)


def _syntax_of(dataset: Any) -> str:
    """The transfer syntax a Dataset says it has, or the default for one that says nothing."""
    meta = getattr(dataset, "file_meta", None)
    syntax = getattr(meta, "TransferSyntaxUID", None)
    if syntax:
        return str(syntax)
    implicit, little = getattr(dataset, "original_encoding", (None, None))
    if little is False:
        return EXPLICIT_VR_BIG_ENDIAN
    return IMPLICIT_VR_LITTLE_ENDIAN if implicit else EXPLICIT_VR_LITTLE_ENDIAN


def expand_paths(paths: Iterable[str | os.PathLike[str]]) -> Iterable[str]:
    """The files that ``paths`` name, folders walked in order of name. A folder that cannot be
    listed is among them: who opens it learns why."""
    for path in paths:
        name = os.fspath(path)
        if not os.path.isdir(name):
            yield name
            continue
        unlisted: list[OSError] = []
        yield from files_below(name, unlisted)
        yield from (os.fspath(error.filename) for error in unlisted)


def files_below(top: str, unlisted: list[OSError]) -> Iterator[str]:
    """The files below a folder, in order of name; errors of folders go to ``unlisted``. A link to
    a folder is followed, once, unless it leads to what it lies in."""
    followed: set[str] = set()

    def leads_on(path: str) -> bool:
        if not os.path.islink(path):
            return True
        target = os.path.realpath(path)
        inside = f"{os.path.realpath(os.path.dirname(path))}/".startswith(f"{target}/")
        if inside or target in followed:
            return False
        followed.add(target)
        return True

    for where, folders, files in os.walk(top, onerror=unlisted.append, followlinks=True):
        folders[:] = (name for name in sorted(folders) if leads_on(os.path.join(where, name)))
        for file in sorted(files):
            yield os.path.join(where, file)
