"""What the archive commits itself to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from archives import archive_in, asking, image, stored, threads_of
from memory import CT, MR, World

from twisted_dimse.archive.commitment import ArchiveCommitment
from twisted_dimse.dimse.status import CLASS_INSTANCE_CONFLICT, NO_SUCH_SOP_INSTANCE
from twisted_dimse.services.commitment import Reference


def test_it_commits_itself_to_what_it_has_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere: Any = None
    asked = [Reference(CT, "1.2.3.1"), Reference(MR, "1.2.3.2"), Reference(CT, "1.2.3.3")]
    with World() as world:
        threads_of(world, monkeypatch)
        with archive_in(world, tmp_path) as archive:
            sources = map(image, ("1.2.3.1", "1.2.3.2"))
            assert stored(world, asking(world, archive), *sources) == [0, 0]
            reasons = world.result(ArchiveCommitment(archive, {}).commit(nowhere, asked))
            world.end()
    assert reasons == {
        "1.2.3.1": None,
        "1.2.3.2": CLASS_INSTANCE_CONFLICT,
        "1.2.3.3": NO_SUCH_SOP_INSTANCE,
    }
