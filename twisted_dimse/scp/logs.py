"""Log lines for machines: one JSON object a line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, TextIO

from twisted.logger import ILogObserver, formatEvent
from zope.interface import implementer

_PLAIN = (str, int, float, bool, type(None))


@implementer(ILogObserver)
class JSONLines:
    """Writes ``{"time", "level", "logger", "message", …}`` with the event's own plain fields."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __call__(self, event: dict[str, Any]) -> None:
        level = event.get("log_level")
        time = datetime.fromtimestamp(event.get("log_time", 0), UTC)
        line = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": level.name if level is not None else "info",
            "logger": event.get("log_namespace", ""),
            "message": formatEvent(event),
        }
        failure = event.get("log_failure")
        if failure is not None:
            line["error"] = f"{failure.type.__name__}: {failure.value}"
            line["traceback"] = failure.getTraceback()
        for key, value in event.items():
            if not key.startswith("log_") and key not in line and isinstance(value, _PLAIN):
                line[key] = value
        self._out.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._out.flush()
