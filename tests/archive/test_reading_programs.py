"""Files that were there before the index, read by programs: one process or several, SQLite or
PostgreSQL, killed on the way or not."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import raw
import sqlalchemy as sa
from databases import PostgreSQL
from peers import SECONDS, Server, killed_at_last, serving, wait_until
from raw import Client
from test_archive_programs import found

from twisted_dimse.archive import schema
from twisted_dimse.datastream import part10_header
from twisted_dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN

ROOT = "1.2.826.0.1.3680043.8.498.79"
STUDIES, OF_EACH = 60, 20
MADE = "the index is made: "


def place(study: int) -> tuple[str, str]:
    return f"{ROOT}.{study}", f"{ROOT}.{study}.1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An archive without an index: what is there of one that was lost."""
    for number in range(STUDIES):
        study, series = place(number)
        where = tmp_path / "archive/instances" / study / series
        where.mkdir(parents=True)
        for one in range(OF_EACH):
            uid = f"{series}.{one}"
            meta = part10_header(raw.SECONDARY_CAPTURE, uid, EXPLICIT_VR_LITTLE_ENDIAN)
            data = raw.dataset(uid, 100, study=study, series=series)
            (where / f"{uid}.dcm").write_bytes(meta + data)
    return tmp_path / "archive"


def uids_there(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "instances").rglob("*.dcm")}


