"""The journal: what was acknowledged and is not in the index yet survives, and nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from twisted_dimse.archive.journal import Journal


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


def test_what_was_noted_is_left_over_in_order(folder: str) -> None:
    Journal(folder).append(["a", "b"], durably=True)
    Journal(folder).append(["c"], durably=False)
    assert Journal(folder).left_over() == ["a", "b", "c"]


def test_nothing_is_left_over_in_a_new_folder(folder: str) -> None:
    assert Journal(folder).left_over() == []


def test_a_line_that_a_crash_cut_is_not_left_over(folder: str) -> None:
    journal = Journal(folder)
    journal.append(["a"], durably=False)
    [file] = Path(folder).iterdir()
    file.write_bytes(file.read_bytes() + b"1.2.3/4.5")
    assert Journal(folder).left_over() == ["a"]


def test_nothing_is_forgotten_before_all_of_a_file_is_indexed(folder: str) -> None:
    journal = Journal(folder)
    journal.append(["a", "b"], durably=False)
    journal.forget(1)
    journal.append(["c"], durably=False)
    journal.forget(2)
    assert Journal(folder).left_over() == ["a", "b", "c"]


def test_when_all_is_indexed_no_file_is_left_and_the_next_line_begins_one(folder: str) -> None:
    journal = Journal(folder)
    journal.append(["a", "b"], durably=False)
    journal.forget(2)
    assert list(Path(folder).iterdir()) == []
    journal.append(["c"], durably=False)
    assert Journal(folder).left_over() == ["c"]


def test_a_full_file_goes_while_others_are_still_needed(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what a crash leaves does not grow with the time since the last pause."""
    monkeypatch.setattr("twisted_dimse.archive.journal._LARGEST", 20)
    journal = Journal(folder)
    for number in range(100):
        journal.append([f"{number:09}"], durably=False)
        journal.forget(max(number - 5, 0))
    left = Journal(folder).left_over()
    assert left[-6:] == [f"{number:09}" for number in range(94, 100)]
    assert len(left) < 10


def test_what_was_not_stored_after_all_is_not_waited_for(folder: str) -> None:
    journal = Journal(folder)
    journal.append(["a", "b"], durably=False)
    journal.take_back()
    journal.forget(1)
    assert list(Path(folder).iterdir()) == []


def test_what_a_crash_left_is_forgotten_once_it_is_indexed(folder: str) -> None:
    Journal(folder).append(["a", "b"], durably=False)
    journal = Journal(folder)
    assert journal.left_over() == ["a", "b"]
    journal.append(["c"], durably=False)
    journal.forget(1)
    assert Journal(folder).left_over() == ["a", "b", "c"]
    journal.forget(2)
    assert Journal(folder).left_over() == ["c"]
    journal.forget(3)
    assert list(Path(folder).iterdir()) == []


def test_a_line_that_did_not_fit_on_the_disk_does_not_spoil_the_next(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(folder)
    journal.append(["1.2/1.3/1.4.dcm"], durably=True)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
        with pytest.raises(OSError, match="No space left"):
            journal.append(["1.2/1.3/1.5.dcm"], durably=True)
    journal.append(["1.2/1.3/1.6.dcm"], durably=True)
    assert journal.noted == 2
    assert Journal(folder).left_over() == ["1.2/1.3/1.4.dcm", "1.2/1.3/1.6.dcm"]


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_after_a_failed_sync_another_file_is_begun(
    folder: str, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """What the system kept of the first for the disk, and whether it has its name, is unknown."""

    def fails(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    journal = Journal(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises(OSError, match="Input/output"):
            journal.append(["a"], durably=True)
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), real(fd)))
    journal.append(["b"], durably=True)
    assert synced
    assert Journal(folder).left_over()[-1] == "b"
    journal.forget(1)
    assert list(Path(folder).iterdir()) == []


def test_what_somebody_put_there_is_left_alone(folder: str) -> None:
    Journal(folder).append(["a"], durably=False)
    other = Path(folder) / "other"
    other.mkdir()
    (Path(folder) / "00000007.log").mkdir()
    for file in (other / "9.log", Path(folder) / "00000001 (copy).log", Path(folder) / "old.log"):
        file.write_text("b\n")
    journal = Journal(folder)
    journal.gather()
    assert journal.left_over() == ["a"]
    assert journal.all_noted() == {"a"}
    journal.forget_all()
    assert len(list(Path(folder).iterdir())) == 4
    assert (other / "9.log").exists()


def test_numbers_go_on_after_a_restart(folder: str) -> None:
    for _ in range(3):
        Journal(folder).append(["a"], durably=False)
    assert [file.name for file in sorted(Path(folder).iterdir())] == [
        "00000001.log",
        "00000002.log",
        "00000003.log",
    ]


def test_what_is_left_in_folders_below_is_gathered_and_then_forgotten(folder: str) -> None:
    Journal(folder).append(["a"], durably=False)
    for number, path in ((2, "b"), (3, "c")):
        Journal(f"{folder}/{number}").append([path], durably=False)
    journal = Journal(folder)
    journal.gather()
    assert Journal(folder).left_over() == ["a", "b", "c"]
    journal.append(["d"], durably=False)
    assert Journal(folder).left_over() == ["a", "b", "c", "d"]
    journal.forget_all()
    assert list(Path(folder).iterdir()) == []


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is renamed, removed and synced, in order."""
    made: list[tuple[str, str]] = []
    real_fsync, real_rename, real_rmdir = os.fsync, os.rename, os.rmdir

    def fsync(descriptor: int) -> None:
        made.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real_fsync(descriptor)

    def rename(source: str, target: str) -> None:
        made.append(("rename", target))
        real_rename(source, target)

    def rmdir(folder: str) -> None:
        made.append(("rmdir", folder))
        real_rmdir(folder)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "rmdir", rmdir)
    return made


def test_the_names_of_a_file_and_of_its_folder_are_on_the_disk_with_its_first_line(
    folder: str, calls: list[tuple[str, str]]
) -> None:
    """A worker's journal has a folder of its own, which nobody else syncs."""
    below = os.path.join(folder, "2")
    journal = Journal(below)
    journal.append(["a"], durably=True)
    assert calls == [("fsync", below), ("fsync", folder)]
    journal.append(["b"], durably=True)
    assert len(calls) == 2


def test_what_is_gathered_is_on_the_disk_before_its_folder_goes(
    folder: str, calls: list[tuple[str, str]]
) -> None:
    Journal(os.path.join(folder, "2")).append(["a"], durably=False)
    Journal(folder).gather()
    assert calls == [
        ("rename", os.path.join(folder, "00000001.log")),
        ("fsync", folder),
        ("rmdir", os.path.join(folder, "2")),
    ]
