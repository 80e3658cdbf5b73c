"""The rows that instances become: patients, studies, series and instances, added to the tables of
the index, made anew and taken out again. All of it is part of a transaction of `Index`.

    patients = insert_missing(connection, PATIENT, patient_rows(headers))
    studies = insert_missing(connection, STUDY, study_rows(headers, patients))
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from twisted_dimse.archive import schema
from twisted_dimse.archive.header import (
    ACCESSION_NUMBER,
    MODALITY,
    PATIENT_ID,
    PATIENT_NAME,
    STUDY_DATE,
    InstanceHeader,
    Level,
)
from twisted_dimse.datastream import decode_dataset
from twisted_dimse.services.matching import name_groups
from twisted_dimse.services.values import texts
from twisted_dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN

_ISSUER = 0x00100021
_MANY = 500  # values in one IN
_LONGEST = 500  # characters of a column that is searched

_Key = tuple[Any, ...]  # what tells a row from others


class Replaced(NamedTuple):
    """A file whose instance lies elsewhere now, as it was indexed."""

    path: str
    inode: int


def parts(values: Iterable[Any]) -> Iterator[list[Any]]:
    values = list(values)
    for start in range(0, len(values), _MANY):
        yield values[start : start + _MANY]


# What tells the rows of a table from each other: the columns of their keys. Of several, the last is
# the one to look for.
PATIENT = (schema.patients.c.key,)
STUDY = (schema.studies.c.uid,)
SERIES = (schema.series.c.study, schema.series.c.uid)


def insert_missing(
    connection: Connection, key: tuple[Any, ...], rows: dict[_Key, dict[str, Any]]
) -> dict[_Key, int]:
    """Insert the rows whose key is not there yet; the IDs of all."""
    table = key[0].table

    def known() -> dict[_Key, int]:
        found: dict[_Key, int] = {}
        for part in parts(name[-1] for name in rows):
            statement = sa.select(table.c.id, *key).where(key[-1].in_(part))
            for identifier, *name in connection.execute(statement):
                found[tuple(name)] = identifier
        return found

    identifiers = known()
    missing = [row for name, row in rows.items() if name not in identifiers]
    if missing:
        connection.execute(table.insert(), missing)
        identifiers = known()
    return identifiers


def _renew(
    connection: Connection, key: tuple[Any, ...], rows: dict[_Key, dict[str, Any]]
) -> dict[_Key, int]:
    """Give the rows, which are there, what is new of them; the IDs of all."""
    table = key[0].table
    for name, row in rows.items():
        is_it = (column == value for column, value in zip(key, name, strict=True))
        connection.execute(table.update().where(*is_it).values(row))
    return insert_missing(connection, key, rows)


def renew_above(connection: Connection, headers: dict[str, InstanceHeader]) -> None:
    """Have patients, studies and series be as these instances have them."""
    table = schema.studies.c
    before: set[int] = set()
    for part in parts({header.study_uid for header in headers.values()}):
        before.update(connection.scalars(sa.select(table.patient).where(table.uid.in_(part))))
    patients = _renew(connection, PATIENT, patient_rows(headers))
    studies = _renew(connection, STUDY, study_rows(headers, patients))
    _renew(connection, SERIES, series_rows(headers, studies))
    remove_without_studies(connection, before)


def patient_rows(headers: dict[str, InstanceHeader]) -> dict[_Key, dict[str, Any]]:
    rows: dict[_Key, dict[str, Any]] = {}
    for header in headers.values():
        key = _patient_key(header)
        if (key,) in rows:
            continue
        encoded = header.dataset(Level.PATIENT)
        dataset = decode_dataset(encoded, EXPLICIT_VR_LITTLE_ENDIAN)
        name = next(iter(texts(dataset, PATIENT_NAME)), "")
        groups = [*name_groups(name), "", ""][:3]
        rows[(key,)] = {
            "key": key,
            "patient_id": searchable(next(iter(texts(dataset, PATIENT_ID)), "")),
            "name_1": searchable(groups[0]),
            "name_2": searchable(groups[1]),
            "name_3": searchable(groups[2]),
            "header": encoded,
        }
    return rows


def _patient_key(header: InstanceHeader) -> str:
    patient_id = header.values.get(PATIENT_ID, b"").strip()
    if not patient_id:
        return f"study {header.study_uid}"
    issuer = header.values.get(_ISSUER, b"").strip()
    key = f"{patient_id.hex()} {issuer.hex()}"
    return key if len(key) <= _LONGEST else hashlib.sha256(key.encode()).hexdigest()


def searchable(text: str) -> str:
    """As much of a value as a database can have in an index, whatever a sender makes of it."""
    return text.replace("\0", "")[:_LONGEST]


def study_rows(
    headers: dict[str, InstanceHeader], patients: dict[_Key, int]
) -> dict[_Key, dict[str, Any]]:
    rows: dict[_Key, dict[str, Any]] = {}
    for header in headers.values():
        if (header.study_uid,) not in rows:
            rows[(header.study_uid,)] = {
                "patient": patients[(_patient_key(header),)],
                "uid": header.study_uid,
                "date": searchable(header.text(STUDY_DATE).replace(".", "")),
                "accession_number": searchable(_text(header, Level.STUDY, ACCESSION_NUMBER)),
                "header": header.dataset(Level.STUDY),
            }
    return rows


def series_rows(
    headers: dict[str, InstanceHeader], studies: dict[_Key, int]
) -> dict[_Key, dict[str, Any]]:
    rows: dict[_Key, dict[str, Any]] = {}
    for header in headers.values():
        study = studies[(header.study_uid,)]
        if (study, header.series_uid) not in rows:
            rows[study, header.series_uid] = {
                "study": study,
                "uid": header.series_uid,
                "modality": searchable(header.text(MODALITY)),
                "header": header.dataset(Level.SERIES),
            }
    return rows


def instance_row(
    header: InstanceHeader, studies: dict[_Key, int], series: dict[_Key, int]
) -> dict[str, Any]:
    return {
        "series": series[studies[(header.study_uid,)], header.series_uid],
        "uid": header.sop_instance_uid,
        "sop_class": header.sop_class_uid,
        "transfer_syntax": header.transfer_syntax,
        "path": header.path,
        "offset": header.offset,
        "size": header.size,
        "inode": header.inode,
        "header": header.dataset(Level.IMAGE),
    }


def _text(header: InstanceHeader, level: Level, tag: int) -> str:
    if tag not in header.values or header.values[tag].isascii():
        return header.text(tag)
    dataset = decode_dataset(header.dataset(level), EXPLICIT_VR_LITTLE_ENDIAN)
    return next(iter(texts(dataset, tag)), "")


def remove_instances(
    connection: Connection, latest: dict[str, InstanceHeader]
) -> tuple[dict[Replaced, int], list[str]]:
    """Delete the rows of instances that are stored anew; those elsewhere with their series, and the
    UIDs of all."""
    table = schema.instances
    columns = (table.c.uid, table.c.path, table.c.inode, table.c.series)
    elsewhere: dict[Replaced, int] = {}
    again: list[str] = []
    for part in parts(latest):
        there = table.c.uid.in_(part)
        rows = connection.execute(sa.select(*columns).where(there)).all()
        if rows:
            connection.execute(table.delete().where(there))
        for uid, path, inode, series in rows:
            again.append(uid)
            if path != latest[uid].path:
                elsewhere[Replaced(path, inode)] = series
    return elsewhere, again


def remove_empty(connection: Connection, of: Any) -> None:
    """Delete those series for which the condition ``of`` holds that have nothing in them any more,
    and then the studies and patients that have nothing without them."""
    series, studies = schema.series, schema.studies
    emptied = _delete_unused(connection, series, of, schema.instances.c.series, series.c.study)
    for part in parts(emptied):
        emptied = _delete_unused(
            connection, studies, studies.c.id.in_(part), series.c.study, studies.c.patient
        )
        remove_without_studies(connection, emptied)


def remove_without_studies(connection: Connection, patients: Iterable[int]) -> None:
    """Delete those of the patients that have no study: theirs may be that of another."""
    table = schema.patients
    for part in parts(patients):
        user = schema.studies.c.patient
        _delete_unused(connection, table, table.c.id.in_(part), user, table.c.id)


def _delete_unused(
    connection: Connection, table: sa.Table, of: Any, user: Any, above: Any
) -> set[int]:
    """Delete the rows that no ``user`` names; the values of their column ``above``."""
    unused = sa.and_(of, ~sa.exists().where(user == table.c.id))
    found = set(connection.scalars(sa.select(above).where(unused)))
    if found:
        connection.execute(table.delete().where(unused))
    return found
