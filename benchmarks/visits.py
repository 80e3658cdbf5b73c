"""Associations opened and released by one process, many at once: as lean as `raw_peer`, with epoll.

seconds, times = visits(port, 1000, 32)     # 32 of them under way until the last has begun

Each is a connection of its own: A-ASSOCIATE-RQ, the acceptance, A-RELEASE-RQ, the reply, closed;
another begins when one has ended. Whatever else comes, a rejection or an end of the connection,
fails all.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from dataclasses import dataclass
from time import perf_counter

from benchmarks import wire
from benchmarks.raw_peer import ASSOCIATION_REQUEST, ECHO_CONTEXT, STORE_CONTEXT, TIMEOUT

_HEADER = 6


@dataclass(slots=True)
class _Visit:
    """One association under way, since ``begun``; ``awaited`` is the type of the PDU to come."""

    connection: socket.socket
    begun: float
    awaited: int = wire.ASSOCIATE_AC
    came: bytes = b""


def visits(port: int, count: int, at_once: int) -> tuple[float, list[float]]:
    """Open and release ``count`` associations with a server on loopback, ``at_once`` at a time; the
    seconds that all of it took, and those that each took, smallest first.

    Raises `WireError` where one of them is not accepted or not released.
    """
    crowd = _Visits(port, count)
    try:
        return crowd.make(at_once)
    finally:
        crowd.close()


class _Visits:
    def __init__(self, port: int, count: int) -> None:
        self._address = ("127.0.0.1", port)
        self._left = count
        self._poll = select.epoll()
        self._under_way: dict[int, _Visit] = {}
        self._times: list[float] = []
        self._acceptance = b""

    def make(self, at_once: int) -> tuple[float, list[float]]:
        begun = perf_counter()
        for _ in range(at_once):
            self._begin()
        while self._under_way:
            events = self._poll.poll(TIMEOUT)
            if not events:
                raise wire.WireError(f"no answer in {TIMEOUT:.0f} s")
            for descriptor, event in events:
                visit = self._under_way[descriptor]
                if event & select.EPOLLOUT:
                    self._connected(visit)
                else:
                    self._read(visit)
        return perf_counter() - begun, sorted(self._times)

    def close(self) -> None:
        for visit in self._under_way.values():
            visit.connection.close()
        self._poll.close()

    def _begin(self) -> None:
        if not self._left:
            return
        self._left -= 1
        visit = _Visit(socket.socket(), perf_counter())
        visit.connection.setblocking(False)
        visit.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._under_way[visit.connection.fileno()] = visit
        status = visit.connection.connect_ex(self._address)
        if status not in (0, errno.EINPROGRESS):
            raise OSError(status, os.strerror(status))
        self._poll.register(visit.connection.fileno(), select.EPOLLOUT)

    def _connected(self, visit: _Visit) -> None:
        status = visit.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            raise OSError(status, os.strerror(status))
        visit.connection.send(ASSOCIATION_REQUEST)
        self._poll.modify(visit.connection.fileno(), select.EPOLLIN)

    def _read(self, visit: _Visit) -> None:
        octets = visit.connection.recv(4096)
        if not octets:
            raise wire.WireError("the server closed the connection")
        visit.came += octets
        if len(visit.came) < _HEADER or len(visit.came) < _HEADER + _length(visit.came):
            return
        if visit.came[0] != visit.awaited:
            raise wire.WireError(f"a PDU of type {visit.came[0]} instead of {visit.awaited}")
        if visit.awaited == wire.ASSOCIATE_AC:
            self._accepted(visit)
        else:
            self._released(visit)

    def _accepted(self, visit: _Visit) -> None:
        if visit.came != self._acceptance:
            accepted, _ = wire.accepted_contexts(visit.came[_HEADER:])
            if set(accepted) != {ECHO_CONTEXT, STORE_CONTEXT}:
                raise wire.WireError(f"of the presentation contexts {set(accepted)} were accepted")
            self._acceptance = visit.came
        visit.awaited, visit.came = wire.RELEASE_RP, b""
        visit.connection.send(wire.RELEASE_REQUEST)

    def _released(self, visit: _Visit) -> None:
        del self._under_way[visit.connection.fileno()]
        visit.connection.close()
        self._times.append(perf_counter() - visit.begun)
        self._begin()


def _length(pdu: bytes) -> int:
    return int.from_bytes(pdu[2:_HEADER], "big")
