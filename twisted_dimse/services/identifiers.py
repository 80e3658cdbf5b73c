"""Identifiers of C-FIND, C-MOVE and C-GET (PS3.4 C.4): what a peer may ask, and what is agreed
on beforehand (C.5).

    identifier = check_query(request.dataset, request.sop_class_uid)
    identifier.level, identifier.above          # 'SERIES', {'StudyInstanceUID': '1.2.3'}
    QueryOptions(relational=True).offer(STUDY_ROOT.find)            # b'\\x01'

What does not fit the model is refused by `StatusError` 0xA900 with the offending element.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from pydicom import Dataset

from twisted_dimse.dimse.status import DATA_SET_DOES_NOT_MATCH_SOP_CLASS, SOP_CLASS_NOT_SUPPORTED
from twisted_dimse.errors import StatusError
from twisted_dimse.services.matching import (
    CONTROL,
    QUERY_RETRIEVE_LEVEL,
    Matching,
    Rules,
    kind_of,
)
from twisted_dimse.services.query_models import FRAME_KEYS, InformationModel, Level, model_of
from twisted_dimse.services.values import items, tags_of, texts, vr_of
from twisted_dimse.uids import MODALITY_WORKLIST_FIND

if TYPE_CHECKING:
    from twisted_dimse.association import Association

_SINGLE_VALUED = ("PATIENT", "FRAME")


@dataclass(frozen=True, slots=True)
class Identifier:
    """A query or retrieval that fits its model.

    `above` has the unique keys of the levels above by keyword, as far as they were given; `uids`
    the values of the level's own, none of them where it asks for all.
    """

    model: InformationModel
    level: str
    above: Mapping[str, str] = field(default_factory=dict)
    uids: tuple[str, ...] = ()


def check_query(
    keys: Dataset | None, sop_class_uid: str, *, relational: bool = False
) -> Identifier:
    """A C-FIND identifier, hierarchical (PS3.4 C.4.1.2.1), or relational where that is agreed.

    Keys of other levels that ask for nothing are let pass; in a hierarchical query the others are
    refused, as is a unique key above the level without exactly one value.
    """
    model, level, keys = _model_and_level(keys, sop_class_uid)
    above = _unique_keys_above(keys, model, level, needed=not relational)
    for tag in tags_of(keys):
        if tag in CONTROL:
            continue
        if vr_of(keys, tag) == "SQ" and len(items(keys, tag)) > 1:
            raise _offending(tag, "a sequence with more than one item")
        other = model.level_of(tag) if level.key(tag) is None else None
        if other is None or relational or kind_of(keys, tag) is Matching.UNIVERSAL:
            continue
        if other.unique.tag != tag or other not in model.above(level.name):
            raise _offending(tag, f"a key of level {other.name} in a query at {level.name}")
    return Identifier(model, level.name, above, texts(keys, level.unique.tag))


def check_retrieve(
    keys: Dataset | None, sop_class_uid: str, *, relational: bool = False
) -> Identifier:
    """A C-MOVE or C-GET identifier (PS3.4 C.4.2.2.1, C.4.3.2.1): unique keys and the level.

    Other keys of the level and above it, which do not belong here, are ignored: the unique keys
    say it all. Those of a level below would have asked for less, and are refused.
    """
    model, level, keys = _model_and_level(keys, sop_class_uid)
    above = _unique_keys_above(keys, model, level, needed=not relational)
    unique = level.unique
    found = texts(keys, unique.tag)
    if not found or any(_is_pattern(text) for text in found):
        raise _offending(unique.tag, f"{unique.keyword} must have a value")
    if len(found) > 1 and level.name in _SINGLE_VALUED:
        raise _offending(unique.tag, f"{unique.keyword} must have one value")
    _refuse_keys_below(keys, model, level)
    if level.name == "FRAME" and sum(tag in keys for tag in FRAME_KEYS) != 1:
        raise _offending(FRAME_KEYS[0], "one list of frames, or one time range, must be given")
    return Identifier(model, level.name, above, found)


def _model_and_level(
    keys: Dataset | None, sop_class_uid: str
) -> tuple[InformationModel, Level, Dataset]:
    model = model_of(sop_class_uid)
    if model is None:
        raise StatusError(SOP_CLASS_NOT_SUPPORTED, "no query/retrieve model")
    keys = Dataset() if keys is None else keys
    named = texts(keys, QUERY_RETRIEVE_LEVEL)
    level = model.level(named[0]) if len(named) == 1 else None
    if level is None:
        known = ", ".join(level.name for level in model.levels)
        raise _offending(QUERY_RETRIEVE_LEVEL, f"the level must be one of {known}")
    return model, level, keys


def _unique_keys_above(
    keys: Dataset, model: InformationModel, level: Level, *, needed: bool
) -> dict[str, str]:
    above = {}
    for upper in model.above(level.name):
        unique = upper.unique
        if unique == level.unique:
            continue  # frames are of an instance, which is named once
        found = texts(keys, unique.tag)
        single = len(found) == 1 and not _is_pattern(found[0])
        if needed and not single:
            raise _offending(unique.tag, f"{unique.keyword} must have one value")
        if single:
            above[unique.keyword] = found[0]
    return above


def _refuse_keys_below(keys: Dataset, model: InformationModel, level: Level) -> None:
    names = [each.name for each in model.levels]
    for below in model.levels[names.index(level.name) + 1 :]:
        tag = below.unique.tag
        if tag != level.unique.tag and texts(keys, tag):
            raise _offending(tag, f"a key of level {below.name} in a retrieval at {level.name}")


def _is_pattern(text: str) -> bool:
    return "*" in text or "?" in text


def _offending(tag: int, comment: str) -> StatusError:
    return StatusError(DATA_SET_DOES_NOT_MATCH_SOP_CLASS, comment, OffendingElement=(tag,))


# --- extended negotiation


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """What SOP class extended negotiation can agree on for queries and retrievals (PS3.4 C.5).

    As an offer: what is wanted. As an answer: what was taken. `fuzzy_names` is matching of person
    names by sound; `timezone` is that times are in the time zone that the query names.
    """

    relational: bool = False
    combined_date_time: bool = False
    fuzzy_names: bool = False
    timezone: bool = False
    enhanced_conversion: bool = False
    empty_value: bool = False
    multiple_value: bool = False

    def offer(self, sop_class_uid: str) -> bytes:
        """The octets to propose for a SOP class: as many as say something, and one at least."""
        names = _octets_of(sop_class_uid)
        octets = bytes(1 if name is None else getattr(self, name) for name in names)
        least = sum(name is None for name in names) or 1
        return octets[:least] + octets[least:].rstrip(b"\0")

    @classmethod
    def of(cls, sop_class_uid: str, octets: bytes) -> QueryOptions:
        """What the octets of an offer or an answer say; those left out are 0."""
        names = _octets_of(sop_class_uid)
        pairs = zip(names, octets, strict=False)
        return cls(**{name: octet == 1 for name, octet in pairs if name})

    def answer(self, sop_class_uid: str) -> Callable[[bytes], bytes]:
        """For `Handler.extended`: answers an offer with what of it we, too, can."""
        names = _octets_of(sop_class_uid)

        def answered(offered: bytes) -> bytes:
            pairs = zip(names, offered or b"\0", strict=False)
            return bytes(
                1 if name is None else octet == 1 and getattr(self, name) for name, octet in pairs
            )

        return answered

    def agreed(self, association: Association, sop_class_uid: str) -> QueryOptions:
        """What holds on an association, where these are what we can."""
        agreement = association.agreement
        octets = agreement.extended.get(sop_class_uid) if agreement is not None else None
        if octets is None:
            return QueryOptions()
        if not association.requestor:
            octets = self.answer(sop_class_uid)(octets)
        return self.of(sop_class_uid, octets)

    @property
    def rules(self) -> Rules:
        """How keys are matched then."""
        return Rules(
            combined_date_time=self.combined_date_time,
            empty_value=self.empty_value,
            multiple_value=self.multiple_value,
        )


_QUERY_OCTETS: tuple[str | None, ...] = tuple(option.name for option in fields(QueryOptions))
_RETRIEVE_OCTETS = ("relational", "enhanced_conversion")
_WORKLIST_OCTETS = (None, None, "fuzzy_names", "timezone")


def _octets_of(sop_class_uid: str) -> tuple[str | None, ...]:
    if sop_class_uid == MODALITY_WORKLIST_FIND:
        return _WORKLIST_OCTETS
    model = model_of(sop_class_uid)
    if model is None or model.sop_classes.get("C-FIND") == sop_class_uid:
        return _QUERY_OCTETS
    return _RETRIEVE_OCTETS
