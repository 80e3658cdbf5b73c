"""Where the files of a run lie, and what the run is: sizes, counts, the folder.

with Settings.made(quick=False, folder=None) as settings:
    with settings.new_folder() as folder: ...
    files = settings.files(shape, 1000)
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.instances import Shape, batch, write_folder
from benchmarks.processes import Failed

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_TMPFS = Path("/dev/shm")
_NEEDED = 5 * GIB


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is done in one run, and where."""

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

    @classmethod
    @contextmanager
    def made(cls, *, quick: bool, folder: Path | None) -> Iterator[Settings]:
        """Settings with a folder of their own, which is removed in the end."""
        with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=folder or _fast()) as name:
            if quick:
                yield cls(Path(name), 2_000, 500, 50, 64 * MIB, 256 * MIB, 2_000, 50, 300, True)
            else:
                yield cls(Path(name))

    @contextmanager
    def new_folder(self) -> Iterator[Path]:
        """An empty folder, removed with all that is in it."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            yield Path(name)

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
    A folder on a disk is left alone.
    """
    if file_system(folder) != "tmpfs":
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        for at in range(0, octets * 5 // 4, MIB):
            file.write(b"w" * min(MIB, octets * 5 // 4 - at))


def take_away(folder: Path, least: int) -> int:
    """Remove all files of at least ``least`` octets below ``folder``; how many there were."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size >= least]
    for path in found:
        path.unlink()
    return len(found)


def time_between(folder: Path, least: int, count: int) -> float:
    """Seconds from the last write into the first of ``count`` files of at least ``least`` octets
    below ``folder`` to the last write into the last; they are removed.

    Raises `Failed` where there are more or fewer of them.
    """
    found = [path for path in folder.rglob("*") if path.is_file()]
    written = [state.st_mtime_ns for state in map(Path.stat, found) if state.st_size >= least]
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


def _fast() -> Path | None:
    if _TMPFS.is_dir() and shutil.disk_usage(_TMPFS).free >= _NEEDED:
        return _TMPFS
    print("warning: no tmpfs with 5 GiB to spare: the files go to the temporary folder, and the "
          "disk is part of what is measured", file=sys.stderr)  # fmt: skip
    return None
