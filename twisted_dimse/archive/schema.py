"""The tables of the index: a row for each patient, study, series and instance.

`header` columns hold the attributes of a level as `header.InstanceHeader.dataset` encodes them;
the other columns are there to be searched. `VERSION` counts the changes of this file, and
`MIGRATIONS` has one for each.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    select,
)
from sqlalchemy.engine import Connection

VERSION = 5

# What brings a database of the version before to a version. `Index.open` runs those that are
# missing, in one transaction; a new database has it all from the tables below.
MIGRATIONS: dict[int, Callable[[Connection], None]] = {
    2: lambda connection: _run(
        connection, "ALTER TABLE instances ADD COLUMN inode BIGINT NOT NULL DEFAULT 0"
    ),
    # Sequences are kept from here on.
    3: lambda connection: _run(
        connection, "INSERT INTO info (key, value) VALUES ('reading', '') ON CONFLICT DO NOTHING"
    ),
    4: lambda connection: _create_unreadable(connection),
    # Studies may share the UID of a series from here on.
    5: lambda connection: _separate_series(connection),
}

metadata = MetaData()
_ID = BigInteger().with_variant(Integer, "sqlite")
# In the order of their codes, which ranges and prefixes are searched in, whatever the database's.
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
_UID = String(64).with_variant(String(64, collation="C"), "postgresql")

# "version", and while files are there that are still to be read for the index: with "reading" the
# study up to which all were read, and "newer" with the UID of each instance stored meanwhile.
info = Table(
    "info",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

patients = Table(
    "patients",
    metadata,
    Column("id", _ID, primary_key=True),
    # Issuer and Patient ID; of a patient without an ID, the study.
    Column("key", _TEXT, nullable=False, unique=True),
    Column("patient_id", _TEXT, nullable=False, index=True),
    # The component groups of the name as `services.matching` compares them.
    Column("name_1", _TEXT, nullable=False, index=True),
    Column("name_2", _TEXT, nullable=False, index=True),
    Column("name_3", _TEXT, nullable=False, index=True),
    Column("header", LargeBinary, nullable=False),
)

studies = Table(
    "studies",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("patient", _ID, ForeignKey("patients.id"), nullable=False, index=True),
    Column("uid", _UID, nullable=False, unique=True),
    Column("date", _TEXT, nullable=False, index=True),
    Column("accession_number", _TEXT, nullable=False, index=True),
    Column("header", LargeBinary, nullable=False),
)

series = Table(
    "series",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("study", _ID, ForeignKey("studies.id"), nullable=False),
    Column("uid", _UID, nullable=False),
    Column("modality", _TEXT, nullable=False),
    Column("header", LargeBinary, nullable=False),
    # There are senders that give the series of several studies one UID.
    UniqueConstraint("uid", "study"),
    Index("series_study_modality", "study", "modality"),
)

instances = Table(
    "instances",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("series", _ID, ForeignKey("series.id"), nullable=False),
    Column("uid", _UID, nullable=False, unique=True),
    Column("sop_class", _UID, nullable=False),
    Column("transfer_syntax", _UID, nullable=False),
    Column("path", Text, nullable=False),
    Column("offset", _ID, nullable=False),
    Column("size", _ID, nullable=False),
    # Of the file that was indexed; 0 where that was not noted.
    Column("inode", BigInteger, nullable=False),
    Column("header", LargeBinary, nullable=False),
    Index("instances_series_class", "series", "sop_class"),
)

# Files that could not be read when they were to be indexed.
unreadable = Table("unreadable", metadata, Column("path", Text, primary_key=True))

# Storage commitment requests of which the result was not delivered yet.
commitments = Table(
    "commitments",
    metadata,
    Column("transaction_uid", String(64), primary_key=True),
    Column("ae_title", String(16), nullable=False),
    Column("report", Text, nullable=False),
)


def _create_unreadable(connection: Connection) -> None:
    unreadable.create(connection)


def _separate_series(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        [old] = inspect(connection).get_unique_constraints("series")
        _run(connection, f"ALTER TABLE series DROP CONSTRAINT {old['name']}")
        _run(connection, "ALTER TABLE series ADD UNIQUE (uid, study)")
    else:  # SQLite drops no constraints
        _run(connection, "PRAGMA legacy_alter_table=ON")  # what refers to series goes on to
        _run(connection, "ALTER TABLE series RENAME TO series_before")
        _run(connection, "PRAGMA legacy_alter_table=OFF")
        _run(connection, "DROP INDEX series_study_modality")
        series.create(connection)
        names = ", ".join(column.name for column in series.columns)
        _run(connection, f"INSERT INTO series ({names}) SELECT {names} FROM series_before")
        _run(connection, "DROP TABLE series_before")
    if connection.execute(_IN_ANOTHER_STUDY).first():
        MIGRATIONS[3](connection)


# Instances that are in a series of another study than they should be.
_IN_ANOTHER_STUDY = (
    select(instances.c.id)
    .select_from(instances.join(series).join(studies))
    .where(~instances.c.path.startswith(studies.c.uid.concat("/")))
    .limit(1)
)


def _run(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement)
