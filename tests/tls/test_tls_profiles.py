"""Each profile negotiates what PS3.15 annex B lists for it and refuses all else, on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Pair
from facts import facts
from handshakes import shake_hands
from OpenSSL import SSL

import twisted_dimse.tls
from twisted_dimse.tls.certificates import Files
from twisted_dimse.tls.profiles import PROFILES, profile_named

FACTS = facts("tls")
LISTED: dict[str, dict[str, Any]] = {one["id"]: one for one in FACTS["profiles"]}
SUITES: dict[str, dict[str, Any]] = {one["name"]: one for one in FACTS["cipher_suites"]}
#: What OpenSSL from 3.2 on counts as under the 112 bits that RFC 9325 asks for.
SHORT_TAG = {name for name in SUITES if "CCM_8" in name}
#: B.10 allows what is as strong as its list: the same suites for ECDSA, and TLS 1.3's own three.
AS_STRONG = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
}
STRICT = [name for name in PROFILES if name != "compatible"]


def built_in(suite: dict[str, Any]) -> bool:
    """Whether this build of OpenSSL has the suite at all."""
    try:
        SSL.Context(SSL.TLS_METHOD).set_cipher_list(suite["openssl_name"].encode())
    except SSL.Error:
        return suite["versions"] == ["TLS 1.3"]
    return True


KNOWN = [name for name, suite in SUITES.items() if suite["openssl_name"] and built_in(suite)]


def allowed(profile: str) -> set[str]:
    listed = {name for names in LISTED[profile]["cipher_suites"].values() for name in names}
    return (listed & SUITES.keys()) | (AS_STRONG if profile == "bcp195-nd" else set())


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    authority = Authority(tmp_path_factory.mktemp("profiles"))
    return {
        "ECDSA": authority.issue("ecdsa", "localhost"),
        "RSA": authority.issue("rsa", "localhost", with_rsa=2048),
    }


def plain_context(suite: str, pair: Pair | None = None) -> SSL.Context:
    """A context of nobody's that knows one suite."""
    found = SUITES[suite]
    context = SSL.Context(SSL.TLS_METHOD)
    name = found["openssl_name"].encode()
    if found["versions"] == ["TLS 1.3"]:
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(name)
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    else:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(name + b":@SECLEVEL=0")
    if pair is not None:
        context.use_certificate_chain_file(str(pair.cert))
        context.use_privatekey_file(str(pair.key))
        if "DHE_RSA" in suite and "ECDHE" not in suite:
            context.load_tmp_dh(str(Path(twisted_dimse.tls.__file__).with_name("ffdhe2048.pem")))
    return context


def fitting(suite: str, pairs: dict[str, Pair]) -> Pair:
    return pairs["ECDSA" if "ECDSA" in suite else "RSA"]


def our_context(profile: str, pair: Pair | None = None) -> SSL.Context:
    context = profile_named(profile).context(server=pair is not None)
    if pair is not None:
        Files.of(str(pair.key), str(pair.cert)).load_into(context, verify=False, server=True)
    return context


def expected(profile: str, suite: str) -> bool | None:
    """Whether the suite may be used; None where it depends on the build of OpenSSL."""
    if suite not in allowed(profile):
        return False
    return None if suite in SHORT_TAG else True


@pytest.mark.parametrize("profile", STRICT)
@pytest.mark.parametrize("suite", KNOWN)
def test_a_server_takes_the_suites_of_its_profile_and_no_others(
    profile: str, suite: str, pairs: dict[str, Pair]
) -> None:
    pair = fitting(suite, pairs)
    outcome = shake_hands(plain_context(suite), our_context(profile, pair))
    assert expected(profile, suite) in (None, outcome.succeeded)
    assert outcome.cipher in (None, SUITES[suite]["openssl_name"])


@pytest.mark.parametrize("profile", STRICT)
@pytest.mark.parametrize("suite", KNOWN)
def test_a_client_takes_the_suites_of_its_profile_and_no_others(
    profile: str, suite: str, pairs: dict[str, Pair]
) -> None:
    pair = fitting(suite, pairs)
    outcome = shake_hands(our_context(profile), plain_context(suite, pair))
    assert expected(profile, suite) in (None, outcome.succeeded)


def version_context(version: int) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    return context


@pytest.mark.parametrize("profile", PROFILES)
def test_no_profile_takes_tls_1_1(profile: str, pairs: dict[str, Pair]) -> None:
    outcome = shake_hands(version_context(SSL.TLS1_1_VERSION), our_context(profile, pairs["RSA"]))
    assert not outcome.succeeded


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_takes_tls_1_2(profile: str, pairs: dict[str, Pair]) -> None:
    outcome = shake_hands(version_context(SSL.TLS1_2_VERSION), our_context(profile, pairs["RSA"]))
    assert outcome.succeeded


@pytest.mark.parametrize("profile", PROFILES)
def test_tls_1_3_is_preferred_where_the_profile_has_it(
    profile: str, pairs: dict[str, Pair]
) -> None:
    outcome = shake_hands(our_context(profile), our_context(profile, pairs["RSA"]))
    best = "TLSv1.2" if profile == "bcp195-extended" else "TLSv1.3"
    assert outcome.client.get_protocol_version_name() == best


@pytest.mark.parametrize("profile", ["bcp195-nd", "bcp195-extended", "compatible"])
def test_diffie_hellman_has_2048_bits(profile: str, pairs: dict[str, Pair]) -> None:
    suite = "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"
    outcome = shake_hands(plain_context(suite), our_context(profile, pairs["RSA"]))
    assert outcome.cipher == "DHE-RSA-AES256-GCM-SHA384"


@pytest.mark.parametrize("suite", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA384"])
def test_the_compatible_profile_takes_what_old_peers_have(
    suite: str, pairs: dict[str, Pair]
) -> None:
    old = SSL.Context(SSL.TLS_METHOD)
    old.set_max_proto_version(SSL.TLS1_2_VERSION)
    old.set_cipher_list(suite.encode())
    outcome = shake_hands(old, our_context("compatible", pairs["RSA"]))
    assert outcome.cipher == suite


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    short = Authority(tmp_path).issue("short", "localhost", with_rsa=1024)
    with pytest.raises(ValueError, match=r"short\.pem: too weak for the profile"):
        our_context("bcp195-rfc8996", short)


def test_every_profile_of_the_interface_is_there() -> None:
    current = {name for name, one in LISTED.items() if one["status"] == "current"}
    assert current < PROFILES.keys()
    assert list(PROFILES) == [
        "bcp195-rfc8996",
        "bcp195-rfc8996-modified",
        "bcp195-nd",
        "bcp195-extended",
        "compatible",
    ]


def test_an_unknown_profile_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"profile=basic: .*bcp195-rfc8996, .*compatible"):
        profile_named("basic")
