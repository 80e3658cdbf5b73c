"""The Modality Worklist (PS3.4 K), both halves.

SCU: `worklist` asks for scheduled procedure steps. SCP: `WorklistHandler` answers from whatever
gives it the items.

    steps = await worklist(peer, {"ScheduledProcedureStepSequence.Modality": "CT"})
    port = await listen("tcp:11112", WorklistHandler(lambda: database.scheduled_steps()))
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from pydicom import Dataset
from twisted.internet.defer import Deferred

from twisted_dimse.dimse.status import (
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    PENDING,
    PENDING_OPTIONAL_KEYS_NOT_SUPPORTED,
)
from twisted_dimse.errors import StatusError
from twisted_dimse.handler import Handler, Request
from twisted_dimse.iteration import ManyValues
from twisted_dimse.keys import as_dataset
from twisted_dimse.services.calls import associated, deferred
from twisted_dimse.services.identifiers import QueryOptions
from twisted_dimse.services.matching import CONTROL, WORKLIST_RULES, matcher, requested
from twisted_dimse.services.query_models import WORKLIST_KEYS, Key
from twisted_dimse.services.values import copied, items, new_element, tags_of
from twisted_dimse.uids import MODALITY_WORKLIST_FIND, VERIFICATION

SCHEDULED_PROCEDURE_STEP_SEQUENCE = 0x00400100
_KNOWN = frozenset(key.tag for key in WORKLIST_KEYS)
_ALWAYS_ASKED = ("1", "1C", "2", "2C")


@deferred
async def worklist(
    peer: Any, keys: Any = None, *, fill: bool = True, **options: Any
) -> list[Dataset]:
    """C-FIND of scheduled procedure steps (PS3.4 K.4.1). Fires with the worklist items.

    ``keys`` is a Dataset or a mapping, as in `keys.as_dataset`. What every worklist gives (return
    types 1 and 2 of Table K.6-1) is asked for besides, unless ``fill`` is false. ``options`` are
    those of `connect`.
    """
    identifier = as_dataset(keys or {})
    if fill:
        identifier = _filled(identifier, WORKLIST_KEYS)
    async with associated(peer, contexts=[MODALITY_WORKLIST_FIND], **options) as association:
        found: list[Dataset] = await association.find(
            identifier, level=None, model=MODALITY_WORKLIST_FIND
        )
        return found


def _filled(keys: Dataset, wanted: Iterable[Key]) -> Dataset:
    """A copy of ``keys`` that asks for all that a worklist has to give; of sequences, for those
    attributes that the tables have in their items."""
    filled = copied(keys)
    for key in wanted:
        if key.return_type not in _ALWAYS_ASKED:
            continue
        if key.items:
            given = items(keys, key.tag)
            filled[key.tag] = new_element(
                key.tag, "SQ", [_filled(given[0] if given else Dataset(), key.items)]
            )
        elif key.tag not in keys:
            filled[key.tag] = new_element(key.tag, key.vr)
    return filled


class WorklistHandler(Handler):
    """Modality Worklist SCP.

    ``items`` is called for each query and gives Datasets, each with one scheduled procedure step:
    an iterable or an async iterable of them, or a Deferred or coroutine of one. Override
    `scheduled` to give only what a query can mean.
    """

    contexts = (VERIFICATION, MODALITY_WORKLIST_FIND)

    def __init__(self, items: Callable[[], Any] | None = None) -> None:
        self._items = items
        self.extended = {MODALITY_WORKLIST_FIND: QueryOptions().answer(MODALITY_WORKLIST_FIND)}

    def scheduled(self, request: Request) -> Any:
        """The worklist items to match with ``request.dataset``."""
        return self._items() if self._items is not None else ()

    async def find(self, request: Request) -> AsyncIterator[tuple[int, Dataset]]:
        keys = request.dataset or Dataset()
        _check(keys)
        fits = matcher(keys, WORKLIST_RULES)
        given = self.scheduled(request)
        if isinstance(given, Deferred) or inspect.isawaitable(given):
            given = await given
        return self._answers(request, given, keys, fits)

    async def _answers(
        self, request: Request, given: Any, keys: Dataset, fits: Callable[[Dataset], bool]
    ) -> AsyncIterator[tuple[int, Dataset]]:
        scheduled = ManyValues(given, None, request.association.reactor)
        try:
            while (item := await scheduled.next()) is not ManyValues.END:
                if fits(item):
                    yield _answer(item, keys)
        finally:
            await scheduled.close()


def _check(keys: Dataset) -> None:
    """Refuse an identifier with more than one scheduled procedure step in its key."""
    if len(items(keys, SCHEDULED_PROCEDURE_STEP_SEQUENCE)) > 1:
        raise StatusError(
            DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
            "the scheduled procedure step sequence must have one item",
            OffendingElement=(SCHEDULED_PROCEDURE_STEP_SEQUENCE,),
        )


def _answer(item: Dataset, keys: Dataset) -> tuple[int, Dataset]:
    """An answer with its status. A key of no table that the item lacks is not supported: it is
    left out of the answer."""
    answer = requested(item, keys, WORKLIST_RULES)
    unknown = [
        tag for tag in tags_of(keys) if tag not in item and tag not in _KNOWN and tag not in CONTROL
    ]
    for tag in unknown:
        del answer[tag]
    return PENDING_OPTIONAL_KEYS_NOT_SUPPORTED if unknown else PENDING, answer
