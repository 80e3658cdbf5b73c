"""TLS handshakes in memory, between OpenSSL's own connections."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from OpenSSL import SSL

from twisted_dimse.tls.connections import ClientConnections, ServerConnections


@dataclass
class Outcome:
    """How it went: OpenSSL's connections, each side's error if any, and what our sides say."""

    client: SSL.Connection
    server: SSL.Connection
    client_error: SSL.Error | None = None
    server_error: SSL.Error | None = None
    client_refusal: str = ""
    server_refusal: str = ""

    @property
    def succeeded(self) -> bool:
        return self.client_error is None and self.server_error is None

    @property
    def cipher(self) -> str | None:
        return self.client.get_cipher_name() if self.succeeded else None


def connection_of(side: Any) -> tuple[SSL.Connection, Any]:
    """A connection of a context, or of one of our connection creators with its `Handshake`."""
    if isinstance(side, SSL.Context):
        return SSL.Connection(side, None), SimpleNamespace(refusal="")
    transport = SimpleNamespace()
    if isinstance(side, ServerConnections):
        connection = side.serverConnectionForTLS(transport)
    else:
        assert isinstance(side, ClientConnections)
        connection = side.clientConnectionForTLS(transport)
    return connection, transport.handshake


def shake_hands(client_side: Any, server_side: Any) -> Outcome:
    """A whole handshake, and an octet each way after it."""
    client, client_handshake = connection_of(client_side)
    server, server_handshake = connection_of(server_side)
    client.set_connect_state()
    server.set_accept_state()
    outcome = Outcome(client, server)
    for _ in range(8):
        outcome.client_error = outcome.client_error or _advance(client)
        _carry(client, server)
        outcome.server_error = outcome.server_error or _advance(server)
        _carry(server, client)
    outcome.client_refusal = client_handshake.refusal
    outcome.server_refusal = server_handshake.refusal
    return outcome


def _advance(connection: SSL.Connection) -> SSL.Error | None:
    try:
        connection.do_handshake()
        connection.recv(1000)
    except SSL.WantReadError:
        return None
    except SSL.Error as error:
        return error
    return None


def _carry(source: SSL.Connection, target: SSL.Connection) -> None:
    try:
        while True:
            target.bio_write(source.bio_read(1 << 16))
    except SSL.WantReadError:
        return
