"""Many associations of one process, all echoing at once: as lean as `raw_peer`, with epoll.

with crowd(port, 200) as clients:
    seconds, waits = clients.echo(100)      # each of them, one after the other
"""

from __future__ import annotations

import resource
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter

from benchmarks.raw_peer import ECHO_REQUEST, TIMEOUT, RawClient
from benchmarks.wire import WireError

_SPARE = 100  # files that this process has open besides


@dataclass(frozen=True, slots=True)
class Crowd:
    """Associations with one server, each warmed up; ``opened`` is how long that took."""

    clients: list[RawClient]
    answer: bytes
    opened: float

    def echo(self, rounds: int) -> tuple[float, list[float]]:
        """Have each association echo ``rounds`` times; the seconds that all of it took, and those
        that each answer took, smallest first."""
        receivers = {client.connection.fileno(): client.connection for client in self.clients}
        left = dict.fromkeys(receivers, rounds)
        waits: list[float] = []
        parts: dict[int, bytes] = {}
        with select.epoll() as poll:
            for descriptor in receivers:
                poll.register(descriptor, select.EPOLLIN)
            begun = perf_counter()
            sent = {}
            for descriptor, connection in receivers.items():
                sent[descriptor] = perf_counter()
                connection.send(ECHO_REQUEST)
            while len(waits) < rounds * len(receivers):
                for descriptor in _ready(poll):
                    connection = receivers[descriptor]
                    octets = connection.recv(4096)
                    if octets != self.answer and not self._whole(parts, descriptor, octets):
                        continue
                    now = perf_counter()
                    waits.append(now - sent[descriptor])
                    left[descriptor] -= 1
                    if left[descriptor]:
                        sent[descriptor] = now
                        connection.send(ECHO_REQUEST)
            seconds = perf_counter() - begun
        return seconds, sorted(waits)

    def _whole(self, parts: dict[int, bytes], descriptor: int, octets: bytes) -> bool:
        """Whether these octets end an answer of which some may have come before."""
        if not octets:
            raise WireError("the server closed the connection")
        answer = parts.pop(descriptor, b"") + octets
        if not self.answer.startswith(answer):
            raise WireError("an answer to C-ECHO that differs from the first")
        if answer != self.answer:
            parts[descriptor] = answer
        return answer == self.answer


@contextmanager
def crowd(port: int, count: int) -> Iterator[Crowd]:
    """Open ``count`` associations with a server on loopback, and release them in the end."""
    begun = perf_counter()
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(port)) for _ in range(count)]
        (answer,) = {client.answer_to_echo() for client in clients}
        yield Crowd(clients, answer, perf_counter() - begun)


def _ready(poll: select.epoll) -> list[int]:
    events = poll.poll(TIMEOUT)
    if not events:
        raise WireError(f"no answer in {TIMEOUT:.0f} s")
    return [descriptor for descriptor, _ in events]


def allow_files(count: int) -> None:
    """Let this process, and those that it starts from now on, have so many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
