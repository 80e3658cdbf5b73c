"""C-STORE of 512 KiB over TLS, received and sent, beside DCMTK's ``+tls``.

Servers are sent to by our client, and clients send to our server, so that each row has one
contestant's TLS against the same other side. Certificates come from the ``openssl`` command.
Nobody asks for a client's certificate, but DCMTK's programs have one to start with.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from benchmarks.harness import DCMTK, OURS, Mark, Row
from benchmarks.instances import Shape
from benchmarks.pairs import Work, pair
from benchmarks.peers import (
    DIMSE,
    OUR_CLIENT,
    Command,
    Program,
    connects,
    dcmtk,
    of_dcmtk,
    our_server_at,
    ours,
)
from benchmarks.processes import Failed
from benchmarks.scratch import KIB, Settings

MARKS = (Mark(0.85, DCMTK),)
_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


def rows(settings: Settings) -> list[Row]:
    """Into each server, and out of each client."""
    work = Work(settings, Shape(512 * KIB), settings.medium, connects)
    papers = _Papers(settings.folder)
    server = _with_openssl(ours("dimse-scp", papers.our_server))
    library = _with_openssl(ours("Association.store()", papers.our_library))
    command = _with_openssl(ours("dimse store", papers.our_command))
    storescp = of_dcmtk("storescp +tls", papers.storescp)
    storescu = of_dcmtk("storescu +tls", papers.storescu)
    into = [
        pair(server.name, OURS, library, server, work),
        pair(storescp.name, DCMTK, library, storescp, work),
    ]
    out = [
        pair(command.name, OURS, command, server, work),
        pair(library.name, OURS, library, server, work),
        pair(storescu.name, DCMTK, storescu, server, work),
    ]
    return [
        Row("tls-receive", "receive 512 KiB over TLS", "a second", into, MARKS),
        Row("tls-send", "send 512 KiB over TLS", "a second", out, MARKS),
    ]


class _Papers:
    """A certificate that vouches for itself, its key, and the commands that have them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def made(self) -> tuple[str, str]:
        """The paths of certificate and key, made when first asked for."""
        return _made(self._folder)

    def our_server(self, port: int, folder: Path) -> Command:
        certificate, key = self.made()
        where = f"dicomtls:{port}:interface=127.0.0.1:cert={certificate}:key={key}"
        return our_server_at(where, folder, "--store-only")

    def our_library(self, port: int, folder: Path, _: int) -> Command:
        return [*OUR_CLIENT, "store", self._peer(port), str(folder)]

    def our_command(self, port: int, folder: Path, _: int) -> Command:
        return [*DIMSE, "store", self._peer(port), str(folder)]

    def storescp(self, port: int, folder: Path) -> Command:
        certificate, key = self.made()
        return [
            dcmtk("storescp")[0], "-dhl", "+B", "-od", str(folder), "-pdu", "131072",
            "+tls", key, certificate, "-ic", str(port),
        ]  # fmt: skip

    def storescu(self, port: int, folder: Path, _: int) -> Command:
        certificate, key = self.made()
        return [
            dcmtk("storescu")[0], "-R", "-pdu", "131072", "+sd", "+tls", key, certificate,
            "+cf", certificate, "127.0.0.1", str(port), str(folder),
        ]  # fmt: skip

    def _peer(self, port: int) -> str:
        return f"RAW@dicomtls:127.0.0.1:{port}:ca={self.made()[0]}"


def _with_openssl(program: Program) -> Program:
    return replace(program, missing=partial(_missing, program.missing))


def _missing(others: Callable[[], str | None]) -> str | None:
    found = shutil.which("openssl")
    return others() if found else "the openssl command is not installed"


@cache
def _made(folder: Path) -> tuple[str, str]:
    certificate, key = folder / "tls.pem", folder / "tls.key"
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
        "/CN=localhost", "-addext", _NAMES, "-keyout", str(key), "-out", str(certificate),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Failed(f"openssl ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return str(certificate), str(key)
