"""What fails while an archive runs: the peer is told, nothing is half done, and it goes on by
itself when the cause has ended."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from archives import archive_in, asking, found, image, retrieved, stored, threads_of
from databases import PostgreSQL
from memory import CT, World
from twisted.internet.defer import Deferred

from twisted_dimse import StatusError
from twisted_dimse.archive import index
from twisted_dimse.archive.commitment import ArchiveCommitment
from twisted_dimse.archive.handler import Archive, CannotKeep
from twisted_dimse.archive.header import InstanceHeader
from twisted_dimse.archive.index import Index
from twisted_dimse.dimse.status import NO_SUCH_SOP_INSTANCE
from twisted_dimse.services.commitment import Reference

UIDS = {f"1.2.9.{number}" for number in range(3)}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with World() as world:
        threads_of(world, monkeypatch)
        monkeypatch.setattr(index, "_BUSY_TIMEOUT", 10)
        yield world


@pytest.fixture
def archive(world: World, tmp_path: Path) -> Iterator[Archive]:
    with archive_in(world, tmp_path / "archive") as archive:
        yield archive
        world.end()
    assert os.listdir(tmp_path / "archive" / "journal") == [], "all of it was indexed"
    assert os.listdir(tmp_path / "archive" / "incoming") == []


def sent(world: World, requestor: Any) -> list[int]:
    return stored(world, requestor, *(image(uid) for uid in sorted(UIDS)))


# --- the database


def locked(path: Path) -> Callable[[], None]:
    """Somebody else writes to the database."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other.close


def removed(path: Path) -> Callable[[], None]:
    """Somebody takes the file away, with the log beside it."""
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir()
    for file in path.parent.glob("index.sqlite*"):
        os.rename(file, elsewhere / file.name)

    def end() -> None:
        for file in elsewhere.iterdir():
            os.rename(file, path.parent / file.name)

    return end


def no_tables(path: Path) -> Callable[[], None]:
    """Somebody puts another file in its place."""
    back = removed(path)
    sqlite3.connect(path).execute("CREATE TABLE other (id)")

    def end() -> None:
        os.unlink(path)
        back()

    return end


@pytest.mark.parametrize("cause", [locked, removed, no_tables])
def test_without_its_database_it_takes_instances_and_says_so_to_those_who_ask(
    world: World, archive: Archive, tmp_path: Path, cause: Callable[[Path], Callable[[], None]]
) -> None:
    requestor = asking(world, archive)
    assert stored(world, requestor, image("1.2.8")) == [0]
    assert found(world, requestor) == {"1.2.8"}
    end = cause(tmp_path / "archive" / "index.sqlite")
    assert sent(world, requestor) == [0, 0, 0]
    for _ in range(2):
        with pytest.raises(StatusError) as refused:
            found(world, requestor)
        assert refused.value.status == 0xA700
    with pytest.raises(StatusError) as refused:
        retrieved(world, requestor, "1.2.3")
    assert refused.value.status == 0xA701
    world.advance(60)
    assert len(world.lines("indexing failed")) == 1
    end()
    world.advance(10)
    assert len(world.lines("indexing goes on")) == 1
    assert archive.index.count() == 4, "nobody had to ask"
    assert found(world, requestor) == {*UIDS, "1.2.8"}


def test_where_it_must_ask_the_database_before_it_takes_an_instance_it_takes_none_without(
    world: World, tmp_path: Path
) -> None:
    with archive_in(world, tmp_path / "archive", on_duplicate="keep") as archive:
        requestor = asking(world, archive)
        end = removed(tmp_path / "archive" / "index.sqlite")
        assert sent(world, requestor) == [0xA700] * 3
        end()
        assert sent(world, requestor) == [0] * 3
        assert found(world, requestor) == UIDS
        world.end()


