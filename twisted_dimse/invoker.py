"""How operations run (PS3.7 7.5): the invoking half of an `Association`, beneath its operations.

`Operation` is one that was asked for. `Invoker` begins it when the window has room, numbers it,
sends its request, matches responses by message ID in any order, and ends it: with the final
response, with C-CANCEL, or with the association.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_dimse import telemetry
from twisted_dimse.answers import AnswerQueue
from twisted_dimse.datastream import CollectingSink, decode_dataset
from twisted_dimse.dimse import command as commands
from twisted_dimse.dimse.command import CommandSet
from twisted_dimse.dimse.operation import Invocations
from twisted_dimse.dimse.status import CANCEL, SUCCESS, Category, category, meaning
from twisted_dimse.errors import DimseError, ProtocolViolation, StatusError
from twisted_dimse.outgoing import OutgoingMessage, let_go
from twisted_dimse.results import RetrieveOutcome
from twisted_dimse.upperlayer.negotiation import AcceptedContext

_log = Logger()
_CANCELLABLE = (commands.C_FIND_RQ, commands.C_MOVE_RQ, commands.C_GET_RQ)


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
        "field",
        "message",
        "message_id",
        "octets",
        "on_pending",
        "opened",
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
        self.field: int = request["CommandField"]
        self.data = data
        # What ``data`` gave, or raised, before its turn.
        self.opened: bytes | BinaryIO | Exception | None = None
        self.result = result
        self.check = check
        self.on_pending = on_pending
        self.message_id = 0
        self.message: OutgoingMessage | None = None
        self.disowned = False
        self.begun = 0.0
        self.octets = 0
        self.deferred: Deferred[Any] | None = None  # once it is submitted

    @property
    def name(self) -> str:
        return commands.REQUEST_NAMES[self.field]

    @property
    def cancellable(self) -> bool:
        return self.field in _CANCELLABLE

    def open(self) -> None:
        """Open the data set ahead of its turn. Where that fails, its turn will tell."""
        if self.data is not None and self.opened is None:
            try:
                self.opened = self.data()
            except Exception as error:
                self.opened = error

    def take_data(self) -> bytes | BinaryIO | None:
        """The data set, opened now or before. Raises what opening it raises."""
        opened, self.opened = self.opened, None
        if isinstance(opened, Exception):
            raise opened
        if opened is None and self.data is not None:
            opened = self.data()
        if opened is not None and not isinstance(opened, bytes) and not hasattr(opened, "read"):
            raise TypeError(f"a data set is octets or a binary file, and not {opened!r}")
        return opened

    def drop(self) -> None:
        """It will not be sent: let go of what was opened."""
        opened, self.opened = self.opened, None
        if not isinstance(opened, Exception):
            let_go(opened)

    def end(self, result: Any) -> None:
        """Fire the Deferred, unless nobody waits for it any more."""
        self.drop()
        deferred, self.deferred = self.deferred, None
        if not self.disowned and deferred is not None:
            self.disowned = True
            deferred.callback(result)


class Invoker:
    """Runs the operations of one association. `Association` says how they get out."""

    number: int

    def __init__(self) -> None:
        self._invocations: Invocations[Operation] = Invocations(self._begin)
        self._queues: set[AnswerQueue] = set()
        self._advancing = False

    def cancel(self, deferred: Deferred[Any]) -> None:
        """Send C-CANCEL for a running `find`, `move` or `get`, and let its Deferred fire with the
        outcome so far (status 0xFE00). Does nothing for one that has ended."""
        for operation in [*self._invocations.outstanding.values(), *self._invocations.waiting]:
            if operation.deferred is deferred and operation.cancellable:
                if self._invocations.withdraw(operation):
                    command = CommandSet(Status=CANCEL, CommandField=operation.field | 0x8000)
                    operation.end(operation.result(command, None))
                else:
                    self._send_cancel(operation)
                return

    def awaits_turn(self, deferred: Deferred[Any]) -> bool:
        """Whether the operation of a Deferred has not begun, since the window is full."""
        return any(operation.deferred is deferred for operation in self._invocations.waiting)

    # --- given by the association

    def _refusal(self) -> DimseError | None:
        """Why no operation can be invoked any more, or None."""
        raise AssertionError("an Association says")

    def _send(self, message: OutgoingMessage) -> None:
        raise AssertionError("an Association says")

    def _send_queued(self) -> None:
        """Send now what would go out at the end of this turn."""
        raise AssertionError("an Association says")

    def _withdraw(self, message: OutgoingMessage) -> bool:
        raise AssertionError("an Association says")

    def _seconds(self) -> float:
        raise AssertionError("an Association says")

    def _operations_over(self) -> None:
        """Called when the last outstanding operation has ended."""

    # --- from the request to the end

    def _submit(self, operation: Operation) -> Deferred[Any]:
        refusal = self._refusal()
        if refusal is not None:
            return fail(refusal)
        deferred: Deferred[Any] = Deferred(lambda _deferred: self._disown(operation))
        operation.deferred = deferred
        self._invocations.submit(operation)
        if self._invocations.waiting:
            self._invocations.waiting[0].open()
        if self._queues:
            for queue in list(self._queues):
                queue.go_on()  # what reads slowly may not hold up what comes after it
        return deferred

    def _begin(self, operation: Operation, message_id: int) -> None:
        operation.message_id = message_id
        operation.begun = self._seconds()
        request = operation.request
        request["MessageID"] = message_id
        try:
            encoded = commands.encode(request)
            data = operation.take_data()
        except Exception as error:
            self._invocations.end(message_id)
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
            operation.drop()
            return
        if operation.message is not None and self._withdraw(operation.message):
            if telemetry.subscribers:
                self._note_end(operation, None)
            self._invocations.end(operation.message_id)
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
        if status == SUCCESS and data is None:
            return self._ended(operation, command, operation.result(command, None))
        pending = category(status) is Category.PENDING
        if pending and not operation.cancellable:
            raise ProtocolViolation(f"{command.name} with the pending status {status:04X}H")
        if pending and (operation.disowned or operation.on_pending is None):
            return None
        dataset = None
        try:
            if data is not None:
                dataset = decode_dataset(data, operation.context.transfer_syntax)
        except ValueError as error:
            unreadable = Failure(_unreadable(error))
            if not pending:
                return self._ended(operation, command, unreadable)
            # Its message ID and slot stay taken until the final response.
            self._send_cancel(operation)
            return operation.end(unreadable)
        if pending:
            return self._pending(operation, command, dataset)
        return self._ended(operation, command, _outcome(operation, command, dataset))

    def _pending(self, operation: Operation, command: CommandSet, dataset: Any) -> Any:
        try:
            assert operation.on_pending is not None
            return operation.on_pending(command, dataset)
        except Exception:
            name = operation.name
            _log.failure(
                "association {number}: {name}: progress failed", number=self.number, name=name
            )
            return None

    def _ended(self, operation: Operation, command: CommandSet, result: Any) -> None:
        self._invocations.end(operation.message_id)
        if telemetry.subscribers:
            self._note_end(operation, command["Status"])
        # The next is on its way before anybody looks at this result: the peer works meanwhile.
        self._begin_waiting()
        operation.end(result)
        self._tell_when_over()

    def _advance(self) -> None:
        if not self._advancing:  # else one cannot begin, and `_begin_waiting` goes on to the next
            self._begin_waiting()
            self._tell_when_over()

    def _begin_waiting(self) -> None:
        invocations = self._invocations
        if not invocations.waiting or self._advancing:
            return
        self._advancing = True
        try:
            invocations.advance()
        finally:
            self._advancing = False
        if len(invocations.outstanding) == 1:
            self._send_queued()  # the peer has nothing else to do
        if invocations.waiting:
            invocations.waiting[0].open()

    def _tell_when_over(self) -> None:
        if not len(self._invocations):
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


def _outcome(operation: Operation, command: CommandSet, dataset: Any) -> Any:
    """The result of a final response, or the `StatusError` that it is."""
    result = operation.result(command, dataset)
    if operation.check and category(command["Status"]) is Category.FAILURE:
        outcome = result if isinstance(result, RetrieveOutcome) else None
        return Failure(status_error(command, dataset, outcome))
    return result


def status_error(command: CommandSet, dataset: Any = None, outcome: Any = None) -> StatusError:
    """The error of a response with a failure status, with all that it says."""
    elements = {
        keyword: command[keyword]
        for keyword in ("OffendingElement", "ErrorID", "AttributeIdentifierList")
        if keyword in command
    }
    field = command["CommandField"] & ~commands.RESPONSE
    return StatusError(
        command["Status"],
        command.get("ErrorComment") or "",
        dataset=dataset,
        outcome=outcome,
        command=command,
        meaning=meaning(command["Status"], commands.REQUEST_NAMES.get(field)),
        **elements,
    )


def _unreadable(error: ValueError) -> ProtocolViolation:
    return ProtocolViolation(f"the data set of a response cannot be read: {error}")
