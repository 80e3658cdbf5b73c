"""The programs under measure: how each is started at its best setting, and whether it is there.

DCMTK: TCP_NODELAY=1 (without it Debian's build waits 40 ms for each message), ``+B`` (writes
as it reads), ``-pdu 131072`` (its largest). pynetdicom: its own applications with both alike.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from time import monotonic, sleep

from benchmarks.harness import DCMTK, OURS, PYNETDICOM, Contestant, Run
from benchmarks.processes import Failed, free_port, running
from benchmarks.raw_peer import RawClient
from benchmarks.wire import WireError

DCMTK_ENVIRONMENT = {"TCP_NODELAY": "1"}
READY_WITHIN = 20.0
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
DIMSE = [sys.executable, "-c", "from twisted_dimse.cli import main; main()"]
OUR_CLIENT = [sys.executable, "-m", "benchmarks.our_client"]
ON_UVLOOP = "dimse-scp on uvloop"
_LOCAL = "127.0.0.1"

Command = list[str]


@dataclass(frozen=True, slots=True)
class Program:
    """A server or a client: its command line, and the part of the work that it is given.

    ``share`` 20 means a twentieth, for one that would take minutes.
    """

    name: str
    party: str
    command: Callable[..., Command]
    missing: Callable[[], str | None]
    share: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    def part(self, count: int) -> int:
        """How much of ``count`` it is given."""
        return max(1, count // self.share)

    def contestant(self, ready: Callable[[], AbstractContextManager[Run]]) -> Contestant:
        """Its place in a row, measured by what ``ready`` gives."""
        return Contestant(self.name, self.party, ready, self.missing)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server that has served one association."""

    pid: int
    port: int
    folder: Path


def echoes(port: int) -> None:
    """The usual warming up: one association."""
    with RawClient(port) as client:
        client.echo(20)


def connects(port: int) -> None:
    """The warming up of a server that speaks no plain DICOM: a connection, closed at once."""
    socket.create_connection(("127.0.0.1", port), READY_WITHIN).close()


@contextmanager
def serving(
    program: Program, folder: Path, warm_up: Callable[[int], None] = echoes
) -> Iterator[Server]:
    """Start a server on a free port, with ``folder`` for its files, and warm it up."""
    port = free_port()
    command = program.command(port, folder)
    with running(command, name=program.name, environment=program.environment) as process:
        _await(process, partial(warm_up, port))
        yield Server(process.pid, port, folder)


def _await(process: subprocess.Popen[bytes], warm_up: Callable[[], None]) -> None:
    deadline = monotonic() + READY_WITHIN
    while process.poll() is None and monotonic() < deadline:
        try:
            warm_up()
            return
        except ConnectionRefusedError:
            sleep(0.05)
        except WireError as error:
            raise Failed(f"no association: {error}") from error
    raise Failed(f"does not listen after {READY_WITHIN:.0f} s")


def installed_dcmtk(tool: str) -> Callable[[], str | None]:
    """The ``missing`` of a DCMTK tool."""
    return lambda: None if dcmtk(tool)[0] else f"DCMTK's {tool} is not installed"


@cache
def dcmtk(tool: str) -> tuple[str, str]:
    """Path and version of a DCMTK tool, empty where it is not installed.

    Others install programs of the same names, so each on PATH is asked what it is.
    """
    for folder in os.get_exec_path():
        path = shutil.which(tool, path=folder)
        if path is None:
            continue
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20)
        line = said.stdout.split("\n")[0].strip("$ ")
        if line.startswith("dcmtk"):
            return path, line.split()[2]
    return "", ""


def installed_pynetdicom() -> str | None:
    """The ``missing`` of pynetdicom's applications."""
    found = importlib.util.find_spec("pynetdicom")
    return None if found else "pynetdicom is not installed"


def installed_library() -> str | None:
    """The ``missing`` of what is measured, before it is written."""
    found = importlib.util.find_spec("twisted_dimse")
    return None if found else "twisted_dimse is not importable"


def installed_uvloop() -> str | None:
    """The ``missing`` of the library on uvloop."""
    found = importlib.util.find_spec("uvloop")
    return installed_library() if found else "uvloop is not installed"


def our_server(port: int, folder: Path, *more: str) -> Command:
    """``twistd dimse-scp`` on a plain port, with further options."""
    return our_server_at(f"tcp:{port}:interface={_LOCAL}", folder, "--store-only", *more)


def our_server_at(endpoint: str, folder: Path, *more: str) -> Command:
    """``twistd dimse-scp`` on an endpoint, with further options."""
    return [
        *TWISTD, "-n", "--pidfile=", "dimse-scp", "--listen", endpoint, "--durability", "commit",
        "--directory", str(folder), *more,
    ]  # fmt: skip


