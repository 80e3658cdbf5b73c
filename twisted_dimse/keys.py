"""Data sets as callers write them: a mapping of keywords to values.

    as_dataset({"PatientName": "DOE*", "StudyDate": "20240101-"})
    as_dataset({"ScheduledProcedureStepSequence.Modality": "CT"})           # a path into an item
    as_dataset({"ScheduledProcedureStepSequence": [{"Modality": "CT"}]})    # the same
    as_dataset({0x00100020: "7", "0010,0010": "", (0x0010, 0x0040): ""})    # tags

Values need not be valid for their VR, for keys with wildcards and ranges are not. Text that is not
ASCII brings its Specific Character Set along, where none is given (PS3.3 C.12.1.1.2).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import Dataset

_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?")
_NUMBERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("SL", "SS", "SV", "UL", "US", "UV"), int),
    **dict.fromkeys(("FD", "FL"), float),
}


def as_dataset(keys: Any) -> Any:
    """A pydicom Dataset of keys that a caller gave as one, or as a mapping.

    Raises `ValueError` for a keyword that no attribute has, and for a value that cannot be one,
    and `TypeError` for anything else.
    """
    if not isinstance(keys, Mapping):
        if not hasattr(keys, "to_json_dict"):
            raise TypeError(f"neither a mapping nor a Dataset: {keys!r}")
        return keys
    dataset = _dataset_of(keys)
    if "SpecificCharacterSet" not in dataset:
        character_set = _character_set(_texts(keys))
        if character_set is not None:
            dataset.SpecificCharacterSet = character_set
    return dataset


def tag_of(name: int | str | tuple[int, int]) -> int:
    """The tag of an attribute: of its keyword, of ``gggg,eeee`` or ``(gggg, eeee)``. Raises
    `ValueError`."""
    if isinstance(name, int):
        return int(name)
    if isinstance(name, tuple):
        group, element = name
        return int(group) << 16 | int(element)
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is neither a tag nor a keyword")
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(name)
    if name and tag is not None:
        return int(tag)
    match = _TAG.fullmatch(name)
    if match is None:
        raise ValueError(f"no attribute has the keyword {name!r}")
    return int("".join(match.groups()), 16)


def _dataset_of(keys: Mapping[Any, Any]) -> Dataset:
    from pydicom import Dataset

    dataset = Dataset()
    for name, value in keys.items():
        _put(dataset, name, value)
    return dataset


def _put(dataset: Dataset, name: int | str | tuple[int, int], value: Any) -> None:
    """Set an attribute, or one in the first item of a sequence, which is made on the way."""
    first, dot, rest = name.partition(".") if isinstance(name, str) else (name, "", "")
    tag = tag_of(first)
    if not dot:
        dataset.add(_element(tag, value))
        return
    if _vr(tag) != "SQ":
        raise ValueError(f"{first} in {name!r} is no sequence")
    if tag not in dataset or not dataset[tag].value:
        dataset.add(_element(tag, [{}]))
    _put(dataset[tag].value[0], rest, value)


def _element(tag: int, value: Any) -> Any:
    from pydicom import config
    from pydicom.dataelem import DataElement, empty_value_for_VR

    vr = _vr(tag)
    if value is None or value in ("", b""):
        value = empty_value_for_VR(vr)
    elif vr == "SQ":
        items = [value] if hasattr(value, "items") else value
        value = [_dataset_of(item) if isinstance(item, Mapping) else item for item in items]
    elif vr == "UN" and isinstance(value, str):
        value = value.encode()
    try:
        if vr in _NUMBERS and isinstance(value, str):
            numbers = [_NUMBERS[vr](part) for part in value.split("\\")]
            value = numbers if len(numbers) > 1 else numbers[0]
        return DataElement(tag, vr, value, validation_mode=config.IGNORE)
    except (TypeError, ValueError, ArithmeticError):
        raise ValueError(f"{value!r} is no value of {vr}") from None


def _vr(tag: int) -> str:
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(tag)[:2]  # the first of "US or SS"
    except KeyError:
        return "UN"


def _texts(value: Any) -> Iterable[str]:
    """The text in a mapping, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)


def _character_set(texts: Iterable[str]) -> str | None:
    """Latin-1, which the most peers know, where it will do; UTF-8 otherwise."""
    text = "".join(texts)
    if text.isascii():
        return None
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return "ISO_IR 192"
    return "ISO_IR 100"
