"""Sends files by `connect` and `Association.store`, one after the other: what `test_send.py` runs.

python send_with_library.py PEER JOB

JOB is a JSON file: a list of path, SOP class and transfer syntax for each file. One JSON line with
path and status is printed for each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import react

from twisted_dimse import ContextNotAccepted, StatusError, connect


async def main(reactor: Any, peer: str, job: str) -> None:
    files = json.loads(Path(job).read_text())
    kinds = dict.fromkeys((sop_class, syntax) for _, sop_class, syntax in files)
    contexts = [(sop_class, [syntax]) for sop_class, syntax in kinds]
    async with await connect(peer, contexts=contexts, reactor=reactor) as association:
        for path, _, _ in files:
            try:
                status = (await association.store(path)).status
            except StatusError as error:
                status = error.status
            except ContextNotAccepted:
                status = None
            print(json.dumps([path, status]))


react(main, sys.argv[1:])
