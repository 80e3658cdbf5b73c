"""What no well-behaved peer sends: the server answers as the standard names it, says one line,
keeps nothing half and nothing outside its folder, and goes on."""

from __future__ import annotations

import itertools
import os
import re
import resource
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import peers
import psutil
import pytest
import raw
from peers import Server, serving
from raw import (
    ABORT,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    COMMAND,
    ECHO_AND_STORE,
    LAST,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    Client,
    associate_rq,
    command,
    dataset,
    echo_rq,
    p_data,
    pdu,
    store_rq,
)

MAX_PDU = 16384
DEFLATED = "1.2.840.10008.1.2.1.99"

_numbers = itertools.count(1)


def new_uid() -> str:
    return f"1.2.826.0.2.{os.getpid()}.{next(_numbers)}"


@pytest.fixture(scope="module", params=["store-only", "archive"])
def the_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    words = ["--durability", "commit", "--max-pdu", MAX_PDU, "--dimse-timeout", 2]
    if request.param == "store-only":
        words.append("--store-only")
    with serving(*words) as running:
        yield running


@pytest.fixture
def server(the_server: Server) -> Server:
    """The server of all tests here, with nothing stored."""
    the_server.empty()
    return the_server


def keeps_all(server: Server) -> bool:
    """Whether it also keeps what has no Study or Series Instance UID."""
    return "--store-only" in server.command


@contextmanager
def survived(server: Server, *expected: str) -> Iterator[None]:
    """Afterwards the server answers, has said one line for each of ``expected`` and no other, and
    has nothing half-written."""
    since = len(server.out)
    yield
    title = f"AFTER{next(_numbers)}"
    assert raw.echoes(server.port, calling=title)
    server.wait_for_line(rf"{title} .*released", after=since)
    lines = [line for line in server.out[since:] if title not in line]
    assert len(lines) == len(expected), lines
    for pattern, line in zip(expected, lines, strict=True):
        assert re.search(pattern, line), line
    assert not server.err
    assert server.partial == []


# --- before there is an association


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        pytest.param(pdu(0x42, b"1234"), "", id="unknown-pdu"),
        pytest.param(pdu(P_DATA, b"\0\0\0\2\1\3"), "", id="data"),
        pytest.param(pdu(RELEASE_RQ, bytes(4)), "", id="release-request"),
        pytest.param(pdu(raw.ASSOCIATE_AC, associate_rq()[6:]), "", id="acceptance"),
        pytest.param(pdu(ASSOCIATE_RQ, bytes(20)), "", id="request-too-short"),
        pytest.param(associate_rq(items=b"\x50\0\0\xff"), "", id="item-longer-than-the-request"),
        pytest.param(associate_rq(items=b"\x20\0"), "", id="half-an-item-header"),
        pytest.param(associate_rq(user_items=b"\x51\0\0\2ab"), "", id="maximum-length-of-2-octets"),
        pytest.param(pdu(ASSOCIATE_RQ, b"", length=(1 << 20) + 1), "", id="request-over-1-MiB"),
        pytest.param(pdu(ASSOCIATE_RQ, b"", length=0xFFFFFFFF), "", id="request-of-4-GiB"),
    ],
)
def test_what_is_no_association_request_is_aborted(server: Server, sent: bytes, said: str) -> None:
    with survived(server, "aborted|sent by mistake|" + said), Client(server.port) as client:
        client.send(sent)
        client.expect(ABORT)


@pytest.mark.parametrize(
    ("sent", "what"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP"),
        (b"POST /studies HTTP/1.1\r\n\r\n", "HTTP"),
        (bytes.fromhex("16030100c8010000c40303") + bytes(200), "TLS"),
    ],
    ids=["HTTP-GET", "HTTP-POST", "TLS"],
)
def test_another_protocol_is_named_and_closed_at_once(
    server: Server, sent: bytes, what: str
) -> None:
    with survived(server, what), Client(server.port) as client:
        begun = time.monotonic()
        client.send(sent)
        assert client.is_closed()
        assert time.monotonic() - begun < 2


