"""C-STORE of 8 KiB with a window of 8 operations at once, from our client to our server, beside
the same without a window, and beside ``storescu`` to ``storescp``, which know none.

On loopback, where an answer takes no time to come, and with half a millisecond each way in between
(`distance`), as between two buildings: that time is what a window hides.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.harness import DCMTK, OURS, Mark, Row
from benchmarks.instances import Shape
from benchmarks.pairs import Work, pair
from benchmarks.peers import (
    DIMSE,
    OUR_CLIENT,
    STORING_CLIENTS,
    STORING_SERVERS,
    Command,
    Program,
    ours,
)
from benchmarks.scratch import KIB, Settings

WITHOUT = "no window"
MARKS = (Mark(3.0, WITHOUT), Mark(3.0, DCMTK))


def rows(settings: Settings) -> list[Row]:
    """The command and the library, each with and without the window."""
    here = Work(settings, Shape(8 * KIB), settings.small)
    away = Work(settings, Shape(8 * KIB), max(settings.small // 8, 50), distance=0.0005)
    command, library = STORING_CLIENTS[:2]
    windowed = ours("dimse store --window 8", partial(_command, 8))
    in_library = ours("store(), window=8", partial(_library, 8))
    title = "send 8 KiB to our server, window of 8"
    return [
        _row("window-command", title, windowed, command, here),
        _row("window-library", title, in_library, library, here),
        _row("window-away", f"{title}, 1 ms there and back", windowed, command, away),
    ]  # fmt: skip


def _row(name: str, title: str, windowed: Program, plain: Program, work: Work) -> Row:
    server, storescp = STORING_SERVERS[:2]
    contestants = [
        pair(windowed.name, OURS, windowed, server, work),
        pair(plain.name, WITHOUT, plain, server, work),
        pair("storescu to storescp +B", DCMTK, STORING_CLIENTS[2], storescp, work),
    ]
    return Row(name, title, "a second", contestants, MARKS)


def _command(window: int, port: int, folder: Path, _: int) -> Command:
    return [*DIMSE, "store", "--window", str(window), f"RAW@127.0.0.1:{port}", str(folder)]


def _library(window: int, port: int, folder: Path, _: int) -> Command:
    return [*OUR_CLIENT, "store", f"RAW@127.0.0.1:{port}", str(folder), str(window)]
