"""Certificates for tests, good and bad, made where they are needed.

authority = Authority(folder)
server = authority.issue("server", "localhost", "127.0.0.1")
server.cert, server.key, authority.cert           # paths of PEM files
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_serials: Iterator[int] = count(1000)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path

    @property
    def words(self) -> str:
        """As an endpoint string has them."""
        return f"key={self.key}:cert={self.cert}"


class Authority:
    """Issues certificates into a folder; its own is `cert`."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        self.folder = folder
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        builder = _builder(subject, subject, self._key, timedelta(days=-400), timedelta(days=400))
        builder = builder.add_extension(x509.BasicConstraints(True, 0), critical=True)
        self.cert = folder / f"{name}.pem"
        self.cert.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(
        self,
        name: str,
        *hosts: str,
        begins: timedelta = timedelta(days=-1),
        ends: timedelta = timedelta(days=1),
        only_for: str = "",
        with_rsa: int = 0,
        passphrase: bytes = b"",
    ) -> Pair:
        """A certificate for ``hosts``, names or addresses; for none it has no subjectAltName.

        ``with_rsa`` is the size of an RSA key, 0 for an elliptic curve; ``only_for`` is "server"
        or "client".
        """
        key: Key
        if with_rsa:
            key = rsa.generate_private_key(65537, with_rsa)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), _name(self.name), key, begins, ends)
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        if only_for:
            usage = {
                "server": ExtendedKeyUsageOID.SERVER_AUTH,
                "client": ExtendedKeyUsageOID.CLIENT_AUTH,
            }[only_for]
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        pair.cert.write_bytes(certificate.public_bytes(Encoding.PEM))
        protection = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
        return pair

    def revoke(
        self,
        *pairs: Pair,
        to: str,
        begins: timedelta = timedelta(-1),
        ends: timedelta = timedelta(1),
    ) -> Path:
        """A revocation list with the certificates of ``pairs``, in the file ``to``."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(_name(self.name))
        builder = builder.last_update(now + begins).next_update(now + ends)
        for pair in pairs:
            number = x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(number)
            builder = builder.add_revoked_certificate(revoked.revocation_date(now).build())
        path = self.folder / to
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return path


@dataclass(frozen=True)
class Papers:
    """What a node of ours and a peer show each other, and what a stranger shows; RSA, since DCMTK
    3.6.7, which is in Orthanc too, proposes no suite for ECDSA."""

    authority: Authority
    node: Pair
    peer: Pair
    strange: Pair

    @classmethod
    def made_in(cls, folder: Path) -> Papers:
        authority = Authority(folder)
        return cls(
            authority,
            authority.issue("node", "127.0.0.1", "localhost", with_rsa=2048),
            authority.issue("peer", "127.0.0.1", "localhost", with_rsa=2048),
            Authority(folder, "Strange CA").issue("strange", with_rsa=2048),
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, begins: timedelta, ends: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(next(_serials))
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
