"""The two tables of docs/errors.md, row by row: what happens on the wire, and what comes of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Pair
from handshakes import shake_hands
from twisted.internet import error as transport_errors
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

import twisted_dimse
from twisted_dimse import VERIFICATION, Handler, Peer, Timeouts, connect
from twisted_dimse.dimse import command as commands
from twisted_dimse.server import AssociationFactory
from twisted_dimse.tls.certificates import Files
from twisted_dimse.tls.connections import ClientConnections, ServerConnections
from twisted_dimse.tls.profiles import profile_named
from twisted_dimse.uids import EXPLICIT_VR_LITTLE_ENDIAN, STUDY_ROOT
from twisted_dimse.upperlayer import negotiation, pdu
from twisted_dimse.upperlayer.framing import Fragment, Framer

DOCUMENT = Path(__file__).parent.parent / "docs" / "errors.md"


def table(heading: str) -> list[tuple[str, str]]:
    """The rows of the table under a heading of the document."""
    section = DOCUMENT.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    return [row for row in rows[1:] if not row[0].startswith("---")]


def command(**elements: Any) -> bytes:
    """A whole command set, alone in its P-DATA-TF, in context 1 unless ``context`` says so."""
    context = elements.pop("context", 1)
    elements.setdefault("CommandDataSetType", commands.NO_DATA_SET)
    return fragment(commands.encode(elements), context=context)


def fragment(data: bytes, *, context: int = 1, is_command: bool = True, last: bool = True) -> bytes:
    value = pdu.PresentationDataValue(context, is_command, last, data)
    return pdu.PDataTF((value,)).encode()


class Wire:
    """A client endpoint whose other end is the test."""

    def __init__(self, outcome: Deferred[Any] | None = None) -> None:
        self.outcome = outcome
        self.transport = StringTransport()
        self.protocol: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.outcome is not None:
            return self.outcome
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        return succeed(self.protocol)

    def close(self) -> None:
        self.protocol.connectionLost(Failure(transport_errors.ConnectionDone()))


class Requestor:
    """A `connect` under way, and the wire that it uses."""

    def __init__(self, outcome: Deferred[Any] | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.wire = Wire(outcome)
        self.connecting: Deferred[Any] = connect(
            Peer("SCP", self.wire), reactor=self.clock, **options
        )
        self.association: Any = None

    def receive(self, data: bytes) -> None:
        self.wire.protocol.dataReceived(data)

    def accepted(self, *, result: int = 0) -> Requestor:
        """Have the peer accept the one context, or not."""
        contexts = (pdu.ContextResult(1, result, EXPLICIT_VR_LITTLE_ENDIAN),)
        self.receive(pdu.AssociateAC("SCP", "DIMSE-SCU", contexts, ()).encode())
        if result == 0:
            self.connecting.addCallback(self._established)
        return self

    def _established(self, association: Any) -> None:
        self.association = association

    def asking(self) -> Deferred[Any]:
        """A C-ECHO under way."""
        asked: Deferred[Any] = self.accepted().association.echo()
        return asked


def error_of(deferred: Deferred[Any]) -> str:
    """The name of the error class with which a Deferred has failed."""
    failures: list[Failure] = []
    deferred.addErrback(failures.append)
    assert failures, "it has not failed"
    assert isinstance(failures[0].value, twisted_dimse.DimseError)
    return type(failures[0].value).__name__


def during_an_operation(event: Callable[[Requestor], Any]) -> Callable[[], str]:
    def run() -> str:
        requestor = Requestor(timeouts=Timeouts(dimse=5))
        asked = requestor.asking()
        event(requestor)
        return error_of(asked)

    return run


def instead_of_an_answer(event: Callable[[Requestor], Any], **options: Any) -> Callable[[], str]:
    def run() -> str:
        requestor = Requestor(**options)
        event(requestor)
        return error_of(requestor.connecting)

    return run


def not_connected(error: Exception) -> Callable[[], str]:
    return lambda: error_of(Requestor(fail(error)).connecting)


def response(**elements: Any) -> bytes:
    elements.setdefault("CommandField", commands.C_ECHO_RQ | commands.RESPONSE)
    elements.setdefault("Status", 0)
    elements.setdefault("MessageIDBeingRespondedTo", 1)
    return command(**elements)


def without_a_context() -> str:
    return error_of(Requestor().accepted().association.store(_instance()))


def _instance() -> Any:
    from twisted_dimse.datastream import BytesSource

    return BytesSource("1.2.840.10008.5.1.4.1.1.2", "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN, b"")


def after_the_release() -> str:
    association = Requestor().accepted().association
    association.release()
    return error_of(association.echo())


def nothing_accepted(requestor: Requestor) -> None:
    requestor.accepted(result=3)
    requestor.receive(pdu.ReleaseRP().encode())
    requestor.wire.close()


def closed_after(data: bytes) -> Callable[[Requestor], None]:
    def event(requestor: Requestor) -> None:
        requestor.receive(data)
        requestor.wire.close()

    return event


def tls_failure() -> Exception:
    from OpenSSL import SSL

    return SSL.Error([("SSL routines", "", "certificate verify failed")])


REQUESTOR_EVENTS: dict[str, Callable[[], str]] = {
    "the connection is refused": not_connected(transport_errors.ConnectionRefusedError()),
    "the host name is unknown": not_connected(transport_errors.DNSLookupError()),
    "the TLS handshake fails": not_connected(tls_failure()),
    "no association within `Timeouts.connect`": instead_of_an_answer(
        lambda requestor: requestor.clock.advance(5),
        timeouts=Timeouts(connect=5, acse=None),
    ),
    "no answer to the request within `Timeouts.acse`": instead_of_an_answer(
        lambda requestor: (requestor.clock.advance(5), requestor.wire.close()),
        timeouts=Timeouts(connect=None, acse=5),
    ),
    "A-ASSOCIATE-RJ": instead_of_an_answer(closed_after(pdu.AssociateRJ(1, 1, 7).encode())),
    "A-ASSOCIATE-AC that accepts no context": instead_of_an_answer(nothing_accepted),
    "A-ABORT instead of an answer": instead_of_an_answer(closed_after(pdu.Abort(0, 0).encode())),
    "the connection closes instead of an answer": instead_of_an_answer(
        lambda requestor: requestor.wire.close()
    ),
    "A-ABORT during an operation": during_an_operation(
        lambda requestor: requestor.receive(pdu.Abort(2, 1).encode())
    ),
    "the connection closes during an operation": during_an_operation(
        lambda requestor: requestor.wire.close()
    ),
    "no response within `Timeouts.dimse`": during_an_operation(
        lambda requestor: requestor.clock.advance(5)
    ),
    "a PDU of unknown type": during_an_operation(lambda requestor: requestor.receive(b"\x09")),
    "a PDU longer than we offered": during_an_operation(
        lambda requestor: requestor.receive(b"\x04\x00\x7f\xff\xff\xff")
    ),
    "a PDU that has no place in this state": during_an_operation(
        lambda requestor: requestor.receive(pdu.AssociateRJ(1, 1, 1).encode())
    ),
    "a response to nothing that was asked": during_an_operation(
        lambda requestor: requestor.receive(response(MessageIDBeingRespondedTo=77))
    ),
    "a response of another type than the request": during_an_operation(
        lambda requestor: requestor.receive(response(CommandField=0x8001))
    ),
    "a response in a context that was not accepted": during_an_operation(
        lambda requestor: requestor.receive(response(context=3))
    ),
    "a data set where a command is due": during_an_operation(
        lambda requestor: requestor.receive(fragment(b"1234", is_command=False))
    ),
    "a response with a pending status to an operation that has one response": during_an_operation(
        lambda requestor: requestor.receive(response(Status=0xFF00))
    ),
    "a response with a failure status": during_an_operation(
        lambda requestor: requestor.receive(response(Status=0x0122))
    ),
    "an operation for which no context was accepted": without_a_context,
    "an operation after the release": after_the_release,
    "our own abort during an operation": during_an_operation(
        lambda requestor: requestor.association.abort()
    ),
}


@pytest.mark.parametrize(
    ("event", "error"), table("Which event gives which error"), ids=lambda text: text[:60]
)
def test_an_event_on_the_wire_gives_the_error_that_the_table_names(event: str, error: str) -> None:
    assert f"`{REQUESTOR_EVENTS[event]()}`" == error


def test_every_event_tried_is_in_the_table() -> None:
    assert set(REQUESTOR_EVENTS) == {row[0] for row in table("Which event gives which error")}


class Faulty(Handler):
    contexts = (VERIFICATION, STUDY_ROOT.find)

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    def echo(self, request: Any) -> Any:
        return self.answer() if callable(self.answer) else self.answer

    def find(self, request: Any) -> Any:
        raise LookupError("a fault of the handler's")

    def n_get(self, request: Any) -> Any:
        return self._unrecognized(request)


class Acceptor:
    """One association with our acceptor, and what it says."""

    def __init__(self, handler: Handler | None = None, *, associate: bool = True) -> None:
        self.clock = Clock()
        factory = AssociationFactory(handler or Faulty(), reactor=self.clock)
        self.protocol: Any = factory.buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        if associate:
            contexts = (
                negotiation.PresentationContext(VERIFICATION),
                negotiation.PresentationContext(STUDY_ROOT.find),
                negotiation.PresentationContext("1.2.3.4"),
            )
            proposal = negotiation.Proposal("SCP", "SCU", contexts, roles={STUDY_ROOT.find: "both"})
            self.protocol.dataReceived(negotiation.propose(proposal).encode())
            self.transport.clear()

    def answer_to(self, *data: bytes) -> str:
        """What the peer gets, in the table's words."""
        for part in data:
            self.protocol.dataReceived(part)
        self.clock.advance(0)
        parts = Framer().receive(self.transport.value())
        if not parts:
            return "nothing"
        [part] = parts
        if isinstance(part, pdu.Abort):
            return (
                f"A-ABORT, reason {part.reason}" if part.source else "A-ABORT, by the service user"
            )
        assert isinstance(part, Fragment)
        assert self.protocol.provider.established, "after a status the association goes on"
        return f"status 0x{commands.decode(part.data)['Status']:04X}"


