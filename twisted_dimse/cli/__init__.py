"""``dimse``: the command line, one file a command, thin over the library.

`main` is the console script. Each command's module is imported when it is called, so that
``dimse --help`` is quick.
"""

from __future__ import annotations

from twisted_dimse.cli.main import main

__all__ = ["main"]
