"""What is wrong with a connection, in words: from first octets, certificates and OpenSSL's errors.

    not_dicom(b"\\x16", requestor=False)   # "TLS on a port for plain DICOM"

Each text is the end of a sentence about the peer ("no connection to PACS@…: its certificate
expired …") or about an association ("association 17, …: plain DICOM on a port for TLS"). Nothing
here does I/O or needs OpenSSL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_ALERT, _HANDSHAKE = 0x15, 0x16  # TLS record types (RFC 8446 5.1)
# What OpenSSL has to judge: records of TLS, and the hello of SSL 2 that could announce TLS.
_TLS = frozenset((0x14, _ALERT, _HANDSHAKE, 0x17, 0x80))
_DICOM = frozenset(range(1, 8))  # PDU types (PS3.8 9.3)
_HTTP = frozenset(b"GPHDOCT")  # how methods, and the status line of an answer, begin
_PROXY_2 = 0x0D

_MOST_NAMES = 10
_ASK_FOR_TLS = "Say --tls, or dicomtls:HOST:PORT for the peer"
_NO_TLS = "it speaks no TLS on this port. Ask without TLS, or for its port for TLS"
_GIVE_CERTIFICATE = "Give --cert FILE and --key FILE (cert= and key= in an endpoint)"
_A_NEW_LIST = "The authority has to issue one, and the crl= file to have it"
_GIVE_AUTHORITY = "Give --ca FILE (ca= in an endpoint)"


def not_dicom(first: bytes, *, requestor: bool) -> str:
    """What begins like this where a PDU should; empty for a PDU and for what nobody knows."""
    octet = first[0]
    if octet in _DICOM:
        return ""
    if requestor:
        if octet in (_ALERT, _HANDSHAKE):
            return f"it speaks TLS on this port. {_ASK_FOR_TLS}"
        return "it speaks HTTP on this port" if octet in _HTTP else ""
    if octet == _HANDSHAKE:
        return "TLS on a port for plain DICOM"
    return _other(first, "DICOM")


def not_tls(first: bytes, *, requestor: bool) -> str:
    """What begins like this where a TLS record should; empty for what OpenSSL has to judge."""
    octet = first[0]
    if octet in _TLS:
        return ""
    if requestor:
        what = "plain DICOM" if octet in _DICOM else "HTTP" if octet in _HTTP else "no TLS"
        return _NO_TLS.replace("no TLS", what, 1)
    if octet in _DICOM:
        return "plain DICOM on a port for TLS"
    return _other(first, "TLS") or f"no TLS on a port for it (first octet {octet:02X}H)"


def _other(first: bytes, port: str) -> str:
    if first[0] == _PROXY_2 or first[:2] == b"PR":
        return f"a PROXY header on a port for {port}; haproxy: in front of the endpoint takes it"
    return f"HTTP on a port for {port}" if first[0] in _HTTP else ""


# --- certificates, by the codes of OpenSSL's x509_vfy.h


def refusal(code: int, subject: str, issuer: str, begins: str, ends: str, *, server: bool) -> str:
    """Why a certificate of the peer's was refused; ``server`` says that we are the one."""
    its = f"its certificate ({subject})"
    match code:
        case 10:
            return f"{its} expired on {ends}. It has to be renewed"
        case 9:
            return f"{its} is valid only from {begins} on. Are the clocks right?"
        case 18:
            return f"{its} is self-signed and not among those that we trust. {_authority(server)}"
        case 19:
            return f"its certificate comes from {subject}, which we do not trust. " + _authority(
                server
            )
        case 2 | 20 | 21 | 27 | 28:
            return f"{its} comes from {issuer}, which we do not trust. {_authority(server)}"
        case 23:
            return f"{its} is revoked"
        case 3:
            return f"{its} comes from {issuer}, of which there is no revocation list. {_A_NEW_LIST}"
        case 11 | 12:
            return f"the revocation list of {issuer} is not valid today. {_A_NEW_LIST}"
        case 26:
            return f"{its} is not meant for {'clients' if server else 'servers'}"
        case 24 | 25 | 32 | 37 | 79:
            return f"its certificate comes from {issuer}, which may not issue certificates"
        case 66 | 67 | 68:
            return f"{its} is too weak: a short key, or signed with SHA-1 or MD5"
    return f"{its} cannot be verified (OpenSSL's code {code})"


def _authority(server: bool) -> str:
    if server:
        return "The ca= file of this endpoint has to have that authority"
    return f"{_GIVE_AUTHORITY} with the authority's certificate"


