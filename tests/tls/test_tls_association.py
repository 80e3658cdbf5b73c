"""Associations over TLS, whole and in memory: from `connect` to a `Handler`, under a `Clock`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import raw
from certificates import Authority, Pair
from memory import CT
from OpenSSL import SSL
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.test.iosim import FakeTransport, IOPump
from twisted.test.iosim import connect as join
from zope.interface import implementer

from twisted_dimse import (
    VERIFICATION,
    AssociationFactory,
    ConnectionFailed,
    ConnectionLost,
    Handler,
    Peer,
    connect,
    telemetry,
)
from twisted_dimse.datastream import BytesSource, DiscardingSink
from twisted_dimse.tls.certificates import Files
from twisted_dimse.tls.connections import ClientConnections
from twisted_dimse.tls.profiles import profile_named
from twisted_dimse.tls.transport import TLSFactory

TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
ALERT = b"\x15\x03\x03\x00\x02\x02\x46"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("association"))


@pytest.fixture(scope="module")
def server_pair(authority: Authority) -> Pair:
    return authority.issue("server", "localhost")


@pytest.fixture(scope="module")
def client_pair(authority: Authority) -> Pair:
    return authority.issue("modality")


@pytest.fixture
def log() -> Iterator[list[str]]:
    """The lines about associations."""
    lines: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "twisted_dimse.ending":
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def events() -> Iterator[list[Any]]:
    found: list[Any] = []
    unsubscribe = telemetry.subscribe(found.append)
    yield found
    unsubscribe()


class Noting(Handler):
    """Notes what it sees of its callers."""

    def __init__(self) -> None:
        self.subjects: list[str | None] = []
        self.ends: list[Any] = []

    def associate(self, request: Any) -> None:
        certificate = request.association.peer_certificate
        self.subjects.append(certificate and certificate.subject.rfc4514_string())

    def released(self, request: Any) -> None:
        self.ends.append(request.peer_certificate)


class Node:
    """A server of ours on an endpoint string, in the memory of a reactor that stands still."""

    def __init__(self, endpoint: str, **options: Any) -> None:
        self.clock = MemoryReactorClock()
        self.handler = Noting()
        factory = AssociationFactory(self.handler, reactor=self.clock, **options)
        serverFromString(self.clock, endpoint).listen(factory)
        self._factory = self.clock.tcpServers[0][1]

    def accept(self) -> Any:
        """The server's end of a new connection."""
        return self._factory.buildProtocol(None)

    def hear(self, *chunks: bytes) -> FakeTransport:
        """The server's transport after a client has sent this and nothing more."""
        protocol = self.accept()
        transport = FakeTransport(protocol, True)
        protocol.makeConnection(transport)
        for chunk in chunks:
            if not transport.disconnecting:
                transport.bufferReceived(chunk)
            self.clock.advance(0)
        return transport


def ended(transport: FakeTransport) -> FakeTransport:
    """The same transport, when its end is known above it."""
    assert transport.disconnecting
    transport.reportDisconnect()
    return transport


@implementer(IStreamClientEndpoint)
class Joined:
    """A client endpoint that ends at a `Node`, through TLS where it has ``connections``."""

    def __init__(self, node: Node, connections: ClientConnections | None) -> None:
        self._node = node
        self._connections = connections
        self.pump: IOPump | None = None

    def connect(self, factory: Any) -> Deferred[Any]:
        clock = self._node.clock
        wrapped = (
            factory if self._connections is None else TLSFactory(self._connections, factory, clock)
        )
        client, server = wrapped.buildProtocol(None), self._node.accept()
        ends = FakeTransport(server, True), FakeTransport(client, False)
        self.pump = join(server, ends[0], client, ends[1], greet=False, clock=clock)
        return succeed(getattr(client, "wrappedProtocol", client))


def speaking(
    authority: Authority,
    pair: Pair | None = None,
    host: str = "localhost",
    profile: str = "bcp195-rfc8996",
) -> ClientConnections:
    """TLS as a client speaks it that trusts an authority."""
    own = (str(pair.key), str(pair.cert)) if pair else ("", "")
    files = Files(*own, str(authority.cert))
    return ClientConnections(profile_named(profile), files, host, verify="required")


