"""Memory does not depend on the size of an instance, on the way in and on the way out."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memory import CT, EXPLICIT, Serving, World, encoded
from sockets import Sockets

from twisted_dimse.datastream import FileSource, part10_header
from twisted_dimse.services.files import InstanceFiles
from twisted_dimse.services.storage import FilingHandler

MIB = 1 << 20
SIZE = 64 * MIB


@pytest.fixture(params=[World, Sockets], ids=["write", "sendmsg"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with request.param() if request.param is World else Sockets(1 << 16) as world:
        world.recording = False
        yield world


@pytest.fixture
def large(tmp_path: Path) -> str:
    """A file with that much of pixels, of which the disk has nothing."""
    path = tmp_path / "large.dcm"
    with path.open("wb") as file:
        file.write(part10_header(CT, "1.2.9", EXPLICIT) + encoded("1.2.9"))
        file.truncate(SIZE)
    return str(path)


def peak_of(world: World, running: Any) -> tuple[Any, int]:
    """A result, and the most octets that were allocated on the way to it."""
    tracemalloc.start()
    try:
        result = world.result(running())
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def filing(world: World, folder: Path, durability: str, **methods: Any) -> FilingHandler:
    handler = FilingHandler(InstanceFiles(str(folder), durability=durability, reactor=world.clock))
    handler.contexts = Serving.contexts
    for name, method in methods.items():
        setattr(handler, name, method)
    return handler


@pytest.mark.parametrize("durability", ["commit", "sync"])
@pytest.mark.parametrize("limit", [16384, 0])
def test_a_large_instance_passes_through_little_memory(
    world: World, tmp_path: Path, large: str, durability: str, limit: int
) -> None:
    handler = filing(world, tmp_path / "archive", durability)
    requestor, _ = world.associate(handler, {"max_pdu_length": limit})
    world.result(requestor.echo())
    result, peak = peak_of(world, lambda: requestor.store(large))
    assert result.status == 0
    assert peak < SIZE // 16
    (path,) = (tmp_path / "archive" / "instances").rglob("*.dcm")
    assert path.stat().st_size >= FileSource.of(large).size


def test_a_large_instance_is_fetched_through_little_memory(
    world: World, tmp_path: Path, large: str
) -> None:
    receiver = filing(world, tmp_path / "fetched", "commit")
    requestor, _ = world.associate(Serving(get=lambda _: [large]))
    result, peak = peak_of(world, lambda: requestor.get({}, handler=receiver))
    assert result.completed == 1
    assert peak < SIZE // 16


def test_an_instance_that_is_not_wanted_passes_through_little_memory(
    world: World, tmp_path: Path, large: str
) -> None:
    handler = filing(world, tmp_path / "archive", "commit")
    handler.files.max_instance = 1000
    requestor, _ = world.associate(handler)
    result, peak = peak_of(world, lambda: requestor.store(large, check=False))
    assert result.status == 0xA700
    assert peak < SIZE // 16
