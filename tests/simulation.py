"""A simulation of associations under one clock, whose every step a test chooses.

`Simulation` is a Hypothesis state machine over a `memory.World`: it connects, asks for operations
from either side, has handlers answer at once, later, wrongly or not at all, cuts and stalls the
stream, lets time go by, cancels, releases, aborts and loses connections. After each step what was
promised is checked, and at the end that nothing is left: see `teardown`. A run that fails prints
its steps, and the blob that brings it back.

A new operation is a function in `OPERATIONS`; a new way for handlers to behave is a case in
`Player.play`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import raw
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from memory import (
    CONTEXTS,
    CT,
    STEP,
    Association,
    Tracked,
    World,
    fired,
)
from pydicom import Dataset
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

from twisted_dimse import (
    VERIFICATION,
    DimseError,
    Handler,
    Peer,
    ProtocolViolation,
    Response,
    RetrieveOutcome,
    StatusError,
    Timeouts,
    telemetry,
)
from twisted_dimse.services.files import InstanceFiles

MATCHES = 5
INSTANCES = 5
CUTS = (1, 5, 11, 64, 1000, 20_000, 400_000)
SIZES = (0, 100, 3000, 300_000)


class OnPurpose(Exception):
    """What handlers raise here."""


# --- what is asked


def marked(number: int) -> Dataset:
    """A data set that belongs to the operation with this number."""
    dataset = Dataset()
    dataset.PatientID = str(number)
    return dataset


def uid_of(number: int) -> str:
    return f"1.2.{number}"


class Asked:
    """An operation that was asked for, and what became of it."""

    def __init__(self, association: Association, name: str, number: int) -> None:
        self.association = association
        self.name = name
        self.number = number
        self.cancelled = False  # its Deferred was
        self.called_off = False  # in either way
        self.results: list[Any] = []
        self.deferred: Deferred[Any] = OPERATIONS[name](association, number)
        self.deferred.addBoth(self.results.append)

    def check(self) -> None:
        """Its result, if it is there, is its own and of the kind that was promised."""
        if not self.results:
            return
        (result,) = self.results
        if isinstance(result, Failure):
            assert result.check(DimseError, CancelledError, OSError), result.getTraceback()
            assert self.cancelled or not result.check(CancelledError)
        else:
            CHECKS[self.name](result, self.number)


def _store(size: int) -> Callable[[Any, int], Deferred[Any]]:
    return lambda association, number: association.store(Tracked(uid_of(number), size))


async def _read(association: Any, number: int, most: int) -> list[Any]:
    """Some matches of a query, and then away."""
    found: list[Any] = []
    async with association.find_each(marked(number)) as matches:
        async for match in matches:
            found.append(match)
            if len(found) == most:
                break
    return found


OPERATIONS: dict[str, Callable[[Any, int], Deferred[Any]]] = {
    "echo": lambda association, number: association.echo(),
    "store": _store(100),
    "store nothing": _store(0),
    "store some": _store(3000),
    "store much": _store(300_000),
    "store broken": lambda association, number: association.store(
        Tracked(uid_of(number), 3000, fails_at=-1)
    ),
    "store a stream": lambda association, number: association.store(
        Tracked(uid_of(number), 3000, seekable=False)
    ),
    "find": lambda association, number: association.find(marked(number)),
    "find each": lambda association, number: Deferred.fromCoroutine(
        _read(association, number, 1000)
    ),
    "find two": lambda association, number: Deferred.fromCoroutine(_read(association, number, 2)),
    "get": lambda association, number: association.get(marked(number)),
    "move": lambda association, number: association.move(marked(number), destination="DEST"),
    "move nowhere": lambda association, number: association.move(
        marked(number), destination="NOWHERE"
    ),
    "n_get": lambda association, number: association.n_get(STEP, uid_of(number)),
    "n_set": lambda association, number: association.n_set(STEP, uid_of(number), marked(number)),
    "n_create": lambda association, number: association.n_create(
        STEP, marked(number), uid_of(number)
    ),
    "n_action": lambda association, number: association.n_action(
        STEP, uid_of(number), 1, marked(number)
    ),
    "n_event_report": lambda association, number: association.n_event_report(
        STEP, uid_of(number), 1, marked(number)
    ),
    "n_delete": lambda association, number: association.n_delete(STEP, uid_of(number)),
}
#: Those that C-CANCEL is for.
QUERIES = ("find", "find each", "find two", "get", "move")
#: Those that an acceptor may ask too, with the roles that are negotiated here.
OF_ACCEPTORS = ("echo", "store", "store some", "store much", "n_event_report")


def _is_warning_of(result: Any, number: int) -> None:
    assert isinstance(result, Response)
    assert result.status in (0, warning_of(number)), "the answer of another operation"


def _is_marked(result: Any, number: int) -> None:
    assert isinstance(result, Response)
    assert result.dataset == marked(number), "the answer of another operation"


def _are_matches(result: Any, number: int) -> None:
    assert len(result) <= MATCHES
    assert all(match.PatientID == str(number) for match in result)


def _is_outcome(result: Any, _number: int) -> None:
    assert isinstance(result, RetrieveOutcome)
    assert result.completed + result.failed + result.warning <= INSTANCES


def _is_response(result: Any, _number: int) -> None:
    assert isinstance(result, Response)


CHECKS: dict[str, Callable[[Any, int], None]] = {
    name: (
        _is_warning_of
        if name.startswith("store")
        else _are_matches
        if name.startswith("find")
        else _is_outcome
        if name in ("get", "move", "move nowhere")
        else _is_response
        if name in ("echo", "n_delete", "n_create")
        else _is_marked
    )
    for name in OPERATIONS
}


def warning_of(number: int) -> int:
    """The status that a store of this number is answered with."""
    return 0xB000 + number % 0x1000


# --- what comes from nowhere

INTRUSIONS = {
    "nonsense": b"\x2a\0\0\0\0\4abcd",
    "abort": raw.pdu(raw.ABORT, b"\0\0\2\1"),
    "release": raw.pdu(raw.RELEASE_RQ, bytes(4)),
    "answer to a release": raw.pdu(raw.RELEASE_RP, bytes(4)),
    "request": raw.associate_rq(),
    "rejection": raw.pdu(raw.ASSOCIATE_RJ, b"\0\1\1\1"),
    "data without an end": raw.pdu(raw.P_DATA, b"", length=1 << 31),
    "data without a command": raw.p_data((1, 2, b"data")),
    "unknown context": raw.p_data((77, 3, raw.echo_rq())),
    "answer to nothing": raw.p_data(
        (1, 3, raw.response(raw.elements(raw.echo_rq(0xFFF0)))),
    ),
    "unknown operation": raw.p_data(
        (1, 3, raw.command({raw.FIELD: 0x0444, raw.MESSAGE_ID: 0xFFF1, 0x0800: 0x0101})),
    ),
    "half a command": raw.p_data((1, 1, raw.echo_rq()[:12])),
}


# --- what is answered

BEHAVIOURS = (
    "at once",
    "at once",
    "later",
    "later",
    "coroutine",
    "status",
    "raises",
    "nonsense",
    "aborts",
    "releases",
)
SINKS = ("collect", "file", "file", "slow", "failing", "none")


class Player(Handler):
    """Does with each request what the simulation has chosen for the next ones."""

    contexts = CONTEXTS

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.behaviour = "at once"
        self.sink = "collect"

    def play(self, request: Any, good: Any) -> Any:
        """An answer, or what comes instead of one. ``good`` is the right one."""
        behaviour = self.behaviour
        if behaviour in ("aborts", "releases"):
            self.behaviour = "at once"  # once is enough
        match behaviour:
            case "later":
                return self.simulation.wait(good)
            case "coroutine":
                return self._coroutine(good)
            case "status":
                raise StatusError(0x0110, "on purpose")
            case "raises":
                raise OnPurpose
            case "nonsense":
                return object()
            case "aborts":
                request.association.abort()
            case "releases":
                self.simulation.keep(request.association.release())
        return good

    async def _coroutine(self, good: Any) -> Any:
        await succeed(None)
        return await self.simulation.wait(good)

    def echo(self, request: Any) -> Any:
        return self.play(request, 0)

    def store_sink(self, request: Any) -> Any:
        if self.sink == "none":
            raise OnPurpose
        if self.sink == "file":
            return self.simulation.files.sink(request)
        return Sink(self, request, self.sink)

    def stored(self, request: Any, data: bytes) -> Any:
        number = int(request.sop_instance_uid.rpartition(".")[2])
        assert data in [Tracked(request.sop_instance_uid, size).data for size in SIZES]
        return self.play(request, warning_of(number))

    def find(self, request: Any) -> Any:
        self.simulation.requests.append(request)
        number = int(request.dataset.PatientID)
        matches = [marked(number) for _ in range(MATCHES)]
        if self.behaviour == "coroutine":
            return self._kept(self._matches(matches))
        return self.play(request, matches)

    def _kept(self, iterator: Any) -> Any:
        """An iterator that the collector does not close."""
        self.simulation.iterators.append(iterator)
        return iterator

    async def _matches(self, matches: list[Dataset]) -> Any:
        self.simulation.open_iterators += 1
        try:
            for match in matches:
                await self.simulation.wait(None)
                yield match
        finally:
            self.simulation.open_iterators -= 1

    def get(self, request: Any) -> Any:
        self.simulation.requests.append(request)
        instances = self._instances(1000 * int(request.dataset.PatientID))
        return self.play(request, self._kept(instances))

    move = get

    def _instances(self, number: int) -> Iterator[Tracked]:
        self.simulation.open_iterators += 1
        try:
            for _ in range(INSTANCES):
                number += 1
                yield Tracked(uid_of(number), 100)
        finally:
            self.simulation.open_iterators -= 1

    def n_get(self, request: Any) -> Any:
        return self.play(request, marked(int(request.sop_instance_uid.rpartition(".")[2])))

    n_set = n_create = n_action = n_event_report = n_get

    def n_delete(self, request: Any) -> Any:
        return self.play(request, 0)

    def released(self, request: Any) -> None:
        self.simulation.told.append(request.association)

    aborted = released


class Sink:
    """Collects, and may be slow or fail in the middle. Ended exactly once, see `Simulation`."""

    def __init__(self, player: Player, request: Any, kind: str) -> None:
        self._player = player
        self._request = request
        self._kind = kind
        self._data = b""
        self._wait: Deferred[None] | None = None
        self.ended: list[str] = []
        player.simulation.sinks.append(self)

    def write(self, data: Any) -> Any:
        self._check()
        self._data += bytes(data)
        if self._kind == "failing" and len(self._data) > 200:
            raise OnPurpose
        if self._kind == "slow":
            self._wait = self._player.simulation.wait(None)
        return self._wait

    def _check(self) -> None:
        assert not self.ended, "it had ended"
        assert self._wait is None or self._wait.called, "it was still at the slice before"

    def finish(self) -> Any:
        self._check()
        self.ended.append("finish")
        return self._player.stored(self._request, self._data)

    def abandon(self) -> None:
        self.ended.append("abandon")


# --- the steps


class Simulation(RuleBasedStateMachine):
    """One or more associations with one server. `most_associations` may be made."""

    most_associations = 2
    begin_with = 1

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.__enter__()
        self.folder = tempfile.mkdtemp()
        self.files = InstanceFiles(self.folder, durability="sync", reactor=self.world.clock)
        self.player = Player(self)
        self.connecting: list[Deferred[Any]] = []
        self.asked: list[Asked] = []
        self.waits: list[tuple[Deferred[Any], Any]] = []
        self.kept: list[Deferred[Any]] = []
        self.sinks: list[Sink] = []
        self.requests: list[Any] = []  # those that can be cancelled
        self.intruded: list[Any] = []  # links on which came what neither side has sent
        self.told: list[Association] = []
        self.events: list[Any] = []
        self.numbers = 0
        self.iterators: list[Any] = []
        self.open_iterators = 0
        self.ending = "calm"
        self._unsubscribe = telemetry.subscribe(self.events.append)
        Tracked.open_files = 0
        receiver = Player(self)
        self.destination = self.world.serve(receiver)
        self.players = [self.player, receiver]
        self.server = self.world.serve(
            self.player, peers={"DEST": Peer("DEST", self.destination)}, window=8
        )

    # for handlers

    def wait(self, good: Any) -> Deferred[Any]:
        """A Deferred that a later step, or nothing, fires."""
        deferred: Deferred[Any] = Deferred()
        self.waits.append((deferred, good))
        return deferred

    def keep(self, deferred: Deferred[Any]) -> None:
        """A Deferred that has to fire, with whatever."""
        self.kept.append(deferred)
        deferred.addErrback(lambda failure: failure.trap(DimseError, CancelledError) and None)

    # what there is

    @property
    def alive(self) -> list[Association]:
        """Associations that can be asked something."""
        return [one for one in self.world.associations if one.agreement and not one.closed.called]

    @property
    def links(self) -> list[Any]:
        return [link for link in self.world.links if not all(end.lost for end in link.ends)]

    @property
    def wires(self) -> list[Any]:
        return [wire for link in self.world.links for wire in link.wires]

    # connections

    @initialize(
        window=st.sampled_from([8, None, 3]),
        limit=st.sampled_from([16384, 60, 1000, 0]),
        buffer=st.sampled_from([65536, 0, 500]),
        leaks=st.booleans(),
        unsettled=st.booleans(),
        behaviour=st.sampled_from(BEHAVIOURS),
        sink=st.sampled_from(SINKS),
        ending=st.sampled_from(["calm", "calm", "frozen"]),
        names=st.lists(st.sampled_from(list(OPERATIONS)), min_size=2, max_size=12),
    )
    def begin(
        self,
        window: int | None,
        limit: int,
        buffer: int,
        leaks: bool,
        unsettled: bool,
        behaviour: str,
        sink: str,
        ending: str,
        names: list[str],
    ) -> None:
        self.behave(behaviour, sink, 0)
        self.ending = ending
        for _ in range(self.begin_with):
            self.connect(window, limit, buffer, leaks, names)
            while not (unsettled or self.connecting[-1].called):
                self.world.link.turn()

    @precondition(lambda self: len(self.connecting) < self.most_associations)
    @rule(
        window=st.sampled_from([8, None, 1, 3]),
        limit=st.sampled_from([16384, 60, 1000, 0]),
        buffer=st.sampled_from([65536, 0, 500]),
        leaks=st.booleans(),
        names=st.lists(st.sampled_from(list(OPERATIONS)), max_size=12),
    )
    def connect(
        self, window: int | None, limit: int, buffer: int, leaks: bool, names: list[str]
    ) -> None:
        """One more, that asks something as soon as it can."""
        connecting = self.world.connect(
            self.server,
            window=window,
            max_pdu_length=limit,
            contexts=CONTEXTS,
            handler=self.player,
            roles={CT: "both", VERIFICATION: "both"},
            timeouts=Timeouts(),
        )
        for end in self.world.link.ends:
            end.buffer, end.leaks = buffer, leaks
        self.connecting.append(connecting)
        connecting.addCallback(self._ask, names)
        connecting.addErrback(lambda failure: failure.trap(DimseError, CancelledError))

    # operations

    def _ask(self, association: Association, names: list[str]) -> None:
        for name in names:
            if association.requestor or name in OF_ACCEPTORS:
                self.numbers += 1
                self.asked.append(Asked(association, name, self.numbers))

    @precondition(lambda self: self.alive)
    @rule(
        which=st.integers(0, 99),
        names=st.lists(st.sampled_from(list(OPERATIONS)), min_size=1, max_size=12),
    )
    def ask(self, which: int, names: list[str]) -> None:
        self._ask(self.alive[which % len(self.alive)], names)

    @precondition(lambda self: any(not one.results for one in self.asked))
    @rule(which=st.integers(0, 99), softly=st.booleans())
    def cancel(self, which: int, softly: bool) -> None:
        running = [one for one in self.asked if not one.results]
        queries = [one for one in running if one.name in QUERIES]
        running = queries or running
        self._cancel(running[which % len(running)], softly)

    def _cancel(self, one: Asked, softly: bool) -> None:
        one.called_off = one.called_off or not (softly and one.name in ("find each", "find two"))
        if softly:
            one.association.cancel(one.deferred)
        else:
            one.cancelled = True
            one.deferred.cancel()
            assert one.results or one.name in ("find each", "find two")

    @precondition(lambda self: any(one.requestor for one in self.alive))
    @rule(
        which=st.integers(0, 99),
        name=st.sampled_from(["get", "store much", *QUERIES]),
        behaviour=st.sampled_from(["at once", "later", "coroutine"]),
        sink=st.sampled_from(["slow", "file"]),
        turns=st.sampled_from([None, 2, 9]),
        how=st.sampled_from(["cancel", "cancel softly", "lose", "nothing"]),
    )
    def interrupt(
        self, which: int, name: str, behaviour: str, sink: str, turns: int | None, how: str
    ) -> None:
        """An operation that takes its time, and what ends it while it is performed."""
        requestors = [one for one in self.alive if one.requestor]
        association = requestors[which % len(requestors)]
        for player in self.players:
            player.behaviour, player.sink = behaviour, sink
        self.numbers += 1
        asked = Asked(association, name, self.numbers)
        self.asked.append(asked)
        if turns is None:
            self.world.run()
        else:
            self.turns(turns, 20_000)
        if how == "lose":
            association.protocol.transport.link.lose()
        elif how != "nothing" and not asked.results:
            self._cancel(asked, softly=how == "cancel softly")

    # handlers

    @rule(
        behaviour=st.sampled_from(BEHAVIOURS),
        sink=st.sampled_from(SINKS),
        which=st.sampled_from([0, 0, 1]),
    )
    def behave(self, behaviour: str, sink: str, which: int) -> None:
        self.players[which].behaviour, self.players[which].sink = behaviour, sink

    @precondition(lambda self: self.waits)
    @rule(
        which=st.integers(0, 99),
        how=st.sampled_from(["well", "well", "well", "badly", "with a status"]),
    )
    def answer(self, which: int, how: str) -> None:
        deferred, good = self.waits.pop(which % len(self.waits))
        if deferred.called:
            return
        match how:
            case "well":
                deferred.callback(good)
            case "badly":
                deferred.errback(OnPurpose())
            case _:
                deferred.errback(StatusError(0xA700, "on purpose"))

    @precondition(lambda self: self.waits)
    @rule()
    def answer_all(self) -> None:
        while self.waits:
            self.answer(0, "well")

    # octets and time

    @precondition(lambda self: self.links)
    @rule(
        which=st.integers(0, 99),
        to_acceptor=st.booleans(),
        octets=st.sampled_from(CUTS),
    )
    def deliver(self, which: int, to_acceptor: bool, octets: int) -> None:
        link = self.links[which % len(self.links)]
        link.wires[not to_acceptor].turn(octets)

    @rule(turns=st.integers(1, 8), octets=st.sampled_from(CUTS[2:]))
    def turns(self, turns: int, octets: int) -> None:
        for _ in range(turns):
            for link in self.links:
                link.turn(octets)
            self.world.clock.turn()

    @rule(octets=st.sampled_from([None, 1000, 70_000]))
    def run(self, octets: int | None) -> None:
        self.world.most = octets
        self.world.run()

    @precondition(lambda self: self.links)
    @rule(which=st.integers(0, 99), wire=st.integers(0, 1), stalled=st.booleans())
    def stall(self, which: int, wire: int, stalled: bool) -> None:
        self.links[which % len(self.links)].wires[wire].stalled = stalled

    @rule(seconds=st.sampled_from([0.25, 5, 29, 31, 61, 601]))
    def let_time_go_by(self, seconds: float) -> None:
        self.world.most = None
        self.world.advance(seconds)

    @rule(held=st.booleans())
    def hold_threads(self, held: bool) -> None:
        self.world.clock.threads_held = held

    # ends

    @precondition(lambda self: self.links)
    @rule(
        how=st.sampled_from(["release", "cancel", "abort", "fail", "lose", "break", *INTRUSIONS]),
        which=st.integers(0, 99),
        side=st.integers(0, 1),
        octets=st.integers(0, 3000),
    )
    def disturb(self, how: str, which: int, side: int, octets: int) -> None:
        """Something that ends an association, in order or not."""
        link = self.links[which % len(self.links)]
        wire = link.wires[side]
        association = link.ends[side].protocol.user
        match how:
            case "release":
                if association.agreement:
                    self.keep(association.release())
            case "cancel":
                for connecting in self.connecting:
                    connecting.cancel()
                    assert connecting.called
            case "abort":
                association.abort()
            case "fail":  # a file that cannot be read to its end
                broken = Tracked("1.2.0", 900_000, fails_at=500_000)
                self.keep(association.store(broken, check=False))
            case "lose":
                link.lose()
            case "break":
                wire.breaks_at = wire.delivered + octets
            case _:  # a PDU that neither side has sent
                if not wire.waiting and not wire.sender.lost and not wire.sender.disconnecting:
                    self.intruded.append(link)
                    wire.put(INTRUSIONS[how])

    # --- what holds after each step

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert not self.world.faults, "\n".join(self.world.faults)
        for event in self.world.failures:
            failure = event["log_failure"]
            assert failure.check(OnPurpose, TypeError), failure.getTraceback()
            assert failure.check(OnPurpose) or "object" in str(failure.value)
        for one in self.asked:
            one.check()
        for association in self.world.associations:
            self._check_association(association)
        for sink in self.sinks:
            assert len(sink.ended) <= 1, "a sink was ended twice"
        self._check_cancels()
        for link in self.world.links:
            self._check_pauses(link)
            if link not in self.intruded:
                self._check_manners(link)
        if all(one.called for one in self.connecting) and not self.links:
            left = self.world.clock.getDelayedCalls()
            assert not left, f"a timer is left: {left}"

    def _check_association(self, association: Association) -> None:
        outstanding = association._invocations.outstanding
        if association.window.invoked:
            assert len(outstanding) <= association.window.invoked, "more than the window"
        if association.window.performed:
            performed = len(association._performer)
            assert performed <= association.window.performed, "more than the window"
        ids = [one.message_id for one in outstanding.values()]
        assert ids == list(outstanding), "a message ID is in use twice"
        fired = [one for one in outstanding.values() if one.deferred.called and not one.disowned]
        assert not fired, "an operation is outstanding that has its result"
        if association.closed.called:
            assert not outstanding, "an operation outlives its association"
            assert not len(association._performer), "a request outlives its association"

    def _check_cancels(self) -> None:
        """Whoever performs what was called off knows it, once all has arrived. After a release
        nothing arrives any more, and all is called off when the connection closes."""
        called_off = {one.number for one in self.asked if one.called_off}
        for request in self.requests if called_off else ():
            protocol = request.association.protocol
            performed = request.association._performer._outstanding.get(request.message_id)
            if performed is request and int(request.dataset.PatientID) in called_off:
                (wire,) = [one for one in self.wires if one.receiver is protocol.transport]
                sent = wire.sender.protocol.sender.idle and not wire.waiting
                excused = protocol._held or request.association._released
                assert request.cancelled or not sent or excused, "a cancel got lost"

    def _check_pauses(self, link: Any) -> None:
        """A side reads unless a sink of its own needs time."""
        for end in link.ends:
            if not (end.lost or end.disconnecting or end.aborting):
                assert end.paused == (end.protocol._held is not None), "reading is paused"

    def _check_manners(self, link: Any) -> None:
        """Neither side may find the other to break the protocol."""
        for end in link.ends:
            reason = end.protocol.user._reason
            if isinstance(reason, ProtocolViolation):
                assert "data set cannot be read" in str(reason), reason

    # --- and at the end

    def teardown(self) -> None:
        try:
            self._end()
            self._check_end()
        finally:
            self._unsubscribe()
            self.world.failures.clear()  # looked at after each step
            self.world.__exit__(RuntimeError, None, None)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        self.world.clock.threads_held = False
        self.world.most = None
        if self.ending == "calm":
            self._calm_down()
        for _ in range(20):  # whoever still waits gives up, and idle associations end
            self.world.advance(5000)
            if not self.links:
                break
        for link in self.links:
            # A side whose own sink has not taken the last slice waits for it however long.
            alive = [end for end in link.ends if not end.lost]
            assert all(end.protocol._held is not None for end in alive), "it lives for ever"
            link.lose()
        self.world.run()
        self.nothing_is_wrong()

    def _calm_down(self) -> None:
        """Everybody does what is due: then everything is answered, without waiting for time."""
        for wire in self.wires:
            wire.stalled = False
        self.world.run()
        while self.waits:
            self.answer_all()
            self.world.run()
        assert all(one.called for one in self.connecting), "a connect is left without an answer"
        unanswered = [one.name for one in self.asked if not one.results]
        assert not unanswered, f"left without an answer: {unanswered}"
        assert all(fired(one) for one in self.kept), "a release is left without an answer"
        assert not self.destination.factory.associations, "a destination was left open"

    def _check_end(self) -> None:
        self.world.failures.clear()
        for association in self.world.associations:
            association.closed.addErrback(lambda _: None)
        self.world.check()
        for one in self.asked:
            assert one.results, f"{one.name} never ended"
        assert all(fired(one) for one in self.kept), "a release never ended"
        assert all(len(sink.ended) == 1 for sink in self.sinks), "a sink was forgotten"
        assert Tracked.open_files == 0, "a source is open"
        assert self.open_iterators == 0, "an iterator is open"
        acceptors = [a for a in self.world.associations if not a.requestor and a.agreement]
        assert sorted(a.number for a in self.told) == sorted(a.number for a in acceptors)
        self._check_files()
        self._check_events()

    def _check_files(self) -> None:
        assert os.listdir(Path(self.folder) / "incoming") == [], "half a file is left"
        for path in (Path(self.folder) / "instances").rglob("*.dcm"):
            sent = [Tracked(path.stem, size).data for size in SIZES]
            assert any(path.read_bytes().endswith(data) for data in sent), "half a file"
        for descriptor in os.listdir("/proc/self/fd"):
            target = os.path.realpath(f"/proc/self/fd/{descriptor}")
            assert not target.startswith(self.folder), "a file is open"

    def _check_events(self) -> None:
        def of(kind: type) -> list[tuple[int, str, int]]:
            events = [one for one in self.events if isinstance(one, kind)]
            return sorted((e.association, e.role, e.message_id) for e in events)

        begun, ended = of(telemetry.OperationBegun), of(telemetry.OperationEnded)
        assert begun == ended, "an operation ended twice, or never"
        over = [e.association for e in self.events if isinstance(e, telemetry.AssociationEnded)]
        assert sorted(over) == sorted(a.number for a in self.world.associations)
