"""``twistd dimse-scp`` and ``dimse`` over TLS, as they are run."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import peers
import pytest
import raw
from certificates import Authority, Pair
from pydicom.data import get_testdata_file

from twisted_dimse.cli import main


@dataclass
class Nodes:
    """One server with an endpoint of each kind, the ports of these, and what makes certificates."""

    server: peers.Server
    ports: dict[str, int]
    authority: Authority
    client: Pair

    def secure(self, which: str) -> list[str | Path]:
        """A peer and the options by which it is trusted."""
        return [f"ANY-SCP@127.0.0.1:{self.ports[which]}", "--tls", "--ca", self.authority.cert]

    @property
    def identity(self) -> list[str | Path]:
        return ["--cert", self.client.cert, "--key", self.client.key]

    def connect(self, which: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports[which]), raw.SECONDS)

    def logged(self, since: int, said: str, *, count: int = 1) -> list[str]:
        """The lines about associations from line ``since`` of the log on that say so, when they
        are there; the last words on associations of earlier tests may come between them."""

        def lines() -> list[str]:
            about = [line for line in self.server.out[since:] if "association " in line]
            return [line for line in about if said in line]

        peers.wait_until(lambda: len(lines()) >= count, within=raw.SECONDS)
        return lines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def nodes(folder: Path) -> Iterator[Nodes]:
    authority = Authority(folder)
    server = authority.issue("server", "127.0.0.1", "localhost")
    changing = Pair(folder / "changing.pem", folder / "changing.key")
    shutil.copy(server.cert, changing.cert)
    shutil.copy(server.key, changing.key)
    expired = authority.issue("expired", "127.0.0.1", begins=timedelta(-3), ends=timedelta(-2))
    endpoints = {
        "plain": "tcp:0",
        "tls": f"dicomtls:0:{server.words}",
        "mutual": f"dicomtls:0:{server.words}:ca={authority.cert}",
        "optional": f"dicomtls:0:{server.words}:ca={authority.cert}:verify=optional",
        "changing": f"dicomtls:0:{changing.words}",
        "expired": f"dicomtls:0:{expired.words}",
        "stock": f"ssl:0:privateKey={server.key}:certKey={server.cert}",
        "balanced": f"haproxy:dicomtls:0:{server.words}:ca={authority.cert}",
    }
    options = ["--store-only", "--artim", "2"]
    for endpoint in endpoints.values():
        options += ["--listen", f"{endpoint}:interface=127.0.0.1"]
    with peers.serving(*options) as running:
        running.wait_for_line("listens at", after=0)

        def ports() -> list[str]:
            return re.findall(r"listens at 127.0.0.1:(\d+)", "\n".join(running.out))

        peers.wait_until(lambda: len(ports()) == len(endpoints), within=peers.SECONDS)
        named = dict(zip(endpoints, map(int, ports()), strict=True))
        yield Nodes(running, named, authority, authority.issue("modality"))


class Client(raw.Client):
    """A requestor on a connection that is there already."""

    def __init__(self, connected: socket.socket) -> None:
        raw.Connection.__init__(self, connected)
        self.peer_max_length = 0


# --- dimse


def test_an_echo_over_tls(nodes: Nodes) -> None:
    done = peers.dimse("echo", *nodes.secure("tls"), "--json").succeeded()
    assert json.loads(done.out)["status"] == 0
    assert done.err == ""


def test_images_over_mutual_tls_come_as_they_were_sent(nodes: Nodes) -> None:
    image = str(get_testdata_file("CT_small.dcm"))
    done = peers.dimse("store", *nodes.secure("mutual"), *nodes.identity, image, "--json")
    assert json.loads(done.succeeded().out.splitlines()[-1])["sent"] == 1
    (stored,) = nodes.server.stored
    assert stored.read_bytes()[-10000:] == Path(image).read_bytes()[-10000:]


@pytest.mark.parametrize("which", ["tls", "optional"])
def test_whoever_answers_is_taken_with_insecure(nodes: Nodes, which: str) -> None:
    peer = f"ANY-SCP@127.0.0.1:{nodes.ports[which]}"
    peers.dimse("echo", peer, "--tls", "--insecure").succeeded()


def test_a_peer_of_the_configuration_may_be_an_endpoint(nodes: Nodes, tmp_path: Path) -> None:
    configuration = tmp_path / "dimse.toml"
    words = f"ca={nodes.authority.cert}:{nodes.client.words}:hostname=localhost"
    address = f"ANY-SCP@dicomtls:127.0.0.1:{nodes.ports['mutual']}:{words}"
    configuration.write_text(f'[peers]\npacs = "{address}"\n')
    peers.dimse("echo", "pacs", "--config", configuration).succeeded()


@pytest.mark.parametrize(
    ("which", "words", "said"),
    [
        ("tls", ["--tls"], "comes from CN=Test CA, which we do not trust. Give --ca FILE"),
        ("expired", ["--tls", "--ca", "CA"], "its certificate (CN=expired) expired on "),
        ("mutual", ["--tls", "--ca", "CA"], "it asks for a certificate of ours. Give --cert FILE"),
        ("plain", ["--tls", "--ca", "CA"], "it speaks plain DICOM on this port. Ask without TLS"),
        ("tls", [], "it speaks TLS on this port. Say --tls"),
    ],
)
def test_what_fails_is_one_line_and_status_3(
    nodes: Nodes, which: str, words: list[str], said: str
) -> None:
    words = [str(nodes.authority.cert) if word == "CA" else word for word in words]
    peer = f"ANY-SCP@127.0.0.1:{nodes.ports[which]}"
    done = peers.dimse("echo", peer, *words, "--json")
    assert done.status == 3
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert done.err.startswith("dimse: no connection to ANY-SCP@")
    assert said in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["P@h:1", "--insecure"], "--insecure goes with --tls."),
        (["P@h:1", "--ca", "x"], "--ca goes with --tls."),
        (["P@h:1", "--tls", "--ca", "/no/ca"], "--ca /no/ca: No such file or directory."),
        (["P@h:1", "--tls", "--crl", "/no/c"], "--crl /no/c: No such file or directory."),
        (["P@h:1", "--tls", "--cert", "/no/c"], "--cert /no/c: No such file or directory."),
        (["P@unix:/x", "--tls"], "--tls goes with a peer given by host and port, not with unix:/x"),
        (["P@dicomtls:h:1:a=b"], "a=b: no such word; there are hostname, ca, cert, key,"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["echo", *words])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err


def test_dimse_listen_takes_tls(nodes: Nodes, tmp_path: Path) -> None:
    server = nodes.authority.issue("listen", "127.0.0.1")
    port = peers.free_port()
    endpoint = f"dicomtls:{port}:{server.words}:interface=127.0.0.1"
    listening = peers.Running(peers.DIMSE, "listen", endpoint, "--ignore", cwd=tmp_path)
    try:
        listening.wait_for_line("listens at")
        where = f"ANY@127.0.0.1:{port}"
        peers.dimse("echo", where, "--tls", "--ca", nodes.authority.cert).succeeded()
    finally:
        listening.kill()


# --- twistd dimse-scp


def test_an_archive_moves_to_one_who_asks_for_its_certificate(nodes: Nodes, tmp_path: Path) -> None:
    image = str(get_testdata_file("CT_small.dcm"))
    study = "StudyInstanceUID=1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
    workstation = nodes.authority.issue("workstation", "127.0.0.1")
    trusted = f"ca={nodes.authority.cert}"
    port = peers.free_port()
    endpoint = f"dicomtls:{port}:{workstation.words}:{trusted}:interface=127.0.0.1"
    listening = peers.Running(peers.DIMSE, "listen", endpoint, "-od", tmp_path / "moved")
    destination = f"WS=dicomtls:127.0.0.1:{port}:{trusted}:{nodes.client.words}"
    try:
        listening.wait_for_line("listens at")
        with peers.serving("--peer", destination) as archive:
            peers.dimse("store", archive.peer, image).succeeded()
            peers.dimse("move", archive.peer, "-k", study, "--to", "WS").succeeded()
    finally:
        listening.kill()
    (moved,) = (tmp_path / "moved").rglob("*.dcm")
    assert moved.read_bytes()[-10000:] == Path(image).read_bytes()[-10000:]


def test_twisted_s_own_endpoint_for_tls_works_and_fails_in_words(nodes: Nodes) -> None:
    peers.dimse("echo", *nodes.secure("stock")).succeeded()
    since = len(nodes.server.out)
    with nodes.connect("stock") as connected:
        connected.sendall(raw.associate_rq())
        while _received(connected):
            pass
    (line,) = nodes.logged(since, "no TLS on a port for it")
    assert line.endswith("nobody at 127.0.0.1: no TLS on a port for it")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (":PAIR:colour=red", "colour=red: no such word; there are key, cert, ca, verify, profile"),
        (":LOCKED", "the key is encrypted; take the passphrase off"),
    ],
)
def test_an_endpoint_that_cannot_be_used_ends_the_start_with_one_line(
    tmp_path: Path, words: str, said: str
) -> None:
    authority = Authority(tmp_path)
    words = words.replace("PAIR", authority.issue("node", "localhost").words)
    words = words.replace("LOCKED", authority.issue("locked", passphrase=b"secret").words)
    options = ["-n", "--pidfile=", "dimse-scp", "--directory", tmp_path / "archive"]
    done = peers.run(peers.TWISTD, *options, "--listen", f"dicomtls:0{words}")
    assert done.status == 1
    assert done.err.startswith("dimse-scp: --listen dicomtls:0")
    assert done.err.count("\n") == 1
    assert said in done.err


@pytest.mark.parametrize(
    ("which", "words", "said"),
    [
        ("tls", raw.associate_rq(), "nobody at 127.0.0.1: plain DICOM on a port for TLS"),
        ("tls", b"GET / HTTP/1.1\r\n\r\n", "nobody at 127.0.0.1: HTTP on a port for TLS"),
        ("plain", b"\x16\x03\x01\x02\x00", "nobody at 127.0.0.1: TLS on a port for plain DICOM"),
        ("plain", b"GET / HTTP/1.1\r\n\r\n", "nobody at 127.0.0.1: HTTP on a port for DICOM"),
    ],
    ids=["DICOM-on-TLS", "HTTP-on-TLS", "TLS-on-plain", "HTTP-on-plain"],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_peer_that_speaks_something_else_is_one_line_and_closed_at_once(
    nodes: Nodes, which: str, words: bytes, said: str, size: int
) -> None:
    since = len(nodes.server.out)
    begun = time.monotonic()
    with nodes.connect(which) as connected:
        connected.settimeout(1)
        connected.sendall(words[:size])
        while _received(connected):
            pass
    assert time.monotonic() - begun < 1
    (line,) = nodes.logged(since, said)
    assert line.endswith(said)


def _received(connected: socket.socket) -> bytes:
    try:
        return connected.recv(1000)
    except ConnectionResetError:
        return b""


def test_silent_peers_stop_nobody_and_are_closed_by_artim(nodes: Nodes) -> None:
    since = len(nodes.server.out)
    silent = 20
    with ExitStack() as stack:
        sockets = [stack.enter_context(nodes.connect("tls")) for _ in range(silent)]
        for half in sockets[::2]:
            half.sendall(b"\x16\x03\x01")
        begun = time.monotonic()
        with tls(nodes).wrap_socket(nodes.connect("tls"), server_hostname="localhost") as secured:
            client = Client(secured)
            client.associate()
            assert client.echo() == 0
        assert time.monotonic() - begun < 1
        for one in sockets:
            one.settimeout(raw.SECONDS)
            assert _received(one) == b""
    assert len(nodes.logged(since, "no TLS handshake within 2 s", count=silent)) == silent


def tls(nodes: Nodes, *, identity: bool = False) -> ssl.SSLContext:
    """Python's own TLS, which trusts our authority."""
    context = ssl.create_default_context(cafile=str(nodes.authority.cert))
    if identity:
        context.load_cert_chain(nodes.client.cert, nodes.client.key)
    return context


