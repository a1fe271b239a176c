"""The loop: choose a task, ask its searcher, measure, store, learn, until the budget is spent.

Everything that the loop knows is in the database. A run that was killed is taken up by telling the searchers
and the cost model what was measured.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from tvm.target import Target

from autotune.allocation import TaskProgress, next_task
from autotune.frontends.graph import Model
from autotune.manifest import CurvePoint
from autotune.measure.family import ReferenceFailed
from autotune.measure.pool import Pool
from autotune.profile import Profile
from costmodels.trees import TreeCostModel
from costmodels.values import TreeValueModel
from db.store import Store
from db.values import Run
from search.errors import AutotuneError, UnsupportedWorkload
from search.problem import Candidate, Conditions, ErrorKind, MeasureError, Measurement, Task, Workload
from search.searchers import DEFAULT, SEARCHERS, Scorers
from search.searchers.base import Searcher
from search.searchers.seeded import SeededSearcher
from search.similarity import nearest
from search.space import Draft
from search.spaces.trace import SPACE_NAME, TraceSpace

ROUND = 32  # trials of one task before the next is chosen
FIRST_ROUND = 8  # so that every task is known soon; what they teach helps the tasks after them
IMPORTED = "metaschedule/1"  # the space of imported traces (db.exchange.metaschedule)
ALIKE = 4  # most similar workloads whose best schedules a task begins with
FASTER_THAN_LIGHT = 4.0  # times the probed peak, which other load may have halved: no kernel is that fast


@dataclass(frozen=True)
class Budget:
    """When to stop: whichever comes first. A resumed run's earlier trials and seconds count.

    Attributes:
        gain: Share of the model's latency that a round must promise to save, else the run is done.
    """

    trials: int | None = None
    seconds: float | None = None
    gain: float = 0.0

    def left(self, trials: int, elapsed_s: float) -> bool:
        """Whether there is something left."""
        return (self.trials is None or trials < self.trials) and (
            self.seconds is None or elapsed_s < self.seconds
        )

    def share_done(self, trials: int, elapsed_s: float) -> float:
        """Between 0 and 1."""
        parts = [trials / self.trials] if self.trials else []
        parts += [elapsed_s / self.seconds] if self.seconds else []
        return min(1.0, max(parts, default=0.0))


@dataclass
class Progress:
    """Where a run stands; the tuner changes it, observers read it.

    Attributes:
        earlier_trials: Of ``trials``, those made by processes that worked on the run before.
        settled: It ended because no task promised enough any more.
        records: Measurements found in the database when the run began.
    """

    tasks: list[TaskProgress]
    budget: Budget
    trials: int = 0
    earlier_trials: int = 0
    elapsed_s: float = 0.0
    earlier_s: float = 0.0
    records: int = 0
    doing: str = ""
    settled: bool = False
    failures: Counter[str] = field(default_factory=Counter)
    last_failure: str = ""
    curve: list[CurvePoint] = field(default_factory=list)

    @property
    def latency_s(self) -> float:
        """Of the model: the sum over its kernels; infinite until each has a time."""
        return sum((t.task.weight * t.latency_s for t in self.tasks), 0.0)

    @property
    def trials_per_minute(self) -> float:
        seconds = self.elapsed_s - self.earlier_s
        return 60 * (self.trials - self.earlier_trials) / seconds if seconds > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Estimated seconds to the end of the budget."""
        done = self.budget.share_done(self.trials, self.elapsed_s)
        return self.elapsed_s * (1 - done) / done if done > 0 else None


Observer = Callable[[Progress], None]


