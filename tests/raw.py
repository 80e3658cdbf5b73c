"""DICOM by hand, for tests that send what no library would: PDUs and commands as octets, a client
and a scripted server on plain sockets (PS3.8 9.3, PS3.7 6.3 and annex E).

Nothing here is taken from the package under test.

    with Client(port) as client:
        client.associate()
        assert client.echo() == 0
        client.send(pdu(0x42, b"nonsense"))
        assert client.read() == (ABORT, b"\\0\\0\\2\\1")
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ = 1, 2, 3
P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 4, 5, 6, 7
COMMAND, LAST = 0x01, 0x02
C_STORE_RQ, C_ECHO_RQ, RESPONSE = 0x0001, 0x0030, 0x8000
DATA_SET, NO_DATA_SET = 0x0000, 0x0101

AFFECTED_CLASS, FIELD, MESSAGE_ID, RESPONDED_TO = 0x0002, 0x0100, 0x0110, 0x0120
PRIORITY, DATA_SET_TYPE, STATUS, COMMENT, AFFECTED_INSTANCE = 0x0700, 0x0800, 0x0900, 0x0902, 0x1000

#: The contexts that most tests want: 1 for echo, 3 for images.
ECHO_AND_STORE = ((1, VERIFICATION, (IMPLICIT,)), (3, SECONDARY_CAPTURE, (EXPLICIT,)))
SECONDS = 60.0

Context = tuple[int, str, Iterable[str]]


# --- octets


def pdu(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """A PDU; ``length`` lies about it."""
    return struct.pack(">BxI", kind, len(body) if length is None else length) + body


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def associate_rq(
    contexts: Iterable[Context] = ECHO_AND_STORE,
    *,
    called: str = "ANY-SCP",
    calling: str = "RAW",
    max_length: int = 16384,
    application_context: str = APPLICATION_CONTEXT,
    items: bytes = b"",
    user_items: bytes = b"",
) -> bytes:
    """A-ASSOCIATE-RQ. ``items`` stand behind all others, ``user_items`` inside the last one."""
    proposed = b"".join(
        item(
            0x20,
            struct.pack("B3x", number)
            + item(0x30, abstract.encode())
            + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes),
        )
        for number, abstract, syntaxes in contexts
    )
    user = item(0x51, struct.pack(">I", max_length)) + item(0x52, b"2.25.1") + user_items
    titles = called.ljust(16).encode("latin-1") + calling.ljust(16).encode("latin-1")
    body = struct.pack(">H2x32s32x", 1, titles)
    body += item(0x10, application_context.encode()) + proposed + item(0x50, user) + items
    return pdu(ASSOCIATE_RQ, body)


def associate_ac(
    request: bytes,
    *,
    max_length: int = 16384,
    accept: Callable[[str, str], bool] = lambda _abstract, _syntax: True,
    user_items: bytes = b"",
) -> bytes:
    """A-ASSOCIATE-AC for a request's body, with each context's first transfer syntax where
    ``accept`` likes it, and result 3 where not."""
    answers = b""
    for number, abstract, syntaxes in proposed_contexts(request):
        result = 0 if accept(abstract, syntaxes[0]) else 3
        syntax = item(0x40, syntaxes[0].encode())
        answers += item(0x21, struct.pack("BxBx", number, result) + syntax)
    user = item(0x51, struct.pack(">I", max_length)) + item(0x52, b"2.25.1") + user_items
    body = request[:68] + item(0x10, APPLICATION_CONTEXT.encode()) + answers + item(0x50, user)
    return pdu(ASSOCIATE_AC, body)


def p_data(*values: tuple[int, int, bytes]) -> bytes:
    """A P-DATA-TF of presentation data values: context, control header, octets."""
    return pdu(
        P_DATA,
        b"".join(
            struct.pack(">IBB", len(data) + 2, context, control) + data
            for context, control, data in values
        ),
    )


def command(elements: dict[int, str | int | bytes]) -> bytes:
    """A command set of group 0000 elements; str is a UID or text, int an US."""
    body = b""
    for element, value in sorted(elements.items()):
        if isinstance(value, int):
            value = struct.pack("<H", value)
        elif isinstance(value, str):
            value = value.encode("latin-1")
        value += b"\0" * (len(value) & 1)
        body += struct.pack("<HHI", 0, element, len(value)) + value
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def echo_rq(message_id: int = 1) -> bytes:
    return command(
        {
            AFFECTED_CLASS: VERIFICATION,
            FIELD: C_ECHO_RQ,
            MESSAGE_ID: message_id,
            DATA_SET_TYPE: NO_DATA_SET,
        }
    )


def store_rq(instance: str, message_id: int = 1, sop_class: str = SECONDARY_CAPTURE) -> bytes:
    return command(
        {
            AFFECTED_CLASS: sop_class,
            FIELD: C_STORE_RQ,
            MESSAGE_ID: message_id,
            PRIORITY: 0,
            DATA_SET_TYPE: DATA_SET,
            AFFECTED_INSTANCE: instance,
        }
    )


def response(request: dict[int, bytes], status: int = 0) -> bytes:
    """The command set that answers a decoded request."""
    return command(
        {
            AFFECTED_CLASS: request[AFFECTED_CLASS],
            FIELD: number(request, FIELD) | RESPONSE,
            RESPONDED_TO: number(request, MESSAGE_ID),
            DATA_SET_TYPE: NO_DATA_SET,
            STATUS: status,
        }
    )


def dataset(
    instance: str,
    size: int = 0,
    *,
    study: str = "1.2.3",
    series: str = "1.2.3.4",
    sop_class: str = SECONDARY_CAPTURE,
) -> bytes:
    """A small image in Explicit VR Little Endian with ``size`` octets of pixels."""
    data = b""
    for tag, uid in (
        (0x00080016, sop_class),
        (0x00080018, instance),
        (0x0020000D, study),
        (0x0020000E, series),
    ):
        value = uid.encode() + b"\0" * (len(uid) & 1)
        data += struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"UI", len(value)) + value
    pixels = bytes(range(256)) * (size // 256) + bytes(size % 256)
    return data + struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OB", size) + pixels


# --- and back


def elements(octets: bytes) -> dict[int, bytes]:
    """A command set, decoded: element number to value."""
    found, at = {}, 0
    while at < len(octets):
        group, element, length = struct.unpack_from("<HHI", octets, at)
        assert group == 0
        found[element] = octets[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def number(elements: dict[int, bytes], element: int) -> int:
    return int.from_bytes(elements[element], "little")


def text(elements: dict[int, bytes], element: int) -> str:
    return elements[element].rstrip(b"\0 ").decode("latin-1")


def items(octets: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(octets):
        kind, length = struct.unpack_from(">BxH", octets, at)
        yield kind, octets[at + 4 : at + 4 + length]
        at += 4 + length


def proposed_contexts(request: bytes) -> list[tuple[int, str, list[str]]]:
    """The presentation contexts of an A-ASSOCIATE-RQ's body."""
    contexts = []
    for kind, body in items(request[68:]):
        if kind == 0x20:
            parts = list(items(body[4:]))
            abstract = next(value.decode() for part, value in parts if part == 0x30)
            syntaxes = [value.decode() for part, value in parts if part == 0x40]
            contexts.append((body[0], abstract, syntaxes))
    return contexts


