"""A PostgreSQL server for the length of a test session."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

import psycopg


class PostgresServer:
    """A server in a folder of its own, reached over a socket in it, without syncing to the disk."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self.programs, self.folder, self.user = programs, folder, user

    def run(self, program: str, *args: str) -> None:
        subprocess.run(
            [self.programs / program, "-D", str(self.folder / "data"), *args],
            check=True,
            capture_output=True,
            cwd=self.folder,
            user=self.user,
            group=pwd.getpwnam(self.user).pw_gid if self.user else None,
            extra_groups=[] if self.user else None,
        )

    def url(self, database: str) -> str:
        return f"postgresql://autotune@/{database}?host={self.folder}"

    def empty_database(self) -> str:
        """The URL of a database as good as new, in a tenth of the time that a new one takes."""
        url = self.url("postgres")
        with psycopg.connect(url) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return url


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, if it is installed."""
    found = shutil.which("initdb") or next(iter(glob("/usr/lib/postgresql/*/bin/initdb")), None)
    return Path(found).resolve().parent if found else None


@contextmanager
def running(programs: Path) -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="autotune-pg-", dir="/tmp"))  # a socket's path must be short
    user = None
    if os.getuid() == 0:  # as whom PostgreSQL refuses to run
        user = "postgres" if any(u.pw_name == "postgres" for u in pwd.getpwall()) else "nobody"
        shutil.chown(folder, user)
    server = PostgresServer(programs, folder, user)
    options = f"-F -c listen_addresses= -c unix_socket_directories={folder}"
    try:
        server.run("initdb", "-U", "autotune", "-A", "trust", "-E", "UTF8", "--no-sync")
        server.run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield server
        finally:
            server.run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
