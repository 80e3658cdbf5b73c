"""``dicomtls:`` endpoints, and the parsers of their strings.

    serverFromString(reactor, "dicomtls:2762:key=server.key:cert=server.pem:ca=clients.pem")
    clientFromString(reactor, "dicomtls:pacs.example:2762:ca=hospital.pem")

`twisted/plugins/twisted_dimse_tls.py` makes the parsers known to Twisted. Behind ``haproxy:`` the
PROXY header is read before TLS, as balancers send it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import (
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from zope.interface import implementer

from twisted_dimse.tls.certificates import Files
from twisted_dimse.tls.connections import VERIFY, ClientConnections, ServerConnections
from twisted_dimse.tls.profiles import DEFAULT_PROFILE, profile_named
from twisted_dimse.tls.transport import TLSFactory

DEFAULT_PORT = 2762  # dicom-tls (PS3.15 annex B)
_BACKLOG = 128


@implementer(IStreamServerEndpoint)
class TLSServerEndpoint:
    """Listens on a TCP port and takes TLS there, from the first octet on."""

    def __init__(
        self, reactor: Any, port: int, connections: ServerConnections, interface: str = ""
    ) -> None:
        self._reactor = reactor
        self._tcp = TCP4ServerEndpoint(reactor, port, _BACKLOG, interface)
        self._connections = connections

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        factory: Any = protocolFactory
        if isinstance(factory, HAProxyWrappingFactory):
            # `haproxy:` puts its wrapper inside; no balancer puts the header there.
            factory = type(factory)(self._wrap(factory.wrappedFactory))
            factory.noisy = False
        else:
            factory = self._wrap(factory)
        listening: Deferred[Any] = self._tcp.listen(factory)
        return listening

    def _wrap(self, factory: IProtocolFactory) -> TLSFactory:
        return TLSFactory(self._connections, factory, self._reactor)


@implementer(IStreamClientEndpoint)
class TLSClientEndpoint:
    """Connects to a host and speaks TLS there, from the first octet on."""

    def __init__(self, reactor: Any, host: str, port: int, connections: ClientConnections) -> None:
        self._reactor = reactor
        # The deadline over everything is the caller's; a refused address costs little time.
        self._tcp = HostnameEndpoint(reactor, host, port, timeout=3600, attemptDelay=0.05)
        self._connections = connections

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        factory: Any = TLSFactory(self._connections, protocolFactory, self._reactor)
        connected: Deferred[Any] = self._tcp.connect(factory)
        return connected.addCallback(lambda transport: transport.wrappedProtocol)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class ServerParser:
    """``dicomtls:PORT:key=FILE:cert=FILE[:ca=FILE][:crl=FILE][:verify=required|optional|none]
    [:profile=NAME][:interface=ADDR]``; with ``ca``, ``verify`` is ``required``."""

    prefix = "dicomtls"

    def parseStreamServer(
        self, reactor: Any, /, *arguments: str, **options: str
    ) -> TLSServerEndpoint:
        """Raises `ValueError` that names the word that is wrong."""
        (port,) = _arguments(arguments, "PORT", str(DEFAULT_PORT))
        taken = _options(options, "key", "cert", "ca", "verify", "profile", "interface", "crl")
        verify = _verify(taken, "required" if taken["ca"] else "none")
        if not (taken["key"] or taken["cert"]):
            raise ValueError("key=FILE and cert=FILE are missing")
        if verify != "none" and not taken["ca"]:
            raise ValueError(f"verify={verify} needs ca=FILE, the authorities to trust")
        connections = ServerConnections(_profile(taken), _files(taken, verify), verify=verify)
        return TLSServerEndpoint(reactor, _port(port, 0), connections, taken["interface"])


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ClientParser:
    """``dicomtls:HOST:PORT[:hostname=NAME][:ca=FILE][:crl=FILE][:cert=FILE:key=FILE][:verify=…]
    [:profile=NAME]``; without ``ca`` the authorities of this machine are trusted."""

    prefix = "dicomtls"

    def parseStreamClient(
        self, reactor: Any, /, *arguments: str, **options: str
    ) -> TLSClientEndpoint:
        """Raises `ValueError` that names the word that is wrong."""
        host, port = _arguments(arguments, "HOST:PORT", "", str(DEFAULT_PORT))
        if not host:
            raise ValueError("HOST is missing")
        taken = _options(options, "hostname", "ca", "cert", "key", "verify", "profile", "crl")
        verify = _verify(taken, "required")
        connections = ClientConnections(
            _profile(taken),
            _files(taken, verify),
            taken["hostname"] or host,
            verify=verify,
        )
        return TLSClientEndpoint(reactor, host, _port(port, 1), connections)


def _arguments(given: tuple[str, ...], names: str, *defaults: str) -> tuple[str, ...]:
    if len(given) > len(defaults):
        raise ValueError(f"{':'.join(given[len(defaults) :])}: nothing more goes after {names}")
    return given + defaults[len(given) :]


def _options(given: dict[str, str], *known: str) -> dict[str, str]:
    for name in given:
        if name not in known:
            raise ValueError(f"{name}={given[name]}: no such word; there are {_list(known)}")
    return {name: given.get(name, "") for name in known}


def _verify(taken: dict[str, str], default: str) -> str:
    verify = taken["verify"] or default
    if verify not in VERIFY:
        raise ValueError(f"verify={verify}: choose {_list(VERIFY)}")
    return verify


def _profile(taken: dict[str, str]) -> Any:
    return profile_named(taken["profile"] or DEFAULT_PROFILE)


def _files(taken: dict[str, str], verify: str) -> Files:
    if taken["crl"] and verify == "none":
        raise ValueError("crl=FILE is for certificates that are verified; here is verify=none")
    return Files.of(taken["key"], taken["cert"], taken["ca"], taken["crl"])


def _port(text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text) < 65536):
        raise ValueError(f"{text}: not a port")
    return int(text)


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)
