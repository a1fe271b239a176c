"""Evolutionary search guided by a cost model.

Each call breeds drafts for some generations from the fastest candidates measured so far and from random ones,
judged by the scorer alone; the best drafts that are new and legal are suggested, beside a share of random
ones, so that the scorer also learns about what it thinks little of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from search.problem import Candidate, Choice, Measurement
from search.scorer import Scorer
from search.searchers.base import History
from search.space import Draft, Space


@dataclass(frozen=True)
class EvolutionSettings:
    """How drafts are bred.

    Attributes:
        elite: Fastest measured candidates that the first generation starts from.
        crossover: Probability that a child has two parents; else it is a mutation of one.
        random_share: Share of suggestions drawn at random.
    """

    population: int = 384
    generations: int = 4
    elite: int = 48
    crossover: float = 0.15
    random_share: float = 0.05


class Judged(NamedTuple):
    """What a scorer thinks of one draft (``search.scorer.Prediction``)."""

    score: float
    spread: float


class EvolutionarySearcher:
    """Breeds drafts under a scorer; random search until the scorer has learnt something.

    Args:
        scorer: Judges complete drafts; whoever owns it fits it.
    """

    def __init__(
        self, space: Space, scorer: Scorer, seed: int = 0, settings: EvolutionSettings | None = None
    ) -> None:
        self._space = space
        self._scorer = scorer
        self._settings = settings or EvolutionSettings()
        self._history = History(space, seed)

    def update(self, measurements: Sequence[Measurement]) -> None:
        self._history.add(measurements)

    def suggest(self, n: int) -> list[Candidate]:
        rng = self._history.generator()
        elite: list[Draft] = [m.candidate.choices for m in self._history.fastest(self._settings.elite)]
        bred = breed(self._space, self._scorer, elite, rng, self._settings) if elite else {}
        ranked = sorted(bred, key=lambda d: -bred[d].score)
        taken: set[tuple[Choice, ...]] = set()
        guided = n - int(rng.binomial(n, self._settings.random_share))
        found = self._history.realize_new(ranked, guided, taken)
        return found + self._history.draw_new(n - len(found), taken)


def breed(
    space: Space,
    scorer: Scorer,
    elite: Sequence[Draft],
    rng: np.random.Generator,
    settings: EvolutionSettings,
) -> dict[Draft, Judged]:
    """Drafts of all generations and what the scorer thinks of them; none while it knows nothing."""
    population = [*elite, *(space.sample(rng) for _ in range(settings.population - len(elite)))]
    judged: dict[Draft, Judged] = {}
    for generation in range(settings.generations + 1):
        if not judge(space, scorer, population, judged):
            return {}
        if generation < settings.generations:
            population = _children(space, judged, rng, settings)
    return judged


def judge(space: Space, scorer: Scorer, drafts: Sequence[Draft], judged: dict[Draft, Judged]) -> bool:
    """Adds to ``judged`` what it lacks of ``drafts``; False where the scorer knows nothing of them."""
    new = list(dict.fromkeys(d for d in drafts if d not in judged))
    if not new:
        return True
    predicted = scorer.score(space.workload, new)
    if predicted is None:
        return False
    pairs = zip(predicted.score.tolist(), predicted.spread.tolist(), strict=True)
    judged.update(zip(new, (Judged(*pair) for pair in pairs), strict=True))
    return True


def _children(
    space: Space, judged: Mapping[Draft, Judged], rng: np.random.Generator, settings: EvolutionSettings
) -> list[Draft]:
    """A generation bred from the best drafts so far, better ones having more children."""
    size = settings.population
    parents = sorted(judged, key=lambda d: -judged[d].score)[: size // 2]
    # Rank selection: the k-th best is chosen with a probability that falls linearly with k.
    ranks = np.minimum(rng.integers(len(parents), size=(2, size)), rng.integers(len(parents), size=(2, size)))
    children: list[Draft] = []
    for left, right in ranks.T:
        if rng.random() < settings.crossover:
            children.append(space.crossover(parents[left], parents[right], rng))
        else:
            children.append(space.mutate(parents[left], rng))
    return children
