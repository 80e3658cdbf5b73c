"""`Sender`: gets messages and control PDUs of one association out through its transport.

It keeps the order, joins small messages of one turn of the reactor, and never lets the
transport hold more than it should:

- Over a plain socket it hands headers and slices to ``sendmsg`` without joining them, while the
  transport's own buffer is empty. Only what the socket does not take at once goes to
  ``transport.write``; then we are a pull producer, which is asked again when that buffer is empty.
- Over anything else (TLS, wrappers, memory) it writes joined blocks as a push producer.

Nothing else may write to the transport, or the order is lost.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer, IPushProducer
from zope.interface import implementer

from twisted_dimse.outgoing import Buffer, Outgoing, OutgoingMessage, SourceFailed

_BLOCKS_A_TURN = 4
# Messages that go out at once while more of what was received is performed: all of a window
# together would leave the peer idle meanwhile, and then us.
_TOGETHER = 2
_MOST_QUEUED = 64  # messages that may wait for the end of the reactor's turn


@implementer(IPullProducer, IPushProducer)
class Sender:
    """Sends for one association. ``failed`` is called with the reason where a data set cannot be
    read to its end.

    While `corked`, messages go out by twos, and `pump` sends what is left. `octets` counts what was
    handed on, `last_progress` is when the transport last took something.
    """

    def __init__(self, reactor: Any, failed: Callable[[str], None]) -> None:
        self.outgoing = Outgoing()
        self.corked = False
        self.octets = 0
        self.last_progress = 0.0
        self._reactor = reactor
        self._seconds: Callable[[], float] = reactor.seconds
        self._soon: Any = None
        self._failed = failed
        self._transport: Any = None
        self._socket: socket.socket | None = None
        self._write_now: Callable[[bytes], None] | None = None
        self._pushing = False
        self._waiting = False  # for the transport to drain
        self._registering = False
        self._drained: list[Deferred[None]] = []

    def start(self, transport: Any) -> None:
        """The transport is open."""
        self._transport = transport
        self.last_progress = self._seconds()
        self._socket = plain_socket(transport)
        self._write_now = getattr(transport, "write_now", None)
        if self._socket is None:
            transport.registerProducer(self, True)

    @property
    def congested(self) -> bool:
        """Whether who sends should wait until it is `drained`."""
        return self._waiting or len(self.outgoing.queue) >= _MOST_QUEUED

    @property
    def blocked(self) -> bool:
        """Whether the transport has more to send than it gets rid of."""
        return self._waiting

    @property
    def idle(self) -> bool:
        """Whether all messages are handed on."""
        return not self._waiting and not self.outgoing

    def drained(self) -> Deferred[None]:
        """Fires when all messages are handed on, or the transport is gone."""
        deferred: Deferred[None] = Deferred()
        if self.idle:
            deferred.callback(None)
        else:
            self._drained.append(deferred)
        return deferred

    def send(self, message: OutgoingMessage, *, soon: bool = False) -> None:
        """Send a message behind all others: now, in the turn in which octets were received, or,
        with ``soon``, in the next turn, together with others."""
        self.outgoing.put(message)
        if self.corked:
            if not soon and len(self.outgoing.queue) >= _TOGETHER:
                self.pump()
            return
        if not soon:
            self.pump()
        elif self._soon is None:
            self._soon = self._reactor.callLater(0, self._pump_now)

    def write(self, data: bytes) -> None:
        """Send a control PDU behind all that was sent."""
        self.pump()
        if self._socket is not None and not self._waiting:
            self._hand_on([data])
        elif self._transport is not None:
            self.octets += len(data)
            self._put(data)

    def pump(self) -> None:
        """Send what is queued, as far as the transport takes it."""
        queue = self.outgoing.queue
        if not queue or self._waiting or self._transport is None:
            return
        if self._socket is None:
            self._push()
            return
        for _ in range(_BLOCKS_A_TURN):
            self._hand_on(self._gather())
            if self._waiting:
                return
            if not queue:
                if self._drained:
                    self._fire_drained()
                return
        if self._transport is not None:
            self._wait()  # the rest in later turns, so that others have theirs

    def _pump_now(self) -> None:
        self._soon = None
        self.pump()

    def drop(self) -> None:
        """Forget what was not handed on; the association is over."""
        self.outgoing.clear()
        soon, self._soon = self._soon, None
        if soon is not None:
            soon.cancel()
        self._done_waiting()
        # The rest of a PDU may be in the transport's buffer, and the last one goes behind it.
        self._socket = None

    def stop(self) -> None:
        """No more is to come: the transport may close once its buffer is empty."""
        self.drop()
        if self._transport is not None and self._socket is None:
            self._transport.unregisterProducer()
        self._transport = None

    # --- with a plain socket

    def _hand_on(self, pieces: list[Buffer]) -> None:
        size = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        sent = self._send_now(pieces)
        self.octets += size
        if sent < size and self._transport is not None:
            self._transport.write(_behind(pieces, sent))
            if not self._waiting:
                self._wait()

    def _send_now(self, pieces: list[Buffer]) -> int:
        if not pieces or self._socket is None:
            return 0
        try:
            if len(pieces) == 1:
                sent = self._socket.send(pieces[0])
            else:
                sent = self._socket.sendmsg(pieces)
        except OSError:
            return 0  # full, or broken: the transport finds out which
        self.last_progress = self._seconds()
        return sent

    def _wait(self) -> None:
        """Be asked for more when the transport's buffer is empty."""
        self._waiting = True
        self._registering = True
        self._transport.registerProducer(self, False)
        self._registering = False

    def _done_waiting(self) -> None:
        if self._waiting:
            self._waiting = False
            if self._socket is not None and self._transport is not None:
                self._transport.unregisterProducer()
        self._fire_drained()

    def _pull(self) -> None:
        if self._registering:
            # The buffer may hold something still: `startWriting` brings us here when it does not.
            self._transport.startWriting()
            return
        self.last_progress = self._seconds()
        pieces = self._gather()
        if not pieces:
            self._done_waiting()
            return
        self._hand_on(pieces)
        if self.outgoing:
            if self._transport is not None:
                self._transport.startWriting()
        elif self._waiting:
            # Ask once more: what the socket did not take is in the transport's buffer.
            self._transport.startWriting()

    # --- with any other transport

    def _push(self) -> None:
        if self._pushing:
            return  # asked for more in the middle of a block
        self._pushing = True
        try:
            while self.outgoing and not self._waiting:
                data = b"".join(self._gather())
                if not data:
                    return
                self.octets += len(data)
                self.last_progress = self._seconds()
                self._put(data)
        finally:
            self._pushing = False
        if not self._waiting:
            self._fire_drained()

    def _put(self, data: bytes) -> None:
        if self._write_now is not None:
            self._write_now(data)
        else:
            self._transport.write(data)

    # --- as a producer

    def resumeProducing(self) -> None:
        """The transport has room; with a plain socket its buffer is empty."""
        if self._socket is not None:
            self._pull()
            return
        self._waiting = False
        self.last_progress = self._seconds()
        if self._transport is not None:
            self._push()

    def pauseProducing(self) -> None:
        self._waiting = True

    def stopProducing(self) -> None:
        """The transport is going away."""
        self._waiting = False
        self._transport = None
        self._fire_drained()

    # --- both

    def _gather(self) -> list[Buffer]:
        try:
            return self.outgoing.gather()
        except SourceFailed as error:
            self._failed(str(error))
            return []

    def _fire_drained(self) -> None:
        if self._drained:
            waiting, self._drained = self._drained, []
            for deferred in waiting:
                deferred.callback(None)


def plain_socket(transport: Any) -> socket.socket | None:
    """The socket that may be written to beside the transport; None for TLS and wrappers."""
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    if isinstance(handle, socket.socket) and hasattr(transport, "startWriting"):
        return handle
    return None


def _behind(pieces: list[Buffer], sent: int) -> bytes:
    """What is left of ``pieces`` when ``sent`` octets of them are gone."""
    left = []
    for piece in pieces:
        size = len(piece)
        if sent >= size:
            sent -= size
        else:
            left.append(piece[sent:] if sent else piece)
            sent = 0
    return b"".join(left)