def test_a_connection_that_is_closed_at_once_makes_no_noise(server: Server) -> None:
    since = len(server.out)
    with Client(server.port):
        pass
    assert raw.echoes(server.port, calling="LATER")
    server.wait_for_line("LATER", after=since)
    others = [line for line in server.out[since:] if "LATER" not in line]
    assert len(others) <= 1
    assert not server.err


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        pytest.param(
            associate_rq(application_context="1.2.3"), (1, 1, 2), id="application-context"
        ),
        pytest.param(
            associate_rq()[:6] + b"\0\2" + associate_rq()[8:], (1, 2, 2), id="protocol-version"
        ),
    ],
)
def test_a_request_that_cannot_be_served_is_rejected_with_its_reason(
    server: Server, request_: bytes, answer: tuple[int, int, int]
) -> None:
    with survived(server, "rejected|protocol version 2"), Client(server.port) as client:
        client.send(request_)
        assert tuple(client.expect(ASSOCIATE_RJ)[1:]) == answer


STRANGE = {
    "unknown-item": {"items": raw.item(0x99, b"what")},
    "unknown-user-item": {"user_items": raw.item(0x5F, b"what")},
    "empty-unknown-user-item": {"user_items": raw.item(0x77, b"")},
    "title-of-another-alphabet": {"calling": "ÄÖÜ"},
    "title-with-nuls": {"calling": "RAW\0\0\0\0\0\0\0\0\0\0\0\0\0"},
    "no-title": {"calling": "", "called": ""},
    "title-with-control-characters": {"calling": "A\nB\tC\x1b[31m"},
    "unlimited-pdus": {"max_length": 0},
    "largest-pdus": {"max_length": 0xFFFFFFFF},
    "smallest-pdus": {"max_length": 8},
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_request_that_is_only_strange_is_accepted(server: Server, what: str) -> None:
    with survived(server, "released"), Client(server.port) as client:
        answer = client.associate(**STRANGE[what])
        assert raw.accepted_contexts(answer).keys() == {1, 3}
        assert client.echo() == 0
        assert client.store(new_uid(), message_id=2).status == 0
        client.release()


def test_what_a_peer_is_called_breaks_no_line_of_the_log(server: Server) -> None:
    since = len(server.out)
    with Client(server.port) as client:
        client.associate(calling="A\nforged: B\x1b[1m")
        client.release()
    line = server.wait_for_line("released", after=since).string
    assert "forged" in line
    assert "\x1b" not in line


# --- on an association

STORE = p_data((3, COMMAND | LAST, store_rq("1.2.3")))
COMMAND_WITHOUT_END = p_data(*[(1, COMMAND, bytes(8000))] * 2)

#: What is sent, the reason of the A-ABORT (PS3.8 9.3.8), and what the log says.
VIOLATIONS: dict[str, tuple[bytes, int, str]] = {
    "unknown-pdu": (pdu(0x42, b"1234"), 1, "42H"),
    "pdu-of-type-0": (pdu(0, b"1234"), 1, "00H"),
    "association-request": (associate_rq(), 2, ""),
    "acceptance": (pdu(raw.ASSOCIATE_AC, associate_rq()[6:]), 2, ""),
    "rejection": (pdu(ASSOCIATE_RJ, b"\0\1\1\1"), 2, ""),
    "release-response": (pdu(RELEASE_RP, bytes(4)), 2, ""),
    "release-request-of-6-octets": (pdu(RELEASE_RQ, bytes(6)), 6, ""),
    "release-request-of-4-GiB": (pdu(RELEASE_RQ, b"", length=0xFFFFFFFF), 6, ""),
    "data-pdu-without-a-value": (pdu(P_DATA, b""), 6, ""),
    "value-beyond-the-pdu": (pdu(P_DATA, struct.pack(">IBB", 100, 1, 3) + bytes(10)), 6, ""),
    "value-without-a-header": (pdu(P_DATA, struct.pack(">IBB", 1, 1, 3)), 6, ""),
    "octets-behind-the-last-value": (pdu(P_DATA, struct.pack(">IBB", 2, 1, 3) + b"\0\0"), 6, ""),
    "pdu-longer-than-we-take": (pdu(P_DATA, b"", length=MAX_PDU + 1), 6, str(MAX_PDU)),
    "pdu-of-4-GiB": (pdu(P_DATA, b"", length=0xFFFFFFFF), 6, str(MAX_PDU)),
    "data-without-a-command": (p_data((3, LAST, b"12")), 2, "without a command"),
    "data-behind-half-a-command": (
        p_data((3, COMMAND, store_rq("1.2.3")[:30]), (3, 0, b"1")), 2, "",
    ),
    "command-instead-of-data": (STORE + p_data((1, COMMAND | LAST, echo_rq())), 2, ""),
    "data-in-another-context": (STORE + p_data((1, LAST, b"12")), 5, "contexts"),
    "command-in-two-contexts": (
        p_data((1, COMMAND, echo_rq()[:20]), (3, COMMAND | LAST, echo_rq()[20:])), 5, "contexts",
    ),
    "context-that-was-not-accepted": (p_data((5, COMMAND | LAST, echo_rq())), 5, "context 5"),
    "context-that-was-not-proposed": (p_data((99, COMMAND | LAST, echo_rq())), 5, "context 99"),
    "context-with-an-even-id": (p_data((2, COMMAND | LAST, echo_rq())), 5, "context 2"),
    "data-in-a-context-not-accepted": (p_data((5, LAST, b"12")), 2, ""),
    "command-set-that-is-none": (p_data((1, COMMAND | LAST, b"nonsense")), 6, ""),
    "empty-command-set": (p_data((1, COMMAND | LAST, b"")), 6, ""),
    "command-set-cut-off": (p_data((1, COMMAND | LAST, echo_rq()[:-3])), 6, ""),
    "command-set-without-an-end": (COMMAND_WITHOUT_END * 5, 6, "65536"),
    "command-without-its-field": (
        p_data((1, COMMAND | LAST, command({raw.MESSAGE_ID: 1, raw.DATA_SET_TYPE: 0x0101}))), 6, "",
    ),
    "command-without-message-id": (
        p_data((1, COMMAND | LAST, command({raw.FIELD: 0x30, raw.DATA_SET_TYPE: 0x0101}))), 6, "",
    ),
    "response-to-nothing": (
        p_data((1, COMMAND | LAST, command({
            raw.FIELD: 0x8030, raw.RESPONDED_TO: 7, raw.DATA_SET_TYPE: 0x0101, raw.STATUS: 0,
        }))), 6, "",
    ),
}  # fmt: skip
CONTEXTS = (*ECHO_AND_STORE, (5, "1.2.3.4.5", (raw.IMPLICIT,)))


@pytest.mark.parametrize("what", VIOLATIONS)
def test_a_violation_is_aborted_with_its_reason(server: Server, what: str) -> None:
    sent, reason, said = VIOLATIONS[what]
    with survived(server, said), Client(server.port) as client:
        client.associate(CONTEXTS)
        client.send(sent)
        assert tuple(client.expect(ABORT)) == (0, 0, 2, reason)
    assert server.stored == []


# --- commands that cannot be performed


@pytest.mark.parametrize("field", [0x0211, 0x0FF0, 0x0002, 0x7FFF])
@pytest.mark.parametrize("data", [None, b"12", bytes(50_000)], ids=["no-data", "data", "more-data"])
def test_an_unknown_command_is_answered_0211(
    server: Server, field: int, data: bytes | None
) -> None:
    with survived(server, "released"), Client(server.port) as client:
        client.associate()
        request = command(
            {
                raw.FIELD: field,
                raw.MESSAGE_ID: 7,
                raw.DATA_SET_TYPE: raw.NO_DATA_SET if data is None else raw.DATA_SET,
            }
        )
        client.send_message(1, request, data)
        response = client.message()
        assert response.status == 0x0211
        assert response.field == field | 0x8000
        assert raw.number(response.command, raw.RESPONDED_TO) == 7
        assert client.echo(8) == 0
        client.release()


def test_a_store_without_a_data_set_is_refused(server: Server) -> None:
    with survived(server, "released"), Client(server.port) as client:
        client.associate()
        client.send_message(
            3,
            command(
                {
                    raw.AFFECTED_CLASS: raw.SECONDARY_CAPTURE,
                    raw.FIELD: raw.C_STORE_RQ,
                    raw.MESSAGE_ID: 1,
                    raw.PRIORITY: 0,
                    raw.DATA_SET_TYPE: raw.NO_DATA_SET,
                    raw.AFFECTED_INSTANCE: "1.2.3",
                }
            ),
        )
        assert client.message().status == 0x0212
        client.release()
    assert server.stored == []


NO_UID = {
    "path-upwards": "../../x",
    "path-upwards-behind-a-uid": "1.2.3/../../../x",
    "absolute-path": "/tmp/x",
    "backslashes": "..\\..\\x",
    "empty": "",
    "dots": "..",
    "dot": ".",
    "65-characters": "1." + "2" * 63,
    "leading-zero": "1.02.3",
    "empty-component": "1..3",
    "dot-at-the-end": "1.2.",
    "letters": "1.2.A",
    "nul-in-the-middle": "1.2\0.3",
    "line-feed": "1.2\n",
    "other-digits": "1.2.\u00b2",
    "very-long": "1" * 5000,
}


def everything_below(folder: Path) -> set[Path]:
    """All but what the indexer and its database make and remove behind the answers."""
    return {
        path
        for path in folder.rglob("*")
        if path.parent.name != "journal" and not path.name.startswith("index.sqlite-")
    }


@pytest.mark.parametrize("what", NO_UID)
def test_a_sop_instance_uid_that_is_none_is_answered_0117(server: Server, what: str) -> None:
    before = everything_below(server.directory.parent)
    with survived(server, "released"), Client(server.port) as client:
        client.associate()
        response = client.store(NO_UID[what], dataset("1.2.3", 50_000))
        assert response.status == 0x0117
        assert client.echo(2) == 0
        client.release()
    assert everything_below(server.directory.parent) == before
    assert not Path("/tmp/x.dcm").exists()


def test_a_store_without_a_sop_instance_uid_is_answered_0117(server: Server) -> None:
    with survived(server, "released"), Client(server.port) as client:
        client.associate()
        request = raw.elements(store_rq("1.2.3"))
        del request[0x0000], request[raw.AFFECTED_INSTANCE]
        client.send_message(3, command(dict(request)), dataset("1.2.3"))
        assert client.message().status == 0x0117
        client.release()
    assert server.stored == []


@pytest.mark.parametrize("padding", ["\0", "\0\0", " ", "  "])
def test_padding_behind_a_sop_instance_uid_is_not_of_it(server: Server, padding: str) -> None:
    uid = new_uid()
    with survived(server, "released"), Client(server.port) as client:
        client.associate()
        assert client.store(uid + padding, dataset(uid)).status == 0
        client.release()
    assert [path.stem for path in server.stored] == [uid]


@pytest.mark.parametrize("uid", ["../../x", "", "/etc", "..", "1..2", "1." + "2" * 63, "1.2\0.3"])
@pytest.mark.parametrize("parent", ["study", "series"])
def test_a_study_or_series_uid_that_is_none_becomes_no_path(
    server: Server, parent: str, uid: str
) -> None:
    instance = new_uid()
    with survived(server, "released"), Client(server.port) as client:
        client.associate()
        data = dataset(instance, study=uid) if parent == "study" else dataset(instance, series=uid)
        response = client.store(instance, data)
        client.release()
    is_kept_or_refused(server, instance, response, f"{parent.capitalize()} Instance UID")


def is_kept_or_refused(server: Server, uid: str, response: raw.Message, missing: str) -> None:
    """Of no study where everything is kept; else refused, naming what is missing."""
    if keeps_all(server):
        assert response.status == 0
        assert server.stored == [server.instances / "no-study" / "no-series" / f"{uid}.dcm"]
    else:
        assert response.status == 0xA900
        assert missing in response.comment
        assert server.stored == []


NO_DATA_SET_AT_ALL = {
    "empty": b"",
    "noise": bytes(range(256)) * 40,
    "cut-off": dataset("1.2.3", 100)[:50],
    "element-of-4-GiB": struct.pack("<HH2sxxI", 8, 5, b"UN", 0xFFFFFFFE) + bytes(100),
    "sequences-without-an-end": struct.pack("<HH2sxxI", 8, 0x1140, b"SQ", 0xFFFFFFFF)
    + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) * 5000,
}


