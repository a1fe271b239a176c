"""Our searchers in the place of MetaSchedule's search strategy."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.runner import RunnerResult
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate, PySearchStrategy
from tvm.s_tir.meta_schedule.tune_context import TuneContext

from autotune.metaschedule.cost_model import CostModel
from autotune.metaschedule.records import candidate_of, measurement_of, workload_of
from autotune.metaschedule.space import DesignSpace
from costmodels.values import TreeValueModel
from db.exchange.modules import SPACE_NAME
from search.problem import Candidate, Measurement, Workload
from search.scorer import Prediction, Scored, choices_of
from search.searchers import SEARCHERS, Factory, Scorers
from search.spaces.trace import schedule_of

_RECALLED = 1024  # fastest records of a database that a search goes on from


@derived_object
class SearchStrategy(PySearchStrategy):  # type: ignore[misc]
    """Lets a searcher of ours choose among the schedules that MetaSchedule's space generator allows.

    MetaSchedule builds, runs and records them as ever. What its database holds of a task is told to the
    searcher at the start, so that a search goes on where another one ended. The seed is that of the task.

    Args:
        searcher_factory: One of ``search.searchers.SEARCHERS``, or one of yours.
        cost_model: Judges complete drafts, for all tasks. Where it is not the one that MetaSchedule is tuning
            with, whose models judge schedules only, it is taught here. None: a new one.
    """

    def __init__(
        self, searcher_factory: Factory = SEARCHERS["evolutionary"], cost_model: CostModel | None = None
    ) -> None:
        super().__init__()
        self._factory = searcher_factory
        self._cost_model = CostModel() if cost_model is None else cost_model

    def _initialize_with_tune_context(self, context: TuneContext) -> None:
        # Not the context itself: it holds this strategy, and such a circle would never be freed.
        self._module = context.mod
        self._generator = context.space_generator
        self._seed = int(context.rand_state)

    def clone(self) -> "SearchStrategy":
        """One for another task, which shares the cost model."""
        return SearchStrategy(self._factory, self._cost_model)

    def pre_tuning(
        self,
        max_trials: int,
        num_trials_per_iter: int,
        design_spaces: list[Schedule],
        database: Any = None,
        cost_model: Any = None,
    ) -> None:
        """Makes the searcher, and tells it what the database holds of this task.

        Raises:
            UnsupportedWorkload: A shape is symbolic, or the outputs are not the last parameters.
        """
        self._left = max_trials
        self._batch = num_trials_per_iter
        self._pending: list[Candidate] = []
        self._teaches = cost_model is None or not self._cost_model.same_as(cost_model)
        self._workload = workload_of(self._module)
        self._space = DesignSpace(self._workload, self._module, self._generator, design_spaces)
        self._values = TreeValueModel(self._seed)
        scorers = Scorers(_Translated(self._space, self._cost_model), self._values)
        self._searcher = self._factory(self._space, scorers, self._seed)
        if database is not None and database.has_workload(self._module):
            self._recall(database)

    def _recall(self, database: Any) -> None:
        records = database.get_top_k(database.commit_workload(self._module), _RECALLED)
        known = [measurement_of(candidate_of(self._workload.hash, r.trace), r.run_secs) for r in records]
        self._cost_model.add(self._workload, known)
        ours = [(self._space.inward(m.candidate), m) for m in known]
        self._note([replace(m, candidate=c) for c, m in ours if c is not None])

    def _note(self, measurements: list[Measurement]) -> None:
        self._searcher.update(measurements)
        self._values.add(self._workload, measurements)

    def generate_measure_candidates(self) -> list[MeasureCandidate] | None:
        """The next batch; None where the trials are spent or the space is."""
        wanted = min(self._batch, self._left)
        self._pending = self._searcher.suggest(wanted) if wanted > 0 else []
        self._left -= len(self._pending)
        schedules = [schedule_of(self._module, c.trace) for c in self._pending]
        return [MeasureCandidate(s, ArgInfo.from_entry_func(s.mod)) for s in schedules] or None

    def notify_runner_results(
        self, measure_candidates: list[MeasureCandidate], results: list[RunnerResult]
    ) -> None:
        """Tells the searcher, and the models, what became of the last batch."""
        pairs = zip(self._pending, results, strict=True)
        measured = [measurement_of(c, r.run_secs, r.error_msg) for c, r in pairs]
        self._note(measured)
        if self._teaches:
            self._cost_model.add(self._workload, [self._outward(m) for m in measured])

    def _outward(self, measurement: Measurement) -> Measurement:
        candidate = measurement.candidate
        choices = self._space.outward(candidate.choices)
        ours = replace(candidate, space=SPACE_NAME, choices=choices)  # type: ignore[arg-type]  # complete too
        return replace(measurement, candidate=ours)

    def post_tuning(self) -> None:
        """Nothing is left to do: all that was found is in MetaSchedule's database."""


class _Translated(NamedTuple):
    """A cost model that judges drafts of a ``DesignSpace``."""

    space: DesignSpace
    model: CostModel

    def score(self, workload: Workload, items: Sequence[Scored]) -> Prediction | None:
        return self.model.score(workload, [self.space.outward(choices_of(item)) for item in items])
