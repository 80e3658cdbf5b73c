"""What the index keeps of an instance: read off the front of its file, without pydicom's parser.

`InstanceHeader.read` scans the elements of a Part 10 file up to the pixel data and keeps those of
the four levels of query/retrieve (PS3.4 C.6) as they are encoded. For each level they become a
small data set in Explicit VR Little Endian, with the instance's own character set, which is what a
query is answered from.

    header = InstanceHeader.read("1.2.3.dcm")
    header.study_uid, header.dataset(Level.STUDY)
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pydicom import Dataset

from twisted_dimse.datastream import FileSource, decode_dataset
from twisted_dimse.elements import ElementScan
from twisted_dimse.services.values import items, tags_of, texts
from twisted_dimse.transcoding import encode_values
from twisted_dimse.uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

SPECIFIC_CHARACTER_SET = 0x00080005
PATIENT_ID, PATIENT_NAME = 0x00100020, 0x00100010
STUDY_UID, SERIES_UID, SOP_UID = 0x0020000D, 0x0020000E, 0x00080018
SOP_CLASS = 0x00080016
STUDY_DATE, ACCESSION_NUMBER, MODALITY = 0x00080020, 0x00080050, 0x00080060
TIMEZONE_OFFSET = 0x00080201


class Level(StrEnum):
    """The levels of the query/retrieve models, top down."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


# The attributes that are kept of each level: its keys in PS3.4 C.6.1.1 and C.6.2.1, but for those
# that are worked out when they are asked for.
KEPT: dict[Level, tuple[int, ...]] = {
    Level.PATIENT: (
        PATIENT_NAME,
        PATIENT_ID,
        0x00100021,  # Issuer of Patient ID
        0x00100030,  # Patient's Birth Date
        0x00100032,  # Patient's Birth Time
        0x00100040,  # Patient's Sex
        0x00101001,  # Other Patient Names
        0x00102160,  # Ethnic Group
        0x00104000,  # Patient Comments
        0x00081120,  # Referenced Patient Sequence
        0x00101002,  # Other Patient IDs Sequence
    ),
    Level.STUDY: (
        STUDY_DATE,
        0x00080030,  # Study Time
        ACCESSION_NUMBER,
        0x00080090,  # Referring Physician's Name
        0x00081030,  # Study Description
        0x00081060,  # Name of Physician(s) Reading Study
        0x00081080,  # Admitting Diagnoses Description
        0x00101010,  # Patient's Age
        0x00101020,  # Patient's Size
        0x00101030,  # Patient's Weight
        0x00102180,  # Occupation
        0x001021B0,  # Additional Patient History
        STUDY_UID,
        0x00200010,  # Study ID
        0x00201070,  # Other Study Numbers
        0x00081032,  # Procedure Code Sequence
        0x00081110,  # Referenced Study Sequence
    ),
    Level.SERIES: (
        0x00080021,  # Series Date
        0x00080031,  # Series Time
        MODALITY,
        0x00080070,  # Manufacturer
        0x00080080,  # Institution Name
        0x00081010,  # Station Name
        0x0008103E,  # Series Description
        0x00081050,  # Performing Physician's Name
        0x00081070,  # Operators' Name
        0x00180015,  # Body Part Examined
        0x00181030,  # Protocol Name
        SERIES_UID,
        0x00200011,  # Series Number
        0x00200060,  # Laterality
        0x00400244,  # Performed Procedure Step Start Date
        0x00400245,  # Performed Procedure Step Start Time
        0x00400275,  # Request Attributes Sequence
    ),
    Level.IMAGE: (
        0x00080008,  # Image Type
        SOP_CLASS,
        SOP_UID,
        0x0008001A,  # Related General SOP Class UID
        0x00080022,  # Acquisition Date
        0x00080023,  # Content Date
        0x00080032,  # Acquisition Time
        0x00080033,  # Content Time
        0x00200012,  # Acquisition Number
        0x00200013,  # Instance Number
        0x00280008,  # Number of Frames
        0x00280010,  # Rows
        0x00280011,  # Columns
        0x00280100,  # Bits Allocated
        0x00400512,  # Container Identifier
        0x0040A043,  # Concept Name Code Sequence
        0x0040A504,  # Content Template Sequence
        0x00400560,  # Specimen Description Sequence
    ),
}
_SEQUENCES = frozenset(
    (
        0x00081032, 0x00081110, 0x00081120, 0x00101002,
        0x00400275, 0x00400560, 0x0040A043, 0x0040A504,
    )
)  # fmt: skip
_WANTED = frozenset(
    (SPECIFIC_CHARACTER_SET, TIMEZONE_OFFSET, *(tag for tags in KEPT.values() for tag in tags))
).difference(_SEQUENCES)
_BINARY = frozenset((0x00280010, 0x00280011, 0x00280100))  # US, in the file's byte order
_ELEMENT = struct.Struct("<HH2sH")
_NO_ITEMS = struct.calcsize("<HH2sHI")  # octets of a sequence without items
_PIECE = 1 << 16
_MOST = 1 << 24  # octets looked at, for a file in which no pixel data comes


