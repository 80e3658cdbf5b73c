"""Every option of `twistd dimse-scp`: what it does, what it is when left out, and how a value that
cannot be used ends start-up."""

from __future__ import annotations

import ctypes
import functools
import itertools
import json
import os
import re
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import peers
import pytest
import raw
from peers import Server, serving
from raw import ABORT, ASSOCIATE_RJ, COMMAND, LAST, Client, dataset

from twisted_dimse.scp.options import Options

NODE = ("--store-only", "--durability", "commit")

_numbers = itertools.count(1)


def new_uid() -> str:
    """A SOP Instance UID that no other test uses."""
    return f"1.2.826.0.1.{os.getpid()}.{next(_numbers)}"


def rejection(port: int, **titles: str) -> tuple[int, ...]:
    """Result, source and reason with which a server rejects an association."""
    with Client(port) as client:
        client.send(raw.associate_rq(**titles))
        return tuple(client.expect(ASSOCIATE_RJ)[1:])


# --- left out


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("listen", ["tcp:11112:interface=127.0.0.1"]),
        ("ae-title", "TWISTED-DIMSE"),
        ("require-called", False),
        ("promiscuous", False),
        ("allow-calling", []),
        ("peer", {}),
        ("directory", "./dicom-archive"),
        ("store-only", False),
        ("handler", None),
        ("on-duplicate", "replace"),
        ("durability", "sync"),
        ("max-associations", 1000),
        ("max-pdu", 262144),
        ("window", 16),
        ("max-instance", None),
        ("workers", 1),
        ("artim", 30),
        ("idle-timeout", 600),
        ("dimse-timeout", 60),
        ("database", None),
        ("max-results", None),
        ("http", None),
        ("config", None),
        ("log-format", "text"),
        ("drain-timeout", 30),
    ],
)
def test_an_option_that_is_left_out_is_as_the_interface_has_it(option: str, value: object) -> None:
    options = Options()
    options.parseOptions([])
    assert options[option] == value


def test_help_has_every_option(tmp_path: Path) -> None:
    done = peers.run(peers.TWISTD, "dimse-scp", "--help", cwd=tmp_path).succeeded()
    options = Options()
    options.parseOptions([])
    missing = [name for name in options if not re.search(rf"--{name}\b", done.out)]
    assert missing == []


# --- unusable

_TOO_LONG = "A-TITLE-TOO-LONG!"
_DROP_FROM_BOUNDING_SET, _OVERRIDE_MODES = 24, 1


def without_override() -> None:
    """Take from a process of root what lets it write where the mode says no."""
    if os.getuid() == 0:
        ctypes.CDLL(None).prctl(_DROP_FROM_BOUNDING_SET, _OVERRIDE_MODES, 0, 0, 0)


def file_in_the_way(folder: Path) -> list[str]:
    (folder / "file").write_text("")
    return ["--directory", str(folder / "file" / "archive")]


def file_of_that_name(folder: Path) -> list[str]:
    (folder / "archive").write_text("")
    return ["--directory", str(folder / "archive")]


def read_only(folder: Path) -> list[str]:
    (folder / "read-only").mkdir(mode=0o555)
    return ["--directory", str(folder / "read-only" / "archive")]


def read_only_archive(folder: Path) -> list[str]:
    for part in ("incoming", "instances"):
        (folder / "mine" / part).mkdir(parents=True)
        (folder / "mine" / part).chmod(0o555)
    return ["--directory", str(folder / "mine")]


@functools.cache
def taken() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def busy(_folder: Path) -> list[str]:
    return ["--listen", f"tcp:{taken().getsockname()[1]}:interface=127.0.0.1"]


def busy_http(_folder: Path) -> list[str]:
    return ["--http", f"tcp:{taken().getsockname()[1]}:interface=127.0.0.1"]


def no_database(folder: Path) -> list[str]:
    (folder / "index").write_bytes(b"no database" * 1000)
    return ["--database", f"sqlite:///{folder / 'index'}"]


def config(text: str) -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        (folder / "node.toml").write_text(text)
        return ["--config", str(folder / "node.toml")]

    return write


def module(text: str, name: str) -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        (folder / "somebodys.py").write_text(text)
        return ["--handler", f"somebodys:{name}"]

    return write