def other_host(host: str, names: Sequence[str], subject: str) -> str:
    """A certificate that is for ``names`` and not for ``host``."""
    known = ", ".join(names[:_MOST_NAMES])
    if len(names) > _MOST_NAMES:
        known += f", {len(names) - _MOST_NAMES} more"
    if not known:
        return (
            f"its certificate ({subject}) has no subjectAltName, so it is for no host at all. "
            "It has to be issued anew, with one"
        )
    return (
        f"its certificate is for {known} and not for {host}. Connect by such a name, "
        "or say which to expect (hostname= in an endpoint)"
    )


# --- OpenSSL's reasons


def tls_failure(
    queue: Iterable[str],
    *,
    requestor: bool,
    certificate_seen: bool,
    own_certificate: bool,
    allowed: str = "",
) -> str:
    """Why TLS ended, by the reasons in OpenSSL's error queue.

    `certificate_seen` says that the peer's certificate came, so that versions and suites were
    agreed on; `allowed` names what our profile allows.
    """
    allowed = f". We allow {allowed}" if allowed else ""
    said = [reason.casefold() for reason in queue]
    for reason in reversed(said):
        _, alert, what = reason.partition("alert ")
        text = (
            _alert(what, requestor, certificate_seen and not own_certificate, allowed)
            if alert
            else _own_reason(reason, requestor, allowed)
        )
        if text:
            return text
    return f"TLS failed ({', '.join(said) or 'no reason given'})"


def of_error(error: BaseException | None, *, requestor: bool) -> str:
    """The same for an error of OpenSSL's from a TLS transport that is not ours."""
    return tls_failure(
        reasons(error), requestor=requestor, certificate_seen=False, own_certificate=False
    )


def reasons(error: BaseException | None) -> list[str]:
    """The reasons in an `OpenSSL.SSL.Error`; its text where it is another."""
    queue = error.args[0] if error and error.args else None
    if isinstance(queue, list):
        return [str(entry[-1]) for entry in queue]
    return [str(error) or type(error).__name__]


def _alert(what: str, requestor: bool, may_want_certificate: bool, allowed: str) -> str:
    """What the peer told us (RFC 8446 6.2)."""
    wants = what == "handshake failure" and requestor and may_want_certificate
    if wants or what == "certificate required":
        return f"it asks for a certificate of ours. {_GIVE_CERTIFICATE}"
    if what in ("handshake failure", "insufficient security", "illegal parameter"):
        return f"it shares no TLS cipher suite with us{allowed}"
    if what == "protocol version":
        return f"it shares no version of TLS with us{allowed}"
    if what == "unknown ca":
        return "it does not trust the authority of our certificate"
    if what == "certificate expired":
        return "it says that our certificate has expired"
    if what == "certificate revoked":
        return "it says that our certificate is revoked"
    if what in ("bad certificate", "certificate unknown", "unsupported certificate"):
        return f"it refused our certificate ({what})"
    if what == "internal error" and not requestor:
        return "it broke off the handshake. Is our certificate for the name that it called?"
    if what == "unrecognized name":
        return "it has no certificate for the host name that we asked for"
    return f"it ended TLS ({what})"


def _own_reason(reason: str, requestor: bool, allowed: str) -> str:
    """What our own OpenSSL found."""
    if "did not return a certificate" in reason:
        return "it sent no certificate, and verify=required asks for one"
    if reason in ("unsupported protocol", "version too low", "no protocols available"):
        return f"it shares no version of TLS with us{allowed}"
    if reason in ("no shared cipher", "no suitable signature algorithm", "no shared groups"):
        return f"it shares no TLS cipher suite with us{allowed}"
    if reason in ("wrong version number", "http request", "unknown protocol"):
        return _NO_TLS if requestor else "no TLS on a port for it"
    if "key too small" in reason or "md too weak" in reason:
        return f"its key or certificate is too weak for us ({reason})"
    return ""


def hung_up(*, requestor: bool, handshake_done: bool, own_certificate: bool) -> str:
    """The peer closed the connection without a word where more was due."""
    if not requestor:
        return "" if handshake_done else "closed in the middle of the TLS handshake"
    if not handshake_done:
        return "it hung up in the TLS handshake. Does it speak TLS on this port?"
    if own_certificate:
        return "it hung up after the TLS handshake. Does it take our certificate?"
    return f"it hung up after the TLS handshake. Perhaps it asks for one: {_GIVE_CERTIFICATE}"
