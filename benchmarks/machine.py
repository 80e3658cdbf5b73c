"""What the figures were measured on: machine, load, versions; nothing that names the machine."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.peers import dcmtk
from benchmarks.scratch import file_system

_PACKAGES = ("twisted-dimse", "twisted", "pydicom", "pynetdicom", "uvloop")


def description(folder: Path) -> dict[str, str]:
    """Name and value of each thing worth knowing; ``folder`` is where the files go."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    facts = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "files on": file_system(folder),
        "load at start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "Python": sys.version.split()[0],
        "DCMTK": dcmtk("storescp")[1] or "not installed",
    }
    return facts | {package: _version(package) for package in _PACKAGES}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
