"""Real programs to test with: ours, and those of other projects.

Ours are run as a user runs them, by the Python that runs the tests; they start as `copies` of one
that has imported the libraries. A program of another project that is not there skips the test and
is named; with REQUIRE_PEERS=1 in the environment it fails it.

    with serving("--store-only") as server:
        run(dcmtk("echoscu"), "127.0.0.1", server.port).succeeded()
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import raw
from copies import Copy

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 90.0

#: What brings each program.
PACKAGES = {
    "echoscu": "DCMTK",
    "storescu": "DCMTK",
    "storescp": "DCMTK",
    "findscu": "DCMTK",
    "movescu": "DCMTK",
    "getscu": "DCMTK",
    "dcmconv": "DCMTK",
    "dcmdump": "DCMTK",
    "dcmqrscp": "DCMTK",
    "wlmscpfs": "DCMTK",
    "gdcmscu": "GDCM's tools",
    "Orthanc": "Orthanc",
    "node": "Node.js, for dcmjs-dimse",
    "npm": "npm, for dcmjs-dimse",
}

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
DIMSE = [sys.executable, "-c", "from twisted_dimse.cli import main; main()"]

#: Programs that start as copies of one that has imported the libraries.
COPIED = [TWISTD, DIMSE]

Command = Sequence[str | Path | int]


def absent(what: str, why: str = "is not installed") -> Any:
    """End the test: ``what`` is needed for it and not there."""
    if os.environ.get("REQUIRE_PEERS") == "1":
        pytest.fail(f"{what} {why}, and REQUIRE_PEERS is 1")
    pytest.skip(f"{what} {why}", allow_module_level=True)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of ``size``, such as "4m", in memory and below ``folder``."""
    disk = folder / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        absent("a small file system", "cannot be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def program(name: str) -> str:
    """The path of a program of another project; pynetdicom brings scripts of DCMTK's names."""
    places = [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/sbin"]
    beside_python = (sysconfig.get_path("scripts"), os.path.dirname(sys.executable))
    elsewhere = [place for place in places if place not in beside_python]
    found = shutil.which(name, path=os.pathsep.join(elsewhere))
    return found or absent(f"{name} ({PACKAGES[name]})")


def dcmtk(name: str) -> list[str]:
    """The command of a DCMTK program."""
    return [program(name)]


def pynetdicom(app: str) -> list[str]:
    """The command of one of pynetdicom's applications."""
    if find_spec("pynetdicom") is None:
        absent("pynetdicom")
    return [sys.executable, "-m", "pynetdicom", app]


def environment(**more: str) -> dict[str, str]:
    """What every program here gets: this checkout first, no configuration of the user's, and no
    waiting for small packets in DCMTK."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "TCP_NODELAY": "1",
        "XDG_CONFIG_HOME": "/nonexistent",
    }
    return {**os.environ, **own, **more}


@dataclass
class Done:
    """A program that has ended."""

    command: list[str]
    status: int
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        return f"{self.command}\nended with {self.status}\n{self.out}{self.err}"

    def succeeded(self) -> Done:
        assert self.status == 0, self.said
        return self


def run(
    command: Command, *more: str | Path | int, cwd: Path | None = None, seconds: float = SECONDS
) -> Done:
    """Run a program to its end."""
    words = [str(word) for word in (*command, *more)]
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = _start(words, out.fileno(), err.fileno(), cwd)
        try:
            status = process.wait(seconds)
        except BaseException:
            process.kill()
            process.wait()
            raise
        took = time.monotonic() - begun
        out.seek(0)
        err.seek(0)
        return Done(words, status, out.read(), err.read(), took)


def _start(
    words: list[str],
    out: int,
    err: int,
    cwd: Path | None,
    preexec_fn: Callable[[], object] | None = None,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[str] | Copy:
    """Start a program that writes to these descriptors; one of ours as a copy where it can be."""
    folder = str(cwd or tempfile.gettempdir())
    env = environment(**(variables or {}))
    nothing = open(os.devnull)
    with nothing:
        ours = words[:3] in COPIED and preexec_fn is None and variables is None
        if ours:
            return Copy(words[2], words[3:], folder, env, [nothing.fileno(), out, err])
        return subprocess.Popen(
            words,
            cwd=folder,
            env=env,
            stdin=nothing,
            stdout=out,
            stderr=err,
            preexec_fn=preexec_fn,
        )


def dimse(*words: str | Path | int, **options: Any) -> Done:
    """Run our command line."""
    return run(DIMSE, *words, **options)


class Running:
    """A program that runs, and the lines that it has written so far."""

    def __init__(
        self,
        command: Command,
        *more: str | Path | int,
        cwd: Path | None = None,
        preexec_fn: Callable[[], object] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.command = [str(word) for word in (*command, *more)]
        self.out: list[str] = []
        self.err: list[str] = []
        self._changed = threading.Condition()
        (out, its_out), (err, its_err) = os.pipe(), os.pipe()
        try:
            self.process = _start(self.command, its_out, its_err, cwd, preexec_fn, variables)
        finally:
            os.close(its_out)
            os.close(its_err)
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((out, self.out), (err, self.err))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def said(self) -> str:
        return "\n".join([str(self.command), *self.out, *self.err])

    @property
    def last_words(self) -> str:
        return "\n".join([*self.out[-30:], *self.err])

    def wait_for_line(
        self, pattern: str, *, after: int = 0, within: float = SECONDS
    ) -> re.Match[str]:
        """The first match of ``pattern`` in a line of standard output from line ``after`` on, or
        of standard error."""
        deadline = time.monotonic() + within
        with self._changed:
            while True:
                for line in (*self.out[after:], *self.err):
                    if match := re.search(pattern, line):
                        return match
                left = deadline - time.monotonic()
                ended = not any(reader.is_alive() for reader in self._readers)
                assert left > 0, f"no line {pattern!r} in {within:g} s:\n{self.said}"
                assert not ended, f"ended without a line {pattern!r}:\n{self.said}"
                self._changed.wait(min(left, 0.5))

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = SECONDS) -> int:
        """Its exit status, when it has ended and all it said is read."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still ran after {seconds:g} s:\n{self.said}") from None
        self._close()
        return status

    def stop(self) -> int:
        """End it with SIGTERM; its exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        for reader in self._readers:
            reader.join(SECONDS)

    def _read(self, descriptor: int, lines: list[str]) -> None:
        with open(descriptor, errors="replace") as stream:
            for line in stream:
                with self._changed:
                    lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


class Server(Running):
    """``twistd -n dimse-scp`` on a free port of loopback."""

    def __init__(self, *options: str | Path | int, directory: Path, **more: Any) -> None:
        self.directory = directory
        self.instances = directory / "instances"
        self.incoming = directory / "incoming"
        listen = [] if "--listen" in options else ["--listen", "tcp:0:interface=127.0.0.1"]
        words = ["-n", "--pidfile=", "dimse-scp", *listen, "--directory", directory, *options]
        super().__init__(TWISTD, *words, cwd=directory.parent, **more)
        self.port = 0

    def started(self) -> Server:
        """The same server, when it listens."""
        self.port = int(self.wait_for_line(r"listens at 127\.0\.0\.1:(\d+)")[1])
        return self

    @property
    def peer(self) -> str:
        return f"ANY-SCP@127.0.0.1:{self.port}"

    @property
    def stored(self) -> list[Path]:
        """The files that bear a final name."""
        return sorted(path for path in self.instances.rglob("*") if path.is_file())

    @property
    def partial(self) -> list[Path]:
        return sorted(self.incoming.iterdir())

    def empty(self) -> None:
        """Take away all that is stored."""
        for path in self.instances.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def stopped(self) -> None:
        """End it as an administrator would; it must go in peace."""
        status = self.stop()
        assert status in (-signal.SIGTERM, 128 + signal.SIGTERM), self.last_words
        assert not self.err, self.last_words
        assert not any("Traceback" in line for line in self.out), self.last_words


@contextmanager
def killed_at_last(server: Server) -> Iterator[Server]:
    """A server that does not outlive this, whatever comes."""
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


@contextmanager
def serving(
    *options: str | Path | int, directory: Path | None = None, **more: Any
) -> Iterator[Server]:
    """A server of ours, in a folder of its own where none is given."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(*options, directory=directory or Path(folder) / "archive", **more)
        with killed_at_last(server):
            yield server.started()
            server.stopped()


def wait_until(true: Callable[[], object], within: float = 5.0) -> None:
    """Return as soon as ``true()`` is; fail where it is not in time."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, f"not so in {within:g} s"
        time.sleep(0.01)


def orthanc_settings(folder: Path, port: int, http: int) -> dict[str, Any]:
    """What every Orthanc of the tests is told: its ports, and to keep all below ``folder``."""
    return {
        "DicomPort": port,
        "HttpPort": http,
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomCheckCalledAet": False,
    }


def free_port() -> int:
    """A port of loopback on which nobody listens, for programs that cannot say what they got."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def listening(
    command: Command, *more: str | Path | int, port: int, tls: bool = False
) -> Iterator[Running]:
    """A server of another project, once it answers at ``port``; with ``tls``, once it listens."""
    ready = _listens if tls else _answers
    server = Running(command, *more)
    try:
        deadline = time.monotonic() + SECONDS
        while not ready(port):
            assert server.process.poll() is None, f"ended early:\n{server.said}"
            assert time.monotonic() < deadline, f"does not listen:\n{server.said}"
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(0.05)
        yield server
    finally:
        if server.process.poll() is None:
            server.signal(signal.SIGTERM)
            with suppress(AssertionError):
                server.wait(5)


def _answers(port: int) -> bool:
    try:
        return raw.echoes(port)
    except (OSError, AssertionError):
        return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def dcmtk_storescp(
    folder: Path, *options: str, accept: str = "+xa", port: int = 0
) -> Iterator[int]:
    """DCMTK's storescp, which keeps what it gets as it came; its port. ``accept`` is its option for
    transfer syntaxes."""
    port = port or free_port()
    words = ["+B", accept, "-pm", "-od", folder, *options, port]
    with listening(dcmtk("storescp"), *words, port=port):
        yield port


@contextmanager
def pynetdicom_storescp(folder: Path, *options: str) -> Iterator[int]:
    """pynetdicom's storescp; its port."""
    port = free_port()
    with listening(pynetdicom("storescp"), port, "-od", folder, *options, port=port):
        yield port