class Tuner:
    """Tunes the tasks of one model.

    Args:
        tasks: Which of the model's tasks to tune.
        searcher: One of ``search.searchers.SEARCHERS``.
        observe: Called after each measurement and before each longer step.
        profile: Told where the time goes.
    """

    def __init__(
        self,
        model: Model,
        tasks: tuple[Task, ...],
        target: Target,
        conditions: Conditions,
        store: Store,
        budget: Budget,
        observe: Observer = lambda progress: None,
        profile: Profile | None = None,
        searcher: str = DEFAULT,
    ) -> None:
        self._profile = profile or Profile()
        self._make_searcher = SEARCHERS[searcher]
        self._target = target
        self._conditions = conditions
        self._store = store
        self._observe = observe
        self._cost_model = TreeCostModel(span=self._profile.span)
        self._values = TreeValueModel(span=self._profile.span)
        self._elsewhere: list[tuple[Workload, Candidate]] = []
        self._imported: list[tuple[Workload, Candidate]] = []
        self._searchers: dict[str, Searcher] = {}
        self.progress = Progress([TaskProgress(t, self._floor_s(t)) for t in tasks], budget)

    def run(self, run: Run, pool: Pool) -> Progress:
        """Spends the budget. May be interrupted anywhere by ``KeyboardInterrupt``: all is stored.

        Args:
            run: The run as the store began or resumed it.
        """
        progress = self.progress
        progress.trials = progress.earlier_trials = run.trials
        progress.elapsed_s = progress.earlier_s = run.elapsed_s
        self._recall(run.spec.seed)
        started = time.monotonic()
        while progress.budget.left(progress.trials, progress.elapsed_s):
            task = next_task(progress.tasks, self._least_s())
            if task is None:
                progress.settled = progress.budget.gain > 0
                break
            for measurement in self._round(task, pool):
                progress.trials += 1
                progress.elapsed_s = progress.earlier_s + time.monotonic() - started
                with self._profile.span("database"):
                    self._store.add_measurements(run.id, self._conditions, [measurement])
                    self._store.beat(run.id, progress.elapsed_s, progress.trials)
                self._note(task, measurement)
                self._observe(progress)
            task.end_round()
        return progress

    def _least_s(self) -> float:
        """Seconds that a trial must promise to save."""
        latency_s, gain = self.progress.latency_s, self.progress.budget.gain
        return gain * latency_s / ROUND if gain and math.isfinite(latency_s) else 0.0

    def _recall(self, seed: int) -> None:
        """Makes spaces and searchers, and tells them what the database holds."""
        with self._profile.span("database"):
            self._elsewhere = self._store.fastest(SPACE_NAME, self._conditions.target)
            self._imported = self._store.fastest(IMPORTED)
        for task in self.progress.tasks:
            workload = task.task.workload
            self._say(f"reading records of {task.task.name}")
            try:
                space = TraceSpace(workload, self._target)
            except UnsupportedWorkload as error:
                self._give_up(task, error)
                continue
            inner = self._make_searcher(space, Scorers(self._cost_model, self._values), seed)
            searcher = SeededSearcher(inner, space, partial(self._hints, space), seed)
            known = self._known(workload, space.name)
            searcher.update(known)
            self._learn(workload, known)
            for measurement in known:
                task.add(measurement)
            if known:
                task.end_round()
            self.progress.records += len(known)
            self._searchers[workload.hash] = searcher

    def _learn(self, workload: Workload, measured: Sequence[Measurement]) -> None:
        self._cost_model.add(workload, measured)
        self._values.add(workload, measured)

    def _hints(self, space: TraceSpace) -> list[Draft]:
        """The best schedules of similar workloads, of this run or in the database, fitted to this space.

        Also those of the same workload on another device or from another tuner: they are measured here like
        any other candidate.
        """
        here = [(t.task.workload, t.best.candidate) for t in self.progress.tasks if t.best]
        alike = nearest(space.workload, [*here, *self._elsewhere], ALIKE)
        imported = [c for w, c in self._imported if w.hash == space.workload.hash]
        drafts = [space.adopt(c.trace) for c in imported] + [space.adapt(c.choices) for _, c in alike]
        return list(dict.fromkeys(d for d in drafts if d is not None))

    def _known(self, workload: Workload, space: str) -> list[Measurement]:
        """What the database holds; what was found wrong since, under whichever conditions, as failed."""
        with self._profile.span("database"):
            wrong = self._store.wrong(workload.hash, self._conditions.target)
            known = self._store.measurements(workload.hash, self._conditions, space)
        error = MeasureError(ErrorKind.WRONG_OUTPUT, "found wrong when it was verified")
        elsewhere = wrong.keys() - {m.candidate.hash for m in known}
        return [
            Measurement(m.candidate, error=error) if m.candidate.hash in wrong and not m.error else m
            for m in known
        ] + [Measurement(wrong[h], error=error) for h in sorted(elsewhere) if wrong[h].space == space]

    def _round(self, task: TaskProgress, pool: Pool) -> Iterator[Measurement]:
        """Measures the next candidates of a task; its searcher learns at the end, even of half a round."""
        workload = task.task.workload
        searcher = self._searchers[workload.hash]
        self._say(f"choosing candidates of {task.task.name}")
        with self._profile.span("search"):
            candidates = searcher.suggest(self._round_size(task))
        task.exhausted = not candidates
        measured: list[Measurement] = []
        self._say(f"measuring {task.task.name}")
        try:
            rival_s = task.best.samples_s if task.best else ()
            for measurement in pool.measure(workload, candidates, rival_s, task.floor_s):
                measured.append(measurement)
                yield measurement
                if not self.progress.budget.left(self.progress.trials, self.progress.elapsed_s):
                    return
        except ReferenceFailed as error:
            self._give_up(task, error)
        finally:
            with self._profile.span("search"):
                searcher.update(measured)
                self._learn(workload, measured)

    def _give_up(self, task: TaskProgress, error: AutotuneError) -> None:
        """Leaves a task as it is; the others go on."""
        task.exhausted = True
        self.progress.failures["task_given_up"] += 1
        self.progress.last_failure = str(error)

    def _round_size(self, task: TaskProgress) -> int:
        """Small enough that a small budget reaches every task."""
        size = ROUND if task.trials else FIRST_ROUND
        budget = self.progress.budget.trials
        if budget is None:
            return size
        share = math.ceil(budget / (2 * len(self.progress.tasks)))
        return max(1, min(size, share, budget - self.progress.trials))

    def _note(self, task: TaskProgress, measurement: Measurement) -> None:
        progress = self.progress
        before = progress.latency_s
        task.add(measurement)
        if measurement.error is not None:
            progress.failures[measurement.error.kind] += 1
            progress.last_failure = f"{task.task.name}: {measurement.error.text}"
        if progress.latency_s < before:
            progress.curve.append(
                CurvePoint(elapsed_s=progress.elapsed_s, trials=progress.trials, latency_s=progress.latency_s)
            )

    def _say(self, doing: str) -> None:
        self.progress.doing = doing
        self._observe(self.progress)

    def _floor_s(self, task: Task) -> float:
        """Seconds below which a time cannot be true: a multiple of the probed peak rate of this hardware."""
        peak = self._conditions.hardware.probes.get("peak_gflops_f32", 0.0)
        is_f32 = all(a.dtype == "float32" for a in task.workload.args)
        return task.workload.flop / (peak * 1e9 * FASTER_THAN_LIGHT) if peak and is_f32 else 0.0
