"""Files that were there before the index are read for it, without anybody asking."""

from __future__ import annotations

import builtins
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from archives import archive_in, asking, found, image, retrieved, stored, threads_of
from memory import CT, EXPLICIT, Reactor, World
from pydicom import Dataset
from twisted.internet.defer import Deferred

from twisted_dimse import STUDY_ROOT
from twisted_dimse.archive import reading, schema
from twisted_dimse.archive.commitment import ArchiveCommitment
from twisted_dimse.archive.folder import ArchiveFolder
from twisted_dimse.archive.handler import Archive
from twisted_dimse.archive.header import InstanceHeader
from twisted_dimse.archive.index import Index
from twisted_dimse.archive.maintenance import verify
from twisted_dimse.datastream import BytesSource, encode_dataset, part10_header
from twisted_dimse.dimse.status import NO_SUCH_SOP_INSTANCE
from twisted_dimse.services.commitment import Reference

UIDS = {f"1.2.9.{number}": f"1.2.{number}" for number in range(1, 7)}  # instances and studies


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with World() as world:
        threads_of(world, monkeypatch)
        yield world


@pytest.fixture
def folder(world: World, tmp_path: Path) -> Path:
    """An archive with an instance in each of six studies."""
    folder = tmp_path / "archive"
    with archive_in(world, folder) as archive:
        sources = (image(uid, study=study, series=f"{study}.4") for uid, study in UIDS.items())
        assert stored(world, asking(world, archive), *sources) == [0] * 6
        world.end()
    return folder


def lose_index(folder: Path) -> None:
    for file in folder.glob("index.sqlite*"):
        file.unlink()


def found_after_a_start(world: World, folder: Path) -> set[str]:
    with archive_in(world, folder) as archive:
        world.run()
        uids = found(world, asking(world, archive))
        world.end()
    return uids


def test_an_index_that_was_lost_is_made_again_and_said_once(world: World, folder: Path) -> None:
    assert world.lines("the index is made") == []
    lose_index(folder)
    for _ in range(2):
        assert found_after_a_start(world, folder) == set(UIDS)
        assert len(world.lines("the index is made from the files")) == 1
        assert len(world.lines("the index is made: 6 files were read")) == 1


def test_who_stores_and_asks_meanwhile_is_served(world: World, folder: Path) -> None:
    lose_index(folder)
    world.clock.threads_held = True
    with archive_in(world, folder) as archive:
        requestor = asking(world, archive)
        result = requestor.store(image("1.2.8"), check=False)
        world.clock.threads_held = False
        world.result(result)
        assert found(world, requestor, ["1.2.8"]) == {"1.2.8"}
        assert found(world, requestor) == {*UIDS, "1.2.8"}
        world.end()


