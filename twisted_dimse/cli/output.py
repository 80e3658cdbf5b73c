"""Standard output and standard error, whatever they are: closed, or in an old encoding; and what
is said there."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any


def prepare() -> None:
    """See that text can be written: to nowhere where a stream is closed, and with "?" for what its
    encoding has not. In UTF-8 a file name goes out as the octets that it has."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        is_utf_8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        with contextlib.suppress(OSError):  # which became another file since it was opened
            sys.stdout.reconfigure(errors="surrogateescape" if is_utf_8 else "replace")


def tell_errors(write: Callable[[str], object]) -> None:
    """Give to ``write`` from now on what is logged as an error, such as a full disk; once each, for
    there may be a thousand instances."""
    from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
    from zope.interface import provider

    told: set[str] = set()

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.error:
            kind = str(event.get("text"))
            if kind not in told:
                told.add(kind)
                write(formatEvent(event))

    globalLogPublisher.addObserver(observe)


def json_line(value: Any, encoding: str | None = None) -> str:
    """A value in JSON, for standard output or a file of this encoding; in escapes where that has
    not all its characters, or a file name is not in UTF-8."""
    line = json.dumps(value, ensure_ascii=False)
    try:
        line.encode(encoding or getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return line
