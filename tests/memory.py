"""Associations in memory: two transports joined by queues of octets, under one `Clock`.

No socket, no thread and no real time. What a test does not order does not happen, so that every run
is the same. Both sides go the way that users go: `connect` with a `Peer` whose address is an
endpoint, and an `AssociationFactory` behind it.

    with World() as world:                  # at its end nothing may be left, see `World.check`
        requestor, acceptor = world.associate(Serving())
        world.result(requestor.echo())      # runs until it fires
        world.link.to_requestor.stalled = True
        world.advance(60)

A `Link` is a connection with an `End` on either side and a `Wire` for each direction. A wire can
be stalled, cut into pieces of at most `World.most` octets, or break at any octet.
"""

from __future__ import annotations

import gc
import io
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Self

import raw
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_dimse import (
    PATIENT_ROOT,
    STUDY_ROOT,
    VERIFICATION,
    AssociationFactory,
    Handler,
    Peer,
    connect,
)
from twisted_dimse.association import Association
from twisted_dimse.datastream import BytesSource

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
STEP = "1.2.840.10008.3.1.2.3.3"  # Modality Performed Procedure Step
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.50"
CONTEXTS = (VERIFICATION, CT, *STUDY_ROOT[1:], *PATIENT_ROOT[1:], STEP)

BUFFER = 65536  # of a transport, as Twisted has it


class Wire:
    """One direction of a link: what was written and has not arrived.

    While `stalled` nothing arrives; `breaks_at` loses the connection once so many octets have come
    through, counted from the first. `record` is all that was written.
    """

    def __init__(self, sender: End, receiver: End) -> None:
        self.sender = sender
        self.receiver = receiver
        self.waiting = bytearray()
        self.record: Any = bytearray()
        self.delivered = 0
        self.most_waiting = 0
        self.stalled = False
        self.breaks_at: int | None = None

    def put(self, data: bytes) -> None:
        self.waiting += data
        if self.record is not None:
            self.record += data
        self.most_waiting = max(self.most_waiting, len(self.waiting))

    def turn(self, most: int | None = None) -> bool:
        """Deliver at most ``most`` octets, or the end of them; whether anything moved."""
        receiver, sender = self.receiver, self.sender
        if receiver.lost:
            return self._reset()
        if self.stalled or receiver.disconnecting:
            return False
        if receiver.paused and not (receiver.leaks and self.waiting):
            return False
        if not self.waiting:
            if sender.lost:
                receiver.connection_lost(ConnectionDone())
            return sender.lost
        return self._deliver(most)

    def _deliver(self, most: int | None) -> bool:
        size = len(self.waiting) if most is None else min(most, len(self.waiting))
        if self.breaks_at is not None:
            size = min(size, self.breaks_at - self.delivered)
        chunk = bytes(self.waiting[:size])
        del self.waiting[:size]
        self.delivered += size
        if chunk:
            self.receiver.receive(chunk)
        if self.delivered == self.breaks_at:
            self.receiver.link.lose()
        elif not self.waiting:
            self.sender.drained()
        return True

    def _reset(self) -> bool:
        """Octets for nobody: who sent them is told."""
        if not self.waiting or self.sender.lost:
            return False
        self.waiting.clear()
        self.sender.connection_lost(ConnectionLost())
        return True


@implementer(ITransport, IConsumer, IPushProducer)
class End:
    """The transport of one side. One that `leaks` delivers what it has although it is paused, as
    TLS may do."""

    def __init__(self, link: Link, name: str) -> None:
        self.link = link
        self.name = name
        self.protocol: Any = None
        self.out: Wire
        self.paused = False
        self.leaks = False
        self.lost = False
        self.disconnecting = False
        self.aborting = False
        self.producer: Any = None
        self.producer_paused = False
        self.buffer = BUFFER

    # what the protocol does

    def write(self, data: bytes) -> None:
        if self.lost or self.disconnecting or self.aborting:
            self.link.fault(f"{self.name} wrote {len(data)} octets after the end")
            return
        assert type(data) is bytes
        self.out.put(data)
        if len(self.out.waiting) > self.buffer and self.producer and not self.producer_paused:
            self.producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.aborting = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming, "a pull producer on a transport without a socket"
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> Any:
        return self.link.address

    def getHost(self) -> Any:
        return self.link.address

    # what happens to it

    def receive(self, data: bytes) -> None:
        self._tell(self.protocol.dataReceived, data)

    def drained(self) -> None:
        """The peer has all: more may be produced."""
        if self.producer is not None and self.producer_paused:
            self.producer_paused = False
            self._tell(self.producer.resumeProducing)

    def turn(self) -> bool:
        """End, if that was asked for and can be done; whether it was."""
        if self.lost:
            return False
        if self.aborting:
            self.out.waiting.clear()
            self.link.opposite(self).out.waiting.clear()
            self.connection_lost(ConnectionAborted())
            self.link.opposite(self).connection_lost(ConnectionLost())
            return True
        if self.disconnecting and not self.out.waiting:
            self.connection_lost(ConnectionDone())
            return True
        return False

    def connection_lost(self, reason: Exception) -> None:
        if self.lost:
            return
        self.lost = True
        if self.producer is not None:
            self._tell(self.producer.stopProducing)
        self._tell(self.protocol.connectionLost, Failure(reason))

    def _tell(self, function: Callable[..., object], *args: object) -> None:
        try:
            function(*args)
        except Exception:
            self.link.fault(f"{self.name}: {Failure().getTraceback()}")
            self.aborting = True


