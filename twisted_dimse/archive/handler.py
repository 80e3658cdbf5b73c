"""The default SCP: stores, finds and gives back.

    archive = Archive("./archive", reactor=reactor)      # raises CannotOpen
    port = await listen("tcp:11112", ArchiveHandler(archive))
    ...
    await archive.close()

`Archive` is the folder with its files, journal and index; `ArchiveHandler` answers for it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from threading import Lock
from typing import Any

import sqlalchemy as sa
from pydicom import Dataset
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from twisted_dimse.archive import matching
from twisted_dimse.archive.answering import INSTANCE_AVAILABILITY, RETRIEVE_AE_TITLE, Answering
from twisted_dimse.archive.duplicates import Duplicates, SuccessorSink
from twisted_dimse.archive.folder import ArchiveFolder, CannotOpen
from twisted_dimse.archive.header import KEPT, Level
from twisted_dimse.archive.indexer import Indexer, in_one_line
from twisted_dimse.archive.part import Part
from twisted_dimse.archive.reading import Reader
from twisted_dimse.archive.stored import StoredSource
from twisted_dimse.datastream import Sink
from twisted_dimse.dimse.status import (
    CANNOT_CALCULATE_MATCHES,
    OUT_OF_RESOURCES,
    PENDING,
    PENDING_OPTIONAL_KEYS_NOT_SUPPORTED,
)
from twisted_dimse.errors import StatusError
from twisted_dimse.handler import Handler, Request
from twisted_dimse.iteration import Pace
from twisted_dimse.services.files import InstanceFiles
from twisted_dimse.services.identifiers import QueryOptions, check_query, check_retrieve
from twisted_dimse.services.matching import CONTROL
from twisted_dimse.services.syncing import sync_file, sync_folders_of
from twisted_dimse.services.values import tags_of
from twisted_dimse.suboperations import Instances
from twisted_dimse.uids import (
    QUERY_MODELS,
    VERIFICATION,
    storage_sop_classes,
)

# What may be negotiated of queries and retrievals (PS3.4 C.5).
OPTIONS = QueryOptions(relational=True, combined_date_time=True)

_PAGE = 200  # rows fetched in one go
_LOOK_AGAIN = 1.0  # seconds until a file may have been read for the index
_log = Logger()


class CannotKeep(Exception):
    """The disk does not take what storage commitment would promise; the text says why."""


class Archive:
    """A folder of instances at work: files, journal, index, and the threads that read and index.

    ``database`` is a SQLAlchemy URL, by default a SQLite file in the folder; ``part`` is for one
    process of several; ``options`` go to `services.files.InstanceFiles`. Raises `CannotOpen`.
    """

    def __init__(
        self,
        directory: str,
        *,
        database: str | None = None,
        part: Part | None = None,
        reactor: Any = None,
        **options: Any,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.reactor = reactor
        self._folder = ArchiveFolder(directory, database, part)
        try:
            self.files = InstanceFiles(
                directory,
                require_uids=True,
                record=self._record,
                unplaced=lambda _path: self._folder.journal.take_back(),
                naming=self._folder.naming,
                reactor=reactor,
                **options,
            )
            self.partial = 0 if part else self.files.remove_partial()
        except OSError as error:
            self._folder.close()
            raise CannotOpen(f"--directory {directory}: {error.strerror or error}") from error
        self.index = self._folder.index
        self.indexer = Indexer(self._folder, reactor)
        self._reader = Reader(self._folder, reactor)
        self._readers = ThreadPool(0, 4, "queries")
        self._durably = self.files.durability == "sync"

    def start(self) -> int:
        """Begin to work; the number of instances that a crash left to be indexed."""
        self._readers.start()
        left = self.indexer.start()
        if self._folder.part is None or self._folder.part.number == 1:
            self._reader.start()
        return left

    def close(self) -> Deferred[None]:
        """Index what is left and let go of everything."""
        done = self._reader.stop()
        done.addBoth(lambda _: self.indexer.stop())
        done.addBoth(self._closed)
        return done

    @property
    def lock(self) -> int:
        """The descriptor of the folder's lock, for processes that serve a part."""
        return self._folder.lock

    def stored(self, path: str) -> None:
        """An instance is filed under ``path``."""
        self.indexer.stored(self._folder.relative(path))

    @property
    def is_part(self) -> bool:
        """Whether other processes serve the same archive."""
        return self._folder.part is not None

    def absolute(self, path: str) -> str:
        """The path of a file that the index names."""
        return self._folder.absolute(path)

    def may_wait_elsewhere(self, uid: str) -> bool:
        """Whether another process may have acknowledged an instance that is not in the index yet;
        False where the index cannot be used now."""
        part = self._folder.part
        return part is not None and not self.indexer.failing and part.may_wait_elsewhere(uid)

    def claim(self, uid: str) -> bool:
        """Decide about an instance until `let_go`; False where another process does. Raises
        `StatusError` 0xA700 where there is no lock to be had."""
        try:
            return self._folder.claim(uid)
        except OSError as error:
            raise StatusError(OUT_OF_RESOURCES, error.strerror or str(error)) from error

    def let_go(self, uid: str) -> None:
        """Another process may decide about it."""
        self._folder.let_go(uid)

    def keep(self, uids: Sequence[str]) -> dict[str, str]:
        """Have instances on the disk, if they are not yet: the SOP class of each that is here, is
        whole, and now is. Blocks. Raises `CannotKeep` where one cannot be synced."""
        kept: dict[str, str] = {}
        paths: list[str] = []
        held = self.index.held(uids)
        try:
            for uid, one in held.items():
                path = self._folder.absolute(one.path)
                with suppress(FileNotFoundError):
                    if one.is_cut(os.stat(path)):
                        _log.error("{path}: has lost its end, and is not committed", path=path)
                        continue
                    sync_file(path)
                    paths.append(path)
                    kept[uid] = one.sop_class
            sync_folders_of(paths, self._folder.instances)
        except OSError as error:
            raise CannotKeep(f"{error.filename}: {error.strerror or error}") from error
        return kept

    async def kept(self, uids: Sequence[str]) -> dict[str, str]:
        """As `keep`, off the reactor, of all that was stored before. Where some of ``uids`` are
        not found while files are still read for the index, this waits for them."""
        await self.up_to_date()
        kept: dict[str, str] = await self.in_thread(self.keep, uids)
        while not kept.keys() >= set(uids) and await self.in_thread(self.index.is_reading):
            await deferLater(self.reactor, _LOOK_AGAIN)
            kept = await self.in_thread(self.keep, uids)
        return kept

    def in_thread(self, function: Any, *args: Any) -> Deferred[Any]:
        """Read from the index off the reactor. Fails with `StatusError` 0xA700 where that cannot
        be done now."""
        done = deferToThreadPool(self.reactor, self._readers, function, *args)
        return done.addErrback(_out_of_resources)

    def up_to_date(self) -> Deferred[None]:
        """Fires when what was stored before can be found; fails as `in_thread` does."""
        done = self.indexer.up_to_date()
        part = self._folder.part
        if part is not None:
            done.addCallback(lambda _: part.others())
        return done.addErrback(_out_of_resources)

    async def rows(self, statement: Any) -> AsyncGenerator[Any, None]:
        """The rows of a SELECT, once all that was stored before is indexed; fetched from the
        database in pages, as they are taken."""
        await self.up_to_date()
        pages = self.index.pages(statement, _PAGE)
        turn = Lock()  # what is cancelled goes on in its thread until it has its page
        full = True
        try:
            while full:
                page = await self.in_thread(_in_turn, turn, next, pages)
                full = len(page) == _PAGE
                pace = Pace(self.reactor)
                for row in page:
                    if pace.is_over:
                        await pace.keep()
                    yield row
        finally:
            if full:
                await self.in_thread(_in_turn, turn, pages.close)

    def _record(self, paths: list[str]) -> None:
        relative = [self._folder.relative(path) for path in paths]
        self._folder.journal.append(relative, durably=self._durably)

    def _closed(self, _result: object) -> None:
        self._readers.stop()
        self._folder.close()


