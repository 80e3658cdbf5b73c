"""`dimse echo`, `store` and `listen` as they are run: what they print, and how they end."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peers
import pytest
import raw
from peers import DIMSE, Done, Running, dimse
from raw import (
    ABORT,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    P_DATA,
    Connection,
    Message,
    accepting,
    dataset,
    pdu,
    scripted,
)

from twisted_dimse.cli import main


def at(port: int, title: str = "PACS") -> str:
    return f"{title}@127.0.0.1:{port}"


def one_line(done: Done) -> str:
    """The only line on standard error."""
    (line,) = done.err.splitlines()
    assert line.startswith("dimse: "), done.said
    return line


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def write_instance(
    path: Path, uid: str, *, size: int = 0, sop_class: str = raw.SECONDARY_CAPTURE, **more: Any
) -> bytes:
    """A DICOM file; its data set."""
    data = dataset(uid, size, sop_class=sop_class, **more)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file_meta(uid, sop_class) + data)
    return data


def file_meta(uid: str, sop_class: str = raw.SECONDARY_CAPTURE) -> bytes:
    """Preamble and file meta information in front of Explicit VR Little Endian."""
    meta = b""
    for element, value in ((2, sop_class), (3, uid), (16, raw.EXPLICIT)):
        octets = value.encode() + b"\0" * (len(value) & 1)
        meta += struct.pack("<HH2sH", 2, element, b"UI", len(octets)) + octets
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta)) + meta


# --- the program


def test_help_names_the_commands() -> None:
    done = dimse("--help").succeeded()
    assert all(re.search(rf"^  {name} ", done.out, re.MULTILINE) for name in ("echo", "store"))
    assert done.err == ""


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert version("twisted-dimse") in dimse("--version").succeeded().out


WRONG_USAGE: dict[str, tuple[list[str], str]] = {
    "unknown-command": (["ping"], "ping"),
    "no-peer": (["echo"], "PEER"),
    "peer-without-port": (["echo", "PACS@127.0.0.1"], "127.0.0.1"),
    "peer-with-a-word-for-a-port": (["echo", "PACS@127.0.0.1:dicom"], "127.0.0.1:dicom"),
    "peer-with-an-impossible-port": (["echo", "PACS@127.0.0.1:70000"], "70000"),
    "peer-on-port-0": (["echo", "PACS@127.0.0.1:0"], "0 is not a port"),
    "peer-with-unknown-endpoint": (["echo", "PACS@nonsense:127.0.0.1:104"], "nonsense"),
    "title-too-long": (["echo", "A-TITLE-TOO-LONG!@127.0.0.1:104"], "A-TITLE-TOO-LONG!"),
    "no-title": (["echo", "@127.0.0.1:104"], "AE title"),
    "unknown-name": (["echo", "pacs"], "pacs"),
    "host-without-port": (["echo", "127.0.0.1"], "127.0.0.1"),
    "host-and-impossible-port": (["echo", "127.0.0.1", "70000"], "70000"),
    "a-word-too-many": (["echo", "PACS@127.0.0.1:104", "extra"], "extra"),
    "calling-title": (["echo", "PACS@127.0.0.1:104", "--calling", "A\\B"], "--calling"),
    "called-title": (["echo", "127.0.0.1", "104", "-aec", "A-TITLE-TOO-LONG!"], "TOO-LONG"),
    "count": (["echo", "PACS@127.0.0.1:104", "--count", "0"], "--count"),
    "timeout-0": (["echo", "PACS@127.0.0.1:104", "--timeout", "0"], "--timeout"),
    "timeout-word": (["echo", "PACS@127.0.0.1:104", "-to", "soon"], "soon"),
    "max-pdu": (["echo", "PACS@127.0.0.1:104", "--max-pdu", "-1"], "--max-pdu"),
    "max-pdu-without-room": (["echo", "PACS@127.0.0.1:104", "--max-pdu", "4"], "max"),
    "unknown-option": (["echo", "PACS@127.0.0.1:104", "--frobnicate"], "--frobnicate"),
    "config": (["echo", "pacs", "--config", "nothing.toml"], "nothing.toml"),
    "password-file": (
        ["echo", "PACS@127.0.0.1:104", "--user", "me", "--password-file", "nothing.txt"],
        "nothing.txt",
    ),
    "no-path": (["store", "PACS@127.0.0.1:104"], "PATH"),
    "absent-path": (["store", "PACS@127.0.0.1:104", "nothing.dcm"], "nothing.dcm"),
    "window": (["store", "PACS@127.0.0.1:104", ".", "--window", "65536"], "--window"),
    "two-called-titles": (["echo", "A@127.0.0.1:104", "-aec", "B"], "--called B"),
    "max-pdu-without-end": (["echo", "A@127.0.0.1:104", "-pdu", "4294967296"], "--max-pdu"),
    "move-title": (["move", "A@127.0.0.1:104", "--to", "A\\B"], "--to"),
    "receive": (["move", "A@127.0.0.1:104", "--receive", "nonsense:1"], "--receive nonsense:1"),
    "worklist-levels": (["find", "A@127.0.0.1:104", "-W", "--relational"], "--relational"),
    "listen-max-pdu": (["listen", "--max-pdu", "7"], "--max-pdu 7"),
    "absent-archive": (["archive", "verify", "--directory", "nothing"], "nothing: no such"),
    "listen-title": (["listen", "--ae-title", "A\\B"], "--ae-title"),
    "listen-directory": (["listen", "--directory", "/dev/null/received"], "--directory"),
}


@pytest.mark.parametrize("name", WRONG_USAGE)
def test_wrong_usage_is_one_line_and_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, said = WRONG_USAGE[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        main(words)
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("dimse")
    assert said in line


@pytest.mark.parametrize("words", [["echo", "PACS"], ["store", "PACS@127.0.0.1:104", "no.dcm"]])
def test_wrong_usage_ends_the_process_with_2(words: list[str]) -> None:
    done = dimse(*words)
    assert done.status == 2
    assert len(done.err.splitlines()) == 1
    assert done.out == ""


@pytest.mark.parametrize("words", [["--help"], ["echo"], ["store"], ["listen"]], ids=" ".join)
def test_what_should_be_quick_imports_neither_pydicom_nor_numpy(
    words: list[str], study: Path, tmp_path: Path
) -> None:
    program = [DIMSE[0], "-X", "importtime", *DIMSE[1:]]
    if words == ["listen"]:
        running = Running(program, *words, "tcp:0:interface=127.0.0.1", cwd=tmp_path)
        running.wait_for_line("listens at")
        running.stop()
        said = "\n".join(running.err)
    elif words == ["--help"]:
        said = peers.run(program, *words).succeeded().err
    else:
        with scripted(accepting()) as server:
            paths = [study / "a.dcm"] if words == ["store"] else []
            said = peers.run(program, *words, at(server.port), *paths).succeeded().err
    imported = set(re.findall(r"^import time:.*\| +(\w+)", said, re.MULTILINE))
    assert "click" in imported
    assert not imported & {"numpy", "pydicom"}


# --- echo


def test_echo_says_in_words_that_the_peer_answered() -> None:
    with scripted(accepting()) as server:
        done = dimse("echo", at(server.port)).succeeded()
    assert re.fullmatch(rf"PACS@127\.0\.0\.1:{server.port} answered in \d+\.\d ms\n", done.out)
    assert done.err == ""


def test_echo_says_it_in_json() -> None:
    with scripted(accepting()) as server:
        done = dimse("echo", at(server.port), "--json", "--count", 3).succeeded()
    lines = json_lines(done.out)
    assert len(lines) == 3
    for line in lines:
        assert list(line) == ["status", "milliseconds"]
        assert line["status"] == 0
        assert 0 < line["milliseconds"] < 10_000
    assert done.err == ""
    (came,) = server.results
    assert [message.field for message in came] == [raw.C_ECHO_RQ] * 3  # type: ignore[attr-defined]


def test_quiet_echo_says_nothing() -> None:
    with scripted(accepting()) as server:
        done = dimse("echo", at(server.port), "-q").succeeded()
    assert done.out + done.err == ""


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_echo_that_is_answered_with_a_failure_is_1(form: str) -> None:
    with scripted(accepting(status=lambda _: 0x0211)) as server:
        done = dimse("echo", at(server.port), *(["--json"] if form == "json" else []))
    assert done.status == 1
    assert "0x0211" in one_line(done)
    assert f"PACS@127.0.0.1:{server.port}" in one_line(done)
    assert done.out == ""


def requested(*words: str | int, **variables: Any) -> bytes:
    """The body of the A-ASSOCIATE-RQ that an echo sends; PORT stands for the peer's port."""

    def script(connection: Connection) -> bytes:
        request = connection.expect(ASSOCIATE_RQ)
        connection.send(pdu(ASSOCIATE_RJ, b"\0\1\1\1"))
        assert connection.is_closed()
        return request

    with scripted(script) as server:
        done = dimse("echo", *(str(word).replace("PORT", str(server.port)) for word in words))
    assert done.status == 3, done.said
    (request,) = server.results
    assert isinstance(request, bytes)
    return request


