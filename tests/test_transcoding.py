"""Instances in another transfer syntax: pixels as pydicom reads them before and after, and the rest
as DCMTK's dcmconv has it."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import corpus
import pytest
from memory import BIG_ENDIAN, CT, DEFLATED, EXPLICIT, IMPLICIT, JPEG
from peers import dcmtk, run
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from twisted_dimse import transcoding
from twisted_dimse.datastream import (
    BytesSource,
    DatasetSource,
    FileSource,
    decode_dataset,
    part10_header,
)
from twisted_dimse.transcoding import (
    MOST_AT_ONCE,
    CannotTranscode,
    Transcoder,
    other_syntax,
    transcode,
)

UNCOMPRESSED = [EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN]
J2K = "1.2.840.10008.1.2.4.90"

#: What pydicom itself cannot decode, with any of its plugins.
NOT_DECODED = {
    "test_files/J2K_pixelrep_mismatch.dcm",
    "test_files/JPEG-lossy.dcm",
    "test_files/JPEG2000-embedded-sequence-delimiter.dcm",
}
SMALL = 100_000  # octets of a file; the large ones have nothing else in them


def file_named(name: str) -> str:
    return str(get_testdata_file(name))


def pixels(dataset: Dataset, syntax: str) -> Any:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset.pixel_array


def images(syntax: str) -> list[corpus.Image]:
    """The smallest files with pixels, one for each way in which they lie there."""
    some: dict[Any, corpus.Image] = {}
    for image in sorted(corpus.images(), key=lambda image: len(image.data)):
        names = (
            "Rows",
            "BitsAllocated",
            "SamplesPerPixel",
            "NumberOfFrames",
            "PixelRepresentation",
        )
        form = tuple(image.dataset.get(name) for name in names)
        if image.syntax == syntax and form[0] and image.name not in NOT_DECODED:
            some.setdefault(form[1:], image)
    return [image for image in some.values() if len(image.data) < SMALL]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("syntax", corpus.syntaxes(), ids=corpus.syntax_name)
def test_the_pixels_are_the_same(syntax: str) -> None:
    numpy = pytest.importorskip("numpy")
    for image in images(syntax):
        try:
            before = pixels(dcmread(image.path, force=True), syntax)
        except (AttributeError, ValueError):
            continue  # no pixels that pydicom could read
        source = FileSource.of(image.path)
        for target in UNCOMPRESSED:
            if BIG_ENDIAN in (syntax, target) and image.dataset.BitsAllocated == 32:
                continue  # pydicom swaps four octets there, the standard and DCMTK two
            made = transcode(source, target)
            after = pixels(decode_dataset(made.data, target), target)
            assert numpy.array_equal(before, after), (image.name, target)
            assert made.sop_instance_uid == source.sop_instance_uid
            assert len(made.data) % 2 == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(NOT_DECODED))
def test_what_pydicom_cannot_decode_is_refused_in_one_line(name: str) -> None:
    source = FileSource.of(corpus.file_named(name))
    with pytest.raises(CannotTranscode) as refused:
        transcode(source, EXPLICIT)
    assert str(refused.value).startswith("cannot be decoded here: ")
    assert "\n" not in str(refused.value)


@pytest.mark.interop
@pytest.mark.parametrize(
    "name",
    ["CT_small.dcm", "MR_small_implicit.dcm", "rtdose.dcm", "rtdose_expb.dcm", "rtplan.dcm",
     "waveform_ecg.dcm", "image_dfl.dcm", "ExplVR_BigEnd.dcm", "JPGExtended.dcm"],
)  # fmt: skip
def test_every_element_is_as_dcmconv_writes_it(name: str, tmp_path: Path) -> None:
    source = FileSource.of(file_named(name))
    if source.transfer_syntax not in UNCOMPRESSED:
        pytest.importorskip("numpy")
    for option, syntax in (("+te", EXPLICIT), ("+ti", IMPLICIT), ("+tb", BIG_ENDIAN)):
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        header = part10_header(source.sop_class_uid, source.sop_instance_uid, syntax)
        ours.write_bytes(header + transcode(source, syntax).data)
        if source.transfer_syntax in UNCOMPRESSED:
            run(dcmtk("dcmconv"), option, source.path, theirs).succeeded()
            assert elements(ours) == elements(theirs)
        else:
            run(dcmtk("dcmconv"), ours, theirs).succeeded()
            assert elements(ours) == elements(theirs)


def elements(path: Path) -> list[str]:
    """What dcmdump says of each element, without file meta information and group lengths."""
    said = run(dcmtk("dcmdump"), "-q", "-M", "+L", path).succeeded().out.splitlines()
    lines = (re.sub(r" *#.*| with \w+ length", "", line) for line in said)
    return [line for line in lines if re.match(r" *\((?!0002)....,(?!0000)", line)]


@pytest.mark.filterwarnings("ignore:Unknown encoding")
def test_values_that_nobody_can_read_stay_as_they_are() -> None:
    octets = bytes(range(0x80, 0x9E))
    data = b"".join(
        struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value
        for tag, vr, value in (
            (0x00080005, b"CS", b"NONSENSE"),
            (0x00100010, b"PN", octets),
            (0x00101010, b"AS", b"very old"),
            (0x00280010, b"US", b"\x01\x02\x03"),
        )
    )
    made = transcode(BytesSource(CT, "1.2", EXPLICIT, data), IMPLICIT).data
    assert octets in made
    assert b"very old" in made
    assert made.endswith(b"\x01\x02\x03\x00")


def test_a_private_element_has_the_vr_of_its_creator() -> None:
    dataset = Dataset()
    block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x01, "SS", -2)
    block.add_new(0xEE, "OB", b"??")
    implicit = DatasetSource(dataset, IMPLICIT).open().read()
    made = transcode(BytesSource(CT, "1.2", IMPLICIT, implicit), EXPLICIT).data
    read = decode_dataset(made, EXPLICIT)
    assert read[0x00431001].VR == "SS"
    assert read[0x00431001].value == -2
    assert read.get_item(0x004310EE).VR == "UN"


def test_a_value_too_long_for_its_vr_is_unknown() -> None:
    text = b"x" * 70000
    data = struct.pack("<HHI", 0x0010, 0x4000, len(text)) + text  # Patient Comments, LT
    made = transcode(BytesSource(CT, "1.2", IMPLICIT, data), EXPLICIT).data
    assert made[4:6] == b"UN"
    assert struct.unpack_from("<I", made, 8) == (len(text),)


def test_an_image_of_too_many_octets_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("numpy")
    monkeypatch.setattr(transcoding, "LARGEST", 4096)
    source = FileSource.of(file_named("MR_small_RLE.dcm"))
    monkeypatch.setattr(transcoding, "LARGEST", source.size + 1)
    large = Dataset()
    large.update(dcmread(source.path))
    large.Rows = 30000
    with pytest.raises(CannotTranscode, match="are allowed"):
        transcode(DatasetSource(large, source.transfer_syntax), EXPLICIT)
    monkeypatch.setattr(transcoding, "LARGEST", source.size - 1)
    with pytest.raises(CannotTranscode, match="octets"):
        transcode(source, EXPLICIT)


def test_without_numpy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CannotTranscode, match="codecs"):
        transcode(FileSource.of(file_named("MR_small_RLE.dcm")), EXPLICIT)


@pytest.mark.parametrize(
    ("own", "accepted", "other"),
    [
        (JPEG, [JPEG, EXPLICIT], None),
        (JPEG, [IMPLICIT, EXPLICIT], EXPLICIT),
        (EXPLICIT, [IMPLICIT], IMPLICIT),
        (EXPLICIT, [BIG_ENDIAN], BIG_ENDIAN),
        (EXPLICIT, [J2K], None),
        (EXPLICIT, [], None),
    ],
)
def test_what_is_not_accepted_goes_in_the_best_that_is(
    own: str, accepted: list[str], other: str | None
) -> None:
    assert other_syntax(BytesSource(CT, "1.2", own, b""), accepted) == other


class Threads:
    """A reactor whose pool does its work when it is told to."""

    def __init__(self) -> None:
        self.work: list[Any] = []
        self.seconds = Clock().seconds

    def getThreadPool(self) -> Threads:
        return self

    def callInThreadWithCallback(self, done: Any, work: Any, *args: Any, **named: Any) -> None:
        self.work.append(lambda: done(True, work(*args, **named)))

    @staticmethod
    def callFromThread(work: Any, *args: Any, **named: Any) -> None:
        work(*args, **named)


def test_only_so_many_are_in_memory_at_once() -> None:
    threads = Threads()
    transcoder = Transcoder(threads)
    holding: list[Deferred[None]] = []

    async def hold() -> None:
        source = BytesSource(CT, "1.2", EXPLICIT, b"")
        async with transcoder.transcoded(source, IMPLICIT):
            holding.append(Deferred())
            await holding[-1]

    for _ in range(MOST_AT_ONCE + 1):
        ensureDeferred(hold())
    assert len(threads.work) == MOST_AT_ONCE
    for work in threads.work[:MOST_AT_ONCE]:
        work()
    assert len(holding) == MOST_AT_ONCE
    assert len(threads.work) == MOST_AT_ONCE
    holding[0].callback(None)
    assert len(threads.work) == MOST_AT_ONCE + 1
