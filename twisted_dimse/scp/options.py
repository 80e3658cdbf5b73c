"""The options of ``twistd dimse-scp``, from the command line and a TOML file.

A value that cannot be used ends start-up with one line that names the option.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import tomllib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.python import usage

from twisted_dimse.errors import printable
from twisted_dimse.handler import Handler
from twisted_dimse.peer import Peer, valid_ae_title
from twisted_dimse.protocol import Timeouts
from twisted_dimse.server import DEFAULT_AE_TITLE, DEFAULT_MAX_ASSOCIATIONS, DEFAULT_WINDOW
from twisted_dimse.services.files import DURABILITIES, ON_DUPLICATE
from twisted_dimse.upperlayer.negotiation import DEFAULT_MAX_PDU_LENGTH

DEFAULT_LISTEN = "tcp:11112:interface=127.0.0.1"
DEFAULT_DIRECTORY = "./dicom-archive"
LOG_FORMATS = ("text", "json")
MOST_WORKERS = 256


def _number(
    name: str, least: float, kind: Callable[[str], Any] = int, most: float = sys.float_info.max
) -> Callable[[Any], Any]:
    """A coercion that names its option, since twistd's message would not."""

    def coerce(value: Any) -> Any:
        if isinstance(value, bool) or (kind is int and isinstance(value, float)):
            raise usage.UsageError(f"--{name} {value}: not a whole number")
        try:
            number = kind(value)
        except (TypeError, ValueError):
            raise usage.UsageError(f"--{name} {value}: not a number") from None
        if not number >= least:
            raise usage.UsageError(f"--{name} {value}: must be at least {least:g}")
        if number > most:
            raise usage.UsageError(f"--{name} {value}: must be at most {most:g}")
        return number

    return coerce


def _one_of(name: str, choices: tuple[str, ...]) -> Callable[[str], str]:
    def coerce(value: str) -> str:
        if value not in choices:
            raise usage.UsageError(f"--{name} {value}: choose {' or '.join(choices)}")
        return value

    return coerce


def _not_empty(name: str) -> Callable[[Any], str]:
    def coerce(value: Any) -> str:
        if not _text(value) or "\0" in value:
            raise usage.UsageError(f"--{name} {value!r}: not a name")
        return str(value)

    return coerce


def _title(name: str) -> Callable[[str], str]:
    def coerce(value: str) -> str:
        title = value.strip(" ") if isinstance(value, str) else ""
        if not valid_ae_title(title):
            raise usage.UsageError(
                f"--{name} {value}: an AE title has 1 to 16 plain characters and no backslash"
            )
        return title

    return coerce


def _max_pdu(value: Any) -> int:
    octets = int(_number("max-pdu", 0)(value))
    if 0 < octets < 4096 or octets > 0xFFFFFFFF:
        raise usage.UsageError(f"--max-pdu {value}: 0 for no limit, or 4096 and more octets")
    return octets


