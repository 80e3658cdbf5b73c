"""The library as a client: ``python -m benchmarks.our_client echo PORT COUNT``; ``store PEER
FOLDER [WINDOW]``, which sends the files of a folder one after the other or up to a window of them
at once; ``find PORT COUNT``, which asks for so many answers; ``ask PORT KEYS``, which asks many
queries."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from pydicom import Dataset
from twisted.internet import defer, task

from benchmarks.wire import EXPLICIT, SECONDARY_CAPTURE, VERIFICATION
from twisted_dimse import STUDY_ROOT, connect


async def echo(reactor: Any, port: str, count: str) -> None:
    """One association, ``count`` C-ECHOs."""
    peer = f"RAW@127.0.0.1:{port}"
    async with await connect(peer, contexts=[VERIFICATION], reactor=reactor) as association:
        for _ in range(int(count)):
            await association.echo()


async def store(reactor: Any, peer: str, folder: str, window: str = "") -> None:
    """One association, each file of ``folder``."""
    contexts = [(SECONDARY_CAPTURE, [EXPLICIT])]
    paths = sorted(Path(folder).iterdir())
    operations = int(window) if window else None
    async with await connect(
        peer, contexts=contexts, window=operations, reactor=reactor
    ) as association:

        async def send(queue: Iterator[Path]) -> None:
            for path in queue:
                await association.store(path)

        queue = iter(paths)
        senders = [defer.ensureDeferred(send(queue)) for _ in range((operations or 1) + 1)]
        await defer.gatherResults(senders, consumeErrors=True)


async def find(reactor: Any, port: str, count: str) -> None:
    """One association, one C-FIND of ``count`` answers."""
    peer = f"RAW@127.0.0.1:{port}"
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.PatientName = identifier.StudyInstanceUID = ""
    identifier.NumberOfStudyRelatedInstances = count
    async with await connect(peer, contexts=[STUDY_ROOT.find], reactor=reactor) as association:
        found = await association.find(identifier)
    if len(found) != int(count):
        raise RuntimeError(f"{len(found)} answers instead of {count}")


_ASKED_FOR = {
    "SpecificCharacterSet": "ISO_IR 192",
    **dict.fromkeys(("PatientID", "PatientName", "StudyDate", "StudyInstanceUID"), ""),
}


async def ask(reactor: Any, port: str, keys: str) -> None:
    """One association, all queries of a file one after the other; prints what each took."""
    peer = f"RAW-PEER@127.0.0.1:{port}"
    taken: dict[str, list[float]] = {}
    async with await connect(peer, contexts=[STUDY_ROOT.find], reactor=reactor) as association:
        for kind, queries in json.loads(Path(keys).read_text()).items():
            taken[kind] = []
            for query in queries:
                begun = perf_counter()
                found = await association.find({**_ASKED_FOR, **query})
                taken[kind].append(perf_counter() - begun)
                if not found:
                    raise RuntimeError(f"no answer to {query}")
    print(json.dumps(taken))


JOBS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "echo": echo,
    "store": store,
    "find": find,
    "ask": ask,
}


def _main(reactor: Any, job: str, *arguments: str) -> defer.Deferred[None]:
    return defer.ensureDeferred(JOBS[job](reactor, *arguments))


if __name__ == "__main__":
    task.react(_main, sys.argv[1:])
