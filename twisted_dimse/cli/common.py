"""What the commands share: the common options, the peer, and running on a reactor."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from twisted_dimse.cli import configuration
from twisted_dimse.cli.bar import Bar
from twisted_dimse.cli.output import json_line
from twisted_dimse.peer import Peer, valid_ae_title

DEFAULT_CALLING, DEFAULT_CALLED = "DIMSE-SCU", "ANY-SCP"
PASSWORD_VARIABLE = "DIMSE_PASSWORD"


@dataclass
class Common:
    """The common options of a command that talks to a peer."""

    peer: Peer
    calling: str
    timeout: float
    max_pdu: int
    user: str | None
    password_file: str | None
    as_json: bool
    verbose: int
    quiet: bool
    debug: bool
    trace: bool

    def __post_init__(self) -> None:
        self._user_identity = self._identity()  # its file is read before anybody is called
        self.bar = Bar(False, "")
        self.unheard: Callable[[OSError], object] = lambda error: None

    def connect_options(self) -> dict[str, Any]:
        """The keyword arguments for `twisted_dimse.connect`."""
        from twisted_dimse.protocol import Timeouts

        seconds = self.timeout
        return {
            "calling_ae_title": self.calling,
            "timeouts": Timeouts(connect=seconds, acse=seconds, dimse=seconds),
            "max_pdu_length": self.max_pdu,
            "user_identity": self._user_identity,
        }

    def _identity(self) -> Any:
        if self.user is None:
            if self.password_file is not None:
                raise click.UsageError("--password-file goes with --user.")
            return None
        from twisted_dimse.upperlayer.pdu import UserIdentity

        password = self._password()
        if password is None:
            return UserIdentity.username(self.user)
        return UserIdentity.password(self.user, password)

    def _password(self) -> str | None:
        if self.password_file is None:
            return os.environ.get(PASSWORD_VARIABLE)
        try:
            return Path(self.password_file).read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "no text in UTF-8"
            raise click.UsageError(f"--password-file {self.password_file}: {why}.") from None

    @property
    def shows_progress(self) -> bool:
        """Whether a person looks on. What --trace writes goes its own way to the terminal."""
        return sys.stderr.isatty() and not (self.as_json or self.quiet or self.trace)

    def show_bar(self, what: str, *columns: str, **values: Any) -> None:
        """Begin with a `Bar`, where a person looks on; `bar` is it from now on."""
        self.bar = Bar(self.shows_progress, what, *columns, **values)

    def say(self, text: str) -> None:
        """A line for a person; none with --json or -q."""
        if not (self.as_json or self.quiet):
            self.bar.write(text)

    def mention(self, text: str) -> None:
        """The same from within what receives instances, which is none the worse where nobody reads
        of it: that ends the command."""
        try:
            self.say(text)
        except OSError as error:
            self.unheard(error)

    def put(self, value: dict[str, Any]) -> None:
        """A line for a program, with --json."""
        if self.as_json:
            click.echo(json_line(value))

    def complain(self, text: str) -> None:
        self.bar.write(f"dimse: {text}", err=True)


@dataclass(frozen=True)
class TLS:
    """What ``--tls`` and its companions say."""

    wanted: bool
    ca: str | None
    cert: str | None
    key: str | None
    crl: str | None
    insecure: bool

    def applied_to(self, peer: Peer) -> Peer:
        """The peer with TLS where it is asked for; endpoints are looked at before they are used."""
        where = peer.host_and_port()
        given = self._options()
        if not self.wanted:
            if given:
                raise click.UsageError(f"--{next(iter(given))} goes with --tls.")
            if where is None:
                _check_endpoint(peer)
            return peer
        if where is None:
            raise click.UsageError(
                f"--tls goes with a peer given by host and port, not with {peer.address}."
            )
        return Peer(peer.ae_title, self._endpoint(*where, given))

    def _options(self) -> dict[str, str]:
        words = {"ca": self.ca, "cert": self.cert, "key": self.key, "crl": self.crl}
        given = {name: path for name, path in words.items() if path is not None}
        return {**given, "insecure": ""} if self.insecure else given

    def _endpoint(self, host: str, port: int, given: dict[str, str]) -> str:
        """The endpoint string; its files are read once here, so that the option is named."""
        from twisted.internet import reactor
        from twisted.internet.endpoints import quoteStringArgument

        from twisted_dimse.tls.endpoints import ClientParser

        words = {name: path for name, path in given.items() if name != "insecure"}
        if self.insecure:
            words["verify"] = "none"
        try:
            ClientParser().parseStreamClient(reactor, host, str(port), **words)
        except ValueError as error:
            at_fault = [name for name, path in words.items() if str(error).startswith(f"{path}:")]
            option = at_fault[0] if at_fault else "tls"
            raise click.UsageError(f"--{option} {error}.") from None
        options = [f"{name}={quoteStringArgument(path)}" for name, path in words.items()]
        return ":".join(["dicomtls", quoteStringArgument(host), str(port), *options])


def _check_endpoint(peer: Peer) -> None:
    from twisted.internet import reactor

    try:
        peer.endpoint(reactor)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None


def words_argument(metavar: str) -> Callable[[Any], Any]:
    """The words of a command, the peer first; ``metavar`` says what they are."""
    return click.argument("words", nargs=-1, metavar=metavar, shell_complete=_complete_word)


def _complete_word(context: click.Context, parameter: click.Parameter, begun: str) -> list[Any]:
    """For a shell: names of the configuration for the peer, and files where paths come after it."""
    from click.shell_completion import CompletionItem

    if context.params.get("words"):
        takes_paths = "PATH" in (parameter.metavar or "")
        return [CompletionItem(begun, type="file")] if takes_paths else []
    try:
        names = configuration.peers(context.params.get("config"))
    except click.UsageError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(begun)]


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every command with a peer has."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = [
    click.option("--calling", "-aet", "--calling-aet", metavar="AET", help="Our AE title.", default=DEFAULT_CALLING, show_default=True),  # noqa: E501
    click.option("--called", "-aec", "--called-aet", metavar="AET", help="The peer's AE title, where it is given as HOST PORT.  [default: ANY-SCP]"),  # noqa: E501
    click.option("--tls", is_flag=True, help="Speak TLS with a peer given by host and port."),
    click.option("--ca", metavar="FILE", type=click.Path(), help="With --tls: take the peer's certificate if these authorities vouch for it.  [default: those of this machine]"),  # noqa: E501
    click.option("--cert", metavar="FILE", type=click.Path(), help="With --tls: our certificate, for peers that ask for one."),  # noqa: E501
    click.option("--key", "key_file", metavar="FILE", type=click.Path(), help="With --tls: its key.  [default: in the same file]"),  # noqa: E501
    click.option("--crl", metavar="FILE", type=click.Path(), help="With --tls: refuse a certificate that these lists say is revoked."),  # noqa: E501
    click.option("--insecure", is_flag=True, help="With --tls: whoever answers is taken for the peer."),  # noqa: E501
    click.option("--user", metavar="NAME", help="Identify as this user."),
    click.option("--password-file", metavar="FILE", type=click.Path(), help="The user's passcode stands in this file.  [default: in $DIMSE_PASSWORD]"),  # noqa: E501
    click.option("--timeout", "-to", "-ta", "-td", "-ts", "-tn", metavar="S", type=click.FloatRange(0, min_open=True), help="Seconds for the association, and for each answer.", default=30.0, show_default="30"),  # noqa: E501
    click.option("--max-pdu", "-pdu", metavar="N", type=click.IntRange(0), help="Largest PDU that we receive, octets; 0 for no limit.", default=262144, show_default=True),  # noqa: E501
    click.option("--config", metavar="FILE", type=click.Path(), help="Configuration file.  [default: dimse.toml in the user's configuration folder]"),  # noqa: E501
    click.option("--json", "as_json", is_flag=True, help="JSON lines on standard output."),
    click.option("-v", "--verbose", count=True, help="Say more."),
    click.option("-q", "--quiet", is_flag=True, help="Say only what is wrong."),
    click.option("-d", "--debug", is_flag=True, help="Show tracebacks."),
    click.option("--trace", is_flag=True, help="Show each PDU and command set on standard error, without data sets."),  # noqa: E501
]  # fmt: skip
_NAMES = (
    "calling",
    "timeout",
    "max_pdu",
    "user",
    "password_file",
    "as_json",
    "verbose",
    "quiet",
    "debug",
    "trace",
)


#: What the configuration's ``[defaults]`` may set for all commands.
DEFAULTS = (
    *("calling", "called", "tls", "ca", "cert", "key", "crl", "insecure", "user", "password_file"),
    *("timeout", "max_pdu", "json", "verbose", "quiet", "debug", "trace"),
)


def take_common(words: Sequence[str], options: dict[str, Any]) -> tuple[Common, list[str]]:
    """The common options out of a command's, and what of its words comes after the peer."""
    called, config = options.pop("called"), options.pop("config")
    if not valid_ae_title(options["calling"]):
        raise click.UsageError(f"--calling {options['calling']}: not an AE title.")
    if 0 < options["max_pdu"] < 8:
        raise click.UsageError(f"--max-pdu {options['max_pdu']}: leaves no room for data.")
    if options["max_pdu"] > 0xFFFFFFFF:
        raise click.UsageError(f"--max-pdu {options['max_pdu']}: has no room in a request.")
    secure = TLS(
        *(options.pop(name) for name in ("tls", "ca", "cert", "key_file", "crl", "insecure"))
    )
    peer, rest = find_peer(words, called, config)
    if _is_typed("called") and not _is_host_and_port(words, rest):
        raise click.UsageError(f"--called {called}: goes with HOST PORT; {peer} has its title.")
    peer = secure.applied_to(peer)
    return Common(peer, **{name: options.pop(name) for name in _NAMES}), rest


