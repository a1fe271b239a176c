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
from itertools import groupby

from tvm.target import Target

from autotune.allocation import FLOOR_TRIALS, TaskProgress, next_task
from autotune.frontends.graph import Model
from autotune.manifest import CurvePoint
from autotune.measure.family import ReferenceFailed
from autotune.measure.pool import Pool
from autotune.profile import Profile
from costmodels.by_space import SpaceModels, Trained
from costmodels.joint import Ranking
from db.exchange.modules import SPACE_NAME as IMPORTED_SPACE
from db.store import Store
from db.values import Run
from search.errors import AutotuneError, UnsupportedWorkload
from search.problem import Candidate, Conditions, ErrorKind, MeasureError, Measurement, Task, Workload
from search.searchers import DEFAULT, SEARCHERS
from search.searchers.base import Searcher
from search.searchers.portfolio import PortfolioSearcher
from search.searchers.seeded import SeededSearcher
from search.similarity import nearest
from search.space import Draft, Space
from search.spaces import SPACES, spaces_of
from search.spaces.trace import TraceSpace

ROUND = 32  # trials of one task before the next is chosen
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
        proved: Tasks whose winners were verified, once the budget was spent, of ``to_prove``.
        proving_s: Seconds that this took so far.
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
    proved: int = 0
    to_prove: int = 0
    proving_s: float = 0.0

    @property
    def latency_s(self) -> float:
        """Of the model: the sum over its kernels; infinite until each has a time."""
        return sum((t.task.weight * t.latency_s for t in self.tasks), 0.0)

    @property
    def trials_per_minute(self) -> float:
        seconds = self.elapsed_s - self.earlier_s
        return 60 * (self.trials - self.earlier_trials) / seconds if seconds > 0 else 0.0

    @property
    def share_done(self) -> float:
        """Of the budget, then of the proofs; between 0 and 1."""
        if self.to_prove:
            return self.proved / self.to_prove
        return self.budget.share_done(self.trials, self.elapsed_s)

    @property
    def left_s(self) -> float | None:
        """Estimated seconds to the end of the budget, then to that of the proofs."""
        done, elapsed_s = self.share_done, self.proving_s if self.to_prove else self.elapsed_s
        return elapsed_s * (1 - done) / done if done > 0 else None


Observer = Callable[[Progress], None]