@pytest.mark.parametrize("what", NO_DATA_SET_AT_ALL)
def test_what_is_no_data_set_is_kept_as_it_is_or_refused(server: Server, what: str) -> None:
    uid = new_uid()
    with survived(server, "released"), Client(server.port) as client:
        client.associate()
        response = client.store(uid, NO_DATA_SET_AT_ALL[what])
        client.release()
    is_kept_or_refused(server, uid, response, "Study")
    for path in server.stored:
        assert path.read_bytes().endswith(NO_DATA_SET_AT_ALL[what])


def test_a_deflated_data_set_that_inflates_to_gigabytes_holds_nobody_up(server: Server) -> None:
    head = struct.pack("<HH2sxxI", 8, 5, b"UN", 0xFFFFFFFE)
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = deflate.compress(head) + deflate.flush(zlib.Z_FULL_FLUSH)
    bomb += (deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)) * 4096
    uid = new_uid()
    with survived(server, "released"), Client(server.port) as client:
        client.associate([(3, raw.SECONDARY_CAPTURE, (DEFLATED,))])
        begun = time.monotonic()
        response = client.store(uid, bomb)
        assert time.monotonic() - begun < 2
        client.release()
    is_kept_or_refused(server, uid, response, "Study")


# --- peers that vanish


def gone(client: Client, how: str) -> None:
    if how == "aborts":
        client.send(pdu(ABORT, bytes(4)))
    elif how == "resets":
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif how == "shuts-down":
        client.socket.shutdown(socket.SHUT_WR)
        assert client.is_closed()
    client.socket.close()


