"""Where a peer is and what it is called.

Peer.parse("PACS@10.0.0.5:104")                       # host and port
Peer.parse("PACS@[fe80::1]:104")                      # IPv6
Peer.parse("PACS@ssl:pacs.example:2762")              # any Twisted client endpoint string
Peer("PACS", "10.0.0.5:104") == Peer.parse("PACS@10.0.0.5:104")
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

_HOST_PORT = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:\[\]@]+)):(?P<port>\d{1,5})"
)

# The options of a dicomtls: endpoint, whose colons inside values are escaped.
_DICOMTLS = re.compile(r"(?<!\\):\w+=.*", re.DOTALL)


def valid_ae_title(title: str) -> bool:
    """1 to 16 characters of ISO 646 without control characters and backslash, not only spaces
    (PS3.5 6.2)."""
    return (
        0 < len(title) <= 16
        and title.strip(" ") != ""
        and all(" " <= character <= "~" and character != "\\" for character in title)
    )


@dataclass(frozen=True, slots=True)
class Peer:
    """A DICOM node. `address` is ``host:port``, ``[v6]:port``, a client endpoint string, or an
    `IStreamClientEndpoint`.

    Raises `ValueError` for a title or an address that cannot be one.
    """

    ae_title: str
    address: Any

    def __post_init__(self) -> None:
        if not valid_ae_title(self.ae_title):
            raise ValueError(f"{self.ae_title!r} is not an AE title (1 to 16 plain characters)")
        if isinstance(self.address, str) and not self.address:
            raise ValueError(f"peer {self.ae_title}: no address")

    @classmethod
    def parse(cls, text: str) -> Peer:
        """``AET@address``. Raises `ValueError`."""
        title, at, address = text.partition("@")
        if not at:
            raise ValueError(f"{text!r} is not a peer: write AET@host:port")
        peer = cls(title, address)
        peer.host_and_port()
        return peer

    def host_and_port(self) -> tuple[str, int] | None:
        """Host and port where the address is of that form, None for an endpoint."""
        if not isinstance(self.address, str):
            return None
        match = _HOST_PORT.fullmatch(self.address)
        if match is None:
            if ":" not in self.address:
                raise ValueError(f"{self.address!r} is not an address: write host:port")
            return None
        port = int(match["port"])
        if not 0 < port < 65536:
            raise ValueError(f"{self.address!r}: {port} is not a port")
        return match["v6"] or match["host"], port

    def endpoint(self, reactor: Any) -> Any:
        """The `IStreamClientEndpoint` to connect to. Raises `ValueError` for a bad string."""
        from twisted.internet.endpoints import HostnameEndpoint, clientFromString

        where = self.host_and_port()
        if where is not None:
            # The deadline over everything is the caller's; a refused address costs little time.
            return HostnameEndpoint(reactor, *where, timeout=3600, attemptDelay=0.05)
        if not isinstance(self.address, str):
            return self.address
        try:
            return clientFromString(reactor, self.address)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{self.address!r} is not a client endpoint: {error}") from None

    def __str__(self) -> str:
        where = str(self.address)
        if where.startswith("dicomtls:"):  # the files behind host and port are for nobody to read
            where = _DICOMTLS.sub("", where)
        return f"{self.ae_title}@{where}"


def in_words(address: Any) -> str:
    """An `IAddress` as people write it: ``host:port``, ``[v6]:port``, or the path of a socket."""
    if hasattr(address, "port"):
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{host}:{address.port}"
    name = getattr(address, "name", address)
    return os.fsdecode(name) if isinstance(name, bytes) else str(name)
