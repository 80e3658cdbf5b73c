"""Work in many parts: others have the reactor after each few of them, however it is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import raw
from memory import CT, EXPLICIT, Serving, World, source
from parts import MANY, Parts
from pydicom import Dataset

from twisted_dimse import Peer
from twisted_dimse.datastream import FileSource, part10_header
from twisted_dimse.services.sending import store_files


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture
def parts(world: World, monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(world, monkeypatch)


def generator(parts: Parts, make: Callable[[int], Any]) -> Iterator[Any]:
    for number in range(MANY):
        yield parts.done(make(number))


async def async_generator(parts: Parts, make: Callable[[int], Any]) -> AsyncIterator[Any]:
    for number in range(MANY):
        yield parts.done(make(number))


async def _part(parts: Parts, value: Any) -> Any:
    return parts.done(value)


def coroutines(parts: Parts, make: Callable[[int], Any]) -> Iterator[Any]:
    for number in range(MANY):
        yield _part(parts, make(number))


def study(number: int) -> Dataset:
    dataset = Dataset()
    dataset.PatientID = str(number)
    return dataset


@pytest.mark.parametrize("way", [generator, async_generator, coroutines])
def test_matches_are_made_a_few_at_a_time(
    world: World, parts: Parts, way: Callable[..., Any]
) -> None:
    requestor, _ = world.associate(Serving(find=lambda _request: way(parts, study)))
    found = world.result(requestor.find({}))
    assert [match.PatientID for match in found] == [str(number) for number in range(MANY)]
    parts.check()


@pytest.mark.parametrize("way", [generator, async_generator, coroutines])
def test_instances_to_send_are_made_a_few_at_a_time(
    world: World, parts: Parts, way: Callable[..., Any]
) -> None:
    requestor, _ = world.associate(
        Serving(get=lambda _request: way(parts, lambda number: source(f"1.2.{number + 1}"))),
        roles={CT: "scp"},
    )
    assert world.result(requestor.get({}, handler=Serving())).completed == MANY
    parts.check()


@pytest.mark.parametrize("kind", ["images", "images that were sent before", "other files"])
def test_files_to_send_are_looked_at_a_few_at_a_time(
    world: World, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for number in range(MANY):
        uid = f"1.2.{number}"
        octets = part10_header(CT, uid, EXPLICIT) + raw.dataset(uid, sop_class=CT)
        (tmp_path / f"{number}").write_bytes(b"" if kind == "other files" else octets)
    of = FileSource.of

    def looked_at(path: Any) -> FileSource:
        parts.done()
        return of(path)

    monkeypatch.setattr(FileSource, "of", looked_at)
    before = kind == "images that were sent before"
    outcomes = world.result(
        store_files(
            Peer("SERVER", world.serve()),
            [str(tmp_path)],
            known=lambda _: before,
            reactor=world.clock,
        )
    )
    assert [outcome.ok for outcome in outcomes] == [kind == "images"] * MANY
    parts.check()
