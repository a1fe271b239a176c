"""What a benchmark found: times with their spread, comparisons with ours, who did not run and why."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from autotune.measure.statistics import Verdict


class Status(StrEnum):
    """What became of a contestant."""

    RAN = "ran"
    UNAVAILABLE = "not available"
    FAILED = "failed"


@dataclass(frozen=True)
class Comparison:
    """A contestant against ours, over the rounds in which both ran. Intervals are 95 % bootstrap intervals.

    Attributes:
        ratio: Their time over ours, the median over rounds; over 1: ours is faster.
        p_faster: P(ours faster) of a pair of runs.
        verdict: On the faster of the two being faster (``autotune.measure.statistics``).
    """

    ratio: float
    ratio_low: float
    ratio_high: float
    p_faster: float
    p_low: float
    p_high: float
    pairs: int
    verdict: Verdict


@dataclass(frozen=True)
class Entry:
    """A contestant and its times.

    Attributes:
        note: How it ran (memory format, hints), or why it did not.
        error: Largest difference of its outputs from the original framework's, over their largest magnitude.
        agrees: Whether rounding explains that error.
        prepare_s: Loading, compiling and the first runs; of one peer also the export to ONNX for all others.
        burst: Runs in a row that a sample is the mean of.
        rounds: In which it ran, one for each of ``samples_s``.
        low_s: Lower end of the 95 % bootstrap interval of the median.
        versus: None for ours, and where either did not run.
    """

    name: str
    status: Status
    note: str = ""
    version: str = ""
    error: float | None = None
    agrees: bool | None = None
    prepare_s: float | None = None
    burst: int = 1
    rounds: tuple[int, ...] = ()
    samples_s: tuple[float, ...] = ()
    median_s: float | None = None
    low_s: float | None = None
    high_s: float | None = None
    versus: Comparison | None = None


@dataclass(frozen=True)
class KernelEntry:
    """A layer: our kernel for it beside the fastest that a vendor has.

    Attributes:
        count: How often the model has this layer.
        gflop: Of its sum alone.
        ours: Whether ours was tuned.
        vendor: Whose it is, and how it was called.
        ratio: Their time over ours, the median over pairs, with its 95 % interval; over 1: ours is faster.
        disturbed: Share of the samples in which other load had the cores.
    """

    layer: str
    count: int
    gflop: float
    ours: str
    ours_s: float
    vendor: str
    vendor_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    disturbed: float

    @property
    def would_save_s(self) -> float:
        """Seconds of a run that calling the vendor's kernel would save; 0 where it is not faster."""
        return self.count * self.ours_s * (1 - self.ratio) if self.ratio_high < 1 else 0.0


@dataclass(frozen=True)
class BenchResult:
    """A benchmark.

    Attributes:
        machine: Name of the CPU.
        reference: The framework that all outputs are compared with.
        rounds: How many there were; slow contestants took part in fewer.
        seed: Of the order in each round and of the inputs.
        elapsed_s: Of the rounds.
        foreign_load: Share of all CPUs' time that other programs used just before or after the rounds.
        kernels: Of layers, where they were compared as well.
        not_compared: Layers that could not be, and why.
    """

    model: str
    machine: str
    threads: int
    reference: str
    rounds: int
    seed: int
    elapsed_s: float
    foreign_load: float
    entries: tuple[Entry, ...]
    kernels: tuple[KernelEntry, ...] = ()
    not_compared: tuple[str, ...] = ()

    def to_json(self) -> str:
        """All of it, samples included, as one JSON object."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)
