"""The Storage service class (PS3.4 annex B), both halves.

SCP: `FilingHandler` files what it receives. SCU: `store_files` sends files, planning contexts and
associations by itself.

    port = await listen("tcp:11112", FilingHandler(InstanceFiles("./received")))
    async for outcome in ...: see `store_files`
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from twisted_dimse.association import Association
from twisted_dimse.client import connect
from twisted_dimse.datastream import FileSource, NotDicom, Sink, expand_paths
from twisted_dimse.dimse.status import Category, category
from twisted_dimse.errors import ContextNotAccepted, DimseError, StatusError
from twisted_dimse.handler import Handler, Request
from twisted_dimse.services.files import InstanceFiles
from twisted_dimse.upperlayer.negotiation import MAX_CONTEXTS, PresentationContext


class FilingHandler(Handler):
    """Storage SCP: writes each instance to `InstanceFiles` as it arrives.

    ``stored`` is called with the request and the path of each instance before its success is
    answered.
    """

    storage_of_any_kind = True

    def __init__(
        self, files: InstanceFiles, stored: Callable[[Request, str], None] | None = None
    ) -> None:
        self.files = files
        self._stored = stored

    def store_sink(self, request: Request) -> Sink:
        stored = self._stored
        if stored is None:
            return self.files.sink(request)
        return self.files.sink(request, lambda path: stored(request, path))


@dataclass(frozen=True, slots=True)
class StoreOutcome:
    """What became of one file. `status` is None where no answer came, and `error` then says why;
    `skipped` marks a file in which there is nothing to send, `abandoned` one that was not answered
    because the association had ended, or never came about."""

    path: str
    sop_instance_uid: str = ""
    status: int | None = None
    error: str = ""
    octets: int = 0
    skipped: bool = False
    abandoned: bool = False

    @property
    def ok(self) -> bool:
        """Whether the peer has the instance: success or a warning."""
        if self.status is None:
            return False
        return category(self.status) in (Category.SUCCESS, Category.WARNING)


def plan_contexts(sources: Iterable[FileSource]) -> Iterator[tuple[list[FileSource], list[Any]]]:
    """Group instances by what one association can carry: at most 128 contexts, one for each
    SOP class and transfer syntax."""
    batch: list[FileSource] = []
    contexts: dict[tuple[str, str], PresentationContext] = {}
    for source in sources:
        key = (source.sop_class_uid, source.transfer_syntax)
        if key not in contexts:
            if len(contexts) == MAX_CONTEXTS:
                yield batch, list(contexts.values())
                batch, contexts = [], {}
            contexts[key] = PresentationContext(key[0], (key[1],))
        batch.append(source)
    if batch:
        yield batch, list(contexts.values())


async def store_files(
    peer: Any,
    paths: Iterable[str | os.PathLike[str]],
    *,
    outcome: Callable[[StoreOutcome], None] | None = None,
    window: int | None = None,
    **options: Any,
) -> list[StoreOutcome]:
    """Send files and folders to a peer; ``options`` are those of `connect`.

    Reads only headers to plan, streams data sets from disk, and opens as many associations, one
    after the other, as the number of contexts takes. ``outcome`` is called with each file's
    `StoreOutcome` as it is known. Fails with a `DimseError` where no association comes about, or
    one ends early; all files that were not answered are noted first, as `abandoned`.
    """
    outcomes: list[StoreOutcome] = []

    def note(known: StoreOutcome) -> None:
        outcomes.append(known)
        if outcome is not None:
            outcome(known)

    plan = plan_contexts(_sources(paths, note))
    for batch, contexts in plan:
        waiting = iter(batch)
        try:
            association = await connect(peer, contexts=contexts, window=window, **options)
            async with association:
                await _store_batch(association, waiting, note)
        except ContextNotAccepted as error:  # none of this association's; the next has others
            for source in waiting:
                note(StoreOutcome(source.path, source.sop_instance_uid, None, str(error)))
        except DimseError as error:
            for source in itertools.chain(waiting, *(rest for rest, _ in plan)):
                note(_abandoned(source, error))
            raise
    return outcomes


def _abandoned(source: FileSource, error: DimseError) -> StoreOutcome:
    return StoreOutcome(source.path, source.sop_instance_uid, None, str(error), abandoned=True)


def _sources(
    paths: Iterable[str | os.PathLike[str]], note: Callable[[StoreOutcome], None]
) -> Iterator[FileSource]:
    for path in expand_paths(paths):
        try:
            yield FileSource.of(path)
        except NotDicom as error:
            note(StoreOutcome(path, error=str(error), skipped=True))
        except OSError as error:
            note(StoreOutcome(path, error=f"{path}: {error.strerror}"))


async def _store_batch(
    association: Association, waiting: Iterator[FileSource], note: Callable[[StoreOutcome], None]
) -> None:
    """Keep the window full, and no more than that open at once."""
    lanes = association.window.invoked or 64
    lane = [Deferred.fromCoroutine(_lane(association, waiting, note)) for _ in range(lanes)]
    for succeeded, result in await DeferredList(lane, consumeErrors=True):
        if not succeeded:
            result.raiseException()  # type: ignore[attr-defined]


async def _lane(
    association: Association, waiting: Iterator[FileSource], note: Callable[[StoreOutcome], None]
) -> None:
    for source in waiting:
        try:
            response = await association.store(source)
        except StatusError as error:
            known = StoreOutcome(
                source.path, source.sop_instance_uid, error.status, str(error), source.size
            )
        except (ContextNotAccepted, OSError) as error:
            known = StoreOutcome(source.path, source.sop_instance_uid, None, str(error))
        except DimseError as error:
            note(_abandoned(source, error))
            raise
        else:
            known = StoreOutcome(
                source.path, source.sop_instance_uid, response.status, "", source.size
            )
        note(known)
