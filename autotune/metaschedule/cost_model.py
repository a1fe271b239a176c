"""Our trees in the place of MetaSchedule's cost model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.cost_model import PyCostModel
from tvm.s_tir.meta_schedule.runner import RunnerResult
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate
from tvm.s_tir.meta_schedule.tune_context import TuneContext

from autotune.errors import BadInput
from autotune.metaschedule.records import measurement_of, workload_of
from costmodels.trees import TreeCostModel
from db.exchange.modules import SPACE_NAME, choices_of
from search.problem import Candidate, Measurement, Workload
from search.scorer import Prediction, Scored

_FILE = TypeAdapter(list[tuple[Workload, list[Measurement]]])


@derived_object
class CostModel(PyCostModel):  # type: ignore[misc]
    """Predicts from the decisions of a schedule's trace, without lowering it.

    One model may serve any number of tasks: what one teaches helps those whose decisions are of the same
    kinds. It is a ``search.scorer.Scorer`` too, of drafts that begin as ``choices_of`` says.

    Args:
        seed: Of the trees, and of the scores while nothing is known.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._seed = seed
        self._forget()

    def update(
        self, context: TuneContext, candidates: list[MeasureCandidate], results: list[RunnerResult]
    ) -> None:
        """Learns what the runner found of a task's candidates."""
        workload = workload_of(context.mod)
        drafts = [Candidate(workload.hash, SPACE_NAME, choices_of(c.sch.trace), "") for c in candidates]
        self.add(
            workload,
            [measurement_of(d, r.run_secs, r.error_msg) for d, r in zip(drafts, results, strict=True)],
        )

    def predict(self, context: TuneContext, candidates: list[MeasureCandidate]) -> NDArray[np.float64]:
        """Predicted share of the best speed, shape [n].

        While nothing is known, random as MetaSchedule's own models: its evolution draws parents in proportion
        to their scores, so that they must not all be zero.
        """
        predicted = self.score(workload_of(context.mod), [choices_of(c.sch.trace) for c in candidates])
        return self._rng.random(len(candidates)) if predicted is None else predicted.score

    def add(self, workload: Workload, measurements: Sequence[Measurement]) -> None:
        """Learns from measurements, wherever they come from."""
        self._told.append((workload, list(measurements)))
        self._trees.add(workload, measurements)

    def score(self, workload: Workload, items: Sequence[Scored]) -> Prediction | None:
        """Predicted share of the best speed; None where too little is known of every item."""
        return self._trees.score(workload, items)

    def save(self, path: str) -> None:
        """Writes what it was told, as JSON; trees are quick to fit again."""
        Path(path).write_bytes(_FILE.dump_json(self._told))

    def load(self, path: str) -> None:
        """Forgets what it knows, and learns what another one saved.

        Raises:
            BadInput: The file is something else.
        """
        try:
            told = _FILE.validate_json(Path(path).read_bytes())
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise BadInput(f"{path} is nothing that CostModel.save wrote: {reason}") from error
        self._forget()
        for workload, measurements in told:
            self.add(workload, measurements)

    def _forget(self) -> None:
        self._trees = TreeCostModel(self._seed)
        self._rng = np.random.default_rng(self._seed)
        self._told: list[tuple[Workload, list[Measurement]]] = []
