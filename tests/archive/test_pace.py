"""Rows that a query looks at are looked at a few at a time, whether the peer gets them or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import archive_in, asking, threads_of
from memory import CT, EXPLICIT, World, outcome
from parts import MANY, Parts
from twisted.internet.defer import CancelledError

from twisted_dimse.archive import answering
from twisted_dimse.archive.header import InstanceHeader


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with World() as world:
        threads_of(world, monkeypatch)
        yield world


def header(number: int) -> InstanceHeader:
    values = {tag: f"1.2.{number}".encode() for tag in (0x00100020, 0x0020000D, 0x0020000E)}
    return InstanceHeader(f"{number}.dcm", CT, f"1.2.{number}", EXPLICIT, 0, 0, values)


@pytest.mark.parametrize("matches", [True, False])
def test_the_rows_of_a_query_are_looked_at_a_few_at_a_time(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matches: bool
) -> None:
    with archive_in(world, tmp_path / "archive") as archive:
        archive.index.add(map(header, range(MANY)))
        requestor = asking(world, archive)
        parts = Parts(world, monkeypatch)

        def matcher(*_: Any) -> Any:
            return lambda _entity: parts.done(matches)

        monkeypatch.setattr(answering, "matcher", matcher)
        found = world.result(requestor.find({"StudyInstanceUID": ""}))
        assert len(found) == (MANY if matches else 0)
        parts.check()
        world.end()


def test_a_query_that_is_cancelled_while_the_database_is_asked_lets_go_of_it(
    world: World, tmp_path: Path
) -> None:
    with archive_in(world, tmp_path / "archive") as archive:
        archive.index.add(map(header, range(MANY)))
        requestor = asking(world, archive)
        world.clock.threads_held = True
        finding = requestor.find({"StudyInstanceUID": ""})
        world.run()
        assert world.clock.waiting_in_threads
        finding.cancel()
        world.run()
        world.clock.threads_held = False
        world.run()
        with pytest.raises(CancelledError):
            outcome(finding)
        assert archive.index._engine.pool.checkedout() == 0
        world.end()
