"""The service that twistd runs: listeners, the handler, and an orderly end."""

from __future__ import annotations

import gc
import getpass
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import serverFromString
from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.failure import Failure

from twisted_dimse import telemetry
from twisted_dimse.errors import printable
from twisted_dimse.handler import Handler
from twisted_dimse.peer import in_words
from twisted_dimse.scp.logs import JSONLines
from twisted_dimse.scp.options import DEFAULT_LISTEN, Options
from twisted_dimse.server import AssociationFactory
from twisted_dimse.services.files import InstanceFiles, lock_folder
from twisted_dimse.services.storage import FilingHandler

# Seconds from an A-ABORT at the end to the end of the connection.
TIME_TO_CLOSE = 1.0

_log = Logger()


class CannotStart(Exception):
    """Start-up cannot go on; the text is the one line to show."""


class SCPService(Service):
    """Serves DICOM on all endpoints of ``--listen``."""

    part: Any = None  # in an archive that several processes serve
    lock = -1  # the descriptor of the folder's lock
    factory_class = AssociationFactory

    def __init__(self, options: Options, reactor: Any = None) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self._options = options
        self._reactor = reactor
        self._listening: Any = reactor  # what endpoints listen by
        self._ports: list[Any] = []
        self._pages: list[Any] = []  # the ports of the status page
        self._unsubscribe: Callable[[], None] = lambda: None
        self._begin: Callable[[], None] = lambda: None  # when nothing can be wrong any more
        self._close: Callable[[], Any] = lambda: None
        self.factory: AssociationFactory | None = None

    def setServiceParent(self, parent: Any) -> None:
        super().setServiceParent(parent)
        if self._options["log-format"] == "json" and hasattr(parent, "setComponent"):
            parent.setComponent(ILogObserver, JSONLines(sys.stdout))

    def startService(self) -> None:
        _one_line_for(CannotStart)
        _open_as_many_files_as_allowed()
        options = self._options
        self.factory = self._factory()
        for text in options["listen"]:
            self._listen("listen", text, self.factory)
        if options["http"] is not None:
            self._listen("http", options["http"], self._status_site())
        self._begin()
        # Of what was made so far nothing is garbage: to look at it again and again, while others
        # wait for their answers, takes a tenth of a second each time.
        gc.freeze()
        super().startService()
        self._say_started()

    def _say_started(self) -> None:
        if self._options["listen"] == [DEFAULT_LISTEN]:
            _log.info(
                "only this machine can connect; to open it to the network: --listen tcp:11112"
            )

    def stopService(self) -> Deferred[Any]:
        """Stop listening, let associations end for ``--drain-timeout`` seconds, abort the rest. The
        status page stays until then."""
        super().stopService()
        self._take_no_further_signal()
        ports, self._ports = self._ports, []
        stopped = _all_stopped(ports)
        drained = _fired() if self.factory is None else self._drain(self.factory)
        return DeferredList([stopped, drained]).addCallback(lambda _results: self._stop_pages())

    def _stop_pages(self) -> Deferred[Any]:
        self._unsubscribe()
        pages, self._pages = self._pages, []
        return _all_stopped(pages).addCallback(lambda _results: self._close())

    def _take_no_further_signal(self) -> None:
        """At one that says what is known already, Twisted would show a traceback."""
        for number in (signal.SIGTERM, signal.SIGINT):
            if getattr(signal.getsignal(number), "__self__", None) is self._reactor:
                signal.signal(number, self._signalled_again)

    def _signalled_again(self, *_: object) -> None:
        self._reactor.callFromThread(
            _log.info, "it ends already, when its associations have, or --drain-timeout is over"
        )

    def _drain(self, factory: AssociationFactory) -> Deferred[Any]:
        seconds = self._options["drain-timeout"]
        factory.close_unused()
        self._say_draining(len(factory.associations))
        # A peer that is aborted closes the connection; one that does not is not waited for.
        last = [
            self._reactor.callLater(seconds, factory.abort_all),
            self._reactor.callLater(seconds + TIME_TO_CLOSE, factory.close_all),
        ]

        def over(result: Any) -> Any:
            for call in last:
                if call.active():
                    call.cancel()
            return result

        return factory.drained().addBoth(over)

    def _say_draining(self, count: int) -> None:
        if count:
            _log.info(
                "waiting up to {seconds:g} s for {count} {what} to end",
                seconds=self._options["drain-timeout"],
                count=count,
                what="association" if count == 1 else "associations",
            )

    def _factory(self) -> AssociationFactory:
        options = self._options
        for peer in options["peer"].values():
            try:
                peer.endpoint(self._reactor)
            except ValueError as error:
                raise CannotStart(f"--peer {peer.ae_title}={peer.address}: {error}") from None
        try:
            handler = options.handler_class() or self._default_handler()
        except usage.UsageError as error:
            raise CannotStart(str(error)) from None
        return self.factory_class(
            handler,
            ae_title=options["ae-title"],
            require_called=bool(options["require-called"]),
            promiscuous=bool(options["promiscuous"]),
            allow_calling=options["allow-calling"],
            peers=options["peer"],
            max_associations=options["max-associations"],
            max_pdu_length=options["max-pdu"],
            window=options["window"],
            timeouts=options.timeouts,
            reactor=self._reactor,
        )

    def _default_handler(self) -> Handler:
        options = self._options
        filing = {
            "durability": options["durability"],
            "on_duplicate": options["on-duplicate"],
            "max_instance": options["max-instance"],
            "reactor": self._reactor,
        }
        if options["store-only"]:
            return self._filing_handler(filing)
        return self._archive_handler(filing)

    def _filing_handler(self, filing: dict[str, Any]) -> Handler:
        directory = self._options["directory"]
        try:
            files = InstanceFiles(directory, **filing)
            left = 0
            if self.part is None:
                self.lock = lock_folder(files.directory)
                self._close = partial(os.close, self.lock)
                left = files.remove_partial()
        except OSError as error:
            raise CannotStart(f"--directory {directory}: {_why_not(error)}") from None
        self._say_where(files, left)
        return FilingHandler(files)

    def _archive_handler(self, filing: dict[str, Any]) -> Handler:
        with _nothing_collected():
            from twisted_dimse.archive.commitment import ArchiveCommitment
            from twisted_dimse.archive.folder import CannotOpen
            from twisted_dimse.archive.handler import Archive, ArchiveHandler
            from twisted_dimse.services.combined import CombinedHandler

        options = self._options
        directory = options["directory"]
        try:
            archive = Archive(directory, database=options["database"], part=self.part, **filing)
        except CannotOpen as error:
            cause = error.__cause__
            if isinstance(cause, PermissionError):
                raise CannotStart(f"--directory {directory}: {_why_not(cause)}") from None
            raise CannotStart(str(error)) from None
        self._say_where(archive.files, archive.partial)
        serving = ArchiveHandler(
            archive, ae_title=options["ae-title"], max_results=options["max-results"]
        )
        commitment = ArchiveCommitment(archive, options["peer"])
        self.lock = archive.lock
        self._opened(archive, commitment)

        def begin() -> None:
            left = archive.start()
            if left:
                _log.info("{count} instances of an earlier run are to be indexed", count=left)
            self._deliver(commitment)

        def close() -> Any:
            commitment.reporter.stop()
            return archive.close()

        self._begin, self._close = begin, close
        return CombinedHandler(serving, commitment)

    def _opened(self, archive: Any, commitment: Any) -> None:
        """The archive is open and does not work yet."""

    def _deliver(self, commitment: Any) -> None:
        """Deliver the reports on storage commitment that are kept."""
        self._deliver_now(commitment)

    @staticmethod
    def _deliver_now(commitment: Any, transaction: str | None = None) -> None:
        commitment.deliver_kept(transaction).addErrback(
            lambda failure: _log.failure("storage commitment: kept reports", failure)
        )

    def _say_where(self, files: InstanceFiles, left: int) -> None:
        if left:
            _log.info("removed {count} unfinished files of an earlier run", count=left)
        _log.info("instances go to {directory}", directory=files.instances)

    def _status_site(self) -> Any:
        from twisted_dimse.scp.status import status_site

        options = self._options
        look = self._counted()
        return status_site(options["ae-title"], options["max-associations"], look, self._ready)

    def _ready(self) -> bool:
        return bool(self.running)

    def _counted(self) -> Callable[[], Any]:
        """Count from now on; what gives a `status.Snapshot`, or a Deferred of one."""
        from twisted_dimse.scp.metrics import Metrics
        from twisted_dimse.scp.status import Snapshot

        factory = self.factory
        assert factory is not None
        metrics = Metrics(factory)
        self._unsubscribe = telemetry.subscribe(metrics)
        return lambda: Snapshot.of(factory, metrics)

    def _listen(self, option: str, text: str, factory: Any) -> None:
        where = f"--{option} {text}"
        try:
            listening = serverFromString(self._listening, text).listen(factory)
        except LookupError as error:  # the systemd: endpoint has no words for it
            raise CannotStart(f"{where}: no such socket was handed to us ({error})") from None
        except (ValueError, TypeError, OSError) as error:
            raise CannotStart(f"{where}: {error}") from None
        except Exception as error:  # certificates, above all: their errors have no common root
            raise CannotStart(f"{where}: {type(error).__name__}: {error}") from None
        listening.addCallbacks(self._listens, self._does_not_listen, (option,), None, (where,))
        if self._failed is not None:
            raise self._failed

    _failed: CannotStart | None = None

    def _listens(self, port: Any, option: str) -> None:
        (self._pages if option == "http" else self._ports).append(port)
        self._say_listening(option, port)

    def _say_listening(self, option: str, port: Any) -> None:
        what = self._options["ae-title"] if option == "listen" else "the status page"
        _log.info("{what} listens at {address}", what=what, address=in_words(port.getHost()))

    def _does_not_listen(self, failure: Failure, where: str) -> None:
        error: Any = failure.value
        why = getattr(error, "socketError", None) or error
        words = getattr(why, "strerror", None) or str(why)
        self._failed = CannotStart(f"{where}: {words}")


def _open_as_many_files_as_allowed() -> None:
    """An association takes a connection, and mostly a file: of what a shell allows by default there
    would not be enough."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # where the system has another limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """For imports: to look for garbage among what they make takes a tenth of a second, and there is
    none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _all_stopped(ports: list[Any]) -> Deferred[Any]:
    return DeferredList([port.stopListening() or _fired() for port in ports])


def _fired() -> Deferred[None]:
    deferred: Deferred[None] = Deferred()
    deferred.callback(None)
    return deferred


def _why_not(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"not writable by user {getpass.getuser()}"
    return error.strerror or str(error)


def _one_line_for(kind: type[Exception]) -> None:
    """Have ``kind`` end the process with its text alone, where twistd would show a traceback."""
    before = sys.excepthook

    def hook(error_kind: Any, error: BaseException, trace: Any) -> None:
        if isinstance(error, kind):
            print(f"dimse-scp: {printable(str(error))}", file=sys.__stderr__)
        else:
            before(error_kind, error, trace)

    sys.excepthook = hook
