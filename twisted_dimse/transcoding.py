"""Other encodings of an instance, for a peer that does not take the one it has (PS3.5 10.1).

Between uncompressed transfer syntaxes values stay as they are, octet for octet or word for word:
only VRs, lengths, byte order and deflating change. Compressed images are decoded by pydicom with
the codecs that are installed. The SOP Instance UID stays (PS3.4 B.4.1.3).

    transcoder = Transcoder(reactor)
    if syntax := other_syntax(source, accepted):            # accepted: what the peer takes
        async with transcoder.transcoded(source, syntax) as source: ...
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.threads import deferToThreadPool

from twisted_dimse.datastream import (
    BytesSource,
    Source,
    decode_dataset,
    set_transfer_syntax,
    syntaxes_for,
)
from twisted_dimse.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    UNCOMPRESSED_TRANSFER_SYNTAXES,
)

if TYPE_CHECKING:
    from pydicom import Dataset

MOST_AT_ONCE = 4
LARGEST = 512 << 20  # octets of a data set without compression


def other_syntax(source: Source, accepted: Iterable[str]) -> str | None:
    """The transfer syntax to transcode a source to, where the peer accepts only ``accepted``.

    None where it can be sent as it is, or where nothing accepted can be written.
    """
    accepted = tuple(accepted)
    if any(syntax in accepted for syntax in syntaxes_for(source)):
        return None
    return next((uid for uid in UNCOMPRESSED_TRANSFER_SYNTAXES if uid in accepted), None)


class CannotTranscode(ValueError):
    """The text goes on after the name of a transfer syntax: it "cannot be …"."""


class Transcoder:
    """Transcodes in threads of ``reactor``, and has at most `MOST_AT_ONCE` data sets of at most
    `LARGEST` octets in memory."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._room = DeferredSemaphore(MOST_AT_ONCE)

    @asynccontextmanager
    async def transcoded(self, source: Source, transfer_syntax: str) -> AsyncIterator[BytesSource]:
        """The source in another transfer syntax, in memory until the context is left.

        Raises `OSError` and `CannotTranscode`.
        """
        await self._room.acquire()
        try:
            pool = self._reactor.getThreadPool()
            yield await deferToThreadPool(self._reactor, pool, transcode, source, transfer_syntax)
        finally:
            self._room.release()


def transcode(source: Source, transfer_syntax: str) -> BytesSource:
    """The instance encoded in an uncompressed ``transfer_syntax``. It blocks.

    Raises `OSError` and `CannotTranscode`.
    """
    with source.open() as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise CannotTranscode(f"cannot be transcoded in over {LARGEST} octets")
    try:
        dataset = decode_dataset(data, source.transfer_syntax, LARGEST)
        del data
        if source.transfer_syntax not in UNCOMPRESSED_TRANSFER_SYNTAXES:
            _decompress(dataset, source.transfer_syntax)
        encoded = encode_values(dataset, transfer_syntax)
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise CannotTranscode(f"cannot be decoded here: {text}") from error
    return BytesSource(source.sop_class_uid, source.sop_instance_uid, transfer_syntax, encoded)


# --- compressed images


def _decompress(dataset: Dataset, transfer_syntax: str) -> None:
    """Decode the images of a data set in place, those in items, such as icons, too."""
    for image in _images(dataset):
        if image["PixelData"].value[:4] != b"\xfe\xff\x00\xe0":
            continue  # native, as PS3.5 A.4 allows it to an icon
        _check_codecs()
        _check_size(image)
        set_transfer_syntax(image, transfer_syntax)
        image.decompress(generate_instance_uid=False)


def _images(dataset: Dataset) -> Iterator[Dataset]:
    if "PixelData" in dataset:
        yield dataset
    for tag in list(dataset.keys()):
        if _vr_of(dataset, dataset.get_item(tag), signed=False) == "SQ":
            for item in dataset[tag].value:
                yield from _images(item)


def _check_codecs() -> None:
    from importlib.util import find_spec

    if find_spec("numpy") is None:
        raise ValueError("pip install 'twisted-dimse[codecs]' brings what can")


def _check_size(image: Dataset) -> None:
    pixels = image.Rows * image.Columns * image.get("SamplesPerPixel", 1)
    octets = pixels * int(image.get("NumberOfFrames") or 1) * image.BitsAllocated // 8
    if octets > LARGEST:
        raise ValueError(f"it has {octets} octets of pixels, and {LARGEST} are allowed")


# --- encoding without a look at the values

_LONG = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"))
_TEXT = frozenset(
    ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT")
)
# Octets in a word, and its code for `array`; AT is two of two.
_WORDS = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), (2, "H")),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), (4, "I")),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), (8, "Q")),
}
_PIXEL_REPRESENTATION = 0x00280103
_UNDEFINED = 0xFFFFFFFF
_LONGEST_SHORT = 0xFFFE