#: What the line on standard error must have, and the words that bring it forth.
UNUSABLE: dict[str, tuple[str, list[str] | Callable[[Path], list[str]]]] = {
    "title-too-long": ("--ae-title", ["--ae-title", _TOO_LONG]),
    "title-empty": ("--ae-title", ["--ae-title", " "]),
    "title-with-backslash": ("--ae-title", ["--ae-title", "A\\B"]),
    "title-with-umlaut": ("--ae-title", ["--ae-title", "ÄRZTE"]),
    "allowed-title-too-long": ("--allow-calling", ["--allow-calling", _TOO_LONG]),
    "title-of-two-lines": ("--ae-title", ["--ae-title", "A\nB"]),
    "peer-without-title": ("--peer", ["--peer", "127.0.0.1:104"]),
    "peer-without-port": ("--peer", ["--peer", "PACS=127.0.0.1"]),
    "peer-with-impossible-port": ("--peer", ["--peer", "PACS=127.0.0.1:70000"]),
    "peer-title-too-long": ("--peer", ["--peer", f"{_TOO_LONG}=127.0.0.1:104"]),
    "peer-with-unknown-endpoint": ("--peer", ["--peer", "PACS=nonsense:127.0.0.1:104"]),
    "directory-empty": ("--directory", ["--directory", ""]),
    "directory-below-a-file": ("--directory", file_in_the_way),
    "directory-is-a-file": ("--directory", file_of_that_name),
    "directory-in-proc": ("--directory", ["--directory", "/proc/archive"]),
    "directory-not-writable": ("--directory", read_only),
    "folders-not-writable": ("--directory", read_only_archive),
    "on-duplicate": ("--on-duplicate", ["--on-duplicate", "rename"]),
    "durability": ("--durability", ["--durability", "eventually"]),
    "log-format": ("--log-format", ["--log-format", "xml"]),
    "max-associations-zero": ("--max-associations", ["--max-associations", "0"]),
    "max-associations-word": ("--max-associations", ["--max-associations", "many"]),
    "max-pdu-too-small": ("--max-pdu", ["--max-pdu", "100"]),
    "max-pdu-too-large": ("--max-pdu", ["--max-pdu", "4294967296"]),
    "max-pdu-fraction": ("--max-pdu", ["--max-pdu", "16384.5"]),
    "window-zero": ("--window", ["--window", "0"]),
    "window-too-large": ("--window", ["--window", "65536"]),
    "max-instance-zero": ("--max-instance", ["--max-instance", "0"]),
    "workers-zero": ("--workers", ["--workers", "0"]),
    "workers-too-many": ("--workers", ["--workers", "257"]),
    "max-results-zero": ("--max-results", ["--max-results", "0"]),
    "artim-zero": ("--artim", ["--artim", "0"]),
    "artim-nan": ("--artim", ["--artim", "nan"]),
    "artim-infinite": ("--artim", ["--artim", "inf"]),
    "idle-timeout-negative": ("--idle-timeout", ["--idle-timeout", "-1"]),
    "dimse-timeout-word": ("--dimse-timeout", ["--dimse-timeout", "soon"]),
    "drain-timeout-negative": ("--drain-timeout", ["--drain-timeout", "-1"]),
    "handler-without-name": ("--handler", ["--handler", "somebodys"]),
    "handler-of-no-module": ("--handler", ["--handler", "nobodys:Handler"]),
    "handler-that-is-not-there": ("--handler", module("", "Handler")),
    "handler-that-exits": ("--handler", module("raise SystemExit(3)", "Handler")),
    "handler-that-fails-in-two-lines": ("--handler", module("raise OSError('a\\nb')", "Handler")),
    "handler-class-of-another-kind": ("--handler", module("class Handler: pass", "Handler")),
    "handler-that-needs-an-argument": (
        "--handler",
        module("def make(archive): pass", "make"),
    ),
    "handler-that-is-none": ("--handler", module("Handler = 'text'", "Handler")),
    "handler-in-a-broken-module": ("--handler", module("1 / 0", "Handler")),
    "handler-in-no-python": ("--handler", module("class", "Handler")),
    "listen-port-busy": ("--listen", busy),
    "listen-unknown-endpoint": ("--listen", ["--listen", "nonsense:11112"]),
    "listen-port-is-a-word": ("--listen", ["--listen", "tcp:dicom-port"]),
    "listen-no-such-address": ("--listen", ["--listen", "tcp:0:interface=192.0.2.1"]),
    "listen-no-such-key": ("--listen", ["--listen", "ssl:0:privateKey=nothing.pem"]),
    "listen-below-a-file": ("--listen", ["--listen", "unix:/dev/null/socket"]),
    "listen-no-socket-of-systemd": ("--listen", ["--listen", "systemd:domain=INET:index=0"]),
    "http-port-busy": ("--http", busy_http),
    "http-unknown-endpoint": ("--http", ["--http", "nonsense:8080"]),
    "database-empty": ("--database", ["--database", ""]),
    "database-in-memory": ("--database", ["--database", "sqlite://"]),
    "database-in-memory-by-name": ("--database", ["--database", "sqlite:///:memory:"]),
    "database-of-no-kind": ("--database", ["--database", "nonsense"]),
    "database-of-an-unknown-kind": ("--database", ["--database", "nonsense://archive"]),
    "database-below-a-file": ("--database", ["--database", "sqlite:////dev/null/index"]),
    "database-that-is-none": ("--database", no_database),
    "config-absent": ("--config", ["--config", "nothing.toml"]),
    "config-is-a-folder": ("--config", ["--config", "."]),
    "config-is-not-toml": ("--config", config("max_pdu: 1")),
    "config-with-unknown-key": ("max_pdus", config("max_pdus = 16384")),
    "config-with-dashes": ("max-pdu", config("max-pdu = 16384")),
    "config-within-config": ("config", config("config = 'other.toml'")),
    "config-with-a-word-for-a-number": ("max-pdu", config("max_pdu = 'large'")),
    "config-with-a-wrong-number": ("max-pdu", config("max_pdu = 1")),
    "config-with-a-list-for-a-number": ("max-pdu", config("max_pdu = [1]")),
    "config-with-a-fraction-for-a-whole-number": ("max-pdu", config("max_pdu = 16384.7")),
    "config-with-a-flag-for-a-number": ("workers", config("workers = true")),
    "config-with-a-flag-for-seconds": ("artim", config("artim = true")),
    "config-with-a-number-for-a-flag": ("require.called", config("require_called = 1")),
    "config-with-a-number-for-a-title": ("ae.title", config("ae_title = 7")),
    "config-with-a-number-for-a-folder": ("directory", config("directory = 7")),
    "config-with-a-number-to-listen-on": ("listen", config("listen = 11112")),
    "config-with-numbers-to-listen-on": ("listen: .*texts", config("listen = [11112]")),
    "config-with-a-table-to-listen-on": ("listen: .*texts", config("listen = {a = 'tcp:0'}")),
    "config-with-a-flag-for-titles": ("allow.calling: .*texts", config("allow_calling = true")),
    "config-with-a-table-of-titles": ("allow.calling: .*texts", config("allow_calling = {A = 1}")),
    "config-with-a-number-for-peers": ("peer: .*texts", config("peer = 104")),
    "config-with-a-table-for-a-peer": ("peer: .*texts", config("peer = {PACS = {port = 104}}")),
    "config-with-a-key-of-two-lines": ("--config", config('"a\\nb" = 1')),
    "config-with-a-null-in-a-folder": ("--directory", config('directory = "a\\u0000b"')),
    "config-with-a-bad-peer": ("peer", config("[peer]\nPACS = 'nowhere'")),
    "unknown-option": ("--frobnicate", ["--frobnicate"]),
    "option-without-value": ("--max-pdu", ["--max-pdu"]),
    "a-word-too-many": ("extra", ["extra"]),
}