@contextmanager
def nothing_added(folder: Path) -> Iterator[None]:
    """Meanwhile nobody of several processes adds to the index; a batch under way ends first."""
    descriptor = os.open(folder / "index.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_adding(folder: Path) -> bool:
    """Whether one of several processes adds to the index."""
    with open(folder / "index.lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def url_of(folder: Path, database: str | None) -> str:
    return database or f"sqlite:///{folder}/index.sqlite"


def rows(url: str, statement: sa.Select[tuple[str]]) -> list[str]:
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return list(connection.scalars(statement))
    finally:
        engine.dispose()


def indexed(url: str) -> list[str]:
    return rows(url, sa.select(schema.instances.c.uid))


def is_reading(url: str) -> bool:
    return bool(rows(url, sa.select(schema.info.c.key).where(schema.info.c.key == "reading")))


def lines(server: Server, text: str) -> list[str]:
    return [line for line in server.out if text in line]


def processes(server: Server) -> dict[int, int]:
    """The processes of the workers, by their numbers, once both serve."""
    for number in (1, 2):
        server.wait_for_line(f"worker {number}, process .* takes associations")
    taking = (re.search(r"worker (\d), process (\d+), takes", line) for line in server.out)
    return {int(one[1]): int(one[2]) for one in taking if one}


def stored(server: Server, *uids: str) -> set[str]:
    """Store new instances, in a study of their own, over an association each."""
    for uid in uids:
        with Client(server.port) as client:
            client.associate()
            data = raw.dataset(uid, 100, study=f"{ROOT}.1000", series=f"{ROOT}.1000.1")
            assert client.store(uid, data).status == 0
            client.release()
    return set(uids)


@pytest.fixture(params=["sqlite", "postgresql"])
def lost(request: pytest.FixtureRequest) -> str | None:
    """The URL of the new database, or None for that in the folder."""
    if request.param == "sqlite":
        return None
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()


def words_of(database: str | None) -> list[str]:
    return ["--database", database] if database else []


def assert_whole(server: Server, url: str, uids: set[str]) -> None:
    """A server finds all instances, each has one row, and it ends in peace."""
    assert found(server) == uids
    assert sorted(indexed(url)) == sorted(uids)
    server.stopped()


def test_of_two_workers_one_reads_and_both_answer_meanwhile(folder: Path, lost: str | None) -> None:
    there = uids_there(folder)
    new = [f"{ROOT}.1000.1.{number}" for number in range(4)]
    url = url_of(folder, lost)
    with killed_at_last(Server("--workers", 2, *words_of(lost), directory=folder)) as server:
        with nothing_added(folder):
            server.started()
        processes(server)
        wait_until(lambda: indexed(url), within=SECONDS)
        with nothing_added(folder):
            read = set(indexed(url))
            assert read < there
            for _ in range(4):  # of one worker or the other
                assert found(server) == read
        stored(server, *new)
        assert found(server) >= {*read, *new}
        server.wait_for_line(MADE)
        assert_whole(server, url, {*there, *new})
    assert len(lines(server, "the index is made from the files")) == 1
    assert [line.split(MADE)[1] for line in lines(server, MADE)] == [
        f"{len(there)} files were read"
    ]


def test_a_worker_that_dies_while_it_reads_is_made_up_for(folder: Path, lost: str | None) -> None:
    """The first one, which reads, in the midst of a batch, twice; the other; and then all."""
    there = uids_there(folder)
    new = [f"{ROOT}.1000.1.{number}" for number in range(4)]
    url = url_of(folder, lost)
    options = ["--workers", 2, *words_of(lost)]
    with killed_at_last(Server(*options, directory=folder)) as server:
        with nothing_added(folder):
            server.started()
            workers = processes(server)
        for number, one in enumerate([1, 1, 2]):
            before = len(indexed(url))
            wait_until(lambda before=before: len(indexed(url)) > before, within=SECONDS)
            wait_until(lambda: is_adding(folder), within=SECONDS)
            since = len(server.out)
            psutil.Process(workers[one]).kill()
            with nothing_added(folder):
                assert is_reading(url)
                stored(server, new[number])
                server.wait_for_line(f"worker {one}, process .* takes", after=since)
                workers = processes(server)
        running = psutil.Process(server.process.pid).children()
        stored(server, new[3])
        server.kill()
        psutil.wait_procs(running, SECONDS)
    with killed_at_last(Server(*options, directory=folder).started()) as server:
        if is_reading(url):
            server.wait_for_line(MADE)
        wait_until(lambda: not is_reading(url), within=SECONDS)
        assert_whole(server, url, {*there, *new})


def test_a_worker_that_does_not_read_makes_no_new_index_in_the_place_of_one_that_is_lost(
    folder: Path,
) -> None:
    there = uids_there(folder)
    with killed_at_last(Server("--workers", 2, directory=folder).started()) as server:
        workers = processes(server)
        server.wait_for_line(MADE)
        for file in folder.glob("index.sqlite*"):
            file.unlink()
        since = len(server.out)
        psutil.Process(workers[2]).kill()
        server.wait_for_line("worker 2, process .* ended with status 1", after=since)
        assert not list(folder.glob("index.sqlite*"))
        psutil.Process(workers[1]).kill()
        server.wait_for_line(MADE, after=since)
        server.wait_for_line("worker 2, process .* takes", after=since)
        assert found(server) == there


def test_a_second_start_goes_on_where_the_first_came_to(
    folder: Path, lost: str | None, request: pytest.FixtureRequest
) -> None:
    there = uids_there(folder)
    url = url_of(folder, lost)
    with serving(*words_of(lost), directory=folder):
        wait_until(lambda: indexed(url), within=SECONDS)
    before = len(indexed(url))
    assert is_reading(url)
    with serving(*words_of(lost), directory=folder) as server:
        line = server.wait_for_line(f"{MADE}(\\d+) files")
        assert found(server) == there
    assert int(line[1]) <= len(there) - before + OF_EACH  # a study is read from its first file on
    assert sorted(indexed(url)) == sorted(there)


def test_postgresql_that_crashes_meanwhile_costs_nothing(
    folder: Path, postgresql: PostgreSQL
) -> None:
    there = uids_there(folder)
    url = postgresql.database()
    with serving("--database", url, directory=folder) as server:
        wait_until(lambda: indexed(url), within=SECONDS)
        postgresql.crash()
        server.wait_for_line("files cannot be read for the index now, which is tried again")
        new = stored(server, f"{ROOT}.1000.1.1")
        postgresql.start()
        server.wait_for_line(MADE)
        assert found(server) == {*there, *new}
        assert len(lines(server, "files cannot be read")) == 1
    assert sorted(indexed(url)) == sorted({*there, *new})
