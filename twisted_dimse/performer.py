"""The performing half of an association: requests in, a handler's methods called, answers out.

`Performer.request` takes a request's command set and gives the `Incoming` for its data set, if one
follows. Operations run at once, as many as the peer may have outstanding, and each is answered
when its handler is ready; C-CANCEL marks the one it names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_dimse import telemetry
from twisted_dimse.datastream import CollectingSink, DiscardingSink, Sink, encode_dataset
from twisted_dimse.dimse import command as commands
from twisted_dimse.dimse.command import CommandSet
from twisted_dimse.dimse.status import (
    CANCEL,
    CANNOT_UNDERSTAND,
    DUPLICATE_INVOCATION,
    MISTYPED_ARGUMENT,
    MOVE_DESTINATION_UNKNOWN,
    PENDING,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
    Category,
    category,
)
from twisted_dimse.errors import ProtocolViolation, StatusError
from twisted_dimse.handler import Handler, Request
from twisted_dimse.iteration import ManyValues
from twisted_dimse.suboperations import Instances, Opener, Retrieval
from twisted_dimse.upperlayer.negotiation import AcceptedContext

if TYPE_CHECKING:
    from twisted_dimse.association import Association

_METHODS = {
    commands.C_ECHO_RQ: "echo",
    commands.C_FIND_RQ: "find",
    commands.C_MOVE_RQ: "move",
    commands.C_GET_RQ: "get",
    commands.N_EVENT_REPORT_RQ: "n_event_report",
    commands.N_GET_RQ: "n_get",
    commands.N_SET_RQ: "n_set",
    commands.N_ACTION_RQ: "n_action",
    commands.N_CREATE_RQ: "n_create",
    commands.N_DELETE_RQ: "n_delete",
}
_DATA_SET_SERVICES = (
    commands.C_STORE_RQ,
    commands.C_FIND_RQ,
    commands.C_MOVE_RQ,
    commands.C_GET_RQ,
)
# Services whose last response has none, whatever a handler gives with its status.
_NO_DATA_SET = (
    commands.C_ECHO_RQ,
    commands.C_STORE_RQ,
    commands.C_FIND_RQ,
    commands.N_DELETE_RQ,
)
_STATUS_IS_ALL = (commands.C_STORE_RQ, commands.C_ECHO_RQ)
_log = Logger()


class Incoming:
    """A data set on its way into a sink. A sink that fails gets no more of it, and the rest is
    discarded as it arrives; `done` is called once, with what `finish` gave or the Failure."""

    __slots__ = ("_done", "_failure", "_sink", "_write_slices", "octets")

    def __init__(self, sink: Sink, done: Callable[[Any], Any]) -> None:
        self._sink: Sink | None = sink
        self._write_slices = getattr(sink, "write_slices", None)
        self._done = done
        self._failure: Failure | None = None
        self.octets = 0

    def write(self, slices: list[bytes | memoryview]) -> Deferred[Any] | None:
        """Slices that came together; a Deferred where the sink needs time."""
        self.octets += len(slices[0]) if len(slices) == 1 else sum(map(len, slices))
        if self._sink is None:
            return None
        try:
            if self._write_slices is not None:
                wait = self._write_slices(slices)
            elif len(slices) == 1:
                wait = self._sink.write(slices[0])
            else:
                wait = self._write_one_by_one(slices)
        except Exception:
            self._fail(Failure())
            return None
        if wait is not None:
            wait.addErrback(self._fail)
        return wait

    def _write_one_by_one(self, slices: list[bytes | memoryview]) -> Deferred[Any] | None:
        assert self._sink is not None
        for number, data in enumerate(slices, 1):
            wait = self._sink.write(data)
            if wait is not None:
                return Deferred.fromCoroutine(self._write_on(wait, slices[number:]))
        return None

    async def _write_on(self, wait: Deferred[Any] | None, slices: list[bytes | memoryview]) -> None:
        for data in slices:
            if wait is not None:
                await wait
            if self._sink is None:
                return  # the association ended
            wait = self._sink.write(data)
        if wait is not None:
            await wait

    def finish(self) -> Any:
        """The last slice is in. Returns what ``done`` returns."""
        sink, self._sink = self._sink, None
        result: Any = self._failure
        if sink is not None:
            try:
                result = sink.finish()
            except Exception:
                result = Failure()
        done, self._done = self._done, _nothing  # a request and its data know each other
        return done(result)

    def abandon(self) -> None:
        """The association ended first."""
        sink, self._sink = self._sink, None
        if sink is None:
            return
        try:
            sink.abandon()
        except Exception:
            _log.failure("a sink could not be abandoned")

    def _fail(self, failure: Failure) -> None:
        self._failure = failure
        self.abandon()


class Performer:
    """Performs what the peer of one association asks, by a `Handler`."""

    def __init__(self, association: Association, handler: Handler) -> None:
        self._association = association
        self._handler = handler
        self._outstanding: dict[int, Request] = {}

    def __len__(self) -> int:
        return len(self._outstanding)

    def request(self, context: AcceptedContext, command: CommandSet) -> Incoming | None:
        """Begin an operation. Raises `ProtocolViolation` for a request that cannot be answered,
        or that is one more than the window allows."""
        message_id = command.get("MessageID")
        if message_id is None:
            raise ProtocolViolation(f"{command.name} without a message ID")
        request = Request(self._association, context, command)
        if self._outstanding:
            self._check_window()
        refusal = self._refusal(context, command, message_id)
        if refusal is not None:
            return self._refuse(request, *refusal)
        self._outstanding[message_id] = request
        if telemetry.subscribers:
            self._note_begin(request)
        if command["CommandField"] == commands.C_STORE_RQ:
            return self._store(request)
        if command.has_data_set:
            sink = CollectingSink(request.take_data)
            return Incoming(sink, lambda collected: self._call(request, collected))
        self._call(request, None)
        return None

    def cancel(self, message_id: int | None) -> None:
        """C-CANCEL: too late for one that has been answered (PS3.7 9.3.2.3)."""
        request = self._outstanding.get(message_id or 0)
        if request is not None:
            request.cancel()

    def end(self) -> None:
        """The association is over; what is still performed will not be answered."""
        outstanding = list(self._outstanding.values())
        self._outstanding.clear()
        for request in outstanding:
            if telemetry.subscribers:
                self._note_end(request, None)
            request.cancel()

    # --- what may not be performed

    def _check_window(self) -> None:
        performed = self._association.window.performed
        if 0 < performed <= len(self._outstanding):
            raise ProtocolViolation(
                f"more than the {performed} operations agreed are outstanding", reason=2
            )

    def _refusal(
        self, context: AcceptedContext, command: CommandSet, message_id: int
    ) -> tuple[int, str] | None:
        field = command["CommandField"]
        if message_id in self._outstanding:
            return DUPLICATE_INVOCATION, f"message ID {message_id} is in use"
        if field not in commands.REQUEST_NAMES:
            return UNRECOGNIZED_OPERATION, f"no such operation: {field:04X}H"
        # Peers send event reports without having negotiated the role; that is let pass.
        if not context.scp and field != commands.N_EVENT_REPORT_RQ:
            return UNRECOGNIZED_OPERATION, "the role for this operation was not agreed"
        if field in _DATA_SET_SERVICES and not command.has_data_set:
            return MISTYPED_ARGUMENT, "a data set is due with this operation"
        if field == commands.C_STORE_RQ and (
            command.get("AffectedSOPClassUID") != context.abstract_syntax
        ):
            return SOP_CLASS_NOT_SUPPORTED, "not the SOP Class of this presentation context"
        return None

    def _refuse(self, request: Request, status: int, comment: str) -> Incoming | None:
        def answer(_result: object = None) -> None:
            self._send(request, status, None, {"ErrorComment": comment})

        if request.command.has_data_set:
            return Incoming(DiscardingSink(), answer)
        answer()
        return None

    # --- the handler

    def _store(self, request: Request) -> Incoming:
        try:
            sink = self._association.receiver.store_sink(request)
        except Exception:
            return self._discard(request, Failure())
        incoming = Incoming(sink, lambda result: self._finished(request, result))
        request.operation = incoming
        return incoming

    def _discard(self, request: Request, failure: Failure) -> Incoming:
        return Incoming(DiscardingSink(), lambda _result: self._finished(request, failure))

    def _call(self, request: Request, collected: Any) -> Any:
        if isinstance(collected, Failure):
            return self._finished(request, collected)
        method = getattr(self._handler, _METHODS[request.command["CommandField"]])
        try:
            result = method(request)
        except Exception:
            result = Failure()
        return self._finished(request, result)

    def _finished(self, request: Request, result: Any) -> None:
        """Answer with what the handler gave, now or when it has it."""
        if result is None or type(result) is int:
            self._answer(result, request)
            return
        if inspect.iscoroutine(result):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            if request.operation is None:  # an instance that is here is not let go of again
                request.on_cancel(result.cancel)
            result.addBoth(self._answer, request)
        else:
            self._answer(result, request)

    def _answer(self, result: Any, request: Request) -> None:
        many = _MANY.get(request.command["CommandField"])
        if many is None or _is_final(result):
            if result is None or (type(result) is int and result == SUCCESS):
                self._respond(request, SUCCESS, None, {})
            else:
                self._answer_once(result, request)
            return
        running = Deferred.fromCoroutine(getattr(self, many)(request, result))
        if many == "_find":
            # A retrieval ends by itself after the instance under way.
            request.on_cancel(running.cancel)
        running.addBoth(self._answer_once, request)

    def _answer_once(self, result: Any, request: Request) -> None:
        try:
            status, dataset, elements = self._interpret(request, result)
            if category(status) is Category.PENDING:
                raise TypeError(f"a handler gave the pending status {status:04X}H as its last")
            self._respond(request, status, dataset, elements)
        except Exception:
            # Nonsense from the handler, such as a data set that cannot be encoded.
            status, _, elements = self._failed(request, Failure())
            self._respond(request, status, None, elements)

    def _interpret(self, request: Request, result: Any) -> tuple[int, Any, dict[str, Any]]:
        if result is None or result is True:
            return SUCCESS, None, {}
        if isinstance(result, Failure):
            return self._failed(request, result)
        if isinstance(result, tuple):
            status, dataset, *more = result
            if dataset is not None and not hasattr(dataset, "to_json_dict"):
                raise TypeError(f"a handler gave {dataset!r} where a Dataset is due")
            return _checked_status(status), dataset, more[0] if more else {}
        alone = request.command["CommandField"] not in _NO_DATA_SET
        if alone and hasattr(result, "to_json_dict"):
            return SUCCESS, result, {}
        return _checked_status(result), None, {}

    def _failed(self, request: Request, failure: Failure) -> tuple[int, Any, dict[str, Any]]:
        error: Any = failure.value
        if isinstance(error, CancelledError) and request.cancelled:
            return CANCEL, None, {}
        if isinstance(error, StatusError):
            elements = dict(error.elements)
            if error.comment:
                elements["ErrorComment"] = error.comment
            return error.status, error.dataset, elements
        name = request.command.name
        if telemetry.subscribers:
            telemetry.emit(telemetry.HandlerFailed(self._association.number, name, error))
        _log.failure(
            "association {number}: the handler of {name} failed",
            failure,
            number=self._association.number,
            name=name,
        )
        field = request.command["CommandField"]
        status = CANNOT_UNDERSTAND if field in _DATA_SET_SERVICES else PROCESSING_FAILURE
        return status, None, {"ErrorComment": "the handler failed, see the log"}

    # --- services with many responses

    async def _find(self, request: Request, given: Any) -> Any:
        """Send a handler's matches as the peer takes them; gives the final answer."""
        sender = self._association.protocol.sender
        values = ManyValues(given, None, self._association.reactor)
        encoded: dict[int, bytes] = {}
        try:
            while not request.cancelled:
                match = await values.next()
                if match is ManyValues.END:
                    return SUCCESS
                status, dataset = match if isinstance(match, tuple) else (PENDING, match)
                if dataset is None or (
                    status not in encoded
                    and category(_checked_status(status)) is not Category.PENDING
                ):
                    return status, dataset
                self._send_match(request, status, dataset, encoded)
                if sender.congested:
                    sender.pump()
                    await sender.drained()
            return CANCEL
        finally:
            await values.close()

    def _send_match(
        self, request: Request, status: int, dataset: Any, encoded: dict[int, bytes]
    ) -> None:
        """Send one of many answers; their command sets differ in nothing but the status, and
        ``encoded`` keeps one for each."""
        if telemetry.subscribers:
            self._send(request, status, dataset, {}, soon=True)
            return
        data = _octets_of(request, dataset)
        command = encoded.get(status)
        if command is None:
            response = commands.response_to(request.command)
            response["Status"] = status
            response["CommandDataSetType"] = commands.DATA_SET_FOLLOWS
            command = encoded[status] = commands.encode(response)
        self._association.send_encoded(request.context.id, command, data, soon=True)

    async def _get(self, request: Request, given: Any) -> Any:
        return await self._retrieve(request, given, None)

    async def _move(self, request: Request, given: Any) -> Any:
        association = self._association
        peer = await association.destination(request.destination)
        if peer is None:
            comment = f"the destination {request.destination} is not known here"
            raise StatusError(MOVE_DESTINATION_UNKNOWN, comment)
        return await self._retrieve(
            request, given, lambda contexts: association.connect_onward(peer, contexts)
        )

    async def _retrieve(self, request: Request, given: Any, opener: Opener | None) -> Any:
        items, count = given, None
        if isinstance(given, Instances):
            items, count = given.items, given.count
        values = ManyValues(items, count, self._association.reactor)

        def report(counts: dict[str, int]) -> None:
            if self._outstanding.get(request.message_id) is request:
                self._send(request, PENDING, None, counts)

        return await Retrieval(request, values, report, opener).run()

    # --- the answer

    def _respond(
        self, request: Request, status: int, dataset: Any, elements: dict[str, Any]
    ) -> None:
        """The final response; it frees the message ID."""
        message_id = request.command["MessageID"]
        if self._outstanding.get(message_id) is not request:
            return  # the association ended, or the operation was answered
        if request.command["CommandField"] in _NO_DATA_SET:
            dataset = None
        del self._outstanding[message_id]
        try:
            if dataset is None and not elements and self._is_plain(request.command):
                encoded = commands.encode_status(request.command, status)
                self._association.send_encoded(request.context.id, encoded)
            else:
                self._send(request, status, dataset, elements)
        except Exception:
            self._outstanding[message_id] = request  # it is still to be answered
            raise
        if request.command["CommandField"] == commands.C_STORE_RQ:
            self._association.instances += 1
        if telemetry.subscribers:
            self._note_end(request, status)
        self._association.performed()

    @staticmethod
    def _is_plain(command: CommandSet) -> bool:
        """Whether the status is all that is to be said, and nobody wants to know."""
        return command["CommandField"] in _STATUS_IS_ALL and not telemetry.subscribers

    def _send(
        self,
        request: Request,
        status: int,
        dataset: Any,
        elements: dict[str, Any],
        *,
        soon: bool = False,
    ) -> None:
        data = None
        response = commands.response_to(request.command)
        response["Status"] = status
        if dataset is not None:
            data = _octets_of(request, dataset)
            response["CommandDataSetType"] = commands.DATA_SET_FOLLOWS
        if elements:
            response.update(elements)
        if request.command["CommandField"] == commands.N_CREATE_RQ and dataset is not None:
            # Of an instance that the performer named (PS3.7 10.1.5.1.4).
            response.setdefault("AffectedSOPInstanceUID", dataset.get("SOPInstanceUID"))
        self._association.send_response(request.context.id, response, data, soon=soon)

    def _note_begin(self, request: Request) -> None:
        request.begun = self._association.seconds()
        number, command = self._association.number, request.command
        name = commands.REQUEST_NAMES.get(command["CommandField"], command.name)
        telemetry.emit(telemetry.OperationBegun(number, "scp", name, command["MessageID"]))

    def _note_end(self, request: Request, status: int | None) -> None:
        command = request.command
        octets = request.operation.octets if request.operation is not None else 0
        telemetry.emit(
            telemetry.OperationEnded(
                self._association.number,
                "scp",
                commands.REQUEST_NAMES[command["CommandField"]],
                command["MessageID"],
                status,
                octets,
                self._association.seconds() - request.begun,
            )
        )


def _nothing(_result: object) -> None:
    pass


def _octets_of(request: Request, dataset: Any) -> bytes:
    """A data set as it goes out, unless it is encoded already."""
    if isinstance(dataset, bytes):
        return dataset
    return encode_dataset(dataset, request.context.transfer_syntax)


# Services whose handlers may give many values, and the method that sends them.
_MANY = {
    commands.C_FIND_RQ: "_find",
    commands.C_GET_RQ: "_get",
    commands.C_MOVE_RQ: "_move",
}


def _is_final(result: Any) -> bool:
    """Whether a handler of a service with many responses has given the last one."""
    if isinstance(result, (Failure, int)):
        return True
    return isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], int)


def _checked_status(status: Any) -> int:
    if not isinstance(status, int) or not 0 <= status <= 0xFFFF:
        raise TypeError(f"a handler gave {status!r} where a status is due")
    return int(status)
