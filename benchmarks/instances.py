"""Synthetic secondary-capture instances of exactly the wanted size, by the thousand.

A data set is a short head, which alone knows the UIDs, and pixels, which are the same for all:
octet ``n`` of the pixel data is ``n & 255``. So neither many nor large instances are ever held.

    shape = Shape(8192)                       # octets of the data set, Explicit VR Little Endian
    for instance in batch(1000): shape.head(instance) + pixels(0, shape.pixels)
    write_folder(folder, shape, batch(1000))  # Part 10 files
"""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.wire import EXPLICIT, IMPLEMENTATION_CLASS, SECONDARY_CAPTURE

INSTANCES_OF_A_SERIES = 100
SERIES_OF_A_STUDY = 5
STUDIES_OF_A_PATIENT = 2

_PERIOD = bytes(range(256))
_PATTERN = memoryview(_PERIOD * 4097)  # 1 MiB from any start within the period
LONGEST_SLICE = len(_PATTERN) - 256

_batches = itertools.count(time.time_ns() // 1_000_000)


@dataclass(frozen=True, slots=True)
class Instance:
    """Number ``number`` of batch ``batch``; its series, study and patient follow from these."""

    batch: int
    number: int

    @property
    def uid(self) -> str:
        """SOP Instance UID, 44 characters like all the others."""
        return _uid(1, self.batch, self.number)

    @property
    def series(self) -> int:
        """The number of its series within the batch."""
        return self.number // INSTANCES_OF_A_SERIES

    @property
    def study(self) -> int:
        """The number of its study within the batch."""
        return self.series // SERIES_OF_A_STUDY

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return _uid(2, self.batch, self.study)

    @property
    def patient(self) -> int:
        """The number of its patient within the batch."""
        return self.study // STUDIES_OF_A_PATIENT


def batch(count: int) -> list[Instance]:
    """``count`` instances whose UIDs were never given out before."""
    number = next(_batches)
    return [Instance(number, n) for n in range(count)]


class Shape:
    """How a data set of ``size`` octets is laid out: its head, and so many ``pixels``."""

    def __init__(self, size: int) -> None:
        probe = Instance(0, 0)
        self.size = size
        self._columns = min(1 << (size.bit_length() + 1) // 2, 32768)
        self._rows = self._padding = 0
        room = size - len(self.head(probe))
        if room < 0:
            raise ValueError(f"no data set fits into {size} octets")
        if room < self._columns:
            self._columns = 2
        self._rows = min(room // self._columns, 65535)
        self.pixels = self._rows * self._columns
        self._padding = room - self.pixels

    def head(self, instance: Instance) -> bytes:
        """The octets of ``instance`` up to its first pixel; as many for every instance."""
        elements = [
            _element(0x0008, 0x0016, b"UI", SECONDARY_CAPTURE),
            _element(0x0008, 0x0018, b"UI", instance.uid),
            _element(0x0008, 0x0020, b"DA", "20240229"),
            _element(0x0008, 0x0030, b"TM", "101500"),
            _element(0x0008, 0x0050, b"SH", f"A{instance.study:07d}"),
            _element(0x0008, 0x0060, b"CS", "OT"),
            _element(0x0008, 0x0064, b"CS", "WSD"),
            _element(0x0010, 0x0010, b"PN", f"BENCHMARK^PATIENT{instance.patient:07d}"),
            _element(0x0010, 0x0020, b"LO", f"BENCH-{instance.patient:07d}"),
            _element(0x0010, 0x0030, b"DA", "19700101"),
            _element(0x0010, 0x0040, b"CS", "O"),
            _element(0x0020, 0x000D, b"UI", instance.study_uid),
            _element(0x0020, 0x000E, b"UI", _uid(3, instance.batch, instance.series)),
            _element(0x0020, 0x0010, b"SH", f"{instance.study:08d}"),
            _element(0x0020, 0x0011, b"IS", f"{instance.series:08d}"),
            _element(0x0020, 0x0013, b"IS", f"{instance.number:08d}"),
            *self._pixel_description(),
        ]
        return b"".join(elements)

    def _pixel_description(self) -> list[bytes]:
        shorts = ((0x0010, self._rows), (0x0011, self._columns), (0x0100, 8), (0x0101, 8),
                  (0x0102, 7), (0x0103, 0))  # fmt: skip
        return [
            _element(0x0028, 0x0002, b"US", struct.pack("<H", 1)),
            _element(0x0028, 0x0004, b"CS", "MONOCHROME2"),
            *(_element(0x0028, tag, b"US", struct.pack("<H", value)) for tag, value in shorts),
            _element(0x0029, 0x0010, b"LO", "BENCHMARK PADDING"),
            _element(0x0029, 0x1001, b"OB", bytes(self._padding)),
            struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OW", self._rows * self._columns),
        ]


def pixels(offset: int, length: int) -> memoryview:
    """``length`` octets of the pixel data from ``offset`` on; at most `LONGEST_SLICE`."""
    start = offset & 255
    return _PATTERN[start : start + length]


def write_folder(
    folder: Path, shape: Shape, instances: Iterable[Instance], *, sparse: bool = False
) -> None:
    """Write each instance as ``NUMBER.dcm`` into a new folder."""
    folder.mkdir()
    for instance in instances:
        write_file(folder / f"{instance.number:08d}.dcm", shape, instance, sparse=sparse)


def write_file(path: Path, shape: Shape, instance: Instance, *, sparse: bool = False) -> None:
    """Write a Part 10 file in pieces; ``sparse`` leaves a hole (zeros) for the pixels."""
    with path.open("wb") as file:
        file.write(part10_prefix(instance))
        file.write(shape.head(instance))
        if sparse:
            file.truncate(file.tell() + shape.pixels)
            return
        for piece in _pieces(shape.pixels):
            file.write(piece)


def part10_prefix(instance: Instance) -> bytes:
    """Preamble, ``DICM`` and the file meta information of an instance (PS3.10 7.1)."""
    meta = b"".join((
        _element(0x0002, 0x0001, b"OB", b"\0\1"),
        _element(0x0002, 0x0002, b"UI", SECONDARY_CAPTURE),
        _element(0x0002, 0x0003, b"UI", instance.uid),
        _element(0x0002, 0x0010, b"UI", EXPLICIT),
        _element(0x0002, 0x0012, b"UI", IMPLEMENTATION_CLASS),
    ))  # fmt: skip
    length = _element(0x0002, 0x0000, b"UL", struct.pack("<I", len(meta)))
    return bytes(128) + b"DICM" + length + meta


def _pieces(length: int) -> Iterator[memoryview]:
    for offset in range(0, length, LONGEST_SLICE):
        yield pixels(offset, min(LONGEST_SLICE, length - offset))


def _element(group: int, element: int, vr: bytes, value: str | bytes) -> bytes:
    if isinstance(value, str):
        value = value.encode("ascii")
    value += (b"\0" if vr in (b"UI", b"OB") else b" ") * (len(value) % 2)
    if vr in (b"OB", b"OW"):
        return struct.pack("<HH2s2xI", group, element, vr, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def _uid(kind: int, batch_number: int, number: int) -> str:
    return f"2.25.1{kind}{batch_number:015d}{number:022d}"
