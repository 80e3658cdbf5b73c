"""The secure transport profiles of PS3.15 annex B, as OpenSSL contexts.

    context = profile_named("bcp195-rfc8996").context(server=True)

Suites that the standard names and OpenSSL lacks (Camellia with GCM) are left out. All profiles but
`compatible` are held to OpenSSL's security level 2, which is RFC 9325's 112 bits: keys of RSA and
Diffie-Hellman under 2048 bits, SHA-1 signatures and, from OpenSSL 3.2 on, the CCM_8 suites with
their short tags are refused even where a list has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from OpenSSL import SSL

DEFAULT_PROFILE = "bcp195-rfc8996"

_DH_PARAMETERS = Path(__file__).with_name("ffdhe2048.pem")  # RFC 7919 A.1

_TLS13 = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
)
_ECDHE_GCM = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
_DHE_GCM = ("DHE-RSA-AES256-GCM-SHA384", "DHE-RSA-AES128-GCM-SHA256")


@dataclass(frozen=True, slots=True)
class Profile:
    """What may be negotiated. Suites are by OpenSSL's names, best first; no `tls13` means that
    TLS 1.2 is the only version, None for either list means OpenSSL's own."""

    name: str
    reference: str
    tls12: tuple[str, ...] | None
    tls13: tuple[str, ...] | None

    @property
    def versions(self) -> str:
        """The versions in words."""
        return "TLS 1.2" if self.tls13 == () else "TLS 1.2 or 1.3"

    def context(self, *, server: bool) -> SSL.Context:
        """A context that negotiates this and nothing else, without certificates."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        if self.tls13 == ():
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
        elif self.tls13 is not None:
            context.set_tls13_ciphersuites(":".join(self.tls13).encode())
        suites = "DEFAULT" if self.tls12 is None else ":".join((*self.tls12, "@SECLEVEL=2"))
        context.set_cipher_list(suites.encode())
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        if server:
            context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
            context.set_session_id(b"twisted_dimse")
            context.load_tmp_dh(str(_DH_PARAMETERS))
        return context


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("bcp195-rfc8996", "PS3.15 B.12", _ECDHE_GCM, _TLS13),
        Profile(
            "bcp195-rfc8996-modified",
            "PS3.15 B.13",
            (
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-RSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-CHACHA20-POLY1305",
                "ECDHE-RSA-CHACHA20-POLY1305",
                "ECDHE-ECDSA-AES256-CCM",
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-RSA-AES128-GCM-SHA256",
                "ECDHE-ECDSA-AES128-CCM",
                "ECDHE-ECDSA-AES256-CCM8",
                "ECDHE-ECDSA-AES128-CCM8",
            ),
            _TLS13,
        ),
        # B.10 allows more suites "of equal or greater strength": the same for ECDSA, and TLS 1.3.
        Profile("bcp195-nd", "PS3.15 B.10", (*_ECDHE_GCM, *_DHE_GCM), _TLS13[:3]),
        # B.11 allows no other suite, so none of TLS 1.3.
        Profile("bcp195-extended", "PS3.15 B.11", (*_ECDHE_GCM, *_DHE_GCM), ()),
        Profile("compatible", "none", None, None),
    )
}


def profile_named(name: str) -> Profile:
    """The profile of this name. Raises `ValueError` with the names that there are."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ValueError(
            f"profile={name}: there is no such profile; choose {', '.join(PROFILES)}"
        ) from None
