"""What goes wrong with a database is told in a line or two, and destroys nothing."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import psycopg
import pytest
from db_postgres import PostgresServer
from db_samples import HERE, candidate, timed, workload
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError

from db import errors, migrate
from db.engine import Database, resolve_url, shown, sqlite_path
from db.store import Store
from db.translate import translated
from search.errors import AutotuneError

FROZEN = Path(__file__).with_name("data") / "0001.db"
MORE = [timed(candidate(i), 1.0) for i in range(100)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small database of the newest revision."""
    path = tmp_path / "folder" / "autotune.db"
    path.parent.mkdir()
    shutil.copy(FROZEN, path)
    migrate.migrate(str(path))
    return path


def files(folder: Path) -> dict[str, str]:
    return {p.name: sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_exit_codes_are_distinct() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, AutotuneError)]
    assert sorted(c.exit_code for c in classes if c is not AutotuneError) == [*range(20, 31), 32, 33, 34, 38]


def test_opening_and_reading_change_no_byte(file: Path) -> None:
    before, time = files(file.parent), file.stat().st_mtime_ns
    with Store.open(str(file)) as store:
        assert store.best(workload().hash, HERE) and store.stats() and store.runs()
    migrate.version(str(file))
    migrate.migrate(str(file))
    assert files(file.parent) == before and file.stat().st_mtime_ns == time


@pytest.mark.parametrize("place", ["none.db", "none/none.db"])
def test_missing_file_stays_missing(tmp_path: Path, place: str) -> None:
    for act in (Store.open, migrate.version, migrate.migrate):
        with pytest.raises(errors.DatabaseMissing, match=rf"{place}\.\n.* autotune db create --db .*{place}"):
            act(str(tmp_path / place))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"some text\n" * 1000, None], ids=["empty", "text", "folder"])