def calling(
    node: Node, connections: ClientConnections | None, sop_class: str = VERIFICATION
) -> tuple[Any, IOPump]:
    """Connect to a node, through TLS or not; the Deferred of it, and what carries the octets."""
    endpoint = Joined(node, connections)
    connecting = connect(Peer("PACS", endpoint), contexts=[sop_class], reactor=node.clock)
    assert endpoint.pump is not None
    endpoint.pump.flush()
    return connecting, endpoint.pump


def result(deferred: Deferred[Any]) -> Any:
    """What a Deferred has fired with, failures as they are."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "it has not fired"
    return results[0]


def error(deferred: Deferred[Any]) -> BaseException:
    failure = result(deferred)
    assert isinstance(failure.value, BaseException)
    return failure.value


# --- associations


def test_an_association_over_tls_is_made_used_and_released(
    authority: Authority, server_pair: Pair, events: list[Any], log: list[str]
) -> None:
    node = Node(f"dicomtls:0:{server_pair.words}")
    connecting, pump = calling(node, speaking(authority))
    association = result(connecting)
    echoing = Deferred.fromCoroutine(_echo_and_release(association))
    pump.flush()
    assert result(echoing) == 0
    assert node.handler.subjects == [None]
    negotiated = [event for event in events if isinstance(event, telemetry.TLSNegotiated)]
    assert sorted(event.peer_has_certificate for event in negotiated) == [False, True]
    assert {event.version for event in negotiated} == {"TLSv1.3"}
    assert all(event.cipher == "TLS_AES_256_GCM_SHA384" for event in negotiated)
    assert all(": released after 1 message" in line for line in log)


async def _echo_and_release(association: Any) -> int:
    response = await association.echo()
    await association.release()
    return int(response.status)


class Slices(DiscardingSink):
    """Notes the octets of the slices that come together."""

    def __init__(self) -> None:
        self.octets: list[int] = []

    def write_slices(self, slices: list[bytes | memoryview]) -> None:
        self.octets.append(sum(map(len, slices)))


def test_the_records_of_one_read_are_taken_together(
    authority: Authority, server_pair: Pair
) -> None:
    node = Node(f"dicomtls:0:{server_pair.words}")
    sink = Slices()
    node.handler.store_sink = lambda _request: sink  # type: ignore[method-assign]
    connecting, pump = calling(node, speaking(authority), CT)
    association = result(connecting)
    size = 200_000
    image = BytesSource(CT, "1.2.3", association.accepted[0].transfer_syntax, bytes(size))
    storing = association.store(image)
    pump.flush()
    assert result(storing).status == 0
    assert sum(sink.octets) == size
    assert max(sink.octets) > 3 * 16384  # of a record
    association.release()
    pump.flush()


def test_what_comes_with_the_end_of_tls_in_one_read_still_counts(
    authority: Authority, server_pair: Pair, log: list[str]
) -> None:
    node = Node(f"dicomtls:0:{server_pair.words}")
    connecting, pump = calling(node, speaking(authority))
    association = result(connecting)
    association.abort()
    association.protocol.transport.loseConnection()
    pump.flush()
    ours, theirs = log
    assert "association aborted by us" in ours
    assert "association aborted by the peer" in theirs


def test_a_handler_sees_the_certificate_of_its_caller(
    authority: Authority, server_pair: Pair, client_pair: Pair
) -> None:
    node = Node(f"dicomtls:0:{server_pair.words}:ca={authority.cert}")
    connecting, pump = calling(node, speaking(authority, client_pair))
    association = result(connecting)
    assert association.peer_certificate.subject.rfc4514_string() == "CN=server"
    association.release()
    pump.flush()
    assert node.handler.subjects == ["CN=modality"]
    assert len(node.handler.ends) == 1
    assert association.peer_certificate is None  # the connection is gone


# --- what a client is told


def test_a_wrong_host_name_fails_the_connection_with_the_names_that_there_are(
    authority: Authority, server_pair: Pair, log: list[str]
) -> None:
    connecting, _ = calling(
        Node(f"dicomtls:0:{server_pair.words}"), speaking(authority, host="pacs.example")
    )
    failed = error(connecting)
    assert isinstance(failed, ConnectionFailed)
    assert "its certificate is for localhost and not for pacs.example" in str(failed)
    assert str(failed).startswith("no connection to PACS@")
    assert len(log) == 2
    assert any("Is our certificate for the name that it called?" in line for line in log)


def test_a_peer_that_asks_for_a_certificate_says_so(
    authority: Authority, server_pair: Pair, log: list[str]
) -> None:
    node = Node(f"dicomtls:0:{server_pair.words}:ca={authority.cert}")
    connecting, _ = calling(node, speaking(authority))
    assert "it asks for a certificate of ours. Give --cert FILE" in str(error(connecting))
    assert any("it sent no certificate, and verify=required asks for one" in line for line in log)


def test_no_common_version_is_told_to_both(
    authority: Authority, server_pair: Pair, log: list[str]
) -> None:
    node = Node(f"dicomtls:0:{server_pair.words}:profile=bcp195-extended")
    connections = speaking(authority)
    connections._context.set_min_proto_version(SSL.TLS1_3_VERSION)
    connecting, _ = calling(node, connections)
    text = str(error(connecting))
    assert "it shares no version of TLS with us. We allow TLS 1.2 or 1.3" in text
    assert any("We allow TLS 1.2 with the suites of bcp195-extended" in line for line in log)


def test_a_plain_peer_is_named_by_a_client_that_speaks_tls(authority: Authority) -> None:
    connecting, _ = calling(Node("tcp:0"), speaking(authority))
    assert "it speaks plain DICOM on this port. Ask without TLS" in str(error(connecting))


def test_a_peer_that_speaks_tls_is_named_by_a_plain_client(server_pair: Pair) -> None:
    connecting, _ = calling(Node(f"dicomtls:0:{server_pair.words}"), None)
    failed = error(connecting)
    assert isinstance(failed, ConnectionFailed)
    assert "it speaks TLS on this port. Say --tls" in str(failed)


def test_a_peer_that_hangs_up_on_a_hello_is_told_of(authority: Authority) -> None:
    node = Node("tcp:0", timeouts=None)
    endpoint = Joined(node, speaking(authority, profile="compatible"))
    connecting = connect(Peer("PACS", endpoint), reactor=node.clock)
    assert endpoint.pump is not None
    endpoint.pump.clientIO.reportDisconnect()
    failed = error(connecting)
    assert isinstance(failed, ConnectionFailed)
    assert "it hung up in the TLS handshake. Does it speak TLS on this port?" in str(failed)


def test_a_connection_that_breaks_later_is_lost_and_not_failed(
    authority: Authority, server_pair: Pair
) -> None:
    connecting, pump = calling(Node(f"dicomtls:0:{server_pair.words}"), speaking(authority))
    association = result(connecting)
    echoing = association.echo()
    pump.clientIO.bufferReceived(b"\x17\x03\x03\x00\x20" + bytes(32))  # no record of this session
    pump.flush()
    failed = error(echoing)
    assert isinstance(failed, ConnectionLost)
    assert not isinstance(failed, ConnectionFailed)
    assert "TLS failed (decryption failed or bad record mac" in str(failed)


# --- what a server finds out


@pytest.mark.parametrize(
    ("chunk", "said"),
    [
        (raw.associate_rq(), "plain DICOM on a port for TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP on a port for TLS"),
        (b"POST / HTTP/1.1\r\n\r\n", "HTTP on a port for TLS"),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", "a PROXY header on a port for TLS"),
        (b"\r\n\r\n\0\r\nQUIT\n", "a PROXY header on a port for TLS"),
        (b"\x0bMSH|^~\\&", "no TLS on a port for it (first octet 0BH)"),
    ],
    ids=["DICOM", "GET", "POST", "PROXY-1", "PROXY-2", "HL7"],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_what_is_not_tls_is_named_and_closed_at_once(
    chunk: bytes, said: str, step: int, server_pair: Pair, log: list[str]
) -> None:
    node = Node(f"dicomtls:0:{server_pair.words}")
    pieces = [chunk[at : at + step] for at in range(0, len(chunk), step)]
    if step == 1 and chunk.startswith(b"PROXY"):
        said = "HTTP on a port for TLS"  # of one octet no more can be known
    transport = ended(node.hear(*pieces))
    assert b"".join(transport.stream) == ALERT
    assert len(log) == 1
    assert f"nobody at an unnamed address: {said}" in log[0]


@pytest.mark.parametrize(
    ("chunk", "said"),
    [
        (TLS_HELLO, "TLS on a port for plain DICOM"),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP on a port for DICOM"),
        (b"\r\n\r\n\0\r\nQUIT\n", "a PROXY header on a port for DICOM"),
    ],
    ids=["TLS", "HTTP", "PROXY"],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_what_is_not_dicom_is_named_and_closed_at_once(
    chunk: bytes, said: str, step: int, log: list[str]
) -> None:
    node = Node("tcp:0")
    pieces = [chunk[at : at + step] for at in range(0, len(chunk), step)]
    transport = ended(node.hear(*pieces))
    assert b"".join(transport.stream)[:1] == b"\x07"  # an A-ABORT
    assert len(log) == 1
    assert f": {said}" in log[0]


class Talking(Protocol):
    """A client that says one thing as soon as it may."""

    def __init__(self, words: bytes) -> None:
        self._words = words

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._words)


def talk(node: Node, authority: Authority, words: bytes) -> IOPump:
    """Say something over TLS that is no DICOM."""
    endpoint = Joined(node, speaking(authority))
    factory = Factory.forProtocol(Protocol)
    factory.buildProtocol = lambda _addr: Talking(words)
    endpoint.connect(factory)
    assert endpoint.pump is not None
    endpoint.pump.flush()
    return endpoint.pump


def test_http_over_tls_is_http(authority: Authority, server_pair: Pair, log: list[str]) -> None:
    node = Node(f"dicomtls:0:{server_pair.words}")
    talk(node, authority, b"GET / HTTP/1.1\r\n\r\n")
    assert ": HTTP on a port for DICOM" in log[0]


def test_a_handshake_that_never_comes_is_ended_by_artim(server_pair: Pair, log: list[str]) -> None:
    node = Node(f"dicomtls:0:{server_pair.words}")
    transport = node.hear(TLS_HELLO)
    node.clock.advance(29)
    assert not transport.disconnecting
    node.clock.advance(2)
    assert ended(transport).disconnecting
    assert "no TLS handshake within 30 s" in log[0]
    assert not node.clock.getDelayedCalls()


def test_a_handshake_without_a_request_behind_it_is_ended_by_artim(
    authority: Authority, server_pair: Pair, log: list[str]
) -> None:
    node = Node(f"dicomtls:0:{server_pair.words}")
    pump = talk(node, authority, b"")
    node.clock.advance(31)
    pump.flush()
    assert "no A-ASSOCIATE-RQ within 30 s" in log[0]


def test_a_hello_without_an_end_is_told_of(server_pair: Pair, log: list[str]) -> None:
    node = Node(f"dicomtls:0:{server_pair.words}")
    node.hear(TLS_HELLO).reportDisconnect()
    assert "closed in the middle of the TLS handshake" in log[0]


# --- behind a balancer


def test_a_proxy_header_goes_before_tls(
    authority: Authority, server_pair: Pair, client_pair: Pair, log: list[str]
) -> None:
    node = Node(f"haproxy:dicomtls:0:{server_pair.words}:ca={authority.cert}")

    class Balanced(Joined):
        def connect(self, factory: Any) -> Deferred[Any]:
            connected = super().connect(factory)
            assert self.pump is not None
            self.pump.serverIO.bufferReceived(b"PROXY TCP4 192.0.2.7 10.0.0.2 4711 2762\r\n")
            return connected

    endpoint = Balanced(node, speaking(authority, client_pair))
    connecting = connect(Peer("PACS", endpoint), reactor=node.clock)
    assert endpoint.pump is not None
    endpoint.pump.flush()
    association = result(connecting)
    association.release()
    endpoint.pump.flush()
    assert node.handler.subjects == ["CN=modality"]
    assert any("DIMSE-SCU at 192.0.2.7 to PACS: released" in line for line in log)