@pytest.mark.parametrize(
    ("where", "how"),
    [
        ("between-fragments", "aborts"),
        *itertools.product(
            ("between-fragments", "in-a-fragment", "in-a-header"),
            ("closes", "resets", "shuts-down"),
        ),
    ],
)
def test_a_peer_that_vanishes_in_a_data_set_leaves_nothing(
    server: Server, where: str, how: str
) -> None:
    uid = new_uid()
    data = dataset(uid, 60_000)
    fragment = p_data((3, 0, data[:10_000]))
    rest = {"between-fragments": b"", "in-a-fragment": fragment[:5000], "in-a-header": fragment[:4]}
    with survived(server, "lost|aborted|closed"), Client(server.port) as client:
        client.associate()
        client.send(p_data((3, COMMAND | LAST, store_rq(uid))) + fragment)
        # Only with something written there is something to clean up.
        peers.wait_until(lambda: server.partial)
        client.send(rest[where])
        gone(client, how)
    assert server.stored == []


def test_a_peer_that_reads_no_answers_is_aborted_and_takes_no_memory() -> None:
    requests = p_data((1, COMMAND | LAST, echo_rq())) * 1000
    words = ["--store-only", "--dimse-timeout", 0.5, "--artim", 0.3]
    with serving(*words) as server, Client(server.port) as client:
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.associate()
        deadline = time.monotonic() + raw.SECONDS
        with suppress(OSError):
            while time.monotonic() < deadline:
                client.send(requests)
        assert time.monotonic() < deadline
        assert process.memory_info().rss - before < 1 << 26
        server.wait_for_line("the peer took no data for 0.5 s")
        assert raw.echoes(server.port)


