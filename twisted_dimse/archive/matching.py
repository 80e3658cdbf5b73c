"""Queries as SQL: what a C-FIND or a retrieve asks for, narrowed by the database (PS3.4 C.2.2.2).

The conditions here are *necessary* ones, over the columns that have an index: each entity that the
keys mean fulfils them. What is exact, in every kind of matching, is the predicate of
`services.matching`, which then goes over the few that are left.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from pydicom import Dataset

from twisted_dimse.archive import schema
from twisted_dimse.archive.header import (
    ACCESSION_NUMBER,
    MODALITY,
    PATIENT_ID,
    PATIENT_NAME,
    SERIES_UID,
    SOP_CLASS,
    SOP_UID,
    STUDY_DATE,
    STUDY_UID,
    Level,
)
from twisted_dimse.archive.rows import searchable
from twisted_dimse.services.identifiers import Identifier
from twisted_dimse.services.matching import Matching, kind_of, name_groups
from twisted_dimse.services.values import is_range, span, texts

MODALITIES_IN_STUDY, SOP_CLASSES_IN_STUDY = 0x00080061, 0x00080062
NUMBER_OF_PATIENT_RELATED_STUDIES = 0x00201200
NUMBER_OF_PATIENT_RELATED_SERIES = 0x00201202
NUMBER_OF_PATIENT_RELATED_INSTANCES = 0x00201204
NUMBER_OF_STUDY_RELATED_SERIES = 0x00201206
NUMBER_OF_STUDY_RELATED_INSTANCES = 0x00201208
NUMBER_OF_SERIES_RELATED_INSTANCES = 0x00201209

_PATIENTS, _STUDIES = schema.patients, schema.studies
_SERIES, _INSTANCES = schema.series, schema.instances
_TABLES = {
    Level.PATIENT: _PATIENTS,
    Level.STUDY: _STUDIES,
    Level.SERIES: _SERIES,
    Level.IMAGE: _INSTANCES,
}
LEVELS = tuple(_TABLES)

_MOST_VALUES = 100  # of one key that databases are asked for; SQLite takes no very large condition
_MOST_UIDS = 30_000  # at once
_LAST = chr(sys.maxunicode)
_SURROGATES = range(0xD800, 0xE000)


def levels_down_to(level: Level) -> tuple[Level, ...]:
    """The levels from the patient's to ``level``."""
    return LEVELS[: LEVELS.index(level) + 1]


def entities(keys: Dataset, level: Level, computed: dict[int, Any]) -> Any:
    """A SELECT of the headers of all entities at ``level`` that may match ``keys``, from the
    patient's down, and then of the ``computed`` attributes, in order."""
    headers = [_TABLES[one].c.header for one in levels_down_to(level)]
    columns = [column.label(f"header_{number}") for number, column in enumerate(headers)]
    extra = [value.label(f"computed_{number}") for number, value in enumerate(computed.values())]
    statement = sa.select(*columns, *extra).select_from(_joined(level))
    for condition in _conditions(keys, level):
        statement = statement.where(condition)
    return statement


def instances(asked: Identifier) -> Iterator[Any]:
    """SELECTs of the instances that a retrieve means: path, SOP class, SOP Instance UID, transfer
    syntax, offset, size and inode. There are several where no database takes all values at once."""
    table = _INSTANCES.c
    names = ("path", "sop_class", "uid", "transfer_syntax", "offset", "size", "inode")
    statement = sa.select(*(table[name] for name in names)).select_from(_joined(Level.IMAGE))
    for above in asked.model.above(asked.level):
        if above.unique.keyword in asked.above:
            values = _without_nul([asked.above[above.unique.keyword]])
            statement = statement.where(_UNIQUE[above.unique.tag].in_(values))
    level = asked.model.level(asked.level)
    assert level is not None
    uids = list(dict.fromkeys(_without_nul(asked.uids)))
    for start in range(0, len(uids), _MOST_UIDS):
        of_some = _UNIQUE[level.unique.tag].in_(uids[start : start + _MOST_UIDS])
        yield statement.where(of_some).order_by(table.series, table.id)


_UNIQUE = {
    PATIENT_ID: _PATIENTS.c.patient_id,
    STUDY_UID: _STUDIES.c.uid,
    SERIES_UID: _SERIES.c.uid,
    SOP_UID: _INSTANCES.c.uid,
}


def computed_attributes(level: Level) -> dict[int, Callable[[], Any]]:
    """The attributes that the database works out for an entity at ``level``, by tag."""
    found: dict[int, Callable[[], Any]] = {}
    for one in levels_down_to(level):
        found.update(_COMPUTED[one])
    return found


