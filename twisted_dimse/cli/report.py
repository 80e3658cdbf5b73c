"""``dimse store --report FILE``: what became of each file, as JSON lines, so that the same command
can go on where it stopped.

    {"peer": "PACS@10.0.0.5:104", "path": "/data/1.dcm", "sop_instance_uid": …, "status": 0, …}
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from twisted_dimse.cli.output import json_line
from twisted_dimse.datastream import FileSource
from twisted_dimse.services.storage import StoreOutcome


class Report:
    """The report of one peer in a file that is appended to. Raises `click.UsageError`."""

    def __init__(self, path: str, peer: Any) -> None:
        self._peer = str(peer)
        self._acknowledged: set[tuple[str, str]] = set()
        try:
            if os.path.exists(path):
                self._read(Path(path).read_text("utf-8"))
            self._file = open(path, "a", encoding="utf-8")
        except OSError as error:
            raise click.UsageError(f"--report {path}: {error.strerror}.") from None
        except (ValueError, KeyError, TypeError):
            raise click.UsageError(f"--report {path}: there, and no report.") from None

    def knows(self, source: FileSource) -> bool:
        """Whether this peer has acknowledged this file."""
        return (os.path.abspath(source.path), source.sop_instance_uid) in self._acknowledged

    def note(self, outcome: StoreOutcome) -> None:
        """One more line, written out at once."""
        if outcome.skipped:
            return
        line = {
            "peer": self._peer,
            "path": os.path.abspath(outcome.path),
            "sop_instance_uid": outcome.sop_instance_uid,
            "status": outcome.status,
            "error": outcome.error or None,
        }
        self._file.write(json_line(line, "utf-8") + "\n")
        self._file.flush()

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def _read(self, text: str) -> None:
        *lines, last = text.split("\n")
        if last:  # the line of a run that was killed while it wrote
            lines.append("")
        for line in filter(None, lines):
            entry = json.loads(line)
            known = StoreOutcome(entry["path"], entry["sop_instance_uid"], entry["status"])
            if entry["peer"] == self._peer and known.ok:
                self._acknowledged.add((known.path, known.sop_instance_uid))
