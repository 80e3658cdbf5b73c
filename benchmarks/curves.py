"""How the figures change with what they depend on: the rate of receiving with the number of
senders, the time of a query with that of instances, and the memory of an association with how many
there are.

    python -m benchmarks curves --runs 3 --output curves.json
    python -m benchmarks chart curves.json > docs/curves.svg
"""

from __future__ import annotations

from functools import partial

from benchmarks.archive import asking
from benchmarks.get import our_archive
from benchmarks.harness import Mark, Point, Row
from benchmarks.instances import Shape
from benchmarks.many import MOST_EACH, idling, our_servers
from benchmarks.scratch import KIB, Settings
from benchmarks.senders import ONE_PROCESS, STORESCP, TWO_WORKERS, receiving

SENDERS = (1, 8, 64, 256)
INSTANCES = (1_000, 10_000, 100_000)
ASSOCIATIONS = (10, 100, 1_000, 2_000)
_QUICK = 2  # points of each curve


def rows(settings: Settings) -> list[Row]:
    """A row for each point of each curve."""
    most = _QUICK if settings.quick else None
    fewer = 10 if settings.quick else 1
    return [
        *(_receiving(settings, number) for number in SENDERS[:most]),
        *(_asking(settings, number // fewer) for number in INSTANCES[:most]),
        *(_holding(settings, number) for number in ASSOCIATIONS[:most]),
    ]


def _receiving(settings: Settings, number: int) -> Row:
    shape, count = Shape(8 * KIB), settings.small
    contestants = [
        program.contestant(partial(receiving, program, settings, shape, count, number))
        for program in (ONE_PROCESS, TWO_WORKERS, STORESCP)
    ]
    point = Point("Instances of 8 KiB received a second", "senders at once", number)
    title = f"receive 8 KiB, {number} senders"
    return Row(f"curves-senders-{number}", title, "a second", contestants, point=point)


def _asking(settings: Settings, number: int) -> Row:
    archive = our_archive()
    point = Point("Milliseconds for a query of a few answers", "instances in the archive", number)
    contestants = [archive.contestant(partial(asking, archive, settings, number))]
    title = f"C-FIND at {number:,} instances"
    return Row(f"curves-query-{number}", title, "ms", contestants, [Mark(5.0)], point=point)


def _holding(settings: Settings, number: int) -> Row:
    contestants = [
        server.contestant(partial(idling, server, settings, number)) for server in our_servers()
    ]
    point = Point("KiB of memory for each association", "associations held", number)
    title = f"memory of each of {number:,} idle associations"
    marks = [Mark(MOST_EACH)] if number >= 100 else []
    return Row(f"curves-memory-{number}", title, "KiB", contestants, marks, point=point)