def _joined(level: Level) -> Any:
    joined: Any = _PATIENTS
    if level is not Level.PATIENT:
        joined = joined.join(_STUDIES, _STUDIES.c.patient == _PATIENTS.c.id)
    if level in (Level.SERIES, Level.IMAGE):
        joined = joined.join(_SERIES, _SERIES.c.study == _STUDIES.c.id)
    if level is Level.IMAGE:
        joined = joined.join(_INSTANCES, _INSTANCES.c.series == _SERIES.c.id)
    return joined


# --- necessary conditions


def _conditions(keys: Dataset, level: Level) -> Iterator[Any]:
    for one in levels_down_to(level):
        for tag, condition in _SEARCHABLE[one].items():
            if tag in keys and len(texts(keys, tag)) <= _most_values(tag):
                found = condition(keys, tag)
                if found is not None:
                    yield found


def _most_values(tag: int) -> int:
    return _MOST_UIDS if tag in _UNIQUE and tag != PATIENT_ID else _MOST_VALUES


def _uid(column: Any) -> Callable[[Dataset, int], Any]:
    def condition(keys: Dataset, tag: int) -> Any:
        asked = texts(keys, tag)
        if not asked or "*" in asked:
            return None
        uids = _without_nul(asked)
        return column == uids[0] if len(uids) == 1 else column.in_(uids)

    return condition


def _without_nul(values: Iterable[str]) -> list[str]:
    """Those that something can have: no instance is in the index with others, and PostgreSQL does
    not take them."""
    return [value for value in values if "\0" not in value]


def _text(column: Any) -> Callable[[Dataset, int], Any]:
    """Text that a key means exactly, or from the part before its first wildcard on."""

    def condition(keys: Dataset, tag: int) -> Any:
        kind = kind_of(keys, tag)
        if kind is Matching.UNIVERSAL:
            return None
        asked = texts(keys, tag)
        if not all(text.isascii() for text in asked):
            return None  # equal text may be composed in another way
        return sa.or_(column == "", *(_begins(column, text) for text in asked))

    return condition


def _begins(column: Any, text: str) -> Any:
    """What ``text`` means for a column, up to its first wildcard."""
    literal = re.split(r"[*?]", text, maxsplit=1)[0]
    kept = searchable(literal)
    if literal == text:
        return column == kept
    if not kept:
        return column != ""
    behind = _behind_all_of(kept)
    return sa.and_(column >= kept, column < behind if behind else sa.true())


def _behind_all_of(prefix: str) -> str:
    """The first text in the order of codes behind all that begin so; empty where there is none."""
    prefix = prefix.rstrip(_LAST)
    if not prefix:
        return ""
    code = ord(prefix[-1]) + 1
    if code in _SURROGATES:  # which are no characters
        code = _SURROGATES.stop
    return prefix[:-1] + chr(code)


def _name(keys: Dataset, tag: int) -> Any:
    if kind_of(keys, tag) is Matching.UNIVERSAL:
        return None
    columns = (_PATIENTS.c.name_1, _PATIENTS.c.name_2, _PATIENTS.c.name_3)
    # Names without a first group are few, without a third most: SQLite shall look for the few.
    nameless = (columns[0] == "", *(column.concat("") == "" for column in columns[1:]))
    alternatives: list[Any] = [sa.and_(*nameless)]
    for text in texts(keys, tag):
        groups = name_groups(text)
        if "=" not in text:
            alternatives += (_begins(column, groups[0]) for column in columns)
            continue
        filled = [
            _begins(column, group)
            for column, group in zip(columns, groups, strict=False)
            if group not in ("", "*")
        ]
        if not filled:
            return None
        alternatives.append(sa.and_(*filled))
    return sa.or_(*alternatives)


def _date(column: Any) -> Callable[[Dataset, int], Any]:
    def condition(keys: Dataset, tag: int) -> Any:
        if kind_of(keys, tag) is Matching.UNIVERSAL:
            return None
        return sa.or_(column == "", *(_period(column, text) for text in texts(keys, tag)))

    return condition


def _period(column: Any, text: str) -> Any:
    if not is_range(text, "DA"):
        return column == text.replace(".", "")
    low, high = span(text, "DA")
    bounds = []
    if low is not None:
        bounds.append(column >= str(low))
    if high is not None:
        bounds.append(column <= str(high))
    return sa.and_(sa.true(), *bounds)