def titles(request: bytes) -> tuple[str, str]:
    """Called and calling."""
    return request[4:20].decode().rstrip(), request[20:36].decode().rstrip()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["PACS@127.0.0.1:PORT"], ("PACS", "DIMSE-SCU")),
        (["PACS@localhost:PORT", "--calling", "ME"], ("PACS", "ME")),
        (["PACS@tcp:host=127.0.0.1:port=PORT", "-aet", "ME"], ("PACS", "ME")),
        (["127.0.0.1", "PORT"], ("ANY-SCP", "DIMSE-SCU")),
        (["-aet", "ME", "-aec", "PACS", "127.0.0.1", "PORT"], ("PACS", "ME")),
        (["127.0.0.1", "PORT", "--called-aet", "PACS", "--calling-aet", "ME"], ("PACS", "ME")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_titles_are_those_that_were_asked_for(words: list[str], expected: tuple[str, str]) -> None:
    assert titles(requested(*words)) == expected


def test_a_peer_is_found_by_its_name_in_a_configuration_file(tmp_path: Path) -> None:
    with scripted(accepting()) as server:
        (tmp_path / "mine.toml").write_text(f'[peers]\npacs = "{at(server.port, "NODE7")}"\n')
        done = dimse("echo", "pacs", "--config", tmp_path / "mine.toml").succeeded()
    assert done.out.startswith("NODE7@127.0.0.1")


def test_a_broken_configuration_file_is_named_and_keeps_nobody_from_the_help(
    tmp_path: Path,
) -> None:
    (tmp_path / "dimse.toml").write_text("[peers")
    mine = {"XDG_CONFIG_HOME": str(tmp_path)}
    helped = Running(DIMSE, "echo", "--help", variables=mine)
    assert (helped.wait(), helped.err) == (0, [])
    refused = Running(DIMSE, "echo", "PACS", variables=mine)
    assert refused.wait() == 2
    assert f"the configuration file {tmp_path}/dimse.toml: " in refused.err[0]


def test_the_configuration_file_of_the_user_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted(accepting()) as server:
        (tmp_path / "dimse.toml").write_text(f'[peers]\npacs = "{at(server.port, "NODE7")}"\n')
        echo = Running(DIMSE, "echo", "pacs", variables={"XDG_CONFIG_HOME": str(tmp_path)})
        assert echo.wait() == 0, echo.said
    assert echo.out[0].startswith("NODE7@127.0.0.1")


def test_the_largest_pdu_is_told_to_the_peer() -> None:
    assert raw.max_length(requested("PACS@127.0.0.1:PORT")) == 262144
    assert raw.max_length(requested("PACS@127.0.0.1:PORT", "-pdu", 16384)) == 16384


def user_items(request: bytes) -> dict[int, bytes]:
    return dict(raw.items(dict(raw.items(request[68:]))[0x50]))


def test_a_user_identity_goes_out_and_its_passcode_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "passcode").write_text("secret\n")
    words = ["PACS@127.0.0.1:PORT", "--user", "me", "--password-file", str(tmp_path / "passcode")]
    assert user_items(requested(*words))[0x58] == b"\2\0\0\2me\0\6secret"


