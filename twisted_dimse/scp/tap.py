"""``twistd dimse-scp``: the plugin's two names."""

from __future__ import annotations

from twisted_dimse.scp.options import Options
from twisted_dimse.scp.service import SCPService


def makeService(options: Options) -> SCPService:
    """The service of the given options."""
    if options["workers"] == 1:
        return SCPService(options)
    from twisted_dimse.scp.master import MasterService

    return MasterService(options)


__all__ = ["Options", "makeService"]
