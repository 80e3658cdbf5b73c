"""Matches as they are shown: a table for people, DICOM JSON model objects or CSV for programs.

    write = writer(common, question, as_csv=False)
    write(match)                # each, as it comes

A table's columns have their widths before the first match is there, so that each can be shown at
once; what is longer is folded. On a narrow terminal some columns are left out, and UIDs, and what
the caller asked for and has no room, stand on lines of their own.
"""

from __future__ import annotations

import csv
import itertools
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from twisted_dimse.cli.common import Common
from twisted_dimse.cli.models import COLUMNS, Question
from twisted_dimse.cli.output import json_line
from twisted_dimse.errors import printable

Path = tuple[int, ...]

# Heading and width by keyword; the rest goes by the VR.
_HEADINGS = {
    "PatientName": ("Patient", 24),
    "PatientID": ("ID", 12),
    "PatientBirthDate": ("Born", 10),
    "PatientSex": ("Sex", 3),
    "StudyDate": ("Date", 10),
    "StudyTime": ("Time", 5),
    "AccessionNumber": ("Accession", 16),
    "ModalitiesInStudy": ("Mod.", 5),
    "StudyDescription": ("Description", 24),
    "NumberOfStudyRelatedInstances": ("Inst.", 5),
    "NumberOfSeriesRelatedInstances": ("Inst.", 5),
    "Modality": ("Mod.", 5),
    "SeriesNumber": ("No.", 4),
    "SeriesDescription": ("Description", 24),
    "BodyPartExamined": ("Body part", 10),
    "InstanceNumber": ("No.", 5),
    "SOPClassUID": ("SOP class", 32),
    "ScheduledProcedureStepStartDate": ("Date", 10),
    "ScheduledProcedureStepStartTime": ("Time", 5),
    "ScheduledStationAETitle": ("Station", 10),
    "ScheduledProcedureStepDescription": ("Procedure", 24),
    "ScheduledProcedureStepID": ("Step", 8),
    "RequestedProcedureID": ("Order", 8),
}
_WIDTHS = {"DA": 10, "TM": 5, "UI": 64, "PN": 24, "LO": 20, "SQ": 8, "CS": 8, "IS": 6, "US": 6}
_GAP, _NARROWEST = 2, 10
_BETWEEN_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")
#: Left out where a line is too short, in this order.
_DISPENSABLE = (
    *("StudyTime", "PatientSex", "AccessionNumber", "BodyPartExamined", "PatientBirthDate"),
    *("RequestedProcedureID", "ScheduledProcedureStepID", "NumberOfStudyRelatedInstances"),
)


def writer(common: Common, question: Question, as_csv: bool) -> Callable[[Any], None]:
    """What to call with each match."""
    if common.as_json:
        return lambda match: click.echo(json_line(json_model(match)))
    if as_csv:
        return _csv_writer(question)
    return _Table(question).write


def json_model(dataset: Any) -> dict[str, Any]:
    """A data set in the DICOM JSON model (PS3.18 F), in Unicode. Values that are none of their VR
    are left out."""
    from twisted_dimse.services.values import character_set_of, in_unicode

    copy = in_unicode(dataset)
    if character_set_of(dataset):
        copy.SpecificCharacterSet = "ISO_IR 192"
    return _without_empty(copy.to_json_dict(suppress_invalid_tags=True))


def _without_empty(model: dict[str, Any]) -> dict[str, Any]:
    """In order of tags, and without the empty "Value" that pydicom writes for a sequence without
    items (PS3.18 F.2.5)."""
    for element in model.values():
        if element["vr"] == "SQ":
            element["Value"] = [_without_empty(item) for item in element.get("Value", ())]
            if not element["Value"]:
                del element["Value"]
    return dict(sorted(model.items()))


def paths_of(dataset: Any, front: Path = ()) -> Iterator[Path]:
    """The attributes that a data set has, those of first items included; sequences by what is in
    them."""
    from twisted_dimse.services.matching import CONTROL
    from twisted_dimse.services.values import items, tags_of

    for tag in tags_of(dataset):
        inside = items(dataset, tag)[:1]
        if inside and len(inside[0]):
            yield from paths_of(inside[0], (*front, tag))
        elif tag not in CONTROL:
            yield (*front, tag)


def name_of(path: Path) -> str:
    """A path as ``-k`` takes it."""
    from pydicom.datadict import keyword_for_tag

    return ".".join(keyword_for_tag(tag) or f"{tag >> 16:04X},{tag & 0xFFFF:04X}" for tag in path)


def texts_at(dataset: Any, path: Path) -> str:
    """The values at a path, of all items, as one text; a sequence tells its number of items."""
    from twisted_dimse.services.values import items, texts, vr_of

    tag, *below = path
    if below:
        found = (texts_at(item, tuple(below)) for item in items(dataset, tag))
        return "\\".join(text for text in found if text)
    if vr_of(dataset, tag) == "SQ":
        number = len(items(dataset, tag))
        return f"{number} items" if number else ""
    return "\\".join(texts(dataset, tag))


def _ordered(question: Question) -> list[Path]:
    """The paths of the keys, in the order of the table; the caller's own before the UID."""
    from twisted_dimse.keys import tag_of

    known = [tuple(tag_of(step) for step in name.split(".")) for name in COLUMNS[question.columns]]
    paths = list(dict.fromkeys(paths_of(question.keys)))
    usual = [path for path in known if path in paths]
    own = [path for path in paths if path not in known]
    return [*usual[:-1], *own, *usual[-1:]]


