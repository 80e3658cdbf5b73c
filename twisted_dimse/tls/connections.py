"""Makes TLS connections for Twisted and verifies who is at the other end.

Chains are verified by OpenSSL. A client then compares names by service-identity, inside OpenSSL's
callback for the peer's own certificate (depth 0), so that a certificate for another host, or
for none, ends the handshake before a single octet of DICOM.

    ServerConnections(profile, files, verify="required")     # IOpenSSLServerConnectionCreator
    ClientConnections(profile, files, "pacs.example", verify="required")
"""

from __future__ import annotations

from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.logger import Logger
from zope.interface import implementer

from twisted_dimse.tls import words
from twisted_dimse.tls.certificates import Files, expired
from twisted_dimse.tls.profiles import Profile

_LONGEST_NAME = 200
VERIFY = ("required", "optional", "none")

_log = Logger()


class Handshake:
    """One connection's verification, and what is known of it for the words if it fails.

    `host` is the name or address that the peer's certificate has to be for, None for any.
    """

    __slots__ = ("allowed", "host", "own_certificate", "refusal", "requestor")

    def __init__(self, requestor: bool, profile: Profile, files: Files, host: str | None) -> None:
        self.requestor = requestor
        self.host = host
        self.own_certificate = bool(files.cert)
        self.allowed = f"{profile.versions} with the suites of {profile.name}"
        self.refusal = ""

    def verify(
        self, _connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int
    ) -> bool:
        """OpenSSL's callback, once for each certificate of the chain, the peer's own last."""
        try:
            if not ok:
                self.refusal = _refusal(certificate.to_cryptography(), code, not self.requestor)
            elif depth == 0 and self.host is not None:
                self._verify_host(certificate.to_cryptography(), self.host)
        except Exception as error:  # whatever a certificate can do to those who read it
            self.refusal = f"its certificate cannot be read ({error})"
        return not self.refusal

    def _verify_host(self, certificate: x509.Certificate, host: str) -> None:
        check = verify_certificate_ip_address if _is_address(host) else verify_certificate_hostname
        try:
            check(certificate, host)
        except Exception:
            self.refusal = words.other_host(host, names(certificate), subject(certificate))


@implementer(IOpenSSLServerConnectionCreator)
class ServerConnections:
    """The accepting side. Certificate files are taken up again when they change; where they do not
    fit, the ones before stay in use, and the log says so once for each change.

    Raises `ValueError` where the files cannot be used at the start.
    """

    def __init__(self, profile: Profile, files: Files, *, verify: str) -> None:
        self._profile = profile
        self._files = files
        self._mode = {
            "required": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
            "optional": SSL.VERIFY_PEER,
            "none": SSL.VERIFY_NONE,
        }[verify]
        self._seen = files.signature()
        self._context = self._load()

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        self._take_up_changes()
        connection = SSL.Connection(self._context, None)
        handshake = Handshake(False, self._profile, self._files, None)
        connection.set_verify(self._mode, handshake.verify)
        protocol.handshake = handshake
        return connection

    def _load(self) -> SSL.Context:
        context = self._profile.context(server=True)
        verify = self._mode != SSL.VERIFY_NONE
        own = self._files.load_into(context, verify=verify, server=True)
        if own is not None and (day := expired(own)):
            _log.warn("the certificate in {cert} expired on {day}", cert=self._files.cert, day=day)
        return context

    def _take_up_changes(self) -> None:
        now = self._files.signature()
        if now == self._seen:
            return
        self._seen = now
        try:
            self._context = self._load()
        except Exception as error:
            _log.error("{why}; the certificates read before stay in use", why=str(error))
        else:
            _log.info("new certificates taken up from {cert}", cert=self._files.cert)


@implementer(IOpenSSLClientConnectionCreator)
class ClientConnections:
    """The connecting side. ``host`` is the name or IP address that the peer's certificate must be
    for; a name is also told to the peer (SNI, RFC 6066 3).

    With ``verify`` "none" anybody may answer. "optional" is "required": servers always have a
    certificate. Raises `ValueError` where the files cannot be used.
    """

    def __init__(self, profile: Profile, files: Files, host: str, *, verify: str) -> None:
        self._profile = profile
        self._files = files
        self._host = host.rstrip(".").partition("%")[0]
        self._server_name = b"" if _is_address(self._host) else _in_ascii(self._host)
        self._verify = verify != "none"
        self._context = profile.context(server=False)
        files.load_into(self._context, verify=self._verify, server=False)

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        host = self._host if self._verify else None
        handshake = Handshake(True, self._profile, self._files, host)
        mode = SSL.VERIFY_PEER if self._verify else SSL.VERIFY_NONE
        connection.set_verify(mode, handshake.verify)
        if self._server_name:
            connection.set_tlsext_host_name(self._server_name)
        protocol.handshake = handshake
        return connection


def subject(certificate: x509.Certificate) -> str:
    """Whose certificate it is, short."""
    return _name(certificate.subject) or ", ".join(names(certificate)) or "without a name"


def names(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses of the subjectAltName."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    value = extension.value
    found = list(value.get_values_for_type(x509.DNSName))
    found += [str(address) for address in value.get_values_for_type(x509.IPAddress)]
    return [_plain(name) for name in found]


def _refusal(certificate: x509.Certificate, code: int, server: bool) -> str:
    return words.refusal(
        code,
        subject(certificate),
        _name(certificate.issuer) or "an authority without a name",
        f"{certificate.not_valid_before_utc:%Y-%m-%d}",
        f"{certificate.not_valid_after_utc:%Y-%m-%d}",
        server=server,
    )


def _name(name: x509.Name) -> str:
    common = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return _plain(f"CN={common[0].value!s}" if common else name.rfc4514_string())


def _plain(text: str) -> str:
    """What a stranger wrote, fit for one line of a log."""
    return "".join(one if one.isprintable() else "?" for one in text[:_LONGEST_NAME])


def _in_ascii(host: str) -> bytes:
    try:
        return host.encode("idna")
    except UnicodeError:
        raise ValueError(f"{host}: not a host name") from None


def _is_address(host: str) -> bool:
    return isIPAddress(host) or isIPv6Address(host)
