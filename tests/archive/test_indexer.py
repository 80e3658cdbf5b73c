"""When a query may look: once all that was acknowledged before it is indexed."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import archive_in, asking, found, image, stored, threads_of
from memory import World

from twisted_dimse.archive import indexer


def test_a_query_waits_for_all_that_was_acknowledged_however_many_batches_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer, "_BATCH", 2)
    uids = {f"1.2.3.{number}" for number in range(7)}
    with World() as world:
        threads_of(world, monkeypatch)
        with archive_in(world, tmp_path) as archive:
            assert set(stored(world, asking(world, archive), *map(image, uids))) == {0}
            assert found(world, asking(world, archive)) == uids
            world.end()
