"""The schema's history agrees with the models, goes up and down, and opening only looks at it."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from db_samples import HARDWARE, HERE, candidate, checkpoint, failed, timed, verified, workload
from sqlalchemy import Connection, inspect, text

from db import migrate, schema
from db.engine import Database, resolve_url, sqlite_path
from db.errors import DatabaseExists, DatabaseMissing, DatabaseNewer, DatabaseOlder, NotADatabase
from db.store import Store

FROZEN = sorted(Path(__file__).with_name("data").glob("*.db"))
UPGRADE = """with op.batch_alter_table("runs", recreate="auto") as table:
        table.add_column(sa.Column("note", sa.Text, nullable=False, server_default="none"))
        table.alter_column("seed", existing_type=sa.BigInteger, nullable=True)"""
DOWNGRADE = """with op.batch_alter_table("runs") as table:
        table.drop_column("note")
        table.alter_column("seed", existing_type=sa.BigInteger, nullable=False)"""


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    with closing(Database(resolve_url(url), foreign_keys=False)) as database, database.writing() as session:
        yield session.connection()


def described(connection: Connection) -> dict[str, Any]:
    """All that the database says of its tables, in an order of its own."""
    look = inspect(connection)
    return {
        name: [
            sorted(map(str, part))
            for part in (
                [c | {"comment": None} for c in look.get_columns(name)],
                look.get_check_constraints(name),
                look.get_foreign_keys(name),
                [i | {"dialect_options": conditions(i)} for i in look.get_indexes(name)],
                look.get_unique_constraints(name),
                [look.get_pk_constraint(name)],
            )
        ]
        for name in sorted(look.get_table_names())
        if name != migrate.VERSION_TABLE
    }


def conditions(index: Any) -> dict[str, str]:
    """Of a partial index, whose text SQLite gives as an object."""
    return {key: str(value) for key, value in index.get("dialect_options", {}).items()}


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """Call it to go on as the next version of autotune, which has a revision more."""
    scripts = tmp_path / "migrations"

    def become_newer() -> None:
        shutil.copytree(migrate.SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(migrate, "SCRIPTS", scripts)
        command.revision(migrate.config(), message="Runs take notes", rev_id="next")
        (revision,) = scripts.glob("versions/next*.py")
        revision.write_text(revision.read_text().replace("pass", UPGRADE, 1).replace("pass", DOWNGRADE, 1))

    return become_newer


def test_migrations_build_what_the_models_say(database_url: str) -> None:
    migrate.create(database_url)
    with connected(database_url) as connection:
        context = MigrationContext.configure(connection, opts={"version_table": migrate.VERSION_TABLE})
        assert compare_metadata(context, schema.Base.metadata) == []
        migrated = described(connection)
        schema.Base.metadata.drop_all(connection)
        schema.Base.metadata.create_all(connection)
        assert described(connection) == migrated  # check constraints too, which Alembic does not compare


def test_down_to_nothing_and_up_again(database_url: str) -> None:
    migrate.create(database_url)
    with connected(database_url) as connection:
        whole = described(connection)
        command.downgrade(migrate.config(connection), "base")
        assert described(connection) == {}
        command.upgrade(migrate.config(connection), "head")
        assert described(connection) == whole


def test_create_leaves_alone_what_is_there(database_url: str) -> None:
    with Store.open(database_url, create=True) as store:
        store.add_workload(workload())
    with pytest.raises(DatabaseExists, match="left as it is"):
        migrate.create(database_url)
    with Store.open(database_url, create=True) as store:
        assert store.workload(workload().hash) == workload()


def test_create_where_files_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    migrate.create(str(tmp_path / "new.db"))
    assert [p.name for p in tmp_path.iterdir()] == ["new.db"]


def test_version_of_a_new_database(database_url: str) -> None:
    migrate.create(database_url)
    found, head = migrate.version(database_url)
    assert found == head == FROZEN[-1].stem  # run tests/db/data/freeze.py for a new revision
    assert migrate.migrate(database_url) is None


def test_an_older_database_is_refused_then_migrated(database_url: str, newer: Callable[[], None]) -> None:
    with Store.open(database_url, create=True) as store:
        store.add_workload(workload())
        store.add_measurements(None, HERE, [timed(candidate(), 1.0)])
        found = store.stats().revision
    newer()
    with pytest.raises(
        DatabaseOlder, match=rf"{found}.*next\.\n.*autotune db migrate --db .*(autotune|postgres)"
    ):
        Store.open(database_url)
    assert migrate.version(database_url) == (found, "next")
    backup = migrate.migrate(database_url)
    with Store.open(database_url) as store:
        assert store.measurements(workload().hash, HERE) == [timed(candidate(), 1.0)]
    path = sqlite_path(database_url)
    assert (backup is None) == (path is None)
    if path and backup:
        assert backup.parent == path.parent and backup.name.startswith(f"autotune.db.{found}-")
        assert migrate.version(str(backup)) == (found, "next")


def test_a_newer_database_is_refused(
    database_url: str, newer: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        migrate.create(database_url)
        _, head = migrate.version(database_url)
        scripts = migrate.SCRIPTS
        newer()
        migrate.migrate(database_url)
        later.undo()
    monkeypatch.setattr(migrate, "SCRIPTS", scripts)
    for act in (Store.open, migrate.migrate):
        with pytest.raises(DatabaseNewer, match=rf"revision next.*after {head}\.\nUpgrade autotune"):
            act(database_url)
    assert migrate.version(database_url) == ("next", head)


def test_a_migration_that_fails_changes_nothing(database_url: str, newer: Callable[[], None]) -> None:
    migrate.create(database_url)
    with connected(database_url) as connection:
        before = described(connection)
    newer()
    (revision,) = migrate.SCRIPTS.glob("versions/next*.py")
    revision.write_text(
        revision.read_text().replace("def downgrade", "    raise KeyError\n\n\ndef downgrade")
    )
    with pytest.raises(KeyError):
        migrate.migrate(database_url)
    with connected(database_url) as connection:
        assert described(connection) == before


def test_a_database_without_our_tables(database_url: str) -> None:
    path = sqlite_path(database_url)
    if path:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    with pytest.raises(NotADatabase if path else DatabaseMissing, match="holds no tables of autotune"):
        Store.open(database_url)


@pytest.mark.parametrize("file", FROZEN, ids=lambda file: file.stem)
def test_old_files_are_migrated_and_read(file: Path, tmp_path: Path) -> None:
    copy = str(shutil.copy(file, tmp_path))
    migrate.migrate(copy)
    with Store.open(copy) as store:
        assert store.workload(workload(1).hash) == workload(1)
        fast, slow, broken = (candidate(i) for i in (1, 2, 3))
        measured = [timed(fast, 0.1, 0.3), timed(slow, 0.7), failed(broken)]
        assert store.measurements(workload().hash, HERE) == measured
        assert store.best(workload().hash, HERE) == measured[:1]
        assert store.verifications(workload().hash, HERE) == [verified(fast)]
        assert store.candidate(slow.hash).trace == slow.trace
        assert store.stats().hardware == (HARDWARE,)
        (run,) = store.runs()
        assert (run.model, run.seed, run.measured, run.failed) == ("tiny", 7, 3, 1)
        assert store.show_run(run.id).run.spec.settings == {"trials": 64}
        assert [a.path for a in store.artifacts("ab" * 32)] == ["/out/tiny"]
        assert store.checkpoints() == ([checkpoint()] if file.stem >= "0004" else [])
        assert {row.measurement for row in store.training_rows()} == set(measured)


@pytest.mark.parametrize("file", FROZEN, ids=lambda file: file.stem)
def test_published_revisions_stay_as_they_are(file: Path, tmp_path: Path) -> None:
    query = text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
    empty = tmp_path / "empty.db"
    empty.touch()
    with connected(str(empty)) as connection:
        command.upgrade(migrate.config(connection), file.stem)
        built = connection.scalars(query).all()
    with connected(str(shutil.copy(file, tmp_path / "copy.db"))) as connection:
        assert connection.scalars(query).all() == built


def test_rows_and_references_survive_a_rebuilt_table(tmp_path: Path, newer: Callable[[], None]) -> None:
    copy = str(shutil.copy(FROZEN[-1], tmp_path))
    with Store.open(copy) as store:
        before = store.runs(), store.stats().rows
    newer()
    migrate.migrate(copy)
    with Store.open(copy) as store:
        assert (store.runs(), store.stats().rows) == before
    with connected(copy) as connection:
        assert connection.scalar(text("SELECT note FROM runs")) == "none"
        command.downgrade(migrate.config(connection), FROZEN[-1].stem)
        assert "note" not in {c["name"] for c in inspect(connection).get_columns("runs")}
        assert not connection.execute(text("PRAGMA foreign_key_check")).all()
