"""The library as a server, until it is told to end: ``python -m benchmarks.our_server PORT``.

It throws away what it receives, and gives as many answers to a query as the query's Number of
Study Related Instances says. A second word, ``subscribed``, has telemetry counted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from pydicom import Dataset
from twisted.internet import defer, task

from benchmarks.wire import SECONDARY_CAPTURE
from twisted_dimse import STUDY_ROOT, VERIFICATION, Handler, listen, telemetry


class Counter:
    """The least that a subscriber does."""

    def __init__(self) -> None:
        self.events = 0

    def __call__(self, event: object) -> None:
        self.events += 1


class Nowhere:
    """A consumer of a data set's octets that keeps none of them."""

    def write(self, data: bytes | memoryview) -> None:
        """Drop a slice."""

    def finish(self) -> int:
        """Answer success."""
        return 0

    def abandon(self) -> None:
        """The association ended first: nothing to clean up."""


class Everything(Handler):
    """Accepts and forgets every instance, and makes up what is asked for."""

    contexts = (VERIFICATION, STUDY_ROOT.find, SECONDARY_CAPTURE)

    def store_sink(self, request: Any) -> Nowhere:
        """A consumer for one instance."""
        return Nowhere()

    def find(self, request: Any) -> Iterator[Dataset]:
        """Studies, each made when there is room for it."""
        for number in range(request.dataset.NumberOfStudyRelatedInstances):
            study = Dataset()
            study.QueryRetrieveLevel = "STUDY"
            study.StudyDate = "20240229"
            study.AccessionNumber = f"A{number:07d}"
            study.PatientName = f"BENCHMARK^PATIENT{number:07d}"
            study.PatientID = f"BENCH-{number:07d}"
            study.StudyInstanceUID = f"2.25.4{number:022d}"
            yield study


async def serve(reactor: Any, port: str, subscribed: str = "") -> None:
    """Listen on loopback for as long as the process lives."""
    if subscribed:
        telemetry.subscribe(Counter())
    await listen(f"tcp:{port}:interface=127.0.0.1", Everything(), reactor=reactor)
    await defer.Deferred()


def _main(reactor: Any, *words: str) -> defer.Deferred[None]:
    return defer.ensureDeferred(serve(reactor, *words))


if __name__ == "__main__":
    task.react(_main, sys.argv[1:])
