"""What the store takes and gives beside the values of ``search.problem``: plain and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from search.problem import Candidate, Conditions, ErrorKind, Hardware, Measurement, Workload


class RunStatus(StrEnum):
    """Where a run stands. Only ``RUNNING`` and ``INTERRUPTED`` runs can be resumed."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True)
class RunSpec:
    """What makes two runs the same run, so that one can go on where the other stopped.

    Attributes:
        model: Hash of the model.
        conditions: Hardware, target and threads that the run measures under.
        settings: All else that was asked for, as JSON values; recorded, not part of the identity.
    """

    model: str
    conditions: Conditions
    seed: int
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One execution of the tuner, as recorded.

    Attributes:
        pid: Process that executes the run, or did so last, on ``host``.
        heartbeat_at: When that process last said that it lives.
        elapsed_s: Seconds of tuning, over all processes that worked on the run.
        trials: Candidates measured so far.
    """

    id: int
    spec: RunSpec
    status: RunStatus
    pid: int
    host: str
    started_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None
    elapsed_s: float
    trials: int


@dataclass(frozen=True)
class RunSummary:
    """A line in the list of runs: the names of model and hardware; ``failed`` of those ``measured``."""

    id: int
    model: str
    hardware: str
    target: str
    threads: int
    seed: int
    status: RunStatus
    started_at: datetime
    heartbeat_at: datetime
    elapsed_s: float
    trials: int
    measured: int
    failed: int


@dataclass(frozen=True)
class TaskProgress:
    """What one run did for one task; ``fastest_s`` is the least latency measured, None without any."""

    name: str
    workload: str
    weight: int
    measured: int
    fastest_s: float | None


@dataclass(frozen=True)
class RunDetail:
    """All about one run."""

    run: Run
    model: str
    tasks: tuple[TaskProgress, ...]
    failures: Mapping[ErrorKind, int]


@dataclass(frozen=True)
class Coverage:
    """What is known of a workload under one set of conditions."""

    hardware: str
    target: str
    threads: int
    measured: int
    failed: int
    fastest_s: float | None


@dataclass(frozen=True)
class WorkloadDetail:
    """All about one workload; ``tasks`` pairs a model's name with the task's name in it."""

    workload: Workload
    tasks: tuple[tuple[str, str], ...]
    coverage: tuple[Coverage, ...]


@dataclass(frozen=True)
class Artifact:
    """Where the winners of a model were written, and what is in there."""

    model: str
    run_id: int | None
    path: str
    manifest: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class Stats:
    """The database at a glance; ``rows`` counts by table."""

    revision: str
    size_bytes: int
    rows: Mapping[str, int]
    failures: Mapping[ErrorKind, int]
    hardware: tuple[Hardware, ...]


class CheckpointKind(StrEnum):
    """What a trained cost model is."""

    LSTM = "lstm"
    GNN = "gnn"
    TREES = "trees"


@dataclass(frozen=True)
class Checkpoint:
    """A trained cost model, as recorded. Mappings hold JSON values, so no infinity and no NaN.

    Attributes:
        name: A person's handle, such as ``lstm-3``; unique.
        path: Where the file lies.
        settings: Hyper-parameters, split and seed.
        data: What it learnt from: the fingerprint's text, and counts of measurements, workloads and devices.
        metrics: Its scores on what was held out.
        encoding: Version of the encoding of its inputs; another one's numbers mean something else.
        version: Of the code that trained it.
        is_default: Whether it is the one that is used, of its kind.
    """

    name: str
    kind: CheckpointKind
    path: str
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    metrics: Mapping[str, Any]
    encoding: str
    version: str
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    is_default: bool = False


@dataclass(frozen=True)
class TrainingRow:
    """A measurement and under what it was made: what a cost model learns from."""

    conditions: Conditions
    measurement: Measurement

    @property
    def candidate(self) -> Candidate:
        """With its trace."""
        return self.measurement.candidate

    @property
    def workload(self) -> str:
        """The workload's hash."""
        return self.candidate.workload