#: Those of a kind that is found while options are read, which need not all be tried at length.
ALSO_AT_LENGTH = {"title-too-long", "config-with-a-wrong-number", "unknown-option"}


def words_of(name: str, folder: Path) -> list[str]:
    words = UNUSABLE[name][1]
    options = words if isinstance(words, list) else words(folder)
    if "--listen" in options or "listen" in name:
        return options
    # A port of its own, so that one that starts in spite of it disturbs nobody.
    return ["--listen", "tcp:0:interface=127.0.0.1", *options]


def found_while_reading(words: list[str]) -> str | None:
    """The line that the options themselves give, or None."""
    try:
        Options().parseOptions(words)
    except SystemExit as end:
        return str(end.code)
    return None


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_option_ends_start_up_with_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = words_of(name, tmp_path)
    line = found_while_reading(words)
    if line is None or name in ALSO_AT_LENGTH:
        line = refused_start(words, tmp_path)
    assert re.fullmatch(rf"dimse-scp: .*{UNUSABLE[name][0]}.*", line)


def refused_start(options: list[str], folder: Path) -> str:
    """The one line on standard error with which a server does not start."""
    if not {"--database", "--directory", "--handler", "--config"} & set(options):
        options = ["--store-only", *options]  # which starts in half the time
    running = peers.Running(
        peers.TWISTD, "-n", "--pidfile=", "dimse-scp", *options, cwd=folder,
        preexec_fn=without_override if "--directory" in options else None,
        variables=with_modules_in(folder) if "--handler" in options else None,
    )  # fmt: skip
    status = running.wait(60)
    assert status == 1, running.said
    assert "Traceback" not in running.said
    (line,) = running.err
    return line


