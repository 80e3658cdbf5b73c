"""The index: SQLAlchemy Core over SQLite or PostgreSQL, one schema. All methods block: they are
called in threads, never in the reactor's.

    index = Index.open("sqlite:////archive/index.sqlite")
    index.add(headers)                       # one transaction
    with index.select(query) as rows: ...    # rows as the database gives them
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from twisted_dimse.archive import schema
from twisted_dimse.archive.header import (
    InstanceHeader,
    inode_of,
)
from twisted_dimse.archive.rows import (
    PATIENT,
    SERIES,
    STUDY,
    Replaced,
    insert_missing,
    instance_row,
    parts,
    patient_rows,
    remove_empty,
    remove_instances,
    remove_without_studies,
    renew_above,
    series_rows,
    study_rows,
)

_READING, _NEWER = "reading", "newer"  # of the table `info`
_BUSY_TIMEOUT = 10_000  # milliseconds that SQLite waits for another writer


class IndexUnusable(Exception):
    """The database cannot be opened, or is of another version; the text says which."""


class Held(NamedTuple):
    """An instance, and the length and the inode of its file as it was indexed."""

    sop_class: str
    path: str
    length: int
    inode: int

    def is_cut(self, status: os.stat_result) -> bool:
        """Whether its file has lost something; not one that took its name since."""
        return self.inode in (0, inode_of(status)) and status.st_size != self.length


class Index:
    """The rows of one archive."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(
        cls, url: str | sa.URL, *, files_are_there: bool = False, create: bool = True
    ) -> Index:
        """Open the database, or ``create`` it. A new one is `reading` where ``files_are_there``.
        Raises `IndexUnusable`."""
        try:
            # What lay idle while the server behind it was started anew is noticed and replaced.
            url = sa.make_url(url)
            engine = sa.create_engine(url, pool_pre_ping=not url.drivername.startswith("sqlite"))
            if engine.dialect.name == "sqlite":
                if url.database in (None, "", ":memory:"):
                    raise IndexUnusable(
                        "what is in memory, each thread has for itself: name a file"
                    )
                sa.event.listen(engine, "connect", _set_up_sqlite)
            index = cls(engine)
            if create:
                index._check_version(files_are_there, create)
            if engine.dialect.name == "sqlite":
                _watch_file(engine)
            if not create:
                index._check_version(files_are_there, create)
        except IndexUnusable:
            raise
        except (sa.exc.SQLAlchemyError, ImportError, ValueError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            raise IndexUnusable(" ".join(str(cause).split())) from error
        return index

    def close(self) -> None:
        self._engine.dispose()

    def _check_version(self, files_are_there: bool, create: bool) -> None:
        """Make the tables, or bring those of an older version up to date, all or nothing."""
        with self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                # While tables are made anew, on a connection that is used for nothing else; it has
                # no effect within a transaction.
                connection.detach()
                connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # which Python leaves out before DDL
            table = schema.info
            if not sa.inspect(connection).has_table(table.name):
                if not create:
                    raise IndexUnusable("the database has no tables any more")
                schema.metadata.create_all(connection)
                rows = [{"key": "version", "value": str(schema.VERSION)}]
                if files_are_there:
                    rows.append({"key": _READING, "value": ""})
                connection.execute(table.insert(), rows)
                return
            is_version = table.c.key == "version"
            found = int(connection.scalar(sa.select(table.c.value).where(is_version)) or 0)
            if found > schema.VERSION:
                raise IndexUnusable(
                    f"the database is of version {found}, and this program knows those up to"
                    f" {schema.VERSION}: use a newer one"
                )
            for version in range(found + 1, schema.VERSION + 1):
                schema.MIGRATIONS[version](connection)
            if found < schema.VERSION:
                now = str(schema.VERSION)
                connection.execute(table.update().where(is_version).values(value=now))

    # --- writing

    def add(self, headers: Iterable[InstanceHeader]) -> list[Replaced]:
        """Index instances, the later of two with one UID, whose patient, study and series are then
        as it has them. Gives those that were replaced and lie elsewhere."""
        headers = list(headers)
        latest = {header.sop_instance_uid: header for header in headers}
        if not latest:
            return []
        with self._engine.begin() as connection:
            elsewhere, again = remove_instances(connection, latest)
            patients = insert_missing(connection, PATIENT, patient_rows(latest))
            studies = insert_missing(connection, STUDY, study_rows(latest, patients))
            series = insert_missing(connection, SERIES, series_rows(latest, studies))
            connection.execute(
                schema.instances.insert(),
                [instance_row(header, studies, series) for header in latest.values()],
            )
            for part in parts(elsewhere.values()):
                remove_empty(connection, schema.series.c.id.in_(part))
            renew_above(connection, {uid: latest[uid] for uid in again})
            remove_without_studies(connection, patients.values())
        kept = {header.path for header in latest.values()}
        replaced = (*elsewhere, *(Replaced(header.path, header.inode) for header in headers))
        return [one for one in replaced if one.path not in kept]

    def renew(self, headers: Iterable[InstanceHeader]) -> list[Replaced]:
        """Index files that were there before: as `add` does, but an instance that is known to lie
        elsewhere stays there, and the rows above get what they have of these. Gives those of that
        kind whose instance is one of the `newer`."""
        here: dict[str, InstanceHeader] = {}
        others: list[InstanceHeader] = []
        headers = list(headers)
        known = self.held([header.sop_instance_uid for header in headers])
        for header in headers:
            uid = header.sop_instance_uid
            if uid not in known or known[uid].path == header.path:
                here[header.sop_instance_uid] = header
            else:
                others.append(header)
        self.add(here.values())
        with self._engine.begin() as connection:
            renew_above(connection, here)
        newer = self.newer([header.sop_instance_uid for header in others])
        return [
            Replaced(header.path, header.inode)
            for header in others
            if header.sop_instance_uid in newer
        ]

    def remove(self, paths: Sequence[str]) -> None:
        """Take the instances at ``paths`` out, and what is empty without them."""
        with self._engine.begin() as connection:
            for part in parts(paths):
                connection.execute(
                    schema.instances.delete().where(schema.instances.c.path.in_(part))
                )
            remove_empty(connection, sa.true())

    # --- files that are still to be read

    @property
    def reading(self) -> str | None:
        """The study up to which the files that were there before this index, or before its
        version, are read; None where they all are."""
        info = schema.info.c
        rows = self.fetch(sa.select(info.value).where(info.key == _READING))
        return str(rows[0][0]) if rows else None

    @reading.setter
    def reading(self, study: str | None) -> None:
        table = schema.info
        with self._engine.begin() as connection:
            connection.execute(table.delete().where(table.c.key == _READING))
            if study is not None:
                connection.execute(table.insert(), [{"key": _READING, "value": study}])
            else:
                connection.execute(table.delete().where(table.c.value == _NEWER))

    def is_reading(self) -> bool:
        """Whether there are such files."""
        return self.reading is not None

    def note_newer(self, uids: Iterable[str]) -> None:
        """Note instances that were stored while there are such files: one with the same UID that
        is read then is older."""
        uids = set(uids)
        new = uids.difference(self.newer(list(uids)))
        if new:
            rows = [{"key": uid, "value": _NEWER} for uid in new]
            with self._engine.begin() as connection:
                connection.execute(schema.info.insert(), rows)

    def newer(self, uids: Sequence[str]) -> set[str]:
        """Those of ``uids`` that are noted so."""
        table = schema.info.c
        found: set[str] = set()
        for part in parts(uids):
            noted = sa.select(table.key).where(table.value == _NEWER, table.key.in_(part))
            found.update(row[0] for row in self.fetch(noted))
        return found

    def note_unreadable(self, paths: Iterable[str]) -> None:
        """Note files that could not be read."""
        new = set(paths).difference(self.unreadable())
        if new:
            with self._engine.begin() as connection:
                connection.execute(schema.unreadable.insert(), [{"path": path} for path in new])

    def unreadable(self) -> list[str]:
        """The files that could not be read."""
        return [row[0] for row in self.fetch(sa.select(schema.unreadable.c.path))]

    def forget_unreadable(self, paths: Sequence[str]) -> None:
        """These could be read, or are gone."""
        table = schema.unreadable
        with self._engine.begin() as connection:
            for part in parts(paths):
                connection.execute(table.delete().where(table.c.path.in_(part)))

    # --- storage commitment requests, and reports

    def keep_report(self, transaction: str, ae_title: str, report: str) -> None:
        """Keep a report, or what is still to be decided, until it is delivered."""
        table = schema.commitments
        with self._engine.begin() as connection:
            connection.execute(table.delete().where(table.c.transaction_uid == transaction))
            row = {"transaction_uid": transaction, "ae_title": ae_title, "report": report}
            connection.execute(table.insert(), [row])

    def forget_report(self, transaction: str) -> None:
        table = schema.commitments
        with self._engine.begin() as connection:
            connection.execute(table.delete().where(table.c.transaction_uid == transaction))

    def kept_reports(self) -> list[tuple[str, str]]:
        """The AE title and the report of each that was not delivered."""
        table = schema.commitments.c
        return [tuple(row) for row in self.fetch(sa.select(table.ae_title, table.report))]

    # --- reading

    @contextmanager
    def select(self, statement: Any) -> Iterator[Any]:
        """The result of a SELECT, whose rows come from the database as they are fetched."""
        with self._engine.connect() as connection:
            yield connection.execution_options(stream_results=True).execute(statement)

    def pages(self, statement: Any, size: int) -> Generator[Sequence[Any], None, None]:
        """The rows of a SELECT as they come from the database, ``size`` at a time: a page that has
        fewer, or none, is the last, and with it the database is let go of."""
        page: Sequence[Any] = ()
        with self.select(statement) as result:
            while len(page := result.fetchmany(size)) == size:
                yield page
        yield page

    def fetch(self, statement: Any) -> list[Any]:
        """All rows of a SELECT."""
        with self._engine.connect() as connection:
            return list(connection.execute(statement))

    def count(self) -> int:
        """The number of instances."""
        return int(self.fetch(sa.select(sa.func.count()).select_from(schema.instances))[0][0])

    def held(self, uids: Sequence[str]) -> dict[str, Held]:
        """Those of the instances ``uids`` that are here."""
        table = schema.instances.c
        length = table.offset + table.size
        found: dict[str, Held] = {}
        for part in parts(uids):
            statement = sa.select(table.uid, table.sop_class, table.path, length, table.inode)
            for uid, *more in self.fetch(statement.where(table.uid.in_(part))):
                found[uid] = Held(*more)
        return found


def without_password(url: str) -> str:
    """A database's URL as it may be shown."""
    return re.sub(r"(://[^:/@]*:)[^@]*@", r"\1***@", url)


def _set_up_sqlite(connection: Any, _record: object) -> None:
    """Readers beside one writer; a commit is on the disk when it returns."""
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={_BUSY_TIMEOUT}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"
    ):  # fmt: skip
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _watch_file(engine: Engine) -> None:
    """Have nothing written to, or read from, a file that bears the database's name no longer, and
    no empty one made in its place: `sqlalchemy.exc.OperationalError` until it is there again."""
    path = engine.url.database
    if not path or path == ":memory:" or path.startswith("file:"):
        return

    def connecting(*_: object) -> None:
        if not os.path.exists(path):
            raise sqlite3.OperationalError(f"there is no file {path} any more")

    def connected(_connection: object, record: Any) -> None:
        record.info["file"] = os.stat(path).st_ino

    def taken(_connection: object, record: Any, _proxy: object) -> None:
        try:
            same = os.stat(path).st_ino == record.info["file"]
        except FileNotFoundError:
            same = False
        if not same:
            raise sa.exc.DisconnectionError

    engine.dispose()  # connections that were made before
    sa.event.listen(engine, "do_connect", connecting)
    sa.event.listen(engine, "connect", connected)
    sa.event.listen(engine, "checkout", taken)