def test_new_certificates_are_taken_up_without_a_restart(nodes: Nodes, folder: Path) -> None:
    def common_name() -> str:
        connected = nodes.connect("changing")
        with tls(nodes).wrap_socket(connected, server_hostname="localhost") as secured:
            certificate = secured.getpeercert()
        assert certificate is not None
        return dict(pair[0] for pair in certificate["subject"])["commonName"]

    assert common_name() == "server"
    renewed = nodes.authority.issue("renewed", "localhost")
    shutil.copy(renewed.key, folder / "changing.key")
    assert common_name() == "server"  # the certificate is still to come
    shutil.copy(renewed.cert, folder / "changing.pem")
    assert common_name() == "renewed"
    nodes.server.wait_for_line("changing.key: not the key of the certificate in .* stay in use")
    nodes.server.wait_for_line("new certificates taken up from .*changing.pem")


def test_behind_a_balancer_the_header_goes_before_tls(nodes: Nodes) -> None:
    since = len(nodes.server.out)
    connected = nodes.connect("balanced")
    connected.sendall(b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 2762\r\n")
    context = tls(nodes, identity=True)
    with context.wrap_socket(connected, server_hostname="localhost") as secured:
        client = Client(secured)
        client.associate()
        assert client.echo() == 0
        client.release()
    assert nodes.logged(since, "RAW at 192.0.2.7 to ANY-SCP: released")
