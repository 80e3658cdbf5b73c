"""A disk that takes its time: who stores waits for it, and nobody else does.

No time is measured: a call of `os` is stalled until others have been answered.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import raw
from loop import SECONDS, Loop

from twisted_dimse import Handler
from twisted_dimse.archive.handler import Archive, ArchiveHandler
from twisted_dimse.services.files import InstanceFiles
from twisted_dimse.services.storage import FilingHandler

CALLS = ("open", "write", "writev", "fsync", "fdatasync", "close", "link", "rename", "unlink")
CALLS += ("mkdir",)


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


@contextmanager
def archive_at(loop: Loop, folder: Path, **options: Any) -> Iterator[int]:
    """An archive at work; its port."""

    def begin() -> Archive:
        archive = Archive(str(folder), reactor=loop.reactor, **options)
        archive.start()
        return archive

    archive = loop.run(begin)
    yield loop.listen(ArchiveHandler(archive))
    loop.run(archive.close)


def path_of(what: Any) -> str:
    """The file that a call is about."""
    return os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)


class Calls:
    """The calls of `os` about what lies below a folder, from here on.

    `of_reactor` has those that the reactor's thread makes: name, and what it is about. The first of
    which ``stalls(name, path)`` says so waits until `go_on`, unless it is one of these.
    """

    def __init__(
        self,
        loop: Loop,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        stalls: Callable[[str, str], bool] = lambda _name, _path: False,
    ) -> None:
        self.of_reactor: set[tuple[str, str]] = set()
        self.stalled_reactor = False
        self.stalled = threading.Event()
        self.go_on = threading.Event()
        self._reactor = loop.run(threading.get_ident)
        self._folder = str(folder)
        self._stalls = stalls
        for name in CALLS:
            monkeypatch.setattr(os, name, self._followed(name, getattr(os, name)))

    def _followed(self, name: str, real: Any) -> Any:
        def call(what: Any, *args: Any, **more: Any) -> Any:
            path = path_of(what)
            if path.startswith(self._folder):
                self._called(name, path)
            return real(what, *args, **more)

        return call

    def _called(self, name: str, path: str) -> None:
        end = os.path.splitext(path)[1]
        kind = end if end in (".part", ".dcm", ".log") else "folder"
        of_reactor = threading.get_ident() == self._reactor
        if of_reactor:
            self.of_reactor.add((name, kind))
        if self._stalls(name, path) and not self.stalled.is_set():
            self.stalled.set()
            self.stalled_reactor = of_reactor
            assert of_reactor or self.go_on.wait(SECONDS)


@pytest.mark.parametrize(
    ("call", "end"),
    [
        ("open", ".part"),
        ("writev", ".part"),
        ("fsync", ".part"),
        ("close", ".part"),
        ("open", ".log"),
        ("write", ".log"),
        ("fdatasync", ".log"),
        ("fsync", "/journal"),
        ("link", ".dcm"),
        ("rename", ".part"),
        ("mkdir", "/1.2.3"),
        ("fsync", "/1.2.3.4"),
        ("fsync", "/1.2.3"),
        ("fsync", "/instances"),
    ],
    ids=lambda part: part.strip("."),
)
def test_while_the_disk_stalls_under_sync_another_association_is_answered(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, end: str
) -> None:
    with (
        archive_at(loop, tmp_path, durability="sync") as port,
        raw.Client(port) as sender,
        raw.Client(port) as other,
    ):
        sender.associate()
        other.associate()
        calls = Calls(
            loop, tmp_path, monkeypatch, lambda name, path: name == call and path.endswith(end)
        )
        sender.send_message(3, raw.store_rq("1.2.9"), raw.dataset("1.2.9"))
        assert calls.stalled.wait(SECONDS), "the call was not made"
        assert not calls.stalled_reactor
        for message_id in range(1, 20):
            assert other.echo(message_id) == 0
        sender.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sender.read()
        sender.socket.settimeout(SECONDS)
        calls.go_on.set()
        assert sender.message().status == 0
        monkeypatch.undo()


def filing(loop: Loop, folder: Path, durability: str) -> Handler:
    def make() -> Handler:
        files = InstanceFiles(str(folder), durability=durability, reactor=loop.reactor)
        return FilingHandler(files)

    return loop.run(make)


WRITING = {("open", ".part"), ("writev", ".part")}
REMOVING = {("close", ".part"), ("unlink", ".part")}
NAMING = {("close", ".part"), ("rename", ".part"), ("mkdir", "folder")}
JOURNAL = {("open", ".log"), ("write", ".log")}


@pytest.mark.parametrize(
    ("kind", "durability", "expected"),
    [
        ("archive", "sync", set()),
        ("store-only", "sync", set()),
        ("archive", "commit", WRITING | REMOVING | NAMING | JOURNAL),
        ("store-only", "commit", WRITING | REMOVING | NAMING),
    ],
    ids=["archive-sync", "store-only-sync", "archive-commit", "store-only-commit"],
)
def test_what_the_reactor_does_itself_is_what_the_documents_say(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    kind: str, durability: str, expected: set[tuple[str, str]],
) -> None:  # fmt: skip
    """docs/performance.md, "A disk that stalls"."""
    if kind == "archive":
        with archive_at(loop, tmp_path, durability=durability) as port:
            calls = Calls(loop, tmp_path, monkeypatch)
            _store_several(port)
            monkeypatch.undo()
    else:
        port = loop.listen(filing(loop, tmp_path, durability))
        calls = Calls(loop, tmp_path, monkeypatch)
        _store_several(port)
        monkeypatch.undo()
    assert calls.of_reactor == expected


def _store_several(port: int) -> None:
    """New, large, again, and one that is given up halfway."""
    with raw.Client(port) as client:
        client.associate()
        for number, size in enumerate((10, 1_000_000, 10)):
            data = raw.dataset(f"1.2.{number % 2}", size)
            assert client.store(f"1.2.{number % 2}", data).status == 0
        client.send(raw.p_data((3, raw.COMMAND | raw.LAST, raw.store_rq("1.2.8"))))
        client.send(raw.p_data((3, 0, raw.dataset("1.2.8", 1000))))
        client.send(raw.pdu(raw.ABORT, bytes(4)))
        assert client.is_closed()
