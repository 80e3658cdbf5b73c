"""TLS with Orthanc in both directions, where it asks for client certificates and where not."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers
import pytest
from certificates import Pair, Papers
from pydicom.data import get_testdata_file

pytestmark = pytest.mark.interop

IMAGE = str(get_testdata_file("CT_small.dcm"))


class Orthanc:
    """Orthanc with TLS, which knows our node. With ``asks`` it wants client certificates."""

    def __init__(self, papers: Papers, node: peers.Server, folder: Path, asks: bool) -> None:
        self.papers, self.asks = papers, asks
        self.port, self.http = peers.free_port(), peers.free_port()
        self.configuration = folder / "orthanc.json"
        ours = {"AET": "TWISTED-DIMSE", "Host": "127.0.0.1", "Port": node.port, "UseDicomTls": True}
        settings = {
            **peers.orthanc_settings(folder, self.port, self.http),
            "DicomAet": "ORTHANC",
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowEcho": True,
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(papers.peer.cert),
            "DicomTlsPrivateKey": str(papers.peer.key),
            "DicomTlsTrustedCertificates": str(papers.authority.cert),
            "DicomTlsRemoteCertificateRequired": asks,
            "DicomModalities": {"ours": ours},
        }
        self.configuration.write_text(json.dumps(settings))

    def rest(self, path: str, data: bytes | None = None) -> Any:
        asked = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data=data)
        with urllib.request.urlopen(asked, timeout=peers.SECONDS) as answer:
            return json.loads(answer.read() or b"null")

    def peer(self, pair: Pair | None) -> str:
        own = f":{pair.words}" if pair else ""
        return f"ORTHANC@dicomtls:127.0.0.1:{self.port}:ca={self.papers.authority.cert}{own}"


@pytest.fixture(scope="module", params=[True, False], ids=["asks", "does-not-ask"])
def orthanc(
    request: pytest.FixtureRequest,
    papers: Papers,
    mutual_node: peers.Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Orthanc]:
    program = peers.program("Orthanc")
    made = Orthanc(papers, mutual_node, tmp_path_factory.mktemp("orthanc"), request.param)
    with peers.listening([program], made.configuration, port=made.http, tls=True):
        yield made


def test_dimse_stores_with_a_certificate(orthanc: Orthanc, papers: Papers) -> None:
    peers.dimse("store", orthanc.peer(papers.node), IMAGE).succeeded()
    assert len(orthanc.rest("/instances")) == 1


def test_dimse_without_a_certificate(orthanc: Orthanc) -> None:
    done = peers.dimse("echo", orthanc.peer(None))
    assert done.status == (3 if orthanc.asks else 0), done.said


def test_dimse_with_a_certificate_of_a_strange_authority(orthanc: Orthanc, papers: Papers) -> None:
    done = peers.dimse("echo", orthanc.peer(papers.strange))
    assert done.status == 3, done.said


def test_it_stores_with_us(orthanc: Orthanc, mutual_node: peers.Server) -> None:
    """It shows its certificate, which our node demands."""
    mutual_node.empty()
    orthanc.rest("/instances", Path(IMAGE).read_bytes())
    orthanc.rest("/modalities/ours/echo", b"{}")
    (instance,) = orthanc.rest("/instances")
    orthanc.rest("/modalities/ours/store", instance.encode())
    assert len(mutual_node.stored) == 1


def test_it_does_not_talk_to_whom_it_does_not_trust(orthanc: Orthanc, papers: Papers) -> None:
    endpoint = f"dicomtls:0:{papers.strange.words}:interface=127.0.0.1"
    with peers.serving("--store-only", "--listen", endpoint) as stranger:
        modality = {"AET": "X", "Host": "127.0.0.1", "Port": stranger.port, "UseDicomTls": True}
        url = f"http://127.0.0.1:{orthanc.http}/modalities/stranger"
        put = urllib.request.Request(url, json.dumps(modality).encode(), method="PUT")
        with urllib.request.urlopen(put, timeout=peers.SECONDS):
            pass
        with pytest.raises(urllib.error.HTTPError):
            orthanc.rest("/modalities/stranger/echo", b"{}")