def test_no_user_identity_and_no_window_go_out_unasked() -> None:
    assert user_items(requested("PACS@127.0.0.1:PORT")).keys() == {0x51, 0x52, 0x55}


# --- no association


def test_a_port_that_refuses_is_3_and_one_line() -> None:
    port = peers.free_port()
    done = dimse("echo", at(port))
    assert done.status == 3
    assert f"127.0.0.1:{port}" in one_line(done)
    assert "refused" in one_line(done)
    assert done.out == ""


def test_an_unknown_host_is_3_and_one_line() -> None:
    done = dimse("echo", "PACS@no-such-host.invalid:104", "--timeout", 10)
    assert done.status == 3
    assert "no-such-host.invalid" in one_line(done)
    assert done.seconds < 15


REJECTIONS = {
    (1, 1, 1): "no reason",
    (1, 1, 2): "application context",
    (1, 1, 3): "calling AE title ME",
    (1, 1, 7): "called AE title PACS",
    (1, 2, 1): "no reason",
    (1, 2, 2): "version",
    (2, 3, 1): "busy",
    (2, 3, 2): "as many associations",
    (2, 1, 9): "reserved reason 9",
}


@pytest.mark.parametrize("answer", REJECTIONS, ids=str)
def test_a_rejection_is_3_and_says_why(answer: tuple[int, int, int]) -> None:
    def script(connection: Connection) -> None:
        connection.expect(ASSOCIATE_RQ)
        connection.send(pdu(ASSOCIATE_RJ, bytes((0, *answer))))
        assert connection.is_closed()

    with scripted(script) as server:
        done = dimse("echo", at(server.port), "--calling", "ME")
    assert done.status == 3
    line = one_line(done)
    assert "rejected the association" in line
    assert REJECTIONS[answer] in line
    assert ("permanent" if answer[0] == 1 else "transient") in line
    assert done.out == ""


