"""C-MOVE and C-GET as SCP: the C-STORE sub-operations (PS3.4 C.4.2.1.6 to C.4.3.1.8).

A handler gives the instances; `Retrieval` sends them, counts what becomes of each, reports after
each one, stops after the instance under way when it is cancelled, and works out the final status.
A C-GET sends on its own association, a C-MOVE on one to the destination that is opened once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredLock
from twisted.logger import Logger

from twisted_dimse import telemetry
from twisted_dimse.datastream import DatasetSource, as_source, syntaxes_for
from twisted_dimse.dimse.status import (
    CANCEL,
    CANNOT_PERFORM_SUBOPERATIONS,
    SUBOPERATIONS_FAILED,
    SUCCESS,
    Category,
    category,
)
from twisted_dimse.errors import ContextNotAccepted, DimseError
from twisted_dimse.handler import Request
from twisted_dimse.iteration import ManyValues
from twisted_dimse.results import Response
from twisted_dimse.transcoding import CannotTranscode, other_syntax
from twisted_dimse.uids import DEFAULT_TRANSFER_SYNTAXES, name_of
from twisted_dimse.upperlayer.negotiation import MAX_CONTEXTS, PresentationContext

if TYPE_CHECKING:
    from twisted_dimse.association import Association

_PLAN_AHEAD = 500  # instances looked at before the destination's contexts are proposed
_MOST_AT_ONCE = 16  # where the window has no limit
_MOST_COUNTED = 0xFFFF  # the counts are US
_REASONS_LOGGED = 5

_log = Logger()


@dataclass(frozen=True, slots=True)
class Instances:
    """Instances to send, for handlers that know more than the instances themselves.

    ``items`` are paths, Datasets or streaming sources, in any iterable or async iterable;
    ``count`` is how many there are, where they cannot be counted by ``len``.
    """

    items: Any
    count: int | None = None


@dataclass(slots=True)
class Counts:
    """Sub-operations so far. `remaining` counts those that were not begun."""

    remaining: int = 0
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)

    def add(self, status: int | None, uid: str) -> None:
        """One sub-operation ended with ``status``, or without one."""
        kind = Category.FAILURE if status is None else category(status)
        if kind is Category.SUCCESS:
            self.completed += 1
        elif kind is Category.WARNING:
            self.warning += 1
        else:
            self.failed += 1
            if uid:
                self.failed_uids.append(uid)

    def elements(self, *, remaining: bool) -> dict[str, int]:
        """The four elements of a response; `remaining` belongs in pending and cancelled ones."""
        elements = {
            "NumberOfCompletedSuboperations": min(self.completed, _MOST_COUNTED),
            "NumberOfFailedSuboperations": min(self.failed, _MOST_COUNTED),
            "NumberOfWarningSuboperations": min(self.warning, _MOST_COUNTED),
        }
        if remaining:
            elements["NumberOfRemainingSuboperations"] = min(self.remaining, _MOST_COUNTED)
        return elements

    @property
    def final_status(self) -> int:
        """The status of a final response that was not cancelled."""
        if not (self.failed or self.warning):
            return SUCCESS
        if self.failed and not (self.completed or self.warning):
            return CANNOT_PERFORM_SUBOPERATIONS
        return SUBOPERATIONS_FAILED


# Opens an association to the C-MOVE destination with the given contexts.
Opener = Callable[[list[PresentationContext]], Awaitable["Association"]]


class Retrieval:
    """One C-MOVE or C-GET being performed.

    ``report`` sends a pending response with the given elements. ``opener`` is None for a C-GET.
    """

    def __init__(
        self,
        request: Request,
        values: ManyValues,
        report: Callable[[dict[str, int]], None],
        opener: Opener | None,
    ) -> None:
        self.counts = Counts()
        self._request = request
        self._values = values
        self._report = report
        self._opener = opener
        self._ahead: deque[Any] = deque()
        self._exhausted = False
        self._under_way = 0
        self._stores: dict[Deferred[Response], Association] = {}
        self._proposed: frozenset[tuple[str, str]] = frozenset()
        self._reading = DeferredLock()  # lanes take turns at the handler's iterator
        self._comment = ""
        self._reasons: Counter[str] = Counter()

    async def run(self) -> tuple[int, Any, dict[str, Any]]:
        """Send all; the final response's status, identifier and elements."""
        self._request.on_cancel(self._take_back)
        try:
            if self._opener is None:
                await self._send_on(self._request.association)
            else:
                await self._send_to_destination()
        finally:
            await self._values.close()
        return self._final()

    def _final(self) -> tuple[int, Any, dict[str, Any]]:
        counts = self.counts
        self._count_remaining()
        self._log_reasons()
        cancelled = self._request.cancelled
        status = CANCEL if cancelled else counts.final_status
        elements: dict[str, Any] = counts.elements(remaining=cancelled)
        if status == CANNOT_PERFORM_SUBOPERATIONS and self._comment:
            elements["ErrorComment"] = self._comment
        if status == SUCCESS or not counts.failed_uids:
            return status, None, elements
        from pydicom import Dataset

        identifier = Dataset()
        identifier.FailedSOPInstanceUIDList = counts.failed_uids
        return status, identifier, elements

    def _log_reasons(self) -> None:
        for reason, count in self._reasons.most_common(_REASONS_LOGGED):
            _log.warn(
                "association {number}: {service}: {count} sub-operations failed: {reason}",
                number=self._request.association.number,
                service=self._service,
                count=count,
                reason=reason,
            )

    @property
    def _service(self) -> str:
        return "C-GET" if self._opener is None else "C-MOVE"

    # --- the instances, a few ahead of what is sent

    async def _next(self) -> Any:
        """The next source, or the error that stands for one; None at the end."""
        if not self._ahead:
            await self._look_ahead(1)
        return self._ahead.popleft() if self._ahead else None

    async def _look_ahead(self, weight: int) -> None:
        await self._reading.acquire()
        try:
            ahead = sum(map(_weight, self._ahead))
            while not self._exhausted and ahead < weight:
                item = await self._values.next()
                if item is ManyValues.END:
                    self._exhausted = True
                else:
                    self._ahead.append(_source_of(item))
                    ahead += _weight(self._ahead[-1])
        finally:
            self._reading.release()

    def _count_remaining(self) -> None:
        """All that were found and have not ended; of an uncounted iterable, those known of."""
        counts = self.counts
        if self._values.count is None:
            counts.remaining = len(self._ahead) + self._under_way
        else:
            ended = counts.completed + counts.failed + counts.warning
            counts.remaining = max(self._values.count - ended, 0)

    # --- sending

    async def _send_on(self, association: Association) -> None:
        """Keep the window of the association full, and one more ready, until all is sent."""
        lanes = min((association.window.invoked or _MOST_AT_ONCE) + 1, _MOST_AT_ONCE)
        running = [Deferred.fromCoroutine(self._lane(association)) for _ in range(lanes)]
        for succeeded, result in await DeferredList(running, consumeErrors=True):
            if not succeeded:
                result.raiseException()  # type: ignore[attr-defined]

    async def _lane(self, association: Association) -> None:
        while not self._request.cancelled:
            source = await self._next()
            if source is None:
                return
            if self._request.cancelled or self._needs_another(association, source):
                self._ahead.appendleft(source)
                return
            await self._send_one(association, source)

    async def _send_one(self, association: Association, source: Any) -> None:
        status: int | None = None
        uid = getattr(source, "sop_instance_uid", "")
        self._under_way += 1
        try:
            response = await self._store(association, source)
            status = response.status
            if category(status) is Category.FAILURE:
                self._blame(f"the destination answered {status:04X}H", response.comment)
        except CancelledError:
            if not self._request.cancelled:
                raise
            self._under_way -= 1
            self._ahead.appendleft(source)
            return
        except OSError as error:
            self._blame(f"an instance cannot be read: {error.strerror or error}")
        except (DimseError, ValueError) as error:
            self._blame(str(error))
        except Exception as error:  # a source may be anybody's
            self._blame(f"{type(error).__name__}: {error}")
        self._under_way -= 1
        self.counts.add(status, uid)
        self._count_remaining()
        if telemetry.subscribers:
            self._note(uid, status)
        self._report(self.counts.elements(remaining=True))

    def _blame(self, reason: str, comment: str = "") -> None:
        """Why a sub-operation failed: for the log, and for the peer in its words or ours."""
        self._comment = comment or reason
        self._reasons[reason] += 1

    async def _store(self, association: Association, source: Any) -> Response:
        """Send an instance, in another transfer syntax where its own was not accepted."""
        if isinstance(source, Exception):
            raise source
        syntax = other_syntax(source, association.accepted_syntaxes(source.sop_class_uid))
        if syntax is None:
            return await self._store_as_it_is(association, source)
        transcoder = self._request.association.transcoder
        try:
            async with transcoder.transcoded(source, syntax) as other:
                return await self._store_as_it_is(association, other)
        except CannotTranscode as error:
            name = name_of(source.transfer_syntax)
            raise ValueError(f"{name} is not taken and {error}") from error

    async def _store_as_it_is(self, association: Association, source: Any) -> Response:
        if self._request.cancelled:  # while the source was transcoded
            raise CancelledError
        stored = association.store(
            source,
            check=False,
            priority=self._request.command.get("Priority") or 0,
            move_originator=self._originator(),
        )
        self._stores[stored] = association
        try:
            return await stored
        finally:
            del self._stores[stored]

    def _take_back(self) -> None:
        """What has not gone out when the request is cancelled does not go."""
        for stored, association in list(self._stores.items()):
            if association.awaits_turn(stored):
                stored.cancel()

    def _originator(self) -> tuple[str, int] | None:
        if self._opener is None:
            return None
        return self._request.association.calling_ae_title, self._request.message_id

    def _note(self, uid: str, status: int | None) -> None:
        request = self._request
        telemetry.emit(
            telemetry.SubOperationEnded(
                request.association.number,
                self._service,
                request.message_id,
                uid,
                status,
                self.counts.remaining,
            )
        )

    # --- the destination of a C-MOVE

    def _needs_another(self, association: Association, source: Any) -> bool:
        """Whether a C-MOVE should propose more contexts for this instance first."""
        if self._opener is None or isinstance(source, Exception):
            return False
        wanted = {(source.sop_class_uid, syntax) for syntax in syntaxes_for(source)}
        return wanted.isdisjoint(self._proposed)

    async def _send_to_destination(self) -> None:
        """Associations one after the other; one, unless what comes late needs other contexts."""
        while not self._request.cancelled:
            await self._look_ahead(_PLAN_AHEAD)
            if not self._ahead:
                return
            association = await self._open(self._plan())
            if association is None:
                continue
            try:
                await self._send_on(association)
            finally:
                await self._close(association)

    def _plan(self) -> list[PresentationContext]:
        """A context for each SOP class and transfer syntax of what is known to be sent; what can
        be encoded in several has one context, from which the destination chooses."""
        sources = [source for source in self._ahead if not isinstance(source, Exception)]
        plan: dict[PresentationContext, None] = {}
        for source in sources:
            if len(plan) < MAX_CONTEXTS:
                plan[PresentationContext(source.sop_class_uid, _proposed_for(source))] = None
        self._proposed = frozenset(
            (context.abstract_syntax, syntax)
            for context in plan
            for syntax in context.transfer_syntaxes
        )
        for context in self._to_transcode(sources):
            if len(plan) < MAX_CONTEXTS:
                plan[context] = None
        return list(plan)

    def _to_transcode(self, sources: Iterable[Any]) -> Iterator[PresentationContext]:
        """A context more for each SOP class, with what everybody knows and is not proposed yet."""
        for sop_class in dict.fromkeys(source.sop_class_uid for source in sources):
            syntaxes = [
                syntax
                for syntax in DEFAULT_TRANSFER_SYNTAXES
                if (sop_class, syntax) not in self._proposed
            ]
            if syntaxes:
                yield PresentationContext(sop_class, tuple(syntaxes))

    async def _open(self, contexts: list[PresentationContext]) -> Association | None:
        """The association to send on; None where what was planned, or all, has failed instead."""
        if not contexts:
            return self._request.association  # nothing but errors is left to count
        assert self._opener is not None
        try:
            return await self._opener(contexts)
        except ContextNotAccepted as error:
            self._fail_what_is_ahead(str(error))
        except (DimseError, ValueError) as error:
            self._fail_what_is_ahead(str(error))
            while (source := await self._next()) is not None:
                self._fail(source, str(error))
        return None

    async def _close(self, association: Association) -> None:
        if association is self._request.association:
            return
        try:
            await association.release()
        except DimseError as error:
            self._comment = self._comment or str(error)

    def _fail_what_is_ahead(self, reason: str) -> None:
        while self._ahead:
            self._fail(self._ahead.popleft(), reason)

    def _fail(self, source: Any, reason: str) -> None:
        self._blame(reason)
        self.counts.add(None, getattr(source, "sop_instance_uid", ""))


def _proposed_for(source: Any) -> tuple[str, ...]:
    """What to propose for a source: of the syntaxes that it can have, its own and the two that
    everybody knows."""
    own, *others = syntaxes_for(source)
    return (own, *(syntax for syntax in others if syntax in DEFAULT_TRANSFER_SYNTAXES))


def _weight(source: Any) -> int:
    """Datasets are held whole while they wait, so fewer of them may."""
    return 50 if isinstance(source, DatasetSource) else 1


def _source_of(item: Any) -> Any:
    """A source, or why there is none: that sub-operation fails then, and the others go on."""
    try:
        source = as_source(item)
        _known = source.sop_class_uid, source.sop_instance_uid, source.transfer_syntax
    except (OSError, ValueError) as error:
        return error
    except Exception as error:
        return ValueError(str(error) if isinstance(error, TypeError) else repr(error))
    return source
