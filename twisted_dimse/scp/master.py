"""``--workers N``: the master, which holds the ports and the archive's lock and starts the workers.

It serves no association itself. It checks the options as a single process does, binds the sockets,
starts ``N`` processes (`worker`) that accept from them, writes their log lines to its own log, adds
up their figures for the status page, starts another in the place of one that dies, and has all of
them end when it is told to.

Where a query comes to one worker while another has acknowledged what is not in the index yet, the
first asks the master, and the master that other one (`Shared.are_pending` tells of whom).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, fail, gatherResults, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from twisted_dimse.scp.channel import Channel
from twisted_dimse.scp.metrics import Counts
from twisted_dimse.scp.options import Options
from twisted_dimse.scp.ports import Holding
from twisted_dimse.scp.service import TIME_TO_CLOSE, CannotStart, SCPService
from twisted_dimse.scp.shared import Shared
from twisted_dimse.scp.status import Snapshot, first_rows
from twisted_dimse.scp.worker import ASKED, ASKS, FIRST_SOCKET, SHARED
from twisted_dimse.server import AssociationFactory

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from twisted_dimse.scp.worker import main; main()"
)
_LOG = 1  # the descriptor on which a worker tells its log
_LONGEST_DELAY = 30.0  # seconds until another is started in the place of one that keeps dying
_LONG_ENOUGH = 60.0  # seconds that a process lives before its end counts as the first one again
_TIME_TO_INDEX = 10.0  # seconds for a worker that has no association any more to end
_REAPING = 0.1  # seconds between looks at whether a process has ended
_TIME_TO_TELL = 5.0  # seconds for a worker to give its figures

_log = Logger()


class MasterService(SCPService):
    """Has workers serve on all endpoints of ``--listen``."""

    def __init__(self, options: Options, reactor: Any = None) -> None:
        super().__init__(options, reactor)
        self._holding = Holding(self._reactor)
        self._past = Counts()  # of the processes that have ended
        self.shared = Shared.made(options["workers"])
        self._workers = [_Worker(self, number + 1) for number in range(options["workers"])]

    def descriptors(self) -> dict[int, Any]:
        """What a worker inherits, by its descriptors there."""
        sockets = [port.fileno() for port in self._holding.ports]
        given = {_LOG: "r", 2: 2, ASKED: "w", ASKS: "r", SHARED: self.shared.descriptor}
        given.update(enumerate(sockets, FIRST_SOCKET))
        if self.lock >= 0:
            given[FIRST_SOCKET + len(sockets)] = self.lock
        return given

    def told(self, number: int) -> dict[str, Any]:
        """What a worker is told when it starts."""
        options = self._options
        plain = {name: value for name, value in options.items() if name not in ("peer", "http")}
        plain["peer"] = {title: peer.address for title, peer in options["peer"].items()}
        plain["http"] = None
        return {
            "number": number,
            "workers": len(self._workers),
            "sockets": len(self._holding.ports),
            "reactor": (getattr(options, "parent", None) or {}).get("reactor"),
            "counted": options["http"] is not None,
            "options": plain,
        }

    def answers(self) -> dict[str, Callable[[Any], Any]]:
        """The questions of workers."""
        return {"index": self._index, "deliver": self._workers[0].deliver}

    def ended(self, number: int, process: int, counts: Counts) -> None:
        """A worker's process has ended; clear up behind it."""
        self.shared.away(number)
        counts.active = 0
        self._past.add(counts)
        if number > 1 and self.running:
            self._workers[0].deliver(None)  # what it was asked to commit and has not reported on
        if self._options["handler"] is not None:
            return
        incoming = os.path.join(self._options["directory"], "incoming")
        try:
            for name in os.listdir(incoming):
                if name.startswith(f"{process}-"):
                    os.unlink(os.path.join(incoming, name))
        except OSError as error:
            _log.warn("an unfinished file stays: {error}", error=error)

    def _factory(self) -> AssociationFactory:
        factory = super()._factory()  # for its checks
        self._begin = self._start_workers
        return factory

    def _start_workers(self) -> None:
        for worker in self._workers:
            worker.start()

    def _listen(self, option: str, text: str, factory: Any) -> None:
        shares = option == "listen"
        self._listening = self._holding if shares else self._reactor
        before = len(self._holding.ports)
        super()._listen(option, text, factory)
        if shares and len(self._holding.ports) == before:
            raise CannotStart(f"--listen {text}: workers cannot share it; use --workers 1")

    def _drain(self, factory: AssociationFactory) -> Deferred[Any]:
        self._say_draining(self.shared.associations())
        longest = self._options["drain-timeout"] + TIME_TO_CLOSE + _TIME_TO_INDEX
        return DeferredList([worker.end(longest) for worker in self._workers])

    def _index(self, numbers: list[int]) -> Deferred[Any]:
        """Fires when what these workers have acknowledged is in the index."""
        indexed = [self._workers[number - 1].indexed() for number in numbers]
        return gatherResults(indexed, consumeErrors=True).addCallbacks(lambda _: None, _first)

    def _ready(self) -> bool:
        return bool(self.running) and any(worker.ready for worker in self._workers)

    def _counted(self) -> Callable[[], Any]:
        return self._snapshot

    def _snapshot(self) -> Deferred[Snapshot]:
        told = [worker.tell() for worker in self._workers]
        return gatherResults(told).addCallback(self._added)

    def _added(self, told: list[Snapshot]) -> Snapshot:
        counts = Counts()
        counts.add(self._past)
        for one in told:
            counts.add(one.counts)
        rows = (row for one in told for row in one.associations)
        return Snapshot(counts, first_rows(rows))