def answering(octets: bytes, *, wait: bool = False) -> raw.Script:
    """Read the request, answer ``octets``, and close or wait for the other side to."""

    def script(connection: Connection) -> None:
        connection.expect(ASSOCIATE_RQ)
        connection.send(octets)
        if wait:
            assert connection.is_closed()

    return script


UNFRIENDLY = {
    "aborts": (answering(pdu(ABORT, b"\0\0\2\0"), wait=True), "aborted"),
    "closes": (answering(b""), "without an answer|lost|closed"),
    "speaks-http": (answering(b"HTTP/1.1 400 Bad Request\r\n\r\n", wait=True), "HTTP"),
    "answers-nonsense": (answering(pdu(0x42, b"1234"), wait=True), "42H"),
    "accepts-nothing": (accepting(accept=lambda _abstract, _syntax: False), "accepted none"),
    "releases-at-once": (answering(pdu(raw.RELEASE_RQ, bytes(4)), wait=True), "."),
}


@pytest.mark.parametrize("how", UNFRIENDLY)
def test_a_peer_that_makes_no_association_is_3_and_one_line(how: str) -> None:
    script, said = UNFRIENDLY[how]
    with scripted(script) as server:
        done = dimse("echo", at(server.port), "--timeout", 5)
    assert done.status == 3, done.said
    assert re.search(said, one_line(done)), done.err
    assert done.out == ""


def silent(connection: Connection) -> None:
    connection.expect(ASSOCIATE_RQ)
    assert connection.is_closed()


def silent_later(connection: Connection) -> None:
    connection.send(raw.associate_ac(connection.expect(ASSOCIATE_RQ)))
    connection.message()
    connection.expect(ABORT)


@pytest.mark.parametrize("script", [silent, silent_later])
def test_a_peer_that_never_answers_is_3_after_the_timeout(script: raw.Script) -> None:
    with scripted(script) as server:
        done = dimse("echo", at(server.port), "--timeout", 0.7)
    assert done.status == 3
    assert "0.7 s" in one_line(done)
    assert 0.7 <= done.seconds < 5


def test_a_connection_that_is_never_taken_is_3_after_the_timeout() -> None:
    with socket.socket() as full, socket.socket() as one, socket.socket() as other:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for client in (one, other):  # they fill its queue
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        done = dimse("echo", at(full.getsockname()[1]), "--timeout", 0.7)
    assert done.status == 3
    assert "0.7 s" in one_line(done)
    assert done.seconds < 5


def test_debug_shows_where_an_error_comes_from() -> None:
    done = dimse("echo", at(peers.free_port()), "--debug")
    assert done.status != 0
    assert "Traceback" in done.err


