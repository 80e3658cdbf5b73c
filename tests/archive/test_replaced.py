"""An instance that goes from study to study and back while it is being indexed, or is replaced,
or lost, while it is being retrieved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from archives import archive_in, asking, found, image, retrieved, stored, threads_of
from memory import EXPLICIT, World

from twisted_dimse import StatusError
from twisted_dimse.archive.handler import Archive
from twisted_dimse.datastream import part10_header

UID = "1.2.840.99.5"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"


def put(archive: Archive, source: Any, syntax: str = EXPLICIT) -> None:
    """What a C-STORE on another association comes to."""
    partial = Path(archive.files.partial_path())
    header = part10_header(source.sop_class_uid, source.sop_instance_uid, syntax)
    partial.write_bytes(header + source.data)
    final = archive.files.path_of("1.2.3", "1.2.3.4", source.sop_instance_uid)
    archive._record([final])
    archive.files.place(str(partial), final)
    archive.stored(final)


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
                put(archive, latest)
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


@pytest.mark.parametrize("rule", ["keep", "reject"])
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("left", [None, b""])
def test_what_is_in_the_index_and_has_no_file_is_stored_in_another_study(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rule: str, indexed: bool, left: bytes | None
) -> None:
    again = image(UID, 500, study="1.2.9", series="1.2.9.4")
    with World() as world:
        threads_of(world, monkeypatch)
        with archive_in(world, tmp_path, on_duplicate=rule) as archive:
            requestor = asking(world, archive)
            assert stored(world, requestor, image(UID)) == [0]
            assert not indexed or found(world, requestor) == {UID}
            removed(archive)
            if left is not None:
                Path(archive.files.path_of("1.2.3", "1.2.3.4", UID)).write_bytes(left)
            assert stored(world, requestor, again) == [0]
            assert retrieved(world, requestor, "1.2.9") == {UID: again.data}
            assert retrieved(world, requestor, "1.2.3") == {}
            world.end()


@contextmanager
def retrieving(
    monkeypatch: pytest.MonkeyPatch, folder: Path, size: int, change: Callable[[Archive], object]
) -> Iterator[Callable[[], dict[str, bytes]]]:
    """Retrieve a study with one instance; ``change`` comes when it is known what is to be sent."""
    with World() as world:
        threads_of(world, monkeypatch)
        with archive_in(world, folder, durability="commit") as archive:
            really_fetch = archive.index.fetch

            def fetch(statement: Any) -> Any:
                rows = really_fetch(statement)
                monkeypatch.setattr(archive.index, "fetch", really_fetch)
                change(archive)
                return rows

            requestor = asking(world, archive)
            assert stored(world, requestor, image(UID, size)) == [0]
            assert found(world, requestor) == {UID}
            monkeypatch.setattr(archive.index, "fetch", fetch)
            yield lambda: retrieved(world, requestor, "1.2.3")
            world.end()


SIZES = [300, 200_000]  # read at once, and as they are sent


@pytest.mark.parametrize("after", [100, 5000, 300_000])
@pytest.mark.parametrize("before", SIZES)
def test_what_is_replaced_during_a_retrieval_comes_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: int, after: int
) -> None:
    latest = image(UID, after)
    with retrieving(monkeypatch, tmp_path, before, lambda archive: put(archive, latest)) as got:
        assert got() == {UID: latest.data}


def cut(archive: Archive) -> None:
    os.truncate(archive.files.path_of("1.2.3", "1.2.3.4", UID), 280)


def removed(archive: Archive) -> None:
    os.unlink(archive.files.path_of("1.2.3", "1.2.3.4", UID))


def in_another_syntax(archive: Archive) -> None:
    put(archive, image(UID, 300), JPEG_LOSSLESS)


@pytest.mark.parametrize("change", [cut, removed, in_another_syntax])
@pytest.mark.parametrize("size", SIZES)
def test_what_is_replaced_during_a_retrieval_and_cannot_come_whole_is_a_failed_sub_operation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int, change: Callable[[Archive], object]
) -> None:
    with retrieving(monkeypatch, tmp_path, size, change) as got:
        with pytest.raises(StatusError) as refused:
            got()
        assert refused.value.status == 0xA702
        assert refused.value.outcome.failed_sop_instance_uids == (UID,)
