"""The tree models of several spaces: decisions of different spaces have nothing in common."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext

from costmodels.trees import Span, TreeCostModel
from costmodels.values import TreeValueModel
from search.problem import Measurement, Workload


class SpaceModels:
    """A cost model and a value model for each space.

    Args:
        spaces: Their names.
        seed: As of the models; so is ``span``.
    """

    def __init__(
        self, spaces: Iterable[str], seed: int = 0, span: Span = lambda phase: nullcontext()
    ) -> None:
        self._models = {name: (TreeCostModel(seed, span), TreeValueModel(seed, span)) for name in spaces}

    def of(self, space: str) -> tuple[TreeCostModel, TreeValueModel]:
        """Those of a space."""
        return self._models[space]

    def add(self, workload: Workload, measured: Sequence[Measurement]) -> None:
        """Takes note of measurements, each in the models of its space."""
        for name, models in self._models.items():
            mine = [m for m in measured if m.candidate.space == name]
            for model in models:
                model.add(workload, mine)
