"""C-STORE of 8 KiB with a window of 8 operations at once, from our client to our server, beside
the same without a window, and beside ``storescu`` to ``storescp``, which know none."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.harness import DCMTK, OURS, Mark, Row
from benchmarks.instances import Shape
from benchmarks.pairs import Work, pair
from benchmarks.peers import DIMSE, OUR_CLIENT, STORING_CLIENTS, STORING_SERVERS, Command, ours
from benchmarks.scratch import KIB, Settings

WITHOUT = "no window"
MARKS = (Mark(3.0, WITHOUT), Mark(3.0, DCMTK))


def rows(settings: Settings) -> list[Row]:
    """The command and the library, each with and without the window."""
    work = Work(settings, Shape(8 * KIB), settings.small)
    server, storescp, *_ = STORING_SERVERS
    command, library, storescu, *_ = STORING_CLIENTS
    clients = [
        (command, ours("dimse store --window 8", partial(_command, 8))),
        (library, ours("store(), window=8", partial(_library, 8))),
    ]
    found = []
    for (plain, windowed), name in zip(clients, ("window-command", "window-library"), strict=True):
        contestants = [
            pair(windowed.name, OURS, windowed, server, work),
            pair(plain.name, WITHOUT, plain, server, work),
            pair("storescu to storescp +B", DCMTK, storescu, storescp, work),
        ]
        title = "send 8 KiB to our server, window of 8"
        found.append(Row(name, title, "a second", contestants, MARKS))
    return found


def _command(window: int, port: int, folder: Path, _: int) -> Command:
    return [*DIMSE, "store", "--window", str(window), f"RAW@127.0.0.1:{port}", str(folder)]


def _library(window: int, port: int, folder: Path, _: int) -> Command:
    return [*OUR_CLIENT, "store", f"RAW@127.0.0.1:{port}", str(folder), str(window)]
