"""Where the files of a run lie, and what the run is: sizes, counts, the folder.

with Settings.made(quick=False, folder=None) as settings:
    with settings.new_folder() as folder: ...
    files = settings.files(shape, 1000)
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.instances import Shape, batch, write_folder
from benchmarks.processes import Failed

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_TMPFS = Path("/dev/shm")
_DISK = Path("/var/tmp")  # where the temporary folder may be in memory
_NEEDED = 5 * GIB


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is done in one run, and where; ``disk`` is for what has to be on a disk."""

    folder: Path
    echoes: int = 20_000
    small: int = 8_000
    medium: int = 1_000
    large: int = 512 * MIB
    huge: int = 2 * GIB
    answers: int = 10_000
    fetched: int = 500
    visits: int = 2_000
    quick: bool = False
    disk: Path | None = None

    @classmethod
    @contextmanager
    def made(cls, *, quick: bool, folder: Path | None) -> Iterator[Settings]:
        """Settings with folders of their own, which are removed in the end."""
        with (
            tempfile.TemporaryDirectory(prefix="benchmarks-", dir=folder or _fast()) as name,
            tempfile.TemporaryDirectory(prefix="benchmarks-", dir=folder or _lasting()) as disk,
        ):
            made = cls(Path(name), disk=Path(disk))
            yield made.little() if quick else made

    def little(self) -> Settings:
        """The same with little work."""
        return replace(
            self, echoes=2_000, small=500, medium=50, large=64 * MIB, huge=256 * MIB,
            answers=2_000, fetched=50, visits=300, quick=True,
        )  # fmt: skip

    @contextmanager
    def new_folder(self, *, on_disk: bool = False) -> Iterator[Path]:
        """An empty folder, removed with all that is in it."""
        where = self.lasting if on_disk else self.folder
        with tempfile.TemporaryDirectory(dir=where) as name:
            yield Path(name)

    @property
    def lasting(self) -> Path:
        """The folder on a disk, where a sync costs what it costs."""
        return self.disk or self.folder

    def files(self, shape: Shape, count: int, *, sparse: bool = False, names: int = 1) -> Path:
        """A folder of ``count`` Part 10 files of one shape, made when first asked for; with
        ``names``, each of them by so many names."""
        folder = self.folder / f"files-{shape.size}-{count}"
        if not folder.exists():
            write_folder(folder, shape, batch(count), sparse=sparse)
        return folder if names == 1 else _by_more_names(folder, names)


def _by_more_names(folder: Path, names: int) -> Path:
    """A folder with the same files, each so many times (hard links)."""
    linked = folder.with_name(f"{folder.name}-{names}")
    if not linked.exists():
        linked.mkdir()
        for path in folder.iterdir():
            for number in range(names):
                (linked / f"{number}-{path.name}").hardlink_to(path)
    return linked


def warm(folder: Path, octets: int) -> None:
    """Have the machine use a quarter more memory than ``octets``, by a file that is removed at
    once, so that a run which writes so much into ``folder`` meets memory that is there already.

    What a virtual machine has not used lately its host gives page by page at the first touch,
    which takes longer than filing an instance does; who comes first would pay for it.
    On a disk nothing is added; what others have yet to write there is written first.
    """
    if file_system(folder) != "tmpfs":
        os.sync()
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        for at in range(0, octets * 5 // 4, MIB):
            file.write(b"w" * min(MIB, octets * 5 // 4 - at))


def take_away(folder: Path, least: int) -> int:
    """Remove all Part 10 files of at least ``least`` octets below ``folder``; how many there were.

    An index, which may be as large, stays.
    """
    found = [path for path in _instances(folder) if path.stat().st_size >= least]
    for path in found:
        path.unlink()
    return len(found)


def _instances(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and _is_part_10(path)]


def _is_part_10(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def time_between(folder: Path, least: int, count: int) -> float:
    """Seconds from the last write into the first of ``count`` files of at least ``least`` octets
    below ``folder`` to the last write into the last; they are removed.

    Raises `Failed` where there are more or fewer of them.
    """
    states = map(Path.stat, _instances(folder))
    written = [state.st_mtime_ns for state in states if state.st_size >= least]
    take_away(folder, least)
    if len(written) != count:
        raise Failed(f"{len(written)} files of full size instead of {count}")
    return max(max(written) - min(written), 1_000_000) / 1e9


def file_system(folder: Path) -> str:
    """The type of the file system that ``folder`` lies on, such as ``tmpfs``."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, found, *_ = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def _lasting() -> Path | None:
    return _DISK if _DISK.is_dir() else None


def _fast() -> Path | None:
    if _TMPFS.is_dir() and shutil.disk_usage(_TMPFS).free >= _NEEDED:
        return _TMPFS
    print("warning: no tmpfs with 5 GiB to spare: the files go to the temporary folder, and the "
          "disk is part of what is measured", file=sys.stderr)  # fmt: skip
    return None
