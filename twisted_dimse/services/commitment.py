"""Storage commitment by the push model (PS3.4 J), both halves.

SCU: `request_commitment` asks whether instances are kept and waits for the report, which comes on
the same association or on a new one. SCP: `CommitmentHandler` has one method to write, `commit`,
and reports by itself.

    outcome = await request_commitment(peer, ["a.dcm", "b.dcm"], receive="tcp:11113")
    outcome.committed, outcome.failed           # references, and references with reasons

    class Keeper(CommitmentHandler):
        def commit(self, request, references):
            return {ref.sop_instance_uid: 0 if self.has(ref) else 0x0112 for ref in references}
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_dimse.association import Association
from twisted_dimse.client import DEFAULT_CALLING_AE_TITLE
from twisted_dimse.datastream import as_source
from twisted_dimse.dimse.status import (
    INVALID_ARGUMENT_VALUE,
    NO_SUCH_ACTION_TYPE,
    NO_SUCH_EVENT_TYPE,
    NO_SUCH_SOP_CLASS,
    NO_SUCH_SOP_INSTANCE,
    PROCESSING_FAILURE,
    SUCCESS,
)
from twisted_dimse.errors import AssociationTimeout, ConnectionLost, DimseError, StatusError
from twisted_dimse.handler import Handler, Request
from twisted_dimse.protocol import Timeouts
from twisted_dimse.services.calls import Receiver, associated, deferred, the_reactor
from twisted_dimse.services.commitment_reports import (
    COMMITTED,
    DUPLICATE_TRANSACTION_UID,
    FAILURE_REASONS,
    FAILURES_EXIST,
    NOT_MENTIONED,
    RETRY_DELAYS,
    CommitmentOutcome,
    Reference,
    Report,
    Reporter,
    referenced,
)
from twisted_dimse.services.managed import new_uid
from twisted_dimse.uids import (
    STORAGE_COMMITMENT_PUSH,
    STORAGE_COMMITMENT_PUSH_INSTANCE,
    VERIFICATION,
)

__all__ = [
    "FAILURE_REASONS",
    "NOT_MENTIONED",
    "CommitmentHandler",
    "CommitmentOutcome",
    "CommitmentReceiver",
    "Reference",
    "Report",
    "ReportOverdue",
    "Reporter",
    "outcome_of",
    "reference_of",
    "request_commitment",
]

REQUEST_COMMITMENT = 1  # action type
_REMEMBERED = 1000  # transactions that a receiver knows to be done

_log = Logger()


class ReportOverdue(AssociationTimeout):
    """No report came in time. It may still come, for the transaction `transaction_uid`."""

    def __init__(self, text: str, transaction_uid: str) -> None:
        super().__init__(text)
        self.transaction_uid = transaction_uid


# --- SCU


@deferred
async def request_commitment(
    peer: Any,
    instances: Iterable[Any],
    *,
    wait: float = 60.0,
    receive: Any = None,
    reactor: Any = None,
    **options: Any,
) -> CommitmentOutcome:
    """Ask a peer to commit itself to keep ``instances``, and wait for its report (PS3.4 J.3).

    An instance is a path, a Dataset, a streaming source, or a pair of SOP class and SOP instance
    UID. The report is taken on the association of the request, and with ``receive`` on others too:
    a server endpoint, or its string, to listen at as long as it takes, under our calling title; or
    a `CommitmentReceiver` that serves already. ``options`` are those of `connect`.

    Fails with `StatusError` where the peer refuses the request, and with `ReportOverdue` after
    ``wait`` seconds without a report.
    """
    reactor = the_reactor(reactor)
    references = tuple(dict.fromkeys(reference_of(each) for each in instances))
    if not references:
        raise ValueError("no instances to commit")
    receiver = receive if isinstance(receive, CommitmentReceiver) else CommitmentReceiver()
    server = None
    if receive is not None and receiver is not receive:
        title = options.get("calling_ae_title", DEFAULT_CALLING_AE_TITLE)
        server = await Receiver.listen(receive, receiver, title, reactor)
    try:
        report = await _ask(peer, references, receiver, wait, reactor, receive is not None, options)
    finally:
        if server is not None:
            await server.end()
    return report.of(references)


async def _ask(
    peer: Any,
    references: tuple[Reference, ...],
    receiver: CommitmentReceiver,
    wait: float,
    reactor: Any,
    elsewhere: bool,
    options: Mapping[str, Any],
) -> CommitmentOutcome:
    """Send the request and wait for the report. It may come before the response does."""
    transaction = new_uid()
    # Nothing happens on the association until the report comes: ``wait`` says how long that may be.
    options = {**options, "timeouts": replace(Timeouts.of(options.get("timeouts")), idle=None)}
    report = receiver.expect(transaction)
    try:
        async with associated(
            peer,
            contexts=[STORAGE_COMMITMENT_PUSH],
            handler=receiver,
            reactor=reactor,
            **options,
        ) as association:
            await association.n_action(
                STORAGE_COMMITMENT_PUSH,
                STORAGE_COMMITMENT_PUSH_INSTANCE,
                REQUEST_COMMITMENT,
                CommitmentOutcome(transaction, references).to_dataset(),
            )
            if not elsewhere:
                _fail_with_association(association, report)
            return await _in_time(report, wait, transaction, association, reactor)
    finally:
        receiver.forget(transaction)
        report.addErrback(lambda _failure: None)  # which nobody waits for any more


def _fail_with_association(association: Association, report: Deferred[CommitmentOutcome]) -> None:
    """Where nobody else listens, no report can come after the end."""

    def over(reason: DimseError | None) -> DimseError | None:
        if not report.called:
            why = str(reason) if reason else f"{association.peer} released the association"
            report.errback(ConnectionLost(f"no report can come any more: {why}"))
        return reason

    association.closed.addCallback(over)


async def _in_time(
    report: Deferred[CommitmentOutcome],
    wait: float,
    transaction: str,
    association: Association,
    reactor: Any,
) -> CommitmentOutcome:
    def late() -> None:
        if not report.called:
            text = f"no storage commitment report from {association.peer} within {wait:g} s"
            report.errback(ReportOverdue(text, transaction))

    deadline = reactor.callLater(wait, late)
    try:
        return await report
    finally:
        if deadline.active():
            deadline.cancel()


def reference_of(instance: Any) -> Reference:
    """The `Reference` of a path, a Dataset, a source, or a pair of UIDs."""
    if isinstance(instance, tuple):
        return Reference(*(str(uid) for uid in instance))
    if hasattr(instance, "sop_class_uid"):
        return Reference(instance.sop_class_uid, instance.sop_instance_uid)
    source = as_source(instance)
    return Reference(source.sop_class_uid, source.sop_instance_uid)


class CommitmentReceiver(Handler):
    """Takes storage commitment reports: on our own associations, and on those that an SCP makes.

    Serve it, alone or in a `CombinedHandler`, and give it to `request_commitment` as ``receive``.
    ``reported`` is called with each outcome for a transaction that nobody here waits for, and with
    its request; without it those are refused, so that the SCP knows.
    """

    contexts = (VERIFICATION, STORAGE_COMMITMENT_PUSH)

    def __init__(self, reported: Callable[[CommitmentOutcome, Request], Any] | None = None) -> None:
        self._reported = reported
        self._expected: dict[str, Deferred[CommitmentOutcome]] = {}
        self._done: deque[str] = deque(maxlen=_REMEMBERED)

    def expect(self, transaction_uid: str) -> Deferred[CommitmentOutcome]:
        """Fires with the outcome of a transaction."""
        expected: Deferred[CommitmentOutcome] = Deferred()
        self._expected[transaction_uid] = expected
        return expected

    def forget(self, transaction_uid: str) -> None:
        """Wait for a transaction no longer."""
        self._expected.pop(transaction_uid, None)

    def n_event_report(self, request: Request) -> Any:
        _check_instance(request)
        if request.event_type not in (COMMITTED, FAILURES_EXIST):
            raise StatusError(NO_SUCH_EVENT_TYPE)
        outcome = CommitmentOutcome.from_dataset(request.dataset)
        expected = self._expected.pop(outcome.transaction_uid, None)
        if expected is not None:
            # Once this is answered: who waits for it may release the association at once.
            request.association.reactor.callLater(0, _fire, expected, outcome)
            self._done.append(outcome.transaction_uid)
        if outcome.transaction_uid in self._done:
            return SUCCESS  # once more, by an SCP that has not seen our answer
        if self._reported is None:
            raise StatusError(PROCESSING_FAILURE, "no such transaction is expected")
        return self._reported(outcome, request)


def _fire(expected: Deferred[CommitmentOutcome], outcome: CommitmentOutcome) -> None:
    if not expected.called:
        expected.callback(outcome)


def _check_instance(request: Request) -> None:
    if request.sop_class_uid != STORAGE_COMMITMENT_PUSH:
        raise StatusError(NO_SUCH_SOP_CLASS)
    if request.sop_instance_uid != STORAGE_COMMITMENT_PUSH_INSTANCE:
        raise StatusError(NO_SUCH_SOP_INSTANCE)


# --- SCP


class CommitmentHandler(Handler):
    """Storage commitment SCP. Write `commit`, and `requested` and `decided` to forget nothing.

    The request is answered when it is understood, and reported on when `commit` has its answer:
    on the same association while that is open, else on a new one to the peer that `resolve`, or the
    ``peers`` of the server, have for the title that asked. ``delays`` are those of the `Reporter`,
    whose `stop` belongs to the end of the program, and ``options`` those of `connect`.
    """

    contexts = (VERIFICATION, STORAGE_COMMITMENT_PUSH)

    def __init__(
        self, *, reactor: Any = None, delays: Sequence[float] = RETRY_DELAYS, **options: Any
    ) -> None:
        self.reporter = Reporter(
            reactor=reactor,
            delays=delays,
            delivered=self._was_delivered,
            undelivered=self._was_not_delivered,
            options=options,
        )
        self._in_progress: set[tuple[str, str]] = set()

    def commit(self, request: Request, references: Sequence[Reference]) -> Any:
        """Which of the instances are kept, for good: a mapping of SOP Instance UIDs to None or 0,
        or else to the reason (`FAILURE_REASONS`); or a Deferred or coroutine of it. What it does
        not mention is not committed."""
        return {}

    def requested(
        self, request: Request, transaction_uid: str, references: tuple[Reference, ...]
    ) -> Any:
        """A request is about to be answered with success; a Deferred or coroutine of it is waited
        for, and where that fails the request does. What is noted here can be reported on after the
        end of the program."""

    def decided(self, report: Report) -> Any:
        """A report is about to be delivered; a Deferred or coroutine of it is waited for."""

    def delivered(self, report: Report) -> None:
        """The peer has taken a report."""

    def undelivered(self, report: Report, error: BaseException) -> None:
        """A report could not be delivered, and no further try follows."""

    def is_in_progress(self, ae_title: str, transaction_uid: str) -> bool:
        """Whether a request of ``ae_title`` is being decided or reported on."""
        return (ae_title, transaction_uid) in self._in_progress

    def n_action(self, request: Request) -> Any:
        _check_instance(request)
        if request.action_type != REQUEST_COMMITMENT:
            raise StatusError(NO_SUCH_ACTION_TYPE)
        transaction, references = referenced(request.dataset)
        if not references:
            raise StatusError(INVALID_ARGUMENT_VALUE, "no instances are referenced")
        who = (request.association.calling_ae_title, transaction)
        if who in self._in_progress:
            _after_the_response(request, self._refuse, request, transaction, references)
            return SUCCESS
        self._in_progress.add(who)
        return self._begin(request, transaction, references)

    async def _begin(
        self, request: Request, transaction: str, references: tuple[Reference, ...]
    ) -> int:
        who = (request.association.calling_ae_title, transaction)
        try:
            noted = self.requested(request, transaction, references)
            if inspect.isawaitable(noted):
                await noted
        except BaseException:
            self._in_progress.discard(who)
            raise
        _after_the_response(request, self._go_on, request, transaction, references)
        return SUCCESS

    # --- after the response

    def _refuse(
        self, request: Request, transaction: str, references: tuple[Reference, ...]
    ) -> None:
        reasons = dict.fromkeys(
            (each.sop_instance_uid for each in references), DUPLICATE_TRANSACTION_UID
        )
        report = self._report_of(request, transaction, references, reasons)
        association = request.association
        self.reporter.deliver(report, association.destination, association)

    def _go_on(self, request: Request, transaction: str, references: tuple[Reference, ...]) -> None:
        who = (request.association.calling_ae_title, transaction)
        done = Deferred.fromCoroutine(self._decide(request, transaction, references))
        done.addBoth(self._decided, who)

    async def _decide(
        self, request: Request, transaction: str, references: tuple[Reference, ...]
    ) -> None:
        try:
            reasons = self.commit(request, references)
            if inspect.isawaitable(reasons):
                reasons = await reasons
            reasons = dict(reasons)
        except Exception:
            _log.failure("storage commitment: the handler failed")
            reasons = {}
            for each in references:
                reasons[each.sop_instance_uid] = PROCESSING_FAILURE
        report = self._report_of(request, transaction, references, reasons)
        try:
            kept = self.decided(report)
            if inspect.isawaitable(kept):
                await kept
        except Exception:
            _log.failure("storage commitment: a report is not kept, and goes out all the same")
        association = request.association
        await self.reporter.deliver(report, association.destination, association)

    def _decided(self, result: Any, who: tuple[str, str]) -> None:
        self._in_progress.discard(who)
        if isinstance(result, Failure):
            _log.failure("storage commitment: no report", result)

    def _was_delivered(self, report: Report) -> None:
        if not _is_of_duplicate(report):
            self.delivered(report)

    def _was_not_delivered(self, report: Report, error: BaseException) -> None:
        if not _is_of_duplicate(report):
            self.undelivered(report, error)

    @staticmethod
    def _report_of(
        request: Request,
        transaction: str,
        references: tuple[Reference, ...],
        reasons: Mapping[str, int | None],
    ) -> Report:
        association = request.association
        return Report(
            outcome_of(transaction, references, reasons),
            association.called_ae_title,
            association.calling_ae_title,
        )


def outcome_of(
    transaction: str, references: Iterable[Reference], reasons: Mapping[str, int | None]
) -> CommitmentOutcome:
    """The outcome of a request, where `CommitmentHandler.commit` gave ``reasons``."""
    kept, failed = [], {}
    for each in references:
        reason = reasons.get(each.sop_instance_uid, NO_SUCH_SOP_INSTANCE)
        if reason:
            failed[each] = reason
        else:
            kept.append(each)
    return CommitmentOutcome(transaction, tuple(kept), failed)


def _after_the_response(request: Request, function: Callable[..., object], *args: Any) -> None:
    """Do something once a request is answered: a report before the response confuses peers."""
    request.association.reactor.callLater(0, function, *args)


def _is_of_duplicate(report: Report) -> bool:
    """Whether a report is about a request that came twice, and not the one on its transaction."""
    return DUPLICATE_TRANSACTION_UID in report.outcome.failed.values()
