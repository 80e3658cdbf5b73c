"""Whatever README.md, docs/ and examples/ tell people to type is run here, as they would run it.

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

import importlib
import os
import pkgutil
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import peers
import pytest
import trustme
from pydicom.data import get_testdata_file

import twisted_dimse
from twisted_dimse.cli.main import COMMANDS
from twisted_dimse.dimse.command import REQUEST_NAMES

ROOT = Path(__file__).resolve().parent.parent
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
            self.must_run("dimse", "echo", peer, *options)
            self.must_run("dimse", "store", peer, "image.dcm", *options)


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


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """``python``, ``dimse`` and ``twistd`` are those of the Python that runs the tests."""
    programs = tmp_path_factory.mktemp("bin")
    dimse = programs / "dimse"
    dimse.write_text(
        f"#!{sys.executable}\nfrom twisted_dimse.cli import main\nraise SystemExit(main())\n"
    )
    dimse.chmod(0o755)
    python = programs / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    path = os.pathsep.join([str(programs), sysconfig.get_path("scripts"), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documents call by these names."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "hospital.pem")
    authority.private_key_pem.write_to_path(folder / "hospital.key")
    for name, issued in [
        ("server", authority.issue_cert("localhost", "127.0.0.1")),
        ("we", authority.issue_cert("we@hospital.example")),
    ]:
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
    return folder


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


@pytest.fixture
def place(tmp_path: Path, environment: dict[str, str], certificates: Path) -> Place:
    furnish(tmp_path, certificates)
    return Place(tmp_path, environment, free_ports())


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], certificates: Path
) -> Iterator[Place]:
    """The running archive that the clients in the documents talk to, with images in it."""
    place = Place(tmp_path_factory.mktemp("node"), environment, free_ports())
    furnish(place.folder, certificates)
    tls = "dicomtls:2762:interface=127.0.0.1:key=server.key:cert=server.pem:ca=hospital.pem"
    options = [
        "--listen=tcp:11112:interface=127.0.0.1",
        f"--listen={tls}:verify=optional",
        "--peer=WORKSTATION=127.0.0.1:11113",
    ]
    with place.running("twistd", "-n", "dimse-scp", *map(place.fill, options)) as peer:
        place.must_run("dimse", "store", peer, "images")
        yield place


def save_named_blocks(document: Path, place: Place) -> None:
    for block in blocks(document):
        if block.filename:
            (place.folder / block.filename).write_text(place.fill(block.text))


def program_serves(text: str) -> bool:
    return "listen(" in text or "AssociationFactory(" in text or "makeService" in text


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.name)
def test_a_block_says_what_it_is(block: Block) -> None:
    known = block.language in {"python", "sh"} | PROSE or block.language.startswith("{")
    assert known, f"{block.name}: what is {block.language or 'a block without a language'!r}?"


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.name)
def test_a_program_of_the_documents_runs(block: Block, place: Place, node: Place) -> None:
    serves = program_serves(block.text)
    at = "11113" if "11113" in block.text else "11112"
    there = place if serves and at == "11112" else place.beside(node)
    name = block.filename or "program.py"
    (there.folder / name).write_text(there.fill(block.text))
    if name.endswith(".tac"):
        there.must_serve("twistd", "-n", "-y", name)
    elif serves:
        user = re.search(r'DontUse\((\w+)=b"([^"]+)"\)', block.text)
        there.must_serve("python", name, at=at, user=user)
    else:
        there.must_run("python", name)


@pytest.mark.parametrize(
    ("block", "command"),
    SHELL,
    ids=[f"{block.name}-{command[:40]}" for block, command in SHELL],
)
def test_a_command_of_the_documents_runs(
    block: Block, command: str, place: Place, node: Place
) -> None:
    program = next(word for word in command.split() if "=" not in word)
    command = command.replace("PYTHONPATH=.", f"PYTHONPATH=.:{ROOT}")
    if program == "twistd" or command.startswith("dimse listen"):
        save_named_blocks(block.document, place)
        at = "2762" if "dicomtls" in command else "11112"
        if "dimse-scp" in command and at not in command:
            command += " --listen tcp:11112:interface=127.0.0.1"
        shell = place.fill(command.replace(program, f"exec {program}", 1))
        place.must_serve("bash", "-c", shell, at=at)
        return
    known = {"dimse", "python"} | BUILTINS | PEERS
    assert program in known, f"{block.name}: nothing here runs {program}"
    if program in PEERS and shutil.which(program, path=place.environment["PATH"]) is None:
        peers.absent(program)
    if block.document.name == "CONTRIBUTING.md":
        folder = ROOT  # it speaks to somebody who stands in a clone
    else:
        folder = place.folder
        save_named_blocks(block.document, place)
    there = replace(place.beside(node), folder=folder)
    there.must_run("bash", "-c", there.fill(command))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_runs(example: Path, place: Place, node: Place) -> None:
    text = example.read_text()
    serves = program_serves(text)
    there = place if serves else place.beside(node)
    (there.folder / example.name).write_text(there.fill(text))
    if not serves:
        there.must_run("python", example.name)
        return
    with there.running("python", example.name) as peer:
        there.must_run("dimse", "store", peer, "images")
        if "8080" in text:
            page = urllib.request.urlopen(there.fill("http://127.0.0.1:8080/"), timeout=SECONDS)
            assert page.status == 200
            assert "CT" in page.read().decode()


def options_of(*command: str, environment: dict[str, str]) -> set[str]:
    """The long options in the help of a command."""
    help_text = subprocess.run(
        [*command, "--help"], env=environment, capture_output=True, text=True, timeout=SECONDS
    ).stdout
    return set(re.findall(r"--[a-z][a-z-]+", help_text)) - {"--help", "--version"}


@pytest.mark.parametrize(
    ("document", "commands"),
    [
        ("server.md", ["twistd dimse-scp"]),
        ("command-line.md", [f"dimse {name}" for name in COMMANDS]),
    ],
)
def test_the_documents_know_every_option_and_no_other(
    document: str, commands: list[str], environment: dict[str, str]
) -> None:
    known = set[str]().union(
        *(options_of(*command.split(), environment=environment) for command in commands)
    )
    text = (ROOT / "docs" / document).read_text()
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--pidfile", "--reactor"}
    assert told == known


def test_the_design_names_what_exists() -> None:
    classes = {
        name: value
        for module in pkgutil.walk_packages(twisted_dimse.__path__, "twisted_dimse.")
        if not module.name.endswith("_reactor")  # those are for who chooses them
        for name, value in vars(importlib.import_module(module.name)).items()
        if isinstance(value, type) and value.__module__.startswith("twisted_dimse")
    }
    text = (ROOT / "docs" / "design.md").read_text()
    told = re.findall(r"`([A-Z]\w+)\.(\w+)`", text)
    assert told
    assert not [f"{kind}.{name}" for kind, name in told if not hasattr(classes.get(kind), name)]
    rooms = re.findall(r"`([a-z]+(?:/[a-z_]+)*(?:\.py|/))`", text)
    assert not [room for room in rooms if not any((ROOT / up / room).exists() for up in PLACES)]


def test_every_test_that_the_interoperability_names_exists() -> None:
    text = (ROOT / "docs" / "interoperability.md").read_text("utf-8")
    tests = {path.name: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    named = re.findall(r"`(?:(test_\w+\.py)::)?(test_\w+)`", text)
    assert named
    for file, name in named:
        assert f"def {name}(" in tests[file or "test_negotiation_pynetdicom.py"]


@pytest.mark.parametrize("peer", ["pynetdicom", "dcmjs-dimse"])
@pytest.mark.parametrize("direction", ["asks us", "is asked"])
def test_each_of_the_eleven_services_is_shown_with_a_peer(peer: str, direction: str) -> None:
    text = (ROOT / "docs" / "interoperability.md").read_text("utf-8")
    rows = re.findall(rf"^\| {peer} \| {direction} \| (.+?) \| `", text, re.MULTILINE)
    shown = {service for row in rows for service in row.split(", ")}
    assert shown >= set(REQUEST_NAMES.values())


def test_each_command_left_to_ci_is_run_there() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    used = {command for block in ALL if block.language == "sh" for command in commands(block.text)}
    assert used >= LEFT_TO_CI.keys(), f"no document has {LEFT_TO_CI.keys() - used}"
    missing = [command for command, there in LEFT_TO_CI.items() if there not in script]
    assert not missing


def test_every_link_to_a_file_leads_somewhere() -> None:
    broken = []
    for document in DOCUMENTS:
        prose = re.sub(r"^(`{3,}).*?^\1$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", prose):
            if not (document.parent / target).exists():
                broken.append(f"{document.name}: {target}")
    assert not broken
