"""Retrieving by C-GET (PS3.4 C.4.3) whatever it is: contexts, roles and further associations are
planned from what the peer says it has.

A C-GET brings only instances for whose SOP class and transfer syntax a context was accepted, and an
association has room for 128. So the SOP classes are asked for first; each gets a context for one
transfer syntax after another, as far as they go; and what was not sent for want of a context is
looked up, and fetched over further associations.

    retrieval = Retrieval(peer, identifier, STUDY_ROOT, handler, options)
    outcome = await retrieval.run()
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any

from pydicom import Dataset

from twisted_dimse.association import Association
from twisted_dimse.datastream import Sink
from twisted_dimse.dimse.status import (
    CANNOT_PERFORM_SUBOPERATIONS,
    SUBOPERATIONS_FAILED,
    SUCCESS,
    Category,
    category,
    meaning,
)
from twisted_dimse.errors import ContextNotAccepted, StatusError
from twisted_dimse.handler import Handler, Request
from twisted_dimse.results import RetrieveOutcome
from twisted_dimse.services.calls import associated
from twisted_dimse.services.query_models import Level, model_of
from twisted_dimse.services.values import new_element, texts
from twisted_dimse.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    QueryModel,
    name_of,
    storage_sop_classes,
)
from twisted_dimse.upperlayer.negotiation import MAX_CONTEXTS, PresentationContext

SOP_CLASSES_IN_STUDY = 0x00080062
SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
AVAILABLE_TRANSFER_SYNTAX_UID = 0x00083002

_JPEG = "1.2.840.10008.1.2.4."
#: The transfer syntaxes of stored instances, roughly by how common they are.
TRANSFER_SYNTAXES = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    *(_JPEG + end for end in ("70", "50", "90", "91", "80", "57", "51", "81")),
    "1.2.840.10008.1.2.5",  # RLE
    *(_JPEG + end for end in ("201", "202", "203", "102", "103", "100", "101")),
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    *(_JPEG + end for end in ("104", "105", "106", "107", "108", "110", "111", "112", "92", "93")),
    *(_JPEG + end for end in ("100.1", "101.1", "102.1", "103.1", "104.1", "105.1", "106.1")),
    "1.2.840.10008.1.2.1.98",
    "1.2.840.10008.1.2.8.1",
)

_GUESSED = 4  # transfer syntaxes to try for an instance of which not even the SOP class is told

_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: For peers that will not say what they have: the SOP classes that fill most archives.
COMMON_SOP_CLASSES = tuple(
    _STORAGE + end
    for end in (
        *("2", "4", "1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "2.1", "2.2", "4.1"),
        *("4.2", "4.4", "3.1", "6.1", "6.2", "7", "7.1", "7.2", "7.3", "7.4", "12.1"),
        *("12.1.1", "12.2", "12.2.1", "20", "128", "130", "128.1", "13.1.1", "13.1.2", "13.1.3"),
        *("11.1", "11.2", "66", "66.1", "66.2", "66.3", "66.4", "66.5", "67", "68.1", "68.2"),
        *("77.1.1", "77.1.2", "77.1.4", "77.1.4.1", "77.1.5.1", "77.1.5.4", "77.1.6", "88.11"),
        *("88.22", "88.33", "88.50", "88.59", "88.67", "104.1", "481.1", "481.2", "481.3"),
        *("481.5", "9.1.1"),
    )
)


class Receiving(Handler):
    """Receives what another handler takes, and knows the instances that were sent at all."""

    def __init__(self, handler: Handler) -> None:
        self.seen: set[str] = set()
        self._handler = handler

    def store_sink(self, request: Request) -> Sink:
        self.seen.add(request.sop_instance_uid)
        return self._handler.store_sink(request)


@dataclass(frozen=True, slots=True)
class Located:
    """An instance at a peer, by the unique keys that lead to it. What the peer does not tell of it
    is empty."""

    above: tuple[tuple[str, str], ...]
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntaxes: tuple[str, ...]


class Retrieval:
    """One `query_retrieve.retrieve` under way.

    ``identifier`` is complete, with its level. ``sop_classes`` are those to expect, where the
    caller knows them; ``transfer_syntaxes`` those to take, where not any will do; ``options`` are
    those of `connect`.
    """

    def __init__(
        self,
        peer: Any,
        identifier: Dataset,
        model: QueryModel,
        handler: Handler,
        options: Mapping[str, Any],
        *,
        sop_classes: Iterable[str] | None = None,
        transfer_syntaxes: Iterable[str] | None = None,
        progress: Callable[[RetrieveOutcome], object] | None = None,
    ) -> None:
        information_model = model_of(model.find)
        if information_model is None:
            raise ValueError(f"{model.name} has no model to search")
        self._peer = peer
        self._identifier = identifier
        self._model = model
        self._levels = information_model
        self._options = dict(options)
        self._roles = dict(self._options.pop("roles", None) or {})
        self._sop_classes = tuple(sop_classes or ())
        transfer_syntaxes = None if transfer_syntaxes is None else tuple(transfer_syntaxes)
        self._only = frozenset(transfer_syntaxes) if transfer_syntaxes is not None else None
        self._transfer_syntaxes = tuple(transfer_syntaxes or TRANSFER_SYNTAXES)
        self._progress = progress
        self._receiving = Receiving(handler)
        self._proposed: set[tuple[str, str]] = set()
        self._accepted: set[tuple[str, str]] = set()
        self._before = RetrieveOutcome(SUCCESS)

    async def run(self) -> RetrieveOutcome:
        """Fetch all that the peer gives. Raises `StatusError` where that is nothing."""
        classes = self._sop_classes or await self._sop_classes_there() or COMMON_SOP_CLASSES
        pairs = [(uid, syntax) for syntax in self._transfer_syntaxes for uid in classes]
        missing: list[Located] = []
        async with self._associated(pairs) as association:
            outcome = await self._get(association, self._identifier)
            if self._worth_another_try(outcome):
                missing = await self._locate(association, outcome.failed_sop_instance_uids)
        while missing and (pairs := self._pairs_for(missing)):
            async with self._associated(pairs) as association:
                outcome = await self._get_located(association, missing, outcome)
            missing = [each for each in missing if each.sop_instance_uid not in self._seen]
        return self._finished(outcome, missing)

    @property
    def _seen(self) -> set[str]:
        return self._receiving.seen

    def _worth_another_try(self, outcome: RetrieveOutcome) -> bool:
        """Whether some were not sent at all."""
        return not self._seen.issuperset(outcome.failed_sop_instance_uids)

    def _finished(self, outcome: RetrieveOutcome, missing: list[Located]) -> RetrieveOutcome:
        if category(outcome.status) is not Category.FAILURE:
            return outcome
        comment = outcome.command.get("ErrorComment") or ""
        unserved = [each for each in missing if not self._accepted.issuperset(self._pairs_of(each))]
        if unserved:
            uids = {each.sop_class_uid for each in unserved if each.sop_class_uid}
            names = sorted(name_of(uid) for uid in uids) or ["them"]
            comment = f"no presentation context serves {', '.join(names)}"
        raise StatusError(
            outcome.status,
            comment,
            outcome=outcome,
            command=outcome.command,
            meaning=meaning(outcome.status, "C-GET"),
        )

    # --- associations

    def _associated(
        self, pairs: Iterable[tuple[str, str]]
    ) -> AbstractAsyncContextManager[Association]:
        """An association for C-GET and C-FIND, with contexts for as many pairs of SOP class and
        transfer syntax as go."""
        room = MAX_CONTEXTS - 2
        chosen = list(dict.fromkeys(pair for pair in pairs if pair not in self._proposed))[:room]
        self._proposed.update(chosen)
        storage = [PresentationContext(uid, (syntax,)) for uid, syntax in chosen]
        roles = {**dict.fromkeys((uid for uid, _ in chosen), "scp"), **self._roles}
        return associated(
            self._peer,
            contexts=[self._model.get, self._model.find, *storage],
            roles=roles,
            handler=self._receiving,
            **self._options,
        )

    async def _get(self, association: Association, identifier: Dataset) -> RetrieveOutcome:
        """One C-GET. What is sent is counted with what was before."""
        self._accepted.update(
            (context.abstract_syntax, context.transfer_syntax) for context in association.accepted
        )
        try:
            outcome = await association.get(
                identifier, level=None, model=self._model, progress=self._report
            )
        except StatusError as error:
            if error.status != CANNOT_PERFORM_SUBOPERATIONS or error.outcome is None:
                raise
            outcome = error.outcome
        return self._with_before(outcome)

    def _with_before(self, outcome: RetrieveOutcome) -> RetrieveOutcome:
        before = self._before
        return replace(
            outcome,
            completed=before.completed + outcome.completed,
            warning=before.warning + outcome.warning,
        )

    def _report(self, outcome: RetrieveOutcome) -> None:
        if self._progress is not None:
            self._progress(self._with_before(outcome))

    # --- what there is

    async def _sop_classes_there(self) -> tuple[str, ...]:
        """The SOP classes of what the identifier means, as far as the peer can tell."""
        try:
            async with associated(
                self._peer, contexts=[self._model.find], **self._options
            ) as association:
                return await self._classes_in_studies(
                    association
                ) or await self._classes_of_instances(association)
        except (ContextNotAccepted, StatusError):
            return ()  # it cannot say; the C-GET will

    async def _classes_in_studies(self, association: Association) -> tuple[str, ...]:
        """(0008,0062) of the studies, where every one of them has it."""
        keys = self._unique_keys_down_to("STUDY")
        if not keys:
            return ()
        keys.setdefault("StudyInstanceUID", "")
        found = await self._find(association, "STUDY", {**keys, "SOPClassesInStudy": ""})
        classes = [texts(study, SOP_CLASSES_IN_STUDY) for study in found]
        if not all(classes):
            return ()
        return tuple(dict.fromkeys(uid for each in classes for uid in each))

    async def _classes_of_instances(self, association: Association) -> tuple[str, ...]:
        """(0008,0016) of the instances, where every one of them has it."""
        found = {each.sop_class_uid: None async for each in self._instances(association)}
        return () if "" in found else tuple(found)

    async def _locate(self, association: Association, uids: Iterable[str]) -> list[Located]:
        """Where the instances are that were not sent; those only that the peer can tell of."""
        wanted = set(uids) - self._seen
        try:
            return [
                each
                async for each in self._instances(association)
                if each.sop_instance_uid in wanted
            ]
        except (ContextNotAccepted, StatusError):
            return []

    async def _instances(self, association: Association) -> AsyncIterator[Located]:
        """Every instance that the identifier means, by queries from level to level."""
        level = self._level
        above = self._unique_keys_down_to(level.name)
        uids = texts(self._identifier, level.unique.tag)
        above.pop(level.unique.keyword, None)
        if len(above) < len(self._levels.above(level.name)):
            return  # nothing that a hierarchical query could find
        if level.name == "IMAGE":
            async for found in self._images(association, above, uids):
                yield found
            return
        for uid in uids:
            async for found in self._below(
                association, {**above, level.unique.keyword: uid}, level
            ):
                yield found

    async def _below(
        self, association: Association, above: dict[str, Any], level: Level
    ) -> AsyncIterator[Located]:
        names = [each.name for each in self._levels.levels]
        if level.name == names[-1]:
            return
        lower = self._levels.levels[names.index(level.name) + 1]
        if lower.name == "IMAGE":
            async for found in self._images(association, above, ()):
                yield found
            return
        key = lower.unique
        for match in await self._find(association, lower.name, {**above, key.keyword: ""}):
            for uid in texts(match, key.tag)[:1]:
                async for found in self._below(association, {**above, key.keyword: uid}, lower):
                    yield found

    async def _images(
        self, association: Association, above: dict[str, Any], uids: tuple[str, ...]
    ) -> AsyncIterator[Located]:
        keys = {
            **above,
            "SOPInstanceUID": list(uids) or "",
            "SOPClassUID": "",
            "AvailableTransferSyntaxUID": "",
        }
        for match in await self._find(association, "IMAGE", keys):
            (uid, *_), (sop_class, *_) = (
                texts(match, tag) or ("",) for tag in (SOP_INSTANCE_UID, SOP_CLASS_UID)
            )
            if uid:
                syntaxes = texts(match, AVAILABLE_TRANSFER_SYNTAX_UID)
                yield Located(tuple(above.items()), uid, sop_class, syntaxes)

    async def _find(
        self, association: Association, level: str, keys: dict[str, Any]
    ) -> list[Dataset]:
        found: list[Dataset] = await association.find(keys, level=level, model=self._model)
        return found

    @property
    def _level(self) -> Level:
        level = self._levels.level(str(self._identifier.QueryRetrieveLevel))
        if level is None:
            raise ValueError(f"{self._identifier.QueryRetrieveLevel} is no level of the model")
        return level

    def _unique_keys_down_to(self, name: str) -> dict[str, Any]:
        """The unique keys that the identifier has, from the top to a level."""
        keys = {}
        for level in self._levels.levels:
            found = texts(self._identifier, level.unique.tag)
            if found:
                keys[level.unique.keyword] = list(found) if len(found) > 1 else found[0]
            if level.name == name:
                break
        return keys

    # --- what is missing

    def _pairs_for(self, missing: list[Located]) -> list[tuple[str, str]]:
        """What could still be proposed for instances that no context served."""
        wanted = {
            (sop_class, syntax): None
            for each in missing
            for sop_class, syntax in self._pairs_of(each)
            if self._only is None or syntax in self._only
        }
        order = {syntax: at for at, syntax in enumerate(self._transfer_syntaxes)}
        pairs = [pair for pair in wanted if pair not in self._proposed]
        return sorted(pairs, key=lambda pair: order.get(pair[1], len(order)))

    def _pairs_of(self, located: Located) -> Iterable[tuple[str, str]]:
        """The SOP class and transfer syntaxes of an instance; where its peer does not even tell
        the class, all of them in the most common syntaxes."""
        classes = [located.sop_class_uid]
        syntaxes = located.transfer_syntaxes or self._transfer_syntaxes
        if not located.sop_class_uid:
            classes = sorted(storage_sop_classes())
            syntaxes = located.transfer_syntaxes or self._transfer_syntaxes[:_GUESSED]
        return ((sop_class, syntax) for syntax in syntaxes for sop_class in classes)

    async def _get_located(
        self, association: Association, missing: list[Located], so_far: RetrieveOutcome
    ) -> RetrieveOutcome:
        """Fetch instances series by series; the outcome of it all."""
        groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for each in missing:
            groups.setdefault(each.above, []).append(each.sop_instance_uid)
        never_tried = set(so_far.failed_sop_instance_uids) - {
            uid for group in groups.values() for uid in group
        }
        failed = [uid for uid in so_far.failed_sop_instance_uids if uid in never_tried]
        lost = max(so_far.failed - len(so_far.failed_sop_instance_uids), 0)
        for above, uids in groups.items():
            self._before = so_far
            so_far = await self._get(association, self._identifier_of(above, uids))
            failed += so_far.failed_sop_instance_uids
        return self._summed(so_far, failed, lost)

    def _identifier_of(self, above: Iterable[tuple[str, str]], uids: list[str]) -> Dataset:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "IMAGE"
        for keyword, uid in above:
            setattr(identifier, keyword, uid)
        identifier[SOP_INSTANCE_UID] = new_element(SOP_INSTANCE_UID, "UI", uids)
        return identifier

    def _summed(self, last: RetrieveOutcome, failed: list[str], lost: int) -> RetrieveOutcome:
        """The outcome of several C-GETs, as one would have had it."""
        number = len(failed) + lost
        if number and not (last.completed or last.warning):
            status = CANNOT_PERFORM_SUBOPERATIONS
        else:
            status = SUBOPERATIONS_FAILED if number or last.warning else SUCCESS
        return replace(
            last, status=status, failed=number, failed_sop_instance_uids=tuple(failed), remaining=0
        )
