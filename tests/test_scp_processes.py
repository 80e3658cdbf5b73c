"""What a master and its workers are made of, without processes."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure

from twisted_dimse.scp.channel import Channel
from twisted_dimse.scp.master import _event, _Process
from twisted_dimse.scp.ports import SharedPort, inherited
from twisted_dimse.scp.shared import Shared

# --- the shared numbers


@pytest.fixture
def shared() -> Shared:
    return Shared.made(workers=3)


def test_numbers_are_given_once_among_processes(shared: Shared) -> None:
    one, other = shared.numbers(), Shared(shared.descriptor, 3).numbers()
    assert [next(one), next(other), next(other), next(one)] == [1, 2, 3, 4]


def test_a_slot_is_anybodys_until_all_are_taken(shared: Shared) -> None:
    assert [shared.take(worker, 3) for worker in (1, 2, 2, 3)] == [True, True, True, False]
    shared.give(2)
    assert shared.take(3, 3)
    assert shared.associations() == 3


def test_the_slots_of_a_process_that_died_are_free(shared: Shared) -> None:
    assert all(shared.take(worker, 3) for worker in (1, 1, 2))
    shared.away(1)
    assert shared.associations() == 1
    assert shared.take(3, 2)


def test_what_waits_of_a_uid_is_known_to_the_others(shared: Shared) -> None:
    assert shared.may_wait_elsewhere(1, "1.2.3"), "nobody has looked yet"
    for worker in (1, 2, 3):
        shared.pending(worker, False)
    assert not shared.may_wait_elsewhere(1, "1.2.3")
    for worker, count in ((1, 1), (2, 1), (2, 1), (2, -1)):
        shared.waits(worker, "1.2.3", count)
    assert [shared.may_wait_elsewhere(worker, "1.2.3") for worker in (1, 2, 3)] == [True] * 3
    assert not shared.may_wait_elsewhere(3, "1.2.4")
    shared.waits(1, "1.2.3", -1)
    assert [shared.may_wait_elsewhere(worker, "1.2.3") for worker in (1, 2, 3)] == [1, 0, 1]
    shared.pending(2, False)
    assert not shared.may_wait_elsewhere(1, "1.2.3")


def test_what_waits_of_a_uid_is_never_less_than_nothing_nor_more_than_can_be_counted(
    shared: Shared,
) -> None:
    shared.pending(1, False)
    shared.pending(3, False)
    shared.waits(2, "1.2.3", 100_000)
    shared.pending(2, False)
    shared.waits(2, "1.2.3", -1)
    assert not shared.may_wait_elsewhere(1, "1.2.3")


def test_connections_are_left_only_to_those_that_take_some(shared: Shared) -> None:
    shared.connected(1, 5)
    assert not shared.leave(1, 0.0)
    shared.connected(2, 4)
    assert not shared.leave(2, 0.0)
    assert shared.leave(1, 0.0)
    shared.retire(2)
    assert not shared.leave(1, 0.0)


def test_no_connection_is_left_to_one_that_leaves_it_itself(shared: Shared) -> None:
    """Else it would be nobody's for a moment, where connections come and go."""
    shared.connected(1, 5)
    shared.connected(2, 4)
    assert shared.leave(1, 100.0)
    shared.connected(1, 3)
    assert not shared.leave(2, 100.004)
    assert shared.leave(2, 100.006)


def test_whoever_has_not_looked_yet_may_have_something_to_index(shared: Shared) -> None:
    assert shared.are_pending() == [1, 2, 3]
    shared.pending(1, False)
    shared.pending(3, False)
    assert shared.are_pending() == [2]


# --- questions and answers