def test_a_restart_goes_on_where_the_run_before_it_came_to(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    lose_index(folder)
    monkeypatch.setattr(reading, "_BATCH", 1)
    real_read, real_renew = InstanceHeader.read, Index.renew

    def counted(path: str) -> InstanceHeader:
        read.append(Path(path).stem)
        return real_read(path)

    def stopped(index: Index, headers: Any) -> Any:
        done = real_renew(index, headers)
        if len(read) == 4:
            archive._reader._stopping.set()
        return done

    monkeypatch.setattr(InstanceHeader, "read", counted)
    with archive_in(world, folder) as archive, monkeypatch.context() as patch:
        patch.setattr(Index, "renew", stopped)
        world.run()
        assert len(found(world, asking(world, archive))) == 4
        world.end()
    assert found_after_a_start(world, folder) == set(UIDS)
    assert read == [*sorted(UIDS)[:4], *sorted(UIDS)[3:]]


@pytest.mark.parametrize(("what", "said"), [("rows", 1), ("the place", 1), ("the end", 2)])
def test_a_database_that_fails_is_asked_again(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch, what: str, said: int
) -> None:
    lose_index(folder)
    failures = 2

    def failing() -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise sa.exc.OperationalError("", {}, Exception("locked"))

    real_renew, real_reading = Index.renew, Index.reading

    def renew(index: Index, headers: Any) -> Any:
        if what == "rows":
            failing()
        return real_renew(index, headers)

    def set_reading(index: Index, study: str | None) -> None:
        if what == ("the end" if study is None else "the place"):
            failing()
        real_reading.__set__(index, study)

    monkeypatch.setattr(reading, "_RETRY", 0)
    monkeypatch.setattr(Index, "renew", renew)
    monkeypatch.setattr(Index, "reading", property(real_reading.__get__, set_reading))
    assert found_after_a_start(world, folder) == set(UIDS)
    assert len(world.lines("files cannot be read for the index now")) == said
    with ArchiveFolder(str(folder)) as opened:
        assert opened.index.reading is None


def test_a_folder_that_cannot_be_listed_for_a_while_is_read_then(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_index(folder)
    real, failures = os.listdir, 2

    def fails(path: Any) -> list[str]:
        nonlocal failures
        if str(path).endswith("/instances"):
            failures -= 1
            if failures == 0:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    monkeypatch.setattr(reading, "_RETRY", 0)
    monkeypatch.setattr(os, "listdir", fails)
    assert found_after_a_start(world, folder) == set(UIDS)
    assert failures < 0


def test_a_file_that_can_have_no_row_keeps_no_other_from_being_found(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_index(folder)
    real, tried = Index.add, 0

    def add(index: Index, headers: Any) -> Any:
        nonlocal tried
        tried += 1
        assert tried < 20, "it is tried for ever"
        headers = list(headers)
        if any(header.sop_instance_uid == "1.2.9.3" for header in headers):
            raise sa.exc.DataError("", {}, Exception("value too long"))
        return real(index, headers)

    monkeypatch.setattr(Index, "add", add)
    assert found_after_a_start(world, folder) == {*UIDS} - {"1.2.9.3"}
    assert len(world.lines("not indexed: 1.2.3/1.2.3.4/1.2.9.3.dcm: DataError: value too")) == 1
    assert len(world.lines("the index is made: 6 files were read")) == 1


def test_names_and_uids_that_no_database_takes_keep_no_other_from_being_found(
    world: World, folder: Path
) -> None:
    lose_index(folder)
    [one] = folder.glob("instances/1.2.2/*/*.dcm")
    for name in (b"1.2.4/\xff.dcm", b"1.2.4\xff/1.dcm", b"\xff/1.dcm"):
        path = Path(os.fsdecode(os.fsencode(folder / "instances") + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(one.read_bytes())
    long = image("1.2.10", study=f"1.2.{'3' * 64}")
    other = folder / "instances/1.2.4/1.2.10.dcm"
    other.write_bytes(part10_header(CT, "1.2.10", EXPLICIT) + long.data)
    assert found_after_a_start(world, folder) == set(UIDS)
    assert len(world.lines("1.2.10.dcm: a UID of more than 64 characters")) == 1
    with ArchiveFolder(str(folder)) as opened:
        problems = [finding.problem for finding in verify(opened) if finding.problem]
        assert len(problems) == 4


def test_what_is_no_file_keeps_no_other_from_being_found(world: World, folder: Path) -> None:
    lose_index(folder)
    series = folder / "instances/1.2.4/1.2.4.4"
    os.mkfifo(series / "1.2.8.dcm")  # which nobody writes to
    os.symlink("1.2.7.dcm", series / "1.2.7.dcm")
    assert found_after_a_start(world, folder) == set(UIDS)


def test_lines_of_the_journal_that_name_no_file_are_passed_over(world: World, folder: Path) -> None:
    lines = [b"\0" * 50, b"1.2.4", b"1.2.4/1.2.4.4/1.2.9.4.dcm/1.2.9.dcm", b"\xff", b"1" * 5000]
    (folder / "journal/00000001.log").write_bytes(b"\n".join([*lines, b"1.2.4/"]))
    assert found_after_a_start(world, folder) == set(UIDS)
    assert os.listdir(folder / "journal") == []


def test_a_clock_that_is_put_forward_does_not_make_the_reader_wait(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_index(folder)
    waited: list[float] = []
    monkeypatch.setattr(reading, "_BATCH", 1)
    real = Index.renew

    def renew(index: Index, headers: Any) -> Any:
        world.clock.rightNow += 86400
        return real(index, headers)

    monkeypatch.setattr(Index, "renew", renew)
    with archive_in(world, folder) as archive:
        monkeypatch.setattr(archive._reader._stopping, "wait", waited.append)
        world.run()
        assert found(world, asking(world, archive)) == set(UIDS)
        world.end()
    assert max(waited) <= 5


def test_of_two_files_of_one_instance_that_in_the_index_stays(world: World, folder: Path) -> None:
    """Such as are left where a replaced one could not be removed."""
    other = image("1.2.9.3", 5000, study="1.2.0", series="1.2.0.1")
    left = folder / "instances/1.2.0/1.2.0.1/1.2.9.3.dcm"
    left.parent.mkdir(parents=True)
    left.write_bytes(part10_header(CT, "1.2.9.3", EXPLICIT) + other.data)
    with ArchiveFolder(str(folder)) as opened:
        opened.index.reading = ""
    with archive_in(world, folder) as archive:
        world.run()
        requestor = asking(world, archive)
        assert found(world, requestor) == set(UIDS)
        assert list(retrieved(world, requestor, "1.2.3")) == ["1.2.9.3"]
        assert retrieved(world, requestor, "1.2.0") == {}
        world.end()
    assert left.exists()


@pytest.fixture
def read_later(monkeypatch: pytest.MonkeyPatch) -> Reactor:
    """The thread in which files are read for the index, in turns of its own."""
    pool = Reactor()
    monkeypatch.setattr(reading, "ThreadPool", lambda *_: pool)
    return pool


AGAIN = image("1.2.9.3", 5000, study="1.2.0", series="1.2.0.1")


def stopped_before_it_reads(archive: Archive, pool: Reactor) -> None:
    archive._reader._stopping.set()
    pool.turn()


def files_of_the_third(folder: Path) -> list[str]:
    return [str(path.parents[1].name) for path in folder.rglob("1.2.9.3.dcm")]


@contextmanager
def replacing(world: World, folder: Path) -> Iterator[tuple[Archive, Any]]:
    """An archive whose index was lost, and an association that has stored the third again, in
    another study, before the files are read."""
    lose_index(folder)
    with archive_in(world, folder) as archive:
        requestor = asking(world, archive)
        assert stored(world, requestor, AGAIN) == [0]
        assert found(world, requestor) == {"1.2.9.3"}
        yield archive, requestor


def test_what_was_replaced_before_it_was_read_is_removed(
    world: World, folder: Path, read_later: Reactor
) -> None:
    with replacing(world, folder) as (archive, requestor):
        assert sorted(files_of_the_third(folder)) == ["1.2.0", "1.2.3"]
        stopped_before_it_reads(archive, read_later)
        world.end()
    with archive_in(world, folder) as archive:  # after a start, too
        read_later.turn()
        requestor = asking(world, archive)
        assert found(world, requestor) == set(UIDS)
        assert retrieved(world, requestor, "1.2.0") == {"1.2.9.3": AGAIN.data}
        assert files_of_the_third(folder) == ["1.2.0"]
        assert not archive.index.newer(list(UIDS))
        world.end()


def test_a_verification_removes_what_was_replaced_before_it_was_read(
    world: World, folder: Path, read_later: Reactor
) -> None:
    lose_index(folder)
    with archive_in(world, folder) as archive:
        assert stored(world, asking(world, archive), AGAIN) == [0]
        stopped_before_it_reads(archive, read_later)
        world.end()
    with ArchiveFolder(str(folder)) as opened:
        problems = {one.path: one.problem for one in verify(opened)}
        said = "replaced by 1.2.0/1.2.0.1/1.2.9.3.dcm"
        assert problems["1.2.3/1.2.3.4/1.2.9.3.dcm"] == said
        assert files_of_the_third(folder) == ["1.2.0"]
        assert not opened.index.newer(list(UIDS))


def test_what_came_back_before_it_was_read_stays(
    world: World, folder: Path, read_later: Reactor
) -> None:
    back = image("1.2.9.3", 900, study="1.2.3", series="1.2.3.4")
    with replacing(world, folder) as (_archive, requestor):
        assert stored(world, requestor, back) == [0]
        read_later.turn()
        assert retrieved(world, requestor, "1.2.3") == {"1.2.9.3": back.data}
        assert files_of_the_third(folder) == ["1.2.3"]
        world.end()


def test_what_was_replaced_stays_where_the_newer_one_is_gone(
    world: World, folder: Path, read_later: Reactor
) -> None:
    with replacing(world, folder):
        (folder / "instances/1.2.0/1.2.0.1/1.2.9.3.dcm").unlink()
        read_later.turn()
        assert files_of_the_third(folder) == ["1.2.3"]
        world.end()


@pytest.mark.parametrize(("rule", "status"), [("keep", 0), ("reject", 0x0111)])
def test_an_instance_that_is_not_read_yet_is_not_stored_in_another_study(
    world: World, folder: Path, read_later: Reactor, rule: str, status: int
) -> None:
    lose_index(folder)
    with archive_in(world, folder, on_duplicate=rule) as archive:
        requestor = asking(world, archive)
        again = [image(uid, 5000, study="1.2.0", series="1.2.0.1") for uid in ("1.2.9.3", "1.2.8")]
        assert found(world, requestor) == set()
        assert stored(world, requestor, *again) == [status, 0]
        read_later.turn()
        assert found(world, requestor) == {*UIDS, "1.2.8"}
        assert stored(world, requestor, *again) == [status, status and 0x0111]
        assert list(retrieved(world, requestor, "1.2.0")) == ["1.2.8"]
        world.end()
    assert len(list(folder.rglob("1.2.9.3.dcm"))) == 1


def test_a_commitment_waits_for_what_is_not_read_yet(
    world: World, folder: Path, read_later: Reactor
) -> None:
    references = [Reference(CT, uid) for uid in [*UIDS, "1.2.3.no-such"]]
    lose_index(folder)
    with archive_in(world, folder) as archive:
        nowhere: Any = None
        commitment = ArchiveCommitment(archive, {})
        reasons = Deferred.fromCoroutine(commitment.commit(nowhere, references))
        world.advance(5)
        assert not reasons.called
        read_later.turn()
        world.advance(5)
        expected = {**dict.fromkeys(UIDS), "1.2.3.no-such": NO_SUCH_SOP_INSTANCE}
        assert world.result(reasons) == expected
        world.end()


# --- files that cannot be read


def test_a_file_that_cannot_be_read_keeps_no_other_from_being_found_and_is_tried_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "archive"
    real = builtins.open

    def fails(path: Any, *args: Any, **more: Any) -> Any:
        if str(path).endswith("1.2.9.3.dcm"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", fails)
        with archive_in(world, folder) as archive:
            requestor = asking(world, archive)
            sources = [image(f"1.2.9.{number}") for number in range(5)]
            assert stored(world, requestor, *sources) == [0] * 5
            rest = {f"1.2.9.{number}" for number in (0, 1, 2, 4)}
            assert found(world, requestor) == rest
            assert stored(world, requestor, image("1.2.9.5")) == [0]
            assert found(world, requestor) == {*rest, "1.2.9.5"}
            world.end()
        assert found_after_a_start(world, folder) == {*rest, "1.2.9.5"}
        assert os.listdir(folder / "journal") == []
        with ArchiveFolder(str(folder)) as opened:
            problems = [finding for finding in verify(opened) if finding.problem]
            assert [finding.path for finding in problems] == ["1.2.3/1.2.3.4/1.2.9.3.dcm"]
            assert "Input/output error" in problems[0].problem
    lines = world.lines("1.2.9.3.dcm: cannot be read, tried")
    assert len(lines) == 2  # of the store, and of the next start
    assert found_after_a_start(world, folder) == {*rest, "1.2.9.3", "1.2.9.5"}
    with ArchiveFolder(str(folder)) as opened:
        assert opened.index.unreadable() == []


@pytest.mark.parametrize("end", ["/instances/1.2.3", "/1.2.3.4"])
def test_a_folder_that_cannot_be_read_keeps_no_other_from_being_found_and_is_tried_again(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    lose_index(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", failing_at(end, errno.EIO))
        assert found_after_a_start(world, folder) == {*UIDS} - {"1.2.9.3"}
        assert found_after_a_start(world, folder) == {*UIDS} - {"1.2.9.3"}
    name = end.removeprefix("/instances/").replace("/1.2.3.4", "1.2.3/1.2.3.4")
    lines = world.lines(f"not indexed: {name}: cannot be read, tried again at the next start")
    assert len(lines) == 2  # of the reading, and of the next start
    assert found_after_a_start(world, folder) == set(UIDS)
    with ArchiveFolder(str(folder)) as opened:
        assert opened.index.unreadable() == []


def test_one_that_may_not_be_read_for_a_while_is_read_then(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_index(folder)
    monkeypatch.setattr(reading, "_RETRY", 0)
    monkeypatch.setattr(os, "scandir", failing_at("/instances/1.2.3", errno.EACCES, times=3))
    assert found_after_a_start(world, folder) == set(UIDS)
    [line] = world.lines("files cannot be read for the index now, which is tried again")
    assert "Permission denied" in line


def failing_at(end: str, error: int, times: int = 1000) -> Any:
    """`os.scandir`, but for one folder."""
    real = os.scandir

    def fails(path: Any) -> Any:
        nonlocal times
        if str(path).endswith(end) and (times := times - 1) >= 0:
            raise OSError(error, os.strerror(error), path)
        return real(path)

    return fails


# --- an index of an older version


def with_request(uid: str) -> BytesSource:
    """An instance with a Request Attributes Sequence."""
    item, dataset, plain = Dataset(), Dataset(), image(uid)
    item.RequestedProcedureID = "RP7"
    dataset.RequestAttributesSequence = [item]
    return BytesSource(CT, uid, EXPLICIT, encode_dataset(dataset, EXPLICIT) + plain.data)


def requests(world: World, requestor: Any) -> list[str]:
    keys = {"RequestAttributesSequence": [{"RequestedProcedureID": ""}]}
    series = world.result(requestor.find(keys, level="SERIES", model=STUDY_ROOT))
    return [item.RequestedProcedureID for one in series for item in one.RequestAttributesSequence]


def make_older(folder: Path) -> None:
    """Have the index be of version 2, which kept no sequences."""
    engine = sa.create_engine(f"sqlite:///{folder}/index.sqlite")
    with engine.begin() as connection:
        [header] = connection.scalars(sa.select(schema.series.c.header))
        at = header.index(struct.pack("<HH2s", 0x0040, 0x0275, b"SQ"))
        connection.execute(schema.series.update().values(header=header[:at]))
        connection.execute(schema.info.update().values(value="2"))
        schema.unreadable.drop(connection)
    engine.dispose()


@pytest.fixture
def older(world: World, tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    with archive_in(world, folder) as archive:
        requestor = asking(world, archive)
        assert stored(world, requestor, with_request("1.2.9"), with_request("1.2.8")) == [0, 0]
        assert requests(world, requestor) == ["RP7"]
        world.end()
    make_older(folder)
    return folder


def test_an_older_index_gets_what_it_kept_nothing_of(world: World, older: Path) -> None:
    with archive_in(world, older) as archive:
        world.run()
        assert requests(world, asking(world, archive)) == ["RP7"]
        world.end()
    assert len(world.lines("the index is made: 2 files were read")) == 1


def test_a_verification_gives_an_older_index_what_it_kept_nothing_of(
    world: World, older: Path
) -> None:
    with ArchiveFolder(str(older)) as folder:
        assert [finding.problem for finding in verify(folder)] == ["", ""]
        assert folder.index.reading is None
    with archive_in(world, older) as archive:
        assert requests(world, asking(world, archive)) == ["RP7"]
        world.end()
    assert world.lines("the index is made") == []
