"""The subjects, in the order of the table. A new subject is a module with ``rows(settings)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from benchmarks import (
    archive,
    associations,
    commands,
    curves,
    echo,
    find,
    get,
    many,
    memory,
    receive,
    send,
    senders,
    stall,
    start,
    telemetry,
    tls,
    turns,
    window,
)
from benchmarks.harness import Row
from benchmarks.scratch import Settings

SUBJECTS = (
    echo, receive, senders, send, commands, memory, window, many, associations, tls, find, get,
    archive, telemetry, start, stall, turns,
)  # fmt: skip
#: Subjects that take their rows when they are named, and not among all.
NAMED = (curves,)


def chosen_rows(settings: Settings, names: Sequence[str], skipped: Sequence[str] = ()) -> list[Row]:
    """The rows whose names match any of the patterns (all but those of `NAMED` without patterns),
    less some parties.

    A pattern is a shell pattern or the beginning of a name. Raises ValueError for one that
    matches nothing.
    """
    subjects = (*SUBJECTS, *NAMED) if names else SUBJECTS
    rows = [row for subject in subjects for row in subject.rows(settings)]
    for name in names:
        if not any(_matches(row, name) for row in rows):
            known = ", ".join(row.name for row in rows)
            raise ValueError(f"no row is called {name}; there are {known}")
    chosen = [row for row in rows if not names or any(_matches(row, name) for name in names)]
    return [_without(row, skipped) for row in chosen]


def _matches(row: Row, pattern: str) -> bool:
    return row.name.startswith(pattern) or fnmatchcase(row.name, pattern)


def _without(row: Row, parties: Sequence[str]) -> Row:
    stay = [one for one in row.contestants if one.party.lower() not in map(str.lower, parties)]
    return replace(row, contestants=stay)