def test_what_is_no_database(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "thing"
    path.mkdir() if content is None else path.write_bytes(content)
    for act in (Store.open, migrate.version, migrate.migrate):
        with pytest.raises(errors.NotADatabase, match="thing"):
            act(str(path))
    with pytest.raises(errors.DatabaseExists):
        migrate.create(str(path))
    assert content is None or path.read_bytes() == content


@pytest.mark.parametrize("left", [0.01, 0.5, 0.95])
def test_truncated_file(file: Path, left: float) -> None:
    os.truncate(file, int(file.stat().st_size * left))
    with pytest.raises(errors.NotADatabase, match=r"damaged \(.*\)\.\nRestore"):
        Store.open(str(file))


def test_damage_found_while_reading(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(errors.NotADatabase), Store.open(str(file)) as store:
        store.measurements(workload().hash, HERE)


def test_read_only_by_url(file: Path) -> None:
    with Store.open(f"sqlite:///{file}?mode=ro") as store:
        assert store.workload(workload().hash) == workload()
        with pytest.raises(errors.DatabaseReadOnly, match=r"autotune\.db"):
            store.add_measurements(None, HERE, MORE)


@pytest.fixture
def powerless() -> Iterator[Callable[[], None]]:
    """Call it to become a user for whom permissions count, which they do not for root."""
    became = []

    def become() -> None:
        if os.getuid() == 0:
            became.append(True)
            os.setresuid(65534, 65534, 0)

    yield become
    if became:
        os.setresuid(0, 0, 0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="autotune-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_read_only_file_in_a_read_only_folder(
    file: Path, public_folder: Path, powerless: Callable[[], None]
) -> None:
    path = public_folder / "autotune.db"
    shutil.copy(file, path)
    path.chmod(0o444)
    public_folder.chmod(0o555)
    before = files(public_folder)
    powerless()
    with Store.open(str(path)) as store:
        assert store.workload(workload().hash) == workload()
        with pytest.raises(errors.DatabaseReadOnly, match="Allow this user"):
            store.add_measurements(None, HERE, MORE)
    with pytest.raises(errors.DatabaseReadOnly, match="Allow this user"):
        migrate.create(str(public_folder / "new.db"))
    assert files(public_folder) == before


def test_unreadable_file(file: Path, public_folder: Path, powerless: Callable[[], None]) -> None:
    path = public_folder / "autotune.db"
    shutil.copy(file, path)
    path.chmod(0o200)
    powerless()
    with pytest.raises(errors.DatabaseReadOnly, match="unable to open"):
        Store.open(str(path))


def test_locked(database_url: str) -> None:
    migrate.create(database_url)
    lock = "PRAGMA user_version" if sqlite_path(resolve_url(database_url)) else "LOCK TABLE measurements"
    with (
        Store.open(database_url, busy_timeout_s=0.1) as store,
        closing(Database(resolve_url(database_url))) as other,
    ):
        store.add_workload(workload())
        with other.writing() as session:
            session.execute(text(lock))
            with pytest.raises(errors.DatabaseLocked, match="by another process"):
                store.add_measurements(None, HERE, MORE)
            if lock.startswith("PRAGMA"):
                assert store.measurements(workload().hash, HERE) == []  # who reads is not kept waiting
        store.add_measurements(None, HERE, MORE)
        assert store.measurements(workload().hash, HERE) == MORE


def allow_no_more_pages(connection: Connection) -> None:
    connection.exec_driver_sql("PRAGMA max_page_count = 1")


def test_disk_full_keeps_what_was_committed(file: Path) -> None:
    with Store.open(str(file)) as store:
        before = store.measurements(workload().hash, HERE)
        event.listen(store._database.engine, "begin", allow_no_more_pages)
        with pytest.raises(errors.DiskFull, match="committed before is safe"):
            store.add_measurements(None, HERE, MORE)
        assert store.measurements(workload().hash, HERE) == before


def test_disk_really_full(file: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if sys.platform != "linux" or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        (disk / "filler").write_bytes(bytes(200 * 1024))
        with pytest.raises(errors.DiskFull):
            migrate.create(str(disk / "new.db"))
        assert [p.name for p in disk.iterdir()] == ["filler"]
        (disk / "filler").unlink()
        path = str(shutil.copy(file, disk))
        with Store.open(path) as store:
            before = store.measurements(workload().hash, HERE)
            with pytest.raises(errors.DiskFull):
                for _ in range(100):
                    store.add_measurements(None, HERE, MORE)
                    before += MORE
            assert store.measurements(workload().hash, HERE) == before
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("url", ["{}://me:s3cret@127.0.0.1:1/db", "{}://me@127.0.0.1:1/db?password=s3cret"])
def test_server_that_does_not_answer(url: str) -> None:
    for act in (Store.open, migrate.create, migrate.version):
        with pytest.raises(errors.DatabaseUnreachable, match=r"(?s)127\.0\.0\.1.*Check that") as caught:
            act(url.format("postgresql"))
        assert "s3cret" not in str(caught.value)


def test_server_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(errors.DatabaseUnreachable, match=r"autotune-tensor\[postgres\]"):
        Store.open("postgresql://me:s3cret@127.0.0.1:1/db")


def test_a_disk_that_fails_is_not_taken_for_a_server() -> None:
    cause = sqlite3.OperationalError("disk I/O error")
    cause.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    with pytest.raises(errors.DiskFailed, match="full or failing"), translated("here"):
        raise DBAPIError("SELECT", {}, cause)


def test_server_without_that_database(postgres: PostgresServer) -> None:
    with pytest.raises(errors.DatabaseUnreachable, match="none_such"):
        Store.open(postgres.url("none_such"))


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (psycopg.errors.DiskFull(), errors.DiskFull),
        (psycopg.errors.ReadOnlySqlTransaction(), errors.DatabaseReadOnly),
        (psycopg.errors.InsufficientPrivilege(), errors.DatabaseReadOnly),
        (psycopg.errors.DeadlockDetected(), errors.DatabaseLocked),
        (psycopg.errors.AdminShutdown(), errors.DatabaseUnreachable),
        (psycopg.errors.InvalidPassword(), errors.DatabaseUnreachable),
        (psycopg.OperationalError("server closed the connection"), errors.DatabaseUnreachable),
        (psycopg.errors.DuplicateTable(), errors.NotADatabase),
        (psycopg.errors.UndefinedColumn(), DBAPIError),  # a bug of ours
        (sqlite3.IntegrityError(), DBAPIError),
    ],
    ids=lambda each: getattr(each, "__name__", type(each).__name__),
)
def test_what_drivers_report(cause: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind), translated("here"):
        raise DBAPIError("SELECT", {}, cause)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:s3cret@host/db",
        "postgres://me:s3cret@host/db",
        "postgresql+psycopg2://me:s3cret@host/db",
        "postgresql://me:s3/cr@et@host:port/db",
        "postgresql://me:s3cret@host",
        "://me:s3cret@host",
        "sqlite://",
        "sqlite:///:memory:",
        ":memory:",
        "sqlite:///file:x?mode=rwc&uri=true",
        "sqlite:///x.db?mode=rwc",
        "sqlite://host:port/x.db",
    ],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(errors.BadDatabaseURL, match=r"no place for a database") as caught:
        Store.open(url, create=True)
    assert "s3" not in str(caught.value)
    assert "s3" in url or repr(url) in str(caught.value)


def test_where_the_database_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("AUTOTUNE_DB", raising=False)
    if sys.platform == "linux":
        assert sqlite_path(resolve_url()) == tmp_path / "data/autotune/autotune.db"
    monkeypatch.setenv("AUTOTUNE_DB", "by environment.db")
    assert sqlite_path(resolve_url()) == tmp_path / "by environment.db"
    assert sqlite_path(resolve_url("~/a?b%20#.db")) == Path("/home/me/a?b%20#.db")
    assert sqlite_path(resolve_url("sqlite:///given.db")) == tmp_path / "given.db"
    assert resolve_url("postgresql://me:pw@host/db") == "postgresql+psycopg://me:pw@host/db"
    for given in ("a?b%20#.db", "postgresql://me:p%40w@host/db?host=/tmp/x"):
        assert resolve_url(resolve_url(given)) == resolve_url(given)


def test_odd_file_names_work(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "é?x=1&mode=ro#%41.db"
    with Store.open(str(path), create=True) as store:
        store.add_workload(workload())
        assert str(store) == str(path) and path.is_file()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql+psycopg://me:s3cret@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://me:a@b:c/d@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db?PASSWORD=s3&x=1", "postgresql://me@host/db?PASSWORD=***&x=1"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:////a/b:c@d.db", "/a/b:c@d.db"),
    ],
)
def test_what_people_see_of_a_url(url: str, text: str) -> None:
    assert shown(url) == text
