"""Keys and data sets as they are written on a command line.

    -k PatientName=DOE*                 a keyword and what it shall match
    -k 0010,0020=7                      a tag, as DCMTK has it
    -k StudyInstanceUID                 nothing to match: the answer shall have it
    -k Seq.Modality=CT                  in the first item of a sequence
    -k 'Seq[1].Modality=CT'             in another

A file of keys is DICOM JSON (PS3.18 F) or Part 10; what ``-k`` says wins over it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from twisted_dimse.errors import printable

_STEP = re.compile(r"(?P<name>[^\[\]]+?)(?:\[(?P<item>\d{1,4})\])?")


def key_options(command: Any) -> Any:
    """Add ``-k`` and ``--dataset``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = [
    click.option("--keyword", "-k", "keys", multiple=True, metavar="KEYWORD[=VALUE]", help="An attribute by keyword or gggg,eeee, nested by dots; again for more."),  # noqa: E501
    click.option("--dataset", "-f", metavar="FILE", type=click.Path(), help="Attributes from a file, DICOM JSON or Part 10."),  # noqa: E501
]  # fmt: skip


def dataset_of(keys: Iterable[str], file: str | None) -> Any:
    """The Dataset that ``-k`` and ``--dataset`` mean. Raises `click.UsageError`."""
    from pydicom import Dataset

    from twisted_dimse.keys import as_dataset

    dataset = read_dataset(file) if file is not None else Dataset()
    for key in keys:
        _check_is_text(key)
        try:
            merge(dataset, as_dataset(_nested(key)))
        except ValueError as error:
            raise click.UsageError(f"-k {key}: {error}.") from None
    return dataset


def _check_is_text(key: str) -> None:
    """What is no text here would be sent with "?" in it, which matches anything."""
    try:
        key.encode()
    except UnicodeEncodeError:
        raise click.UsageError(
            f"-k {printable(key)}: not in the character encoding of this terminal,"
            f" {sys.getfilesystemencoding()}."
        ) from None


def _nested(key: str) -> dict[str, Any]:
    """``A[1].B=v`` as ``{"A": [{}, {"B": "v"}]}``."""
    path, _, value = key.partition("=")
    return _inside(path.split("."), value)


def _inside(steps: list[str], value: str) -> dict[str, Any]:
    match = _STEP.fullmatch(steps[0].strip())
    if match is None:
        raise ValueError(f"{steps[0]!r} is neither a keyword nor gggg,eeee")
    name, item = match["name"], match["item"]
    if len(steps) == 1 and item is None:
        return {name: value}
    below = _inside(steps[1:], value) if len(steps) > 1 else {}
    _check_is_sequence(name)
    return {name: [*({} for _ in range(int(item or 0))), below]}


def _check_is_sequence(name: str) -> None:
    from pydicom.datadict import dictionary_VR

    from twisted_dimse.keys import tag_of

    try:
        is_sequence = dictionary_VR(tag_of(name)) == "SQ"
    except KeyError:
        is_sequence = False
    if not is_sequence:
        raise ValueError(f"{name} is no sequence")


def merge(into: Any, more: Any) -> None:
    """Put elements into a Dataset; items of sequences are merged one by one."""
    for element in more:
        present = into.get(element.tag)
        if element.VR != "SQ" or present is None or not element.value:
            into.add(element)
            continue
        for at, item in enumerate(element.value):
            if at < len(present.value):
                merge(present.value[at], item)
            else:
                present.value.append(item)


def read_dataset(path: str) -> Any:
    """The Dataset in a file. Raises `click.UsageError`."""
    try:
        octets = Path(path).read_bytes()
        if octets.lstrip()[:1] in (b"{", b"["):
            return _from_json(octets)
        return _from_part10(octets)
    except OSError as error:
        raise click.UsageError(f"--dataset {path}: {error.strerror}.") from None
    except json.JSONDecodeError as error:
        raise click.UsageError(f"--dataset {path}: no JSON: {error}.") from None
    except Exception:
        raise click.UsageError(f"--dataset {path}: no DICOM JSON and no Part 10.") from None


def _from_json(octets: bytes) -> Any:
    from pydicom import Dataset

    model = json.loads(octets)
    if isinstance(model, list):
        (model,) = model
    return Dataset.from_json(model)


def _from_part10(octets: bytes) -> Any:
    from io import BytesIO

    from pydicom import Dataset, dcmread

    dataset = Dataset()
    dataset.update(dcmread(BytesIO(octets)))
    return dataset