def accepted_contexts(answer: bytes) -> dict[int, str]:
    """Context IDs of an A-ASSOCIATE-AC's body with the transfer syntax accepted."""
    return {
        body[0]: next(value.decode() for part, value in items(body[4:]) if part == 0x40)
        for kind, body in items(answer[68:])
        if kind == 0x21 and body[2] == 0
    }


def max_length(associate: bytes) -> int:
    """The maximum length that an A-ASSOCIATE-RQ's or -AC's body tells."""
    user = next(body for kind, body in items(associate[68:]) if kind == 0x50)
    return int.from_bytes(next(body for kind, body in items(user) if kind == 0x51), "big")


def values(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The presentation data values of a P-DATA-TF's body: context, control header, octets."""
    at = 0
    while at < len(body):
        length, context, control = struct.unpack_from(">IBB", body, at)
        yield context, control, body[at + 6 : at + 4 + length]
        at += 4 + length
    assert at == len(body)


@dataclass
class Message:
    """A command set with the octets of the data set behind it, None where there is none."""

    context: int
    command: dict[int, bytes]
    data: bytes | None = None

    @property
    def field(self) -> int:
        return number(self.command, FIELD)

    @property
    def status(self) -> int:
        return number(self.command, STATUS)

    @property
    def instance(self) -> str:
        return text(self.command, AFFECTED_INSTANCE)

    @property
    def comment(self) -> str:
        return text(self.command, COMMENT)


class Assembler:
    """Joins presentation data values to messages."""

    def __init__(self) -> None:
        self._command = bytearray()
        self._data = bytearray()
        self._message: Message | None = None

    def value(self, context: int, control: int, data: bytes) -> Message | None:
        """Take one; gives the message that it completes."""
        if control & COMMAND:
            self._command += data
            if not control & LAST:
                return None
            message = Message(context, elements(bytes(self._command)))
            self._command.clear()
            if number(message.command, DATA_SET_TYPE) == NO_DATA_SET:
                return message
            self._message = message
            return None
        self._data += data
        if not control & LAST:
            return None
        message, self._message = self._message, None
        assert message is not None
        message.data = bytes(self._data)
        self._data.clear()
        return message


def stream(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """The PDUs of a recorded direction: type and body."""
    at = 0
    while at < len(octets):
        kind, length = struct.unpack_from(">BxI", octets, at)
        yield kind, octets[at + 6 : at + 6 + length]
        at += 6 + length


def messages(octets: bytes) -> list[Message]:
    """The whole messages of a recorded direction."""
    assembler, found = Assembler(), []
    for kind, body in stream(octets):
        if kind == P_DATA:
            made = [assembler.value(*value) for value in values(body)]
            found += [message for message in made if message is not None]
    return found


# --- both ends of a connection


class Connection:
    """A socket that speaks PDUs. Reading beyond its time raises `TimeoutError`."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        connected.settimeout(SECONDS)
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._assembler = Assembler()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def read(self) -> tuple[int, bytes] | None:
        """The next PDU, or None where the other side has closed."""
        try:
            header = self._exactly(6)
            if not header:
                return None
            kind, length = struct.unpack(">BxI", header)
            return kind, self._exactly(length)
        except ConnectionResetError:
            return None

    def expect(self, kind: int) -> bytes:
        """The body of the next PDU, which must be of this type."""
        got = self.read()
        assert got is not None, f"closed where a PDU of type {kind} was due"
        assert got[0] == kind, (
            f"a PDU of type {got[0]} where one of type {kind} was due: {got[1]!r}"
        )
        return got[1]

    def message(self) -> Message:
        """The next message."""
        while True:
            for value in values(self.expect(P_DATA)):
                message = self._assembler.value(*value)
                if message is not None:
                    return message

    def send_message(
        self, context: int, command: bytes, data: bytes | None = None, length: int = 16384
    ) -> None:
        """A command set alone in a PDU, and the data set in PDUs of at most ``length``."""
        self.send(p_data((context, COMMAND | LAST, command)))
        if data is None:
            return
        step = length - 6
        for at in range(0, max(len(data), 1), step):
            last = LAST if at + step >= len(data) else 0
            self.send(p_data((context, last, data[at : at + step])))

    def is_closed(self) -> bool:
        """Whether the other side closes, after whatever it still sends."""
        while self.read() is not None:
            pass
        return True

    def _exactly(self, length: int) -> bytes:
        parts = []
        while length:
            part = self.socket.recv(min(length, 1 << 20))
            if not part:
                assert not parts, "closed in the middle of a PDU"
                return b""
            parts.append(part)
            length -= len(part)
        return b"".join(parts)


class Client(Connection):
    """A requestor on 127.0.0.1."""

    def __init__(self, port: int) -> None:
        super().__init__(socket.create_connection(("127.0.0.1", port), SECONDS))
        self.peer_max_length = 0

    def associate(self, contexts: Iterable[Context] = ECHO_AND_STORE, **options: Any) -> bytes:
        """Associate; gives the body of the A-ASSOCIATE-AC, which must come."""
        self.send(associate_rq(contexts, **options))
        answer = self.expect(ASSOCIATE_AC)
        self.peer_max_length = max_length(answer)
        return answer

    def echo(self, message_id: int = 1) -> int:
        """C-ECHO on context 1; its status."""
        self.send_message(1, echo_rq(message_id))
        return self.message().status

    def store(self, instance: str, data: bytes | None = None, message_id: int = 1) -> Message:
        """C-STORE on context 3 of ``data``, or of a small image; the response."""
        data = dataset(instance) if data is None else data
        self.send_message(3, store_rq(instance, message_id), data)
        return self.message()

    def release(self) -> None:
        """Release, and close as a requestor has to (PS3.8 9.2, AR-3)."""
        self.send(pdu(RELEASE_RQ, bytes(4)))
        self.expect(RELEASE_RP)
        self.socket.close()


def echoes(port: int, **options: Any) -> bool:
    """Whether a server at ``port`` takes an association, a C-ECHO and a release."""
    with Client(port) as client:
        client.associate([(1, VERIFICATION, (IMPLICIT,))], **options)
        status = client.echo()
        client.release()
    return status == 0


Script = Callable[[Connection], object]


class Scripted:
    """A server that runs one script for each connection, in order; the last one for all others."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.errors: list[BaseException] = []
        self.results: list[object] = []
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
            thread = threading.Thread(target=self._run, args=(script, connected), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, script: Script, connected: socket.socket) -> None:
        with Connection(connected) as connection:
            try:
                self.results.append(script(connection))
            except BaseException as error:
                self.errors.append(error)

    def close(self) -> None:
        """Stop listening, wait for the scripts, and raise what the first of them raised."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(SECONDS)
        if self.errors:
            raise self.errors[0]


@contextmanager
def scripted(*scripts: Script) -> Iterator[Scripted]:
    """A `Scripted` server, whose scripts must have run without an error at the end."""
    server = Scripted(*scripts)
    try:
        yield server
    finally:
        server.close()


def accepting(
    *,
    status: Callable[[Message], int] = lambda _message: 0,
    accept: Callable[[str, str], bool] = lambda _abstract, _syntax: True,
    length: int = 16384,
) -> Script:
    """A script that accepts, answers each message with ``status`` of it, and releases.

    Its result is the messages that came.
    """

    def script(connection: Connection) -> list[Message]:
        came = []
        request = connection.expect(ASSOCIATE_RQ)
        connection.send(associate_ac(request, max_length=length, accept=accept))
        assembler = Assembler()
        while (got := connection.read()) is not None:
            kind, body = got
            if kind == RELEASE_RQ:
                connection.send(pdu(RELEASE_RP, bytes(4)))
            elif kind == P_DATA:
                for value in values(body):
                    message = assembler.value(*value)
                    if message is not None:
                        came.append(message)
                        answer = response(message.command, status(message))
                        connection.send_message(message.context, answer)
            else:
                assert kind == ABORT, f"a PDU of type {kind}"
        return came

    return script


class Recorder:
    """A relay to ``port`` of this machine that keeps what the clients send."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._recorded: list[bytearray] = []
        self._sockets: list[socket.socket] = []
        self._running: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def take(self) -> list[bytes]:
        """What each connection since the last call sent, once they have all ended."""
        running, self._running = self._running, []
        for thread in running:
            thread.join(SECONDS)
            assert not thread.is_alive(), "a connection that does not end"
        while self._sockets:
            self._sockets.pop().close()
        recorded, self._recorded = self._recorded, []
        return [bytes(one) for one in recorded]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(SECONDS)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target), SECONDS)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(one)
            recorded = bytearray()
            self._recorded.append(recorded)
            for source, target, keep in ((client, server, recorded), (server, client, None)):
                thread = threading.Thread(target=_relay, args=(source, target, keep), daemon=True)
                self._running.append(thread)
                thread.start()


def _relay(source: socket.socket, target: socket.socket, keep: bytearray | None) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 18):
            if keep is not None:
                keep += data
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
