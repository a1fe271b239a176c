"""What an artifact says of itself: ``manifest.json`` beside the library, and all that the report shows."""

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from autotune.errors import ArtifactError
from search.problem import Cache

MANIFEST_NAME = "manifest.json"
LIBRARY_NAME = "model.so"
REPORT_NAME = "report.html"
BENCH_NAME = "bench.json"
"""Files of an artifact's folder; the last one only after ``autotune bench``."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputEntry(_Frozen):
    """An input of the model, in the order in which it is passed."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class ModelEntry(_Frozen):
    """The model that was compiled. ``source`` is the path, example's name or class that it came from."""

    name: str
    source: str
    hash: str
    inputs: tuple[InputEntry, ...]


class HardwareEntry(_Frozen):
    """Where it was measured; for ``probes`` see ``hardware.describe_hardware``."""

    name: str
    fingerprint: str
    cores: int
    features: dict[str, Any]
    probes: dict[str, float]


class TaskEntry(_Frozen):
    """A kernel of the model, before and after.

    Attributes:
        status: ``tuned``: it has a schedule, verified and faster where ``p_faster`` is known; ``untuned``:
            nothing usable was found, plain loops remain.
        before_s: Seconds of one run of the untuned schedule, one entry a pair: where caches are warm, a
            median of means over bursts of runs (``measure.timing.pair``). Empty where it was never timed.
        after_s: The winner's, paired with ``before_s``.
        cache: What the caches held when the pairs were timed; None where they were not.
        best_s: Median seconds that the winner took while tuning.
        p_faster: Estimate of P(winner faster than untuned) and its 95 % bootstrap interval.
        note: What a person should know, such as a faster candidate that failed verification.
    """

    name: str
    workload: str
    weight: int
    flop: float
    bytes: int
    status: Literal["tuned", "untuned"]
    winner: str | None = None
    trials: int = 0
    failures: int = 0
    best_s: float | None = None
    before_s: tuple[float, ...] = ()
    after_s: tuple[float, ...] = ()
    cache: Cache | None = None
    p_faster: tuple[float, float, float] | None = None
    max_error: float | None = None
    tolerance: float | None = None
    note: str = ""


class CurvePoint(_Frozen):
    """The model's latency as the sum over its kernels, while tuning."""

    elapsed_s: float
    trials: int
    latency_s: float


class NoiseEntry(_Frozen):
    """One probe: ``drift`` is the time of a fixed kernel over its time on the quiet machine."""

    at_s: float
    drift: float


class RankingEntry(_Frozen):
    """What the cost models had thought of a round's candidates before they were measured.

    Attributes:
        task: Hash of the workload.
        listened_to: The model that chose: ``prior`` (trained before), ``trees`` (fitted while tuning), or
            ``both`` (trees that hear the prior).
        accuracy: Share of pairs of candidates that each model ordered rightly.
        foreseen_s: Of each candidate: the seconds that the prior foretold, and those measured.
    """

    task: str
    listened_to: str
    accuracy: dict[str, float]
    foreseen_s: tuple[tuple[float, float], ...] = ()


class RunEntry(_Frozen):
    """The run that led here. ``None`` ids and zero trials for ``autotune compile``.

    Attributes:
        settled: It ended because no task promised enough any more, before its budget was spent.
        noise: What the machine's noise was before and after each stretch of timing.
        own_s: Seconds that the last process that worked on the run spent in each of its phases.
        rankings: By round, where trained models took part.
        models: The trained models that took part, by checkpoint.
    """

    id: int | None = None
    seed: int = 0
    trials: int = 0
    settled: bool = False
    elapsed_s: float = 0.0
    failures: dict[str, int] = {}
    curve: tuple[CurvePoint, ...] = ()
    noise: tuple[NoiseEntry, ...] = ()
    own_s: dict[str, float] = {}
    rankings: tuple[RankingEntry, ...] = ()
    models: tuple[str, ...] = ()


class Check(_Frozen):
    """The whole artifact against the original model, on random inputs."""

    reference: str
    max_error: float
    tolerance: float


class Manifest(_Frozen):
    """Everything there is to know of an artifact.

    Attributes:
        latency_s: Seconds of single runs of the whole artifact, warm.
        untuned_s: Sum over the kernels of their weight times the median untuned time; None where unknown.
    """

    format: Literal[1] = 1
    library: str
    created_at: datetime
    model: ModelEntry
    target: str
    threads: int
    hardware: HardwareEntry
    versions: dict[str, str]
    database: str
    tasks: tuple[TaskEntry, ...]
    latency_s: tuple[float, ...]
    untuned_s: float | None
    check: Check
    run: RunEntry

    def write(self, folder: Path) -> None:
        """Writes ``manifest.json`` into ``folder``, all of it or nothing."""
        draft = folder / f".{MANIFEST_NAME}"
        draft.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        draft.replace(folder / MANIFEST_NAME)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Reads the manifest of an artifact.

        Raises:
            ArtifactError: There is none, or it is damaged or of another format.
        """
        path = folder / MANIFEST_NAME
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ArtifactError(
                f"{folder} is not an artifact: it has no readable {MANIFEST_NAME}; "
                "make one with: autotune run MODEL --out DIR"
            ) from error
        except ValidationError as error:
            raise ArtifactError(
                f"{path} is damaged or of another version: {error.errors()[0]['msg']}"
            ) from error
