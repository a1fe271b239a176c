"""What a search judges drafts by: a trained prior, trees fitted as it measures, or both, as they prove right.

``prior`` knows nothing of what this search measured. ``trees`` know nothing else. ``both`` are trees that are
also told what the prior says: they correct it where it errs, which takes a fraction of a second (a network
that is trained on takes many). After each round all are asked what they had thought of the candidates that
were just measured; who ranked them best lately is listened to, so a prior that misleads is soon dropped.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np

from costmodels.metrics import ScoredTask, pairwise_accuracy
from costmodels.trees import Span, TreeCostModel
from search.problem import Measurement, Workload
from search.scorer import Prediction, Scored, Scorer

MEMORY = 4  # rounds after which what a model got right counts half
SHOWN = 8  # candidates of a round that a report shows
SKILL = 0.5  # pairwise accuracy of chance


class Ranking(NamedTuple):
    """How well the models ranked a round, before they had heard of it.

    Attributes:
        listened_to: The model whose word counted.
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
        prior: Knows something before anything is measured, its scores are less logarithms of seconds; without
            it there are trees alone.
        span: As of ``costmodels.trees.TreeCostModel``.

    Attributes:
        rankings: Of all rounds so far.
    """

    def __init__(
        self, prior: Scorer | None = None, seed: int = 0, span: Span = lambda phase: nullcontext()
    ) -> None:
        self._learning = {"trees": TreeCostModel(seed, span)}
        self._models: dict[str, Scorer] = {}
        if prior is not None:
            self._models["prior"] = prior
            self._learning["both"] = TreeCostModel(seed, span, prior)
        self._models |= self._learning
        self._skill: dict[str, float] = defaultdict(lambda: SKILL)
        self.rankings: list[Ranking] = []

    @property
    def listened_to(self) -> str:
        """The model that ranked best lately; of equals the one that knows most."""
        return max(reversed(self._models), key=lambda name: self._skill[name])

    def add(self, workload: Workload, measurements: Sequence[Measurement]) -> None:
        """Takes note of a round's measurements, and of who foresaw them."""
        if len(self._models) > 1 and len(measurements) > 1:
            self._judge(workload, measurements)
        for model in self._learning.values():
            model.add(workload, measurements)

    def score(self, workload: Workload, items: Sequence[Scored]) -> Prediction | None:
        """By the model that is listened to; by another where that knows nothing yet."""
        for name in sorted(self._models, key=lambda n: n != self.listened_to):
            if (said := self._models[name].score(workload, items)) is not None:
                return said
        return None

    def _judge(self, workload: Workload, measurements: Sequence[Measurement]) -> None:
        latencies_s = np.array([m.latency_s for m in measurements])
        accuracy: dict[str, float] = {}
        foreseen_s: tuple[tuple[float, float], ...] = ()
        for name, model in self._models.items():
            said = model.score(workload, [m.candidate.choices for m in measurements])
            found = SKILL if said is None else pairwise_accuracy([ScoredTask(said.score, latencies_s)])
            if np.isnan(found):
                return  # nothing differs, or nothing ran
            accuracy[name] = found
            if name == "prior" and said is not None:
                ran = np.isfinite(latencies_s)
                pairs = np.stack([np.exp(-said.score), latencies_s], axis=1)[ran]
                foreseen_s = tuple((float(a), float(b)) for a, b in pairs[:SHOWN])
        self.rankings.append(Ranking(workload.hash, self.listened_to, accuracy, foreseen_s))
        forget = 0.5 ** (1 / MEMORY)
        for name, found in accuracy.items():
            self._skill[name] = forget * self._skill[name] + (1 - forget) * found