def _modalities_in_study(keys: Dataset, tag: int) -> Any:
    condition = _text(_SERIES.c.modality)(keys, tag)
    if condition is None:
        return None
    return sa.exists().where(_SERIES.c.study == _STUDIES.c.id, condition)


def _sop_classes_in_study(keys: Dataset, tag: int) -> Any:
    condition = _uid(_INSTANCES.c.sop_class)(keys, tag)
    if condition is None:
        return None
    return sa.exists().where(
        _SERIES.c.study == _STUDIES.c.id, _INSTANCES.c.series == _SERIES.c.id, condition
    )


_SEARCHABLE: dict[Level, dict[int, Callable[[Dataset, int], Any]]] = {
    Level.PATIENT: {PATIENT_ID: _text(_PATIENTS.c.patient_id), PATIENT_NAME: _name},
    Level.STUDY: {
        STUDY_UID: _uid(_STUDIES.c.uid),
        STUDY_DATE: _date(_STUDIES.c.date),
        ACCESSION_NUMBER: _text(_STUDIES.c.accession_number),
        MODALITIES_IN_STUDY: _modalities_in_study,
        SOP_CLASSES_IN_STUDY: _sop_classes_in_study,
    },
    Level.SERIES: {SERIES_UID: _uid(_SERIES.c.uid), MODALITY: _text(_SERIES.c.modality)},
    Level.IMAGE: {SOP_UID: _uid(_INSTANCES.c.uid), SOP_CLASS: _uid(_INSTANCES.c.sop_class)},
}


# --- attributes that are counted or gathered


def _count_of(table: Any, *conditions: Any) -> Callable[[], Any]:
    return lambda: (
        sa.select(sa.func.count()).select_from(table).where(*conditions).scalar_subquery()
    )


def _values_of(column: Any, *conditions: Any) -> Callable[[], Any]:
    def gathered() -> Any:
        named = sa.select(column.label("value")).where(column != "", *conditions)
        distinct = named.distinct().correlate(_STUDIES).subquery()
        return sa.select(sa.func.aggregate_strings(distinct.c.value, "\\")).scalar_subquery()

    return gathered


_OTHER_STUDIES, _OTHER_SERIES = _STUDIES.alias(), _SERIES.alias()
_OTHER_INSTANCES = _INSTANCES.alias()
_OF_PATIENT = _OTHER_STUDIES.c.patient == _PATIENTS.c.id
_SERIES_OF_STUDY = _OTHER_SERIES.c.study == _OTHER_STUDIES.c.id
_OF_STUDY = _OTHER_SERIES.c.study == _STUDIES.c.id
_INSTANCES_OF_SERIES = _OTHER_INSTANCES.c.series == _OTHER_SERIES.c.id

_COMPUTED: dict[Level, dict[int, Callable[[], Any]]] = {
    Level.PATIENT: {
        NUMBER_OF_PATIENT_RELATED_STUDIES: _count_of(_OTHER_STUDIES, _OF_PATIENT),
        NUMBER_OF_PATIENT_RELATED_SERIES: _count_of(
            _OTHER_SERIES.join(_OTHER_STUDIES, _SERIES_OF_STUDY), _OF_PATIENT
        ),
        NUMBER_OF_PATIENT_RELATED_INSTANCES: _count_of(
            _OTHER_INSTANCES.join(_OTHER_SERIES, _INSTANCES_OF_SERIES).join(
                _OTHER_STUDIES, _SERIES_OF_STUDY
            ),
            _OF_PATIENT,
        ),
    },
    Level.STUDY: {
        MODALITIES_IN_STUDY: _values_of(_OTHER_SERIES.c.modality, _OF_STUDY),
        SOP_CLASSES_IN_STUDY: _values_of(
            _OTHER_INSTANCES.c.sop_class, _OF_STUDY, _INSTANCES_OF_SERIES
        ),
        NUMBER_OF_STUDY_RELATED_SERIES: _count_of(_OTHER_SERIES, _OF_STUDY),
        NUMBER_OF_STUDY_RELATED_INSTANCES: _count_of(
            _OTHER_INSTANCES.join(_OTHER_SERIES, _INSTANCES_OF_SERIES), _OF_STUDY
        ),
    },
    Level.SERIES: {
        NUMBER_OF_SERIES_RELATED_INSTANCES: _count_of(
            _OTHER_INSTANCES, _OTHER_INSTANCES.c.series == _SERIES.c.id
        ),
    },
    Level.IMAGE: {0x00083002: lambda: _INSTANCES.c.transfer_syntax},
}