class Address:
    """Where the other side of a link is."""

    host = "10.0.0.1"
    port = 104


class Link:
    """One connection. `faults` is what no transport should see."""

    def __init__(self, requestor: Any, acceptor: Any, faults: list[str]) -> None:
        self.address = Address()
        self.requestor, self.acceptor = End(self, "requestor"), End(self, "acceptor")
        self.to_acceptor = Wire(self.requestor, self.acceptor)
        self.to_requestor = Wire(self.acceptor, self.requestor)
        self.requestor.out, self.acceptor.out = self.to_acceptor, self.to_requestor
        self.requestor.protocol, self.acceptor.protocol = requestor, acceptor
        self._faults = faults

    @property
    def wires(self) -> tuple[Wire, Wire]:
        return self.to_acceptor, self.to_requestor

    @property
    def ends(self) -> tuple[End, End]:
        return self.requestor, self.acceptor

    def opposite(self, end: End) -> End:
        return self.acceptor if end is self.requestor else self.requestor

    def open(self) -> None:
        for end in (self.acceptor, self.requestor):
            end.protocol.makeConnection(end)

    def turn(self, most: int | None = None) -> bool:
        """Move a little in either direction; whether anything moved."""
        moved = [wire.turn(most) for wire in self.wires]
        return any([*moved, *(end.turn() for end in self.ends)])

    def lose(self) -> None:
        """The network is gone: both sides find out, and what was on its way is lost."""
        for wire in self.wires:
            wire.waiting.clear()
        for end in self.ends:
            end.connection_lost(ConnectionLost())

    def fault(self, text: str) -> None:
        self._faults.append(text)


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Where a factory listens in a `World`. With `held` connections wait for `open`; with
    `refusal` they fail."""

    def __init__(self, world: World, factory: Any) -> None:
        self.factory = factory
        self.held = False
        self.refusal: Exception | None = None
        self.cancelled = 0
        self._world = world
        self._waiting: list[tuple[Any, Deferred[Any]]] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.refusal is not None:
            return fail(self.refusal)
        opened: Deferred[Any] = Deferred(self._cancelled)
        self._waiting.append((factory, opened))
        if not self.held:
            self.open()
        return opened

    def open(self) -> None:
        """Let those in that wait."""
        waiting, self._waiting = self._waiting, []
        for factory, opened in waiting:
            if not opened.called:
                requestor = factory.buildProtocol(Address())
                self._world.join(requestor, self.factory.buildProtocol(Address()))
                opened.callback(requestor)

    def _cancelled(self, _deferred: Deferred[Any]) -> None:
        self.cancelled += 1


class Serving(Handler):
    """Accepts `CONTEXTS`; answers as its keyword arguments say and keeps the requests.

    ``Serving(echo=0x0110, store=lambda request, dataset: 0)``: an answer, or a method.
    """

    contexts = CONTEXTS

    def __init__(self, **methods: Any) -> None:
        self.requests: list[Any] = []
        self.ends: list[BaseException | None] = []
        for name, answer in methods.items():
            setattr(self, name, self._method(answer))

    def _method(self, answer: Any) -> Callable[..., Any]:
        def method(request: Any, *args: Any) -> Any:
            self.requests.append(request)
            return answer(request, *args) if callable(answer) else answer

        return method

    def store(self, request: Any, dataset: Any) -> Any:
        self.requests.append(request)
        return 0

    def released(self, request: Any) -> None:
        assert request.reason is None
        self.ends.append(None)

    def aborted(self, request: Any) -> None:
        self.ends.append(request.reason)


class Reactor(Clock):
    """The clock, and every thread pool: their work is done in turns of the reactor, or, while
    `threads_held`, not yet."""

    def __init__(self) -> None:
        super().__init__()
        self.threads_held = False
        self._work: list[Callable[[], None]] = []

    @property
    def waiting_in_threads(self) -> int:
        """How many pieces of work have a thread and are not done."""
        return len(self._work)

    def getThreadPool(self) -> Reactor:
        return self

    def start(self) -> None:
        """As a pool: it has no threads to start."""

    def stop(self) -> None:
        """As a pool: it has none to stop."""

    def callFromThread(self, function: Callable[..., object], *args: Any, **kw: Any) -> None:
        function(*args, **kw)

    def callInThreadWithCallback(
        self, done: Callable[[bool, Any], object], function: Callable[..., Any], *args: Any
    ) -> None:
        def work() -> None:
            try:
                result, succeeded = function(*args), True
            except BaseException:
                result, succeeded = Failure(), False
            done(succeeded, result)

        self._work.append(work)

    def turn(self) -> bool:
        """Do what is due now; whether there was anything."""
        work: list[Callable[[], None]] = []
        if not self.threads_held:
            work, self._work = self._work, []
        for piece in work:
            piece()
        due = any(call.getTime() <= self.seconds() for call in self.calls)
        if due:
            self.advance(0)
        return due or bool(work)


_worlds = itertools.count()


def _freeze() -> None:
    """Let the collector skip what is there before a test, now and then, so that each `check` has
    little to do."""
    if next(_worlds) % 20 == 0:
        gc.collect()
        gc.freeze()


class World:
    """A clock and the links under it. Leaving it ends what is left and calls `check`.

    `failures` are the failures that were logged; a test that provokes one takes it with
    `logged`. `most` bounds the octets of one delivery. Without `recording`, nothing is kept of what
    goes over the links.
    """

    def __init__(self) -> None:
        self.clock = Reactor()
        self.links: list[Link] = []
        self.faults: list[str] = []
        self.failures: list[Any] = []
        self.events: list[Any] = []
        self.most: int | None = None
        self.recording = True
        self.factories: list[AssociationFactory] = []
        self.associations: list[Association] = []
        self._watched: list[Deferred[Any]] = []

    def __enter__(self) -> Self:
        _freeze()
        globalLogPublisher.addObserver(self._observe)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.end()
                self.check()
        finally:
            globalLogPublisher.removeObserver(self._observe)

    def _observe(self, event: Any) -> None:
        self.events.append(event)
        if event.get("log_failure") is not None:
            self.failures.append(event)

    # --- associations

    @property
    def link(self) -> Link:
        """The latest."""
        return self.links[-1]

    def join(self, requestor: Any, acceptor: Any) -> Link:
        """A connection between two protocols."""
        link = Link(requestor, acceptor, self.faults)
        self.links.append(link)
        if not self.recording:
            for wire in link.wires:
                wire.record = None
        for protocol in (requestor, acceptor):
            user = getattr(protocol, "user", None)
            if isinstance(user, Association):
                self.associations.append(user)
        link.open()
        return link

    def serve(self, handler: Any = None, **options: Any) -> Endpoint:
        """An `AssociationFactory`, and where to connect to it."""
        factory = AssociationFactory(handler or Serving(), reactor=self.clock, **options)
        self.factories.append(factory)
        return Endpoint(self, factory)

    def connect(self, endpoint: Any, **options: Any) -> Deferred[Association]:
        """`connect` to an endpoint, or to the `Peer` that it is."""
        peer = endpoint if isinstance(endpoint, Peer) else Peer("SERVER", endpoint)
        options.setdefault("contexts", CONTEXTS)
        return self.watch(connect(peer, reactor=self.clock, **options))

    def associate(
        self, serving: Any = None, server: dict[str, Any] | None = None, **options: Any
    ) -> tuple[Association, Association]:
        """An association with a new server: its requestor and its acceptor. ``serving`` is the
        server's handler, ``server`` its options; the rest goes to `connect`."""
        endpoint = self.serve(serving, **(server or {}))
        requestor: Association = self.result(self.connect(endpoint, **options))
        (acceptor,) = endpoint.factory.associations
        return requestor, acceptor

    def called(self, script: Script | None = None, **options: Any) -> tuple[Association, Script]:
        """An association of ours with a scripted acceptor."""
        script = script or Script()
        return self.result(self.connect(Endpoint(self, script), **options)), script

    def call(
        self, handler: Any = None, request: bytes = b"", **options: Any
    ) -> tuple[Association, Script]:
        """A scripted requestor, which sends ``request``, with a new server of ours."""
        endpoint = self.serve(handler, **options)
        script, acceptor = Script(), endpoint.factory.buildProtocol(Address())
        self.join(script, acceptor)
        if request:
            script.send(request)
        self.run()
        return acceptor.user, script

    # --- time and octets

    def run(self, most: int = 200_000) -> None:
        """Go on until nothing moves. Time stands still."""
        for _ in range(most):
            moved = [link.turn(self.most) for link in self.links]
            if not any([self.clock.turn(), *moved]):
                return
        raise AssertionError("it never comes to rest")

    def advance(self, seconds: float) -> None:
        """Let time go by, and all that it brings happen in order."""
        clock = self.clock
        end = clock.seconds() + seconds
        self.run()
        while calls := [call.getTime() for call in clock.calls if call.getTime() <= end]:
            clock.rightNow = max(min(calls), clock.rightNow)
            clock.advance(0)
            self.run()
        clock.rightNow = end
        self.run()

    # --- Deferreds

    def watch(self, deferred: Deferred[Any]) -> Deferred[Any]:
        """Have `check` see that a Deferred has fired."""
        self._watched.append(deferred)
        return deferred

    def result(self, deferred: Any) -> Any:
        """Run until a Deferred or a coroutine has its result; raises its failure."""
        if not isinstance(deferred, Deferred):
            deferred = Deferred.fromCoroutine(deferred)
        self.run()
        return outcome(deferred)

    # --- the end

    def end(self) -> None:
        """Cut every connection and let everything end."""
        for link in list(self.links):
            for wire in link.wires:
                wire.stalled = False
            link.lose()
        self.clock.threads_held = False
        self.run()

    def logged(self, kind: type[BaseException] = Exception) -> Any:
        """Take the one failure of a kind that was logged."""
        found = [e for e in self.failures if e["log_failure"].check(kind)]
        assert len(found) == 1, f"{len(found)} failures logged"
        self.failures.remove(found[0])
        return found[0]["log_failure"].value

    def lines(self, part: str) -> list[str]:
        """The log lines that contain ``part``."""
        lines = [formatEvent(event) for event in self.events if event.get("log_format")]
        return [line for line in lines if part in line]

    def check(self) -> None:
        """Nothing is left: no timer, operation, association, unfired Deferred or logged failure."""
        gc.collect()  # a failed Deferred that nobody looked at says so when it is collected
        assert not self.faults, "\n".join(self.faults)
        assert not self.failures, "\n".join(
            event["log_failure"].getTraceback() for event in self.failures
        )
        assert not self.clock.getDelayedCalls(), "a timer is left"
        assert not any(factory.associations for factory in self.factories), "a slot is taken"
        for association in self.associations:
            assert_over(association)
        unfired = [deferred for deferred in self._watched if not deferred.called]
        assert not unfired, f"{len(unfired)} Deferreds never fired"


