"""The values everything else is written in: plain, frozen, validated, free of TVM and of any database."""

import hashlib
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

Choice = int | tuple[int, ...]
"""One decision taken: an index, a position, or a tuple of factors."""


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``: the same on every platform and Python version."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape and dtype of one argument of a kernel."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Size in memory, for dtypes whose name ends in their width in bits (``bool`` is 8)."""
        digits = "".join(c for c in self.dtype if c.isdigit()) or "8"
        return math.prod(self.shape) * int(digits) // 8


@dataclass(frozen=True)
class Workload:
    """A kernel free of any model.

    Attributes:
        hash: Hex digest of the canonical form of the function (``search.spaces.tir.workload_hash``).
        name: What a person reads, such as ``conv2d_add_relu``; not part of the identity.
        args: Inputs, then outputs, in the order of the function's parameters.
        outputs: How many of the last ``args`` are written.
        flop: Floating-point operations of one execution.
        reduction: Length of the longest reduction, for the error that rounding may cause.
        module_json: The TIR module (``tvm.ir.save_json``).
    """

    hash: str
    name: str
    args: tuple[TensorSpec, ...]
    outputs: int
    flop: float
    reduction: int
    module_json: str = field(repr=False)

    @property
    def bytes(self) -> int:
        """Bytes that one execution must at least move: every argument once."""
        return sum(a.bytes for a in self.args)


@dataclass(frozen=True)
class Task:
    """A workload as it occurs in a model.

    Attributes:
        name: Unique in its model, such as ``fused_conv2d3_add_relu``.
        weight: How many times the model runs it.
        passed: Positions of the arguments that kernels pass on: its outputs, and the inputs that are no
            weights.
    """

    name: str
    workload: Workload
    weight: int
    passed: tuple[int, ...] = field(default=(), compare=False)

    @property
    def passed_bytes(self) -> int:
        """Of the arguments in ``passed``."""
        return sum(self.workload.args[n].bytes for n in self.passed)


@dataclass(frozen=True)
class Decision:
    """What a space asks next.

    Attributes:
        name: Kind and place, such as ``sketch`` or ``tile:b0.l2``; stable within the space.
        choices: Every legal choice, given the decisions before it.
    """

    name: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Candidate:
    """A complete sequence of decisions.

    Attributes:
        workload: Hash of the workload it schedules.
        space: Name and version of the space whose decisions these are.
        choices: One entry a decision, in order.
        trace: All that is needed to rebuild the program without the space: a TVM trace as JSON.
        origin: The part of a searcher that proposed it, where one has several; no part of the identity.
    """

    workload: str
    space: str
    choices: tuple[Choice, ...]
    trace: str = field(repr=False, compare=False)
    origin: str = field(default="", compare=False)

    @property
    def hash(self) -> str:
        """Identity within the database; the trace follows from the decisions and is left out."""
        return digest([self.workload, self.space, self.choices])


class ErrorKind(StrEnum):
    """Why a candidate has no times."""

    INVALID = "invalid"  # the trace does not apply
    BUILD_ERROR = "build_error"
    BUILD_TIMEOUT = "build_timeout"
    RUN_ERROR = "run_error"
    RUN_TIMEOUT = "run_timeout"
    CRASH = "crash"  # the process died
    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_BOUNDS = "out_of_bounds"  # it wrote where it must not
    WRONG_OUTPUT = "wrong_output"
    IMPLAUSIBLE = "implausible"  # faster than the hardware can be


@dataclass(frozen=True)
class MeasureError:
    """A failure's kind and its text, shortened to what a person needs."""

    kind: ErrorKind
    text: str


@dataclass(frozen=True)
class Measurement:
    """What happened to a candidate: times or an error, never both and never neither.

    Attributes:
        samples_s: Seconds of one execution, each a mean over a short burst, in the order taken.
        build_s: Seconds that compiling took.
        drift: How much longer than on the quiet machine a fixed kernel took just before or after, whichever
            was worse: 1 is quiet. None where that is not known.
    """

    candidate: Candidate
    samples_s: tuple[float, ...] = ()
    error: MeasureError | None = None
    build_s: float = 0.0
    measured_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    drift: float | None = None

    def __post_init__(self) -> None:
        if bool(self.samples_s) == (self.error is not None):
            raise ValueError("a measurement holds either times or an error")
        if not all(math.isfinite(s) and s > 0 for s in self.samples_s):
            raise ValueError(f"times must be positive and finite, got {self.samples_s}")

    @property
    def latency_s(self) -> float:
        """Median of the samples; infinity for a failure."""
        return statistics.median(self.samples_s) if self.samples_s else math.inf


@dataclass(frozen=True)
class Hardware:
    """The device that measured.

    Attributes:
        name: What a person reads, such as the processor's name.
        cores: Physical cores that the process may use.
        features: Descriptor: instruction sets, cache sizes in bytes, nominal clock.
        probes: What the device did on our own probes, such as ``peak_gflops_f32``. Noisy, so not part of the
            identity.
    """

    name: str
    cores: int
    features: Mapping[str, Any] = field(default_factory=dict)
    probes: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def fingerprint(self) -> str:
        """Records apply to hardware of the same fingerprint only."""
        return digest([self.name, self.cores, dict(self.features)])


@dataclass(frozen=True)
class Conditions:
    """Under what a measurement holds. Records are shared only where ``key`` is equal.

    Attributes:
        target: Canonical JSON of the compilation target.
        threads: Threads that a kernel runs on.
        versions: Software that made and ran the code; recorded, not part of ``key``.
    """

    hardware: Hardware
    target: str
    threads: int
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> tuple[str, str, int]:
        return self.hardware.fingerprint, self.target, self.threads


class Cache(StrEnum):
    """What the caches hold when a timed run begins."""

    WARM = "warm"  # what the run before left there
    COLD = "cold"  # nothing of this kernel: more than all caches hold was read since
    MODEL = "model"  # what the rest of a model leaves there


@dataclass(frozen=True)
class Between:
    """What happens between two timed runs of a kernel, and so what the caches hold.

    Attributes:
        read_bytes: Of other memory, read by all threads.
        written: Positions of the arguments that are then written: inputs, as the kernel before would, and
            outputs, for they go where another kernel's lay not long ago.
    """

    cache: Cache = Cache.WARM
    read_bytes: int = 0
    written: tuple[int, ...] = ()


BACK_TO_BACK = Between()
COLD = Between(Cache.COLD, 1 << 62)


@dataclass(frozen=True)
class Verification:
    """Proof, or disproof, of a winner.

    Attributes:
        correct: Output within ``tolerance`` of the reference on every set of inputs.
        max_error: Largest difference from the reference, relative to the reference's magnitude.
        tolerance: What was allowed (``autotune.measure.check.tolerance``).
        before_s: Samples of the untuned schedule, paired with ``after_s``.
        after_s: Samples of the candidate.
        faster: Whether the paired test says that the candidate is faster.
        p_faster: Estimate of P(candidate faster than untuned), with its bootstrap interval.
        text: What went wrong, empty where nothing did.
        cache: In what state the caches were before each run.
    """

    candidate: Candidate
    correct: bool
    max_error: float
    tolerance: float
    before_s: tuple[float, ...] = ()
    after_s: tuple[float, ...] = ()
    faster: bool = False
    p_faster: tuple[float, float, float] = (0.5, 0.0, 1.0)
    text: str = ""
    cache: Cache = Cache.WARM
