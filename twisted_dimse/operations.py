"""The operations that either side of an association may invoke (PS3.7 clauses 9 and 10).

`ServiceUser` is the invoking half of an `Association`: a Deferred for each operation, the window
and the message IDs from `dimse.operation`, responses matched by message ID. `Operation` is one of
them under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from twisted_dimse import telemetry
from twisted_dimse.datastream import (
    CollectingSink,
    as_source,
    decode_dataset,
    encode_dataset,
    syntaxes_for,
)
from twisted_dimse.dimse import command as commands
from twisted_dimse.dimse.command import CommandSet
from twisted_dimse.dimse.operation import Invocations
from twisted_dimse.dimse.status import Category, category
from twisted_dimse.errors import ContextNotAccepted, DimseError, ProtocolViolation, StatusError
from twisted_dimse.outgoing import OutgoingMessage
from twisted_dimse.results import Response
from twisted_dimse.uids import VERIFICATION
from twisted_dimse.upperlayer.negotiation import AcceptedContext

_MULTIPLE_RESPONSES = (commands.C_FIND_RQ, commands.C_MOVE_RQ, commands.C_GET_RQ)


class Operation:
    """One operation that we have invoked, or will when the window has room.

    `request` is the command set without message ID; `data` opens the data set. `responded` is
    called with each pending response, and what it returns may be a Deferred to wait for.
    """

    __slots__ = (
        "begun",
        "check",
        "context",
        "data",
        "deferred",
        "disowned",
        "message",
        "message_id",
        "octets",
        "on_pending",
        "request",
        "result",
    )

    def __init__(
        self,
        context: AcceptedContext,
        request: dict[str, Any],
        data: Callable[[], bytes | BinaryIO] | None,
        result: Callable[[CommandSet, Any], Any],
        *,
        check: bool = True,
        on_pending: Callable[[CommandSet, Any], Any] | None = None,
    ) -> None:
        self.context = context
        self.request = request
        self.data = data
        self.result = result
        self.check = check
        self.on_pending = on_pending
        self.message_id = 0
        self.message: OutgoingMessage | None = None
        self.disowned = False
        self.begun = 0.0
        self.octets = 0
        self.deferred: Deferred[Any] = Deferred()

    @property
    def field(self) -> int:
        return int(self.request["CommandField"])

    @property
    def name(self) -> str:
        return commands.REQUEST_NAMES[self.field]

    @property
    def cancellable(self) -> bool:
        return self.field in _MULTIPLE_RESPONSES

    def end(self, result: Any) -> None:
        """Fire the Deferred, unless nobody waits for it any more."""
        if not self.disowned:
            self.disowned = True
            self.deferred.callback(result)


class ServiceUser:
    """Invokes operations on one association. `Association` says how they get out."""

    number: int

    def __init__(self) -> None:
        self._invocations: Invocations[Operation] = Invocations(self._begin)

    # --- given by the association

    def _refusal(self) -> DimseError | None:
        """Why no operation can be invoked any more, or None."""
        raise AssertionError("an Association says")

    def _contexts_for(self, abstract_syntax: str) -> list[AcceptedContext]:
        raise AssertionError("an Association says")

    def _context_of(self, choice: str | int) -> AcceptedContext:
        raise AssertionError("an Association says")

    def _send(self, message: OutgoingMessage) -> None:
        raise AssertionError("an Association says")

    def _withdraw(self, message: OutgoingMessage) -> bool:
        raise AssertionError("an Association says")

    def _seconds(self) -> float:
        raise AssertionError("an Association says")

    def _operations_over(self) -> None:
        """Called when the last outstanding operation has ended."""

    # --- the operations

    def echo(self) -> Deferred[Response]:
        """C-ECHO (PS3.7 9.1.5). Fires with the `Response`."""
        request = {
            "AffectedSOPClassUID": VERIFICATION,
            "CommandField": commands.C_ECHO_RQ,
            "CommandDataSetType": commands.NO_DATA_SET,
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
        `ContextNotAccepted` tells that no context fits. ``priority`` is "low", "medium" or "high".
        """
        try:
            instance = as_source(source)
            chosen, instance = self._context_for_source(instance, context)
            request = {
                "AffectedSOPClassUID": instance.sop_class_uid,
                "CommandField": commands.C_STORE_RQ,
                "Priority": commands.PRIORITIES.get(priority, priority),  # type: ignore[call-overload]
                "CommandDataSetType": commands.DATA_SET_FOLLOWS,
                "AffectedSOPInstanceUID": instance.sop_instance_uid,
            }
        except (OSError, ValueError, DimseError) as error:
            return fail(error)
        if move_originator is not None:
            title, message_id = move_originator
            request["MoveOriginatorApplicationEntityTitle"] = title
            request["MoveOriginatorMessageID"] = message_id
        return self._submit(Operation(chosen, request, instance.open, _response, check=check))

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

    # --- how they run

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
        except (DimseError, ValueError) as error:
            return fail(error)
        return self._submit(Operation(context, request, data, _response, check=check))

    def _choose(self, abstract_syntax: str, choice: str | int | None) -> AcceptedContext:
        if choice is not None:
            return self._context_of(choice)
        contexts = self._contexts_for(abstract_syntax)
        if not contexts:
            raise ContextNotAccepted(f"the peer did not accept {_class_name(abstract_syntax)}")
        return contexts[0]

    def _submit(self, operation: Operation) -> Deferred[Any]:
        refusal = self._refusal()
        if refusal is not None:
            return fail(refusal)
        operation.deferred = Deferred(lambda _deferred: self._disown(operation))
        self._invocations.submit(operation)
        return operation.deferred

    def _begin(self, operation: Operation, message_id: int) -> None:
        operation.message_id = message_id
        operation.begun = self._seconds()
        request = operation.request
        request["MessageID"] = message_id
        try:
            encoded = commands.encode(request)
            data = operation.data() if operation.data is not None else None
        except Exception as error:
            self._invocations.responded(message_id, final=True)
            operation.end(Failure(error))
            self._advance()
            return
        message = OutgoingMessage(operation.context.id, encoded, data)
        operation.message = message
        if telemetry.subscribers:
            number, name = self.number, operation.name
            telemetry.emit(telemetry.OperationBegun(number, "scu", name, message_id))
            telemetry.emit(telemetry.CommandSent(number, operation.context.id, CommandSet(request)))
        self._send(message)

    def _disown(self, operation: Operation) -> None:
        """`Deferred.cancel()`: the answer, if it still comes, is for nobody. What has not gone
        out does not go."""
        operation.disowned = True
        if self._invocations.withdraw(operation):
            return
        if operation.message is not None and self._withdraw(operation.message):
            self._invocations.responded(operation.message_id, final=True)
            self._advance()
        elif operation.cancellable:
            self._send_cancel(operation)

    def _send_cancel(self, operation: Operation) -> None:
        """C-CANCEL (PS3.7 9.3.2.3), in the context of the operation."""
        request = {
            "CommandField": commands.C_CANCEL_RQ,
            "MessageIDBeingRespondedTo": operation.message_id,
            "CommandDataSetType": commands.NO_DATA_SET,
        }
        if telemetry.subscribers:
            telemetry.emit(
                telemetry.CommandSent(self.number, operation.context.id, CommandSet(request))
            )
        self._send(OutgoingMessage(operation.context.id, commands.encode(request)))

    # --- what comes back

    def _response_received(
        self, context: AcceptedContext, command: CommandSet
    ) -> CollectingSink | None:
        """A response's command set. Gives a sink where a data set follows; raises
        `ProtocolViolation` for an answer that fits no request."""
        message_id, status = command.get("MessageIDBeingRespondedTo"), command.get("Status")
        if message_id is None or status is None:
            raise ProtocolViolation(f"{command.name} without message ID or status")
        operation = self._invocations.responded(message_id, final=False)
        if command["CommandField"] != operation.field | commands.RESPONSE:
            raise ProtocolViolation(f"{command.name} in answer to a {operation.name}")
        if not command.has_data_set:
            self._responded(operation, command, None)
            return None
        return CollectingSink(lambda data: self._responded(operation, command, data))

    def _responded(self, operation: Operation, command: CommandSet, data: bytes | None) -> Any:
        status = command["Status"]
        dataset = None
        if data is not None:
            try:
                dataset = decode_dataset(data, operation.context.transfer_syntax)
            except ValueError as error:
                return self._ended(operation, command, Failure(_unreadable(error)))
        if category(status) is Category.PENDING:
            if not operation.cancellable:
                raise ProtocolViolation(f"{command.name} with the pending status {status:04X}H")
            if operation.on_pending is not None and not operation.disowned:
                return operation.on_pending(command, dataset)
            return None
        return self._ended(operation, command, _outcome(operation, command, dataset))

    def _ended(self, operation: Operation, command: CommandSet, result: Any) -> None:
        self._invocations.responded(operation.message_id, final=True)
        if telemetry.subscribers:
            self._note_end(operation, command["Status"])
        operation.end(result)
        self._advance()

    def _advance(self) -> None:
        invocations = self._invocations
        if invocations.waiting:
            invocations.advance()
        if not invocations.outstanding and not invocations.waiting:
            self._operations_over()

    def _end_operations(self, reason: BaseException) -> None:
        """The association is over: so is every operation."""
        for operation in self._invocations.drain():
            if telemetry.subscribers and operation.message_id:
                self._note_end(operation, None)
            operation.end(Failure(reason))

    def _note_end(self, operation: Operation, status: int | None) -> None:
        octets = operation.message.octets if operation.message is not None else 0
        telemetry.emit(
            telemetry.OperationEnded(
                self.number,
                "scu",
                operation.name,
                operation.message_id,
                status,
                octets,
                self._seconds() - operation.begun,
            )
        )


