"""Where the documents are followed: programs, files, and a running archive."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import peers
import pytest
import trustme
from typed import ROOT, Place, free_ports, furnish


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
        peers.dimse("store", peer, "images", cwd=place.folder).succeeded()
        yield place
