"""`help()` of each public name says something, and nothing of what is not there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import twisted_dimse
from twisted_dimse import telemetry

SAID = {"outcome", "sop_instance_uid"}  # attributes of what a method gives or raises


def public() -> Iterator[tuple[str, Any]]:
    """Each public name with what it is, and each method and property of one that is a class."""
    named = [(name, getattr(twisted_dimse, name)) for name in twisted_dimse.__all__]
    named += [(name, value) for name, value in vars(telemetry).items() if _is_of_telemetry(value)]
    for name, value in named:
        if inspect.isclass(value) or inspect.isfunction(value):
            yield name, value
        if inspect.isclass(value):
            yield from ((f"{name}.{member}", what) for member, what in _members(value))


def _is_of_telemetry(value: Any) -> bool:
    return getattr(value, "__module__", "") == telemetry.__name__


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    for name in dir(kind):
        value = inspect.getattr_static(kind, name)
        value = getattr(value, "__func__", getattr(value, "fget", value))
        ours = (getattr(value, "__module__", None) or "").startswith("twisted_dimse")
        if not name.startswith("_") and inspect.isfunction(value) and ours:
            yield name, value


def parameters(value: Any) -> set[str]:
    """What it can be called with; exceptions of Python's own making take anything."""
    plain = inspect.isclass(value) and value.__init__ is Exception.__init__
    return set() if plain else set(inspect.signature(value).parameters)


PUBLIC = dict(public())


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_says_what_it_is(name: str) -> None:
    told = PUBLIC[name].__doc__ or ""
    assert told.strip()
    assert not told.startswith(f"{name}("), "made by dataclasses, not by us"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_docstring_names_parameters_that_there_are(name: str) -> None:
    value = PUBLIC[name]
    told = set(re.findall(r"``([a-z_]+)``", value.__doc__))
    assert told <= parameters(value) | set(dir(value)) | SAID


@pytest.mark.parametrize(
    "name", ["connect", "listen", "AssociationFactory", "store_files", "query", "retrieve", "move"]
)
def test_a_function_with_many_parameters_tells_of_each(name: str) -> None:
    value = PUBLIC[name]
    told = set(re.findall(r"``([a-z_]+)``", value.__doc__))
    assert parameters(value) - told - {"reactor"} == set()
