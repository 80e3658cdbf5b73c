"""`--workers`: several processes behind one port, as peers and administrators see them."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import peers
import psutil
import pytest
import raw
from certificates import Authority
from peers import Server, serving
from raw import COMMAND, ECHO_AND_STORE, EXPLICIT, LAST, Client, dataset

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
PUSH_MODEL, PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
CONTEXTS = (*ECHO_AND_STORE, (5, STUDY_ROOT_FIND, (EXPLICIT,)), (7, PUSH_MODEL, (EXPLICIT,)))
LIMIT = 4
WORKERS = ("--workers", 2, "--durability", "commit")
STARTED = 30.0  # seconds
wait_until = partial(peers.wait_until, within=STARTED)


@pytest.fixture(scope="module")
def node() -> Iterator[Server]:
    """An archive of two workers, with a status page."""
    words = ["--http", "tcp:0:interface=127.0.0.1", "--max-associations", LIMIT]
    with raw.scripted(take_report) as scu:
        words += ["--peer", f"RAW=127.0.0.1:{scu.port}"]
        with serving(*WORKERS, *words) as server:
            both_take(server)
            yield server


reports: list[Any] = []


def take_report(connection: raw.Connection) -> None:
    """Take a report on storage commitment, and note the process that brings it."""
    port = connection.socket.getpeername()[1]
    (sender,) = (
        worker.pid
        for worker in psutil.Process().children(recursive=True)
        for one in worker.net_connections("tcp")
        if one.laddr.port == port and one.raddr
    )
    uid = PUSH_MODEL.encode()
    role = raw.item(0x54, struct.pack(">H", len(uid)) + uid + b"\0\1")
    request = connection.expect(raw.ASSOCIATE_RQ)
    connection.send(raw.associate_ac(request, user_items=role))
    message = connection.message()
    connection.send_message(message.context, raw.response(message.command))
    connection.expect(raw.RELEASE_RQ)
    connection.send(raw.pdu(raw.RELEASE_RP, bytes(4)))
    reports.append((sender, message))


def both_take(server: Server) -> None:
    for number in (1, 2):
        server.wait_for_line(f"worker {number}, process .* takes associations")


def workers_of(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


def worker_of(server: Server, client: Client) -> psutil.Process:
    """The process at the other end of a connection."""
    port = client.socket.getsockname()[1]
    for worker in workers_of(server):
        for connection in worker.net_connections("tcp"):
            if connection.raddr and connection.raddr.port == port:
                return worker
    raise AssertionError(f"no worker has the connection from port {port}")


@contextmanager
def one_at_each(server: Server) -> Iterator[tuple[Client, Client]]:
    """Two associations with different workers."""
    with ExitStack() as stack:
        wait_until(lambda: metric(server, "dimse_associations_active") == 0)
        one = stack.enter_context(Client(server.port))
        one.associate(CONTEXTS)
        other = stack.enter_context(elsewhere(server, worker_of(server, one)))
        yield one, other


def elsewhere(server: Server, worker: psutil.Process) -> Client:
    """An association with another worker. A connection goes to the one that has fewer, but on a
    busy machine that one may be too late."""
    for _ in range(20):
        client = Client(server.port)
        client.associate(CONTEXTS)
        if worker_of(server, client).pid != worker.pid:
            return client
        client.release()
    raise AssertionError("one worker has it all")


def found(client: Client, uid: str) -> bool:
    """Whether C-FIND gives an instance."""
    command = raw.command(
        {
            raw.AFFECTED_CLASS: STUDY_ROOT_FIND,
            raw.FIELD: 0x0020,
            raw.MESSAGE_ID: 9,
            raw.PRIORITY: 0,
            raw.DATA_SET_TYPE: raw.DATA_SET,
        }
    )
    keys = elements(
        (0x00080018, b"UI", uid),
        (0x00080052, b"CS", "IMAGE "),
        (0x0020000D, b"UI", "1.2.3"),
        (0x0020000E, b"UI", "1.2.3.4"),
    )
    client.send_message(5, command, keys)
    answers = [client.message()]
    while answers[-1].status in (0xFF00, 0xFF01):
        answers.append(client.message())
    assert answers[-1].status == 0, hex(answers[-1].status)
    return len(answers) == 2


def elements(*values: tuple[int, bytes, str]) -> bytes:
    """Elements of short texts in Explicit VR Little Endian."""
    octets = b""
    for tag, vr, text in values:
        value = text.encode() + b"\0" * (len(text) & 1)
        octets += struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value
    return octets


def page(server: Server, path: str) -> str:
    port = server.wait_for_line(r"the status page listens at 127\.0\.0\.1:(\d+)")[1]
    with urlopen(f"http://127.0.0.1:{port}/{path}", timeout=raw.SECONDS) as answer:
        return str(answer.read().decode())


def metric(server: Server, name: str) -> float:
    lines = page(server, "metrics").splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def rejection(port: int) -> tuple[int, ...] | None:
    """Result, source and reason, or None where the association is accepted."""
    with Client(port) as client:
        client.send(raw.associate_rq())
        answer = client.read()
        assert answer is not None
        if answer[0] == raw.ASSOCIATE_AC:
            client.release()
            return None
        return tuple(answer[1][1:])


# --- one node


def test_what_one_worker_stores_another_finds_at_once(node: Server) -> None:
    with one_at_each(node) as (one, other):
        for number in range(5):
            storing, finding = (one, other) if number % 2 else (other, one)
            assert not found(finding, f"1.2.40.{number}")
            assert storing.store(f"1.2.40.{number}").status == 0
            assert found(finding, f"1.2.40.{number}")
        assert {path.stem for path in node.stored} >= {f"1.2.40.{number}" for number in range(5)}


@pytest.mark.parametrize("asked", [0, 1])
def test_of_two_with_one_uid_the_later_is_kept_whichever_workers_took_them(
    node: Server, asked: int
) -> None:
    with one_at_each(node) as clients:
        uid = f"1.2.43.{asked}"
        for number, client in enumerate((*clients, *clients)):
            study = f"1.2.43.{asked}.{number}"
            assert client.store(uid, dataset(uid, 100, study=study)).status == 0
        assert not found(clients[asked], "1.2.43.9"), "it has looked"
        wait_until(lambda: [path.stem for path in node.stored].count(uid) == 1)
        [path] = [path for path in node.stored if path.stem == uid]
        assert path.parents[1].name == study


def test_the_limit_of_associations_holds_for_all_workers_together(node: Server) -> None:
    with one_at_each(node) as (one, _other), ExitStack() as stack:
        for _ in range(LIMIT - 2):
            stack.enter_context(Client(node.port)).associate()
        assert rejection(node.port) == (2, 3, 2)
        one.release()
        assert rejection(node.port) is None


def test_the_status_page_tells_of_all_workers(node: Server) -> None:
    rejected = metric(node, "dimse_associations_rejected_total")
    with one_at_each(node) as (one, other):
        ended = metric(node, "dimse_associations_ended_total")
        operations = metric(node, "dimse_operations_total")
        assert (one.echo(), other.echo()) == (0, 0)
        assert metric(node, "dimse_operations_total") == operations + 2
        wait_until(lambda: metric(node, "dimse_associations_active") == 2)
        assert metric(node, "dimse_associations_limit") == LIMIT
        overview = page(node, "")
        assert f"2 of at most {LIMIT} associations" in overview
        numbers = [int(number) for number in re.findall(r"<tr><td>(\d+)</td>", overview)]
        assert len(set(numbers)) == 2
        one.release()
        other.release()
        wait_until(lambda: metric(node, "dimse_associations_ended_total") == ended + 2)
    assert metric(node, "dimse_associations_rejected_total") == rejected
    assert page(node, "readyz") == "ready\n"


def test_a_worker_that_dies_is_replaced_and_takes_nothing_else_with_it(node: Server) -> None:
    since = len(node.out)
    ended = metric(node, "dimse_associations_ended_total")
    with one_at_each(node) as (one, other):
        killed = worker_of(node, one)
        assert one.store("1.2.41.1").status == 0
        data = dataset("1.2.41.2", 1000)
        one.send(raw.p_data((3, COMMAND | LAST, raw.store_rq("1.2.41.2")), (3, 0, data[:500])))
        wait_until(lambda: len(node.partial) == 1)
        killed.kill()
        assert one.is_closed()
        assert other.echo() == 0
        assert found(other, "1.2.41.1"), "what was acknowledged is there"
        assert not found(other, "1.2.41.2")
        assert node.partial == []
        assert "1.2.41.2" not in [path.stem for path in node.stored]
        line = node.wait_for_line(f"process {killed.pid}, was ended by signal 9", after=since)
        assert "another follows" in line.string
        node.wait_for_line(rf"worker \d, process (?!{killed.pid})\d+, takes", after=since)
        with ExitStack() as stack:
            more = [stack.enter_context(Client(node.port)) for _ in range(LIMIT - 1)]
            for client in more:
                client.associate()
            assert rejection(node.port) == (2, 3, 2), "the slot of the dead came back, and no more"
        assert other.echo() == 0
    assert metric(node, "dimse_associations_ended_total") >= ended


def test_a_report_that_one_worker_cannot_deliver_is_delivered_by_the_first(node: Server) -> None:
    taking = [re.search(r"worker (\d), process (\d+), takes", line) for line in node.out]
    processes = {int(one[1]): int(one[2]) for one in taking if one}
    uid = "1.2.42.1"
    with one_at_each(node) as clients:
        (client,) = (one for one in clients if worker_of(node, one).pid == processes[2])
        assert client.store(uid).status == 0
        item = elements((0x00081150, b"UI", raw.SECONDARY_CAPTURE), (0x00081155, b"UI", uid))
        sequence = struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item
        information = elements((0x00081195, b"UI", "2.25.77"))
        information += struct.pack("<HH2sxxI", 0x0008, 0x1199, b"SQ", len(sequence)) + sequence
        action = raw.command(
            {
                0x0003: PUSH_MODEL,
                raw.FIELD: 0x0130,
                raw.MESSAGE_ID: 11,
                raw.DATA_SET_TYPE: raw.DATA_SET,
                0x1001: PUSH_MODEL_INSTANCE,
                0x1008: 1,
            }
        )
        client.send_message(7, action, information)
        assert client.message().status == 0
        client.socket.close()
        wait_until(lambda: len(reports) == 1)
    (sender, report) = reports[0]
    assert sender == processes[1]
    assert b"2.25.77" in report.data
    assert uid.encode() in report.data
    assert struct.pack("<HH", 0x0008, 0x1198) not in report.data, "nothing failed"


def test_numbers_of_associations_are_given_once(node: Server) -> None:
    for _ in range(3):
        assert raw.echoes(node.port)
    wait_until(lambda: metric(node, "dimse_associations_active") == 0)
    ended = [re.search(r"\] association (\d+),", line) for line in node.out]
    numbers = [line[1] for line in ended if line is not None]
    assert len(numbers) > 3
    assert len(set(numbers)) == len(numbers)


def test_a_worker_that_is_told_to_end_is_replaced_when_its_associations_have_ended(
    node: Server,
) -> None:
    since = len(node.out)
    with one_at_each(node) as (one, other):
        leaving = worker_of(node, one)
        leaving.terminate()
        assert other.echo() == 0
        assert one.echo() == 0
        one.release()
        node.wait_for_line(f"process {leaving.pid}, ended with status 0", after=since)
        assert other.echo(2) == 0
    node.wait_for_line(r"worker \d, process \d+, takes", after=since)


# --- the endpoints


def speaks(connected: socket.socket, first: bytes = b"") -> bool:
    with raw.Connection(connected) as client:
        client.send(first + raw.associate_rq())
        client.expect(raw.ASSOCIATE_AC)
        client.send_message(1, raw.echo_rq())
        status = client.message().status
        client.send(raw.pdu(raw.RELEASE_RQ, bytes(4)))
        client.expect(raw.RELEASE_RP)
    return status == 0


def test_workers_listen_at_every_kind_of_endpoint_and_end_together(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server", "localhost")
    path = tmp_path / "socket"
    endpoints = [
        "tcp:0:interface=127.0.0.1",
        f"dicomtls:0:{pair.words}:interface=127.0.0.1",
        f"ssl:0:privateKey={pair.key}:certKey={pair.cert}:interface=127.0.0.1",
        "haproxy:tcp:0:interface=127.0.0.1",
        f"unix:{path}:mode=600",
    ]
    words = [word for endpoint in endpoints for word in ("--listen", endpoint)]
    server = Server(
        *WORKERS, "--store-only", "--log-format", "json", *words, directory=tmp_path / "archive"
    )
    try:
        server.wait_for_line(f"listens at {path}")
        both_take(server)
        listening = re.findall(r"listens at 127\.0\.0\.1:(\d+)", "\n".join(server.out))
        plain, dicomtls, tls, proxied = map(int, listening)
        context = ssl.create_default_context(cafile=str(authority.cert))
        with ExitStack() as stack:
            for _ in range(2):
                client = stack.enter_context(Client(plain))
                client.associate()
            for port in (dicomtls, tls):
                connected = socket.create_connection(("127.0.0.1", port))
                assert speaks(context.wrap_socket(connected, server_hostname="localhost"))
            header = b"PROXY TCP4 192.0.2.7 192.0.2.8 56324 104\r\n"
            assert speaks(socket.create_connection(("127.0.0.1", proxied)), header)
            local = socket.socket(socket.AF_UNIX)
            local.connect(str(path))
            assert speaks(local)
            assert path.stat().st_mode & 0o777 == 0o600
            server.wait_for_line("RAW at 192.0.2.7 .* released")
            wait_until(lambda: server.said.count("ANY-SCP: released") == 4)

            server.signal(signal.SIGTERM)
            wait_until(lambda: refuses(plain))
            server.wait_for_line(r"waiting up to 30 s for \d associations")
            wait_until(lambda: not path.exists())
            assert client.echo() == 0
            client.release()
        assert server.wait(STARTED) in (-signal.SIGTERM, 128 + signal.SIGTERM)
        lines = [json.loads(line) for line in server.out]
        assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
        released = [line for line in lines if "released" in line["message"]]
        assert released[0]["calling"] == "RAW"
        assert server.err == []
        assert "Traceback" not in server.said
    finally:
        server.kill()


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_busy_port_is_one_line_as_without_workers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        lines = []
        for count in (1, 2):
            words = ["-n", "--pidfile=", "dimse-scp", "--workers", count, "--listen", listen]
            done = peers.run(peers.TWISTD, *words, cwd=tmp_path)
            assert done.status == 1
            lines.append(done.err)
    assert lines[0] == lines[1] == f"dimse-scp: --listen {listen}: Address already in use\n"


# --- the master's end


def test_workers_end_with_their_master(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = Server(*WORKERS, "--store-only", directory=tmp_path / "archive").started()
        stack.callback(server.kill)
        both_take(server)
        workers = workers_of(server)
        assert len(workers) == 2
        for worker in workers:
            stack.callback(end, worker)
        client = stack.enter_context(Client(server.port))
        client.associate()
        server.process.kill()
        assert client.is_closed()
        _gone, alive = psutil.wait_procs(workers, STARTED)
        assert not alive
        assert refuses(server.port)


def end(worker: psutil.Process) -> None:
    """End it where it should have ended by itself."""
    with suppress(psutil.NoSuchProcess):
        worker.kill()


def test_one_process_imports_nothing_of_this() -> None:
    code = """
import sys
from twisted_dimse.scp.tap import Options, makeService
options = Options()
options.parseOptions([])
makeService(options)
print(*[name for name in sys.modules if name.endswith((".master", ".worker", ".shared"))])
"""
    assert peers.run([sys.executable, "-c", code]).succeeded().out.split() == []
