"""Evolutionary search guided by a cost model.

Each call breeds drafts for some generations from the fastest candidates measured so far and from random ones,
judged by the scorer alone; the best drafts that are new and legal are suggested, beside a share of random
ones, so that the scorer also learns about what it thinks little of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.problem import Candidate, Choice, Measurement
from search.scorer import Scorer
from search.searchers.base import History
from search.searchers.random import RandomSearcher
from search.space import Draft, Space


@dataclass(frozen=True)
class EvolutionSettings:
    """How drafts are bred.

    Attributes:
        elite: Fastest measured candidates that the first generation starts from.
        crossover: Probability that a child has two parents; else it is a mutation of one.
        random_share: Share of suggestions drawn at random.
    """

    population: int = 512
    generations: int = 4
    elite: int = 48
    crossover: float = 0.15
    random_share: float = 0.05


class EvolutionarySearcher:
    """Breeds drafts under a scorer; random search until the scorer has learnt something.

    Args:
        scorer: Judges drafts; whoever owns it fits it.
    """

    def __init__(
        self, space: Space, scorer: Scorer, seed: int = 0, settings: EvolutionSettings | None = None
    ) -> None:
        self._space = space
        self._scorer = scorer
        self._settings = settings or EvolutionSettings()
        self._history = History(space, seed)
        self._random = RandomSearcher(space, seed)

    def update(self, measurements: Sequence[Measurement]) -> None:
        self._history.add(measurements)
        self._random.update(measurements)

    def suggest(self, n: int) -> list[Candidate]:
        rng = self._history.generator()
        ranked = self._breed(rng)
        taken: set[tuple[Choice, ...]] = set()
        guided = n - int(rng.binomial(n, self._settings.random_share))
        found = self._history.realize_new(ranked, guided, taken, rng)
        return found + [c for c in self._random.suggest(n - len(found)) if c.choices not in taken]

    def _breed(self, rng: np.random.Generator) -> list[Draft]:
        """Drafts of all generations, best score first; none while the scorer knows nothing."""
        elite: list[Draft] = [m.candidate.choices for m in self._history.fastest(self._settings.elite)]
        fill = self._settings.population - len(elite)
        population = elite + [self._space.sample(rng) for _ in range(fill)]
        scores: dict[Draft, float] = {}
        for generation in range(self._settings.generations + 1):
            new = list(dict.fromkeys(d for d in population if d not in scores))
            predicted = self._scorer.score(self._space.workload, new) if new else np.empty(0)
            if predicted is None:
                return []
            scores.update(zip(new, predicted.tolist(), strict=True))
            if generation < self._settings.generations:
                population = self._children(scores, rng)
        return sorted(scores, key=lambda d: -scores[d])

    def _children(self, scores: dict[Draft, float], rng: np.random.Generator) -> list[Draft]:
        """A generation bred from the best drafts so far, better ones having more children."""
        size = self._settings.population
        parents = sorted(scores, key=lambda d: -scores[d])[: size // 2]
        # Rank selection: the k-th best is chosen with a probability that falls linearly with k.
        ranks = np.minimum(
            rng.integers(len(parents), size=(2, size)), rng.integers(len(parents), size=(2, size))
        )
        children: list[Draft] = []
        for left, right in ranks.T:
            if rng.random() < self._settings.crossover:
                children.append(self._space.crossover(parents[left], parents[right], rng))
            else:
                children.append(self._space.mutate(parents[left], rng))
        return children