class Pair:
    """Two channels; what one writes the other receives when `carry` is called."""

    def __init__(self, **answers: Callable[[Any], Any]) -> None:
        self.octets = [b"", b""]
        self.asking = Channel(lambda octets: self._written(0, octets), {})
        self.answering = Channel(lambda octets: self._written(1, octets), answers)

    def _written(self, end: int, octets: bytes) -> None:
        self.octets[end] += octets

    def carry(self, step: int = 1 << 20) -> None:
        for end, channel in ((0, self.answering), (1, self.asking)):
            octets, self.octets[end] = self.octets[end], b""
            for at in range(0, len(octets), step):
                channel.received(octets[at : at + step])

    def ask(self, what: str, value: Any = None) -> list[Any]:
        """What the answer fires with, when it does."""
        fired: list[Any] = []
        self.asking.ask(what, value).addBoth(fired.append)
        return fired


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_question_is_answered_however_it_is_cut(step: int) -> None:
    pair = Pair(double=lambda value: 2 * value)
    first, second = pair.ask("double", 21), pair.ask("double", "ä\n")
    pair.carry(step)
    assert (first, second) == ([42], ["ä\nä\n"])


def test_an_answer_may_come_later_and_in_any_order() -> None:
    later: Deferred[str] = Deferred()
    pair = Pair(later=lambda _: later, now=lambda _: "now")
    slow, fast = pair.ask("later"), pair.ask("now")
    pair.carry()
    assert (slow, fast) == ([], ["now"])
    later.callback("later")
    pair.carry()
    assert slow == ["later"]


def test_what_goes_wrong_is_the_askers() -> None:
    def fails(_value: Any) -> None:
        raise ValueError("no such thing")

    pair = Pair(fails=fails)
    fired = pair.ask("fails")
    pair.carry()
    (failure,) = fired
    assert failure.check(ConnectionError)
    assert failure.getErrorMessage() == "no such thing"


def test_a_question_to_one_that_is_gone_fails() -> None:
    pair = Pair()
    before = pair.ask("anything")
    pair.asking.lost()
    after = pair.ask("anything")
    assert [each[0].check(ConnectionResetError) for each in (before, after)]
    assert before[0].check(ConnectionResetError)


def test_a_question_to_a_process_whose_pipe_is_closed_fails_when_it_has_ended() -> None:
    """There is a while between the two."""

    class Closed:
        pid = 7

        def writeToChild(self, descriptor: int, _octets: bytes) -> None:
            raise KeyError(descriptor)  # as Twisted's does

    ended: list[str] = []
    process = _Process({}, {}, lambda _pid, how: ended.append(how), Clock())
    process.makeConnection(Closed())
    answer = process.channel.ask("index")
    failures: list[Any] = []
    answer.addErrback(failures.append)
    assert not failures
    process.processEnded(Failure(ProcessTerminated(signal=9)))
    assert failures[0].check(ConnectionResetError)
    assert ended == ["was ended by signal 9"]


def test_an_answer_that_nobody_waits_for_any_more_is_passed_over() -> None:
    later: Deferred[int] = Deferred()
    pair = Pair(later=lambda _: later)
    fired: list[Any] = []
    pair.asking.ask("later").addBoth(fired.append).cancel()
    pair.carry()
    later.callback(1)
    pair.carry()
    assert len(fired) == 1


# --- the ports


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("tcp:104", "tcp:104"),
        ("systemd:domain=INET:index=0", "tcp:0"),
        ("haproxy:systemd:domain=INET6:index=1", "haproxy:tcp:0"),
        ("unix:/run/systemd:mode=600", "unix:/run/systemd:mode=600"),
    ],
)
def test_only_the_first_process_asks_systemd(given: str, taken: str) -> None:
    assert inherited(given) == taken


