"""Lists of more UIDs than a database takes at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import Receiver, archive_in, found, image, stored, threads_of
from memory import CT, EXPLICIT, IMPLICIT, World

from twisted_dimse import STUDY_ROOT
from twisted_dimse.archive import index
from twisted_dimse.archive.handler import ArchiveHandler

MANY = 40_000
UIDS = [f"1.2.9.{number}" for number in range(3)]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    real = index._set_up_sqlite

    def set_up(connection: Any, record: object) -> None:
        """As SQLite is where nobody chose otherwise."""
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32766)
        real(connection, record)

    monkeypatch.setattr(index, "_set_up_sqlite", set_up)
    with World() as world:
        threads_of(world, monkeypatch)
        yield world


@pytest.fixture
def requestor(world: World, tmp_path: Path) -> Iterator[Any]:
    """An association with an archive of three instances in one series, for lists of any length."""
    with archive_in(world, tmp_path) as archive:
        models = [(uid, [IMPLICIT]) for uid in (STUDY_ROOT.find, STUDY_ROOT.get)]
        contexts = [(CT, [EXPLICIT]), *models]
        extended = dict.fromkeys((STUDY_ROOT.find, STUDY_ROOT.get), b"\x01")
        requestor, _ = world.associate(
            ArchiveHandler(archive), contexts=contexts, extended=extended, roles={CT: "both"}
        )
        assert stored(world, requestor, *map(image, UIDS)) == [0] * 3
        yield requestor
        world.end()


def asked_for() -> list[str]:
    """Two that are there, among many that are not; the first of them twice."""
    return [UIDS[0], *(f"1.2.8.{number}" for number in range(MANY)), UIDS[2], UIDS[0]]


def test_a_query_finds_those_that_are_there(world: World, requestor: Any) -> None:
    assert found(world, requestor, asked_for()) == {UIDS[0], UIDS[2]}


@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
def test_a_retrieval_brings_each_that_is_there_once(
    world: World, requestor: Any, level: str
) -> None:
    uids = {"STUDY": "1.2.3", "SERIES": "1.2.3.4"}
    keyword = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID"}.get(level)
    keys = {keyword or "SOPInstanceUID": asked_for()}
    if keyword:
        keys[keyword] += [uids[level], uids[level]]
    receiver = Receiver()
    outcome = world.result(requestor.get(keys, handler=receiver, level=level, model=STUDY_ROOT))
    expected = UIDS if keyword else [UIDS[0], UIDS[2]]
    assert (outcome.status, outcome.completed) == (0, len(expected))
    assert sorted(receiver.received) == expected
