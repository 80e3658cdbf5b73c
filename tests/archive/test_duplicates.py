"""The same SOP Instance UID again, in the same study, in another one, and at the same moment."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from peers import dimse, serving, wait_until
from raw import Client, dataset

NODE = ("--listen", "tcp:0:interface=127.0.0.1")
UID = "1.2.840.99.5"
FIRST, SECOND = dataset(UID, 100, study="1.2.3"), dataset(UID, 200, study="1.2.9")
RULES = [("keep", 0, FIRST, "1.2.3"), ("reject", 0x0111, FIRST, "1.2.3"),
         ("replace", 0, SECOND, "1.2.9")]  # fmt: skip


def found(peer: str) -> str:
    return dimse("find", peer, "-L", "STUDY", "-k", "StudyInstanceUID", "--json").succeeded().out


@pytest.mark.parametrize("durability", ["sync", "commit"])
@pytest.mark.parametrize(("rule", "status", "kept", "study"), RULES, ids=[r[0] for r in RULES])
def test_an_instance_that_comes_again_in_another_study(
    rule: str, status: int, kept: bytes, study: str, durability: str
) -> None:
    with serving(*NODE, "--on-duplicate", rule, "--durability", durability) as server:
        with Client(server.port) as client:
            client.associate()
            assert client.store(UID, FIRST).status == 0
            assert client.store(UID, SECOND, message_id=2).status == status
            assert client.store(UID, FIRST, message_id=3).status == status
            assert client.store(UID, kept, message_id=4).status == status
            client.release()
        there = found(server.peer)
        assert there.count("00080052") == 1
        assert study in there
        wait_until(lambda: len(server.stored) == 1)  # what was replaced goes with its rows
        assert server.stored[0].read_bytes().endswith(kept)
        assert server.partial == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_is_known_after_a_restart_and_by_every_process(tmp_path: Path, workers: str) -> None:
    folder = tmp_path / "archive"
    with serving(*NODE, directory=folder) as server, Client(server.port) as client:
        client.associate()
        assert client.store(UID, FIRST).status == 0
        client.release()
    with serving(
        *NODE, "--on-duplicate", "reject", "--workers", workers, directory=folder
    ) as server:
        other = "1.2.840.99.6"
        for number in range(4):  # by one process or another
            with Client(server.port) as client:
                client.associate()
                assert client.store(UID, SECOND).status == 0x0111
                again = dataset(other, 50, study=f"1.2.7.{number}")
                assert client.store(other, again, message_id=2).status == (number and 0x0111)
                client.release()
        assert len(server.stored) == 2


@pytest.mark.parametrize(("rule", "again"), [("keep", 0), ("reject", 0x0111)])
@pytest.mark.parametrize("workers", [1, 2])
def test_of_those_that_come_at_the_same_moment_one_is_kept(
    workers: int, rule: str, again: int
) -> None:
    with serving(*NODE, "--on-duplicate", rule, "--workers", workers) as server:
        for number in range(1, workers + 1) if workers > 1 else ():
            server.wait_for_line(f"worker {number}, process .* takes associations")
        together = threading.Barrier(8)
        uids = [f"{UID}.{number}" for number in range(10)]
        statuses: dict[str, list[int]] = {uid: [] for uid in uids}

        def store(study: int) -> None:
            with Client(server.port) as client:
                client.associate()
                for uid in uids:
                    data = dataset(uid, 100_000, study=f"1.2.{study}")
                    together.wait(60)
                    statuses[uid].append(client.store(uid, data).status)
                client.release()

        senders = [threading.Thread(target=store, args=(study,)) for study in range(8)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        assert [sorted(each) for each in statuses.values()] == [[0, *[again] * 7]] * len(uids)
        assert sorted(path.stem for path in server.stored) == uids
        assert server.partial == []