class ArchiveHandler(Handler):
    """Serves an `Archive`: C-STORE, C-FIND, C-MOVE and C-GET at every level.

    ``ae_title`` is named as the place to retrieve from; ``max_results`` bounds the answers of one
    query, which is then ended with 0xA700.
    """

    storage_of_any_kind = True

    def __init__(
        self, archive: Archive, *, ae_title: str = "TWISTED-DIMSE", max_results: int | None = None
    ) -> None:
        self.archive = archive
        self._ae_title = ae_title
        self._max_results = max_results
        self._duplicates = Duplicates(archive)
        models = [uid for model in QUERY_MODELS for uid in model[1:]]
        self.extended = {uid: OPTIONS.answer(uid) for uid in models}
        self.contexts = [VERIFICATION, *models, *storage_sop_classes()]

    def store_sink(self, request: Request) -> Sink:
        sink = self.archive.files.sink(request, self.archive.stored)
        uid = request.sop_instance_uid
        if self.archive.files.on_duplicate != "replace":
            return self._duplicates.sink(sink, uid)
        return SuccessorSink(self.archive, sink, uid) if self.archive.is_part else sink

    async def find(self, request: Request) -> AsyncIterator[Any]:
        uid = request.sop_class_uid
        agreed = OPTIONS.agreed(request.association, uid)
        keys = request.dataset or Dataset()
        level = Level(check_query(keys, uid, relational=agreed.relational).level)
        supported, status = _supported(keys, level)
        answering = Answering(
            supported, level, agreed.rules, request.context.transfer_syntax, self._ae_title
        )
        statement = matching.entities(supported, level, answering.computed)
        found = 0
        async with aclosing(self.archive.rows(statement)) as rows:
            async for row in rows:
                answer = answering.of(row)
                if answer is None:
                    continue
                if found == self._max_results:
                    yield OUT_OF_RESOURCES, None
                    return
                found += 1
                yield status, answer

    async def get(self, request: Request) -> Instances:
        return await self._instances(request)

    async def move(self, request: Request) -> Instances:
        return await self._instances(request)

    async def _instances(self, request: Request) -> Instances:
        uid = request.sop_class_uid
        agreed = OPTIONS.agreed(request.association, uid)
        keys = request.dataset or Dataset()
        asked = check_retrieve(keys, uid, relational=agreed.relational)
        rows: list[Any] = []
        try:
            await self.archive.up_to_date()
            for statement in matching.instances(asked):
                rows += await self.archive.in_thread(self.archive.index.fetch, statement)
        except StatusError as error:
            raise StatusError(CANNOT_CALCULATE_MATCHES, error.comment) from error
        return Instances(self._sources(rows), len(rows))

    def _sources(self, rows: Iterable[Any]) -> Iterable[StoredSource]:
        folder = self.archive.files.instances
        for path, *more in rows:
            yield StoredSource(os.path.join(folder, path), *more)


def _in_turn(turn: Lock, function: Callable[..., Any], *args: Any) -> Any:
    with turn:
        return function(*args)


def _out_of_resources(failure: Failure) -> Failure:
    """The database is gone, locked or full: one line for the log, and a status for the peer."""
    failure.trap(sa.exc.SQLAlchemyError, OSError)
    _log.error("the index cannot be used now: {text}", text=in_one_line(failure.value))
    return Failure(StatusError(OUT_OF_RESOURCES, "the index cannot be used now"))


def _supported(keys: Dataset, level: Level) -> tuple[Dataset, int]:
    """The keys that are supported here, and the status of each answer: whether all are."""
    known = {tag for one in matching.levels_down_to(level) for tag in KEPT[one]}
    known.update(matching.computed_attributes(level), CONTROL)
    known.update((RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY))
    supported = Dataset()
    status = PENDING
    for tag in tags_of(keys):
        if tag in known:
            supported[tag] = keys.get_item(tag)
        else:
            status = PENDING_OPTIONAL_KEYS_NOT_SUPPORTED
    return supported, status
