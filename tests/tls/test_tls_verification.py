"""Who is at the other end: chains by OpenSSL, host names by service-identity, on both sides."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from certificates import Authority, Pair
from handshakes import shake_hands
from twisted.logger import globalLogPublisher

from twisted_dimse.tls.certificates import Files
from twisted_dimse.tls.connections import ClientConnections, Handshake, ServerConnections
from twisted_dimse.tls.profiles import profile_named

PROFILE = profile_named("bcp195-rfc8996")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Authority:
    return Authority(folder, "Strange CA")


@pytest.fixture(scope="module")
def good(authority: Authority) -> Pair:
    return authority.issue("server", "localhost", "pacs.example", "127.0.0.1", "::1")


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """What is logged meanwhile."""
    events: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def server(
    pair: Pair, ca: Path | None = None, verify: str = "none", crl: Path | None = None
) -> ServerConnections:
    files = Files.of(str(pair.key), str(pair.cert), str(ca or ""), str(crl or ""))
    return ServerConnections(PROFILE, files, verify=verify)


def client(
    host: str,
    ca: Path | None,
    pair: Pair | None = None,
    verify: str = "required",
    crl: Path | None = None,
) -> ClientConnections:
    own = (str(pair.key), str(pair.cert)) if pair else ("", "")
    files = Files.of(*own, str(ca or ""), str(crl or ""))
    return ClientConnections(PROFILE, files, host, verify=verify)


# --- a client looks at a server


@pytest.mark.parametrize("host", ["localhost", "pacs.example", "127.0.0.1", "::1"])
def test_a_certificate_for_the_host_is_taken(host: str, authority: Authority, good: Pair) -> None:
    assert shake_hands(client(host, authority.cert), server(good)).succeeded


def test_a_name_is_told_to_the_server_and_an_address_is_not(
    authority: Authority, good: Pair
) -> None:
    by_name = shake_hands(client("pacs.example", authority.cert), server(good))
    by_address = shake_hands(client("127.0.0.1", authority.cert), server(good))
    assert by_name.server.get_servername() == b"pacs.example"
    assert by_address.server.get_servername() is None


@pytest.mark.parametrize("host", ["pacs.other", "127.0.0.2", "::2", "server", "example"])
def test_a_certificate_for_another_host_is_refused_and_its_names_are_told(
    host: str, authority: Authority, good: Pair
) -> None:
    outcome = shake_hands(client(host, authority.cert), server(good))
    assert outcome.client_error is not None
    assert outcome.server_error is not None
    assert outcome.client_refusal.startswith(
        f"its certificate is for localhost, pacs.example, 127.0.0.1, ::1 and not for {host}."
    )


@pytest.mark.parametrize("host", ["no-san", "127.0.0.1"])
def test_a_certificate_without_alternative_names_is_refused_for_any_host(
    host: str, authority: Authority
) -> None:
    outcome = shake_hands(client(host, authority.cert), server(authority.issue("no-san")))
    assert outcome.client_error is not None
    assert "(CN=no-san) has no subjectAltName" in outcome.client_refusal


def test_a_certificate_of_an_unknown_authority_is_refused(
    stranger: Authority, authority: Authority
) -> None:
    strange = stranger.issue("strange", "localhost")
    outcome = shake_hands(client("localhost", authority.cert), server(strange))
    assert outcome.client_error is not None
    assert "(CN=strange) comes from CN=Strange CA, which we do not trust" in outcome.client_refusal
    assert "--ca FILE" in outcome.client_refusal


def test_without_a_ca_file_the_authorities_of_the_machine_are_asked(good: Pair) -> None:
    outcome = shake_hands(client("localhost", None), server(good))
    assert "comes from CN=Test CA, which we do not trust" in outcome.client_refusal


def test_what_a_stranger_calls_itself_stays_in_its_line(
    stranger: Authority, authority: Authority
) -> None:
    pair = stranger.issue("evil\nassociation 7: all is well", "localhost")
    refusal = shake_hands(client("localhost", authority.cert), server(pair)).client_refusal
    assert "(CN=evil?association 7: all is well)" in refusal


def test_of_many_names_some_are_told(authority: Authority) -> None:
    pair = authority.issue("many", *(f"host{number}.example" for number in range(50)))
    refusal = shake_hands(client("other.example", authority.cert), server(pair)).client_refusal
    assert "host9.example, 40 more and not for other.example" in refusal


def test_an_expired_certificate_is_refused_with_its_day(
    authority: Authority, logged: list[dict[str, Any]]
) -> None:
    old = authority.issue("old", "localhost", begins=timedelta(-300), ends=timedelta(-100))
    outcome = shake_hands(client("localhost", authority.cert), server(old))
    assert "its certificate (CN=old) expired on 20" in outcome.client_refusal
    assert [event["cert"] for event in logged if "expired on" in event["log_format"]] == [
        str(old.cert)
    ]


def test_a_certificate_of_tomorrow_is_refused(authority: Authority) -> None:
    early = authority.issue("early", "localhost", begins=timedelta(1), ends=timedelta(2))
    outcome = shake_hands(client("localhost", authority.cert), server(early))
    assert "(CN=early) is valid only from 20" in outcome.client_refusal


def test_a_certificate_for_clients_is_none_for_a_server(authority: Authority) -> None:
    wrong = authority.issue("wrong-use", "localhost", only_for="client")
    outcome = shake_hands(client("localhost", authority.cert), server(wrong))
    assert "(CN=wrong-use) is not meant for servers" in outcome.client_refusal


def test_the_server_s_own_certificate_may_be_what_is_trusted(good: Pair) -> None:
    assert shake_hands(client("localhost", good.cert), server(good)).succeeded
    elsewhere = shake_hands(client("pacs.other", good.cert), server(good))
    assert "and not for pacs.other" in elsewhere.client_refusal


@pytest.mark.parametrize(("host", "name"), [("pacs.example.", b"pacs.example"), ("::1%lo", None)])
def test_a_host_is_looked_for_without_final_dot_and_zone(
    host: str, name: bytes | None, authority: Authority, good: Pair
) -> None:
    outcome = shake_hands(client(host, authority.cert), server(good))
    assert outcome.succeeded
    assert outcome.server.get_servername() == name


def test_an_international_name_is_compared_and_told_as_it_goes_over_the_wire(
    authority: Authority,
) -> None:
    pair = authority.issue("muenchen", "xn--mnchen-3ya.example")
    outcome = shake_hands(client("münchen.example", authority.cert), server(pair))
    assert outcome.succeeded, outcome.client_refusal
    assert outcome.server.get_servername() == b"xn--mnchen-3ya.example"


def test_what_cannot_be_a_host_name_is_refused(authority: Authority) -> None:
    with pytest.raises(ValueError, match=r"pacs\.\.example: not a host name"):
        client("pacs..example", authority.cert)


@pytest.mark.parametrize("ok", [0, 1])
def test_a_certificate_that_cannot_be_read_is_refused(ok: int) -> None:
    class Unreadable:
        def to_cryptography(self) -> Any:
            raise ValueError("a name of the future")

    strange, connection = cast("Any", Unreadable()), cast("Any", None)
    handshake = Handshake(True, PROFILE, Files(), "localhost")
    assert not handshake.verify(connection, strange, 0, 0, ok)
    assert handshake.refusal == "its certificate cannot be read (a name of the future)"


def test_insecure_takes_whoever_answers(stranger: Authority) -> None:
    nobody = stranger.issue("nobody")
    assert shake_hands(client("localhost", None, verify="none"), server(nobody)).succeeded


# --- a server looks at a client


def test_a_server_that_verifies_takes_a_client_of_its_authority(
    authority: Authority, good: Pair
) -> None:
    ours = authority.issue("modality", only_for="client")
    outcome = shake_hands(
        client("localhost", authority.cert, ours), server(good, authority.cert, "required")
    )
    assert outcome.succeeded
    certificate = outcome.server.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    assert "modality" in certificate.subject.rfc4514_string()


def test_a_client_without_a_certificate_is_refused_where_one_is_required(
    authority: Authority, good: Pair
) -> None:
    outcome = shake_hands(
        client("localhost", authority.cert), server(good, authority.cert, "required")
    )
    assert outcome.server_error is not None


@pytest.mark.parametrize("verify", ["optional", "none"])
def test_a_client_without_a_certificate_is_taken_where_none_is_required(
    verify: str, authority: Authority, good: Pair
) -> None:
    outcome = shake_hands(client("localhost", authority.cert), server(good, authority.cert, verify))
    assert outcome.succeeded


@pytest.mark.parametrize("verify", ["required", "optional"])
def test_a_client_of_another_authority_is_refused(
    verify: str, authority: Authority, stranger: Authority, good: Pair
) -> None:
    strange = stranger.issue("strange-client")
    outcome = shake_hands(
        client("localhost", authority.cert, strange), server(good, authority.cert, verify)
    )
    assert outcome.server_error is not None
    assert "comes from CN=Strange CA, which we do not trust" in outcome.server_refusal
    assert "ca= file" in outcome.server_refusal


@pytest.mark.parametrize("verify", ["required", "optional"])
def test_an_expired_client_is_refused(verify: str, authority: Authority, good: Pair) -> None:
    old = authority.issue("old-client", begins=timedelta(-3), ends=timedelta(-2))
    outcome = shake_hands(
        client("localhost", authority.cert, old), server(good, authority.cert, verify)
    )
    assert "its certificate (CN=old-client) expired on 20" in outcome.server_refusal


# --- what was revoked


@pytest.mark.parametrize("verify", ["required", "optional"])
def test_a_client_whose_certificate_is_revoked_is_refused(
    verify: str, authority: Authority, good: Pair
) -> None:
    lost, kept = authority.issue("lost-client"), authority.issue("kept-client")
    crl = authority.revoke(lost, to="lost.crl")
    connections = server(good, authority.cert, verify, crl)
    assert shake_hands(client("localhost", authority.cert, kept), connections).succeeded
    outcome = shake_hands(client("localhost", authority.cert, lost), connections)
    assert not outcome.succeeded
    assert outcome.server_refusal == "its certificate (CN=lost-client) is revoked"


def test_a_server_whose_certificate_is_revoked_is_refused(authority: Authority, good: Pair) -> None:
    lost = authority.issue("lost-server", "localhost")
    crl = authority.revoke(lost, to="lost-server.crl")
    trying = client("localhost", authority.cert, crl=crl)
    assert shake_hands(trying, server(good)).succeeded
    outcome = shake_hands(trying, server(lost))
    assert not outcome.succeeded
    assert outcome.client_refusal == "its certificate (CN=lost-server) is revoked"


def test_one_file_may_hold_the_lists_of_several_authorities(
    tmp_path: Path, authority: Authority, stranger: Authority, good: Pair
) -> None:
    lost = stranger.issue("lost-stranger")
    lists = [authority.revoke(to="1.crl"), stranger.revoke(lost, to="2.crl")]
    both, trusted = tmp_path / "both.crl", tmp_path / "trusted.pem"
    both.write_bytes(b"".join(one.read_bytes() for one in lists))
    trusted.write_bytes(authority.cert.read_bytes() + stranger.cert.read_bytes())
    connections = server(good, trusted, "required", both)
    ours = authority.issue("ours")
    assert shake_hands(client("localhost", authority.cert, ours), connections).succeeded
    assert not shake_hands(client("localhost", authority.cert, lost), connections).succeeded


@pytest.mark.parametrize(
    ("whose", "age", "said"),
    [
        ("stranger", timedelta(), "of which there is no revocation list. The authority has to"),
        ("authority", timedelta(-5), "the revocation list of CN=Test CA is not valid today"),
    ],
)
def test_without_a_list_of_its_authority_that_is_of_today_nobody_gets_in(
    request: pytest.FixtureRequest,
    authority: Authority,
    good: Pair,
    whose: str,
    age: timedelta,
    said: str,
) -> None:
    issuer: Authority = request.getfixturevalue(whose)
    crl = issuer.revoke(to="old.crl", begins=timedelta(-1) + age, ends=timedelta(1) + age)
    someone = authority.issue("someone")
    connections = server(good, authority.cert, "required", crl)
    outcome = shake_hands(client("localhost", authority.cert, someone), connections)
    assert not outcome.succeeded
    assert said in outcome.server_refusal


def test_a_new_list_is_taken_up(authority: Authority, good: Pair) -> None:
    lost = authority.issue("lost-later")
    crl = authority.revoke(to="later.crl")
    connections = server(good, authority.cert, "required", crl)
    trying = client("localhost", authority.cert, lost)
    assert shake_hands(trying, connections).succeeded
    authority.revoke(lost, to="later.crl")
    assert not shake_hands(trying, connections).succeeded


# --- files


def test_a_key_and_its_certificate_may_stand_in_one_file(
    tmp_path: Path, authority: Authority, good: Pair
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(good.key.read_bytes() + good.cert.read_bytes())
    connections = ServerConnections(PROFILE, Files.of(cert=str(both)), verify="none")
    assert shake_hands(client("localhost", authority.cert), connections).succeeded


def test_an_encrypted_key_is_refused_without_asking(authority: Authority) -> None:
    locked = authority.issue("locked", "localhost", passphrase=b"secret")
    with pytest.raises(ValueError, match=r"locked\.key: the key is encrypted; take the passphrase"):
        server(locked)


def test_each_file_that_cannot_be_used_is_named(
    tmp_path: Path, authority: Authority, good: Pair
) -> None:
    other = authority.issue("other", "localhost")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    broken = tmp_path / "broken.pem"
    broken.write_bytes(good.cert.read_bytes()[:300])
    missing = tmp_path / "missing.pem"
    for pair, ca, said in (
        (Pair(missing, good.key), None, f"{missing}: No such file or directory"),
        (Pair(good.cert, missing), None, f"{missing}: No such file or directory"),
        (Pair(text, good.key), None, f"{text}: not a PEM file"),
        (Pair(good.cert, text), None, f"{text}: no private key in it, or a broken one"),
        (Pair(broken, good.key), None, f"{broken}: no certificate in it, or a broken one"),
        (Pair(good.key, good.key), None, f"{good.key}: no certificate in it, or a broken one"),
        (good, missing, f"{missing}: No such file or directory"),
        (good, text, f"{text}: not a PEM file"),
        (
            Pair(good.cert, other.key),
            None,
            f"{other.key}: not the key of the certificate in {good.cert}",
        ),
    ):
        with pytest.raises(ValueError) as raised:
            server(pair, ca, "required" if ca else "none")
        assert str(raised.value) == said
    damaged = tmp_path / "damaged.crl"
    damaged.write_text("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    for crl, said in (
        (missing, f"{missing}: No such file or directory"),
        (good.cert, f"{good.cert}: no revocation list in it (PEM)"),
        (damaged, f"{damaged}: a broken revocation list"),
    ):
        with pytest.raises(ValueError) as raised:
            server(good, authority.cert, "required", crl)
        assert str(raised.value) == said


# --- files that change


@pytest.fixture
def changing(tmp_path: Path, authority: Authority) -> tuple[ServerConnections, Pair]:
    """A server whose files can be changed, and those files."""
    first = Authority.issue(authority, "first", "localhost")
    pair = Pair(tmp_path / "server.pem", tmp_path / "server.key")
    copy(first, pair)
    return server(pair), pair


def copy(source: Pair, target: Pair) -> None:
    shutil.copy(source.cert, target.cert)
    shutil.copy(source.key, target.key)


def shown(connections: ServerConnections, authority: Authority) -> str:
    """The common name of the certificate that a client is shown."""
    outcome = shake_hands(client("localhost", authority.cert), connections)
    assert outcome.succeeded
    certificate = outcome.client.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    return certificate.subject.rfc4514_string()


def complaints(logged: list[dict[str, Any]]) -> list[str]:
    return [str(event["why"]) for event in logged if "stay in use" in event["log_format"]]


def test_new_files_are_taken_up(
    changing: tuple[ServerConnections, Pair],
    authority: Authority,
    logged: list[dict[str, Any]],
) -> None:
    connections, pair = changing
    assert shown(connections, authority) == "CN=first"
    copy(authority.issue("second", "localhost"), pair)
    assert shown(connections, authority) == "CN=second"
    assert shown(connections, authority) == "CN=second"
    taken = [event for event in logged if "taken up" in event["log_format"]]
    assert len(taken) == 1


def test_a_file_that_another_is_renamed_over_is_taken_up(
    changing: tuple[ServerConnections, Pair], authority: Authority, tmp_path: Path
) -> None:
    connections, pair = changing
    second = authority.issue("second", "localhost")
    for source, target in ((second.cert, pair.cert), (second.key, pair.key)):
        os.replace(shutil.copy(source, tmp_path / "new"), target)
    assert shown(connections, authority) == "CN=second"


def test_half_written_and_missing_files_leave_the_old_ones_in_use(
    changing: tuple[ServerConnections, Pair],
    authority: Authority,
    logged: list[dict[str, Any]],
) -> None:
    connections, pair = changing
    second = authority.issue("second", "localhost")
    shutil.copy(second.key, pair.key)  # fits no more
    assert shown(connections, authority) == "CN=first"
    assert shown(connections, authority) == "CN=first"
    pair.cert.write_bytes(second.cert.read_bytes()[:200])
    assert shown(connections, authority) == "CN=first"
    pair.cert.unlink()
    assert shown(connections, authority) == "CN=first"
    shutil.copy(second.cert, pair.cert)
    assert shown(connections, authority) == "CN=second"
    first, broken, missing = complaints(logged)  # each once
    assert "not the key of the certificate" in first
    assert "a broken one" in broken
    assert "No such file" in missing


def test_a_new_authority_is_taken_up(
    tmp_path: Path, authority: Authority, stranger: Authority, good: Pair
) -> None:
    ca = tmp_path / "ca.pem"
    shutil.copy(authority.cert, ca)
    connections = server(good, ca, "required")
    strange = stranger.issue("strange-client")
    trying = client("localhost", authority.cert, strange)
    assert not shake_hands(trying, connections).succeeded
    shutil.copy(stranger.cert, ca)
    assert shake_hands(trying, connections).succeeded


def test_looking_for_changes_is_cheap(good: Pair) -> None:
    from timeit import timeit

    files = Files.of(str(good.key), str(good.cert), str(good.cert))
    assert timeit(files.signature, number=1000) / 1000 < 0.0005
