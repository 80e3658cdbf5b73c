"""Maintenance of an archive whose server crashed, whose index is not whole, or whose folders have
what they should not."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from archives import image
from memory import CT, EXPLICIT
from peers import dimse

from twisted_dimse.archive import schema
from twisted_dimse.archive.folder import ArchiveFolder
from twisted_dimse.archive.index import Index
from twisted_dimse.archive.indexer import files_of
from twisted_dimse.archive.maintenance import Finding, delete, import_files, verify
from twisted_dimse.datastream import part10_header

FIRST, SECOND = "1.2.3/1.2.3.4/1.2.9.dcm", "1.2.0/1.2.0.4/1.2.9.dcm"


def file_at(top: Path, path: str, size: int = 300) -> str:
    """Put an instance where a path of the index has it."""
    study, series, name = path.split("/")
    uid = name.removesuffix(".dcm")
    file = top / path
    file.parent.mkdir(parents=True, exist_ok=True)
    data = image(uid, size, study=study, series=series).data
    file.write_bytes(part10_header(CT, uid, EXPLICIT) + data)
    return path


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """The folder of the instances of an archive that has one."""
    top = tmp_path / "archive/instances"
    file_at(top, FIRST)
    with opened(top) as folder:
        assert problems(verify(folder)) == {FIRST: "not in the index"}
    return top


def opened(top: Path) -> ArchiveFolder:
    return ArchiveFolder(str(top.parent))


def crashed(top: Path, *paths: str) -> None:
    """Have a server have acknowledged instances, and not indexed them."""
    with opened(top) as folder:
        folder.journal.append(paths, durably=False)


def problems(findings: Iterable[Finding]) -> dict[str, str]:
    return {finding.path: finding.problem for finding in findings if finding.problem}


def in_the_index(folder: ArchiveFolder) -> set[str]:
    return {row[0] for row in folder.index.fetch(sa.select(schema.instances.c.path))}


def there(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("*.dcm")}


# --- after a crash


def test_what_a_server_that_crashed_left_over_is_deleted_too(top: Path) -> None:
    crashed(top, file_at(top, "1.2.3/1.2.3.4/1.2.10.dcm"), file_at(top, "1.2.5/1.2.5.4/1.2.11.dcm"))
    with opened(top) as folder:
        assert len(list(delete(folder, "1.2.3"))) == 2
        assert len(list(delete(folder, "1.2.11"))) == 1
    assert there(top) == set()
    assert os.listdir(top.parent / "journal") == []


def test_what_is_imported_after_a_crash_is_newer_than_what_was_stored_before(
    top: Path, tmp_path: Path
) -> None:
    file_at(tmp_path / "other", SECOND, 5000)
    crashed(top, FIRST)
    with opened(top) as folder:
        assert problems(import_files(folder, [tmp_path / "other"])) == {}
        assert folder.journal.left_over() == []
        assert in_the_index(folder) == {SECOND}
    assert there(top) == {SECOND}


def test_what_an_import_that_was_killed_had_taken_in_is_there(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def dies(*_: object) -> None:
        raise Killed

    file_at(tmp_path / "other", SECOND, 5000)
    with opened(top) as folder, monkeypatch.context() as patch:
        patch.setattr(Index, "add", dies)
        with pytest.raises(Killed):
            list(import_files(folder, [tmp_path / "other"]))
    with opened(top) as folder:
        assert problems(verify(folder)) == {}
        assert in_the_index(folder) == {SECOND}
    assert os.listdir(top.parent / "journal") == []


def test_what_replaced_an_instance_before_a_crash_is_what_a_verification_keeps(top: Path) -> None:
    crashed(top, file_at(top, SECOND, 5000))
    with opened(top) as folder:
        assert problems(verify(folder)) == {}
        assert in_the_index(folder) == {SECOND}
    assert there(top) == {SECOND}


# --- an index that is not whole, and folders that have what they should not


def test_nothing_is_deleted_while_files_are_still_to_be_read_for_the_index(top: Path) -> None:
    for file in top.parent.glob("index.sqlite*"):
        file.unlink()
    with opened(top) as folder:
        with pytest.raises(LookupError, match="dimse archive verify first"):
            list(delete(folder, "1.2.3"))
        assert there(top) == {FIRST}
        list(verify(folder))
        assert len(list(delete(folder, "1.2.3"))) == 1


def test_a_second_file_of_an_instance_is_said_and_changes_nothing(top: Path) -> None:
    file_at(top, SECOND, 5000)
    for _ in range(2):
        with opened(top) as folder:
            expected = {SECOND: f"the same instance as {FIRST}, which the index has"}
            assert problems(verify(folder)) == expected
            assert in_the_index(folder) == {FIRST}


def test_an_instance_that_somebody_moved_is_found_where_it_is(top: Path) -> None:
    (top / FIRST).unlink()
    file_at(top, SECOND)
    with opened(top) as folder:
        assert problems(verify(folder))[SECOND] == "not in the index"
        assert in_the_index(folder) == {SECOND}


def test_a_folder_that_cannot_be_listed_is_said_and_its_rows_stay(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def fails(path: Any) -> Any:
        if str(path).endswith("/1.2.3"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path)

    with monkeypatch.context() as patch, opened(top) as folder:
        patch.setattr(os, "scandir", fails)
        [(path, problem)] = problems(verify(folder)).items()
        assert path == "1.2.3"
        assert "Input/output error" in problem
        assert in_the_index(folder) == {FIRST}
    with opened(top) as folder:
        assert problems(verify(folder)) == {}


def test_what_lies_behind_a_link_is_there(top: Path, tmp_path: Path) -> None:
    """As where an old study is moved to another disk."""
    other = file_at(top, "1.2.5/1.2.5.4/1.2.10.dcm")
    os.rename(top / "1.2.5", tmp_path / "1.2.5")
    os.symlink(tmp_path / "1.2.5", top / "1.2.5")
    os.symlink(top, top / "1.2.3/again")
    os.symlink(tmp_path / "nowhere", top / "1.2.4")
    for problem in ({other: "not in the index"}, {}):
        with opened(top) as folder:
            found = problems(verify(folder))
            assert found.pop("1.2.4").startswith("cannot be read: ")
            assert found == problem
            assert in_the_index(folder) == {FIRST, other}
    with opened(top) as folder:
        folder.index.remove([FIRST, other])
        folder.index.reading = ""
        assert [*files_of(folder, sorted(os.listdir(top)), {})] == [FIRST, "1.2.4", other]


def test_an_instance_that_can_have_no_row_is_said_and_keeps_no_other_from_it(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, strange = "1.2.3/1.2.3.4/1.2.10.dcm", file_at(top, "1.2.3/1.2.3.4/1.2.11.dcm")
    file_at(top, other)
    real = Index.add

    def add(index: Index, headers: Any) -> Any:
        headers = list(headers)
        if any(header.path == strange for header in headers):
            raise ValueError("a value that no database takes")
        return real(index, headers)

    monkeypatch.setattr(Index, "add", add)
    with opened(top) as folder:
        expected = {other: "not in the index", strange: "cannot be indexed"}
        assert problems(verify(folder)) == expected
        assert in_the_index(folder) == {FIRST, other}


# --- what fails on the way


def test_what_could_not_be_deleted_can_be_asked_for_again(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = file_at(top, "1.2.3/1.2.3.4/1.2.10.dcm")
    with opened(top) as folder:
        list(verify(folder))
    real = os.unlink

    def fails(path: Any) -> None:
        if str(path).endswith(second):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        real(path)

    with opened(top) as folder:
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", fails)
            with pytest.raises(PermissionError):
                list(delete(folder, "1.2.3"))
        assert in_the_index(folder) == there(top) == {second}
        assert [finding.path for finding in delete(folder, "1.2.3")] == [second]
        assert in_the_index(folder) == there(top) == set()


@pytest.mark.parametrize("words", [["verify"], ["delete", "1.2.3"], ["import", "."]])
def test_a_database_that_fails_is_one_line_without_values(top: Path, words: list[str]) -> None:
    with sqlite3.connect(top.parent / "index.sqlite") as database:
        database.execute("DROP TABLE instances")
    done = dimse("archive", *words, "--directory", top.parent, cwd=top)
    assert done.status == 2
    assert done.err.splitlines()[-1:] == [
        "dimse: the index cannot be used: no such table: instances"
    ]
    assert "1.2.9" not in done.err