# --- disks


def with_little_room() -> None:
    """No file of this process may be larger than this."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def refuses_what_does_not_fit(server: Server, size: int, words: str) -> None:
    large, small = new_uid(), new_uid()
    with (
        survived(server, rf"not stored: {words}", "released"),
        Client(server.port) as client,
    ):
        client.associate()
        response = client.store(large, dataset(large, size))
        assert response.status == 0xA700
        assert client.store(small, dataset(small, 1000), message_id=2).status == 0
        client.release()
    assert [path.stem for path in server.stored] == [small]


@pytest.mark.parametrize(
    "words", [["--store-only", "--durability", "commit"], ["--store-only"], []], ids=" ".join
)
def test_a_full_disk_is_answered_a700(tmp_path: Path, words: list[str]) -> None:
    with (
        peers.small_disk(tmp_path, "1m") as disk,
        serving(*words, directory=disk / "archive") as server,
    ):
        refuses_what_does_not_fit(server, 3_000_000, "No space left on device")


def test_a_file_that_cannot_grow_is_answered_a700() -> None:
    words = ["--store-only", "--durability", "commit"]
    with serving(*words, preexec_fn=with_little_room) as server:
        refuses_what_does_not_fit(server, 1_000_000, "File too large")


def test_a_folder_that_cannot_be_made_is_answered_a700(server: Server) -> None:
    blocked, other = new_uid(), new_uid()
    (server.instances / "1.9").write_text("in the way")
    with survived(server, "not stored", "released"), Client(server.port) as client:
        client.associate()
        assert client.store(blocked, dataset(blocked, study="1.9")).status == 0xA700
        assert client.store(other, message_id=2).status == 0
        client.release()
    (server.instances / "1.9").unlink()
    assert [path.stem for path in server.stored] == [other]


def test_a_folder_that_is_taken_away_is_answered_a700_until_it_is_back(server: Server) -> None:
    uid = new_uid()
    server.incoming.rename(server.directory / "away")
    try:
        with Client(server.port) as client:
            client.associate()
            assert client.store(uid).status == 0xA700
            (server.directory / "away").rename(server.incoming)
            assert client.store(uid, message_id=2).status == 0
            client.release()
    finally:
        server.incoming.mkdir(exist_ok=True)
    assert server.partial == []