# --- store


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three instances in two folders, and two files of other kinds."""
    folder = tmp_path / "study"
    write_instance(folder / "a.dcm", "1.2.1", size=100)
    write_instance(folder / "b" / "b.dcm", "1.2.2", size=200)
    write_instance(folder / "c.dcm", "1.2.3", size=301)
    (folder / "notes.txt").write_text("no DICOM")
    (folder / "empty").write_text("")
    return folder


def sent(server: raw.Scripted) -> list[Message]:
    return [message for came in server.results for message in came]  # type: ignore[attr-defined]


def test_store_sends_what_a_folder_holds_and_counts_the_rest(study: Path) -> None:
    with scripted(accepting()) as server:
        done = dimse("store", at(server.port), study).succeeded()
    assert re.fullmatch(
        r"3 sent, 2 skipped; \d+ octets in \d+\.\d s, \S+ (octets|kB)/s\n", done.out
    ), done.out
    assert done.err == ""
    messages = sent(server)
    assert sorted(message.instance for message in messages) == ["1.2.1", "1.2.2", "1.2.3"]
    for message in messages:
        size = {"1.2.1": 100, "1.2.2": 200, "1.2.3": 301}[message.instance]
        expected = dataset(message.instance, size)
        assert message.data == expected + b"\0" * (len(expected) & 1)


def test_store_says_one_json_line_a_file_and_a_summary(study: Path) -> None:
    with scripted(accepting()) as server:
        done = dimse("store", at(server.port), study, "--json").succeeded()
    *lines, summary = json_lines(done.out)
    assert [list(line) for line in lines] == [["path", "sop_instance_uid", "status", "error"]] * 3
    assert {line["sop_instance_uid"]: line["path"] for line in lines} == {
        "1.2.1": str(study / "a.dcm"),
        "1.2.2": str(study / "b" / "b.dcm"),
        "1.2.3": str(study / "c.dcm"),
    }
    assert all((line["status"], line["error"]) == (0, None) for line in lines)
    assert list(summary) == ["sent", "failed", "warnings", "skipped", "bytes", "seconds"]
    size = sum(
        len(dataset(f"1.2.{number}", size)) for number, size in enumerate((100, 200, 301), 1)
    )
    seconds = summary.pop("seconds")
    assert summary == {"sent": 3, "failed": 0, "warnings": 0, "skipped": 2, "bytes": size}
    assert seconds > 0
    assert done.err == ""


def test_quiet_store_says_nothing(study: Path) -> None:
    with scripted(accepting()) as server:
        done = dimse("store", at(server.port), study, "-q").succeeded()
    assert done.out + done.err == ""


def test_verbose_store_says_what_it_skips(study: Path) -> None:
    with scripted(accepting()) as server:
        done = dimse("store", at(server.port), study, "-v").succeeded()
    assert sorted(re.findall(r"skipped .*/(\S+):", done.err)) == ["empty", "notes.txt"]


def refusing_one(message: Message) -> int:
    return 0xA700 if message.instance == "1.2.2" else 0


def test_a_file_that_is_refused_is_1_and_listed(study: Path) -> None:
    with scripted(accepting(status=refusing_one)) as server:
        done = dimse("store", at(server.port), study)
    assert done.status == 1
    assert done.out.startswith("2 sent, 1 failed, 2 skipped; ")
    assert str(study / "b" / "b.dcm") in one_line(done)
    assert "0xA700" in one_line(done)


def test_a_file_that_is_refused_is_listed_in_json(study: Path) -> None:
    with scripted(accepting(status=refusing_one)) as server:
        done = dimse("store", at(server.port), study, "--json")
    assert done.status == 1
    *lines, summary = json_lines(done.out)
    (failed,) = (line for line in lines if line["status"] != 0)
    assert failed["status"] == 0xA700
    assert failed["path"].endswith("b.dcm")
    assert "A700" in failed["error"]
    assert (summary["sent"], summary["failed"]) == (2, 1)


def test_a_warning_is_counted_and_is_0(study: Path) -> None:
    status = {"1.2.1": 0xB000, "1.2.2": 0xB007, "1.2.3": 0}
    with scripted(accepting(status=lambda message: status[message.instance])) as server:
        done = dimse("store", at(server.port), study, "--json").succeeded()
    *lines, summary = json_lines(done.out)
    assert {line["sop_instance_uid"]: line["status"] for line in lines} == status
    assert (summary["sent"], summary["failed"], summary["warnings"]) == (3, 0, 2)


def test_what_a_peer_comments_breaks_no_line(study: Path) -> None:
    comment = "no\nroom\x1b[31m"

    def script(connection: Connection) -> None:
        connection.send(raw.associate_ac(connection.expect(ASSOCIATE_RQ)))
        request = connection.message()
        answer = raw.elements(raw.response(request.command, 0xA700))
        del answer[0]
        connection.send_message(request.context, raw.command({**answer, raw.COMMENT: comment}))
        connection.expect(raw.RELEASE_RQ)
        connection.send(pdu(raw.RELEASE_RP, bytes(4)))

    with scripted(script) as server:
        done = dimse("store", at(server.port), study / "a.dcm")
    assert done.status == 1
    assert "room" in one_line(done)
    assert "\x1b" not in done.err


def test_a_class_that_is_not_accepted_fails_and_the_others_go(study: Path) -> None:
    write_instance(study / "ct.dcm", "1.2.4", sop_class=raw.CT_IMAGE)
    with scripted(accepting(accept=lambda abstract, _: abstract != raw.CT_IMAGE)) as server:
        done = dimse("store", at(server.port), study, "--json")
    assert done.status == 1
    *lines, summary = json_lines(done.out)
    (failed,) = (line for line in lines if line["error"])
    assert failed["path"].endswith("ct.dcm")
    assert failed["status"] is None
    assert "CT Image Storage" in failed["error"]
    assert (summary["sent"], summary["failed"]) == (3, 1)


def test_where_no_class_is_accepted_every_file_is_listed(study: Path) -> None:
    with scripted(accepting(accept=lambda _abstract, _syntax: False)) as server:
        done = dimse("store", at(server.port), study, "--json")
    assert done.status == 1
    assert len(done.err.splitlines()) == 3
    *lines, summary = json_lines(done.out)
    assert len(lines) == 3
    assert all(line["status"] is None and line["error"] for line in lines)
    assert (summary["sent"], summary["failed"]) == (0, 3)


def test_more_kinds_than_an_association_has_contexts_for_take_several(tmp_path: Path) -> None:
    for number in range(130):
        write_instance(tmp_path / f"{number:03}.dcm", f"1.2.{number}", sop_class=f"1.9.{number}")
    with scripted(accepting()) as server:
        done = dimse("store", at(server.port), tmp_path, "--json").succeeded()
    assert json_lines(done.out)[-1]["sent"] == 130
    assert sorted(len(came) for came in server.results) == [2, 128]  # type: ignore[arg-type]


def test_a_window_is_proposed_where_it_is_asked_for(study: Path) -> None:
    def script(connection: Connection) -> bytes:
        request = connection.expect(ASSOCIATE_RQ)
        connection.send(pdu(ASSOCIATE_RJ, b"\0\1\1\1"))
        return request

    with scripted(script) as server:
        assert dimse("store", at(server.port), study, "--window", 8).status == 3
    (request,) = server.results
    assert user_items(request)[0x53][:2] == b"\0\x08"  # type: ignore[arg-type]


def test_a_peer_that_vanishes_is_3_and_every_file_is_listed(study: Path) -> None:
    def script(connection: Connection) -> None:
        connection.send(raw.associate_ac(connection.expect(ASSOCIATE_RQ)))
        first = connection.message()
        connection.send_message(first.context, raw.response(first.command))
        connection.message()

    with scripted(script) as server:
        done = dimse("store", at(server.port), study, "--json")
    assert done.status == 3
    *lines, summary = json_lines(done.out)
    assert [line["status"] for line in lines] == [0, None, None]
    assert all(line["error"] for line in lines[1:])
    assert (summary["sent"], summary["failed"]) == (1, 2)
    assert "lost" in one_line(done)


def test_where_nobody_listens_every_file_is_listed(study: Path) -> None:
    port = peers.free_port()
    done = dimse("store", at(port), study, "--json")
    assert done.status == 3
    *lines, summary = json_lines(done.out)
    assert len(lines) == 3
    assert (summary["sent"], summary["failed"], summary["skipped"]) == (0, 3, 2)
    assert "refused" in one_line(done)

    done = dimse("store", at(port), study)
    assert done.out.startswith("0 sent, 3 failed, 2 skipped; ")
    assert "refused" in one_line(done)


def test_a_file_that_cannot_be_read_fails_and_the_others_go(study: Path) -> None:
    (study / "loop.dcm").symlink_to("loop.dcm")
    with scripted(accepting()) as server:
        done = dimse("store", at(server.port), study, "--json")
    assert done.status == 1
    *lines, summary = json_lines(done.out)
    assert [line["path"] for line in lines if line["error"]] == [str(study / "loop.dcm")]
    assert (summary["sent"], summary["failed"]) == (3, 1)


def test_a_folder_without_instances_is_0(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    done = dimse("store", at(peers.free_port()), tmp_path, "--json").succeeded()
    (summary,) = json_lines(done.out)
    assert (summary["sent"], summary["failed"], summary["skipped"]) == (0, 0, 1)


def test_a_bar_is_shown_on_a_terminal_only(study: Path) -> None:
    terminal, end = pty.openpty()
    with scripted(accepting()) as server:
        store = subprocess.Popen(
            [*DIMSE, "store", at(server.port), str(study)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=end,
            env=peers.environment(TERM="xterm"), text=True,
        )  # fmt: skip
        os.close(end)
        shown = b""
        try:
            while part := os.read(terminal, 4096):
                shown += part
        except OSError:
            pass  # how a terminal ends
        out, _ = store.communicate(timeout=peers.SECONDS)
        os.close(terminal)
    assert store.returncode == 0
    assert out.startswith("3 sent, 2 skipped; ")
    assert b"sending" in shown
    assert b"3/" in shown or b"0/" in shown


# --- interrupted

LARGE = 1 << 30


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An instance of a gigabyte that takes no room."""
    path = tmp_path / "large.dcm"
    data = dataset("1.2.3", 16)
    with path.open("wb") as file:
        file.write(file_meta("1.2.3") + data[:-20] + struct.pack("<I", LARGE))
        file.truncate(LARGE)
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_store_aborts_and_is_130(large: Path, number: int) -> None:
    under_way = threading.Event()

    def script(connection: Connection) -> float:
        """Reads on until the A-ABORT; when that was."""
        connection.send(raw.associate_ac(connection.expect(ASSOCIATE_RQ), max_length=131072))
        connection.expect(P_DATA)
        under_way.set()
        while (got := connection.read()) is not None:
            if got[0] == ABORT:
                return time.monotonic()
            assert got[0] == P_DATA
        raise AssertionError("closed without an A-ABORT")

    with scripted(script) as server:
        store = Running(DIMSE, "store", at(server.port), large)
        assert under_way.wait(peers.SECONDS)
        begun = time.monotonic()
        store.signal(number)
        status = store.wait(5)
        seconds = time.monotonic() - begun
    (aborted,) = server.results
    assert isinstance(aborted, float)
    assert aborted - begun < 2
    assert seconds < 2
    assert status == 130
    assert "Traceback" not in store.said


