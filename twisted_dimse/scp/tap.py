"""``twistd dimse-scp``: the plugin's two names."""

from __future__ import annotations

from twisted_dimse.scp.options import Options
from twisted_dimse.scp.service import SCPService


def makeService(options: Options) -> SCPService:
    """The service of the given options."""
    return SCPService(options)


__all__ = ["Options", "makeService"]
