"""An instance that goes from study to study and back while it is being indexed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from archives import archive_in, asking, found, image, retrieved, stored, threads_of
from memory import EXPLICIT, World

from twisted_dimse.datastream import part10_header

UID = "1.2.840.99.5"


def test_what_came_back_meanwhile_is_not_removed_with_what_it_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    latest = image(UID, 500, study="1.2.3")
    with World() as world:
        threads_of(world, monkeypatch)
        with archive_in(world, tmp_path, durability="commit") as archive:
            really_add = archive.index.add

            def add(headers: Any) -> Any:
                """Another association stores before the old file is removed."""
                replaced = really_add(headers)
                monkeypatch.setattr(archive.index, "add", really_add)
                partial = Path(archive.files.partial_path())
                header = part10_header(latest.sop_class_uid, UID, EXPLICIT)
                partial.write_bytes(header + latest.data)
                final = archive.files.path_of("1.2.3", "1.2.3.4", UID)
                archive._record([final])
                archive.files.place(str(partial), final)
                archive.stored(final)
                return replaced

            requestor = asking(world, archive)
            assert stored(world, requestor, image(UID, study="1.2.3")) == [0]
            assert found(world, requestor) == {UID}
            monkeypatch.setattr(archive.index, "add", add)
            assert stored(world, requestor, image(UID, study="1.2.9")) == [0]
            assert found(world, requestor) == {UID}
            assert retrieved(world, requestor, "1.2.3") == {UID: latest.data}
            assert retrieved(world, requestor, "1.2.9") == {}
            assert [path.parents[1].name for path in tmp_path.rglob("*.dcm")] == ["1.2.3"]
            world.end()
