"""What a benchmark and the processes of its contestants say to each other: plain values, pickled."""

from collections.abc import Sequence
from dataclasses import dataclass

from autotune.bench.contestant import Array, Contestant


@dataclass(frozen=True)
class Enter:
    """Get ready, run, and show the outputs."""

    contestant: Contestant
    inputs: Sequence[Array]
    threads: int


@dataclass(frozen=True)
class Started:
    """The process waits for its first request."""


@dataclass(frozen=True)
class Entered:
    """Ready.

    Attributes:
        once_s: About how long a run takes, warm.
        setting: Which of its ways to run it chose.
        version: Of its package.
    """

    outputs: Sequence[Array]
    once_s: float
    setting: str
    version: str


@dataclass(frozen=True)
class Sample:
    """Give the mean seconds of ``burst`` runs in a row, after one that is not timed if ``warm``."""

    burst: int
    warm: bool


@dataclass(frozen=True)
class Failure:
    """Why there is no answer.

    Attributes:
        available: False: it cannot take part here, which is no fault of its own.
    """

    text: str
    available: bool = True


Request = Enter | Sample
Reply = Started | Entered | float | Failure
