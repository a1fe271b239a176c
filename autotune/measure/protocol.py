"""What the pool and its processes say to each other: plain values, pickled over a socket."""

from dataclasses import dataclass

from search.problem import Between, ErrorKind, MeasureError, Workload

UNTUNED = ""
"""In place of a trace: the kernel's plain loops."""


@dataclass(frozen=True)
class Fork:
    """Make a copy of yourself, which answers on the socket that is sent after this, and say its pid.

    Attributes:
        cpus: What the copy may run on; empty for all that it may now.
        memory: Bytes that it may allocate beyond what it has.
    """

    cpus: tuple[int, ...]
    memory: int


@dataclass(frozen=True)
class End:
    """Kill a copy of yours and say how it ended."""

    pid: int


@dataclass(frozen=True)
class Prepare:
    """Take up a workload: its inputs, and room for the reference output that copies share."""

    workload: Workload


@dataclass(frozen=True)
class Reference:
    """Compute the reference output of the workload, with plain loops in double precision."""


@dataclass(frozen=True)
class Build:
    """Compile a candidate of the workload and keep it under ``key``."""

    key: int
    trace: str


@dataclass(frozen=True)
class Probe:
    """Time the fixed kernel whose time says how quiet the machine is."""


@dataclass(frozen=True)
class Run:
    """Run what was built under ``key`` once."""

    key: int


@dataclass(frozen=True)
class Time:
    """Check the output of ``key``, which was run just before, and time it.

    Attributes:
        first_s: Seconds of that run.
        rival_s: Samples of the best candidate so far; timing ends when this one cannot win any more.
        fastest_s: No honest run can be faster than this.
    """

    key: int
    first_s: float
    rival_s: tuple[float, ...]
    fastest_s: float


@dataclass(frozen=True)
class Check:
    """Compare the outputs of what was built under ``key`` with the reference on inputs of these kinds."""

    key: int
    seed: int
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Pairs:
    """Time two built candidates in pairs, with fresh inputs, and fresh addresses and order for each pair.

    Attributes:
        count: Of pairs.
    """

    first: int
    second: int
    count: int
    seed: int
    between: Between


Request = Fork | End | Prepare | Reference | Build | Probe | Run | Time | Check | Pairs


@dataclass(frozen=True)
class Forked:
    pid: int


@dataclass(frozen=True)
class Ended:
    """How a process ended, for people."""

    text: str


@dataclass(frozen=True)
class Done:
    """Success.

    Attributes:
        samples_s: Times of ``Run``, ``Time`` and ``Probe``; of ``Pairs``, those of the first candidate.
        rival_s: Of ``Pairs``: times of the second candidate.
        elapsed_s: How long the request took.
        max_error: Of ``Time`` and ``Check``: largest relative difference from the reference; of several
            sets of inputs, that of the set where it comes closest to what is allowed.
        tolerance: What is allowed there; infinite where no inputs could tell.
    """

    samples_s: tuple[float, ...] = ()
    rival_s: tuple[float, ...] = ()
    elapsed_s: float = 0.0
    max_error: float = 0.0
    tolerance: float = 0.0


Reply = Forked | Ended | Done | MeasureError


def error_of(reply: Reply) -> MeasureError:
    """What a reply that is not ``Done`` says against a candidate."""
    return reply if isinstance(reply, MeasureError) else MeasureError(ErrorKind.CRASH, f"it said {reply}")
