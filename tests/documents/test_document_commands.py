"""The commands in the documents run as they stand there."""

from __future__ import annotations

import shutil
from dataclasses import replace

import peers
import pytest
from typed import BUILTINS, PEERS, ROOT, SHELL, Block, Place, save_named_blocks


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