def unread(connection: socket.socket) -> int:
    """The octets that have come and are not read."""
    octets = fcntl.ioctl(connection, termios.FIONREAD, bytes(4))
    return int.from_bytes(octets, sys.byteorder)


def test_a_store_to_a_peer_that_does_not_read_is_interrupted_too(large: Path) -> None:
    under_way, interrupted = threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        connection.send(raw.associate_ac(connection.expect(ASSOCIATE_RQ), max_length=131072))
        connection.expect(P_DATA)
        peers.wait_until(lambda: unread(connection.socket) > 1 << 15, peers.SECONDS)
        under_way.set()
        interrupted.wait(raw.SECONDS)

    with scripted(script) as server:
        store = Running(DIMSE, "store", at(server.port), large)
        assert under_way.wait(peers.SECONDS)
        begun = time.monotonic()
        store.signal(signal.SIGINT)
        status = store.wait(5)
        interrupted.set()
    assert status == 130, store.said
    assert time.monotonic() - begun < 2


def test_an_interrupted_wait_for_an_association_is_130() -> None:
    asked = threading.Event()

    def script(connection: Connection) -> None:
        connection.expect(ASSOCIATE_RQ)
        asked.set()
        connection.is_closed()

    with scripted(script) as server:
        echo = Running(DIMSE, "echo", at(server.port))
        assert asked.wait(peers.SECONDS)
        begun = time.monotonic()
        echo.signal(signal.SIGINT)
        assert echo.wait(5) == 130
        assert time.monotonic() - begun < 2
    assert "Traceback" not in echo.said


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    with listening(folder=tmp_path) as (running, port), raw.Client(port) as client:
        client.associate()
        running.signal(signal.SIGINT)
        client.expect(ABORT)  # and do not close, as a peer should
        running.signal(signal.SIGINT)
        begun = time.monotonic()
        assert running.wait(5) in (130, -signal.SIGINT)
        assert time.monotonic() - begun < 0.9
        assert "Traceback" not in running.said


