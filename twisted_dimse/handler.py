"""The server side as a user writes it: a `Handler` with one method for each service.

    class Receiver(Handler):
        def store(self, request, dataset):
            print(request.sop_instance_uid, dataset.get("PatientName"))
            return 0                        # or None, a Deferred, or a coroutine of one

A method returns a value, a Deferred or a coroutine; `find`, `get` and `move` also an iterable or an
async iterable. ``None`` is success, an ``int`` a status, a Dataset or ``(status, Dataset)`` goes
with the response. `StatusError` answers with its status; any other exception answers 0xC000 (C-
services with data sets) or 0x0110 (the others) and is logged once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.logger import Logger

from twisted_dimse.datastream import (
    MAX_DATA_SET,
    CollectingSink,
    Sink,
    decode_dataset,
    set_transfer_syntax,
)
from twisted_dimse.dimse.command import C_STORE_RQ, CommandSet
from twisted_dimse.dimse.status import CANNOT_UNDERSTAND, UNRECOGNIZED_OPERATION
from twisted_dimse.errors import StatusError
from twisted_dimse.uids import VERIFICATION, storage_sop_classes
from twisted_dimse.upperlayer.negotiation import (
    AcceptedContext,
    ContextLike,
    PresentationContext,
    as_context,
)

if TYPE_CHECKING:
    from pydicom import Dataset

    from twisted_dimse.association import Association
    from twisted_dimse.errors import DimseError
    from twisted_dimse.upperlayer.pdu import AssociateRQ, UserIdentity

_log = Logger()


class Request:
    """One operation that a peer asks of us.

    `association` is the `Association` it came on; `context` the accepted presentation context;
    `command` the whole command set by keyword.
    """

    __slots__ = (
        "_callbacks",
        "_data",
        "_dataset",
        "association",
        "begun",
        "cancelled",
        "command",
        "context",
        "octets",
        "operation",
    )

    def __init__(
        self, association: Association, context: AcceptedContext, command: CommandSet
    ) -> None:
        self.association = association
        self.context = context
        self.command = command
        self.cancelled = False
        self.octets = 0
        self.begun = 0.0
        self.operation: Any = None
        self._data: bytes | None = None
        self._dataset: Dataset | None = None
        self._callbacks: list[Callable[[], object]] | None = None

    @property
    def message_id(self) -> int:
        """The Message ID, by which a C-CANCEL names the operation."""
        return int(self.command["MessageID"])

    @property
    def sop_class_uid(self) -> str:
        """The Affected or Requested SOP Class UID, or the context's where the command lacks it."""
        command = self.command
        return (
            command.get("AffectedSOPClassUID")
            or command.get("RequestedSOPClassUID")
            or self.context.abstract_syntax
        )

    @property
    def sop_instance_uid(self) -> str:
        """The Affected or Requested SOP Instance UID; empty where the command lacks it."""
        command = self.command
        return command.get("AffectedSOPInstanceUID") or command.get("RequestedSOPInstanceUID") or ""

    @property
    def dataset(self) -> Dataset | None:
        """The request's data set, parsed when first asked for; None where there is none, and
        for a C-STORE that goes to a `store_sink` of one's own.

        Raises `StatusError` (0xC000) where it is not one.
        """
        if self._dataset is None and self._data is not None:
            try:
                self._dataset = decode_dataset(self._data, self.context.transfer_syntax)
            except ValueError as error:
                raise StatusError(CANNOT_UNDERSTAND, str(error)) from error
            if self.command["CommandField"] == C_STORE_RQ:
                # So that its pixels can be looked at, and it goes on as what it is.
                set_transfer_syntax(self._dataset, self.context.transfer_syntax)
        return self._dataset

    @property
    def encoded_dataset(self) -> bytes | None:
        """The octets of `dataset`, in the context's transfer syntax."""
        return self._data

    @property
    def attributes(self) -> tuple[int, ...]:
        """The tags of an N-GET's Attribute Identifier List; none means all."""
        return self.command.get("AttributeIdentifierList") or ()

    @property
    def action_type(self) -> int | None:
        """The Action Type ID of an N-ACTION; None for any other."""
        return self.command.get("ActionTypeID")

    @property
    def event_type(self) -> int | None:
        """The Event Type ID of an N-EVENT-REPORT; None for any other."""
        return self.command.get("EventTypeID")

    @property
    def destination(self) -> str:
        """The AE title that a C-MOVE sends to."""
        return self.command.get("MoveDestination") or ""

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call back when the peer cancels the operation or the association ends before it does;
        at once where that has happened."""
        if self.cancelled:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def cancel(self) -> None:
        """Mark the operation as cancelled, once, and tell who wanted to know."""
        if self.cancelled:
            return
        self.cancelled = True
        callbacks, self._callbacks = self._callbacks or [], None
        for callback in callbacks:
            try:
                callback()
            except Exception:
                _log.failure("on_cancel of message {id} failed", id=self.message_id)

    def take_data(self, data: bytes) -> None:
        """Keep the encoded data set for `dataset`."""
        self._data = data


class AssociationRequest:
    """What `Handler.associate` decides upon: the A-ASSOCIATE-RQ of a peer (PS3.8 9.3.2).

    `proposed` has the presentation contexts; `pdu` is the whole request. `Handler.released` and
    `Handler.aborted` get the same object again.
    """

    __slots__ = ("association", "pdu")

    def __init__(self, association: Association, pdu: AssociateRQ) -> None:
        self.association = association
        self.pdu = pdu

    @property
    def calling_ae_title(self) -> str:
        """The AE title of who asks."""
        return self.pdu.calling_ae_title

    @property
    def called_ae_title(self) -> str:
        """The AE title that is asked for."""
        return self.pdu.called_ae_title

    @property
    def address(self) -> str:
        """The network address of who asks."""
        return self.association.address

    @property
    def peer_certificate(self) -> Any:
        """The TLS certificate of who asks, a `cryptography.x509.Certificate`, or None."""
        return self.association.peer_certificate

    @property
    def proposed(self) -> tuple[PresentationContext, ...]:
        """The presentation contexts that are proposed, in order."""
        return tuple(
            PresentationContext(context.abstract_syntax, context.transfer_syntaxes)
            for context in self.pdu.contexts
        )

    @property
    def user_identity(self) -> UserIdentity | None:
        """The user who asks (PS3.7 D.3.3.7), or None."""
        from twisted_dimse.upperlayer.pdu import UserIdentity

        return self.pdu.item(UserIdentity)

    @property
    def reason(self) -> DimseError | None:
        """The error that ended the association; None before, and where it was released."""
        return self.association.reason


class Handler:
    """Answers what peers ask. Subclass it and write the methods of the services you serve; the
    others answer 0x0211, unrecognized operation.

    `contexts` says what is accepted: abstract syntax UIDs (any transfer syntax), pairs of one
    with its transfer syntaxes, or `PresentationContext`s; None is Verification and all storage.
    `prefer` orders the transfer syntaxes; `roles` limits the roles that requestors get.
    `extended` answers SOP class extended negotiation: a SOP class UID to a function of the octets
    proposed that gives the octets answered, or None for no answer.
    """

    contexts: Iterable[ContextLike] | None = None
    prefer: Iterable[str] = ()
    roles: Mapping[str, str] = {}
    extended: Mapping[str, Callable[[bytes], bytes | None]] = {}
    storage_of_any_kind: ClassVar[bool] = False

    def associate(self, request: AssociationRequest) -> Any:
        """Return to admit; raise `AssociationRejected` to reject; a Deferred to answer later
        (PS3.8 7.1)."""

    def echo(self, request: Request) -> Any:
        """C-ECHO (PS3.7 9.1.5)."""

    def store_sink(self, request: Request) -> Sink:
        """Where the data set of a C-STORE goes, slice by slice. The default holds it, up to
        `datastream.MAX_DATA_SET` octets, and calls `store`."""

        def done(data: bytes) -> Any:
            request.take_data(data)
            return self.store(request, request.dataset)

        return CollectingSink(done, MAX_DATA_SET)

    def store(self, request: Request, dataset: Dataset | None) -> Any:
        """C-STORE (PS3.7 9.1.1), for handlers that have no `store_sink` of their own."""
        return self._unrecognized(request)

    def find(self, request: Request) -> Any:
        """C-FIND (PS3.7 9.1.2): Datasets, or ``(status, Dataset)`` pairs. A Dataset that is encoded
        already, in ``request.context.transfer_syntax``, may be given as its octets."""
        return self._unrecognized(request)

    def move(self, request: Request) -> Any:
        """C-MOVE (PS3.7 9.1.4): the instances to send to ``request.destination``."""
        return self._unrecognized(request)

    def get(self, request: Request) -> Any:
        """C-GET (PS3.7 9.1.3): the instances to send back."""
        return self._unrecognized(request)

    def n_event_report(self, request: Request) -> Any:
        """N-EVENT-REPORT (PS3.7 10.1.1)."""
        return self._unrecognized(request)

    def n_get(self, request: Request) -> Any:
        """N-GET (PS3.7 10.1.2)."""
        return self._unrecognized(request)

    def n_set(self, request: Request) -> Any:
        """N-SET (PS3.7 10.1.3)."""
        return self._unrecognized(request)

    def n_action(self, request: Request) -> Any:
        """N-ACTION (PS3.7 10.1.4)."""
        return self._unrecognized(request)

    def n_create(self, request: Request) -> Any:
        """N-CREATE (PS3.7 10.1.5). A Dataset with a SOPInstanceUID names the new instance."""
        return self._unrecognized(request)

    def n_delete(self, request: Request) -> Any:
        """N-DELETE (PS3.7 10.1.6)."""
        return self._unrecognized(request)

    def released(self, request: AssociationRequest) -> None:
        """The association that ``request`` asked for ended by release (PS3.8 7.2)."""

    def aborted(self, request: AssociationRequest) -> None:
        """It ended otherwise (PS3.8 7.3, 7.4): ``request.reason`` says why."""

    def resolve(self, ae_title: str) -> Any:
        """The `Peer` of a C-MOVE destination, a Deferred of it, or None where it is unknown."""
        return None

    def accepted_contexts(self) -> dict[str, tuple[str, ...]]:
        """`contexts` as the negotiation wants it: abstract syntax to transfer syntaxes."""
        if self.contexts is None:
            return dict.fromkeys((VERIFICATION, *storage_sop_classes()), ())
        accepted = (as_context(item, ()) for item in self.contexts)
        return {context.abstract_syntax: context.transfer_syntaxes for context in accepted}

    def _unrecognized(self, request: Request) -> int:
        return UNRECOGNIZED_OPERATION