def _first(failure: Failure) -> Failure:
    """The error of the first that failed."""
    return failure.value.subFailure  # type: ignore[union-attr]


class _Worker:
    """The place of one worker, which one process after another takes."""

    def __init__(self, master: MasterService, number: int) -> None:
        self._master = master
        self._reactor = master._reactor
        self._number = number
        self._process: _Process | None = None
        self._next: Any = None  # the call that starts the next process
        self._ends = 0  # of processes that did not live long, in a row
        self._began = 0.0
        self._last = Snapshot(Counts(), [])
        self._askers: list[Deferred[None]] = []
        self._over: list[Deferred[None]] = []
        self.ready = False

    def start(self) -> None:
        """Start a process."""
        self._next = None
        self._began = self._reactor.seconds()
        answers = {**self._master.answers(), "ready": self._is_ready}
        self._process = _Process(
            self._master.told(self._number), answers, self._ended, self._reactor
        )
        command = [sys.executable, "-c", _START, json.dumps(sys.path)]
        try:
            with open(os.devnull, "rb") as nothing:
                self._reactor.spawnProcess(
                    self._process,
                    command[0],
                    command,
                    env=os.environ,
                    childFDs={0: nothing.fileno(), **self._master.descriptors()},
                )
        except OSError as error:
            self._process = None
            self._another(f"worker {self._number} cannot be started: {error}")

    def end(self, within: float) -> Deferred[None]:
        """Have the process end by itself, and end it after so many seconds."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        process = self._process
        if process is None:
            return succeed(None)
        over: Deferred[None] = Deferred()
        self._over.append(over)
        process.channel.ask("end").addErrback(lambda _: None)
        last = self._reactor.callLater(within, process.kill)
        return over.addCallback(lambda _: last.cancel() if last.active() else None)

    def indexed(self) -> Deferred[Any]:
        """Fires when all that was acknowledged here is in the index."""
        if self._process is None and not self._master.running:
            left = self._number in self._master.shared.are_pending()
            return fail(ConnectionError("the node is ending")) if left else succeed(None)
        if self._process is None or not self.ready:
            return self._indexed_later()
        asked = self._process.channel.ask("index")
        return asked.addErrback(self._not_indexed)

    def deliver(self, transaction: str | None) -> None:
        """Have it take over a report, or all that are left; where it is away, its next process
        finds that by itself."""
        if self._process is not None:
            self._process.channel.ask("deliver", transaction).addErrback(lambda _: None)

    def tell(self) -> Deferred[Snapshot]:
        """What it does now, or did when it last told."""
        if self._process is None or not self.ready:
            return succeed(self._last)
        asked = self._process.channel.ask("status").addTimeout(_TIME_TO_TELL, self._reactor)
        return asked.addCallbacks(self._told, lambda _: self._last)

    def _told(self, words: dict[str, Any]) -> Snapshot:
        rows = [tuple(row) for row in words["associations"]]
        self._last = Snapshot(Counts.from_json(words["counts"]), rows)
        return self._last

    def _indexed_later(self) -> Deferred[Any]:
        asker: Deferred[None] = Deferred()
        self._askers.append(asker)
        return asker.addCallback(lambda _: self.indexed())

    def _not_indexed(self, failure: Failure) -> Any:
        failure.trap(ConnectionResetError)  # it died: the next one indexes what it left
        return self._indexed_later()

    def _wake_askers(self) -> None:
        askers, self._askers = self._askers, []
        for asker in askers:
            asker.callback(None)

    def _is_ready(self, process: int) -> None:
        self.ready = True
        _log.info(
            "worker {worker}, process {process}, takes associations",
            worker=self._number,
            process=process,
        )
        self._wake_askers()

    def _ended(self, process: int, how: str) -> None:
        self.ready = False
        self._process = None
        last, self._last = self._last, Snapshot(Counts(), [])
        self._master.ended(self._number, process, last.counts)
        if not self._master.running:
            self._wake_askers()
            over, self._over = self._over, []
            for waiting in over:
                waiting.callback(None)
            return
        self._another(f"worker {self._number}, process {process}, {how}")

    def _another(self, what: str) -> None:
        """Start a process in the place of one that ended: at once, and later and later where that
        goes on."""
        if self._reactor.seconds() - self._began > _LONG_ENOUGH:
            self._ends = 0
        delay = min(_LONGEST_DELAY, 2.0 ** (self._ends - 1)) if self._ends else 0.0
        self._ends += 1
        _log.error(
            "{what}; another follows{when}", what=what, when=f" in {delay:g} s" if delay else ""
        )
        self._next = self._reactor.callLater(delay, self.start)


class _Process(ProcessProtocol):
    """A worker's process, from its start to its end."""

    transport: Any

    def __init__(
        self,
        told: dict[str, Any],
        answers: dict[str, Callable[[Any], Any]],
        ended: Callable[[int, str], None],
        reactor: Any,
    ) -> None:
        self._told = told
        self._ended = ended
        self._reactor = reactor
        self._exited = False
        self._pid = 0
        self._partial = b""
        self.channel = Channel(self._write, answers)

    def connectionMade(self) -> None:
        self._pid = self.transport.pid
        self._write(json.dumps(self._told).encode() + b"\n")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == ASKS:
            self.channel.received(data)
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            globalLogPublisher(_event(line))

    def childConnectionLost(self, childFD: int) -> None:
        if childFD == ASKS:
            self._reap()

    def processExited(self, reason: Failure) -> None:
        self._exited = True

    def _reap(self) -> None:
        """Its pipe is closed, so it is about to end: ask, for not every reactor hears each
        SIGCHLD (uvloop)."""
        if not self._exited:
            self.transport.reapProcess()
            self._reactor.callLater(_REAPING, self._reap)

    def processEnded(self, reason: Failure) -> None:
        self.channel.lost()
        error: Any = reason.value
        if error.signal:
            how = f"was ended by signal {error.signal}"
        else:
            how = f"ended with status {error.exitCode}"
        self._ended(self._pid, how)

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def _write(self, octets: bytes) -> None:
        with suppress(KeyError):  # the pipe is closed: `processEnded` will tell who waits
            self.transport.writeToChild(ASKED, octets)


def _event(line: bytes) -> dict[str, Any]:
    """The log event of a line that `JSONLines` wrote in a worker."""
    try:
        words = json.loads(line)
        time = datetime.fromisoformat(words.pop("time")).timestamp()
        level = LogLevel.lookupByName(words.pop("level"))
        namespace, text = words.pop("logger"), words.pop("message")
    except (ValueError, KeyError, TypeError, AttributeError):  # what wrote there without asking
        text = line.decode(errors="replace")
        return {"log_level": LogLevel.info, "log_format": "{text}", "text": text}
    event = {**words, "log_time": time, "log_level": level, "log_namespace": namespace}
    event["log_format"] = text.replace("{", "{{").replace("}", "}}")
    if "traceback" in event:
        event["log_failure"] = _Told(event.pop("error"), event.pop("traceback"))
    return event


class _Told:
    """A `Failure` of another process, as far as logs look at one."""

    def __init__(self, error: str, traceback: str) -> None:
        kind, _, self.value = error.partition(": ")
        self.type = type(kind, (), {})
        self._traceback = traceback

    def getTraceback(self) -> str:
        return self._traceback
