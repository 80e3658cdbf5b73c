"""Orthanc at its defaults, but for TCP_NODELAY, with a folder and ports of its own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from benchmarks.peers import DCMTK_ENVIRONMENT, Command, Program
from benchmarks.processes import free_port

ORTHANC = "Orthanc"


def orthanc() -> Program:
    """Its server."""
    return Program(ORTHANC, ORTHANC, _command, _missing, environment=DCMTK_ENVIRONMENT)


def _command(port: int, folder: Path) -> Command:
    """It may be asked by anyone; all else is as it comes."""
    configuration = folder / "orthanc.json"
    settings = {
        "DicomPort": port,
        "HttpPort": free_port(),
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAlwaysAllowFind": True,
        "DicomCheckCalledAet": False,
        "DefaultEncoding": "Utf8",
        "Plugins": [],
    }
    configuration.write_text(json.dumps(settings))
    return [_path(), str(configuration)]


def _missing() -> str | None:
    return None if _path() else "Orthanc is not installed"


def _path() -> str:
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    return shutil.which("Orthanc", path=places) or ""
