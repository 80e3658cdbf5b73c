"""Whatever README.md, docs/ and examples/ tell people to type, and where it is run as they would.

Each fenced block of a document is taken by its language:

* ``python``: run as a program. One that calls ``listen`` or runs a factory is a server: it has to
  answer C-ECHO, take an image and end on SIGTERM. Any other is a client of a running
  ``twistd dimse-scp`` and has to end with status 0. A block whose first line is a comment such as
  ``# receiver.py`` is also saved under that name for the commands of the same document.
* ``sh``: each command is run in a shell. ``twistd`` commands are servers like the above. What
  installs or checks this project itself is not run again: `LEFT_TO_CI` names those commands.
* ``toml``, ``text``, ``json``, ``systemd`` and directives of the documents' own are for reading.

The documents use port 11112 throughout, 2762 for TLS, 8080 for web pages, and 11113 for a server
that is a client of the one on 11112; here each gets a free one. Where they run, images and
certificates lie about under the names that the documents use.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import peers
from pydicom.data import get_testdata_file

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

#: Where the rooms that docs/design.md names are looked for.
PLACES = ["twisted_dimse", "twisted_dimse/services", "."]

#: Languages whose blocks are read, not run.
PROSE = {"text", "toml", "json", "ini", "dockerfile"}

#: Commands that install, check or measure this project, and what in `.ci/run` runs the same.
LEFT_TO_CI = {
    "python -m pip install .": "python -m pytest -m packaging",
    "python -m pip install '.[test]'": "python -m pip install '.[test]' && python -m pytest",
    "python -m pytest": "python -m pip install '.[test]' && python -m pytest",
    "python -m pip install -e '.[test,lint,docs]'": "python -m pip install -e '.[test,lint,docs]'",
    "python -m pytest -m soak": "python -m pytest -m soak",
    "python -m benchmarks": "python -m benchmarks --quick",
    "ruff check .": "ruff check .",
    "ruff format --check .": "ruff format --check .",
    "mypy": "run mypy",
    "lint-imports": "run lint-imports",
    "python -m sphinx -W -b html docs docs/_build": "python -m sphinx -W -b html docs",
    "towncrier build --draft --version next": "towncrier build --draft --version next",
    "bash .ci/run": "",
}

#: Programs of other projects: without them a block cannot be run.
PEERS = {"echoscu", "storescu", "storescp", "dcmsend", "curl", "openssl"}

#: Commands of the shell itself.
BUILTINS = {"eval"}

WRITTEN_PORTS = ["11112", "11113", "2762", "8080"]
A_PORT = re.compile(rf"\b({'|'.join(WRITTEN_PORTS)})\b")
IMAGES = ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm"]
SECONDS = 90
ENDED_BY_SIGNAL = (0, 130, -signal.SIGTERM, 128 + signal.SIGTERM)


@dataclass(frozen=True)
class Block:
    document: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def filename(self) -> str | None:
        """The name that the block gives itself in a first-line comment, if any."""
        match = re.match(r"# ([\w-]+\.(?:py|tac|toml|sh))\n", self.text)
        return match[1] if match else None


def blocks(document: Path) -> list[Block]:
    """The fenced blocks of a Markdown document, directives such as ``{toctree}`` included."""
    found: list[Block] = []
    opening: tuple[int, str, str] | None = None
    content: list[str] = []
    for number, line in enumerate(document.read_text().splitlines(), 1):
        fence = re.match(r"(`{3,})\s*(.*)$", line)
        if opening is None and fence:
            opening, content = (number, fence[1], fence[2].strip()), []
        elif opening is not None and fence and fence[1] == opening[1] and not fence[2]:
            text = "\n".join(content) + "\n"
            found.append(Block(document, opening[0], opening[2], text))
            opening = None
        elif opening is not None:
            content.append(line)
    assert opening is None, f"{document}:{opening and opening[0]}: the block is never closed"
    return found


def commands(text: str) -> list[str]:
    """The single commands of an ``sh`` block, without comments and with joined continuations."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        found += [" ".join(part.split()) for part in line.split(" && ") if part.strip()]
    return found


