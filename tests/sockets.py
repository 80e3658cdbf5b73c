"""Associations over real sockets whose buffers are small, in turns that the test orders.

`Sockets` is a `memory.World` with other connections: what its sockets are ready for is done by
``select``, and its time is that of a `Clock` all the same. It shows the way past the transport, by
``sendmsg``, with partial sends.

    with Sockets(octets=4096) as world:
        requestor, acceptor = world.associate(Serving())
        world.result(requestor.store(source(size=1_000_000)))
"""

from __future__ import annotations

import select
import socket
from typing import Any

from memory import Address, Reactor, World
from twisted.internet import error as transport_errors
from twisted.internet import tcp
from twisted.python.failure import Failure


class Loop(Reactor):
    """A reactor of ``select``, without time: `turn` does what the sockets are ready for."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def turn(self, patience: float = 0.0) -> bool:
        moved = super().turn()
        ready = select.select(self.readers, self.writers, [], patience)
        # In the order of their making, so that each run is the same.
        for selectable in sorted(ready[0], key=lambda one: one.number):
            if selectable in self.readers:
                self._done(selectable, selectable.doRead(), reading=True)
        for selectable in sorted(ready[1], key=lambda one: one.number):
            if selectable in self.writers:
                self._done(selectable, selectable.doWrite(), reading=False)
        return moved or bool(ready[0] or ready[1])

    def _done(self, selectable: Any, why: Any, *, reading: bool) -> None:
        if why is None:
            return
        self.removeReader(selectable)
        if reading and isinstance(why, transport_errors.ConnectionDone):
            selectable.readConnectionLost(Failure(why))
            return
        self.removeWriter(selectable)
        selectable.connectionLost(Failure(why))


class Transport(tcp.Connection):
    """One end of a real connection. `most` is the most that it has held."""

    def __init__(self, reactor: Loop, skt: socket.socket, protocol: Any, number: int) -> None:
        super().__init__(skt, protocol, reactor)
        self.connected = True
        self.number = number
        self.most = 0
        self.logstr = f"end {number}"

    def getPeer(self) -> Any:
        return Address()

    getHost = getPeer

    def setTcpNoDelay(self, enabled: bool) -> None:
        if self.socket.family == socket.AF_INET:
            super().setTcpNoDelay(enabled)

    def write(self, data: bytes) -> None:
        super().write(data)
        self.most = max(self.most, self._tempDataLen + len(self.dataBuffer) - self.offset)


class Sockets(World):
    """A world whose connections are sockets that take some ``octets`` at a time.

    They are a pair of the machine's own; those of TCP have acknowledgements and windows, which
    take some real time.
    """

    def __init__(self, octets: int = 4096, kind: str = "unix") -> None:
        super().__init__()
        self.clock: Any = Loop()
        self.kind = kind
        self.octets = octets
        self._patience = 0.002 if kind == "unix" else 0.3
        self.transports: list[Transport] = []
        self.records: list[bytearray] = []

    def join(self, requestor: Any, acceptor: Any) -> Any:
        ends = list(zip(reversed(self._pair()), (acceptor, requestor), strict=True))
        for skt, protocol in ends:
            skt.setblocking(False)
            record = bytearray()
            self.records.append(record)
            transport = Transport(self.clock, skt, protocol, len(self.transports))
            self.transports.append(transport)
            self.associations.append(protocol.user)
            self._keep_record(protocol, record)
        for transport, (_, protocol) in zip(self.transports[-2:], ends, strict=True):
            transport.startReading()
            protocol.makeConnection(transport)
        return None

    def _keep_record(self, protocol: Any, record: bytearray) -> None:
        receive = protocol.dataReceived

        def data_received(data: bytes) -> None:
            if self.recording:
                record.extend(data)
            receive(data)

        protocol.dataReceived = data_received

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        if self.kind == "unix":
            pair = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as server:
                pair = socket.create_connection(server.getsockname()), server.accept()[0]
        for one in pair:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.octets)
        return pair

    def run(self, most: int = 200_000) -> None:
        for _ in range(most):
            if not self.clock.turn() and not self.clock.turn(self._patience):
                return
        raise AssertionError("it never comes to rest")

    def end(self) -> None:
        for transport in self.transports:
            if transport.connected:
                transport.abortConnection()
        self.run()

    def check(self) -> None:
        super().check()
        assert not self.clock.readers
        assert not self.clock.writers

    def received(self, number: int) -> bytes:
        """What came at one end: 0 is the acceptor of the first association, 1 its requestor."""
        return bytes(self.records[number])
