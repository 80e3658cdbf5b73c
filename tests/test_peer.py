"""Where a peer is: each way of writing it, and what cannot be one."""

from __future__ import annotations

from typing import Any

import pytest
from memory import World
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.testing import MemoryReactorClock

from twisted_dimse import Peer, connect
from twisted_dimse.peer import valid_ae_title


@pytest.mark.parametrize(
    ("text", "title", "where"),
    [
        ("PACS@10.0.0.5:104", "PACS", ("10.0.0.5", 104)),
        ("PACS@pacs.example.org:11112", "PACS", ("pacs.example.org", 11112)),
        ("MY PACS@localhost:1", "MY PACS", ("localhost", 1)),
        ("PACS@[::1]:65535", "PACS", ("::1", 65535)),
        ("PACS@[fe80::1%eth0]:104", "PACS", ("fe80::1%eth0", 104)),
        ("SIXTEEN_LETTERS!@a:104", "SIXTEEN_LETTERS!", ("a", 104)),
        ("PACS@tcp:10.0.0.5:104", "PACS", None),
        ("PACS@unix:/run/dicom.sock", "PACS", None),
        ("PACS@dicomtls:10.0.0.5:2762:ca=ca.pem", "PACS", None),
    ],
)
def test_a_peer_is_a_title_and_an_address(text: str, title: str, where: Any) -> None:
    peer = Peer.parse(text)
    assert peer.ae_title == title
    assert peer.host_and_port() == where
    assert peer == Peer(title, text.partition("@")[2])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PACS",
        "10.0.0.5:104",
        "@10.0.0.5:104",
        "PACS@",
        "PACS@10.0.0.5",
        "PACS@10.0.0.5:0",
        "PACS@10.0.0.5:65536",
        "PACS@10.0.0.5:99999",
        "SEVENTEEN LETTERS@10.0.0.5:104",
        "BACK\\SLASH@10.0.0.5:104",
        "UML\xc4UT@10.0.0.5:104",
        "TAB\t@10.0.0.5:104",
        "    @10.0.0.5:104",
    ],
)
def test_what_is_no_peer_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        Peer.parse(text)
    assert str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("PACS@10.0.0.5:104", HostnameEndpoint),
        ("PACS@[::1]:104", HostnameEndpoint),
        ("PACS@tcp:10.0.0.5:104", TCP4ClientEndpoint),
        ("PACS@unix:/run/dicom.sock", UNIXClientEndpoint),
    ],
)
def test_it_gives_an_endpoint(text: str, kind: type) -> None:
    endpoint = Peer.parse(text).endpoint(MemoryReactorClock())
    assert isinstance(endpoint, kind)


@pytest.mark.parametrize(
    "address", ["nothing:here", "tcp:", "tcp:host:port=x", "dicomtls:a:1:colour=red"]
)
def test_a_string_that_is_no_endpoint_is_refused_in_words(address: str) -> None:
    with pytest.raises(ValueError) as caught:
        Peer("PACS", address).endpoint(MemoryReactorClock())
    assert address in str(caught.value)


def test_an_endpoint_may_be_given_as_it_is() -> None:
    reactor = MemoryReactorClock()
    endpoint = TCP4ClientEndpoint(reactor, "10.0.0.5", 104)
    peer = Peer("PACS", endpoint)
    assert peer.endpoint(reactor) is endpoint
    assert peer.host_and_port() is None


def test_an_address_may_not_be_empty() -> None:
    with pytest.raises(ValueError):
        Peer("PACS", "")


def test_a_peer_is_written_as_it_is_read() -> None:
    for text in ("PACS@10.0.0.5:104", "PACS@[::1]:104", "PACS@unix:/run/dicom.sock"):
        assert str(Peer.parse(text)) == text


def test_the_files_of_a_tls_endpoint_are_for_nobody_to_read() -> None:
    peer = Peer.parse("PACS@dicomtls:pacs:2762:ca=/etc/ca.pem:key=/etc/key.pem")
    assert str(peer) == "PACS@dicomtls:pacs:2762"


@pytest.mark.parametrize(
    ("title", "valid"),
    [
        ("A", True),
        ("MY PACS", True),
        ("a-z_0!9", True),
        ("X" * 16, True),
        ("X" * 17, False),
        ("", False),
        (" ", False),
        ("A\\B", False),
        ("A\nB", False),
        ("\x7f", False),
        ("\u00e9", False),
    ],
)
def test_a_title_is_of_plain_characters(title: str, valid: bool) -> None:
    assert valid_ae_title(title) is valid


def test_a_peer_that_is_no_peer_stops_a_connect_before_it_begins() -> None:
    with World() as world:
        connecting = connect("PACS", reactor=world.clock)
        with pytest.raises(ValueError):
            world.result(connecting)