def echo(**elements: Any) -> bytes:
    return command(
        **{
            "AffectedSOPClassUID": VERIFICATION,
            "CommandField": commands.C_ECHO_RQ,
            "MessageID": 1,
            **elements,
        }
    )


def find(**elements: Any) -> bytes:
    return command(
        **{
            "context": 3,
            "AffectedSOPClassUID": STUDY_ROOT.find,
            "CommandField": commands.C_FIND_RQ,
            "MessageID": 1,
            "Priority": 0,
            "CommandDataSetType": commands.DATA_SET_FOLLOWS,
            **elements,
        }
    )


def identifier_without_end() -> str:
    acceptor = Acceptor()
    from twisted_dimse import datastream

    piece = fragment(bytes(200_000), context=3, is_command=False, last=False)
    acceptor.protocol.dataReceived(find())
    for _ in range(datastream.MAX_DATA_SET // 200_000 + 1):
        acceptor.protocol.dataReceived(piece)
    return acceptor.answer_to(fragment(b"12", context=3, is_command=False))


def raising() -> None:
    raise LookupError("a fault of the handler's")


def role_not_agreed() -> str:
    """The acceptor has only the SCU role in a context where the requestor took the SCP's."""
    acceptor = Acceptor(associate=False)
    proposal = negotiation.Proposal(
        "SCP", "SCU", (negotiation.PresentationContext(VERIFICATION),), roles={VERIFICATION: "scp"}
    )
    acceptor.protocol.dataReceived(negotiation.propose(proposal).encode())
    acceptor.transport.clear()
    return acceptor.answer_to(echo())


def overrun() -> str:
    never: Deferred[Any] = Deferred()
    return Acceptor(Faulty(lambda: never)).answer_to(echo(), echo(MessageID=2))


def used_twice() -> str:
    """A message ID in use, with a window that has room for it."""
    never: Deferred[Any] = Deferred()
    acceptor = Acceptor(Faulty(lambda: never), associate=False)
    contexts = (negotiation.PresentationContext(VERIFICATION),)
    proposal = negotiation.Proposal("SCP", "SCU", contexts, window=negotiation.Window(8, 1))
    acceptor.protocol.dataReceived(negotiation.propose(proposal).encode())
    acceptor.transport.clear()
    return acceptor.answer_to(echo(), echo())


def another_sop_class() -> str:
    store = command(
        CommandField=commands.C_STORE_RQ,
        MessageID=1,
        Priority=0,
        AffectedSOPClassUID="1.2.840.10008.5.1.4.1.1.2",
        AffectedSOPInstanceUID="1.2.3",
        CommandDataSetType=commands.DATA_SET_FOLLOWS,
    )
    return Acceptor().answer_to(store, fragment(b"", is_command=False))


def client_certificate(*, foreign: bool = False, **validity: timedelta) -> str:
    with tempfile.TemporaryDirectory() as name:
        ours = Authority(Path(name))
        theirs = Authority(Path(name), "Strange CA") if foreign else ours
        server, client = ours.issue("server", "localhost"), theirs.issue("client", **validity)
        profile = profile_named("bcp195-rfc8996")

        def files(pair: Pair) -> Files:
            return Files.of(str(pair.key), str(pair.cert), str(ours.cert))

        outcome = shake_hands(
            ClientConnections(profile, files(client), "localhost", verify="required"),
            ServerConnections(profile, files(server), verify="required"),
        )
    assert outcome.server_refusal
    return "a TLS alert" if "alert" in str(outcome.client_error) else str(outcome.client_error)


ACCEPTOR_EVENTS: dict[str, Callable[[], str]] = {
    "a PDU of unknown type": lambda: Acceptor().answer_to(b"\x08"),
    "a P-DATA-TF before the association request": lambda: Acceptor(associate=False).answer_to(
        echo()
    ),
    "a P-DATA-TF longer than offered": lambda: Acceptor().answer_to(b"\x04\x00\x7f\xff\xff\xff"),
    "a message in a context that was not accepted": lambda: Acceptor().answer_to(echo(context=5)),
    "a data set without a command": lambda: Acceptor().answer_to(
        fragment(b"1234", is_command=False)
    ),
    "a command set without end": lambda: Acceptor().answer_to(
        *[fragment(bytes(60_000), last=False)] * 2
    ),
    "a command set that is none": lambda: Acceptor().answer_to(fragment(b"no command set")),
    "a request without a message ID": lambda: Acceptor().answer_to(echo(MessageID=None)),
    "a response to nothing that was asked": lambda: Acceptor().answer_to(response()),
    "one operation more than the window allows": overrun,
    "a message ID that is in use": used_twice,
    "an operation that does not exist": lambda: Acceptor().answer_to(echo(CommandField=0x0040)),
    "an operation in a role that was not agreed": role_not_agreed,
    "an operation that the handler does not serve": lambda: Acceptor().answer_to(
        echo(CommandField=commands.N_GET_RQ)
    ),
    "a C-STORE, C-FIND, C-MOVE or C-GET without a data set": lambda: Acceptor().answer_to(
        find(CommandDataSetType=commands.NO_DATA_SET)
    ),
    "an identifier without end": identifier_without_end,
    "a C-FIND whose handler raises": lambda: Acceptor().answer_to(
        find(), fragment(b"", context=3, is_command=False)
    ),
    "a C-ECHO whose handler raises": lambda: Acceptor(Faulty(raising)).answer_to(echo()),
    "a C-ECHO whose handler returns nonsense": lambda: Acceptor(Faulty("nonsense")).answer_to(
        echo()
    ),
    "a C-STORE of another SOP class than its presentation context's": another_sop_class,
    "a client certificate that has expired": lambda: client_certificate(
        begins=timedelta(-3), ends=timedelta(-2)
    ),
    "a client certificate of an authority that is not trusted": lambda: client_certificate(
        foreign=True
    ),
    "a cancel for nothing that is under way": lambda: Acceptor().answer_to(
        command(CommandField=commands.C_CANCEL_RQ, MessageIDBeingRespondedTo=5)
    ),
}


@pytest.mark.parametrize(
    ("sent", "got"), table("What becomes of bad requests"), ids=lambda text: text[:60]
)
def test_a_bad_request_gets_what_the_table_says(sent: str, got: str) -> None:
    assert ACCEPTOR_EVENTS[sent]() == got


def test_what_is_not_sent_when_the_peer_breaks_the_protocol_is_not_sent_any_more() -> None:
    acceptor = Acceptor()
    assert acceptor.answer_to(echo() + b"\x08") == "A-ABORT, reason 1"
    acceptor = Acceptor()
    assert acceptor.answer_to(echo() + echo(context=5)) == "A-ABORT, reason 5"


@pytest.mark.parametrize(
    ("behind", "answered"),
    [
        (pdu.Abort(0, 0).encode(), b""),
        (b"\x09", pdu.Abort(2, 1).encode()),
        (pdu.ReleaseRQ().encode(), pdu.Abort(2, 2).encode()),
        (echo(), pdu.Abort(2, 2).encode()),
    ],
    ids=["abort", "unknown PDU", "release request", "data"],
)
def test_what_comes_in_one_piece_with_the_request_ends_it_before_it_is_answered(
    behind: bytes, answered: bytes
) -> None:
    acceptor = Acceptor(associate=False)
    contexts = (negotiation.PresentationContext(VERIFICATION),)
    request = negotiation.propose(negotiation.Proposal("SCP", "SCU", contexts)).encode()
    acceptor.protocol.dataReceived(request + behind)
    assert acceptor.transport.value() == answered


def test_every_bad_request_tried_is_in_the_table() -> None:
    assert set(ACCEPTOR_EVENTS) == {row[0] for row in table("What becomes of bad requests")}
