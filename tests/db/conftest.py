"""One store, two backends: every test that takes ``database_url`` or ``store`` runs on both."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from db_postgres import PostgresServer, programs, running

from db.store import Store


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed: no initdb on PATH or in /usr/lib/postgresql/*/bin")
    with running(folder) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a database can be created: a file that is not there yet, or an empty database of a server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/autotune.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.empty_database()


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url, create=True) as store:
        yield store
