"""One of several processes behind the listening ports: what `master` starts.

It inherits the sockets, the shared numbers and the archive's lock, is told the options, and tells
its log by lines of JSON on standard output. Questions go over two pipes (`channel`). It ends as a
single process does, on SIGTERM or when the master asks for it; and at once where that is gone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol
from twisted.logger import globalLogBeginner, globalLogPublisher

from twisted_dimse import association
from twisted_dimse.archive.part import Part
from twisted_dimse.peer import Peer
from twisted_dimse.scp.channel import Channel
from twisted_dimse.scp.logs import JSONLines
from twisted_dimse.scp.options import Options
from twisted_dimse.scp.ports import Adopting, inherited
from twisted_dimse.scp.service import SCPService
from twisted_dimse.scp.shared import Shared
from twisted_dimse.server import AssociationFactory

# What the master gives: descriptors.
ASKED, ASKS, SHARED, FIRST_SOCKET = 3, 4, 5, 6

_INDEXED_WITHIN = 30.0  # seconds, by the other processes


class _Slots:
    """`server.Slots` of all processes together."""

    def __init__(self, shared: Shared, worker: int, most: int) -> None:
        self._shared = shared
        self._worker = worker
        self._most = most

    def take(self) -> bool:
        return self._shared.take(self._worker, self._most)

    def give(self) -> None:
        self._shared.give(self._worker)


class _Factory(AssociationFactory):
    """Tells the other processes how many connections there are."""

    def connected(self, count: int) -> None: ...

    def buildProtocol(self, addr: Any) -> Any:
        protocol = super().buildProtocol(addr)
        self.connected(len(self.associations))
        return protocol

    def forget(self, association: association.Association) -> None:
        super().forget(association)
        self.connected(len(self.associations))


class WorkerService(SCPService):
    """Serves what the others serve too. ``number`` counts workers from 1."""

    factory_class = _Factory

    def __init__(
        self,
        options: Options,
        number: int,
        shared: Shared,
        sockets: list[socket.socket],
        channel: Channel,
        reactor: Any,
    ) -> None:
        super().__init__(options, reactor)
        self._number = number
        self._shared = shared
        self._sockets = sockets
        self._channel = channel
        self._commitment: Any = None
        self._archive: Any = None
        self.part = Part(
            number,
            partial(shared.pending, number),
            partial(shared.waits, number),
            partial(shared.may_wait_elsewhere, number),
            self._others_up_to_date,
        )
        self.snapshot: Any = None
        self._taking = False

    def count(self) -> None:
        """Count for the status page from now on."""
        self.snapshot = self._counted()

    def take_connections(self) -> None:
        """The others may leave connections to this one from now on."""
        self._taking = True
        self._connected(len(self.factory.associations) if self.factory else 0)

    def stopService(self) -> Deferred[Any]:
        self._taking = False
        self._shared.retire(self._number)
        return super().stopService()

    def up_to_date(self) -> Deferred[None]:
        """Fires when what was acknowledged here is in the index."""
        return succeed(None) if self._archive is None else self._archive.indexer.up_to_date()

    def deliver(self, transaction: str | None) -> None:
        """Take over a report on storage commitment that another process could not deliver; None
        means all that are left."""
        if self._commitment is not None:
            self._deliver_now(self._commitment, transaction)

    def _factory(self) -> AssociationFactory:
        factory: Any = super()._factory()
        factory.slots = _Slots(self._shared, self._number, factory.max_associations)
        factory.connected = self._connected
        return factory

    def _connected(self, count: int) -> None:
        if self._taking:
            self._shared.connected(self._number, count)

    def _listen(self, option: str, text: str, factory: Any) -> None:
        self._listening = Adopting(self._reactor, self._sockets.pop(0), self._leaves)
        super()._listen(option, inherited(text), factory)

    def _leaves(self) -> bool:
        return self._shared.leave(self._number, self._reactor.seconds())

    def _opened(self, archive: Any, commitment: Any) -> None:
        self._archive, self._commitment = archive, commitment
        if self._number > 1:
            commitment.reporter.elsewhere = lambda report: self._channel.ask(
                "deliver", report.outcome.transaction_uid
            )

    def _deliver(self, commitment: Any) -> None:
        # After a death these may be under way in another process: a report may come twice, and
        # never not at all.
        if self._number == 1:
            super()._deliver(commitment)

    # --- what the others are told, and asked

    def _others_up_to_date(self) -> Deferred[Any]:
        others = [worker for worker in self._shared.are_pending() if worker != self._number]
        if not others:
            return succeed(None)
        asked = self._channel.ask("index", others)
        return asked.addTimeout(_INDEXED_WITHIN, self._reactor, _too_late)

    # --- what the master says already

    def _say_started(self) -> None: ...

    def _say_where(self, files: Any, left: int) -> None: ...

    def _say_draining(self, count: int) -> None: ...

    def _say_listening(self, option: str, port: Any) -> None: ...


def _too_late(_result: object, seconds: float) -> None:
    raise TimeoutError(f"the other processes have not indexed within {seconds:g} s")


class _Pipes(Protocol):
    """Takes what the master says."""

    channel: Channel

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def dataReceived(self, data: bytes) -> None:
        self.channel.received(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.channel.lost()
        self._worker.orphaned()


class Worker:
    """The process: its service, its channel to the master, and its end."""

    def __init__(self, told: Mapping[str, Any], reactor: Any) -> None:
        from twisted.internet import stdio

        self._reactor = reactor
        self._stopping = False
        self._counted = told["counted"]
        self._options = options_told(told["options"])
        pipes = _Pipes(self)
        answers: dict[str, Callable[[Any], Any]] = {
            "status": self._status,
            "index": self._index,
            "deliver": self._deliver,
            "end": self._end,
        }
        standard_io: Any = stdio.StandardIO
        transport = standard_io(pipes, stdin=ASKED, stdout=ASKS, reactor=reactor)
        self._channel = pipes.channel = Channel(transport.write, answers)
        shared = Shared(SHARED, told["workers"])
        association.number_from(shared.numbers())
        sockets = [socket.socket(fileno=FIRST_SOCKET + at) for at in range(told["sockets"])]
        self._service = WorkerService(
            self._options, told["number"], shared, sockets, self._channel, reactor
        )

    def start(self) -> None:
        """Serve."""
        self._service.startService()
        if self._counted:
            self._service.count()
        self._reactor.callWhenRunning(self._running)

    def stop(self) -> Deferred[Any]:
        """Let associations end, as ``--drain-timeout`` has it."""
        return self._service.stopService()

    def orphaned(self) -> None:
        """The master is gone."""
        self._options["drain-timeout"] = 0
        self._end()

    def _running(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: self._reactor.callFromThread(self._end))
        self._service.take_connections()
        ready = self._channel.ask("ready", os.getpid())
        ready.addErrback(lambda _: None)  # where the end comes first

    def _end(self, _value: None = None) -> None:
        if not self._stopping:
            self._stopping = True
            self._reactor.stop()

    def _status(self, _value: None) -> dict[str, Any]:
        now = self._service.snapshot()
        return {"counts": now.counts.to_json(), "associations": now.associations}

    def _deliver(self, transaction: str | None) -> None:
        self._service.deliver(transaction)

    def _index(self, _value: None) -> Deferred[None]:
        return self._service.up_to_date()


def options_told(values: Mapping[str, Any]) -> Options:
    """The options that the master has read."""
    options = Options()
    options.update(values)
    options["peer"] = {title: Peer(title, address) for title, address in values["peer"].items()}
    return options


def main() -> None:
    """Serve as the master tells in the first line that comes."""
    line = b""
    while not line.endswith(b"\n"):
        octet = os.read(ASKED, 1)
        if not octet:
            return  # the master is gone
        line += octet
    told = json.loads(line)
    if told["reactor"]:
        from twisted.application.reactors import installReactor

        installReactor(told["reactor"])
    from twisted.internet import reactor as installed

    reactor: Any = installed
    out = sys.__stdout__
    assert out is not None
    observer: Any = JSONLines(out)
    globalLogBeginner.beginLoggingTo([observer])
    worker = Worker(told, reactor)
    worker.start()
    reactor.addSystemEventTrigger("before", "shutdown", worker.stop)
    # What the reactor says of its end, the master's says as well.
    reactor.addSystemEventTrigger("after", "shutdown", globalLogPublisher.removeObserver, observer)
    reactor.run()
