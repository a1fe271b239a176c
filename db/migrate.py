"""Four things apart: create a database, migrate it, tell its version, and check it on opening.

Only the first two write. The schema's history lies in ``migrations/``, beside this package both in the
repository and where it is installed.
"""

import os
import sqlite3
import tempfile
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, func, inspect, select, text

from db.engine import Database, make_engine, resolve_url, shown, sqlite_path
from db.errors import (
    DatabaseExists,
    DatabaseMissing,
    DatabaseNewer,
    DatabaseOlder,
    NotADatabase,
)
from db.translate import translated

SCRIPTS = Path(__file__).resolve().parents[1] / "migrations"
VERSION_TABLE = "autotune_revision"
"""Not Alembic's default name: a database of another program that uses Alembic is not taken for ours."""
_CREATING = 0x6175746F  # key of the advisory lock: "auto"


def config(connection: Connection | None = None) -> Config:
    """Alembic's settings; its commands run on ``connection``, in the transaction that is open there."""
    settings = Config(attributes={"connection": connection, "version_table": VERSION_TABLE})
    settings.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return settings


def create(url: str | None = None) -> None:
    """Makes a new database, SQLite's file and folders included; on a server, the tables in an empty one.

    SQLite's file is made aside and linked into place when it is whole, so nobody ever sees half of one.

    Raises:
        DatabaseExists: Something is there already; it is left as it is.
    """
    url = resolve_url(url)
    path = sqlite_path(url)
    with translated(shown(url)):
        if path:
            _create_file(path)
        else:
            _create_tables(url)


def create_if_missing(url: str | None = None) -> None:
    """As ``create``, but content with what is there. Any number of processes may do so at once."""
    with suppress(DatabaseExists):
        create(url)


def _create_file(path: Path) -> None:
    exists = DatabaseExists(f"There is something at {path} already; it was left as it is.")
    if path.exists():
        raise exists
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        new = Path(folder) / path.name
        engine = make_engine(resolve_url(str(new)), create=True)
        try:
            with closing(engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
            with engine.begin() as connection:
                command.upgrade(config(connection), "head")
        finally:
            engine.dispose()
        try:
            os.link(new, path)
        except FileExistsError:
            raise exists from None
        except OSError:  # a file system without hard links; where it is for lack of rights, this fails too
            new.rename(path)


def _create_tables(url: str) -> None:
    with closing(Database(url)) as database, database.writing() as session:
        session.execute(select(func.pg_advisory_xact_lock(_CREATING)))
        if _found(session.connection()):
            raise DatabaseExists(f"{shown(url)} holds tables of autotune already; it was left as it is.")
        command.upgrade(config(session.connection()), "head")


def migrate(url: str | None = None) -> Path | None:
    """Brings a database up to this version of autotune, whole or not at all.

    Returns:
        The copy made of a SQLite file before it was changed; None where nothing had to be done, and for
        a server, whose copies are its administrator's.

    Raises:
        DatabaseNewer: A newer version of autotune made it.
    """
    url = resolve_url(url)
    path = sqlite_path(url)
    with closing(Database(url, foreign_keys=False)) as database, database.writing() as session:
        connection = session.connection()
        found, head = _versions(database, connection)
        if found == head:
            return None
        _refuse_newer(database, found, head)
        backup = _backup(path, found) if path else None
        command.upgrade(config(connection), "head")
        if path and connection.execute(text("PRAGMA foreign_key_check")).first():
            raise NotADatabase(f"{path} is damaged: rows refer to nothing. It was not changed; use a copy.")
    return backup


def _backup(path: Path, revision: str) -> Path:
    """A consistent copy beside the database, what still lies in its -wal file included."""
    copy = path.with_name(f"{path.name}.{revision}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}.bak")
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    except sqlite3.Error:
        copy.unlink(missing_ok=True)
        raise
    return copy


def version(url: str | None = None) -> tuple[str, str]:
    """The revision found in the database and the one that this version of autotune works with."""
    with closing(Database(resolve_url(url))) as database, database.reading() as session:
        return _versions(database, session.connection())


def check(database: Database) -> str:
    """The revision, where it is the right one. Changes nothing.

    Raises:
        DatabaseMissing, NotADatabase: There are no tables of ours.
        DatabaseOlder, DatabaseNewer: Their revision is not the one that this version works with.
    """
    with database.reading() as session:
        found, head = _versions(database, session.connection())
    if found != head:
        _refuse_newer(database, found, head)
        place = shown(database.url)
        raise DatabaseOlder(
            f"The database {place} is at revision {found}, and this version of autotune works with {head}.\n"
            f"Bring it up to date: autotune db migrate --db {place}"
        )
    return found


def _versions(database: Database, connection: Connection) -> tuple[str, str]:
    head = ScriptDirectory.from_config(config()).get_current_head()
    found = _found(connection)
    if head is None:
        raise RuntimeError(f"no migrations in {SCRIPTS}")
    if found is None:
        place = shown(database.url)
        nothing = f"{place} holds no tables of autotune."
        if sqlite_path(database.url):
            raise NotADatabase(f"{nothing}\nGive another place with --db.")
        raise DatabaseMissing(f"{nothing}\nCreate them: autotune db create --db {place}")
    return found, head


def _found(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return found


def _refuse_newer(database: Database, found: str, head: str) -> None:
    try:
        ScriptDirectory.from_config(config()).get_revision(found)
    except CommandError:
        raise DatabaseNewer(
            f"The database {shown(database.url)} is at revision {found}, and this version of autotune knows "
            f"none after {head}.\nUpgrade autotune, or give another database with --db."
        ) from None
