"""Sending many files (PS3.4 annex B) whatever comes between: over several associations at once, on
a new one where one breaks, and decoded where a peer takes no other encoding.

    outcomes = await store_files("PACS@10.0.0.5:104", ["./study"], jobs=4, retries=3)

A file that was answered is never sent again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool

from twisted_dimse.association import Association
from twisted_dimse.client import connect
from twisted_dimse.datastream import DatasetSource, FileSource, NotDicom, expand_paths
from twisted_dimse.errors import AssociationRejected, ContextNotAccepted, DimseError, StatusError
from twisted_dimse.services.calls import deferred, the_reactor
from twisted_dimse.services.storage import StoreOutcome, plan_contexts
from twisted_dimse.uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    UNCOMPRESSED_TRANSFER_SYNTAXES,
)
from twisted_dimse.upperlayer.negotiation import MAX_CONTEXTS, PresentationContext

Note = Callable[[StoreOutcome], None]

_LANES = 64  # operations that wait on an association whose window is unlimited
_DECODED = 2  # data sets that are decoded, and in memory, at once on an association
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
    """Send files and folders to a peer; ``options`` are those of `connect`.

    ``jobs`` associations are open at once. Where one breaks or does not come about, what it had
    not answered goes to a new one, ``retries`` times for each, after a pause; a permanent rejection
    is not tried again. With ``transcode``, a file whose transfer syntax the peer does not take is
    sent in Explicit or Implicit VR Little Endian, where pydicom can decode it. A file for which
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
    await sending.run(plan_contexts(_sources(paths, note, known)))
    if sending.refused:
        decoded = _SendingDecoded(peer, connection, jobs, retries, note)
        decoded.refused = sending.refused
        await decoded.run(_plan_decoded(sending.refused))
    return outcomes


def _sources(
    paths: Iterable[str | os.PathLike[str]],
    note: Note,
    known: Callable[[FileSource], bool] | None,
) -> Iterator[FileSource]:
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


def _plan_decoded(
    sources: Iterable[FileSource],
) -> Iterator[tuple[list[FileSource], list[PresentationContext]]]:
    """Groups of at most 128 SOP classes, each with one context for what can be written."""
    by_class: dict[str, list[FileSource]] = {}
    for source in sources:
        by_class.setdefault(source.sop_class_uid, []).append(source)
    classes = list(by_class)
    for at in range(0, len(classes), MAX_CONTEXTS):
        chosen = classes[at : at + MAX_CONTEXTS]
        syntaxes = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
        contexts = [PresentationContext(uid, syntaxes) for uid in chosen]
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
        """Empty a queue by several associations. Fails where all of them ended before it was."""
        number = min(self._jobs, len(waiting))
        jobs = [Deferred.fromCoroutine(self._job(waiting, contexts)) for _ in range(number)]
        await _all(jobs, lambda: bool(waiting) or number == 1)

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
        """Keep the window full, and no more than that open at once."""
        number = min(association.window.invoked or self.most_lanes, self.most_lanes)
        await _all(
            [Deferred.fromCoroutine(self._lane(association, waiting)) for _ in range(number)]
        )

    async def _lane(self, association: Association, waiting: deque[FileSource]) -> None:
        while waiting:
            source = waiting.popleft()
            uid = source.sop_instance_uid
            try:
                response = await association.store(await self._prepared(source))
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

    async def _prepared(self, source: FileSource) -> Any:
        """What is sent for a file."""
        return source

    def _refuse(self, source: FileSource, error: ContextNotAccepted) -> None:
        if self._collect and source.transfer_syntax != EXPLICIT_VR_BIG_ENDIAN:
            self.refused[source] = str(error)
        else:
            self._note(StoreOutcome(source.path, source.sop_instance_uid, None, str(error)))


class _SendingDecoded(_Sending):
    """Sends files in Little Endian without compression, decoding them in threads."""

    most_lanes = _DECODED

    async def _prepared(self, source: FileSource) -> DatasetSource:
        pool = self._reactor.getThreadPool()
        try:
            return await deferToThreadPool(self._reactor, pool, decoded, source)
        except ValueError as error:
            refusal = self.refused[source]
            raise ValueError(f"{refusal}; and it cannot be decoded here: {error}") from error

    def _refuse(self, source: FileSource, error: ContextNotAccepted) -> None:
        """What was said of the file as it is says more than that this was refused as well."""
        uid = source.sop_instance_uid
        self._note(StoreOutcome(source.path, uid, None, self.refused[source]))


def decoded(source: FileSource) -> DatasetSource:
    """The data set of a file, to be sent in an uncompressed transfer syntax. It blocks.

    The SOP Instance UID stays (PS3.4 B.4.1.3). Raises `ValueError` where pydicom cannot decode it.
    """
    from pydicom import dcmread

    try:
        dataset = dcmread(source.path, force=True)
        if source.transfer_syntax not in UNCOMPRESSED_TRANSFER_SYNTAXES:
            _check_codecs()
            dataset.decompress(generate_instance_uid=False)
    except Exception as error:
        raise ValueError(" ".join(str(error).split())) from error
    return DatasetSource(dataset, EXPLICIT_VR_LITTLE_ENDIAN)


def _check_codecs() -> None:
    from importlib.util import find_spec

    if find_spec("numpy") is None:
        raise ValueError("pip install 'twisted-dimse[codecs]' brings what can")


async def _all(running: list[Deferred[None]], matters: Callable[[], bool] = lambda: True) -> None:
    """Wait for all; then fail with the first failure there was, if that ``matters``."""
    for succeeded, result in await DeferredList(running, consumeErrors=True):
        if not succeeded and matters():
            result.raiseException()  # type: ignore[attr-defined]


def _may_pass(error: DimseError) -> bool:
    """Whether another try could do better."""
    if isinstance(error, AssociationRejected):
        return error.result != 1
    return not isinstance(error, ContextNotAccepted)


def _abandoned(source: FileSource, error: DimseError) -> StoreOutcome:
    return StoreOutcome(source.path, source.sop_instance_uid, None, str(error), abandoned=True)
