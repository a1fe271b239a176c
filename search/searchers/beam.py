"""Beam search by the value of partial schedules; with a beam of one, greedy.

After Steiner et al. (MLSys 2021): V(s) says how good the best is that a partial schedule can become. So the
decisions are taken one by one, keeping the prefixes with the highest value, and no hardware is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.problem import Candidate, Choice, Measurement
from search.scorer import Scorer
from search.searchers.base import History
from search.space import Draft, Space


@dataclass(frozen=True)
class BeamSettings:
    """How wide, and how sure of itself.

    Attributes:
        width: Prefixes that are kept after each decision.
        choices: Of a decision with more, so many drawn at random are tried.
        noise: Standard deviations of the prediction that a value is shaken by: each beam takes another way,
            above all where little is known.
    """

    width: int = 24
    choices: int = 48
    noise: float = 0.5


class BeamSearcher:
    """Suggests the ends of a beam; random candidates while the values are not known.

    Args:
        values: Scores incomplete drafts; whoever owns it fits it.
    """

    def __init__(
        self, space: Space, values: Scorer, seed: int = 0, settings: BeamSettings | None = None
    ) -> None:
        self._space = space
        self._values = values
        self._settings = settings or BeamSettings()
        self._history = History(space, seed)

    def update(self, measurements: Sequence[Measurement]) -> None:
        self._history.add(measurements)

    def suggest(self, n: int) -> list[Candidate]:
        rng, taken = self._history.generator(), set[tuple[Choice, ...]]()
        found: list[Candidate] = []
        while len(found) < n:  # a beam's ends differ from those of the one before by the noise
            ends = beam(self._space, self._values, rng, self._settings)
            new = self._history.realize_new(ends, n - len(found), taken)
            if not new:
                break
            found += new
        return found + self._history.draw_new(n - len(found), taken)


def beam(space: Space, values: Scorer, rng: np.random.Generator, settings: BeamSettings) -> list[Draft]:
    """The ends of one noisy beam, best value first; none while the scorer knows nothing."""
    kept: dict[tuple[Choice, ...], float] = {(): 0.0}
    ends: dict[Draft, float] = {}
    while kept:
        longer: list[tuple[Choice, ...]] = []
        for prefix, value in kept.items():
            decision = space.next_decision(prefix)
            if decision is not None:
                longer += [(*prefix, c) for c in _some(decision.choices, settings.choices, rng)]
            elif prefix:
                ends[prefix] = value
        predicted = values.score(space.workload, longer) if longer else None
        if predicted is None:
            break
        shaken = predicted.score + settings.noise * predicted.spread * rng.standard_normal(len(longer))
        best = np.argsort(-shaken, kind="stable")[: settings.width]
        kept = {longer[i]: float(shaken[i]) for i in best}
    return sorted(ends, key=lambda d: -ends[d])


def _some(choices: Sequence[Choice], n: int, rng: np.random.Generator) -> Sequence[Choice]:
    return choices if len(choices) <= n else [choices[i] for i in rng.choice(len(choices), n, replace=False)]
