"""Certificates, and a node of ours that asks for one, for the peers that speak TLS."""

from __future__ import annotations

from collections.abc import Iterator

import peers
import pytest
from certificates import Papers


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers.made_in(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module")
def mutual_node(papers: Papers) -> Iterator[peers.Server]:
    """Takes those with a certificate of our authority."""
    words = f"{papers.node.words}:ca={papers.authority.cert}"
    endpoint = f"dicomtls:0:{words}:interface=127.0.0.1"
    with peers.serving("--store-only", "--listen", endpoint) as server:
        yield server