def with_modules_in(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{folder}{os.pathsep}{peers.ROOT}"}


# --- who may associate


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A node configured by a file, of which the command line overrides some."""
    folder = tmp_path_factory.mktemp("strict")
    (folder / "node.toml").write_text(
        """
        ae_title = "OF-THE-FILE"
        require_called = true
        allow_calling = ["GOOD", "ALSO-GOOD"]
        durability = "commit"
        store_only = true
        max_pdu = 8192
        window = 4
        [peer]
        WORKSTATION = "127.0.0.1:11113"
        """
    )
    words = ["--config", folder / "node.toml", "--ae-title", "NODE", "--max-pdu=32768"]
    with serving(*words, directory=folder / "archive") as server:
        yield server


@pytest.mark.parametrize("calling", ["GOOD", "ALSO-GOOD"])
def test_an_allowed_title_that_calls_the_right_one_is_admitted(
    strict: Server, calling: str
) -> None:
    assert raw.echoes(strict.port, called="NODE", calling=calling)


@pytest.mark.parametrize("called", ["OF-THE-FILE", "TWISTED-DIMSE", "node", "NODE2"])
def test_another_called_title_is_rejected(strict: Server, called: str) -> None:
    assert rejection(strict.port, called=called, calling="GOOD") == (1, 1, 7)


@pytest.mark.parametrize("calling", ["BAD", "good", "GOOD-TOO"])
def test_another_calling_title_is_rejected(strict: Server, calling: str) -> None:
    assert rejection(strict.port, called="NODE", calling=calling) == (1, 1, 3)


def test_a_rejection_is_one_line_of_the_log(strict: Server) -> None:
    since = len(strict.out)
    assert rejection(strict.port, called="NODE", calling="STRANGER") == (1, 1, 3)
    line = strict.wait_for_line("STRANGER", after=since).string
    assert "rejected" in line
    assert "calling AE title" in line


def test_the_command_line_wins_over_the_file(strict: Server) -> None:
    with Client(strict.port) as client:
        client.associate(called="NODE", calling="GOOD")
        assert client.peer_max_length == 32768
        client.release()


def test_the_command_line_wins_where_it_shortens_an_option(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("max_pdu = 8192\nstore_only = true\n")
    options = Options()
    options.parseOptions(["--config", str(tmp_path / "node.toml"), "--max-p", "32768"])
    assert options["max-pdu"] == 32768
    assert options["store-only"]


def test_a_file_of_notepad_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_bytes(b"\xef\xbb\xbfwindow = 3\r\n")
    options = Options()
    options.parseOptions(["--config", str(tmp_path / "node.toml")])
    assert options["window"] == 3


def test_spaces_around_a_peers_title_are_not_of_it() -> None:
    options = Options()
    options.parseOptions(["--peer", " PACS =10.0.0.5:104"])
    assert options["peer"]["PACS"].ae_title == "PACS"


def test_the_file_counts_where_the_command_line_is_silent(strict: Server) -> None:
    with Client(strict.port) as client:
        window = raw.item(0x53, struct.pack(">HH", 8, 2))
        answer = client.associate(called="NODE", calling="GOOD", user_items=window)
        user = dict(raw.items(dict(raw.items(answer[68:]))[0x50]))
        assert struct.unpack(">HH", user[0x53]) == (4, 2)
        client.release()


def test_no_window_is_answered_where_none_was_asked_for(strict: Server) -> None:
    with Client(strict.port) as client:
        answer = client.associate(called="NODE", calling="GOOD")
        assert 0x53 not in dict(raw.items(dict(raw.items(answer[68:]))[0x50]))
        client.release()


# --- how much

LARGEST = 10_000


@pytest.fixture(scope="module")
def limited() -> Iterator[Server]:
    words = ["--max-associations", 2, "--max-instance", LARGEST, "--max-pdu", 4096]
    with serving(*NODE, *words, "--log-format", "json", "--on-duplicate", "reject") as server:
        yield server


def associated(port: int) -> Client:
    """A client with an association. Where the slots are taken, it asks again for some seconds,
    since a server may hear of the end of another one later than of this one."""
    clients: list[Client] = []

    def accepted() -> bool:
        client = Client(port)
        client.send(raw.associate_rq())
        answer = client.read()
        if answer is not None and answer[0] == raw.ASSOCIATE_AC:
            clients.append(client)
            return True
        client.socket.close()
        return False

    peers.wait_until(accepted)
    return clients[0]


def test_associations_beyond_the_limit_are_rejected_for_the_moment(limited: Server) -> None:
    with associated(limited.port), associated(limited.port):
        assert rejection(limited.port) == (2, 3, 2)


@pytest.mark.parametrize("how", ["release", "abort", "close", "reset"])
def test_a_slot_comes_back(limited: Server, how: str) -> None:
    with associated(limited.port) as leaving, associated(limited.port):
        if how == "release":
            leaving.release()
        elif how == "abort":
            leaving.send(raw.pdu(ABORT, bytes(4)))
        elif how == "reset":
            leaving.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaving.socket.close()
        associated(limited.port).release()


def test_a_rejected_peer_that_stays_connected_takes_no_slot(limited: Server) -> None:
    with associated(limited.port) as first, associated(limited.port), Client(limited.port) as third:
        third.send(raw.associate_rq())
        assert third.expect(ASSOCIATE_RJ)
        first.release()
        associated(limited.port).release()


def test_a_connection_without_an_association_takes_no_slot(limited: Server) -> None:
    with Client(limited.port), Client(limited.port), associated(limited.port) as client:
        client.release()


def few_files() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))


def test_a_shells_limit_of_open_files_is_not_that_of_associations() -> None:
    with serving(*NODE, preexec_fn=few_files) as server, ExitStack() as stack:
        for _ in range(80):
            client = stack.enter_context(Client(server.port))
            client.associate()
            client.send(STALLED["in-a-data-set"])
        peers.wait_until(lambda: len(server.partial) == 80)


def test_max_pdu_is_told_to_the_peer(limited: Server) -> None:
    with associated(limited.port) as client:
        client.release()
    with Client(limited.port) as client:
        client.associate()
        assert client.peer_max_length == 4096
        client.release()


def test_an_instance_of_the_largest_size_is_kept(limited: Server) -> None:
    with associated(limited.port) as client:
        uid = new_uid()
        data = dataset(uid, LARGEST - len(dataset(uid)))
        assert len(data) == LARGEST
        client.send_message(3, raw.store_rq(uid), data, 4096)
        assert client.message().status == 0
        client.release()
    assert [path.stem for path in limited.stored if path.stem == uid] == [uid]


def test_a_larger_instance_is_answered_after_its_last_fragment(limited: Server) -> None:
    with associated(limited.port) as client:
        uid = new_uid()
        data = dataset(uid, LARGEST)
        client.send(raw.p_data((3, COMMAND | LAST, raw.store_rq(uid))))
        for at in range(0, len(data), 4000):
            client.send(raw.p_data((3, 0, data[at : at + 4000])))
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.read()
        client.socket.settimeout(raw.SECONDS)
        client.send(raw.p_data((3, LAST, b"")))
        response = client.message()
        assert response.status == 0xA700
        assert str(LARGEST) in response.comment
        assert client.echo(2) == 0
        client.release()
    assert uid not in [path.stem for path in limited.stored]
    assert limited.partial == []


def test_each_json_line_of_the_log_parses(limited: Server) -> None:
    since = len(limited.out)
    associated(limited.port).release()
    limited.wait_for_line("released", after=since)
    lines = [json.loads(line) for line in limited.out]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert any("listens at 127.0.0.1" in line["message"] for line in lines)
    ended = [line for line in lines if "released" in line["message"]][-1]
    assert ended["level"] == "info"
    assert ended["calling"] == "RAW"


# --- what is done with instances


@pytest.mark.parametrize(
    ("rule", "status", "kept"), [("replace", 0, 2), ("keep", 0, 1), ("reject", 0x0111, 1)]
)
def test_a_second_instance_of_the_same_uid(rule: str, status: int, kept: int) -> None:
    with serving(*NODE, "--on-duplicate", rule) as server, Client(server.port) as client:
        client.associate()
        uid = new_uid()
        first, second = dataset(uid, 100), dataset(uid, 200)
        assert client.store(uid, first).status == 0
        assert client.store(uid, second).status == status
        client.release()
        (path,) = server.stored
        assert path.read_bytes().endswith((first, second)[kept - 1])
        assert server.partial == []


def test_a_first_reject_leaves_others_alone(limited: Server) -> None:
    with associated(limited.port) as client:
        one, other = new_uid(), new_uid()
        assert client.store(one, message_id=1).status == 0
        assert client.store(one, message_id=2).status == 0x0111
        assert client.store(other, message_id=3).status == 0
        client.release()


#: twistd with an fsync that takes its time and tells what it was for.
SLOW_FSYNC = """
import os, time
real = os.fsync
def fsync(descriptor):
    print("fsync", os.readlink(f"/proc/self/fd/{descriptor}"), flush=True)
    time.sleep(0.1)
    real(descriptor)
os.fsync = os.fdatasync = fsync
from twisted.scripts.twistd import run
run()
"""


def stored_with(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], float]:
    """What was fsynced for the first instance of a study, and the seconds until its response."""
    monkeypatch.setattr(peers, "TWISTD", [sys.executable, "-c", SLOW_FSYNC])
    with serving(*words) as server:
        since = len(server.out)
        with Client(server.port) as client:
            client.associate()
            begun = time.monotonic()
            assert client.store(new_uid()).status == 0
            seconds = time.monotonic() - begun
            client.release()
        server.wait_for_line("released", after=since)
        lines = server.out[since:]
        synced = [found[1] for line in lines if (found := re.search(r"fsync (\S+)$", line))]
        return [os.path.relpath(path, server.directory) for path in synced], seconds


@pytest.mark.parametrize("mode", [[], ["--store-only"]], ids=["archive", "store-only"])
def test_sync_answers_when_octets_and_folders_are_on_the_disk(
    mode: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, seconds = stored_with(mode, monkeypatch)
    places = [path.split("/")[0] for path in synced]
    assert places[0] == "incoming", "the octets come first, before there is a final name"
    assert {"instances/1.2.3/1.2.3.4", "instances/1.2.3", "instances"} <= set(synced)
    records = [place for place in places if place not in ("incoming", "instances")]
    assert bool(records) == (not mode), "an archive also records that the instance exists"
    assert seconds >= 0.1 * len([path for path in synced if path.startswith("in")])


@pytest.mark.parametrize("mode", [[], ["--store-only"]], ids=["archive", "store-only"])
def test_commit_waits_for_no_disk(mode: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    synced, _ = stored_with([*mode, "--durability", "commit"], monkeypatch)
    assert synced == []


def test_a_handler_of_ones_own_serves_instead_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / "somebodys.py").write_text(
        "from twisted_dimse import Handler\n"
        "class Nodes:\n"
        "    class Strange(Handler):\n"
        "        def store(self, request, dataset):\n"
        "            print('PIXELS', len(dataset.PixelData), flush=True)\n"
        "            return 0xB000\n"
    )
    own = with_modules_in(tmp_path)
    with serving("--handler", "somebodys:Nodes.Strange", variables=own) as server:
        with Client(server.port) as client:
            client.associate()
            uid = new_uid()
            assert client.store(uid, dataset(uid, 64)).status == 0xB000
            client.release()
        server.wait_for_line("PIXELS 64")
        assert not server.directory.exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_was_made_at_the_start_is_not_looked_at_for_garbage(
    tmp_path: Path, workers: str
) -> None:
    """It is some hundred thousand objects, and each look a pause for all associations."""
    (tmp_path / "looking.py").write_text(
        "import gc\n"
        "from twisted_dimse import Handler\n"
        "class Looking(Handler):\n"
        "    def echo(self, request):\n"
        "        few = len(gc.get_objects()) < gc.get_freeze_count() / 5\n"
        "        return 0 if few else 0x0110\n"
    )
    own = with_modules_in(tmp_path)
    options = ["--handler", "looking:Looking", "--workers", workers]
    with serving(*options, variables=own) as server:
        assert raw.echoes(server.port)


def test_a_second_server_without_an_index_is_refused_with_one_line_too(tmp_path: Path) -> None:
    with serving("--store-only", directory=tmp_path / "archive") as server:
        for mode in ([], ["--store-only"]):
            second = Server(*mode, directory=server.directory)
            assert second.wait() == 1
            [line] = second.err
            assert line.startswith("dimse-scp: --directory")
            assert "another process is using this folder" in line


def test_what_an_earlier_run_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "archive" / "incoming").mkdir(parents=True)
    (tmp_path / "archive" / "incoming" / "7-1.part").write_bytes(b"half")
    with serving(*NODE, directory=tmp_path / "archive") as server:
        assert server.partial == []
        server.wait_for_line("removed 1 unfinished")


def test_it_listens_at_each_endpoint(tmp_path: Path) -> None:
    words = ["--listen", "tcp:0:interface=127.0.0.1", "--listen", f"unix:{tmp_path}/socket"]
    with serving(*NODE, *words) as server:
        server.wait_for_line(f"listens at {tmp_path}/socket")
        assert raw.echoes(server.port)
        with socket.socket(socket.AF_UNIX) as connected:
            connected.connect(f"{tmp_path}/socket")
            with raw.Connection(connected) as client:
                client.send(raw.associate_rq())
                client.expect(raw.ASSOCIATE_AC)
                client.send_message(1, raw.echo_rq())
                assert client.message().status == 0


@pytest.mark.parametrize("words", [(), ("--store-only",)], ids=["archive", "store-only"])
@pytest.mark.parametrize("promiscuous", [True, False])
def test_private_sop_classes_are_stored_where_that_is_asked_for(
    words: tuple[str, ...], promiscuous: bool
) -> None:
    private, unified_step = "1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.34.6.1"
    explicit = "1.2.840.10008.1.2.1"
    contexts = [
        (1, private, [explicit]),
        (3, unified_step, [explicit]),
        (5, raw.VERIFICATION, [explicit]),
    ]
    options = ["--promiscuous"] if promiscuous else []
    with serving(*words, *options) as server, Client(server.port) as client:
        answer = client.associate(contexts)
        assert set(raw.accepted_contexts(answer)) == ({1, 5} if promiscuous else {5})
        if promiscuous:
            uid = new_uid()
            client.send_message(1, raw.store_rq(uid, 1, private), dataset(uid, sop_class=private))
            assert client.message().status == 0
            client.release()
            assert [path.stem for path in server.stored] == [uid]


def test_it_is_reached_by_ipv6() -> None:
    words = ["--listen", "tcp:0:interface=127.0.0.1", "--listen", "tcp:0:interface=\\:\\:1"]
    with serving(*NODE, *words) as server:
        port = server.wait_for_line(r"listens at \[::1\]:(\d+)")[1]
        peers.dimse("echo", f"ANY-SCP@[::1]:{port}").succeeded()


#: Opens a port, hands it on as systemd does, and becomes the program named behind it.
SYSTEMD = """
import os, socket, sys
opened = socket.create_server(("127.0.0.1", 0))
os.dup2(opened.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="dicom")
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("around", ["", "haproxy:"], ids=["plain", "behind-a-balancer"])
@pytest.mark.parametrize("workers", [1, 2])
def test_it_takes_a_port_that_systemd_opened(
    monkeypatch: pytest.MonkeyPatch, around: str, workers: int
) -> None:
    monkeypatch.setattr(peers, "TWISTD", [sys.executable, "-c", SYSTEMD, *peers.TWISTD])
    listen = ["--listen", f"{around}systemd:domain=INET:name=dicom"]
    with serving(*NODE, *listen, "--workers", workers) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connected:
            if around:
                connected.sendall(b"PROXY TCP4 10.0.0.7 10.0.0.1 1104 104\r\n")
            with raw.Connection(connected) as client:
                client.send(raw.associate_rq())
                client.expect(raw.ASSOCIATE_AC)
                client.send_message(1, raw.echo_rq())
                assert client.message().status == 0
        server.wait_for_line(" at 10.0.0.7 to " if around else " at 127.0.0.1 to ")


def test_the_log_tells_nothing_of_a_patient() -> None:
    with serving(*NODE) as server, Client(server.port) as client:
        client.associate()
        uid = new_uid()
        name = struct.pack("<HH2sH", 0x0010, 0x0010, b"PN", 12) + b"SECRET^NAME "
        data = dataset(uid)
        at = data.index(struct.pack("<HH", 0x0020, 0x000D))
        assert client.store(uid, data[:at] + name + data[at:]).status == 0
        assert client.store("nonsense", data[:at] + name + data[at:]).status == 0x0117
        client.release()
        server.wait_for_line("released")
        assert server.stored[0].read_bytes().count(b"SECRET^NAME") == 1
        assert "SECRET" not in server.said


# --- how long: that the options are heeded; tests/test_association.py has what counts as what

ARTIM, IDLE, DIMSE = 0.4, 1.2, 0.6


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    words = ["--artim", ARTIM, "--idle-timeout", IDLE, "--dimse-timeout", DIMSE]
    with serving(*NODE, *words) as server:
        yield server


def aborted_after(client: Client, begun: float) -> float:
    """The seconds until the server's A-ABORT, which is the next that it sends."""
    client.expect(ABORT)
    return time.monotonic() - begun


@pytest.mark.parametrize("sent", [b"", b"\x01", b"\x01\0\0\0\1\0", raw.associate_rq()[:60]])
def test_a_connection_without_an_association_request_is_closed_after_artim(
    impatient: Server, sent: bytes
) -> None:
    since = len(impatient.out)
    begun = time.monotonic()
    with Client(impatient.port) as client:
        client.send(sent)
        assert client.read() is None
        seconds = time.monotonic() - begun
    assert ARTIM <= seconds < ARTIM + 2
    impatient.wait_for_line("no A-ASSOCIATE-RQ within 0.4 s", after=since)


def test_an_idle_association_is_aborted(impatient: Server) -> None:
    since = len(impatient.out)
    with Client(impatient.port) as client:
        client.associate()
        assert client.echo() == 0
        seconds = aborted_after(client, time.monotonic())
    assert IDLE - 0.1 <= seconds < IDLE + 2
    impatient.wait_for_line("nothing happened for 1.2 s", after=since)


STALLED = {
    "in-a-header": raw.p_data((3, COMMAND | LAST, raw.store_rq("1.2.3")))[:4],
    "in-a-data-set": raw.p_data((3, COMMAND | LAST, raw.store_rq("1.2.3")))
    + raw.p_data((3, 0, dataset("1.2.3", 100))),
}


@pytest.mark.parametrize("where", STALLED)
def test_a_message_that_stands_still_is_aborted(impatient: Server, where: str) -> None:
    since = len(impatient.out)
    with Client(impatient.port) as client:
        client.associate()
        client.send(STALLED[where])
        seconds = aborted_after(client, time.monotonic())
    assert DIMSE - 0.1 <= seconds < DIMSE + 2
    impatient.wait_for_line("a message did not go on for 0.6 s", after=since)
    assert impatient.partial == []
    assert impatient.stored == []


# --- the end


def is_termination(status: int) -> bool:
    """Whether a shell would show 143."""
    return status in (128 + signal.SIGTERM, -signal.SIGTERM)


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def begun(*options: Any, folder: Path) -> Server:
    return Server(*NODE, *options, directory=folder / "archive").started()


def test_sigterm_ends_a_server_with_nothing_to_do_at_once(tmp_path: Path) -> None:
    server = begun(folder=tmp_path)
    since = time.monotonic()
    assert is_termination(server.stop())
    assert time.monotonic() - since < 5
    assert "Traceback" not in server.said
    assert server.err == []


def test_sigterm_lets_a_running_association_end(tmp_path: Path) -> None:
    server = begun(folder=tmp_path)
    try:
        with Client(server.port) as client:
            client.associate()
            uid = new_uid()
            data = dataset(uid, 1000)
            client.send(raw.p_data((3, COMMAND | LAST, raw.store_rq(uid)), (3, 0, data[:500])))
            server.signal(signal.SIGTERM)
            peers.wait_until(lambda: refuses(server.port))
            server.wait_for_line(r"waiting up to 30 s for \d associations?")
            client.send(raw.p_data((3, LAST, data[500:])))
            assert client.message().status == 0
            assert client.echo(2) == 0
            client.release()
        assert is_termination(server.wait(5))
        assert len(server.stored) == 1
        assert "Traceback" not in server.said
    finally:
        server.kill()


def test_the_status_page_stays_until_the_last_association_has_ended(tmp_path: Path) -> None:
    server = begun("--http", "tcp:0:interface=127.0.0.1", folder=tmp_path)
    try:
        page = int(server.wait_for_line(r"the status page listens at 127\.0\.0\.1:(\d+)")[1])
        with Client(server.port) as client:
            client.associate()
            server.signal(signal.SIGTERM)
            peers.wait_until(lambda: refuses(server.port))
            assert http_status(page, "healthz") == 200
            assert http_status(page, "readyz") == 503
            assert http_status(page, "metrics") == 200
            client.release()
        assert is_termination(server.wait(5))
        assert refuses(page)
    finally:
        server.kill()


def http_status(port: int, path: str) -> int:
    with socket.create_connection(("127.0.0.1", port), raw.SECONDS) as connected:
        connected.sendall(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
        return int(connected.makefile("rb").readline().split()[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_further_signal_changes_nothing(tmp_path: Path, number: int) -> None:
    server = begun(folder=tmp_path)
    try:
        with Client(server.port) as client:
            client.associate()
            server.signal(signal.SIGTERM)
            server.wait_for_line("waiting up to 30 s for 1 association to end")
            server.signal(number)
            server.wait_for_line("it ends already")
            assert client.echo() == 0
            client.release()
        assert is_termination(server.wait(5))
        assert "Traceback" not in server.said
    finally:
        server.kill()


@pytest.mark.parametrize("seconds", [0, 0.4])
def test_what_has_not_ended_after_the_drain_timeout_is_aborted(
    tmp_path: Path, seconds: float
) -> None:
    server = begun("--drain-timeout", seconds, folder=tmp_path)
    try:
        with Client(server.port) as client:
            client.associate()
            client.send(raw.p_data((3, COMMAND | LAST, raw.store_rq("1.2.3"))))
            client.send(raw.p_data((3, 0, dataset("1.2.3", 100))))
            assert client.peer_max_length == 262144
            since = time.monotonic()
            server.signal(signal.SIGTERM)
            took = aborted_after(client, since)
        assert seconds <= took < seconds + 2
        assert is_termination(server.wait(5))
        assert server.stored == []
        assert server.partial == []
        assert "Traceback" not in server.said
    finally:
        server.kill()


def test_a_peer_that_does_not_close_holds_nobody_up(tmp_path: Path) -> None:
    server = begun("--drain-timeout", 0.2, folder=tmp_path)
    try:
        with Client(server.port) as client:
            client.associate()
            server.signal(signal.SIGTERM)
            client.expect(ABORT)
            assert is_termination(server.wait(5))
    finally:
        server.kill()


def test_a_connection_without_an_association_is_not_waited_for(tmp_path: Path) -> None:
    server = begun(folder=tmp_path)
    try:
        with Client(server.port) as silent, Client(server.port) as over:
            over.associate()
            over.send(raw.pdu(raw.RELEASE_RQ, bytes(4)))
            over.expect(raw.RELEASE_RP)
            server.signal(signal.SIGTERM)
            assert silent.is_closed()
            assert is_termination(server.wait(5))
    finally:
        server.kill()


def test_sigint_drains_too(tmp_path: Path) -> None:
    server = begun("--drain-timeout", 0.2, folder=tmp_path)
    try:
        with Client(server.port) as client:
            client.associate()
            server.signal(signal.SIGINT)
            client.expect(ABORT)
        assert server.wait(5) in (-signal.SIGINT, 128 + signal.SIGINT, 0)
        assert "Traceback" not in server.said
    finally:
        server.kill()
