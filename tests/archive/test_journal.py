"""The journal: what was acknowledged and is not in the index yet survives, and nothing else."""

from __future__ import annotations

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


def test_what_is_indexed_is_forgotten_and_what_came_since_is_not(folder: str) -> None:
    journal = Journal(folder)
    journal.append(["a"], durably=False)
    mark = journal.mark(1)
    journal.append(["b"], durably=False)
    assert mark is not None
    journal.forget(mark)
    assert Journal(folder).left_over() == ["b"]


def test_there_is_no_mark_while_more_is_noted_than_is_known_of(folder: str) -> None:
    journal = Journal(folder)
    journal.append(["a", "b"], durably=False)
    assert journal.mark(1) is None
    journal.take_back()
    assert journal.mark(1) is not None


def test_what_a_crash_left_is_forgotten_with_the_first_mark(folder: str) -> None:
    Journal(folder).append(["a"], durably=False)
    journal = Journal(folder)
    mark = journal.mark(0)
    assert mark is not None
    journal.forget(mark)
    assert list(Path(folder).iterdir()) == []


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
