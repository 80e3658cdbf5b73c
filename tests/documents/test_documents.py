"""The documents say what is there, and all that is there."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess

import pytest
from typed import ALL, DOCUMENTS, LEFT_TO_CI, PLACES, PROSE, ROOT, SECONDS, Block, commands

import twisted_dimse
from twisted_dimse.cli.main import COMMANDS
from twisted_dimse.dimse.command import REQUEST_NAMES


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.name)
def test_a_block_says_what_it_is(block: Block) -> None:
    known = block.language in {"python", "sh"} | PROSE or block.language.startswith("{")
    assert known, f"{block.name}: what is {block.language or 'a block without a language'!r}?"


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


@pytest.mark.parametrize("document", ["interoperability.md", "pains.md"])
def test_every_test_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / "docs" / document).read_text("utf-8")
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