class Options(usage.Options):
    synopsis = "[options]"
    longdesc = (
        "Receive and keep DICOM instances. Without options: on 127.0.0.1:11112, under "
        "./dicom-archive, as TWISTED-DIMSE."
    )

    optFlags: list[list[Any]] = [  # noqa: RUF012 - as usage.Options has it
        ["require-called", None, "Reject associations that call any other title than ours."],
        ["promiscuous", None, "Store private and unknown SOP classes, too."],
        ["store-only", None, "Receive and file, without index, query and retrieve."],
    ]
    optParameters: list[list[Any]] = [  # noqa: RUF012
        ["ae-title", None, DEFAULT_AE_TITLE, "This node's AE title.", _title("ae-title")],
        [
            "directory",
            None,
            DEFAULT_DIRECTORY,
            "Where instances and the index live.",
            _not_empty("directory"),
        ],
        [
            "database",
            None,
            None,
            "SQLAlchemy URL of the index. [default: SQLite in --directory]",
            _not_empty("database"),
        ],
        [
            "max-results",
            None,
            None,
            "Most answers to one query, which is then ended with 0xA700. [default: no limit]",
            _number("max-results", 1),
        ],
        ["handler", None, None, "MODULE:NAME of a Handler class to serve instead of the archive."],
        [
            "on-duplicate",
            None,
            "replace",
            "The same SOP Instance UID again: replace the first, keep it, or reject.",
            _one_of("on-duplicate", ON_DUPLICATE),
        ],
        [
            "durability",
            None,
            "sync",
            "Answer success when the operating system has it (commit) or the disk (sync).",
            _one_of("durability", DURABILITIES),
        ],
        [
            "max-associations",
            None,
            DEFAULT_MAX_ASSOCIATIONS,
            "Reject associations beyond this number.",
            _number("max-associations", 1),
        ],
        ["max-pdu", None, DEFAULT_MAX_PDU_LENGTH, "Largest PDU that we receive, octets.", _max_pdu],
        [
            "window",
            None,
            DEFAULT_WINDOW,
            "Most operations at once for one association, if the peer asks for a window.",
            _number("window", 1, most=0xFFFF),
        ],
        [
            "max-instance",
            None,
            None,
            "Largest data set that is kept, octets; larger ones are answered 0xA700.",
            _number("max-instance", 1),
        ],
        [
            "workers",
            None,
            1,
            "Processes behind the listening ports.",
            _number("workers", 1, most=MOST_WORKERS),
        ],
        [
            "artim",
            None,
            30,
            "Seconds to wait for an association request.",
            _number("artim", 0.001, float),
        ],
        [
            "idle-timeout",
            None,
            600,
            "Seconds of silence before an association is aborted.",
            _number("idle-timeout", 0.001, float),
        ],
        [
            "dimse-timeout",
            None,
            60,
            "Seconds for which a message may stand still.",
            _number("dimse-timeout", 0.001, float),
        ],
        [
            "http",
            None,
            None,
            "Server endpoint of a status page: /, /metrics, /healthz, /readyz. [default: off]",
        ],
        ["config", None, None, "TOML file with the same names; the command line wins."],
        [
            "log-format",
            None,
            "text",
            "text for people, json for machines.",
            _one_of("log-format", LOG_FORMATS),
        ],
        [
            "drain-timeout",
            None,
            30,
            "Seconds that running associations have to end on SIGTERM.",
            _number("drain-timeout", 0, float),
        ],
    ]
    compData = usage.Completions(
        optActions={
            "directory": usage.CompleteDirs(),
            "config": usage.CompleteFiles("*.toml"),
            "on-duplicate": usage.CompleteList(list(ON_DUPLICATE)),
            "durability": usage.CompleteList(list(DURABILITIES)),
            "log-format": usage.CompleteList(list(LOG_FORMATS)),
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["allow-calling"] = []
        self["peer"] = {}
        self._given: set[str] = set()

    def opt_listen(self, endpoint: str) -> None:
        """Where to listen, a Twisted server endpoint string; may be given again.
        [default: tcp:11112:interface=127.0.0.1]"""
        self["listen"].append(endpoint)

    def opt_allow_calling(self, title: str) -> None:
        """Accept only these calling AE titles; may be given again. [default: any]"""
        self["allow-calling"].append(_title("allow-calling")(title))

    def opt_peer(self, text: str) -> None:
        """AET=host:port, AET=[v6]:port or AET=ENDPOINT: a known node; may be given again."""
        title, equals, address = text.partition("=")
        title = title.strip(" ")
        try:
            if not equals:
                raise ValueError("write AET=host:port")
            peer = Peer(title, address)
            peer.host_and_port()
        except ValueError as error:
            raise usage.UsageError(f"--peer {text}: {error}") from None
        self["peer"][title] = peer

    def parseOptions(self, options: list[str] | None = None) -> None:
        """As usual, but a wrong option ends with one line and not the whole help."""
        try:
            self._given = self._names_in(options or [])
            super().parseOptions(options)
            self._read_config()
        except usage.UsageError as error:
            raise SystemExit(f"dimse-scp: {printable(str(error))}") from None
        if not self["listen"]:
            self["listen"].append(DEFAULT_LISTEN)

    def parseArgs(self, *words: str) -> None:
        if words:
            raise usage.UsageError(f"{words[0]}: there are only options, and they begin with --")

    @property
    def timeouts(self) -> Timeouts:
        return Timeouts(artim=self["artim"], idle=self["idle-timeout"], dimse=self["dimse-timeout"])

    def handler_class(self) -> Callable[[], Handler] | None:
        """The class that ``--handler`` names, or None. Raises `UsageError`."""
        text = self["handler"]
        if text is None:
            return None
        module, colon, name = text.partition(":")
        if not colon:
            raise usage.UsageError(f"--handler {text}: write MODULE:NAME")
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise usage.UsageError(f"--handler {text}: {error}") from None
        except (Exception, SystemExit) as error:  # whatever the module does when it is imported
            raise usage.UsageError(f"--handler {text}: {_at_its_place(error)}") from None
        if isinstance(found, Handler):
            return found  # type: ignore[return-value]
        if not callable(found) or (isinstance(found, type) and not issubclass(found, Handler)):
            raise usage.UsageError(f"--handler {text}: not a Handler class")
        try:
            inspect.signature(found).bind()
        except TypeError as error:
            raise usage.UsageError(f"--handler {text}: {error}") from None
        return found  # type: ignore[no-any-return]

    def _names_in(self, words: list[str]) -> set[str]:
        """The options that a command line names. It may shorten them, as getopt has it."""
        written = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
        names = {name for name in self if name not in written}
        return written | {
            name for name in names if any(name.startswith(short) for short in written - names)
        }

    def _read_config(self) -> None:
        path = self["config"]
        if path is None:
            return
        try:
            values = tomllib.loads(Path(path).read_text("utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise usage.UsageError(f"--config {path}: {error}") from None
        except tomllib.TOMLDecodeError as error:
            raise usage.UsageError(f"--config {path}: not TOML: {error}") from None
        for key, value in values.items():
            self._take(path, key, value)

    def _take(self, path: str, key: str, value: Any) -> None:
        """One key of the file, unless the command line said otherwise."""
        name = key.replace("_", "-")
        flags = {flag[0] for flag in self.optFlags}
        parameters = {parameter[0]: parameter for parameter in self.optParameters}
        repeatable = {"listen": self.opt_listen, "allow-calling": self.opt_allow_calling}
        known = flags | parameters.keys() | repeatable.keys() | {"peer"}
        if name not in known or "-" in key or name == "config":
            raise usage.UsageError(f"--config {path}: there is no option {key}")
        if name in self._given:
            return
        try:
            if name in flags:
                self[name] = int(_boolean(value))
            elif name in repeatable:
                for item in _texts(value):
                    repeatable[name](item)
            elif name == "peer":
                for item in _pairs(value) if isinstance(value, dict) else _texts(value):
                    self.opt_peer(item)
            else:
                coerce = parameters[name][4] if len(parameters[name]) > 4 else _text
                self[name] = coerce(value)
        except (TypeError, ValueError) as error:
            raise usage.UsageError(f"--config {path}: {key}: {error}") from None


def _at_its_place(error: BaseException) -> str:
    """An error in somebody's module, in one line with the place where it arose."""
    if isinstance(error, SyntaxError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}, line {place.lineno}"
    return f"{type(error).__name__}: {error} ({where})"


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("must be a text in quotes")
    return value


def _texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError("must be a text in quotes, or a list of texts")
    return texts


def _pairs(peers: dict[str, Any]) -> list[str]:
    """The table of peers, as on the command line."""
    _texts([*peers.values()])
    return [f"{title}={address}" for title, address in peers.items()]
