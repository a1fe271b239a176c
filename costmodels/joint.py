"""What a search judges drafts by: a trained prior, trees fitted as it measures, or both, as they prove right.

``prior`` knows nothing of what this search measured. ``trees`` know nothing else. ``both`` are trees that are
also told what the prior says: they correct it where it errs, which takes a fraction of a second (a network
that is trained on takes many). All are asked what they would have thought of each portion of measurements,
knowing those before it; who ranked best lately is listened to, so a prior that misleads is soon dropped. All
that follows from the measurements and their order alone, in whichever portions they were told.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from costmodels.metrics import ScoredTask, pairwise_accuracy
from costmodels.trees import Span, TreeCostModel
from search.problem import Measurement, Workload
from search.scorer import Prediction, Scored, Scorer

PORTION = 16  # measurements that models are judged by
MEMORY = 8  # portions that count, each half as much as the one two after it
SHOWN = 8  # candidates of a portion and workload that a report shows
SKILL = 0.5  # pairwise accuracy of chance
FASTEST = 2.0  # share of the best speed, at most, that a prior is believed to foretell


class Prior(Scorer, Protocol):
    """A scorer that knows something beforehand; its scores are logarithms of speeds."""

    def foretold_s(self, workload: Workload, items: Sequence[Scored]) -> NDArray[np.float64] | None:
        """Seconds that each would take, shape [n]; None where nothing is known."""


class Ranking(NamedTuple):
    """How well the models would have ranked measurements that they had not heard of.

    Attributes:
        listened_to: The model whose word counted before.
        accuracy: Pairwise accuracy by model.
        foreseen_s: Of some candidates that ran: the seconds that the prior foretold, and those measured.
    """

    workload: str
    listened_to: str
    accuracy: dict[str, float]
    foreseen_s: tuple[tuple[float, float], ...] = ()


class JointModel:
    """A ``search.scorer.Scorer`` of complete drafts of one space that learns.

    Args:
        prior: What is known before anything is measured; without it there are trees alone.
        span: As of ``costmodels.trees.TreeCostModel``.
        rankings: Gets the portions judged.
    """

    def __init__(
        self,
        prior: Prior | None = None,
        seed: int = 0,
        span: Span = lambda phase: nullcontext(),
        rankings: list[Ranking] | None = None,
    ) -> None:
        def learners(boosted: bool) -> dict[str, TreeCostModel]:
            found = {"trees": TreeCostModel(seed, span, boosted=boosted)}
            return found if prior is None else found | {"both": TreeCostModel(seed, span, prior, boosted)}

        self._prior = prior
        self._learning, self._behind = learners(True), learners(False)
        self._waiting: list[tuple[Workload, Measurement]] = []  # of which those behind have not heard
        self._skills: deque[dict[str, float]] = deque(maxlen=MEMORY)
        self._best: dict[str, Measurement] = {}
        self.rankings = [] if rankings is None else rankings

    @property
    def listened_to(self) -> str:
        """The model that ranked best lately; the prior until there was something to judge by."""
        if self._prior is None:
            return "trees"
        self.catch_up()
        return self._leader()

    def add(self, workload: Workload, measurements: Sequence[Measurement], judge: bool = True) -> None:
        """Takes note of measurements; what follows from them is worked out when next asked for.

        Args:
            judge: Whether the models are judged by them: not by what a prior may have been trained on.
        """
        for m in measurements:
            best = self._best.get(workload.hash)
            if m.error is None and (best is None or m.latency_s < best.latency_s):
                self._best[workload.hash] = m
        for model in self._learning.values():
            model.add(workload, measurements)
        if self._prior is not None and judge:
            self._waiting += [(workload, m) for m in measurements]
        elif self._prior is not None:
            for model in self._behind.values():
                model.add(workload, measurements)

    def score(self, workload: Workload, items: Sequence[Scored]) -> Prediction | None:
        """Share of the best speed, by whom is listened to; by another where that one knows nothing yet."""
        first = self.listened_to
        for name in sorted([*self._learning, "prior"], key=lambda n: n != first):
            model = self._learning.get(name)
            said = self._share(workload, items) if model is None else model.score(workload, items)
            if said is not None:
                return said
        return None

    def catch_up(self) -> None:
        """Judges the models by whole portions, and lets those behind learn them."""
        while len(self._waiting) >= PORTION:
            portion, self._waiting = self._waiting[:PORTION], self._waiting[PORTION:]
            parts = [(w, [m for _, m in some]) for w, some in groupby(portion, lambda pair: pair[0])]
            self._judge(parts)
            for workload, measured in parts:
                for model in self._behind.values():
                    model.add(workload, measured)

    def _share(self, workload: Workload, items: Sequence[Scored]) -> Prediction | None:
        """What the prior says, as a share of the speed that it foretold of the best candidate."""
        said = None if self._prior is None else self._prior.score(workload, items)
        best = self._best.get(workload.hash)
        if self._prior is None or said is None or best is None:
            return said
        reference = self._prior.score(workload, [best.candidate.choices])
        assert reference is not None  # as it knows the workload
        share = np.minimum(np.exp(said.score - reference.score), FASTEST)
        return Prediction(share, share * said.spread)

    def _leader(self) -> str:
        skill = dict.fromkeys(["trees", "both", "prior"], 0.0)
        for age, accuracy in enumerate(reversed(self._skills)):
            for name, found in accuracy.items():
                skill[name] += 0.5 ** (age / 2) * found
        return "prior" if not any(skill.values()) else max(("both", "trees", "prior"), key=skill.__getitem__)

    def _judge(self, parts: Sequence[tuple[Workload, Sequence[Measurement]]]) -> None:
        accuracies = list(self._accuracies(parts))
        names = accuracies[0] if accuracies else ()
        self._skills.append({n: float(np.mean([a[n] for a in accuracies])) for n in names})

    def _accuracies(
        self, parts: Sequence[tuple[Workload, Sequence[Measurement]]]
    ) -> Iterator[dict[str, float]]:
        """By workload, as far as there is something to rank."""
        assert self._prior is not None
        models: dict[str, Scorer] = {"prior": self._prior, **self._behind}
        leader = self._leader()
        for workload, measured in parts:
            drafts = [m.candidate.choices for m in measured]
            latencies_s = np.array([m.latency_s for m in measured])
            said = {n: model.score(workload, drafts) for n, model in models.items()}
            found = {
                n: SKILL if s is None else pairwise_accuracy([ScoredTask(s.score, latencies_s)])
                for n, s in said.items()
            }
            if np.isfinite(list(found.values())).all():  # else nothing differs, or nothing ran
                foretold_s = self._prior.foretold_s(workload, drafts)
                pairs = (
                    [] if foretold_s is None else zip(foretold_s.tolist(), latencies_s.tolist(), strict=True)
                )
                ran = tuple(p for p in pairs if np.isfinite(p[1]))
                self.rankings.append(Ranking(workload.hash, leader, found, ran[:SHOWN]))
                yield found