def assert_over(association: Association) -> None:
    """An association has ended, and nothing of it lives on."""
    assert association.closed.called, "it does not know that it is over"
    assert not len(association._invocations), "operations are outstanding"
    assert not len(association._performer), "requests are unanswered"
    assert not association.protocol.sender.outgoing.queue, "messages are queued"


def outcome(deferred: Deferred[Any]) -> Any:
    """The result of a Deferred that has fired; raises its failure."""
    results: list[Any] = []

    def note(result: Any) -> Any:
        results.append(result)
        return None if isinstance(result, Failure) else result

    deferred.addBoth(note)
    assert results, "it has not fired"
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


def fired(deferred: Deferred[Any]) -> bool:
    """Whether a Deferred has its result, or its failure."""
    return bool(deferred.called and not deferred.paused)


# --- instances


def encoded(instance: str = "1.2.3.4", size: int = 0) -> bytes:
    """A small CT image in Explicit VR Little Endian, with ``size`` octets of pixels."""
    return raw.dataset(instance, size + (size & 1), sop_class=CT)


def source(instance: str = "1.2.3.4", size: int = 0) -> BytesSource:
    return BytesSource(CT, instance, EXPLICIT, encoded(instance, size))


class Tracked:
    """A source whose files are counted while they are open, and that can fail.

    ``fails_at`` is the octet at which reading raises; -1 lets `open` raise already. Without
    ``seekable`` the file only knows `read`.
    """

    open_files: ClassVar[int] = 0
    _kept: ClassVar[list[Any]] = []  # so that no file is closed by the collector

    def __init__(
        self,
        instance: str = "1.2.3.4",
        size: int = 0,
        *,
        fails_at: int | None = None,
        seekable: bool = True,
    ) -> None:
        self.sop_class_uid = CT
        self.sop_instance_uid = instance
        self.transfer_syntax = EXPLICIT
        self.data = encoded(instance, size)
        self.fails_at = fails_at
        self.seekable = seekable
        self.opened = 0

    def open(self) -> Any:
        if self.fails_at == -1:
            raise OSError(5, "cannot be opened")
        self.opened += 1
        return _File(self) if self.seekable else _Pipe(_File(self))


