"""The programs in the documents and in examples/ run as they stand there."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import peers
import pytest
from typed import EXAMPLES, PROGRAMS, SECONDS, Block, Place, program_serves


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
        peers.dimse("store", peer, "images", cwd=there.folder).succeeded()
        if "8080" in text:
            page = urllib.request.urlopen(there.fill("http://127.0.0.1:8080/"), timeout=SECONDS)
            assert page.status == 200
            assert "CT" in page.read().decode()
