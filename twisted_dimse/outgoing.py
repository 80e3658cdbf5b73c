"""What is to be sent: messages in order, cut into P-DATA-TFs for the peer's maximum length.

The fragments of one message are never mixed with another's (PS3.8 annex E.1), so messages stand in
one queue. `Outgoing.gather` takes headers and slices off its front until some 256 KiB are
together, over message borders, without joining them; files are read into one buffer that is used
again, so what `gather` gave must be sent or copied before it is called again.

    outgoing = Outgoing(peer_max_length)
    outgoing.put(OutgoingMessage(context_id, command, data_file))
    socket.sendmsg(outgoing.gather())
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable
from typing import BinaryIO

from twisted.logger import Logger

from twisted_dimse.dimse.message import fragment_size, fragments
from twisted_dimse.upperlayer.framing import p_data_header

BLOCK = 262144
SPARE = 16384  # rather a block that is longer by so much than another for the rest
# Both together stay under the 1,024 pieces that one gathered write may have.
_MAX_PIECES = 400
_MAX_FRAGMENTS = 250

Buffer = bytes | memoryview

_log = Logger()


class SourceFailed(Exception):
    """A data set could not be read to its end: its message cannot be completed."""


def let_go(data: bytes | BinaryIO | None) -> None:
    """Close a data set that is a file; what goes wrong with that can harm nobody any more."""
    if data is not None and not isinstance(data, bytes):
        try:
            data.close()
        except Exception:
            _log.failure("a data set could not be closed")


class OutgoingMessage:
    """An encoded command set, and the data set behind it: octets, a binary file, or none.

    `sent` is called with the size of the data set once the last octet was handed on.
    """

    __slots__ = ("command", "context_id", "data", "octets", "sent")

    def __init__(
        self,
        context_id: int,
        command: bytes,
        data: bytes | BinaryIO | None = None,
        sent: Callable[[int], None] | None = None,
    ) -> None:
        self.context_id = context_id
        self.command = command
        self.data = data
        self.sent = sent
        self.octets = 0

    def close(self) -> None:
        """Let go of the data set, sent or not."""
        data, self.data = self.data, None
        let_go(data)


class Outgoing:
    """The queue of one association. ``limit`` is the peer's maximum length (PS3.8 D.1), 0 none."""

    def __init__(self, limit: int = 0) -> None:
        self.queue: deque[OutgoingMessage] = deque()
        self._reader: _BytesReader | _FileReader | None = None
        self.on_pdu: Callable[[int], None] | None = None  # told the size of each P-DATA-TF
        self._begun = False
        self._buffer: memoryview | None = None
        self._used = 0
        self.set_limit(limit)

    def set_limit(self, limit: int) -> None:
        """Raises `ProtocolViolation` for a limit that leaves no room for a fragment."""
        self._fragment = min(fragment_size(limit) or BLOCK, BLOCK)
        self._block = min(BLOCK // self._fragment, _MAX_FRAGMENTS) * self._fragment
        self._spare = min(self._fragment, SPARE)

    def __bool__(self) -> bool:
        return bool(self.queue)

    def put(self, message: OutgoingMessage) -> None:
        self.queue.append(message)

    def withdraw(self, message: OutgoingMessage) -> bool:
        """Take back a message of which nothing was sent. False where it is too late."""
        if self._begun and self.queue and self.queue[0] is message:
            return False
        try:
            self.queue.remove(message)
        except ValueError:
            return False
        message.close()
        return True

    def clear(self) -> None:
        """Forget everything; the association is over."""
        for message in self.queue:
            message.close()
        self.queue.clear()
        self._reader = None
        self._buffer = None

    def gather(self) -> list[Buffer]:
        """The next pieces to send, in order; none when nothing is left.

        Raises `SourceFailed` where a data set fails in the middle of its message.
        """
        pieces: list[Buffer] = []
        room = self._block
        self._used = 0
        while self.queue and room > 0 and len(pieces) < _MAX_PIECES:
            message = self.queue[0]
            if message.data is None and not self._begun:
                room -= self._add_whole(message, pieces)
                continue
            if not self._begun:
                self._begun = True
                self._add(message.context_id, True, message.command, True, pieces)
            if message.data is not None:
                added = self._add_data(message, room, pieces)
                if not added:
                    break
                room -= added
            if message.data is None:
                self._begun = False
                self.queue.popleft()
                if message.sent is not None:
                    message.sent(message.octets)
        return pieces

    def _add_whole(self, message: OutgoingMessage, pieces: list[Buffer]) -> int:
        """Add a message that has no data set, most of which are one small piece."""
        command = message.command
        size = len(command)
        if size <= self._fragment and self.on_pdu is None:
            pieces.append(p_data_header(message.context_id, True, True, size) + command)
        else:
            self._add(message.context_id, True, command, True, pieces)
        self.queue.popleft()
        if message.sent is not None:
            message.sent(0)
        return size

    def _add_data(self, message: OutgoingMessage, room: int, pieces: list[Buffer]) -> int:
        """Add what there is room for; 0 where that is not even one fragment."""
        reader = self._reader
        if reader is None:
            reader = self._reader = self._reader_of(message)
        if reader.left is None or reader.left > room + self._spare:
            room -= room % self._fragment  # whole fragments before the last
            if room <= 0:
                return 0
        else:
            room = reader.left
        data, is_last = reader.read(room)
        if len(data) & 1:
            data = bytes(data) + b"\x00"  # a data set has an even length (PS3.5 7.1)
        self._add(message.context_id, False, data, is_last, pieces)
        message.octets += len(data)
        if is_last:
            self._reader = None
            message.close()
        return len(data) or 1

    def _reader_of(self, message: OutgoingMessage) -> _BytesReader | _FileReader:
        data = message.data
        if isinstance(data, bytes):
            return _BytesReader(data)
        assert data is not None
        return _FileReader(data, self._space)

    def _space(self, size: int) -> memoryview:
        """``size`` octets of the buffer, behind those that this `gather` has used."""
        if self._buffer is None:
            self._buffer = memoryview(bytearray(self._block + self._spare))
        start = self._used
        self._used = start + size
        return self._buffer[start : start + size]

    def _add(
        self, context_id: int, is_command: bool, data: Buffer, is_last: bool, pieces: list[Buffer]
    ) -> None:
        size, end = self._fragment, len(data)
        if self.on_pdu is not None:
            for start in range(0, end or 1, size):
                self.on_pdu(min(size, end - start) + 12)
        if end <= size:
            pieces.append(p_data_header(context_id, is_command, is_last, end))
            pieces.append(data)
            return
        *whole, rest = fragments(data, size + 6)
        header = p_data_header(context_id, is_command, False, size)
        for piece in whole:
            pieces.append(header)
            pieces.append(piece)
        pieces.append(p_data_header(context_id, is_command, is_last, len(rest)))
        pieces.append(rest)


class _BytesReader:
    """An encoded data set in memory, by slices."""

    def __init__(self, data: bytes) -> None:
        self._view = memoryview(data)
        self._offset = 0
        self.left: int | None = len(data)

    def read(self, size: int) -> tuple[Buffer, bool]:
        part = self._view[self._offset : self._offset + size]
        self._offset += len(part)
        self.left = len(self._view) - self._offset
        return part, not self.left


class _FileReader:
    """A binary file, read into space that the caller gives. `left` is None where the file cannot
    tell its size; then one octet is read ahead to know which slice is the last."""

    def __init__(self, file: BinaryIO, space: Callable[[int], memoryview]) -> None:
        self._file = file
        self._space = space
        self._ahead = b""
        self.left = _size_of(file)
        if self.left is None:
            self._ahead = self._take(1)

    def read(self, size: int) -> tuple[Buffer, bool]:
        if self.left is None:
            return self._read_ahead(size)
        view = self._space(min(size, self.left))
        self._fill(view)
        self.left -= len(view)
        return view, not self.left

    def _fill(self, view: memoryview) -> None:
        filled = 0
        while filled < len(view):
            try:
                count = self._file.readinto(view[filled:])  # type: ignore[attr-defined]
            except Exception as error:
                raise SourceFailed(f"data set cannot be read: {error}") from error
            if not count:
                raise SourceFailed(f"data set ends {(self.left or 0) - filled} octets early")
            filled += count

    def _read_ahead(self, size: int) -> tuple[Buffer, bool]:
        data = self._ahead
        while len(data) <= size and (more := self._take(size + 1 - len(data))):
            data += more
        self._ahead = data[size:]
        return data[:size], not self._ahead

    def _take(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except Exception as error:
            raise SourceFailed(f"data set cannot be read: {error}") from error
        if data and not isinstance(data, (bytes, bytearray, memoryview)):
            raise SourceFailed(f"data set cannot be read: {type(data).__name__} and no octets")
        return bytes(data or b"")


def _size_of(file: BinaryIO) -> int | None:
    """Octets from here to the end; None where the file cannot seek or read into a buffer."""
    if not hasattr(file, "readinto"):
        return None
    try:
        here = file.tell()
        if isinstance(file, io.FileIO):
            return os.fstat(file.fileno()).st_size - here
        end = file.seek(0, 2)
        file.seek(here)
    except Exception:
        return None
    return end - here
