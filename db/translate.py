"""The one place where a driver's errors become ours."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from db.errors import (
    BadDatabaseURL,
    DatabaseLocked,
    DatabaseReadOnly,
    DatabaseUnreachable,
    DiskFailed,
    DiskFull,
    NotADatabase,
)
from search.errors import AutotuneError

_TEXTS: dict[type[AutotuneError], str] = {
    DatabaseLocked: "The database {place} is locked by another process ({reason}).\n"
    "Wait until that process is done writing, or end it, then try again; nothing of this was written.",
    DatabaseReadOnly: "The database {place} may not be used for this ({reason}).\n"
    "Allow this user to read and write it and its folder, or give another place with --db.",
    BadDatabaseURL: "{place} is no place for a database ({reason}).\n"
    "Give a path whose folders are folders and whose name the file system takes.",
    DiskFull: "No room is left for the database {place} ({reason}).\n"
    "Free some space and start again; what was committed before is safe.",
    DiskFailed: "The disk of the database {place} cannot be read or written ({reason}).\n"
    "See whether it is full or failing; what was committed before is safe.",
    DatabaseUnreachable: "The database {place} does not answer ({reason}).\n"
    "Check that it is there and running, and the user, password and address in the URL.",
    NotADatabase: "{place} is not a database of autotune, or is damaged ({reason}).\n"
    "Restore it from a copy, or give another place with --db.",
}
_SQLITE = {  # primary result codes, https://www.sqlite.org/rescode.html
    sqlite3.SQLITE_BUSY: DatabaseLocked,
    sqlite3.SQLITE_LOCKED: DatabaseLocked,
    sqlite3.SQLITE_READONLY: DatabaseReadOnly,
    sqlite3.SQLITE_PERM: DatabaseReadOnly,
    sqlite3.SQLITE_CANTOPEN: DatabaseReadOnly,
    sqlite3.SQLITE_FULL: DiskFull,
    sqlite3.SQLITE_IOERR: DiskFailed,
    sqlite3.SQLITE_CORRUPT: NotADatabase,
    sqlite3.SQLITE_NOTADB: NotADatabase,
}
_POSTGRES = {  # classes and codes, https://www.postgresql.org/docs/current/errcodes-appendix.html
    "08": DatabaseUnreachable,  # connection exception
    "28": DatabaseUnreachable,  # invalid authorization
    "3D000": DatabaseUnreachable,  # no such database on the server
    "53300": DatabaseUnreachable,  # too many connections
    "57P": DatabaseUnreachable,  # the server shuts down
    "25006": DatabaseReadOnly,  # read-only transaction
    "42501": DatabaseReadOnly,  # insufficient privilege
    "40001": DatabaseLocked,  # serialization failure
    "40P01": DatabaseLocked,  # deadlock
    "55P03": DatabaseLocked,  # lock timeout
    "53100": DiskFull,
    "42P07": NotADatabase,  # another program's tables have our names
}
_FILES = {
    errno.EACCES: DatabaseReadOnly,
    errno.EPERM: DatabaseReadOnly,
    errno.EROFS: DatabaseReadOnly,
    errno.ENOSPC: DiskFull,
    errno.EDQUOT: DiskFull,
    errno.ENOTDIR: BadDatabaseURL,
    errno.EEXIST: BadDatabaseURL,  # a file where a folder is to be made
    errno.ENAMETOOLONG: BadDatabaseURL,
}


def _meaning(error: BaseException | None) -> type[AutotuneError] | None:
    if isinstance(error, sqlite3.Error):
        return _SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    if hasattr(error, "sqlstate"):  # psycopg's, whose import takes long and SQLite does without
        state = getattr(error, "sqlstate", None) or "08"  # what fails before a server answers has no state
        return next((kind for code, kind in _POSTGRES.items() if state.startswith(code)), None)
    if isinstance(error, OSError):
        return _FILES.get(error.errno or 0)
    return None


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Turns what drivers and files report inside the block into ``db.errors``; lets our own bugs through.

    Args:
        place: The database in the words to show to people (``db.engine.shown``).
    """
    try:
        yield
    except (DBAPIError, sqlite3.Error, OSError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        kind = _meaning(cause)
        if kind is None:
            raise
        reason = str(cause).strip().partition("\n")[0]
        raise kind(_TEXTS[kind].format(place=place, reason=reason)) from error
