"""Databases for the index: both kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from databases import PostgreSQL

#: Gives the URL of a new database.
NewDatabase = Callable[[], str]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> NewDatabase:
    if request.param == "postgresql":
        server: PostgreSQL = request.getfixturevalue("postgresql")
        return server.database
    return lambda: f"sqlite:///{tmp_path_factory.mktemp('index')}/index.sqlite"


@pytest.fixture
def database(new_database: NewDatabase) -> str:
    """The URL of a new database."""
    return new_database()
