"""The archive as a program on a disk that is full, and in a folder that it may not write to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import peers
import pytest
from peers import Server, serving
from raw import Client, dataset
from test_archive_programs import found

ROOT = "1.2.826.0.1.3680043.8.498.78"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with peers.small_disk(tmp_path, "4m") as disk:
        yield disk


def octets_of(uid: str) -> bytes:
    place = f"{ROOT}.1{int(uid.split('.')[-1]) % 3}"
    return dataset(uid, 100_000, study=place, series=f"{place}.1")


def stored(server: Server, numbers: range) -> dict[str, tuple[int, str]]:
    """The status and the comment for each of new instances."""
    answers = {}
    with Client(server.port) as client:
        client.associate()
        for number in numbers:
            uid = f"{ROOT}.{number}"
            answer = client.store(uid, octets_of(uid))
            answers[uid] = answer.status, answer.comment if answer.status else ""
        client.release()
    return answers


def test_a_full_disk_costs_nothing_that_was_acknowledged_and_ends(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    with serving(directory=small_disk / "archive") as server:
        answers = stored(server, range(60))
        statuses = [status for status, _ in answers.values()]
        assert set(statuses) == {0, 0xA700}
        assert {comment for status, comment in answers.values() if status} == {"disk full"}
        ballast.unlink()
        more = stored(server, range(60, 64))
        assert [status for status, _ in more.values()] == [0] * 4
        acknowledged = {uid for uid, (status, _) in {**answers, **more}.items() if status == 0}
        assert found(server) == acknowledged
        assert {path.stem for path in server.stored} == acknowledged
        assert server.partial == []
        refused = [line for line in server.out if "an instance was not stored" in line]
        assert len(refused) == statuses.count(0xA700)
        assert all("No space left on device" in line for line in refused)
        for path in server.stored:
            assert path.read_bytes().endswith(octets_of(path.stem)), path


@pytest.mark.parametrize("folder", ["incoming", "instances", "journal"])
def test_a_permission_that_is_lost_is_told_and_what_it_is_for_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    if os.geteuid() == 0:  # who may write anywhere, unless that is taken away
        without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        monkeypatch.setattr(peers, "TWISTD", [*without, *peers.TWISTD])
    with serving(directory=tmp_path / "archive") as server:
        (server.directory / folder).chmod(0o555)
        [(uid, answer)] = stored(server, range(1)).items()
        assert answer == (0xA700, "Permission denied")
        assert found(server) == set()
        assert sum("an instance was not stored" in line for line in server.out) == 1
        assert (server.stored, server.partial) == ([], [])
        (server.directory / folder).chmod(0o755)
        assert [status for status, _ in stored(server, range(1)).values()] == [0]
        assert found(server) == {uid}