def _is_given(keys: Any, path: Path) -> bool:
    """Whether the caller knows the value: a unique key such as that of the study."""
    text = texts_at(keys, path)
    return _vr(path) == "UI" and text != "" and not set(text) & set("*?\\")


def _csv_writer(question: Question) -> Callable[[Any], None]:
    paths = _ordered(question)
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow([name_of(path) for path in paths])

    def write(match: Any) -> None:
        out.writerow([texts_at(match, path) for path in paths])
        sys.stdout.flush()

    return write


class _Table:
    """Rows under a heading, written one by one. In a pipe nothing is folded or left out."""

    def __init__(self, question: Question) -> None:
        paths = [path for path in _ordered(question) if not _is_given(question.keys, path)]
        self._folds = sys.stdout.isatty()
        room = shutil.get_terminal_size().columns if self._folds else 1 << 16
        self._columns, self._below = _fitting(paths, set(paths_of(question.given)), room)
        self._widths = _shrunk(self._columns, room)
        self._begun = False

    def write(self, match: Any) -> None:
        if not self._begun:
            self._begun = True
            self._row([_heading(path) for path in self._columns], bold=True)
        self._row([_shown(match, path) for path in self._columns])
        for path in self._below:
            if text := _shown(match, path):
                click.echo(f"    {text}" if _is_wide(path) else f"    {_heading(path)}: {text}")

    def _row(self, cells: list[str], **style: Any) -> None:
        """The cells side by side, each on as many lines as it takes."""
        pairs = zip(cells, self._widths, strict=True)
        folded = [_folded(cell, width) if self._folds else [cell] for cell, width in pairs]
        for line in itertools.zip_longest(*folded, fillvalue=""):
            parts = [_padded(cell, width) for cell, width in zip(line, self._widths, strict=True)]
            text = (" " * _GAP).join(parts).rstrip()
            click.echo(click.style(text, **style) if style else text)


def _folded(text: str, width: int) -> list[str]:
    from rich.console import Console
    from rich.text import Text

    lines = Text(text).wrap(Console(), width, overflow="fold")
    return [line.plain.rstrip() for line in lines]


def _padded(text: str, width: int) -> str:
    """With spaces behind it, as wide characters and combining marks take them on a terminal."""
    from rich.cells import cell_len

    return text + " " * (width - cell_len(text))


def _fitting(paths: list[Path], given: set[Path], room: int) -> tuple[list[Path], list[Path]]:
    """The columns for which a line has room, and what goes below it: UIDs, and of what the caller
    gave the rest."""
    columns = list(paths)
    uids = list[Path]()
    for path in reversed(paths):
        if _needed(columns, _width) > room and _is_wide(path):
            columns.remove(path)
            uids.insert(0, path)
    for keyword in _DISPENSABLE:
        if _needed(columns, _width) > room:
            columns = [path for path in columns if name_of(path[-1:]) != keyword]
    for path in reversed(columns[1:]):
        if _needed(columns, _least) > room and path in given:
            columns.remove(path)
    shown = {*columns, *uids}
    return columns, [*uids, *(path for path in paths if path in given and path not in shown)]


def _needed(columns: list[Path], width: Callable[[Path], int]) -> int:
    return sum(width(path) + _GAP for path in columns) - _GAP


def _shrunk(columns: list[Path], room: int) -> list[int]:
    """Widths that fit, the widest columns being made narrower; none below its least."""
    widths = [_width(path) for path in columns]
    least = [_least(path) for path in columns]
    while sum(widths) + _GAP * (len(widths) - 1) > room and widths != least:
        wider = [at for at, width in enumerate(widths) if width > least[at]]
        widths[max(wider, key=widths.__getitem__)] -= 1
    return widths


def _heading(path: Path) -> str:
    """As the table has it, or the words of the keyword."""
    name = name_of(path[-1:])
    return _HEADINGS.get(name, (_BETWEEN_WORDS.sub(" ", name), 0))[0]


def _width(path: Path) -> int:
    name = name_of(path[-1:])
    if name in _HEADINGS:
        return _HEADINGS[name][1]
    return max(_WIDTHS.get(_vr(path), 16), _longest_word(path))


def _least(path: Path) -> int:
    """The width below which a column is of no use."""
    return min(_width(path), max(_NARROWEST, _longest_word(path)))


def _longest_word(path: Path) -> int:
    return max(map(len, _heading(path).split()))


def _is_wide(path: Path) -> bool:
    return _width(path) == _WIDTHS["UI"]


def _vr(path: Path) -> str:
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(path[-1])
    except KeyError:
        return "UN"


def _shown(match: Any, path: Path) -> str:
    """A value as people write it."""
    from twisted_dimse import uids

    text, vr = printable(texts_at(match, path)), _vr(path)
    if vr == "DA" and len(text) == 8:
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    if vr == "TM" and text[:4].isdigit():
        return f"{text[:2]}:{text[2:4]}"
    if vr == "PN":
        return _person(text)
    return uids.name_of(text) if vr == "UI" else text.replace("\\", " ")


def _person(name: str) -> str:
    """A name, and in parentheses how it is written where it is not in Latin letters."""
    groups = [" ".join(group.split("^")).strip() for group in name.split("=")]
    first, *more = [group for group in groups if group] or [""]
    return f"{first} ({more[0]})" if more else first