# --- listen


@contextmanager
def listening(*options: str | Path, folder: Path) -> Iterator[tuple[Running, int]]:
    words = ["listen", "tcp:0:interface=127.0.0.1", *options]
    running = Running(DIMSE, *words, cwd=folder)
    try:
        port = int(running.wait_for_line(r"DIMSE-LISTEN listens at 127\.0\.0\.1:(\d+)")[1])
        yield running, port
        if running.process.poll() is None:
            running.signal(signal.SIGINT)
            assert running.wait(5) == 130, running.said
        assert "Traceback" not in running.said
    finally:
        if running.process.poll() is None:
            running.kill()


def test_listen_files_what_it_gets_and_names_each_file(study: Path, tmp_path: Path) -> None:
    with listening(folder=tmp_path) as (running, port):
        dimse("store", at(port), study).succeeded()
    kept = sorted((tmp_path / "received" / "instances" / "1.2.3" / "1.2.3.4").iterdir())
    assert [path.name for path in kept] == ["1.2.1.dcm", "1.2.2.dcm", "1.2.3.dcm"]
    assert kept[0].read_bytes().endswith(dataset("1.2.1", 100))
    assert sorted(line for line in running.out if line.endswith(".dcm")) == [
        str(path) for path in kept
    ]


def test_listen_says_one_json_line_an_instance(study: Path, tmp_path: Path) -> None:
    with listening("--json", "--directory", tmp_path / "in", folder=tmp_path) as (running, port):
        dimse("store", at(port), study / "a.dcm", "--calling", "ME").succeeded()
    (line,) = running.out
    assert json.loads(line) == {
        "path": str(tmp_path / "in" / "instances" / "1.2.3" / "1.2.3.4" / "1.2.1.dcm"),
        "sop_class_uid": raw.SECONDARY_CAPTURE,
        "sop_instance_uid": "1.2.1",
        "transfer_syntax": raw.EXPLICIT,
        "calling_ae_title": "ME",
    }


