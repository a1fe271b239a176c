"""What can be wrong with a database, one class and one exit code a situation.

Most are raised in one place each: ``db.engine`` for what a URL says, ``db.migrate`` for revisions,
``db.translate`` for what the drivers report. No text holds a password.
"""

from search.errors import AutotuneError


class DatabaseMissing(AutotuneError):
    """There is nothing at the URL: no file, or a server's database without our tables."""

    exit_code = 20


class DatabaseOlder(AutotuneError):
    """An older autotune made it; migrating brings it up to date."""

    exit_code = 21


class DatabaseNewer(AutotuneError):
    """A newer autotune made it; this one would misread it."""

    exit_code = 22


class NotADatabase(AutotuneError):
    """The file is something else, another program's database, or damaged."""

    exit_code = 23


class DatabaseLocked(AutotuneError):
    """Another process held a lock for longer than the busy timeout."""

    exit_code = 24


class DatabaseReadOnly(AutotuneError):
    """Writing was asked for, and the file, its folder or the user's role does not allow it."""

    exit_code = 25


class DiskFull(AutotuneError):
    """No room for the next page; what was committed before is safe."""

    exit_code = 26


class DatabaseUnreachable(AutotuneError):
    """The server does not answer or does not let us in, or its driver is not installed."""

    exit_code = 27


class BadDatabaseURL(AutotuneError):
    """The text given as a database's place cannot be one."""

    exit_code = 28


class NoSuchRecord(AutotuneError):
    """A hash, prefix, run or name that was asked for does not stand for exactly one record."""

    exit_code = 29


class DatabaseExists(AutotuneError):
    """Creating was asked for where something lies already; nothing was touched."""

    exit_code = 30


class BadRecords(AutotuneError):
    """A file of records that cannot be read or written, is in no known format, or too damaged for any use."""

    exit_code = 32


class DiskFailed(AutotuneError):
    """The disk of a database can be neither read nor written, often because it is full."""

    exit_code = 34


class NoUsableRecords(AutotuneError):
    """Nothing of what was to be imported or exported could be."""

    exit_code = 33


class CheckpointExists(AutotuneError):
    """A checkpoint was to be added under the name of another."""

    exit_code = 38