class Readers(Clock):
    """A reactor that knows who reads, and what was accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.accepted = 0
        self.error: Exception | None = None

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def adoptStreamConnection(self, _descriptor: int, _family: int, _factory: Any) -> None:
        if self.error is not None:
            raise self.error
        self.accepted += 1


@pytest.fixture
def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def connected_to(listening: socket.socket) -> socket.socket:
    return socket.create_connection(listening.getsockname())


def test_a_port_accepts_one_connection_a_turn(listening: socket.socket) -> None:
    reactor = Readers()
    port = SharedPort(reactor, listening, Factory())
    port.startListening()
    with connected_to(listening), connected_to(listening):
        port.doRead()
        assert reactor.accepted == 1
        port.doRead()
        port.doRead()
        assert reactor.accepted == 2
    assert reactor.readers == {port}
    port.stopListening()


def test_a_connection_is_left_to_others_for_a_moment_and_then_taken(
    listening: socket.socket,
) -> None:
    reactor = Readers()
    port = SharedPort(reactor, listening, Factory(), leaves=lambda: True)
    port.startListening()
    with connected_to(listening):
        port.doRead()
        assert (reactor.accepted, reactor.readers) == (0, set())
        reactor.advance(0.005)
        assert (reactor.accepted, reactor.readers) == (1, {port})
    port.stopListening()


def test_a_port_that_ends_while_it_waits_accepts_no_more(listening: socket.socket) -> None:
    reactor = Readers()
    port = SharedPort(reactor, listening, Factory(), leaves=lambda: True)
    port.startListening()
    with connected_to(listening):
        port.doRead()
        port.stopListening()
        reactor.advance(1)
    assert (reactor.accepted, reactor.readers) == (0, set())


def test_a_connection_that_cannot_be_served_ends_no_port(listening: socket.socket) -> None:
    reactor = Readers()
    port = SharedPort(reactor, listening, Factory())
    port.startListening()
    with connected_to(listening), connected_to(listening):
        reactor.error = RuntimeError("as a factory may raise")
        port.doRead()
        reactor.error = None
        port.doRead()
    assert (reactor.accepted, reactor.readers) == (1, {port})
    port.stopListening()


def test_a_port_rests_where_the_process_can_open_no_more_files(listening: socket.socket) -> None:
    reactor = Readers()
    port = SharedPort(reactor, listening, Factory())
    port.startListening()
    with connected_to(listening), connected_to(listening):
        reactor.error = OSError(errno.EMFILE, "Too many open files")
        port.doRead()
        assert reactor.readers == set()
        reactor.error = None
        reactor.advance(1)
    assert (reactor.accepted, reactor.readers) == (1, {port})
    port.stopListening()


def test_a_socket_that_the_master_shut_is_read_no_more(listening: socket.socket) -> None:
    reactor = Readers()
    port = SharedPort(reactor, listening, Factory())
    port.startListening()
    listening.shutdown(socket.SHUT_RDWR)
    port.doRead()
    assert reactor.readers == set()


# --- log lines


def test_a_line_of_a_workers_log_is_its_event_again() -> None:
    words = {"time": "2026-11-24T12:00:00.500+00:00", "level": "warn", "logger": "a.b"}
    event = _event(json.dumps({**words, "message": "50 % of {this}", "number": 7}).encode())
    assert formatEvent(event) == "50 % of {this}"
    assert (event["log_level"], event["log_namespace"]) == (LogLevel.warn, "a.b")
    assert (event["log_time"], event["number"]) == (1795521600.5, 7)


def test_a_failure_keeps_its_words_and_its_traceback() -> None:
    words = {"time": "2026-11-24T12:00:00+00:00", "level": "critical", "logger": "a.b"}
    more = {"message": "failed", "error": "ValueError: a: b", "traceback": "Traceback …"}
    failure = _event(json.dumps({**words, **more}).encode())["log_failure"]
    assert (failure.type.__name__, failure.value) == ("ValueError", "a: b")
    assert failure.getTraceback() == "Traceback …"


def test_a_line_that_is_no_log_line_is_passed_on() -> None:
    assert formatEvent(_event(b'{"time": 1}')) == '{"time": 1}'
    assert formatEvent(_event(b"Segmentation fault")) == "Segmentation fault"
