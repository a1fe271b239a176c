"""From what a person gives as a database to an engine, and transactions on it."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import platformdirs
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from db.errors import BadDatabaseURL, DatabaseMissing, DatabaseUnreachable, NotADatabase
from db.translate import translated

BUSY_TIMEOUT_S = 30.0
"""How long to wait for other writers. A transaction of ours takes milliseconds; a migration, seconds."""


def resolve_url(given: str | None = None) -> str:
    """The URL of the database meant: the argument, else ``AUTOTUNE_DB``, else the user's data folder.

    Args:
        given: A path (SQLite), ``sqlite:///PATH``, or ``postgresql://USER:PASSWORD@HOST/NAME``.

    Raises:
        BadDatabaseURL: It is none of these.
    """
    text = given or os.environ.get("AUTOTUNE_DB") or platformdirs.user_data_dir("autotune") + "/autotune.db"
    try:
        url = make_url(text) if "://" in text else URL.create("sqlite", database=os.path.expanduser(text))
    except (ArgumentError, ValueError):
        raise _bad(text) from None  # whose text may hold a part of the password
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        file = url.database or ":memory:"
        if file.startswith((":memory:", "file:")) or url.host or url.query not in ({}, {"mode": "ro"}):
            raise _bad(text)
        url = url.set(drivername="sqlite", database=os.path.abspath(file))
    elif url.drivername in ("postgresql", "postgresql+psycopg") and url.database:
        url = url.set(drivername="postgresql+psycopg")
    else:
        raise _bad(text)
    return url.render_as_string(hide_password=False)


def _bad(text: str) -> BadDatabaseURL:
    return BadDatabaseURL(
        f"{_masked(text)!r} is no place for a database.\nGive a path (SQLite; in memory is not possible), "
        "sqlite:////absolute/path, or postgresql://USER:PASSWORD@HOST/NAME."
    )


def shown(url: str) -> str:
    """A resolved URL as people may see it: a path for SQLite, elsewhere without passwords."""
    return str(sqlite_path(url) or _masked(url))


def _masked(url: str) -> str:
    """Without passwords, however malformed the URL is."""
    url = re.sub(r"://([^:@/]*):.*@", r"://\1:***@", url, flags=re.DOTALL)
    return re.sub(r"(pass\w*)=[^&]*", r"\1=***", url, flags=re.IGNORECASE)


def sqlite_path(url: str) -> Path | None:
    """The file of a resolved SQLite URL, None for a server."""
    return Path(make_url(url).database or "") if url.startswith("sqlite:") else None


def make_engine(
    url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S, foreign_keys: bool = True, create: bool = False
) -> Engine:
    """An engine for a resolved URL; connects to nothing yet.

    SQLite runs in WAL mode (set once, by ``db.migrate.create``), where readers and the one writer do not
    block each other, with ``synchronous=FULL``: every commit reaches the disk. ``NORMAL`` would be safe
    against killed processes too, but a power failure could take back the last commits; with a commit per
    batch of measurements, which took seconds, the few milliseconds do not matter.

    Args:
        foreign_keys: Enforced by SQLite; off while migrating, where tables are rebuilt.
        create: Let SQLite make the file.

    Raises:
        DatabaseMissing: A SQLite file that is not there, unless ``create``.
        DatabaseUnreachable: PostgreSQL's driver is not installed.
    """
    path = sqlite_path(url)
    if path is None:
        server = make_url(url)
        server = server.set(query={"connect_timeout": "10", **server.query})
        try:
            engine = create_engine(server, pool_pre_ping=True, json_serializer=_dumps)
        except ModuleNotFoundError as error:
            raise DatabaseUnreachable(
                f"{shown(url)} needs the driver {error.name}, which is not installed.\n"
                "Install it: pip install 'autotune-tensor[postgres]'"
            ) from error
        event.listen(engine, "connect", partial(_setup_postgres, round(busy_timeout_s * 1000)))
        return engine
    if not create and not path.is_file():
        if path.exists():
            raise NotADatabase(f"{path} is not a file, so not a database. Give a file's path.")
        raise DatabaseMissing(f"There is no database at {path}.\nCreate it: autotune db create --db {path}")
    query = {"mode": "rwc" if create else make_url(url).query.get("mode", "rw"), "uri": "true"}
    if not create and not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists():
        query["immutable"] = "1"  # nobody writes, and SQLite has nowhere to put its -shm file
    engine = create_engine(URL.create("sqlite", database=path.as_uri(), query=query), json_serializer=_dumps)
    event.listen(engine, "connect", partial(_setup_sqlite, round(busy_timeout_s * 1000), foreign_keys))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


_dumps = partial(json.dumps, allow_nan=False, separators=(",", ":"))
"""NaN is not JSON: PostgreSQL would refuse what SQLite takes."""


def _setup_postgres(timeout_ms: int, connection: Any, _record: object) -> None:
    connection.autocommit = True
    connection.execute(f"SET lock_timeout = {timeout_ms}")
    connection.autocommit = False


def _setup_sqlite(timeout_ms: int, foreign_keys: bool, connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transactions; _begin_sqlite does
    connection.execute(f"PRAGMA busy_timeout = {timeout_ms}")
    connection.execute(f"PRAGMA foreign_keys = {foreign_keys:d}")
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    """Writers take the lock at once: a reader that turns writer fails without waiting if another wrote."""
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


class Database:
    """An engine and the transactions on it, errors translated. For any threads of one process."""

    def __init__(self, url: str, busy_timeout_s: float = BUSY_TIMEOUT_S, foreign_keys: bool = True) -> None:
        self.url = url
        self.engine = make_engine(url, busy_timeout_s=busy_timeout_s, foreign_keys=foreign_keys)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads."""
        with translated(shown(self.url)), Session(self.engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """All or nothing, and durable once the block is left."""
        engine = self.engine.execution_options(writing=True)
        with translated(shown(self.url)), Session(engine) as session, session.begin():
            yield session

    def close(self) -> None:
        self.engine.dispose()