class Tuner:
    """Tunes the tasks of one model.

    Args:
        tasks: Which of the model's tasks to tune.
        searcher: One of ``search.searchers.SEARCHERS``.
        observe: Called after each measurement and before each longer step.
        profile: Told where the time goes.
        trained: Networks that know something of kernels before they are measured.
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
        trained: Trained | None = None,
    ) -> None:
        self._profile = profile or Profile()
        self._make_searcher = SEARCHERS[searcher]
        self._target = target
        self._conditions = conditions
        self._store = store
        self._observe = observe
        self._models = SpaceModels(SPACES, trained, span=self._profile.span)
        self._elsewhere: list[tuple[Workload, Candidate]] = []
        self._imported: list[tuple[Workload, Candidate]] = []
        self._searchers: dict[str, Searcher] = {}
        self.progress = Progress([TaskProgress(t, self._floor_s(t)) for t in tasks], budget)

    @property
    def rankings(self) -> list[Ranking]:
        """What the cost models had thought of each round's candidates."""
        return self._models.rankings

    def run(self, run: Run, pool: Pool) -> Progress:
        """Spends the budget. May be interrupted anywhere by ``KeyboardInterrupt``: all is stored.

        Args:
            run: The run as the store began or resumed it.
        """
        progress = self.progress
        progress.trials = progress.earlier_trials = run.trials
        progress.elapsed_s = progress.earlier_s = run.elapsed_s
        self._recall(run)
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

    def _recall(self, run: Run) -> None:
        """Makes spaces and searchers, and tells them what the database holds."""
        with self._profile.span("database"):
            self._elsewhere = [
                known
                for name in SPACES
                for known in self._store.fastest(name, self._conditions.target, but=run.id)
            ]
            self._imported = self._store.fastest(IMPORTED_SPACE)
        tasks: dict[str, TaskProgress] = {}
        for task in self.progress.tasks:
            workload, seed = task.task.workload, run.spec.seed
            self._say(f"reading records of {task.task.name}")
            try:
                spaces = spaces_of(workload, self._target)
            except UnsupportedWorkload as error:
                self._give_up(task, error)
                continue
            searchers = {space.name: self._searcher(space, seed) for space in spaces}
            self._searchers[workload.hash] = PortfolioSearcher(searchers, seed)
            tasks[workload.hash] = task
        known = self._known(list(tasks))
        for hash_, each in self._searchers.items():
            each.update([m for _, m in known if m.candidate.workload == hash_])
        # In the order in which they were stored, over all tasks: the cost models depend on it.
        # What other runs measured, a trained model may have been trained on: it is not judged by that.
        for (hash_, own), some in groupby(known, lambda row: (row[1].candidate.workload, row[0] == run.id)):
            self._models.add(tasks[hash_].task.workload, [m for _, m in some], judge=own)
        self.progress.records = len(known)
        self._retrace(run, [(id_, tasks[m.candidate.workload], m) for id_, m in known])

    def _retrace(self, run: Run, known: Sequence[tuple[int | None, TaskProgress, Measurement]]) -> None:
        """Brings the progress to where the run stands: round by round, with its curve and its failures.

        For how long nobody worked on the run is not known: what was measured counts as of the run's start,
        but no later than all the seconds spent.
        """
        progress = self.progress
        for id_, task, measurement in known:
            if id_ != run.id:
                task.add(measurement)
        for task in progress.tasks:
            if task.trials:
                task.end_round()
        current, left = None, 0
        progress.trials, progress.elapsed_s = 0, 0.0
        for _, task, measurement in (row for row in known if row[0] == run.id):
            if current and (current is not task or not left):
                current.end_round()
            left = self._round_size(task) if current is not task or not left else left
            current, left = task, left - 1
            progress.trials += 1
            since_s = (measurement.measured_at - run.started_at).total_seconds()
            progress.elapsed_s = min(run.elapsed_s, max(progress.elapsed_s, since_s))
            self._note(task, measurement)
        if current:
            current.end_round()
        # One may have been stored, but not counted, when the process died.
        progress.trials = progress.earlier_trials = max(run.trials, progress.trials)
        progress.elapsed_s = run.elapsed_s

    def _searcher(self, space: Space, seed: int) -> Searcher:
        inner = self._make_searcher(space, self._models.scorers(space), seed)
        return SeededSearcher(inner, space, partial(self._hints, space), seed)

    def _hints(self, space: Space) -> list[Draft]:
        """What the space takes for the best, and that of similar workloads, of this run or in the database.

        Also those of the same workload on another device or from another tuner: they are measured here like
        any other candidate.
        """
        here = [(t.task.workload, t.best.candidate) for t in self.progress.tasks if t.best]
        known = [(w, c) for w, c in [*here, *self._elsewhere] if c.space == space.name]
        drafts = [space.first()]
        if isinstance(space, TraceSpace):
            drafts += [space.adopt(c.trace) for w, c in self._imported if w.hash == space.workload.hash]
        drafts += [space.adapt(c.choices) for _, c in nearest(space.workload, known, ALIKE)]
        return list(dict.fromkeys(d for d in drafts if d is not None))

    def _known(self, workloads: Sequence[str]) -> list[tuple[int | None, Measurement]]:
        """What the database holds, with its runs; what was found wrong since, wherever, as failed.

        First come those that were never measured here, as they do when a run begins.
        """
        with self._profile.span("database"):
            wrong = {w: self._store.wrong(w, self._conditions.target) for w in workloads}
            known = list(self._store.history(workloads, self._conditions, list(SPACES)))
        error = MeasureError(ErrorKind.WRONG_OUTPUT, "found wrong when it was verified")
        measured = {m.candidate for _, m in known}
        elsewhere = [w[h] for w in wrong.values() for h in sorted(w) if w[h] not in measured]
        return [(None, Measurement(c, error=error)) for c in elsewhere if c.space in SPACES] + [
            (id_, Measurement(m.candidate, error=error, measured_at=m.measured_at))
            if m.candidate.hash in wrong[m.candidate.workload] and not m.error
            else (id_, m)
            for id_, m in known
        ]

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
                self._models.add(workload, measured)

    def _give_up(self, task: TaskProgress, error: AutotuneError) -> None:
        """Leaves a task as it is; the others go on."""
        task.exhausted = True
        self.progress.failures["task_given_up"] += 1
        self.progress.last_failure = str(error)

    def _round_size(self, task: TaskProgress) -> int:
        """Small enough that a small budget reaches every task."""
        size = ROUND if task.trials else FLOOR_TRIALS
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
