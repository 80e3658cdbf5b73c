"""One archive of ours for all the commands, with a few patients in it, and where it moves to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import peers
import pytest
from patients import write
from peers import Server, dimse, serving


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="session")
def here() -> int:
    """The port to which the archive sends what is moved to ME."""
    return peers.free_port()


@pytest.fixture(scope="session")
def silent() -> Iterator[int]:
    """The port of SILENT, who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


@pytest.fixture(scope="session")
def archive(files: Path, here: int, silent: int) -> Iterator[Server]:
    known = [f"ME=127.0.0.1:{here}", f"SILENT=127.0.0.1:{silent}"]
    with serving("--peer", known[0], "--peer", known[1]) as server:
        dimse("store", server.peer, files).succeeded()
        yield server
