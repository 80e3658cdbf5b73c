"""PostgreSQL, started for the tests on a folder of its own.

    with PostgreSQL() as server:
        Index.open(server.database())

Where it or psycopg is not installed the test is skipped, or fails, as `peers.absent` has it.
"""

from __future__ import annotations

import glob
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from peers import SECONDS, absent, wait_until


def _program(name: str) -> str:
    """The path of one of PostgreSQL's programs, which Debian keeps out of the way."""
    versions = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)
    return shutil.which(name) or (versions[0] if versions else absent("PostgreSQL"))


class PostgreSQL:
    """A server with a socket in its folder and no port. It does not wait for the disk."""

    def __init__(self) -> None:
        if find_spec("psycopg") is None:
            absent("psycopg")
        initdb = _program("initdb")
        self._folder = tempfile.mkdtemp(prefix="postgres-", dir="/tmp")  # a short path: see unix(7)
        self._numbers = itertools.count(1)
        self._process: Any = None
        # It refuses to run as root.
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
            self._user = {"user": "postgres", "group": "postgres", "extra_groups": ()}
        try:
            # With an order of characters that is not that of their codes, as most have it.
            order = ["--locale-provider=icu", "--icu-locale=en", "--locale=C"]
            words = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", *order]
            self._run(initdb, "-D", f"{self._folder}/data", *words)
            self.start()
        except BaseException:
            shutil.rmtree(self._folder)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.crash()
        shutil.rmtree(self._folder)

    def database(self) -> str:
        """The URL of a new database."""
        name = f"archive{next(self._numbers)}"
        self._ask(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    def start(self) -> None:
        """Start it; returns when it answers."""
        words = ["-c", "listen_addresses=", "-F", "-k", self._folder]
        self._process = subprocess.Popen(
            [_program("postgres"), "-D", f"{self._folder}/data", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=open(f"{self._folder}/log", "ab"),
            cwd=self._folder,
            **self._user,
        )
        wait_until(lambda: self._answers() or self._process.poll() is not None, within=SECONDS)
        assert self._process.poll() is None, Path(self._folder, "log").read_text()

    def crash(self) -> None:
        """End it at once, with all that it serves: the next start recovers."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(SECONDS)

    def crash_and_start(self) -> None:
        self.crash()
        self.start()

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, cwd=self._folder, capture_output=True, text=True, timeout=SECONDS, **self._user
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _answers(self) -> bool:
        import psycopg

        try:
            self._ask("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _ask(self, statement: Any) -> None:
        import psycopg

        where = f"host={self._folder} user=postgres dbname=postgres"
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(statement)
