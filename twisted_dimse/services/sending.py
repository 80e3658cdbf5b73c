"""Sending many files (PS3.4 annex B) whatever comes between: over several associations at once, on
a new one where one breaks, and decoded where a peer takes no other encoding.

    outcomes = await store_files("PACS@10.0.0.5:104", ["./study"], jobs=4, retries=3)

A file that was answered is never sent again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from twisted_dimse.association import Association
from twisted_dimse.client import connect
from twisted_dimse.datastream import FileSource, NotDicom, expand_paths
from twisted_dimse.errors import AssociationRejected, ContextNotAccepted, DimseError, StatusError
from twisted_dimse.iteration import ManyValues
from twisted_dimse.results import Response
from twisted_dimse.services.calls import deferred, the_reactor
from twisted_dimse.services.storage import StoreOutcome, plan_contexts
from twisted_dimse.transcoding import MOST_AT_ONCE, CannotTranscode, Transcoder, other_syntax
from twisted_dimse.uids import DEFAULT_TRANSFER_SYNTAXES
from twisted_dimse.upperlayer.negotiation import MAX_CONTEXTS, PresentationContext

Note = Callable[[StoreOutcome], None]

_LANES = 64  # operations that wait on an association whose window is unlimited
_LONGEST_PAUSE = 30.0  # seconds


@deferred
async def store_files(
    peer: Any,
    paths: Iterable[str | os.PathLike[str]],
    *,
    outcome: Note | None = None,
    window: int | None = None,
    jobs: int = 1,
    retries: int = 0,
    transcode: bool = False,
    known: Callable[[FileSource], bool] | None = None,
    reactor: Any = None,
    **options: Any,
) -> list[StoreOutcome]:
    """Send ``paths``, files and folders, to ``peer``; ``window`` and ``options`` are those of
    `connect`.

    ``jobs`` associations are open at once. Where one breaks or does not come about, what it had
    not answered goes to a new one, ``retries`` times for each, after a pause; a permanent rejection
    is not tried again. With ``transcode``, a file whose transfer syntax the peer does not take is
    sent in Explicit or Implicit VR Little Endian, where it can be decoded. A file for which
    ``known`` is true is skipped. ``outcome`` is called with each file's `StoreOutcome` as it is
    known. Fails with a `DimseError` where no association comes about, or one ends early and no
    try is left.
    """
    outcomes: list[StoreOutcome] = []

    def note(done: StoreOutcome) -> None:
        outcomes.append(done)
        if outcome is not None:
            outcome(done)

    connection = {"window": window, "reactor": the_reactor(reactor), **options}
    sending = _Sending(peer, connection, jobs, retries, note, transcode)
    sources = await _read(_sources(paths, note, known), connection["reactor"])
    await sending.run(plan_contexts(sources))
    if refused := sending.refused:
        others = _SendingTranscoded(peer, connection, jobs, retries, note, refused=refused)
        await others.run(_plan_transcoded(refused))
    return outcomes


async def _read(sources: Iterator[FileSource | None], reactor: Any) -> list[FileSource]:
    """All there are, of which each is read from the disk; the reactor turns in between."""
    values = ManyValues(sources, None, reactor)
    found = []
    while (source := await values.next()) is not ManyValues.END:
        if source is not None:
            found.append(source)
    return found


def _sources(
    paths: Iterable[str | os.PathLike[str]],
    note: Note,
    known: Callable[[FileSource], bool] | None,
) -> Iterator[FileSource | None]:
    """A source for each file that is to be sent, and None for any other."""
    for path in expand_paths(paths):
        try:
            source = FileSource.of(path)
        except NotDicom as error:
            note(StoreOutcome(path, error=str(error), skipped=True))
        except OSError as error:
            note(StoreOutcome(path, error=f"{path}: {error.strerror}"))
        else:
            if known is None or not known(source):
                yield source
                continue
            uid, why = source.sop_instance_uid, f"{path}: sent before"
            note(StoreOutcome(path, uid, error=why, skipped=True))
        yield None


def _plan_transcoded(
    sources: Iterable[FileSource],
) -> Iterator[tuple[list[FileSource], list[PresentationContext]]]:
    """Groups of at most 128 SOP classes, each with one context for what can be written."""
    by_class: dict[str, list[FileSource]] = {}
    for source in sources:
        by_class.setdefault(source.sop_class_uid, []).append(source)
    classes = list(by_class)
    for at in range(0, len(classes), MAX_CONTEXTS):
        chosen = classes[at : at + MAX_CONTEXTS]
        contexts = [PresentationContext(uid, DEFAULT_TRANSFER_SYNTAXES) for uid in chosen]
        yield [source for uid in chosen for source in by_class[uid]], contexts


class _Sending:
    """Sends the files of a plan as they are. `refused` has those that could still go otherwise and
    what was said of them, where ``collect`` is true."""

    most_lanes = _LANES

    def __init__(
        self,
        peer: Any,
        connection: Mapping[str, Any],
        jobs: int,
        retries: int,
        note: Note,
        collect: bool = False,
    ) -> None:
        self.refused: dict[FileSource, str] = {}
        self._peer = peer
        self._connection = connection
        self._reactor = connection["reactor"]
        self._jobs = jobs
        self._retries = retries
        self._note = note
        self._collect = collect

    async def run(self, plan: Iterable[tuple[list[FileSource], list[Any]]]) -> None:
        """Send all; what is not answered in the end is noted, as abandoned, before this fails."""
        plan = iter(plan)
        for batch, contexts in plan:
            waiting = deque(batch)
            try:
                await self._send(waiting, contexts)
            except ContextNotAccepted as error:
                for source in waiting:
                    self._refuse(source, error)
            except DimseError as error:
                waiting.extend(source for rest, _ in plan for source in rest)
                for source in waiting:
                    self._note(_abandoned(source, error))
                raise

    async def _send(self, waiting: deque[FileSource], contexts: list[Any]) -> None:
        """Empty a queue by several associations. Fails where all of them ended before it was;
        how one ends behind the last answer does not matter."""
        number = min(self._jobs, len(waiting))
        jobs = [Deferred.fromCoroutine(self._job(waiting, contexts)) for _ in range(number)]
        await _all(jobs, lambda failure: bool(waiting) or failure.check(DimseError) is None)

    async def _job(self, waiting: deque[FileSource], contexts: list[Any]) -> None:
        failures = 0
        while waiting:
            try:
                association = await connect(self._peer, contexts=contexts, **self._connection)
                async with association:
                    await self._share(association, waiting)
                return
            except DimseError as error:
                failures += 1
                if failures > self._retries or not _may_pass(error):
                    raise
            pause = min(2.0 ** (failures - 1), _LONGEST_PAUSE)
            await deferLater(self._reactor, pause, lambda: None)

    async def _share(self, association: Association, waiting: deque[FileSource]) -> None:
        """Keep the window full, and one more ready."""
        number = min((association.window.invoked or self.most_lanes) + 1, self.most_lanes)
        await _all(
            [Deferred.fromCoroutine(self._lane(association, waiting)) for _ in range(number)]
        )

    async def _lane(self, association: Association, waiting: deque[FileSource]) -> None:
        while waiting:
            source = waiting.popleft()
            uid = source.sop_instance_uid
            try:
                response = await self._store(association, source)
            except StatusError as error:
                known = StoreOutcome(source.path, uid, error.status, str(error), source.size)
            except ContextNotAccepted as error:
                self._refuse(source, error)
                continue
            except (OSError, ValueError) as error:
                known = StoreOutcome(source.path, uid, None, str(error))
            except DimseError:
                waiting.appendleft(source)
                raise
            else:
                known = StoreOutcome(source.path, uid, response.status, "", source.size)
            self._note(known)

    async def _store(self, association: Association, source: FileSource) -> Response:
        return await association.store(source)

    def _refuse(self, source: FileSource, error: ContextNotAccepted) -> None:
        if self._collect:
            self.refused[source] = str(error)
        else:
            self._note(StoreOutcome(source.path, source.sop_instance_uid, None, str(error)))


class _SendingTranscoded(_Sending):
    """Sends files in Little Endian without compression."""

    most_lanes = MOST_AT_ONCE

    def __init__(self, *args: Any, refused: dict[FileSource, str]) -> None:
        super().__init__(*args)
        self.refused = refused
        self._transcoder = Transcoder(self._reactor)

    async def _store(self, association: Association, source: FileSource) -> Response:
        syntax = other_syntax(source, association.accepted_syntaxes(source.sop_class_uid))
        if syntax is None:
            return await association.store(source)
        try:
            async with self._transcoder.transcoded(source, syntax) as other:
                return await association.store(other)
        except CannotTranscode as error:
            raise ValueError(f"{self.refused[source]}, which {error}") from error

    def _refuse(self, source: FileSource, error: ContextNotAccepted) -> None:
        """What was said of the file as it is says more than that this was refused as well."""
        uid = source.sop_instance_uid
        self._note(StoreOutcome(source.path, uid, None, self.refused[source]))


async def _all(
    running: list[Deferred[None]], matters: Callable[[Failure], bool] = lambda _failure: True
) -> None:
    """Wait for all; then fail with the first failure there was that ``matters``."""
    for succeeded, result in await DeferredList(running, consumeErrors=True):
        if not succeeded and matters(cast("Failure", result)):
            cast("Failure", result).raiseException()


def _may_pass(error: DimseError) -> bool:
    """Whether another try could do better."""
    if isinstance(error, AssociationRejected):
        return error.result != 1
    return not isinstance(error, ContextNotAccepted)


def _abandoned(source: FileSource, error: DimseError) -> StoreOutcome:
    return StoreOutcome(source.path, source.sop_instance_uid, None, str(error), abandoned=True)
