"""Makes a small database of the newest revision, to be kept for good.

Once, when a revision is finished: ``PYTHONPATH=.:tests/db python tests/db/data/freeze.py``.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import db_samples as samples

from db.migrate import version
from db.store import Store
from db.values import RunStatus

HERE = Path(__file__).parent


def fill(store: Store) -> None:
    """One row or more in every table."""
    run = store.start_run(samples.add_model(store, [samples.workload(0), samples.workload(1)]))
    fast, slow, broken = (samples.candidate(i) for i in (1, 2, 3))
    measured = [samples.timed(fast, 0.1, 0.3), samples.timed(slow, 0.7), samples.failed(broken)]
    store.add_measurements(run.id, samples.HERE, measured)
    store.add_verification(run.id, samples.HERE, samples.verified(fast))
    store.add_artifact(run.spec.model, run.id, "/out/tiny", {"files": ["tiny.so"]})
    store.add_checkpoint(samples.checkpoint())
    store.end_run(run.id, RunStatus.FINISHED)


def main() -> None:
    new = HERE / "new.db"
    with Store.open(str(new), create=True) as store:
        fill(store)
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        for statement in ("journal_mode = DELETE", "page_size = 512"):
            connection.execute(f"PRAGMA {statement}")
        connection.execute("VACUUM")
        connection.execute("PRAGMA journal_mode = WAL")
    kept = HERE / f"{version(str(new))[0]}.db"
    if kept.exists():
        sys.exit(f"{kept} is kept already; see {new}")
    new.rename(kept)


if __name__ == "__main__":
    main()