ALL = [block for document in DOCUMENTS for block in blocks(document)]
PROGRAMS = [block for block in ALL if block.language == "python"]
SHELL = [
    (block, command)
    for block in ALL
    if block.language == "sh"
    for command in commands(block.text)
    if command not in LEFT_TO_CI
]


def free_ports() -> dict[str, int]:
    """A free port for each that the documents write."""
    with ExitStack() as stack:
        listening = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in WRITTEN_PORTS
        ]
        return {
            written: int(one.getsockname()[1])
            for written, one in zip(WRITTEN_PORTS, listening, strict=True)
        }


@dataclass(frozen=True)
class Place:
    """A folder to run things in, as a reader would have it, and a port for each they write."""

    folder: Path
    environment: dict[str, str]
    ports: dict[str, int]

    def beside(self, node: Place) -> Place:
        """The same place, where the node is what answers on 11112 and 2762, and sends to 11113
        what is moved to WORKSTATION."""
        of_node = {written: node.ports[written] for written in ("11112", "11113", "2762")}
        return replace(self, ports={**self.ports, **of_node})

    def fill(self, text: str) -> str:
        return A_PORT.sub(lambda written: str(self.ports[written[0]]), text)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def must_run(self, *command: str) -> subprocess.CompletedProcess[str]:
        done = self.run(*command)
        said = f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, said
        assert "Traceback" not in said
        return done

    @contextmanager
    def running(self, *command: str, at: str = "11112") -> Iterator[str]:
        """A server process and how to call it as a peer; it has to end on SIGTERM."""
        port = self.ports[at]
        log = self.folder / f"server-{port}.log"
        with log.open("w") as output:
            server = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        try:
            wait_for_port(port, server, log)
            yield f"ANY-SCP@127.0.0.1:{port}"
            server.send_signal(signal.SIGTERM)
            status = server.wait(SECONDS)
            assert status in ENDED_BY_SIGNAL, log.read_text()
            assert "Traceback" not in log.read_text(), log.read_text()
        finally:
            server.kill()
            server.wait()

    def must_serve(
        self, *command: str, at: str = "11112", user: re.Match[str] | None = None
    ) -> None:
        """Run a server, and send it an echo and an image by the titles, and as the user, that it
        asks for."""
        asked = " ".join(command)
        called = re.search(r"--ae-title[ =](\S+)", asked)
        calling = re.search(r"--allow-calling[ =](\S+)", asked)
        with self.running(*command, at=at) as peer:
            if called:
                peer = peer.replace("ANY-SCP", called[1])
            options = ["--calling", calling[1] if calling else "ANY-SCU"]
            if at == "2762":
                options += ["--tls", "--ca", "hospital.pem", "--cert", "we.pem", "--key", "we.key"]
            if user:
                (self.folder / "passcode").write_text(user[2])
                options += ["--user", user[1], "--password-file", "passcode"]
            peers.dimse("echo", peer, *options, cwd=self.folder).succeeded()
            peers.dimse("store", peer, "image.dcm", *options, cwd=self.folder).succeeded()


def wait_for_port(port: int, server: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        with suppress(subprocess.TimeoutExpired):
            status = server.wait(0.05)
            raise AssertionError(f"the server ended with status {status}:\n{log.read_text()}")
    raise AssertionError(f"nobody listens on {port}:\n{log.read_text()}")


def furnish(folder: Path, certificates: Path) -> None:
    """Lay out the files that the documents speak of."""
    shutil.copytree(certificates, folder, dirs_exist_ok=True)
    images = folder / "images"
    images.mkdir()
    for name in IMAGES:
        source = get_testdata_file(name)
        assert isinstance(source, str)
        shutil.copy(source, images)
    shutil.copy(images / "CT_small.dcm", folder / "image.dcm")
    (images / "notes.txt").write_text("not DICOM")


def save_named_blocks(document: Path, place: Place) -> None:
    for block in blocks(document):
        if block.filename:
            (place.folder / block.filename).write_text(place.fill(block.text))


def program_serves(text: str) -> bool:
    return "listen(" in text or "AssociationFactory(" in text or "makeService" in text
