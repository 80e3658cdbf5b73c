"""A start takes what a crash left over, and not the archive: it is counted, not timed."""

from __future__ import annotations

import builtins
import os
import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from archives import asking, found, image, threads_of
from memory import World

from twisted_dimse.archive import index
from twisted_dimse.archive.folder import ArchiveFolder
from twisted_dimse.archive.handler import Archive
from twisted_dimse.archive.header import SERIES_UID, STUDY_UID, InstanceHeader
from twisted_dimse.datastream import part10_header

WALK = re.compile(r"SCAN (patients|studies|series|instances)\b")


class Work(NamedTuple):
    """What was done: steps of SQLite's machine, calls that open, list or look at files, and the
    plans of those statements that walk through a whole table."""

    steps: int
    calls: int
    walks: list[str]


def archive_of(folder: Path, studies: int, left_over: int) -> None:
    """Make an archive whose index has 20 instances in each study, and whose journal names
    ``left_over`` more, which are there."""
    paths = [file_in(folder, f"1.2.9.{number}") for number in range(left_over + 1)]
    for study in range(1000, 1000 + studies):
        (folder / "instances" / f"1.2.{study}").mkdir()
    with ArchiveFolder(str(folder)) as archive:
        one = InstanceHeader.read(archive.absolute(paths.pop()))
        archive.index.add(
            replace(
                one,
                path=f"1.2.{study}/1.2.{study}.1/1.2.{study}.1.{number}.dcm",
                sop_instance_uid=f"1.2.{study}.1.{number}",
                values={
                    **one.values,
                    STUDY_UID: f"1.2.{study}".encode(),
                    SERIES_UID: f"1.2.{study}.1".encode(),
                },
            )
            for study in range(1000, 1000 + studies)
            for number in range(20)
        )
        archive.journal.append(paths, durably=False)
        archive.index.reading = None  # as if it had been there before the files


def file_in(folder: Path, uid: str) -> str:
    source = image(uid)
    file = folder / "instances" / "1.2.3" / "1.2.3.4" / f"{uid}.dcm"
    file.parent.mkdir(parents=True, exist_ok=True)
    meta = part10_header(source.sop_class_uid, uid, source.transfer_syntax)
    file.write_bytes(meta + source.data)
    return f"1.2.3/1.2.3.4/{uid}.dcm"


def work_of_a_start(folder: Path, monkeypatch: pytest.MonkeyPatch, left_over: int) -> Work:
    """What it takes until all that was acknowledged can be found."""
    steps = calls = 0
    statements: list[str] = []

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def counting(real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            return real(*args, **more)

        return call

    with World() as world, monkeypatch.context() as patch:
        threads_of(world, patch)
        set_up = index._set_up_sqlite

        def counted(connection: Any, record: object) -> None:
            set_up(connection, record)
            connection.set_progress_handler(step, 1)
            connection.set_trace_callback(statements.append)

        patch.setattr(index, "_set_up_sqlite", counted)
        for name in ("open", "listdir", "scandir", "stat", "lstat"):
            patch.setattr(os, name, counting(getattr(os, name)))
        patch.setattr(builtins, "open", counting(open))
        archive = Archive(str(folder), reactor=world.clock)
        assert archive.start() == left_over
        world.run()
        patch.undo()
        done = Work(steps, calls, walks(folder, statements))
        uids = [f"1.2.9.{number}" for number in range(left_over)]
        assert found(world, asking(world, archive), uids or ["1.2.9.0"]) == set(uids)
        world.end()
        world.result(archive.close())
    return done


def walks(folder: Path, statements: list[str]) -> list[str]:
    found = []
    with sqlite3.connect(folder / "index.sqlite") as connection:
        for statement in statements:
            if statement.startswith(("SELECT", "DELETE", "UPDATE")):
                plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}")
                found += [f"{step}: {statement}" for *_, step in plan if WALK.match(step)]
    connection.close()
    return found


@pytest.mark.parametrize("left_over", [0, 5])
def test_a_start_does_as_much_for_a_large_archive_as_for_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_over: int
) -> None:
    works = []
    for studies in (5, 250):
        folder = tmp_path / str(studies)
        archive_of(folder, studies, left_over)
        works.append(work_of_a_start(folder, monkeypatch, left_over))
    small, large = works
    assert large.walks == []
    assert large.calls == small.calls
    assert large.steps <= 1.1 * small.steps  # a search in a tree that has a level more


def test_a_start_does_more_only_for_what_a_crash_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = []
    for left_over in (0, 10, 100):
        folder = tmp_path / str(left_over)
        archive_of(folder, 5, left_over)
        works.append(work_of_a_start(folder, monkeypatch, left_over))
    none, few, many = works
    assert few.calls > none.calls
    assert many.calls - none.calls <= 10 * (few.calls - none.calls)
    assert many.steps - none.steps <= 12 * (few.steps - none.steps)