def _is_typed(name: str) -> bool:
    """Whether an option stands on the command line, not in the configuration."""
    context = click.get_current_context()
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _is_host_and_port(words: Sequence[str], rest: Sequence[str]) -> bool:
    return len(words) - len(rest) == 2


def find_peer(
    words: Sequence[str], called: str | None, config: str | None
) -> tuple[Peer, list[str]]:
    """The peer at the front of ``words``: AET@where, a name of the configuration, or HOST PORT."""
    if not words:
        raise click.UsageError("Missing argument 'PEER'.")
    first, rest = words[0], list(words[1:])
    try:
        if "@" in first:
            return Peer.parse(first), rest
        named = configuration.peers(config)
        if first in named:
            return Peer.parse(named[first]), rest
        if rest and rest[0].isdigit():
            host = f"[{first}]" if ":" in first else first
            return Peer.parse(f"{called or DEFAULT_CALLED}@{host}:{rest[0]}"), rest[1:]
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    raise click.UsageError(
        f"{first!r} is no peer: write AET@host:port, or HOST PORT, or a name of the configuration."
    )


def run(work: Callable[[Any], Awaitable[int]], common: Common) -> int:
    """Run ``work`` on a reactor of its own; its exit status, or that of the error it ends with.

    An interrupt cancels it, which aborts its association, and gives 130.
    """
    from twisted.internet import reactor as imported
    from twisted.internet.defer import CancelledError, Deferred
    from twisted.internet.task import deferLater
    from twisted.python.failure import Failure

    from twisted_dimse.cli.errors import INTERRUPTED, explain

    if common.trace:
        from twisted_dimse.cli import trace

        trace.begin()
    reactor: Any = imported
    status = [INTERRUPTED]
    running: list[Any] = []
    failures: list[Any] = []

    def ended(result: Any) -> None:
        running.clear()
        if isinstance(result, int):
            status[0] = result
        elif not result.check(CancelledError):
            failures.append(result)
        # The last octets, such as an A-ABORT, go out in the next turns of the reactor.
        deferLater(reactor, 0.01, _stop, reactor)

    def interrupted() -> Any:
        impatience_ends_at_once()
        if running:
            running[0].cancel()
            return deferLater(reactor, 0.05, lambda: None)
        return None

    def unheard(error: OSError) -> None:
        if not failures:
            failures.append(Failure(error))
            reactor.callLater(0, lambda: running and running[0].cancel())

    def start() -> None:
        running.append(Deferred.fromCoroutine(work(reactor)))  # type: ignore[arg-type]
        running[0].addBoth(ended)

    common.unheard = unheard
    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("before", "shutdown", interrupted)
    gc.freeze()  # of what was imported nothing is garbage, and a look at it is a pause in what runs
    reactor.run()
    if failures:
        if common.debug or failures[0].check(BrokenPipeError):
            failures[0].raiseException()
        text, status[0] = explain(failures[0].value, common.peer, common.calling)
        common.complain(text)
    elif status[0] == INTERRUPTED:
        common.complain("interrupted")
    sys.stdout.flush()
    return status[0]


def impatience_ends_at_once() -> None:
    """From now on a second interrupt ends the process, whatever is still to be said to the peer."""
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _stop(reactor: Any) -> None:
    from twisted.internet.error import ReactorNotRunning

    with contextlib.suppress(ReactorNotRunning):
        reactor.stop()
