"""TLS with DCMTK in both directions, with client certificates and without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import peers
import pytest
from certificates import Pair, Papers
from pydicom.data import get_testdata_file

from twisted_dimse.tls.profiles import PROFILES

pytestmark = pytest.mark.interop

IMAGE = str(get_testdata_file("CT_small.dcm"))


def trust(papers: Papers) -> list[str | Path]:
    """A DCMTK program trusts our authority."""
    return ["+cf", papers.authority.cert]


def own(pair: Pair) -> list[str | Path]:
    """A DCMTK program has this certificate."""
    return ["+tls", pair.key, pair.cert]


# --- DCMTK calls us


@pytest.fixture(scope="module")
def open_node(papers: Papers) -> Iterator[peers.Server]:
    """Takes anybody who speaks TLS."""
    endpoint = f"dicomtls:0:{papers.node.words}:interface=127.0.0.1"
    with peers.serving("--store-only", "--listen", endpoint) as server:
        yield server


def test_echoscu_without_a_certificate(papers: Papers, open_node: peers.Server) -> None:
    echoscu = peers.dcmtk("echoscu")
    peers.run(echoscu, "+tla", *trust(papers), "127.0.0.1", open_node.port).succeeded()


def test_echoscu_with_a_certificate(papers: Papers, mutual_node: peers.Server) -> None:
    words = [*own(papers.peer), *trust(papers)]
    peers.run(peers.dcmtk("echoscu"), *words, "127.0.0.1", mutual_node.port).succeeded()


def test_storescu_with_a_certificate(papers: Papers, mutual_node: peers.Server) -> None:
    words = [*own(papers.peer), *trust(papers)]
    port = mutual_node.port
    peers.run(peers.dcmtk("storescu"), *words, "127.0.0.1", port, IMAGE).succeeded()
    assert len(mutual_node.stored) == 1


def test_echoscu_without_the_certificate_that_is_asked_for(
    papers: Papers, mutual_node: peers.Server
) -> None:
    since = len(mutual_node.out)
    words = ["+tla", *trust(papers), "127.0.0.1", mutual_node.port]
    assert peers.run(peers.dcmtk("echoscu"), *words).status != 0
    mutual_node.wait_for_line("it sent no certificate, and verify=required", after=since)


def test_echoscu_with_a_certificate_of_a_strange_authority(
    papers: Papers, mutual_node: peers.Server
) -> None:
    since = len(mutual_node.out)
    words = [*own(papers.strange), *trust(papers), "127.0.0.1", mutual_node.port]
    assert peers.run(peers.dcmtk("echoscu"), *words).status != 0
    mutual_node.wait_for_line("comes from CN=Strange CA, which we do not trust", after=since)


def test_echoscu_that_does_not_trust_us(papers: Papers, open_node: peers.Server) -> None:
    since = len(open_node.out)
    assert peers.run(peers.dcmtk("echoscu"), "+tla", "127.0.0.1", open_node.port).status != 0
    open_node.wait_for_line("it does not trust the authority of our certificate", after=since)


def test_echoscu_without_tls_at_a_port_for_it(open_node: peers.Server) -> None:
    since = len(open_node.out)
    done = peers.run(peers.dcmtk("echoscu"), "127.0.0.1", open_node.port)
    assert done.status != 0
    assert done.seconds < 5
    open_node.wait_for_line("plain DICOM on a port for TLS", after=since)


def test_echoscu_with_tls_at_a_plain_port(papers: Papers) -> None:
    with peers.serving("--store-only") as server:
        done = peers.run(peers.dcmtk("echoscu"), "+tla", *trust(papers), "127.0.0.1", server.port)
        assert done.status != 0
        server.wait_for_line("TLS on a port for plain DICOM")


# --- we call DCMTK


@contextmanager
def storescp(papers: Papers, folder: Path, *words: str | Path) -> Iterator[str]:
    """DCMTK's receiver over TLS, when it listens; as a peer."""
    port = peers.free_port()
    command = [*peers.dcmtk("storescp"), *own(papers.node), *trust(papers), *words]
    with peers.listening(command, "+xa", "-od", folder, port, port=port, tls=True):
        yield f"STORESCP@127.0.0.1:{port}"


def secure(papers: Papers, pair: Pair | None = None) -> list[str | Path]:
    """The options of ``dimse`` for a peer with TLS."""
    identity: list[str | Path] = ["--cert", pair.cert, "--key", pair.key] if pair else []
    return ["--tls", "--ca", papers.authority.cert, *identity]


def test_dimse_without_a_certificate(papers: Papers, tmp_path: Path) -> None:
    with storescp(papers, tmp_path, "-ic") as peer:
        peers.dimse("echo", peer, *secure(papers)).succeeded()


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_dimse_with_a_certificate(papers: Papers, tmp_path: Path, profile: str) -> None:
    with storescp(papers, tmp_path, profile) as peer:
        peers.dimse("echo", peer, *secure(papers, papers.peer)).succeeded()
        peers.dimse("store", peer, IMAGE, *secure(papers, papers.peer)).succeeded()
        assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("profile", list(PROFILES))
def test_each_profile_of_ours_finds_a_suite_with_dcmtk(
    papers: Papers, tmp_path: Path, profile: str
) -> None:
    words = f"ca={papers.authority.cert}:{papers.peer.words}:profile={profile}"
    with storescp(papers, tmp_path) as peer:
        title, _, where = peer.partition("@")
        peers.dimse("echo", f"{title}@dicomtls:{where}:{words}").succeeded()


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("none", "it asks for a certificate of ours. Give --cert FILE and --key FILE"),
        ("strange", "it does not trust the authority of our certificate"),
    ],
)
def test_dimse_without_the_right_certificate_is_told_why(
    papers: Papers, tmp_path: Path, which: str, said: str
) -> None:
    with storescp(papers, tmp_path) as peer:
        pair = papers.strange if which == "strange" else None
        done = peers.dimse("echo", peer, *secure(papers, pair))
        assert done.status == 3
        assert said in done.err


def test_dimse_does_not_take_dcmtk_for_another_host(papers: Papers, tmp_path: Path) -> None:
    words = f"ca={papers.authority.cert}:{papers.peer.words}:hostname=pacs.example"
    with storescp(papers, tmp_path) as peer:
        title, _, where = peer.partition("@")
        done = peers.dimse("echo", f"{title}@dicomtls:{where}:{words}")
        assert done.status == 3
        assert "is for localhost, 127.0.0.1 and not for pacs.example" in done.err


def test_dimse_with_tls_at_a_plain_port_of_dcmtk(papers: Papers, tmp_path: Path) -> None:
    with peers.dcmtk_storescp(tmp_path) as port:
        done = peers.dimse("echo", f"ANY@127.0.0.1:{port}", *secure(papers))
        assert done.status == 3
        assert "Does it speak TLS on this port?" in done.err


def test_dimse_without_tls_at_a_port_of_dcmtk_for_it(papers: Papers, tmp_path: Path) -> None:
    with storescp(papers, tmp_path, "-ic") as peer:
        done = peers.dimse("echo", peer)
        assert done.status == 3
        assert "Perhaps this port takes TLS" in done.err
