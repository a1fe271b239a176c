"""The cost models of a search over several spaces: decisions of different spaces have nothing in common."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from typing import NamedTuple

from costmodels.gnn import ProgramGNN
from costmodels.joint import JointModel, Ranking
from costmodels.lstm import DecisionLSTM
from costmodels.prior import ProgramPrior, SequencePrior
from costmodels.trees import Span
from costmodels.values import TreeValueModel
from search.problem import Conditions, Measurement, Workload
from search.searchers import Scorers
from search.space import Space


class Trained(NamedTuple):
    """Networks that were trained before a search, and the conditions that it measures under.

    Attributes:
        lstm: Judges decisions; None without one.
        gnn: Judges programs; None without one.
    """

    conditions: Conditions
    lstm: DecisionLSTM | None = None
    gnn: ProgramGNN | None = None


class SpaceModels:
    """What judges the candidates of each space: trained networks, and models that learn from the search.

    Args:
        spaces: Their names.
        trained: What is known beforehand; None for nothing.
        seed: As of the models; so is ``span``.
    """

    def __init__(
        self,
        spaces: Iterable[str],
        trained: Trained | None = None,
        seed: int = 0,
        span: Span = lambda phase: nullcontext(),
    ) -> None:
        lstm, gnn = (trained.lstm, trained.gnn) if trained else (None, None)
        self._rankings: list[Ranking] = []
        self._priors: dict[str, SequencePrior] = {}
        self._complete: dict[str, JointModel] = {}
        self._values: dict[str, TreeValueModel] = {}
        for name in spaces:
            if trained and lstm is not None:
                self._priors[name] = SequencePrior(lstm, trained.conditions, span)
            self._complete[name] = JointModel(self._priors.get(name), seed, span, self._rankings)
            self._values[name] = TreeValueModel(seed, span)
        self._verifier = ProgramPrior(gnn, trained.conditions, span) if trained and gnn is not None else None

    def scorers(self, space: Space) -> Scorers:
        """What a searcher of a space is given."""
        prior, values = self._priors.get(space.name), self._values[space.name]
        if prior is not None:
            with suppress(Exception):  # whatever TVM raises of a kernel that cannot be encoded
                prior.add(space)
        known = prior is not None and prior.knows(space.workload)
        return Scorers(self._complete[space.name], prior if prior and known else values, self._verifier)

    def add(self, workload: Workload, measured: Sequence[Measurement], judge: bool = True) -> None:
        """Takes note of measurements, each in the models of its space; ``judge`` as of ``JointModel.add``."""
        for name, model in self._complete.items():
            if mine := [m for m in measured if m.candidate.space == name]:
                model.add(workload, mine, judge)
                self._values[name].add(workload, mine)

    @property
    def rankings(self) -> list[Ranking]:
        """Of all spaces, in the order in which they were judged."""
        for model in self._complete.values():
            model.catch_up()
        return self._rankings
