"""The Storage service class (PS3.4 annex B), both halves.

SCP: `FilingHandler` files what it receives. SCU: `plan_contexts` and `StoreOutcome`, with which
`sending.store_files` sends.

    port = await listen("tcp:11112", FilingHandler(InstanceFiles("./received")))
    outcomes = await store_files(peer, ["./study"])      # of `sending`
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from twisted_dimse.datastream import FileSource, Sink
from twisted_dimse.dimse.status import Category, category
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
