"""Listening sockets that several processes accept from, for any endpoint string.

An endpoint listens by the methods of the reactor that it was given. In the master `Holding` stands
in for that: it binds as the reactor would, and accepts nothing. In a worker `Adopting` does: it
takes the inherited socket instead of binding one, and leaves to the endpoint what it wraps around
the factory, such as TLS and the PROXY header.

    holding = Holding(reactor)
    serverFromString(holding, text).listen(Factory())
    sockets = [port.fileno() for port in holding.ports]     # for the workers

    adopting = Adopting(reactor, socket, more_than_others)
    serverFromString(adopting, inherited(text)).listen(factory)
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from twisted_dimse.scp.shared import PATIENCE

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RECOVERY = 0.5  # seconds without accepting when the system has no more to give

_log = Logger()


class Holding:
    """A reactor whose ports are bound, and accept nothing; `ports` has them in order."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.ports: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, *args: Any, **options: Any) -> Any:
        return self._held(self._reactor.listenTCP(*args, **options))

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(self, *args: Any, **options: Any) -> Any:
        return self._held(self._reactor.listenUNIX(*args, **options))

    def adoptStreamPort(self, *args: Any) -> Any:
        return self._held(self._reactor.adoptStreamPort(*args))

    def _held(self, port: Any) -> Any:
        port.stopReading()
        self.ports.append(port)
        return port


class Adopting:
    """A reactor whose one port is that of ``listening``; see `SharedPort` for ``leaves``."""

    def __init__(self, reactor: Any, listening: socket.socket, leaves: Callable[[], bool]) -> None:
        self._reactor = reactor
        self._listening = listening
        self._leaves = leaves

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, _port: int, factory: Any, *_: Any, **_options: Any) -> Any:
        return self._adopt(factory)

    def listenSSL(
        self, _port: int, factory: Any, contextFactory: Any, *_: Any, **_options: Any
    ) -> Any:
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return self._adopt(TLSMemoryBIOFactory(contextFactory, False, factory))

    def listenUNIX(self, _address: str, factory: Any, *_: Any, **_options: Any) -> Any:
        return self._adopt(factory)

    def _adopt(self, factory: Any) -> SharedPort:
        port = SharedPort(self._reactor, self._listening, factory, self._leaves)
        port.startListening()
        return port


def inherited(endpoint: str) -> str:
    """The endpoint string for a process that has inherited the socket: only the first one can ask
    systemd for it."""
    return re.sub(r"(^|:)systemd:.*", r"\1tcp:0", endpoint)


@implementer(IListeningPort, IReadDescriptor)
class SharedPort:
    """Accepts from a listening socket that other processes accept from too, one connection a turn.

    Where ``leaves()`` is true, as when this process has more connections than another, a connection
    is left to the others for `PATIENCE`. Ending this port leaves the socket to the others.
    """

    def __init__(
        self,
        reactor: Any,
        listening: socket.socket,
        factory: Any,
        leaves: Callable[[], bool] = lambda: False,
    ) -> None:
        self._reactor = reactor
        self._socket = listening
        self._factory = factory
        self._leaves = leaves
        self._later: Any = None
        self._open = False
        listening.setblocking(False)

    def startListening(self) -> None:
        self._open = True
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        if self._open:
            self._open = False
            self._reactor.removeReader(self)
            if self._later is not None:
                self._later.cancel()
            self._socket.close()
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> Any:
        address = self._socket.getsockname()
        if self._socket.family == socket.AF_UNIX:
            return UNIXAddress(address)
        kind = IPv6Address if self._socket.family == socket.AF_INET6 else IPv4Address
        return kind("TCP", *address)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return type(self).__name__

    def connectionLost(self, _reason: object) -> None:
        """The reactor can read no more from it."""
        self.stopListening()

    def doRead(self) -> None:
        if self._leaves():
            self._pause(PATIENCE)
        else:
            self._accept()

    def _accept(self) -> None:
        try:
            accepted, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another process was faster, or the peer has given up
        except OSError as error:
            self._cannot_accept(error)
            return
        with accepted:
            accepted.setblocking(False)
            try:
                self._reactor.adoptStreamConnection(
                    accepted.fileno(), accepted.family, self._factory
                )
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._cannot_accept(error)
                else:  # the peer has gone already
                    _log.debug("a connection that ended at once: {error}", error=error)
            except Exception:  # which would end the port
                _log.failure("a connection could not be served")

    def _cannot_accept(self, error: OSError) -> None:
        if error.errno in _EXHAUSTED:
            _log.error("no connection can be accepted now: {error}", error=error)
            self._pause(_RECOVERY)
        else:  # the master has shut it, as at the end
            self._reactor.removeReader(self)

    def _pause(self, seconds: float) -> None:
        self._reactor.removeReader(self)
        self._later = self._reactor.callLater(seconds, self._resume)

    def _resume(self) -> None:
        self._later = None
        self._accept()
        if self._later is None and self._open:
            self._reactor.addReader(self)
