"""Key and certificate files: read, checked against each other, and put into a context.

    files = Files(key="server.key", cert="server.pem", ca="clients.pem")
    files.load_into(context, verify=True)       # ValueError: one line that names the file
    files.signature()                           # differs as soon as a file does

All are PEM. A key that needs a passphrase is refused; nobody is asked for it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from twisted_dimse.tls import words

Signature = tuple[tuple[int, int, int] | None, ...]

_REVOCATION_LIST = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Files:
    """Paths, empty where there is none: our key, our certificate with those between it and its
    authority behind it, the authorities whose certificates we take, and what those revoked."""

    key: str = ""
    cert: str = ""
    ca: str = ""
    crl: str = ""

    @classmethod
    def of(cls, key: str = "", cert: str = "", ca: str = "", crl: str = "") -> Files:
        """A key and its certificate may stand in one file."""
        return cls(key or cert, cert or key, ca, crl)

    def signature(self) -> Signature:
        """What changes when a file does: some 5 microseconds."""
        return tuple(_signature(path) for path in (self.key, self.cert, self.ca, self.crl))

    def load_into(
        self, context: SSL.Context, *, verify: bool, server: bool
    ) -> x509.Certificate | None:
        """Put what the files hold into ``context``, the authorities only to ``verify``. Gives our
        own certificate.

        Raises `ValueError`, with the file and what is wrong with it.
        """
        own = self._load_own(context) if self.cert else None
        if verify:
            self._load_authorities(context, server)
        return own

    def _load_own(self, context: SSL.Context) -> x509.Certificate:
        own, *chain = certificates(self.cert)
        key = _private_key(self.key)
        try:
            context.use_certificate(own)
            for certificate in chain:
                context.add_extra_chain_cert(certificate)
            context.use_privatekey(key)
            context.check_privatekey()
        except (SSL.Error, TypeError) as error:
            raise ValueError(_misfit(self, error)) from None
        return own

    def _load_authorities(self, context: SSL.Context, server: bool) -> None:
        store: Any = context.get_cert_store()
        if self.crl:
            store.set_flags(crypto.X509StoreFlags.CRL_CHECK)
            for revoked in revocation_lists(self.crl):
                store.add_crl(revoked)
        if not self.ca:
            context.set_default_verify_paths()
            return
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        for certificate in certificates(self.ca):
            store.add_cert(crypto.X509.from_cryptography(certificate))
            if server:
                context.add_client_ca(certificate)


def certificates(path: str) -> list[x509.Certificate]:
    """The certificates in a PEM file. Raises `ValueError` where it has none, or broken ones."""
    octets = _read(path)
    if b"-----BEGIN" not in octets:
        raise ValueError(f"{path}: not a PEM file")
    try:
        return x509.load_pem_x509_certificates(octets)
    except Exception:
        raise ValueError(f"{path}: no certificate in it, or a broken one") from None


def revocation_lists(path: str) -> list[x509.CertificateRevocationList]:
    """The revocation lists in a PEM file, of one authority each. Raises `ValueError` where it has
    none, or broken ones."""
    found = _REVOCATION_LIST.findall(_read(path))
    if not found:
        raise ValueError(f"{path}: no revocation list in it (PEM)")
    try:
        return [x509.load_pem_x509_crl(one) for one in found]
    except Exception:
        raise ValueError(f"{path}: a broken revocation list") from None


def expired(certificate: x509.Certificate) -> str:
    """The day on which a certificate ran out, empty where it has not."""
    end = certificate.not_valid_after_utc
    return f"{end:%Y-%m-%d}" if end < datetime.now(UTC) else ""


def _private_key(path: str) -> Any:
    octets = _read(path)
    try:
        # Whether it fits is checked below; to try its primes would stop the reactor for 80 ms.
        return load_pem_private_key(octets, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise ValueError(
            f"{path}: the key is encrypted; take the passphrase off (openssl pkey) "
            "and guard the file by its permissions"
        ) from None
    except Exception:
        raise ValueError(f"{path}: no private key in it, or a broken one") from None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None


def _misfit(files: Files, error: Exception) -> str:
    reasons = " ".join(words.reasons(error))
    if "mismatch" in reasons or not reasons:
        return f"{files.key}: not the key of the certificate in {files.cert}"
    if "too small" in reasons or "md too weak" in reasons:
        return f"{files.cert}: too weak for the profile ({reasons})"
    return f"{files.cert}: {reasons}"


def _signature(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
