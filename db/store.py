"""The store: everything that the rest of autotune asks of a database, values in and values out.

Each function of it is a transaction: what it wrote is durable when it returns, and all of it or none is
there. Any number of processes may use a database at once, each with a store of its own (open one after
forking); threads may share a store. What goes wrong with the database is one of ``db.errors``.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from db import checkpoints, migrate, records, runs, stream, summaries, training, winners
from db.engine import BUSY_TIMEOUT_S, Database, resolve_url, shown
from db.rows import chunks
from db.values import (
    Artifact,
    Checkpoint,
    CheckpointKind,
    Run,
    RunDetail,
    RunSpec,
    RunStatus,
    RunSummary,
    Stats,
    TrainingRow,
    WorkloadDetail,
)
from search.problem import Candidate, Conditions, Measurement, Task, Verification, Workload

_PAGE = 500


class Store:
    """An open database. Get one with ``Store.open``; use it in a ``with``, or close it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(
        cls, url: str | None = None, create: bool = False, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> Self:
        """Opens a database of this version's schema, changing nothing in it.

        Args:
            url: See ``db.engine.resolve_url``.
            create: Make it where nothing is there yet.
            busy_timeout_s: How long to wait while other processes write, before ``DatabaseLocked``.
        """
        url = resolve_url(url)
        if create:
            migrate.create_if_missing(url)
        database = Database(url, busy_timeout_s=busy_timeout_s)
        try:
            migrate.check(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    @property
    def url(self) -> str:
        """Resolved, for another process to open; it may hold a password, ``str(store)`` never does."""
        return self._database.url

    def __str__(self) -> str:
        return shown(self.url)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Models and workloads

    def add_workload(self, workload: Workload) -> None:
        """Adds a workload, if it is new."""
        with self._database.writing() as session:
            records.add_workloads(session, [workload])

    def add_model(self, hash: str, name: str, source: str, tasks: Sequence[Task]) -> None:
        """Adds a model with its tasks and their workloads; a known one takes on this name, source and tasks.

        Args:
            source: Where it came from, such as a path.
        """
        with self._database.writing() as session:
            records.add_model(session, hash, name, source, tasks)

    def workload(self, hash: str) -> Workload:
        """The workload whose hash is, or uniquely starts with, ``hash``; else raises ``NoSuchRecord``."""
        with self._database.reading() as session:
            return records.workload(session, hash)

    def candidate(self, hash: str) -> Candidate:
        """The candidate whose hash is, or uniquely starts with, ``hash``; else raises ``NoSuchRecord``."""
        with self._database.reading() as session:
            return records.candidate(session, hash)

    def probes(self, fingerprint: str) -> dict[str, float]:
        """Probes of the device with this fingerprint; empty where it is not known."""
        with self._database.reading() as session:
            return records.probes(session, fingerprint)

    # Runs

    def start_run(self, spec: RunSpec) -> Run:
        """Records that this process begins a run; its model must be known."""
        with self._database.writing() as session:
            return runs.start(session, spec)

    def resumable_run(self, spec: RunSpec) -> Run | None:
        """The newest run of the same model, conditions and seed that was interrupted or whose process died.

        A process is dead when it was on this host and is gone or a zombie, or has not called ``beat`` for two
        minutes on another host, fifteen on this one.
        """
        with self._database.reading() as session:
            return runs.resumable(session, spec)

    def resume_run(self, run_id: int) -> Run:
        """Makes a resumable run this process's own; of several that try, one succeeds.

        Raises:
            NoSuchRecord: There is no such run, it is done, or a process works on it.
        """
        with self._database.writing() as session:
            return runs.resume(session, run_id)

    def beat(self, run_id: int, elapsed_s: float, trials: int) -> None:
        """Says that the run lives and how far it is; to be called more often than every two minutes."""
        with self._database.writing() as session:
            runs.beat(session, run_id, elapsed_s, trials)

    def end_run(self, run_id: int, status: RunStatus) -> None:
        """Records how a run ended, or that it was interrupted."""
        with self._database.writing() as session:
            runs.end(session, run_id, status)

    # Measurements

    def add_measurements(
        self, run_id: int | None, conditions: Conditions, measurements: Sequence[Measurement]
    ) -> None:
        """Keeps measurements and their candidates, all made under the same conditions.

        Args:
            run_id: None for measurements that come from elsewhere.

        Raises:
            NoSuchRecord: A workload was not added before.
        """
        with self._database.writing() as session:
            records.add_measurements(session, run_id, conditions, measurements)

    def conditions(self, workload: str) -> list[Conditions]:
        """Under what a workload (by its full hash) was measured; those with most measurements first."""
        with self._database.reading() as session:
            return records.conditions(session, workload)

    def fastest(
        self, space: str, target: str | None = None, but: int | None = None
    ) -> list[tuple[Workload, Candidate]]:
        """The fastest candidate of each workload in a space, on whichever device: hints, no more.

        Args:
            target: Only those measured for it.
            but: A run whose measurements do not count.
        """
        with self._database.reading() as session:
            return records.fastest(session, space, target, but)

    def measurements(
        self, workload: str, conditions: Conditions, space: str | None = None
    ) -> list[Measurement]:
        """All of a workload (by its hash) under exactly these hardware, target and threads, oldest first."""
        with self._database.reading() as session:
            return records.measurements(session, workload, conditions, space)

    def history(
        self, workloads: Sequence[str], conditions: Conditions, spaces: Sequence[str]
    ) -> Iterator[tuple[int | None, Measurement]]:
        """Those of several workloads (by their hashes), each with its run, oldest first, in bounded memory.

        Oldest means stored first; the pages are as those of ``stream``.
        """
        after: int | None = 0
        while after is not None:
            with self._database.reading() as session:
                some, after = records.page(session, workloads, conditions, spaces, after, _PAGE)
            yield from some

    def best(self, workload: str, conditions: Conditions, n: int = 1) -> list[Measurement]:
        """The fastest candidates of a workload (by its hash), fastest first.

        All samples of a candidate are put together, and their median counts. Left out is what was ever found
        wrong on this target; see ``wrong``.
        """
        with self._database.reading() as session:
            return winners.best(session, workload, conditions, n)

    def add_missing(
        self, workloads: Sequence[Workload], records: Sequence[tuple[Conditions, Measurement]]
    ) -> int:
        """Adds workloads, and those measurements that are not there yet; gives the number of these.

        A measurement is there where one of the same candidate and conditions has the same ``measured_at``,
        and the same samples or the same kind of error.

        Raises:
            NoSuchRecord: A measurement's workload is neither given nor there.
        """
        with self._database.writing() as session:
            return stream.add_missing(session, workloads, records)

    def stream(self, workload: str | None = None) -> Iterator[tuple[Conditions, Measurement]]:
        """Every measurement, or those of one workload (by its hash), oldest first, in bounded memory.

        Each page of some hundred is a transaction. What is added meanwhile comes at the end.
        """
        after: int | None = 0
        while after is not None:
            with self._database.reading() as session:
                some, after = stream.page(session, workload, after, _PAGE)
            yield from some

    # Proof and product

    def wrong(self, workload: str, target: str) -> dict[str, Candidate]:
        """Candidates, by hash, whose output was found wrong on this target, on whichever hardware."""
        with self._database.reading() as session:
            return winners.wrong(session, workload, target)

    def add_verification(
        self, run_id: int | None, conditions: Conditions, verification: Verification
    ) -> None:
        """Keeps what verifying a candidate found; its workload must be known."""
        with self._database.writing() as session:
            winners.add_verification(session, run_id, conditions, verification)

    def verifications(self, workload: str, conditions: Conditions) -> list[Verification]:
        """All of a workload (by its hash) under exactly these hardware, target and threads, newest first."""
        with self._database.reading() as session:
            return winners.verifications(session, workload, conditions)

    def add_artifact(self, model: str, run_id: int | None, path: str, manifest: Mapping[str, Any]) -> None:
        """Records where the winners of a model (by its hash) were written."""
        with self._database.writing() as session:
            winners.add_artifact(session, model, run_id, path, manifest)

    def artifacts(self, model: str | None = None) -> list[Artifact]:
        """Those of one model (by its hash) or of all, newest first."""
        with self._database.reading() as session:
            return winners.artifacts(session, model)

    # Cost models

    def training_rows(self, spaces: Sequence[str] | None = None) -> Iterator[TrainingRow]:
        """Every measurement, failures included, in bounded memory: all of a workload come together.

        Workloads in the order they were added, the measurements of each oldest first; pages as those of
        ``stream``, but what is added meanwhile to a workload that was passed is left out.

        Args:
            spaces: Only candidates of these.
        """
        after: training.Place | None = training.START
        while after is not None:
            with self._database.reading() as session:
                some, after = training.page(session, spaces, after, _PAGE)
            yield from some

    def networks(self) -> dict[str, frozenset[str]]:
        """The names of the models that each workload, by its hash, is a task of; empty where of none."""
        with self._database.reading() as session:
            return training.networks(session)

    def workloads(self, hashes: Sequence[str]) -> Iterator[Workload]:
        """Those of these (full) hashes, in that order, in bounded memory; raises ``NoSuchRecord``."""
        for some in chunks(hashes):
            with self._database.reading() as session:
                found = training.workloads(session, some)
            yield from found

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Records a trained cost model; where it is to be the default, the former one no longer is.

        Raises:
            CheckpointExists: There is one of that name.
        """
        with self._database.writing() as session:
            checkpoints.add(session, checkpoint)

    def checkpoints(self, kind: CheckpointKind | None = None) -> list[Checkpoint]:
        """Those of one kind or of all, newest first."""
        with self._database.reading() as session:
            return checkpoints.newest(session, kind)

    def checkpoint(self, name: str) -> Checkpoint:
        """The one of that name; else raises ``NoSuchRecord``, which says what names there are."""
        with self._database.reading() as session:
            return checkpoints.by_name(session, name)

    def default_checkpoint(self, kind: CheckpointKind) -> Checkpoint | None:
        """The one that is used, of its kind."""
        with self._database.reading() as session:
            return checkpoints.default(session, kind)

    def unset_default(self, kind: CheckpointKind) -> None:
        """Leaves a kind without a default."""
        with self._database.writing() as session:
            checkpoints.unset_default(session, kind)

    def make_default(self, name: str) -> None:
        """Makes a checkpoint its kind's default instead of any other; raises ``NoSuchRecord``."""
        with self._database.writing() as session:
            checkpoints.make_default(session, name)

    # For people

    def stats(self) -> Stats:
        """The database at a glance."""
        with self._database.reading() as session:
            return summaries.stats(session)

    def runs(self, limit: int = 20) -> list[RunSummary]:
        """The newest runs, newest first."""
        with self._database.reading() as session:
            return summaries.runs(session, limit)

    def show_run(self, run_id: int) -> RunDetail:
        """All about one run, task by task; raises ``NoSuchRecord``."""
        with self._database.reading() as session:
            return summaries.run(session, run_id)

    def show_workload(self, prefix: str) -> WorkloadDetail:
        """A workload by the start of its hash, the tasks it is, and where it was measured."""
        with self._database.reading() as session:
            return summaries.workload(session, prefix)