def test_listen_keeps_nothing_where_it_is_to_ignore(study: Path, tmp_path: Path) -> None:
    with listening("--ignore", "--json", folder=tmp_path) as (running, port):
        dimse("store", at(port), study).succeeded()
        with raw.Client(port) as vanishing:
            vanishing.associate()
            vanishing.send(raw.p_data((3, raw.COMMAND | raw.LAST, raw.store_rq("1.2.9"))))
            vanishing.send(raw.p_data((3, 0, dataset("1.2.9"))) + pdu(ABORT, bytes(4)))
            assert vanishing.is_closed()
    lines = json_lines("\n".join(running.out))
    assert sorted(line["sop_instance_uid"] for line in lines) == ["1.2.1", "1.2.2", "1.2.3"]
    assert all(line["path"] is None for line in lines)
    assert not (tmp_path / "received").exists()


def test_listen_says_more_where_it_is_asked_to_and_counts(study: Path, tmp_path: Path) -> None:
    with listening("-v", "--max-pdu", 16384, folder=tmp_path) as (running, port):
        done = dimse("store", at(port), study, "--calling", "ME", "--trace").succeeded()
        running.wait_for_line("association 1: released")
    assert "MaximumLength(octets=16384)" in done.err
    assert "dimse: association 1: from ME" in running.err
    assert running.err[-1] == "dimse: 3 received"


def test_listen_keeps_what_names_no_study(tmp_path: Path) -> None:
    write_instance(tmp_path / "a.dcm", "1.2.1", study="")
    with listening(folder=tmp_path) as (_, port):
        dimse("store", at(port), tmp_path / "a.dcm").succeeded()
    assert (tmp_path / "received/instances/no-study/no-series/1.2.1.dcm").exists()


def test_listen_aborts_what_is_under_way_when_it_is_interrupted(tmp_path: Path) -> None:
    incoming = tmp_path / "received" / "incoming"
    with listening(folder=tmp_path) as (running, port), raw.Client(port) as client:
        client.associate()
        client.send(raw.p_data((3, raw.COMMAND | raw.LAST, raw.store_rq("1.2.1"))))
        client.send(raw.p_data((3, 0, dataset("1.2.1", 100))))
        peers.wait_until(lambda: any(incoming.iterdir()))
        running.signal(signal.SIGINT)
        assert client.read() == (ABORT, bytes(4))
        client.socket.close()
        assert running.wait(5) == 130
    assert list(incoming.iterdir()) == []
    assert list((tmp_path / "received" / "instances").iterdir()) == []


@pytest.mark.parametrize("what", ["busy", "unknown-endpoint", "word-for-a-port"])
def test_listen_where_it_cannot_is_one_line(what: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = {
            "busy": f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1",
            "unknown-endpoint": "nonsense:11112",
            "word-for-a-port": "tcp:dicom-port",
        }[what]
        done = dimse("listen", endpoint, cwd=tmp_path)
    assert done.status == (3 if what == "busy" else 2)
    (line,) = done.err.splitlines()
    assert re.match(rf"dimse( listen)?: {re.escape(endpoint)}", line)
    assert "Errno" not in line
    assert done.out == ""
