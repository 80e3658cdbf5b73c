"""The archive as a program: what it acknowledged is found and comes back, come what may."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pydicom
import pytest
import sqlalchemy as sa
from databases import PostgreSQL
from peers import (
    SECONDS,
    Running,
    Server,
    dcmtk,
    dimse,
    environment,
    free_port,
    run,
    serving,
    wait_until,
)
from pydicom.data import get_testdata_file
from senders import ROOT, instance

from twisted_dimse.archive import schema
from twisted_dimse.archive.index import Index

SENDERS = Path(__file__).with_name("senders.py")


def file_named(name: str) -> Path:
    return Path(str(get_testdata_file(name)))


CT = file_named("CT_small.dcm")
STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"


@pytest.fixture(scope="module")
def archive() -> Iterator[Server]:
    with serving() as server:
        for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "US1_J2KI.dcm"):
            dimse("store", server.peer, file_named(name)).succeeded()
        yield server


def test_findscu_finds_what_was_just_stored(archive: Server) -> None:
    done = run(
        dcmtk("findscu"), "-S", "-k", "0008,0052=STUDY", "-k", "PatientName=compressed*",
        "-k", "StudyInstanceUID", "-k", "NumberOfStudyRelatedInstances", "-aec", "X",
        "127.0.0.1", archive.port,
    ).succeeded()  # fmt: skip
    assert STUDY in done.said
    assert re.search(r"NumberOfStudyRelatedInstances", done.said)


def test_getscu_gets_the_octets_that_were_stored(archive: Server, tmp_path: Path) -> None:
    run(
        dcmtk("getscu"), "+B", "-S", "-k", "0008,0052=STUDY", "-k", f"StudyInstanceUID={STUDY}",
        "-od", tmp_path, "-aec", "X", "127.0.0.1", archive.port,
    ).succeeded()  # fmt: skip
    [got] = tmp_path.iterdir()
    assert pydicom.dcmread(got).PixelData == pydicom.dcmread(CT).PixelData


def test_movescu_has_it_sent_to_a_known_peer(tmp_path: Path) -> None:
    port = free_port()
    receiver = Running(dcmtk("storescp"), "-od", tmp_path, port)
    try:
        with serving("--peer", f"DEST=127.0.0.1:{port}") as server:
            dimse("store", server.peer, CT).succeeded()
            run(
                dcmtk("movescu"), "-S", "-aem", "DEST", "-k", "0008,0052=STUDY",
                "-k", f"StudyInstanceUID={STUDY}", "-aec", "X", "127.0.0.1", server.port,
            ).succeeded()  # fmt: skip
    finally:
        receiver.kill()
    assert len(list(tmp_path.iterdir())) == 1


def test_movescu_to_a_stranger_is_refused(archive: Server) -> None:
    done = run(
        dcmtk("movescu"), "-v", "-S", "-aem", "NOBODY", "-k", "0008,0052=STUDY",
        "-k", f"StudyInstanceUID={STUDY}", "-aec", "X", "127.0.0.1", archive.port,
    )  # fmt: skip
    assert "MoveDestinationUnknown" in done.said


def test_a_data_set_without_study_is_refused_with_what_is_missing(archive: Server) -> None:
    done = dimse(
        "store", archive.peer, file_named("rtplan.dcm").with_name("no_meta_group_length.dcm")
    )
    assert done.status == 1
    assert "0xA900" in done.said
    assert "Study" in done.said


def test_what_is_here_is_committed_and_what_is_not_is_named(archive: Server) -> None:
    kept = dimse("commit", archive.peer, CT, "--json")
    assert kept.status == 0, kept.said
    lost = dimse("commit", archive.peer, CT, file_named("rtplan.dcm"), "--json")
    assert lost.status == 1, lost.said


def test_a_second_server_on_the_same_folder_is_refused_with_one_line(archive: Server) -> None:
    second = Server(directory=archive.directory)
    assert second.wait() == 1
    [line] = second.err
    assert line.startswith("dimse-scp: --directory")
    assert "another process" in line


def test_a_database_that_cannot_be_opened_ends_the_start_with_one_line(tmp_path: Path) -> None:
    server = Server("--database", "nonsense://", directory=tmp_path / "archive")
    assert server.wait() == 1
    [line] = server.err
    assert line.startswith("dimse-scp: --database nonsense://")


def test_the_password_of_a_database_is_not_shown(tmp_path: Path) -> None:
    url = "postgresql+psycopg://me:secret@/archive?host=/nowhere"
    server = Server("--database", url, directory=tmp_path / "archive")
    assert server.wait() == 1
    [line] = server.err
    assert line.startswith("dimse-scp: --database postgresql+psycopg://me:***@/archive")
    assert "secret" not in server.said.replace(url, "")


def test_a_database_that_is_newer_ends_the_start_with_one_line(
    tmp_path: Path, database: str
) -> None:
    Index.open(database).close()
    engine = sa.create_engine(database)
    with engine.begin() as connection:
        connection.execute(schema.info.update().values(value="99"))
    engine.dispose()
    server = Server("--database", database, directory=tmp_path / "archive")
    assert server.wait() == 1
    [line] = server.err
    assert line.startswith(f"dimse-scp: --database {database}: the database is of version 99")
    done = dimse("archive", "verify", "--directory", tmp_path / "archive", "--database", database)
    assert (done.status, "version 99" in done.err) == (2, True), done.said


def test_what_was_stored_is_found_after_an_orderly_restart(tmp_path: Path) -> None:
    with serving(directory=tmp_path / "archive") as server:
        dimse("store", server.peer, CT).succeeded()
    assert not list((tmp_path / "archive" / "journal").iterdir())
    with serving(directory=tmp_path / "archive") as server:
        assert found(server) == {pydicom.dcmread(CT).SOPInstanceUID}


def test_more_answers_than_allowed_end_the_query_with_out_of_resources() -> None:
    with serving("--max-results", "1") as server:
        for name in ("CT_small.dcm", "MR_small.dcm"):
            dimse("store", server.peer, file_named(name)).succeeded()
        done = run(
            dcmtk("findscu"), "-v", "-S", "-k", "0008,0052=STUDY", "-k", "StudyInstanceUID",
            "-aec", "X", "127.0.0.1", server.port,
        )  # fmt: skip
        assert done.said.count("(Pending)") == 1
        assert "OutOfResources" in done.said


# --- killed in the middle


class Clients:
    """The program `senders`, running."""

    def __init__(self, folder: Path) -> None:
        self._uids = folder / "uids"
        self._process = subprocess.Popen(
            [sys.executable, SENDERS], env=environment(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=SECONDS)

    def begin(self, *words: object) -> None:
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)

    def send_for_a_while(
        self, server: Server, senders: int, first: int, log: Path, chance: random.Random
    ) -> None:
        """Begin to send, and return once the server has acknowledged some, which ``log`` has: at a
        moment that nobody chose."""
        log.write_text("")
        goal = chance.randrange(1, 200)
        self.begin("send", server.port, senders, first, log)
        wait_until(lambda: log.read_bytes().count(b"\n") >= goal, within=SECONDS)

    def answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def found(self, server: Server, uids: Iterable[str]) -> set[str]:
        """Which of the SOP Instance UIDs a query finds."""
        self._uids.write_text("\n".join(uids))
        self.begin("find", server.port, self._uids)
        return set(self.answer())


def found(server: Server) -> set[str]:
    """The SOP Instance UIDs of all there are."""
    words = ["-L", "IMAGE", "-k", "SOPInstanceUID", "--relational", "--json"]
    lines = dimse("find", server.peer, *words).succeeded().out.splitlines()
    return {json.loads(line)["00080018"]["Value"][0] for line in lines}


def killed_rounds(
    folder: Path,
    rounds: int,
    senders: int,
    seed: int,
    *options: str,
    also: Callable[[], object] = lambda: None,
) -> None:
    """Kill the server at random moments under its senders, now and then while it recovers, too;
    after each time nothing that it acknowledged is missing, damaged or not found, and nothing
    partial is there. ``also`` is called when it is dead."""
    chance = random.Random(seed)
    log = folder / "acknowledged"
    log.touch()
    with Clients(folder) as clients:
        for number in range(rounds + 1):
            server = Server(*options, directory=folder / "archive").started()
            while chance.random() < 0.15:
                server.kill()
                server = Server(*options, directory=folder / "archive").started()
            check(server, clients, log.read_text().split())
            if number == rounds:
                server.stopped()
                return
            clients.send_for_a_while(server, senders, number * 1000, log, chance)
            server.kill()
            also()
            clients.answer()


def killed_with_workers(folder: Path, rounds: int, senders: int, seed: int) -> None:
    """The same with two workers, of which one is killed, and then the other, in whose place the
    master starts new ones, or the whole group."""
    chance = random.Random(seed)
    log = folder / "acknowledged"
    log.touch()
    server: Server | None = None
    with Clients(folder) as clients:
        for number in range(rounds + 1):
            if server is None:
                server = Server("--workers", 2, directory=folder / "archive").started()
                for worker in (1, 2):
                    server.wait_for_line(f"worker {worker}, process .* takes associations")
            check(server, clients, log.read_text().split())
            retrieve(server, log.read_text().split(), folder / f"got-{number}")
            if number == rounds:
                server.stopped()
                return
            clients.send_for_a_while(server, senders, number * 1000, log, chance)
            workers = psutil.Process(server.process.pid).children()
            chance.shuffle(workers)
            workers[0].kill()
            if number % 2:
                server.kill()
            workers[1].kill()
            clients.answer()
            if number % 2:
                psutil.wait_procs(workers, SECONDS)
                server = None


def retrieve(server: Server, acknowledged: list[str], folder: Path) -> None:
    """Those of one sender come back by C-GET, octet for octet."""
    if not acknowledged:
        return
    sender = acknowledged[0].split(".")[-2]
    study = f"StudyInstanceUID={ROOT}.1{sender}"
    dimse("get", server.peer, "-L", "STUDY", "-k", study, "--directory", folder).succeeded()
    for uid in acknowledged:
        of, count = uid.split(".")[-2:]
        if of == sender:
            [file] = folder.glob(f"instances/*/*/{uid}.dcm")
            assert file.read_bytes().endswith(instance(int(of), int(count)).data), uid


def check(server: Server, clients: Clients, acknowledged: list[str]) -> None:
    """All of ``acknowledged`` can be found, and is what was sent."""
    if acknowledged:
        assert clients.found(server, acknowledged) == set(acknowledged)
    assert server.partial == []
    for uid in acknowledged:
        sender, count = map(int, uid.split(".")[-2:])
        [file] = server.instances.glob(f"*/*/{uid}.dcm")
        assert file.read_bytes().endswith(instance(sender, count).data), uid


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    killed_rounds(tmp_path, 2, 3, 1)


def test_nothing_acknowledged_is_lost_when_postgresql_crashes_too(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    killed_rounds(
        tmp_path, 2, 3, 1, "--database", postgresql.database(), also=postgresql.crash_and_start
    )


def test_nothing_acknowledged_is_lost_when_one_of_two_workers_or_all_are_killed(
    tmp_path: Path,
) -> None:
    killed_with_workers(tmp_path, 2, 4, 1)


@pytest.mark.soak
def test_nothing_acknowledged_is_lost_in_20_killed_rounds_of_two_workers(tmp_path: Path) -> None:
    killed_with_workers(tmp_path, 20, 8, 2)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
def test_nothing_acknowledged_is_lost_in_200_killed_rounds(tmp_path: Path, seed: int) -> None:
    killed_rounds(tmp_path, 20, 8, seed)


@pytest.mark.soak
def test_nothing_acknowledged_is_lost_in_20_killed_rounds_with_postgresql(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    killed_rounds(
        tmp_path, 20, 8, 1, "--database", postgresql.database(), also=postgresql.crash_and_start
    )