def test_what_is_to_be_committed_waits_for_the_database(
    world: World, archive: Archive, tmp_path: Path
) -> None:
    requestor = asking(world, archive)
    nobody: Any = None
    assert stored(world, requestor, image("1.2.8")) == [0]
    assert found(world, requestor) == {"1.2.8"}
    commitment = ArchiveCommitment(archive, {})
    asked = [Reference(CT, "1.2.8"), Reference(CT, "1.2.7")]
    end = removed(tmp_path / "archive" / "index.sqlite")
    reasons = Deferred.fromCoroutine(commitment.commit(nobody, asked))
    delivered = commitment.deliver_kept()
    world.advance(500)
    assert not reasons.called
    assert not delivered.called
    end()
    world.advance(60)
    assert world.result(reasons) == {"1.2.8": None, "1.2.7": NO_SUCH_SOP_INSTANCE}
    assert world.result(delivered) is None


def test_what_the_disk_does_not_take_is_not_committed_and_not_waited_for(
    world: World, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    requestor = asking(world, archive)
    nobody: Any = None
    assert stored(world, requestor, image("1.2.8")) == [0]
    commitment = ArchiveCommitment(archive, {})

    def fails(_path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "somewhere")

    monkeypatch.setattr("twisted_dimse.archive.handler.sync_file", fails)
    with pytest.raises(CannotKeep, match="somewhere: Input/output error"):
        world.result(Deferred.fromCoroutine(commitment.commit(nobody, [Reference(CT, "1.2.8")])))


def test_what_has_lost_its_end_is_not_committed(
    world: World, archive: Archive, tmp_path: Path
) -> None:
    requestor = asking(world, archive)
    nobody: Any = None
    assert stored(world, requestor, *(image(uid) for uid in ("1.2.7", "1.2.8", "1.2.9"))) == [0] * 3
    assert len(found(world, requestor)) == 3
    os.truncate(archive.files.path_of("1.2.3", "1.2.3.4", "1.2.8"), 200)
    assert stored(world, requestor, image("1.2.9", 5000)) == [0]  # which is as long as it should be
    commitment = ArchiveCommitment(archive, {})
    asked = [Reference(CT, uid) for uid in ("1.2.7", "1.2.8", "1.2.9")]
    reasons = world.result(Deferred.fromCoroutine(commitment.commit(nobody, asked)))
    assert reasons == {"1.2.7": None, "1.2.8": NO_SUCH_SOP_INSTANCE, "1.2.9": None}
    assert len(world.lines("1.2.8.dcm: has lost its end, and is not committed")) == 1


def test_when_postgresql_is_there_again_nobody_is_refused(
    world: World, tmp_path: Path, postgresql: PostgreSQL
) -> None:
    with archive_in(world, tmp_path / "archive", database=postgresql.database()) as archive:
        requestor = asking(world, archive)
        assert stored(world, requestor, image("1.2.8")) == [0]
        assert found(world, requestor) == {"1.2.8"}
        postgresql.crash_and_start()  # and the connections of before are gone
        assert found(world, requestor) == {"1.2.8"}
        postgresql.crash()
        assert sent(world, requestor) == [0, 0, 0]
        with pytest.raises(StatusError) as refused:
            found(world, requestor)
        assert refused.value.status == 0xA700
        postgresql.start()
        world.advance(10)
        assert archive.index.count() == 4
        assert found(world, requestor) == {*UIDS, "1.2.8"}
        world.end()


def test_a_busy_stream_of_instances_does_not_have_a_failed_batch_tried_more_often(
    world: World, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twisted_dimse.archive.indexer._MANY", 2)
    tried = 0
    real = Index.add

    def add(index: Index, headers: Any) -> list[str]:
        nonlocal tried
        tried += 1
        return real(index, headers)

    monkeypatch.setattr(Index, "add", add)
    requestor = asking(world, archive)
    end = locked(tmp_path / "archive" / "index.sqlite")
    assert stored(world, requestor, *(image(f"1.2.9.{number}") for number in range(20))) == [0] * 20
    assert tried == 1
    end()
    assert len(found(world, requestor)) == 20


@pytest.mark.parametrize("where", ["header", "rows"])
def test_an_instance_that_cannot_be_indexed_keeps_no_other_from_being_found(
    world: World, archive: Archive, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    whose, name = (InstanceHeader, "read") if where == "header" else (Index, "add")
    real = getattr(whose, name)

    def raises(*args: Any) -> Any:
        if "1.2.9.1.dcm" in str(args):
            raise ValueError("A string literal cannot contain NUL characters")
        return real(*args)

    monkeypatch.setattr(whose, name, raises)
    requestor = asking(world, archive)
    assert sent(world, requestor) == [0, 0, 0]
    assert found(world, requestor) == UIDS - {"1.2.9.1"}
    assert len(world.lines("not indexed: 1.2.3/1.2.3.4/1.2.9.1.dcm: ValueError")) == 1


def test_rows_that_another_process_made_meanwhile_keep_no_instance_from_being_found(
    world: World, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where PostgreSQL commits the last of a process after that was killed."""
    real, others = Index.add, 1

    def add(index: Index, headers: Any) -> Any:
        nonlocal others
        others -= 1
        if others >= 0:
            raise sa.exc.IntegrityError("", {}, Exception("duplicate key"))
        return real(index, headers)

    monkeypatch.setattr(Index, "add", add)
    requestor = asking(world, archive)
    assert stored(world, requestor, image("1.2.8")) == [0]
    assert found(world, requestor) == {"1.2.8"}
    assert world.lines("not indexed") == []


# --- the disk


def of_file(end: str) -> Callable[..., bool]:
    """Whether a call is about a file whose name ends so."""

    def is_it(what: Any, *_: Any) -> bool:
        path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)
        return path.endswith(end)

    return is_it


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize(
    ("call", "end"),
    [
        ("open", ".part"),
        ("writev", ".part"),
        ("fsync", ".part"),
        ("open", ".log"),
        ("write", ".log"),
        ("fdatasync", ".log"),
        ("fsync", "/journal"),
        ("rename", ".part"),
        ("fsync", "/1.2.3.4"),
        ("fsync", "/instances"),
    ],
    ids=lambda part: part.strip("."),
)
def test_what_the_disk_refuses_is_refused_and_not_there(
    world: World, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    call: str, end: str, error: int,
) -> None:  # fmt: skip
    requestor = asking(world, archive)
    real, concerned = getattr(os, call), of_file(end)

    def fails(*args: Any) -> Any:
        if concerned(*args):
            raise OSError(error, os.strerror(error), "somewhere")
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        assert sent(world, requestor) == [0xA700] * 3
        assert found(world, requestor) == set()
    assert len(world.lines("an instance was not stored")) == 3
    assert not [path for path in (tmp_path / "archive/instances").rglob("*") if path.is_file()]
    assert os.listdir(tmp_path / "archive/incoming") == []
    assert sent(world, requestor) == [0] * 3
    assert found(world, requestor) == UIDS


def test_an_instance_that_is_there_stays_as_it_is_found_when_its_successor_is_refused(
    world: World, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    requestor = asking(world, archive)
    first, second = image("1.2.9", 300), image("1.2.9", 5000)
    assert stored(world, requestor, first) == [0]
    real = os.fsync

    def fails(descriptor: int) -> None:
        if of_file("/1.2.3.4")(descriptor):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        assert stored(world, requestor, second) == [0xA700]
        assert retrieved(world, requestor, "1.2.3") == {"1.2.9": first.data}
    assert stored(world, requestor, second) == [0]
    assert retrieved(world, requestor, "1.2.3") == {"1.2.9": second.data}


def test_files_that_cannot_be_read_for_a_while_are_indexed_then(
    world: World, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    requestor = asking(world, archive)
    with monkeypatch.context() as patch:
        patch.setattr(InstanceHeader, "read", unreadable)
        assert sent(world, requestor) == [0, 0, 0]
        with pytest.raises(StatusError) as refused:
            found(world, requestor)
        assert refused.value.status == 0xA700
    world.advance(10)
    assert found(world, requestor) == UIDS


def test_a_journal_that_cannot_be_removed_is_removed_later(
    world: World, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.unlink

    def fails(path: str) -> None:
        if path.endswith(".log"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        real(path)

    requestor = asking(world, archive)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fails)
        assert sent(world, requestor) == [0, 0, 0]
        assert found(world, requestor) == UIDS
    assert len(os.listdir(tmp_path / "archive" / "journal")) == 1
    assert stored(world, requestor, image("1.2.8")) == [0]
    assert found(world, requestor) == {*UIDS, "1.2.8"}
