"""The library as a client: ``python -m benchmarks.our_client echo PORT COUNT``, or ``store PORT
FOLDER``, which sends the files of a folder one after the other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet import defer, task

from benchmarks.wire import EXPLICIT, SECONDARY_CAPTURE, VERIFICATION
from twisted_dimse import connect


async def echo(reactor: Any, port: str, count: str) -> None:
    """One association, ``count`` C-ECHOs."""
    peer = f"RAW@127.0.0.1:{port}"
    async with await connect(peer, contexts=[VERIFICATION], reactor=reactor) as association:
        for _ in range(int(count)):
            await association.echo()


async def store(reactor: Any, port: str, folder: str) -> None:
    """One association, each file of ``folder``."""
    peer = f"RAW@127.0.0.1:{port}"
    contexts = [(SECONDARY_CAPTURE, [EXPLICIT])]
    paths = sorted(Path(folder).iterdir())
    async with await connect(peer, contexts=contexts, reactor=reactor) as association:
        for path in paths:
            await association.store(path)


def _main(reactor: Any, job: str, *arguments: str) -> defer.Deferred[None]:
    return defer.ensureDeferred({"echo": echo, "store": store}[job](reactor, *arguments))


if __name__ == "__main__":
    task.react(_main, sys.argv[1:])