def _response(command: CommandSet, dataset: Any) -> Response:
    return Response(command["Status"], command, dataset)


def _outcome(operation: Operation, command: CommandSet, dataset: Any) -> Any:
    """The result of a final response, or the `StatusError` that it is."""
    status = command["Status"]
    if operation.check and category(status) is Category.FAILURE:
        return Failure(status_error(command, dataset))
    return operation.result(command, dataset)


def status_error(command: CommandSet, dataset: Any = None, outcome: Any = None) -> StatusError:
    """The error of a response with a failure status, with all that it says."""
    elements = {
        keyword: command[keyword]
        for keyword in ("OffendingElement", "ErrorID", "AttributeIdentifierList")
        if keyword in command
    }
    return StatusError(
        command["Status"],
        command.get("ErrorComment") or "",
        dataset=dataset,
        outcome=outcome,
        command=command,
        **elements,
    )


def _encoded(dataset: Any, context: AcceptedContext) -> Callable[[], bytes]:
    data = encode_dataset(as_dataset(dataset), context.transfer_syntax)
    return lambda: data


def as_dataset(keys: Any) -> Any:
    """A pydicom Dataset of keys that a caller gave as one, or as a dict of keywords."""
    if not isinstance(keys, Mapping):
        return keys
    from pydicom import Dataset

    dataset = Dataset()
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    return dataset


def _class_name(uid: str) -> str:
    from twisted_dimse.uids import name_of

    return f"{name_of(uid)} ({uid})"


def _unreadable(error: ValueError) -> ProtocolViolation:
    return ProtocolViolation(f"the data set of a response cannot be read: {error}")
