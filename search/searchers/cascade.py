"""The default: cheap scorers propose by the thousand, an accurate one ranks hundreds, hardware measures tens.

Several *arms* propose, each in an order of its own:

- ``near``: neighbours of the fastest candidate, by score, then of the second fastest, and so on;
- ``explore``: drafts bred under the scorer, by optimistic guesses, diverse ones first (``guided``);
- ``leap``: what several changes at once make of fast candidates, by optimistic guesses: out of a valley in
  which all neighbours are slower;
- ``beam``: ends of a beam search by the value of partial schedules;
- ``random``: draws.

While the scorer knows nothing, draws are spread out, far from each other: the first few candidates decide
what it learns of each decision, and where a budget is short they are a good part of it.

The places of a batch go to the arms by what they brought: an arm's credit is how often its latest candidates
were the best so far. Each keeps a small share, for what is good changes while a search goes on; and where
none brings anything any more, all get the same. With a ``verifier``, more
candidates are realized than asked for, and it has the last word on them.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from search.problem import Candidate, Choice, Measurement
from search.scorer import Scorer
from search.searchers.base import History
from search.searchers.beam import BeamSettings, beam
from search.searchers.evolutionary import EvolutionSettings, Judged, breed, judge
from search.searchers.guided import curious
from search.space import Draft, Space, middle

PRIOR = {"near": 0.5, "explore": 0.5, "leap": 0.1, "beam": 0.1, "random": 0.1}
"""Successes that an arm begins with: the last three have to earn their places."""

_FASTEST = 0.3  # probability that a leap starts from the fastest; if not, that it is the second, and so on
_LANDING = 0.4  # probability that a leap ends with its second change; if not, with its third, and so on
_SPREAD = 16  # drafts of which the one farthest from all that is known is taken
_KNOWN = 64  # measurements that it is to be far from, the latest: more are seen only where nothing is learnt

_EVOLUTION = EvolutionSettings(population=192, generations=3, elite=48)
_BEAM = BeamSettings(width=16, choices=24)


@dataclass(frozen=True)
class CascadeSettings:
    """How places are given out.

    Attributes:
        surplus: Times as many neighbours as candidates asked for that are looked at.
        memory: Latest candidates of an arm that its credit follows from.
        floor: Least share of an arm.
        trust: Candidates that an arm's share of successes is averaged with, ``PRIOR`` successes among them.
        curiosity: As of ``GuidedSettings``.
        apart: As of ``GuidedSettings``.
        leaps: Times as many leaps as candidates asked for that are looked at.
        verified: Times as many candidates as asked for that a verifier sees.
        unsure: Measurements after which it is not asked any more: to realize candidates only to drop them
            costs more than it saves, once the scorer has learnt of this very kernel.
    """

    evolution: EvolutionSettings = _EVOLUTION
    beam: BeamSettings = _BEAM
    surplus: int = 4
    memory: int = 48
    floor: float = 0.02
    trust: int = 8
    curiosity: float = 0.5
    apart: int = 2
    leaps: int = 8
    verified: int = 2
    unsure: int = 8


class CascadeSearcher:
    """Arms propose; what they brought decides how much they may propose next.

    Args:
        scorer: Judges complete drafts by the thousand.
        values: Judges incomplete drafts; without it there is no beam.
        verifier: Judges realized candidates, more exactly than ``scorer``.
    """

    def __init__(
        self,
        space: Space,
        scorer: Scorer,
        values: Scorer | None = None,
        verifier: Scorer | None = None,
        seed: int = 0,
        settings: CascadeSettings | None = None,
    ) -> None:
        self._space = space
        self._scorer = scorer
        self._values = values
        self._verifier = verifier
        self._settings = settings or CascadeSettings()
        self._history = History(space, seed)
        self._successes: dict[str, list[bool]] = defaultdict(list)

    def update(self, measurements: Sequence[Measurement]) -> None:
        for m in measurements:
            known, best_s = len(self._history.measurements), self._history.best_s
            self._history.add([m])
            if len(self._history.measurements) > known:
                self._successes[m.candidate.origin].append(m.latency_s < best_s)

    def suggest(self, n: int) -> list[Candidate]:
        if self._space.count() == 0:
            return []
        rng, taken = self._history.generator(), set[tuple[Choice, ...]]()
        verifier = self._verifier if len(self._history.measurements) < self._settings.unsure else None
        wanted = n * self._settings.verified if verifier is not None else n
        found: list[Candidate] = []
        if not self._history.measurements and self._space.count():
            # Knobs have an order, and what is good is seldom at an end of it.
            found = self._history.realize_new([middle(self._space)], 1, taken, "middle")
        arms = self._arms(wanted, rng)
        if not arms:
            rest = wanted - len(found)
            found += self._history.realize_new(self._spread(rest, taken, rng), rest, taken)
        for arm, places in self._places(list(arms), wanted, rng).items():
            found += self._history.realize_new(arms[arm], places, taken, arm)
        found = self._verify(verifier, found, n)
        return found + self._history.draw_new(n - len(found), taken)

    def _arms(self, n: int, rng: np.random.Generator) -> dict[str, Iterable[Draft]]:
        """What each arm proposes, best first; none while nothing is known."""
        s, space = self._settings, self._space
        best: list[Draft] = [m.candidate.choices for m in self._history.fastest(s.evolution.elite)]
        judged = breed(space, self._scorer, best, rng, s.evolution)
        # Where nothing is measured yet, a scorer that knows something has its favourites.
        best = best or sorted(judged, key=lambda d: -judged[d].score)[: s.evolution.elite]
        around = self._around(best, s.surplus * n)
        if not judged or not judge(space, self._scorer, [d for near in around for d in near], judged):
            return {}
        new = {d: j for d, j in judged.items() if d not in self._history.measured}
        arms: dict[str, Iterable[Draft]] = {
            "explore": curious(new, n, s.curiosity, s.apart, rng),
            "near": [d for near in around for d in sorted(near, key=lambda d: -judged[d].score)],
            "leap": self._leaps(best, n, judged, rng),
            "random": (space.sample(rng) for _ in range(4 * n)),
        }
        if self._values is not None:
            arms["beam"] = self._ends(self._values, rng)
        return arms

    def _around(self, best: Sequence[Draft], n: int) -> list[list[Draft]]:
        """New neighbours of the fastest, the second fastest and so on, until there are ``n``."""
        around: list[list[Draft]] = []
        seen = set[Draft](self._history.measured)
        for parent in best:
            around.append([d for d in self._space.neighbours(parent) if d not in seen])
            seen.update(around[-1])
            n -= len(around[-1])
            if n <= 0:
                break
        return around

    def _leaps(
        self, best: Sequence[Draft], n: int, judged: dict[Draft, Judged], rng: np.random.Generator
    ) -> Iterator[Draft]:
        """Drafts two or more changes away from fast ones, the fastest oftener; by optimistic guesses.

        Not before they are asked for, as a beam.
        """
        leaps: dict[Draft, None] = {}
        for _ in range(self._settings.leaps * n):
            draft = best[min(int(rng.geometric(_FASTEST)), len(best)) - 1]
            for _ in range(1 + int(rng.geometric(_LANDING))):
                draft = self._space.mutate(draft, rng)
            leaps[draft] = None
        if judge(self._space, self._scorer, list(leaps), judged):
            hopes = {d: judged[d].score + rng.exponential() * judged[d].spread for d in leaps}
            yield from sorted(hopes, key=lambda d: -hopes[d])

    def _spread(self, n: int, taken: Iterable[Draft], rng: np.random.Generator) -> Iterator[Draft]:
        """Draws, each in as many decisions as can be unlike all that is measured or taken."""
        known: list[Draft] = [m.candidate.choices for m in self._history.measurements[-_KNOWN:]]
        known += taken
        for _ in range(2 * n):
            drafts = [self._space.sample(rng) for _ in range(_SPREAD)]
            known.append(max(drafts, key=lambda d: min((_differences(d, k) for k in known), default=0)))
            yield known[-1]

    def _ends(self, values: Scorer, rng: np.random.Generator) -> Iterator[Draft]:
        """Not before they are asked for: a beam costs more than the other arms."""
        yield from beam(self._space, values, rng, self._settings.beam)

    def _places(self, arms: Sequence[str], n: int, rng: np.random.Generator) -> Counter[str]:
        """How many candidates each arm may propose: drawn in proportion to credit, above the floor."""
        if not arms:
            return Counter()
        credit = np.array([self._credit(arm) for arm in arms])
        floor = self._settings.floor
        share = floor + (1 - floor * len(arms)) * credit / credit.sum()
        return Counter(arms[i] for i in rng.choice(len(arms), n, p=share / share.sum()))

    def _credit(self, arm: str) -> float:
        """Share of its latest candidates that were the best so far, with those that it begins with."""
        latest = self._successes[arm][-self._settings.memory :]
        return (sum(latest) + PRIOR[arm]) / (len(latest) + self._settings.trust)

    def _verify(self, verifier: Scorer | None, found: list[Candidate], n: int) -> list[Candidate]:
        if verifier is None or len(found) <= n:
            return found[:n]
        predicted = verifier.score(self._space.workload, found)
        if predicted is None:
            return found[:n]
        return [found[i] for i in np.argsort(-predicted.score, kind="stable")[:n]]


def _differences(left: Draft, right: Draft) -> int:
    """In how many decisions two drafts differ, one that is missing included."""
    return sum(a != b for a, b in itertools.zip_longest(left, right))
