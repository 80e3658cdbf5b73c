"""What a power cut leaves: a folder as the disk has it, rebuilt from the calls that were made.

Nothing is on the disk until it is synced. As POSIX has it, a sync of a file makes its octets
durable and nothing else, and a sync of a folder its entries; a rename is two entries, in two
folders.

    disk = Disk(tmp_path / "disk", monkeypatch)     # from here on the calls of `os` are followed
    ...
    write_out(disk.worst(), tmp_path / "after")

SQLite makes its calls by itself. Its part of the bargain, that a commit is on the disk, is taken
for granted: `Disk.index` is the database as of the last one.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from twisted_dimse.archive.index import Index

#: A folder: names, each with the octets of a file or with a folder.
Tree = dict[str, Any]

_INDEX = "index.sqlite"


class Killed(BaseException):
    """The process is dead: nothing it does happens any more."""


class Node:
    """A file or a folder on the disk: what of it was synced. `entries` is None for a file."""

    def __init__(self, *, folder: bool) -> None:
        self.octets = b""
        self.entries: dict[str, Node] | None = {} if folder else None

    def tree(self) -> Any:
        if self.entries is None:
            return self.octets
        return {name: node.tree() for name, node in sorted(self.entries.items())}


class Disk:
    """Follows what becomes of ``top``, which is made.

    ``unsynced(path)`` says which syncs are left out. `calls` counts those that change something;
    with `dies_at` the process is `Killed` at the call of that number, until `revive`.
    """

    def __init__(
        self,
        top: Path,
        monkeypatch: pytest.MonkeyPatch,
        unsynced: Callable[[str], bool] = lambda _path: False,
    ) -> None:
        top.mkdir()
        self.top = str(top)
        self.index = b""
        self.calls = 0
        self.dies_at: int | None = None
        self._unsynced = unsynced
        self._descriptors: set[int] = set()
        self._nodes: dict[int, Node] = {}
        self._root = self._node(self.top)
        for name in ("mkdir", "write", "writev", "link"):
            self._follow(monkeypatch, name, self._change)
        for name in ("unlink", "rename"):
            self._follow(monkeypatch, name, self._last_name)
        for name in ("fsync", "fdatasync"):
            self._follow(monkeypatch, name, self._sync)
        self._follow(monkeypatch, "open", self._opened)
        self._follow(monkeypatch, "close", self._closed)
        real = Index.add

        def add(index: Index, headers: Any) -> list[str]:
            self._changed()
            replaced = real(index, headers)
            self._note_index()
            return replaced

        monkeypatch.setattr(Index, "add", add)
        real_open = Index.open

        def opened(*args: Any, **more: Any) -> Index:
            index = real_open(*args, **more)
            self._note_index()
            return index

        monkeypatch.setattr(Index, "open", opened)

    def worst(self) -> Tree:
        """All that was not synced is lost."""
        tree: Tree = self._root.tree()
        return tree

    def mixed(self, chance: random.Random) -> Tree:
        """Each thing that was not synced is lost or not, by itself."""
        return self._mixed(self._root, self.top, chance)

    def revive(self) -> None:
        """The process is gone, and another may start: the files of the first are closed."""
        self.dies_at = None
        for descriptor in list(self._descriptors):
            os.close(descriptor)

    # --- as it is

    def _node(self, path: str) -> Node:
        found = os.lstat(path)
        if found.st_ino not in self._nodes:
            self._nodes[found.st_ino] = Node(folder=os.path.isdir(path))
        return self._nodes[found.st_ino]

    def _entries(self, folder: str) -> dict[str, Node]:
        names = (name for name in os.listdir(folder) if not name.startswith(_INDEX))
        return {name: self._node(os.path.join(folder, name)) for name in names}

    def _mixed(self, node: Node, path: str, chance: random.Random) -> Tree:
        """``path`` is where the folder is now, "" where it is nowhere any more."""
        synced, now = node.entries or {}, self._entries(path) if path else {}
        tree: Tree = {}
        for name in sorted({*synced, *now}):
            entry = chance.choice((synced.get(name), now.get(name)))
            if entry is None:
                continue
            where = os.path.join(path, name) if entry is now.get(name) else ""
            if entry.entries is not None:
                tree[name] = self._mixed(entry, where, chance)
                continue
            written = Path(where).read_bytes() if where else entry.octets
            part = written[: chance.randrange(len(written) + 1)]
            kept = chance.choice((entry.octets, written, part))
            tree[name] = written if written == entry.octets else kept
        return tree

    # --- what is called

    def _follow(self, monkeypatch: pytest.MonkeyPatch, name: str, follow: Any) -> None:
        real = getattr(os, name)

        def call(*args: Any, **more: Any) -> Any:
            return follow(real, *args, **more)

        monkeypatch.setattr(os, name, call)

    def _changed(self) -> None:
        if self.dies_at is not None and self.calls >= self.dies_at:
            raise Killed
        self.calls += 1

    def _change(self, real: Any, *args: Any, **more: Any) -> Any:
        self._changed()
        return real(*args, **more)

    def _last_name(self, real: Any, *paths: str) -> None:
        """A call after which a number may be given to another file."""
        self._changed()
        gone = os.lstat(paths[-1]) if os.path.lexists(paths[-1]) else None
        real(*paths)
        if gone is not None and gone.st_nlink == 1:
            self._nodes.pop(gone.st_ino, None)

    def _sync(self, _real: Any, descriptor: int) -> None:
        self._changed()
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if not (path + "/").startswith(self.top + "/") or self._unsynced(path[len(self.top) :]):
            return
        node = self._node(path)
        if node.entries is None:
            node.octets = Path(path).read_bytes()
        else:
            node.entries = self._entries(path)

    def _opened(self, real: Any, path: Any, flags: int, *mode: int, **more: Any) -> int:
        if flags & os.O_CREAT:
            self._changed()
        descriptor: int = real(path, flags, *mode, **more)
        if str(path).startswith(self.top):
            self._descriptors.add(descriptor)
        return descriptor

    def _closed(self, real: Any, descriptor: int) -> None:
        self._descriptors.discard(descriptor)
        real(descriptor)

    def _note_index(self) -> None:
        for path in Path(self.top).rglob(_INDEX):
            with sqlite3.connect(path) as connection:
                self.index = connection.serialize()
            connection.close()


def write_out(tree: Tree, folder: Path, index: bytes = b"") -> None:
    """Make a folder of a `Tree`; ``index`` is the database in it, where there is one."""
    folder.mkdir(parents=True)
    for name, content in tree.items():
        if isinstance(content, dict):
            write_out(content, folder / name)
        else:
            (folder / name).write_bytes(content)
    if index:
        (folder / _INDEX).write_bytes(index)