class _File(io.BytesIO):
    def __init__(self, source: Tracked) -> None:
        super().__init__(source.data)
        self._fails_at = source.fails_at
        Tracked.open_files += 1
        Tracked._kept.append(self)

    def readinto(self, buffer: Any) -> int:
        self._check(len(buffer))
        return super().readinto(buffer)

    def read(self, size: int | None = -1) -> bytes:
        self._check(size or 0)
        return super().read(size)

    def _check(self, size: int) -> None:
        if self._fails_at is not None and self.tell() + size > self._fails_at:
            raise OSError(5, "the disk is broken")

    def close(self) -> None:
        if not self.closed:
            Tracked.open_files -= 1
            Tracked._kept.remove(self)
        super().close()


class _Pipe:
    """A file that can only be read from front to end, and gives less than is asked for."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self.close = file.close

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, 1000))


# --- a peer that follows a script


class Script:
    """A side that does what the test says, written with `raw`, which shares nothing with the code.

    As an acceptor (it is its own factory) it accepts everything of the first request, unless
    `answers` is off, and answers a release. `send` writes octets. `messages` are those that came.
    """

    def __init__(
        self, *, max_length: int = 16384, user_items: bytes = b"", answers: bool = True
    ) -> None:
        self.max_length = max_length
        self.user_items = user_items
        self.answers = answers
        self.answers_release = answers
        self.received = bytearray()
        self.transport: Any = None
        self.lost: Failure | None = None
        self._read = 0

    def buildProtocol(self, _address: object) -> Script:
        return self

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for kind, body in self._whole_pdus():
            self.pdu_received(kind, body)

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason

    def pdu_received(self, kind: int, body: bytes) -> None:
        if kind == raw.ASSOCIATE_RQ and self.answers:
            self.send(self._acceptance(body))
        elif kind == raw.RELEASE_RQ and self.answers_release:
            self.send(raw.pdu(raw.RELEASE_RP, bytes(4)))

    def _acceptance(self, request: bytes) -> bytes:
        results = b"".join(
            raw.item(0x21, bytes((number, 0, 0, 0)) + raw.item(0x40, syntaxes[0].encode()))
            for number, _abstract, syntaxes in raw.proposed_contexts(request)
        )
        user = raw.item(0x51, struct.pack(">I", self.max_length)) + raw.item(0x52, b"2.25.1")
        application = raw.item(0x10, raw.APPLICATION_CONTEXT.encode())
        items = application + results + raw.item(0x50, user + self.user_items)
        return raw.pdu(raw.ASSOCIATE_AC, request[:68] + items)

    def _whole_pdus(self) -> Iterator[tuple[int, bytes]]:
        received = self.received
        while len(received) - self._read >= 6:
            end = self._read + 6 + int.from_bytes(received[self._read + 2 : self._read + 6], "big")
            if end > len(received):
                return
            kind, body = received[self._read], bytes(received[self._read + 6 : end])
            self._read = end
            yield kind, body

    def send(self, *octets: bytes) -> None:
        self.transport.write(b"".join(octets))

    def command(self, context: int, command: bytes, data: bytes | None = None) -> None:
        """Send a message."""
        values = [(context, raw.COMMAND | raw.LAST, command)]
        if data is not None:
            values.append((context, raw.LAST, data))
        self.send(*(raw.p_data(value) for value in values))

    @property
    def messages(self) -> list[Any]:
        return raw.messages(bytes(self.received[: self._read]))

    @property
    def kinds(self) -> list[int]:
        """The types of the PDUs that came."""
        return [kind for kind, _ in raw.stream(bytes(self.received[: self._read]))]

    @property
    def abort(self) -> tuple[int, int] | None:
        """Source and reason of the A-ABORT that came, if one did."""
        for kind, body in raw.stream(bytes(self.received[: self._read])):
            if kind == raw.ABORT:
                return body[2], body[3]
        return None