_LONGEST_UID = 64


class Unindexable(ValueError):
    """A file that cannot be found by a query: not DICOM, or without the UIDs that it takes."""


def is_text(path: str) -> bool:
    """Whether a database can keep a path: not every name of a file is text."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def inode_of(status: os.stat_result) -> int:
    """A file's number, such that every database takes it."""
    return status.st_ino & 0x7FFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """One file's place in the index. `offset` is where its data set begins, `size` how long it
    is; `values` has the kept elements by tag, as they are encoded: of a sequence the element, of
    others the value. `inode` tells the file from a newer one of the same name."""

    path: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    offset: int
    size: int
    values: dict[int, bytes]
    inode: int = 0

    @classmethod
    def read(cls, path: str) -> InstanceHeader:
        """Raises `OSError`, and `Unindexable` for what has no place in an index."""
        try:
            source = FileSource.of(path)
        except ValueError as error:
            raise Unindexable(str(error)) from error
        scan = ElementScan(source.transfer_syntax, _WANTED, _SEQUENCES)
        with source.open() as file:
            inode = inode_of(os.fstat(file.fileno()))
            left = _MOST
            while not scan.done and left > 0 and (data := file.read(_PIECE)):
                scan.feed(data)
                left -= len(data)
        header = cls(
            path,
            source.sop_class_uid,
            source.sop_instance_uid,
            source.transfer_syntax,
            source.offset,
            source.size,
            scan.found,
            inode,
        )
        uids = (header.study_uid, header.series_uid, header.sop_instance_uid, header.sop_class_uid)
        if not header.study_uid or not header.series_uid:
            raise Unindexable(f"{path}: no Study or no Series Instance UID")
        if max(map(len, (*uids, header.transfer_syntax))) > _LONGEST_UID:
            raise Unindexable(f"{path}: a UID of more than {_LONGEST_UID} characters")
        return header

    @property
    def study_uid(self) -> str:
        return self.text(STUDY_UID)

    @property
    def series_uid(self) -> str:
        return self.text(SERIES_UID)

    def text(self, tag: int) -> str:
        """An element whose characters are plain ASCII, such as a UID or a date."""
        return self.values.get(tag, b"").decode("latin-1").strip(" \0")

    def dataset(self, level: Level) -> bytes:
        """The kept attributes of a level, encoded in Explicit VR Little Endian."""
        parts = []
        for tag in (SPECIFIC_CHARACTER_SET, *KEPT[level], TIMEZONE_OFFSET):
            value = self.values.get(tag)
            if tag in _SEQUENCES:
                if value:
                    parts.append((tag, self._sequence(tag, value)))
            elif value and len(value) < 0xFFFE and tag not in _BINARY:
                parts.append((tag, _element(tag, value)))
            elif tag in _BINARY and value and len(value) == 2:
                parts.append((tag, _element(tag, self._little_endian(value))))
        return b"".join(element for _, element in sorted(parts))

    def _sequence(self, tag: int, element: bytes) -> bytes:
        """A sequence in Explicit VR Little Endian; nothing where it has no items, or where queries
        could not read one of them."""
        syntax = self.transfer_syntax
        if syntax not in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN):
            syntax = EXPLICIT_VR_LITTLE_ENDIAN
        try:
            dataset = decode_dataset(element, syntax)
            _read_all(items(dataset, tag))
            encoded = encode_values(dataset, EXPLICIT_VR_LITTLE_ENDIAN)
        except Exception:  # of whatever pydicom makes of it
            return b""
        return encoded if len(encoded) > _NO_ITEMS else b""

    def _little_endian(self, value: bytes) -> bytes:
        return value[::-1] if self.transfer_syntax == EXPLICIT_VR_BIG_ENDIAN else value


def _read_all(some: Iterable[Dataset]) -> None:
    """Read all values, of items in items too; raises whatever that raises."""
    for item in some:
        for tag in tags_of(item):
            texts(item, tag)
            _read_all(items(item, tag))


def _element(tag: int, value: bytes) -> bytes:
    vr = _vr(tag)
    if len(value) & 1:
        value += b"\x00" if vr == b"UI" else b" "
    return _ELEMENT.pack(tag >> 16, tag & 0xFFFF, vr, len(value)) + value


@functools.cache
def _vr(tag: int) -> bytes:
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(tag)[:2].encode()
