"""What the pool and its workers say to each other: plain values, pickled over a socket."""

from dataclasses import dataclass

from search.problem import MeasureError, Workload


@dataclass(frozen=True)
class Prepare:
    """Make inputs and the reference output of a workload, ahead of its candidates."""

    workload: Workload


@dataclass(frozen=True)
class Build:
    """Compile a candidate and keep it under ``key``."""

    key: int
    workload: Workload
    trace: str


@dataclass(frozen=True)
class Run:
    """Run, check and time what was built under ``key``, and forget it.

    Attributes:
        incumbent_s: Best latency so far; timing ends early for a candidate that is far from it.
        fastest_s: No honest run can be faster than this.
    """

    key: int
    incumbent_s: float
    fastest_s: float


@dataclass(frozen=True)
class Verify:
    """Compare a candidate with the untuned schedule: output on several inputs, then paired timing.

    Attributes:
        seed: Of the inputs, which no run before has seen.
        pairs: How many pairs of runs to take, fewer, but six, where they take over ``limit_s``.
    """

    workload: Workload
    trace: str
    seed: int
    pairs: int
    limit_s: float


Request = Prepare | Build | Run | Verify


@dataclass(frozen=True)
class Done:
    """Success.

    Attributes:
        samples_s: Times of a run; of ``Verify``, the candidate's.
        before_s: Of ``Verify``: times of the untuned schedule, paired with ``samples_s``.
        elapsed_s: How long the request took.
        max_error: Of ``Run`` and ``Verify``: largest relative difference from the reference; of several
            sets of inputs, that of the set where it comes closest to what is allowed.
        tolerance: What is allowed there.
    """

    samples_s: tuple[float, ...] = ()
    before_s: tuple[float, ...] = ()
    elapsed_s: float = 0.0
    max_error: float = 0.0
    tolerance: float = 0.0


Reply = Done | MeasureError