def on_uvloop(command: Command) -> Command:
    """The command of a ``twistd``, with the reactor of uvloop."""
    at = command.index("-n")
    return [*command[:at], "--reactor", "uvloop", *command[at:]]


def _our_server_on_uvloop(port: int, folder: Path) -> Command:
    return on_uvloop(our_server(port, folder))


def our_library_server(port: int, _: Path, *, subscribed: bool = False) -> Command:
    """`our_server`, which keeps nothing."""
    command = [sys.executable, "-m", "benchmarks.our_server", str(port)]
    return [*command, "subscribed"] if subscribed else command


def _storescp(port: int, folder: Path) -> Command:
    return [dcmtk("storescp")[0], "-dhl", "+B", "-od", str(folder), "-pdu", "131072", str(port)]


def _storescp_ignore(port: int, _: Path) -> Command:
    return [dcmtk("storescp")[0], "-dhl", "--ignore", "-pdu", "131072", str(port)]


def _pynetdicom_storescp(port: int, folder: Path) -> Command:
    return [*pynetdicom_command("storescp"), "-ba", _LOCAL, "-od", str(folder), str(port)]


def _pynetdicom_ignore(port: int, _: Path) -> Command:
    return [*pynetdicom_command("storescp"), "-ba", _LOCAL, "--ignore", str(port)]


def pynetdicom_command(tool: str) -> Command:
    """The beginning of one of pynetdicom's applications."""
    return [sys.executable, "-m", "benchmarks.pynetdicom_app", tool, "-q", "-pdu", "131072"]


def _our_store(port: int, folder: Path, _: int) -> Command:
    return [*DIMSE, "store", f"RAW@{_LOCAL}:{port}", str(folder)]


def _our_library_store(port: int, folder: Path, _: int) -> Command:
    return [*OUR_CLIENT, "store", f"RAW@{_LOCAL}:{port}", str(folder)]


def _storescu(port: int, folder: Path, _: int) -> Command:
    return [dcmtk("storescu")[0], "-R", "-pdu", "131072", "+sd", _LOCAL, str(port), str(folder)]


def _pynetdicom_storescu(port: int, folder: Path, _: int) -> Command:
    return [*pynetdicom_command("storescu"), "-cx", "-r", _LOCAL, str(port), str(folder)]


def _our_echo(port: int, _: Path, count: int) -> Command:
    return [*OUR_CLIENT, "echo", str(port), str(count)]


def _echoscu(port: int, _: Path, count: int) -> Command:
    return [dcmtk("echoscu")[0], "-pdu", "131072", "--repeat", str(count), _LOCAL, str(port)]


def _pynetdicom_echoscu(port: int, _: Path, count: int) -> Command:
    return [*pynetdicom_command("echoscu"), "--repeat", str(count), _LOCAL, str(port)]


def ours(name: str, command: Callable[..., Command]) -> Program:
    """A program of the library's."""
    return Program(name, OURS, command, installed_library)


def of_dcmtk(name: str, command: Callable[..., Command]) -> Program:
    """A program of DCMTK's, named first in ``name``."""
    missing = installed_dcmtk(name.split()[0])
    return Program(name, DCMTK, command, missing, environment=DCMTK_ENVIRONMENT)


def of_pynetdicom(name: str, command: Callable[..., Command], share: int = 20) -> Program:
    """A program of pynetdicom's."""
    return Program(name, PYNETDICOM, command, installed_pynetdicom, share)


STORING_SERVERS = (
    ours("dimse-scp", our_server),
    of_dcmtk("storescp +B", _storescp),
    of_pynetdicom("pynetdicom storescp", _pynetdicom_storescp),
)
ECHOING_SERVERS = (
    *STORING_SERVERS[:1],
    Program(ON_UVLOOP, OURS, _our_server_on_uvloop, installed_uvloop),
    *STORING_SERVERS[1:],
)
DISCARDING_SERVERS = (
    ours("listen(), discarding", our_library_server),
    of_dcmtk("storescp --ignore", _storescp_ignore),
    of_pynetdicom("pynetdicom storescp --ignore", _pynetdicom_ignore),
)
STORING_CLIENTS = (
    ours("dimse store", _our_store),
    ours("Association.store()", _our_library_store),
    of_dcmtk("storescu", _storescu),
    of_pynetdicom("pynetdicom storescu", _pynetdicom_storescu),
)
ECHOING_CLIENTS = (
    ours("Association.echo()", _our_echo),
    of_dcmtk("echoscu", _echoscu),
    of_pynetdicom("pynetdicom echoscu", _pynetdicom_echoscu),
)
