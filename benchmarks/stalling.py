"""A server of ours on a disk that stalls: ``python -m benchmarks.stalling CALL SECONDS WORD…``

Runs ``twistd`` with the words. Each CALL of `os` on an instance that has no name yet, such as
``fsync``, takes so many seconds longer, in whichever thread it is made.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any


def stall(name: str, seconds: float) -> None:
    """Have a function of `os` take longer on the files under ``incoming``."""
    real = getattr(os, name)

    def call(what: Any, *args: Any, **more: Any) -> Any:
        path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)
        if path.endswith(".part"):
            time.sleep(seconds)
        return real(what, *args, **more)

    setattr(os, name, call)


if __name__ == "__main__":
    _, name, duration, *words = sys.argv
    stall(name, float(duration))
    sys.argv = ["twistd", *words]
    from twisted.scripts.twistd import run

    run()
