"""The lean client and server that every contestant meets: blocking sockets, prepared octets.

    with RawClient(port) as client:                 # one association
        seconds = client.echo(10_000)
        seconds = client.store(prepare(shape, batch(1000), client.maximum))

    with RawServer(maximum=16384) as server:        # answers success to everything
        client = subprocess.Popen([..., str(server.port)])
        transfer = server.serve(client.pid)         # one association, until it ends

Both work on one association at a time, keep the time limit of the kernel's socket (so that no
call costs a poll), and switch Nagle's algorithm off.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from types import TracebackType

from benchmarks import wire
from benchmarks.instances import Instance, Shape, pixels
from benchmarks.processes import Usage, usage

LONGEST_PDU = 131072
TIMEOUT = 60.0
ECHO_CONTEXT, STORE_CONTEXT = 1, 3
ECHO_REQUEST = wire.echo_request(ECHO_CONTEXT)
ASSOCIATION_REQUEST = wire.associate_request(
    [
        (ECHO_CONTEXT, wire.VERIFICATION, [wire.IMPLICIT]),
        (STORE_CONTEXT, wire.SECONDARY_CAPTURE, [wire.EXPLICIT]),
    ],
    LONGEST_PDU,
)
_BATCH = 1 << 20


@dataclass(frozen=True, slots=True)
class Message:
    """A C-STORE-RQ with its data set: octets of its own, and a tail that all messages share."""

    own: bytes
    tail: Sequence[bytes | memoryview]


def prepare(shape: Shape, instances: Sequence[Instance], maximum: int) -> list[Message]:
    """The messages of instances, in PDUs of up to ``maximum`` octets, ready to be sent.

    Where the pixels take more than a megabyte, the tail is slices of the one pattern.
    """
    limit = maximum - 6
    head = len(shape.head(instances[0]))
    fragments = -(-head // limit)  # those that hold any of the head
    shared = list(_pixel_fragments(shape, fragments * limit - head, limit))
    if shape.size <= _BATCH:
        shared = [b"".join(shared)]
    return [Message(_own(shape, instance, limit), shared) for instance in instances]


def _own(shape: Shape, instance: Instance, limit: int) -> bytes:
    head = shape.head(instance)
    filled = min(-len(head) % limit, shape.pixels)
    octets = head + bytes(pixels(0, filled))
    parts = [wire.store_request(STORE_CONTEXT, instance.uid)]
    for at in range(0, len(octets), limit):
        flags = wire.LAST if filled == shape.pixels and at + limit >= len(octets) else 0
        parts.append(wire.p_data(STORE_CONTEXT, flags, octets[at : at + limit]))
    return b"".join(parts)


def _pixel_fragments(shape: Shape, start: int, limit: int) -> Iterator[bytes | memoryview]:
    for at in range(start, shape.pixels, limit):
        length = min(limit, shape.pixels - at)
        flags = wire.LAST if at + length == shape.pixels else 0
        yield wire.p_data_header(STORE_CONTEXT, flags, length)
        yield pixels(at, length)


class RawClient:
    """One association with a server on loopback: verification and secondary capture storage."""

    request = ASSOCIATION_REQUEST

    def __init__(self, port: int, timeout: float = TIMEOUT) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout)
        _kernel_timeouts(self.connection, timeout)
        self._associate()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.release()
        self.connection.close()

    def _associate(self) -> None:
        self.connection.sendall(self.request)
        kind, body = self._pdu()
        if kind != wire.ASSOCIATE_AC:
            raise wire.WireError(f"the association was answered with a PDU of type {kind}")
        self.accepted, maximum = wire.accepted_contexts(body)
        self.maximum = min(maximum or LONGEST_PDU, LONGEST_PDU)

    def echo(self, count: int) -> float:
        """Send C-ECHO-RQs one after the other; the seconds that it took."""
        if count < 1:
            return 0.0
        request = ECHO_REQUEST
        send, receive = self.connection.send, self.connection.recv
        start = perf_counter()
        send(request)
        expected = self._response()
        size = len(expected)
        for _ in range(count - 1):
            send(request)
            answer = receive(4096)
            if answer != expected and self._rest(answer, size) != expected:
                raise wire.WireError("an answer to C-ECHO that differs from the first")
        return perf_counter() - start

    def answer_to_echo(self) -> bytes:
        """Send one C-ECHO-RQ; the octets of the answer, which are those of any later one."""
        self.connection.send(ECHO_REQUEST)
        return self._response()

    def store(self, messages: Sequence[Message]) -> float:
        """Send messages, each after the answer to the one before; the seconds that it took."""
        receive = self.connection.recv
        start = perf_counter()
        self._send(messages[0])
        first = self._response()
        size, at = len(first), first.find(wire.STATUS_TAG) + 8
        for message in messages[1:]:
            self._send(message)
            answer = receive(4096)
            if len(answer) != size:
                answer = self._rest(answer, size)
            if answer[at : at + 2] != b"\0\0":
                raise wire.WireError(f"a C-STORE was answered with status {answer[at : at + 2]!r}")
        return perf_counter() - start

    def release(self) -> None:
        """Release the association and wait for the reply."""
        self.connection.sendall(wire.RELEASE_REQUEST)
        kind, _ = self._pdu()
        if kind != wire.RELEASE_RP:
            raise wire.WireError(f"the release was answered with a PDU of type {kind}")

    def _send(self, message: Message) -> None:
        if len(message.tail) == 1:
            _send_all(self.connection, [message.own, *message.tail])
            return
        self.connection.sendall(message.own)
        step = 2 * max(1, _BATCH // self.maximum)
        for at in range(0, len(message.tail), step):
            _send_all(self.connection, message.tail[at : at + step])

    def _response(self) -> bytes:
        """The octets of one response that says success, a whole PDU with its whole command."""
        kind, body = self._pdu()
        if kind != wire.P_DATA or body[5] != wire.COMMAND | wire.LAST:
            raise wire.WireError(f"expected a response, got a PDU of type {kind}")
        status = wire.short_after(wire.STATUS_TAG, body)
        if status != 0:
            raise wire.WireError(f"status {status:04X}")
        return wire.pdu(kind, body)

    def _rest(self, begun: bytes, size: int) -> bytes:
        return begun + self._exactly(size - len(begun))

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxI", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        parts = []
        while length > 0:
            part = self.connection.recv(length)
            if not part:
                raise wire.WireError("the server closed the connection")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)


@dataclass(slots=True)
class Transfer:
    """What one association brought, and what its client had used by then.

    ``seconds`` runs from the arrival of the first request to the last response; `used` is the
    client's CPU time between them, ``before`` and ``after`` its state at both ends.
    """

    messages: int = 0
    octets: int = 0
    started: float = 0.0
    finished: float = 0.0
    before: Usage = field(default_factory=Usage)
    after: Usage = field(default_factory=Usage)

    @property
    def seconds(self) -> float:
        """Wall seconds between the two ends."""
        return self.finished - self.started


class RawServer:
    """Listens on a free port of loopback; accepts and acknowledges whatever comes."""

    def __init__(self, maximum: int = LONGEST_PDU, timeout: float = TIMEOUT) -> None:
        self._maximum, self._timeout = maximum, timeout
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def serve(self, pid: int = 0, alive: Callable[[], bool] = lambda: True) -> Transfer:
        """Serve one association to its end; ``pid`` is the client's, whose use is noted.

        Raises `WireError` where no client comes in time, or ``alive`` says that none will.
        """
        connection = self._accept(alive)
        with connection:
            _kernel_timeouts(connection, self._timeout)
            return _Acceptor(connection, self._maximum, pid).run()

    def _accept(self, alive: Callable[[], bool]) -> socket.socket:
        deadline = monotonic() + self._timeout
        while not select.select([self._listener], [], [], 0.1)[0]:
            if not alive() or monotonic() > deadline:
                raise wire.WireError("the client ended, or did not connect in time")
        return self._listener.accept()[0]


class _Acceptor:
    """One accepted connection: a buffer, where its unread octets lie, and what came so far."""

    def __init__(self, connection: socket.socket, maximum: int, pid: int) -> None:
        self._socket, self._maximum, self._pid = connection, maximum, pid
        self._buffer = bytearray(1 << 18)
        self._view = memoryview(self._buffer)
        self._at = self._end = 0
        self._transfer = Transfer()
        self._request = (0, 0)  # command field, message ID of the data set under way

    def run(self) -> Transfer:
        while True:
            self._need(6)
            kind, length = struct.unpack_from(">BxI", self._buffer, self._at)
            if kind == wire.P_DATA:
                self._values(length)
            elif not self._control(kind, self._take(6 + length)[6:]):
                return self._transfer

    def _control(self, kind: int, body: bytes) -> bool:
        """Answer a PDU that carries no data; False where it was the last.

        An abort ends like a release: pynetdicom aborts now and then where it means to release,
        and what came is counted anyway.
        """
        if kind == wire.ASSOCIATE_RQ:
            self._socket.sendall(wire.associate_accept(body, self._maximum))
            self._transfer.before = usage(self._pid)
            return True
        self._transfer.after = usage(self._pid)
        if kind == wire.RELEASE_RQ:
            self._socket.sendall(wire.RELEASE_REPLY)
        elif kind != wire.ABORT:
            raise wire.WireError(f"the client sent a PDU of type {kind}")
        return False

    def _values(self, length: int) -> None:
        """Read the presentation data values of a P-DATA-TF of ``length`` octets."""
        self._at += 6
        while length:
            self._need(6)
            size, context, flags = struct.unpack_from(">IBB", self._buffer, self._at)
            self._at += 6
            length -= size + 4
            if flags & wire.COMMAND:
                self._command(context, flags, self._take(size - 2))
                continue
            self._skip(size - 2)
            self._transfer.octets += size - 2
            if flags & wire.LAST:
                self._answer(context)

    def _command(self, context: int, flags: int, command: bytes) -> None:
        if not flags & wire.LAST:
            raise wire.WireError("a command set in fragments")
        if not self._transfer.started:
            self._transfer.before = usage(self._pid)
            self._transfer.started = perf_counter()
        self._request = (
            wire.short_after(wire.COMMAND_FIELD_TAG, command),
            wire.short_after(wire.MESSAGE_ID_TAG, command),
        )
        if self._request[0] == wire.C_ECHO_RQ:
            self._answer(context)

    def _answer(self, context: int) -> None:
        self._socket.send(wire.response(context, *self._request))
        self._transfer.messages += 1
        self._transfer.finished = perf_counter()

    def _need(self, length: int) -> None:
        """Have at least ``length`` octets between ``_at`` and ``_end``."""
        while self._end - self._at < length:
            if self._at:
                rest = self._buffer[self._at : self._end]
                self._buffer[: len(rest)] = rest
                self._at, self._end = 0, len(rest)
            if length > len(self._buffer):
                raise wire.WireError(f"{length} octets at once")
            self._end += self._read(self._view[self._end :])

    def _take(self, length: int) -> bytes:
        self._need(length)
        self._at += length
        return bytes(self._view[self._at - length : self._at])

    def _skip(self, length: int) -> None:
        length -= self._end - self._at
        while length > 0:
            self._end = self._read(self._view)
            length -= self._end
        self._at = self._end + length

    def _read(self, into: memoryview) -> int:
        count = self._socket.recv_into(into)
        if not count:
            raise wire.WireError("the client closed the connection without a release")
        return count


def _kernel_timeouts(connection: socket.socket, seconds: float) -> None:
    """Block without Python's poll before each call; a call that waits longer fails."""
    limit = struct.pack("@ll", int(seconds), 0)
    connection.setblocking(True)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _send_all(connection: socket.socket, buffers: Sequence[bytes | memoryview]) -> None:
    """Send buffers in as few calls as the kernel allows."""
    sent = connection.sendmsg(buffers)
    if sent == sum(map(len, buffers)):
        return
    for buffer in buffers:
        if sent < len(buffer):
            connection.sendall(memoryview(buffer)[sent:])
            sent = 0
        else:
            sent -= len(buffer)
