"""``dicomtls:`` endpoint strings: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Pair
from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock

from twisted_dimse.peer import Peer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("endpoints"), "CA: a name with a colon")


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("node", "localhost")


@pytest.fixture(scope="module")
def ca(authority: Authority) -> str:
    return f"ca={quoteStringArgument(str(authority.cert))}"


def listening(text: str) -> Any:
    """What the reactor is asked for when an endpoint listens: port, factory, backlog, address."""
    reactor = MemoryReactorClock()
    serverFromString(reactor, text).listen(Factory())
    (asked,) = reactor.tcpServers
    return asked


def test_a_server_listens_on_its_port_of_every_address(pair: Pair) -> None:
    port, _, _, interface = listening(f"dicomtls:12762:{pair.words}")
    assert (port, interface) == (12762, "")


def test_a_server_listens_on_an_address_of_its_own(pair: Pair) -> None:
    assert listening(f"dicomtls:0:{pair.words}:interface=127.0.0.1")[3] == "127.0.0.1"
    assert listening(f"dicomtls:0:{pair.words}:interface=\\:\\:1")[3] == "::1"


def test_the_port_is_2762_where_none_is_given(pair: Pair) -> None:
    assert listening(f"dicomtls:{pair.words}")[0] == 2762


def test_one_file_may_hold_both(tmp_path: Path, pair: Pair) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
    assert listening(f"dicomtls:0:cert={both}")[0] == 0


@pytest.mark.parametrize("words", ["", ":verify=required", ":verify=optional", ":verify=none"])
@pytest.mark.parametrize("profile", ["", ":profile=bcp195-extended", ":profile=compatible"])
def test_a_server_takes_every_word_of_the_interface(
    words: str, profile: str, pair: Pair, ca: str
) -> None:
    assert listening(f"dicomtls:0:{pair.words}:{ca}{words}{profile}:interface=127.0.0.1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dicomtls:0", "key=FILE and cert=FILE are missing"),
        ("dicomtls:0:{pair}:verify=required", "verify=required needs ca=FILE"),
        ("dicomtls:0:{pair}:verify=optional", "verify=optional needs ca=FILE"),
        ("dicomtls:0:{pair}:crl=x", "crl=FILE is for certificates that are verified"),
        ("dicomtls:0:{pair}:{ca}:crl=/no/crl", "/no/crl: No such file or directory"),
        ("dicomtls:0:{pair}:{ca}:verify=maybe", "verify=maybe: choose required, optional, none"),
        ("dicomtls:0:{pair}:profile=basic", "profile=basic: there is no such profile; choose bcp"),
        ("dicomtls:0:{pair}:privateKey=x", "privateKey=x: no such word; there are key, cert, ca"),
        ("dicomtls:0:{pair}:reactor=x", "reactor=x: no such word"),
        ("dicomtls:port:{pair}", "port: not a port"),
        ("dicomtls:65536:{pair}", "65536: not a port"),
        ("dicomtls:0:1:{pair}", "1: nothing more goes after PORT"),
        ("dicomtls:0:key=/no/key:cert=/no/cert", "/no/cert: No such file or directory"),
        ("dicomtls:0:{pair}:ca=/no/ca", "/no/ca: No such file or directory"),
    ],
)
def test_what_is_wrong_with_a_server_s_string_is_said(
    text: str, said: str, pair: Pair, ca: str
) -> None:
    with pytest.raises(ValueError) as raised:
        serverFromString(MemoryReactorClock(), text.format(pair=pair.words, ca=ca))
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "words",
    [
        "",
        ":{ca}",
        ":{ca}:hostname=pacs.example",
        ":{ca}:{pair}",
        ":{ca}:verify=required",
        ":{ca}:verify=optional",
        ":verify=none",
        ":{ca}:profile=bcp195-rfc8996-modified",
    ],
)
def test_a_client_takes_every_word_of_the_interface(words: str, pair: Pair, ca: str) -> None:
    text = "dicomtls:localhost:2762" + words.format(pair=pair.words, ca=ca)
    assert clientFromString(MemoryReactorClock(), text) is not None


def test_a_client_connects_to_its_host_and_port(ca: str) -> None:
    reactor = MemoryReactorClock()
    connecting = clientFromString(reactor, f"dicomtls:localhost:2763:{ca}").connect(Factory())
    reactor.advance(1)
    assert reactor.tcpClients[0][:2] == ("127.0.0.1", 2763)
    connecting.addErrback(lambda _failure: None)
    connecting.cancel()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dicomtls:", "HOST is missing"),
        ("dicomtls:localhost:0", "0: not a port"),
        ("dicomtls:localhost:dicom", "dicom: not a port"),
        ("dicomtls:localhost:1:2", "2: nothing more goes after HOST:PORT"),
        ("dicomtls:localhost:1:interface=x", "interface=x: no such word; there are hostname, ca"),
        ("dicomtls:localhost:1:verify=perhaps", "verify=perhaps: choose"),
        ("dicomtls:localhost:1:profile=aes", "profile=aes: there is no such profile"),
        ("dicomtls:localhost:1:ca=/no/ca", "/no/ca: No such file or directory"),
        ("dicomtls:localhost:1:cert=/no/cert", "/no/cert: No such file or directory"),
        ("dicomtls:localhost:1:crl=/no/crl", "/no/crl: No such file or directory"),
        ("dicomtls:localhost:1:crl=x:verify=none", "crl=FILE is for certificates that are verif"),
    ],
)
def test_what_is_wrong_with_a_client_s_string_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError) as raised:
        clientFromString(MemoryReactorClock(), text)
    assert str(raised.value).startswith(said)
    with pytest.raises(ValueError, match="is not a client endpoint: "):
        Peer("PACS", text).endpoint(MemoryReactorClock())


def test_a_peer_is_named_without_the_files_of_its_endpoint(ca: str) -> None:
    peer = Peer.parse(f"PACS@dicomtls:pacs.example:2762:{ca}:verify=none")
    assert str(peer) == "PACS@dicomtls:pacs.example:2762"
    assert str(Peer.parse("PACS@dicomtls:\\:\\:1:2762:ca=x")) == "PACS@dicomtls:\\:\\:1:2762"