def encode_values(dataset: Dataset, transfer_syntax: str) -> bytes:
    """A data set that was read, in an uncompressed transfer syntax, and of even length.

    Values that nobody looked at stay as they were read, whatever is in them. Group lengths are
    left out. Raises `ValueError` for what is compressed.
    """
    parts: list[bytes] = []
    _Encoder(transfer_syntax).dataset(dataset, parts, signed=False)
    data = b"".join(parts)
    if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = deflate.compress(data) + deflate.flush()
    return data + b"\0" if len(data) & 1 else data


class _Encoder:
    def __init__(self, transfer_syntax: str) -> None:
        self._little = transfer_syntax != EXPLICIT_VR_BIG_ENDIAN
        order = "<" if self._little else ">"
        self._implicit = (
            struct.Struct(order + "HHI") if transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN else None
        )
        self._short, self._long = struct.Struct(order + "HH2sH"), struct.Struct(order + "HH2sHI")
        self._item = struct.Struct(order + "HHI")

    def dataset(self, dataset: Dataset, parts: list[bytes], *, signed: bool) -> int:
        """Append the elements of a data set; the number of octets. ``signed`` is the Pixel
        Representation around it."""
        if _PIXEL_REPRESENTATION in dataset:
            signed = dataset[_PIXEL_REPRESENTATION].value == 1
        size = 0
        for tag in sorted(dataset.keys()):
            if tag & 0xFFFF == 0:
                continue
            element = dataset.get_item(tag)
            vr = _vr_of(dataset, element, signed)
            if vr == "SQ":
                inside: list[bytes] = []
                length = sum(self._item_of(item, inside, signed) for item in dataset[tag].value)
                header = self._header(tag, vr, length)
                parts += (header, *inside)
                size += len(header) + length
            else:
                value = self._value(element, vr)
                header = self._header(tag, vr, len(value))
                parts += (header, value)
                size += len(header) + len(value)
        return size

    def _item_of(self, item: Dataset, parts: list[bytes], signed: bool) -> int:
        inside: list[bytes] = []
        length = self.dataset(item, inside, signed=signed)
        parts += (self._item.pack(0xFFFE, 0xE000, length), *inside)
        return length + self._item.size

    def _header(self, tag: int, vr: str, length: int) -> bytes:
        group, number = tag >> 16, tag & 0xFFFF
        if self._implicit is not None:
            return self._implicit.pack(group, number, length)
        if vr not in _LONG and length > _LONGEST_SHORT:
            vr = "UN"  # PS3.5 6.2.2
        if vr in _LONG:
            return self._long.pack(group, number, vr.encode(), 0, length)
        return self._short.pack(group, number, vr.encode(), length)

    def _value(self, element: Any, vr: str) -> bytes:
        if element.is_raw:
            if element.length == _UNDEFINED:
                raise ValueError("a value in fragments, and no image that could be decoded")
            value, little = element.value or b"", element.is_little_endian
        else:
            value, little = _in_little_endian(element), True
        if len(value) & 1:
            value += b" " if vr in _TEXT else b"\0"
        return value if little == self._little else _swapped(value, vr)


def _vr_of(dataset: Dataset, element: Any, signed: bool) -> str:
    vr = element.VR or _vr_by_dictionary(dataset, element.tag)
    if "OW" in vr:
        return vr if vr == "OW" else "OW"  # which fits whatever the words are
    return ("SS" if signed else "US") if vr == "US or SS" else vr


def _vr_by_dictionary(dataset: Dataset, tag: Any) -> str:
    if not tag.is_private:
        return _vr(int(tag))
    if tag.is_private_creator:
        return "LO"
    from pydicom.datadict import private_dictionary_VR

    creator = dataset.get((tag.group << 16) | (tag.element >> 8))
    try:
        return private_dictionary_VR(tag, str(creator.value).strip()) if creator else "UN"
    except KeyError:
        return "UN"


@cache
def _vr(tag: int) -> str:
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _in_little_endian(element: Any) -> bytes:
    """The value of an element that pydicom parsed, such as what it decoded."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_data_element

    file = DicomBytesIO()
    file.is_little_endian = file.is_implicit_VR = True
    write_data_element(file, element)
    return bytes(file.getvalue()[8:])


def _swapped(value: bytes, vr: str) -> bytes:
    if vr not in _WORDS:
        return value
    size, code = _WORDS[vr]
    whole = len(value) - len(value) % size
    words = array(code, value[:whole])
    words.byteswap()
    return words.tobytes() + value[whole:]
