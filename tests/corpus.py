"""Every DICOM file that ships inside pydicom and pydicom-data, as the tests look at it.

Read by pydicom and a few lines of our own, not by the package under test. Nothing is downloaded.

    for image in images():
        image.name, image.syntax, image.data
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

import peers
import pydicom

#: What is no DICOM file, or none that can be sent, and why. Beside these there is only Python.
NOT_TO_BE_SENT = {
    "charset_files/FileInfo.txt": "text",
    "palettes/README.md": "text",
    "test_files/README.txt": "text",
    "test_files/crayons.icc": "a colour profile",
    "test_files/dicomdirtests/README.txt": "text",
    "test_files/dicomdirtests/TINY_ALPHA/README": "text",
    "test_files/rtplan.dump": "text",
    "test_files/rtstruct.dump": "text",
    "test_files/zipMR.gz": "compressed",
    "test_files/dicomdirtests/DICOMDIR": "a DICOMDIR belongs to media",
    "test_files/dicomdirtests/DICOMDIR-bigEnd": "a DICOMDIR belongs to media",
    "test_files/dicomdirtests/DICOMDIR-empty.dcm": "a DICOMDIR belongs to media",
    "test_files/dicomdirtests/DICOMDIR-implicit": "a DICOMDIR belongs to media",
    "test_files/dicomdirtests/DICOMDIR-nooffset": "a DICOMDIR belongs to media",
    "test_files/dicomdirtests/DICOMDIR-nopatient": "a DICOMDIR belongs to media",
    "test_files/dicomdirtests/DICOMDIR-reordered": "a DICOMDIR belongs to media",
    "test_files/dicomdirtests/TINY_ALPHA/DICOMDIR": "a DICOMDIR belongs to media",
    "test_files/empty_charset_LEI.dcm": "no SOP Class UID",
    "test_files/nested_priv_SQ.dcm": "no SOP Class UID",
    "test_files/meta_missing_tsyntax.dcm": "no SOP Class UID and no transfer syntax",
    "test_files/no_meta.dcm": "no file meta information, and a stray octet before the data set",
}
_PYTHON = {".py", ".pyc", ".json", ".typed"}

#: Data sets of odd length: one is deflated (PS3.5 A.5 has the pad), one cut off in a value.
ODD_LENGTH = {"test_files/image_dfl.dcm", "test_files/rtplan_truncated.dcm"}

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_WITHOUT_META = {
    "test_files/ExplVR_BigEndNoMeta.dcm": BIG_ENDIAN,
    "test_files/ExplVR_LitEndNoMeta.dcm": EXPLICIT,
    "test_files/rtstruct.dcm": IMPLICIT,
    "OT-PAL-8-face.dcm": IMPLICIT,
}


@dataclass(frozen=True, eq=False)
class Image:
    """A file with something to send. `meta_uid` is the SOP Instance UID of its file meta
    information, empty where it has none."""

    name: str
    path: Path
    offset: int
    syntax: str
    meta_uid: str
    sop_class: str = field(default="", compare=False)

    @cached_property
    def dataset(self) -> pydicom.Dataset:
        """All that stands before the pixels."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(self.path, force=True, stop_before_pixels=True)

    @property
    def data_uid(self) -> str:
        """The SOP Instance UID that the data set has."""
        return self._text("SOPInstanceUID")

    @property
    def uid(self) -> str:
        """The SOP Instance UID by which `dimse store` calls it."""
        return self.data_uid if _is_uid(self.data_uid) else self.meta_uid

    @cached_property
    def data(self) -> bytes:
        """The data set, as the file has it, of even length."""
        octets = self.path.read_bytes()[self.offset :]
        return octets + b"\0" * (len(octets) & 1)

    def place(self, uid: str | None = None) -> str:
        """Where a receiver of ours keeps it, below its folder, when its sender calls it so."""
        study, series = self._text("StudyInstanceUID"), self._text("SeriesInstanceUID")
        if not (_is_uid(study) and _is_uid(series)):
            study, series = "no-study", "no-series"
        return f"instances/{study}/{series}/{uid or self.uid}.dcm"

    def _text(self, keyword: str) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return str(self.dataset.get(keyword, ""))


def _is_uid(text: str) -> bool:
    return re.fullmatch(pydicom.uid.RE_VALID_UID, text) is not None and len(text) <= 64


@cache
def roots() -> tuple[Path, ...]:
    """The folders of pydicom's and pydicom-data's files."""
    spec = find_spec("data_store")
    if spec is None or not spec.submodule_search_locations:
        peers.absent("pydicom-data")
    assert spec is not None
    assert spec.submodule_search_locations
    assert pydicom.__file__
    return Path(pydicom.__file__).parent / "data", Path(spec.submodule_search_locations[0]) / "data"


@cache
def images() -> tuple[Image, ...]:
    """All that can be sent, in order of name."""
    return tuple(
        _image(name, path) for name, path in _files().items() if name not in NOT_TO_BE_SENT
    )


@cache
def _files() -> dict[str, Path]:
    return {
        str(path.relative_to(root)): path
        for root in roots()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix not in _PYTHON
    }


def file_named(name: str) -> Path:
    return _files()[name]


def syntax_name(uid: str) -> str:
    """A transfer syntax as a test's id."""
    return pydicom.uid.UID(uid).name.split(" (")[0].replace(" ", "-")


def syntaxes() -> list[str]:
    """The transfer syntaxes that occur, most frequent first."""
    found: dict[str, int] = {}
    for image in images():
        found[image.syntax] = found.get(image.syntax, 0) + 1
    return sorted(found, key=lambda syntax: -found[syntax])


def batches(some: Iterable[Image]) -> list[list[Image]]:
    """The same images, such that no two in a batch can be taken for the same instance."""
    made: list[dict[str, Image]] = []
    for image in some:
        names = {image.uid, image.data_uid} - {""}
        batch = next((batch for batch in made if not batch.keys() & names), None)
        if batch is None:
            made.append(batch := {})
        batch.update(dict.fromkeys(names, image))
    return [list(dict.fromkeys(batch.values())) for batch in made]


def data_set_of(path: Path) -> bytes:
    """What stands behind the file meta information."""
    octets = path.read_bytes()
    return octets[_meta(octets)[1] :]


def _image(name: str, path: Path) -> Image:
    meta, offset = _meta(path.read_bytes())
    syntax = meta.get(0x0010) or _WITHOUT_META[name]
    image = Image(name, path, offset, syntax, meta.get(0x0003, ""))
    sop_class = meta.get(0x0002) or image._text("SOPClassUID")
    return Image(name, path, offset, syntax, image.meta_uid, sop_class)


def _meta(octets: bytes) -> tuple[dict[int, str], int]:
    """The texts of the file meta information (PS3.10 7.1), and where the data set begins."""
    at = 132 if octets[128:132] == b"DICM" else 0
    found: dict[int, str] = {}
    while octets[at : at + 2] == b"\x02\x00":
        element, vr, length = struct.unpack_from("<H2sH", octets, at + 2)
        at += 8
        if vr == b"OB":
            (length,) = struct.unpack_from("<I", octets, at)
            at += 4
        found[element] = octets[at : at + length].rstrip(b"\0 ").decode("latin-1")
        at += length
    return found, at


def is_python(name: str) -> bool:
    """Whether a file belongs to the packages themselves and not to their data."""
    return Path(name).suffix in _PYTHON
