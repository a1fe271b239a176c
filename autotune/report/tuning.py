"""How the tuning went: the machine's noise meanwhile, and what the tuner's own time went into."""

import statistics
from dataclasses import dataclass

from autotune.manifest import RunEntry
from autotune.measure.noise import NOISY

MODEL_NAMES = {
    "prior": "the trained model",
    "trees": "trees fitted while tuning",
    "both": "trees that hear it",
}
"""Cost models of a run, for people."""


@dataclass(frozen=True)
class NoiseFacts:
    """What the probes of the machine's noise say.

    Attributes:
        probes: How many there were.
        quiet: How many of them found no more than ``NOISY``.
        median: Of their drifts: time of a fixed kernel over its quiet time.
        worst: The largest.
    """

    probes: int
    quiet: int
    median: float
    worst: float

    @property
    def quiet_share(self) -> float:
        return self.quiet / self.probes

    @property
    def mostly_noisy(self) -> bool:
        """Whether the times are less certain than the intervals say."""
        return self.quiet_share < 0.5


@dataclass(frozen=True)
class PhaseFacts:
    """A phase of the tuner's process, as the profiler calls it, and its share of all phases."""

    name: str
    seconds: float
    share: float


@dataclass(frozen=True)
class RankingFacts:
    """How well the cost models ranked candidates before they were measured; 0.5 is chance.

    Attributes:
        accuracy: Mean over the rounds, by model.
        listened: Share of the rounds in which each was listened to.
        error: Median of |foretold / measured - 1| of the trained model; None where it foretold nothing.
    """

    rounds: int
    accuracy: dict[str, float]
    listened: dict[str, float]
    error: float | None


def find_rankings(run: RunEntry) -> RankingFacts | None:
    """None where no trained model took part."""
    if not run.rankings:
        return None
    count = len(run.rankings)
    names = [*dict.fromkeys(n for r in run.rankings for n in r.accuracy)]
    errors = [abs(foretold / measured - 1) for r in run.rankings for foretold, measured in r.foreseen_s]
    return RankingFacts(
        count,
        {n: statistics.mean(r.accuracy[n] for r in run.rankings if n in r.accuracy) for n in names},
        {n: sum(r.listened_to == n for r in run.rankings) / count for n in names},
        statistics.median(errors) if errors else None,
    )


def find_noise(run: RunEntry) -> NoiseFacts | None:
    """None where nobody probed."""
    drifts = [n.drift for n in run.noise]
    if not drifts:
        return None
    quiet = sum(d <= NOISY for d in drifts)
    return NoiseFacts(len(drifts), quiet, statistics.median(drifts), max(drifts))


def find_phases(run: RunEntry) -> tuple[PhaseFacts, ...]:
    """The longest first, without those that took no time."""
    total = sum(run.own_s.values())
    phases = [PhaseFacts(name, s, s / total) for name, s in run.own_s.items() if s > 0]
    return tuple(sorted(phases, key=lambda p: -p.seconds))
