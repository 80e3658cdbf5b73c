"""The TLS transport of ours: it looks at the first octet, and knows why it ended.

What is not TLS is known from its first octet, however slowly the rest comes, and closed at once.
The words are for `protocol.AssociationProtocol`, which asks for them when the connection is lost.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IProtocolFactory
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from twisted_dimse.tls import words
from twisted_dimse.tls.connections import ClientConnections, Handshake, ServerConnections

# A fatal alert, protocol_version, in a TLS 1.2 record (RFC 8446 6): what any TLS client and our own
# plain one understand.
_NOT_TLS = bytes.fromhex("15 03 03 00 02 02 46")
_PIECE = 65536  # octets that are encrypted before they are sent


class TLSTransport(BufferingTLSTransport):
    """TLS for one connection. Its connection creator sets `handshake`."""

    transport: Any
    handshake: Handshake
    strange = ""  # what the peer speaks instead of TLS
    _untouched = True
    _all_written = False  # what was to go out before the handshake was done

    def dataReceived(self, data: bytes) -> None:
        if self._untouched and data:
            self._untouched = False
            self.strange = words.not_tls(data[:5], requestor=self.handshake.requestor)
            if self.strange and not self.handshake.requestor:
                self.transport.write(_NOT_TLS)
        if self.strange:
            self.transport.loseConnection()
        else:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        """Have the records of one read, of 16 KiB each, taken together where that is known."""
        protocol = self.wrappedProtocol
        gather = getattr(protocol, "gather", None)
        if gather is not None:
            gather()
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if gather is not None:
            protocol.take_gathered()

    def write_now(self, data: bytes) -> None:
        """Encrypt and send, as far as the network takes it, instead of in the next turn of the
        reactor, and piece by piece: the peer decrypts one while we encrypt the next."""
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            if self._encrypt(piece):
                self._send()
            else:
                self.write(piece)  # type: ignore[no-untyped-call]

    def _encrypt(self, data: bytes) -> bool:
        """Write ``data`` to the transport; False where that is not for us to do."""
        connection = self.connection
        if not self._all_written:
            self._aggregator.flush()
            self._all_written = self.handshake_done and not self._appSendBuffer
        if connection is None or not self._all_written:
            return False
        try:
            connection.sendall(data)
            self.transport.write(connection.bio_read(2 * _PIECE))
        except SSL.Error:
            return False
        return True

    def _send(self) -> None:
        transport = self.transport
        # A wrapper knows no `doWrite`, and a connection that ends is for the reactor to close.
        if (
            isinstance(transport, FileDescriptor)
            and transport.connected
            and not transport.disconnecting
        ):
            transport.doWrite()

    @property
    def bufferSize(self) -> int:
        """Octets that are read from the network at once."""
        return int(self.transport.bufferSize)

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        self.transport.bufferSize = size

    @property
    def connection(self) -> Any:
        """OpenSSL's connection; None once all is over."""
        return self.getHandle()  # type: ignore[no-untyped-call]

    @property
    def handshake_done(self) -> bool:
        """Whether the peer has proven that it read all of the handshake."""
        connection = self.connection
        return connection is not None and connection.get_peer_finished() is not None

    def why_lost(self, reason: Failure, *, heard: bool) -> str:
        """Why the connection ended, in words; empty where TLS has nothing to say about it.

        ``heard`` says that the peer's own octets came through.
        """
        handshake, done = self.handshake, self.handshake_done
        known = self.strange or handshake.refusal
        if known:
            return known
        if reason.check(SSL.Error):
            return self._failed(reason.value)
        if heard or (self._untouched and not handshake.requestor):
            return ""
        return words.hung_up(
            requestor=handshake.requestor,
            handshake_done=done,
            own_certificate=handshake.own_certificate,
        )

    def _failed(self, error: BaseException | None) -> str:
        handshake = self.handshake
        connection = self.connection
        return words.tls_failure(
            words.reasons(error),
            requestor=handshake.requestor,
            certificate_seen=connection is not None
            and connection.get_peer_certificate(as_cryptography=True) is not None,
            own_certificate=handshake.own_certificate,
            allowed=handshake.allowed,
        )


class TLSFactory(TLSMemoryBIOFactory):
    """Wraps the protocols of a factory in `TLSTransport`."""

    protocol = TLSTransport

    def __init__(
        self,
        connections: ServerConnections | ClientConnections,
        wrapped: IProtocolFactory,
        reactor: Any,
    ) -> None:
        creator: Any = connections
        super().__init__(creator, isinstance(connections, ClientConnections), wrapped, reactor)
