"""The operations that either side of an association may invoke (PS3.7 clauses 9 and 10).

`ServiceUser` has a method for each, which gives a Deferred; `invoker` runs them.

    response = await association.store("image.dcm")
    studies = await association.find({"PatientName": "DOE*"}, level="STUDY")
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, fail

from twisted_dimse.answers import AnswerQueue, Answers
from twisted_dimse.datastream import (
    as_source,
    encode_dataset,
    opener,
    syntaxes_for,
)
from twisted_dimse.dimse import command as commands
from twisted_dimse.dimse.command import CommandSet
from twisted_dimse.errors import ContextNotAccepted, DimseError
from twisted_dimse.handler import Handler
from twisted_dimse.invoker import Invoker, Operation
from twisted_dimse.keys import as_dataset, tag_of
from twisted_dimse.results import Response, RetrieveOutcome
from twisted_dimse.uids import MODALITY_WORKLIST_FIND, QUERY_MODELS, VERIFICATION, QueryModel
from twisted_dimse.upperlayer.negotiation import AcceptedContext

_QUERY_FIELDS = {
    "find": commands.C_FIND_RQ,
    "move": commands.C_MOVE_RQ,
    "get": commands.C_GET_RQ,
}
_MODEL_UIDS = frozenset(uid for model in QUERY_MODELS for uid in model[1:])
_MULTIPLE_RESPONSES = (commands.C_FIND_RQ, commands.C_MOVE_RQ, commands.C_GET_RQ)


class ServiceUser(Invoker):
    """Invokes operations on one association, in the contexts that fit them.

    Everywhere ``context``, the abstract syntax or the ID of an accepted context, is for a command
    that names another class than was negotiated (Meta SOP Classes, UPS), and ``check=False`` gives
    a failure status as a result, too. Every Deferred fails with `StatusError` for a failure status,
    `ContextNotAccepted` where no context fits, `ValueError` or `TypeError` for arguments that
    cannot be, and with the error that ends the association, if that comes first.
    """

    def __init__(self) -> None:
        super().__init__()
        self._receivers: list[Handler] = []

    # --- given by the association

    def _contexts_for(self, abstract_syntax: str) -> list[AcceptedContext]:
        raise AssertionError("an Association says")

    def _context_of(self, choice: str | int) -> AcceptedContext:
        raise AssertionError("an Association says")

    def accepted_syntaxes(self, abstract_syntax: str) -> tuple[str, ...]:
        """The transfer syntaxes in which the peer takes what we send of a SOP class."""
        return tuple(c.transfer_syntax for c in self._contexts_for(abstract_syntax))

    # --- the operations

    def echo(self) -> Deferred[Response]:
        """C-ECHO (PS3.7 9.1.5). Fires with the `Response`."""
        request = {
            "AffectedSOPClassUID": VERIFICATION,
            "CommandField": commands.C_ECHO_RQ,
        }
        return self._invoke(VERIFICATION, None, request, None)

    def store(
        self,
        source: Any,
        *,
        check: bool = True,
        priority: int | str = commands.MEDIUM,
        move_originator: tuple[str, int] | None = None,
        context: str | int | None = None,
    ) -> Deferred[Response]:
        """C-STORE (PS3.7 9.1.1) of a path, a pydicom Dataset, or a streaming source.

        The data set goes out as the source has it, in a context accepted for its SOP class and
        transfer syntax; an uncompressed Dataset is encoded to what was accepted. Fires with the
        `Response`; a failure status is a `StatusError` unless ``check`` is false, and
        `ContextNotAccepted` tells that no context fits. ``priority`` is "low", "medium" or "high";
        ``move_originator`` the AE title and the message ID of the C-MOVE that this belongs to.
        """
        try:
            instance = as_source(source)
            chosen, instance = self._context_for_source(instance, context)
            request = {
                "AffectedSOPClassUID": instance.sop_class_uid,
                "CommandField": commands.C_STORE_RQ,
                "Priority": _priority(priority),
                "CommandDataSetType": commands.DATA_SET_FOLLOWS,
                "AffectedSOPInstanceUID": instance.sop_instance_uid,
            }
            if move_originator is not None:
                title, message_id = move_originator
                request["MoveOriginatorApplicationEntityTitle"] = title
                request["MoveOriginatorMessageID"] = message_id
        except Exception as error:  # a source may be anybody's
            return fail(error)
        result = functools.partial(_response, request)
        return self._submit(Operation(chosen, request, opener(instance), result, check=check))

    def find(
        self,
        keys: Any,
        *,
        level: str | None = "STUDY",
        model: QueryModel | str | None = None,
        priority: int | str = commands.MEDIUM,
        context: str | int | None = None,
    ) -> Deferred[list[Any]]:
        """C-FIND (PS3.7 9.1.2). Fires with the list of matching Datasets.

        ``keys`` is a dict by keyword or a Dataset. ``level`` fills (0008,0052) where the keys of a
        query/retrieve model lack it. ``model`` is a constant such as `STUDY_ROOT` or a SOP class
        UID; the default is the one that was accepted. ``priority`` as for `store`. Cancelling
        sends C-CANCEL and fails with `CancelledError` at once.
        """
        matches: list[Any] = []
        return self._query(
            "find",
            keys,
            level,
            model,
            priority,
            context,
            result=lambda _command, _dataset: matches,
            on_pending=lambda _command, dataset: matches.append(dataset),
        )

    def find_each(
        self,
        keys: Any,
        *,
        level: str | None = "STUDY",
        model: QueryModel | str | None = None,
        priority: int | str = commands.MEDIUM,
        context: str | int | None = None,
    ) -> Answers:
        """C-FIND, a match at a time, as they come: ``async with association.find_each(…) as
        matches: async for match in matches``. Leaving early sends C-CANCEL and waits for the last
        response. Arguments as for `find`."""
        queue = AnswerQueue(lambda: len(self._invocations) > 1)
        found = self._query(
            "find",
            keys,
            level,
            model,
            priority,
            context,
            result=lambda command, _dataset: command["Status"],
            on_pending=lambda _command, dataset: queue.put(dataset),
        )
        found.addBoth(queue.end)
        self._queues.add(queue)
        return Answers(queue, lambda: self.cancel(found), self._discard_queue)

    def move(
        self,
        keys: Any,
        *,
        destination: str,
        level: str | None = "STUDY",
        model: QueryModel | str | None = None,
        progress: Callable[[RetrieveOutcome], object] | None = None,
        priority: int | str = commands.MEDIUM,
        context: str | int | None = None,
    ) -> Deferred[RetrieveOutcome]:
        """C-MOVE (PS3.7 9.1.4) to the AE title ``destination``.

        Fires with the `RetrieveOutcome`; a failure status is a `StatusError` that has it as
        ``outcome``. ``progress`` is called with the same shape. Keys as for `find`.
        """
        return self._query(
            "move",
            keys,
            level,
            model,
            priority,
            context,
            result=RetrieveOutcome.of,
            on_pending=_reporting(progress),
            MoveDestination=destination,
        )

    def get(
        self,
        keys: Any,
        *,
        handler: Handler | Callable[[], Handler] | None = None,
        level: str | None = "STUDY",
        model: QueryModel | str | None = None,
        progress: Callable[[RetrieveOutcome], object] | None = None,
        priority: int | str = commands.MEDIUM,
        context: str | int | None = None,
    ) -> Deferred[RetrieveOutcome]:
        """C-GET (PS3.7 9.1.3). ``handler``, or what it makes, receives the instances, by
        `store_sink` or `store`, as a server's would; without it the one given to `connect` does.
        As `move` otherwise."""
        try:
            receiver = handler() if callable(handler) else handler
        except Exception as error:
            return fail(error)
        outcome = self._query(
            "get",
            keys,
            level,
            model,
            priority,
            context,
            result=RetrieveOutcome.of,
            on_pending=_reporting(progress),
        )
        if receiver is not None:
            self._receivers.append(receiver)
            outcome.addBoth(self._received_by, receiver)
        return outcome

    def n_get(
        self,
        class_uid: str,
        instance_uid: str,
        attributes: Iterable[int | str | tuple[int, int]] = (),
        *,
        context: str | int | None = None,
        check: bool = True,
    ) -> Deferred[Response]:
        """N-GET (PS3.7 10.1.2) of ``attributes``, tags or keywords; none means all."""
        request = _requested(commands.N_GET_RQ, class_uid, instance_uid)
        try:
            tags = tuple(tag_of(attribute) for attribute in attributes)
        except (TypeError, ValueError) as error:
            return fail(error)
        if tags:
            request["AttributeIdentifierList"] = tags
        return self._invoke(class_uid, context, request, None, check=check)

    def n_set(
        self,
        class_uid: str,
        instance_uid: str,
        dataset: Any,
        *,
        context: str | int | None = None,
        check: bool = True,
    ) -> Deferred[Response]:
        """N-SET (PS3.7 10.1.3) with the modification list ``dataset``."""
        request = _requested(commands.N_SET_RQ, class_uid, instance_uid)
        return self._invoke(class_uid, context, request, dataset, check=check)

    def n_create(
        self,
        class_uid: str,
        dataset: Any = None,
        instance_uid: str | None = None,
        *,
        context: str | int | None = None,
        check: bool = True,
    ) -> Deferred[Response]:
        """N-CREATE (PS3.7 10.1.5); without ``instance_uid`` the peer assigns one, which the
        `Response` has as ``sop_instance_uid``."""
        request = _affected(commands.N_CREATE_RQ, class_uid, instance_uid)
        return self._invoke(class_uid, context, request, dataset, check=check)

    def n_delete(
        self,
        class_uid: str,
        instance_uid: str,
        *,
        context: str | int | None = None,
        check: bool = True,
    ) -> Deferred[Response]:
        """N-DELETE (PS3.7 10.1.6) of ``instance_uid``."""
        request = _requested(commands.N_DELETE_RQ, class_uid, instance_uid)
        return self._invoke(class_uid, context, request, None, check=check)

    def n_action(
        self,
        class_uid: str,
        instance_uid: str,
        action_type: int,
        dataset: Any = None,
        *,
        context: str | int | None = None,
        check: bool = True,
    ) -> Deferred[Response]:
        """N-ACTION (PS3.7 10.1.4) of ``action_type`` with the action information ``dataset``."""
        request = _requested(commands.N_ACTION_RQ, class_uid, instance_uid)
        request["ActionTypeID"] = action_type
        return self._invoke(class_uid, context, request, dataset, check=check)

    def n_event_report(
        self,
        class_uid: str,
        instance_uid: str,
        event_type: int,
        dataset: Any = None,
        *,
        context: str | int | None = None,
        check: bool = True,
    ) -> Deferred[Response]:
        """N-EVENT-REPORT (PS3.7 10.1.1) of ``event_type`` with the event information ``dataset``.
        Here we are the SCP: a context in which we have that role is taken before others."""
        request = _affected(commands.N_EVENT_REPORT_RQ, class_uid, instance_uid)
        request["EventTypeID"] = event_type
        if context is None:
            context = self._reporting_context(class_uid)
        return self._invoke(class_uid, context, request, dataset, check=check)

    def _context_for_source(
        self, source: Any, choice: str | int | None
    ) -> tuple[AcceptedContext, Any]:
        if choice is not None:
            return self._context_of(choice), source
        contexts = self._contexts_for(source.sop_class_uid)
        for syntax in syntaxes_for(source):
            for context in contexts:
                if context.transfer_syntax == syntax:
                    if syntax != source.transfer_syntax:
                        source = source.in_syntax(syntax)
                    return context, source
        if not contexts:
            raise ContextNotAccepted(f"the peer did not accept {_class_name(source.sop_class_uid)}")
        raise ContextNotAccepted(
            f"the peer did not accept {_class_name(source.sop_class_uid)} in "
            f"{_class_name(source.transfer_syntax)}"
        )

    # --- what they are made of

    def _query(
        self,
        service: str,
        keys: Any,
        level: str | None,
        model: QueryModel | str | None,
        priority: int | str,
        choice: str | int | None,
        *,
        result: Callable[[CommandSet, Any], Any],
        on_pending: Callable[[CommandSet, Any], Any] | None,
        **more: Any,
    ) -> Deferred[Any]:
        """A C-FIND, C-MOVE or C-GET with the identifier ``keys``."""
        try:
            uid = self._model_uid(service, model)
            context = self._choose(uid, choice)
            identifier = _with_level(as_dataset(keys), level, uid)
            data = _encoded(identifier, context)
            request = {
                "AffectedSOPClassUID": uid,
                "CommandField": _QUERY_FIELDS[service],
                "Priority": _priority(priority),
                "CommandDataSetType": commands.DATA_SET_FOLLOWS,
                **more,
            }
        except (DimseError, TypeError, ValueError) as error:
            return fail(error)
        return self._submit(Operation(context, request, data, result, on_pending=on_pending))

    def _model_uid(self, service: str, model: QueryModel | str | None) -> str:
        """The SOP class of a service in a model; of the models accepted where none is named."""
        if isinstance(model, QueryModel):
            return str(getattr(model, service))
        if model is not None:
            return str(model)
        for known in QUERY_MODELS:
            uid = str(getattr(known, service))
            if self._contexts_for(uid):
                return uid
        if service == "find" and self._contexts_for(MODALITY_WORKLIST_FIND):
            return MODALITY_WORKLIST_FIND
        raise ContextNotAccepted(
            f"the peer accepted no query/retrieve model for C-{service.upper()}"
        )

    def _reporting_context(self, class_uid: str) -> int | None:
        raise AssertionError("an Association says")

    def _received_by(self, result: Any, handler: Handler) -> Any:
        self._receivers.remove(handler)
        return result

    def _discard_queue(self, queue: AnswerQueue) -> None:
        self._queues.discard(queue)

    def _invoke(
        self,
        abstract_syntax: str,
        choice: str | int | None,
        request: dict[str, Any],
        dataset: Any,
        *,
        check: bool = True,
    ) -> Deferred[Any]:
        """An operation with one response, in the context ``choice`` or that of its SOP class."""
        try:
            context = self._choose(abstract_syntax, choice)
            data = _encoded(dataset, context) if dataset is not None else None
            request["CommandDataSetType"] = (
                commands.NO_DATA_SET if data is None else commands.DATA_SET_FOLLOWS
            )
        except (DimseError, TypeError, ValueError) as error:
            return fail(error)
        result = functools.partial(_response, request)
        return self._submit(Operation(context, request, data, result, check=check))

    def _choose(self, abstract_syntax: str, choice: str | int | None) -> AcceptedContext:
        if choice is not None:
            return self._context_of(choice)
        contexts = self._contexts_for(abstract_syntax)
        if not contexts:
            raise ContextNotAccepted(f"the peer did not accept {_class_name(abstract_syntax)}")
        return contexts[0]


def _response(request: dict[str, Any], command: CommandSet, dataset: Any) -> Response:
    return Response(command["Status"], command, dataset, request)


def _encoded(dataset: Any, context: AcceptedContext) -> Callable[[], bytes]:
    data = encode_dataset(as_dataset(dataset), context.transfer_syntax)
    return lambda: data


def _reporting(
    progress: Callable[[RetrieveOutcome], object] | None,
) -> Callable[[CommandSet, Any], None] | None:
    if progress is None:
        return None

    def report(command: CommandSet, dataset: Any) -> None:
        progress(RetrieveOutcome.of(command, dataset))

    return report


def _priority(priority: int | str) -> int:
    if isinstance(priority, int):
        return priority
    if priority not in commands.PRIORITIES:
        raise ValueError(f"priority {priority!r}: choose low, medium or high")
    return commands.PRIORITIES[priority]


def _requested(field: int, class_uid: str, instance_uid: str) -> dict[str, Any]:
    return {
        "RequestedSOPClassUID": str(class_uid),
        "CommandField": field,
        "RequestedSOPInstanceUID": str(instance_uid),
    }


def _affected(field: int, class_uid: str, instance_uid: str | None) -> dict[str, Any]:
    request: dict[str, Any] = {"AffectedSOPClassUID": str(class_uid), "CommandField": field}
    if instance_uid is not None:
        request["AffectedSOPInstanceUID"] = str(instance_uid)
    return request


def _with_level(dataset: Any, level: str | None, uid: str) -> Any:
    """Fill (0008,0052) of a query/retrieve identifier; the caller's Dataset stays as it is."""
    if level is None or uid not in _MODEL_UIDS or "QueryRetrieveLevel" in dataset:
        return dataset
    from pydicom import Dataset

    filled = Dataset()
    filled.update(dataset)
    filled.QueryRetrieveLevel = level
    return filled


def _class_name(uid: str) -> str:
    from twisted_dimse.uids import name_of

    return f"{name_of(uid)} ({uid})"
