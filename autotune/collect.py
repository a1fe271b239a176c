"""Gathers measurements to train cost models on: good candidates and bad ones, of every space of many kernels.

What a search leaves behind is mostly good, and says little of what to avoid; what is drawn at random is
mostly bad. So each space of a kernel gets its trials from several searchers in turn. All is stored at once,
as runs of the networks that the kernels are of; a kernel that has its trials already is passed over, so the
same command goes on where it stopped.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from autotune.errors import UnsupportedModel
from autotune.frontends.graph import Model, lower
from autotune.frontends.model import SourceModel
from autotune.measure.family import ReferenceFailed
from autotune.measure.pool import Pool
from autotune.session import Session
from costmodels.by_space import SpaceModels, Trained
from db.values import RunSpec, RunStatus
from search.errors import AutotuneError, UnsupportedWorkload
from search.problem import Measurement, Task, digest
from search.searchers import SEARCHERS
from search.searchers.base import Searcher
from search.space import Space
from search.spaces import SPACES, spaces_of

MIX = ("random", "evolutionary", "random", "cascade")
"""Searchers that take turns; each hears of all that was measured."""

BEAM = "beam"
"""The searcher that a trained LSTM guides: value iteration measures where its beams end, and trains anew."""

ROUND = 16  # candidates of a turn, at most
IDLE_SHARE = 0.25  # of the trials, for kernels that only move data


@dataclass
class Collected:
    """Where collecting stands.

    Attributes:
        wanted: Measurements of the kernels seen so far, once all are made.
        records: Of these, those that are stored, earlier ones included.
        left_s: Of the time that was given; None without one.
    """

    workloads: int = 0
    wanted: int = 0
    records: int = 0
    measured: int = 0
    elapsed_s: float = 0.0
    left_s: float | None = None
    doing: str = ""
    failures: Counter[str] = field(default_factory=Counter)


Observer = Callable[[Collected], None]


class Collector:
    """Measures candidates of the kernels of networks.

    Args:
        trials: Measurements wanted of each kernel.
        seconds: When to stop; None when all is done.
        trained: Networks that guide a beam; its ends alone are measured then, ``trials`` of them.
        observe: Called after each measurement and before each longer step.
    """

    def __init__(
        self,
        session: Session,
        trials: int,
        seconds: float | None = None,
        seed: int = 0,
        observe: Observer = lambda collected: None,
        trained: Trained | None = None,
    ) -> None:
        self._session = session
        self._trials = trials
        self._seconds = math.inf if seconds is None else seconds
        self._seed = seed
        self._observe = observe
        self._models = SpaceModels(SPACES, trained)
        self._guided = trained is not None
        self._mix = (BEAM,) if self._guided else MIX
        self._seen: set[str] = set()
        self._began = time.monotonic()
        self.collected = Collected()

    def run(self, networks: Iterable[SourceModel]) -> Collected:
        """Goes through the networks in order. ``KeyboardInterrupt`` leaves all that was measured stored."""
        with Pool(self._session.conditions.target, self._session.conditions.threads) as pool:
            for source in networks:
                if self._is_over():
                    break
                self._say(f"importing {source.name}")
                try:
                    model = lower(source, self._session.target)
                except UnsupportedModel:
                    self.collected.failures["unsupported_model"] += 1
                    continue
                self._network(model, pool)
        return self.collected

    def _network(self, model: Model, pool: Pool) -> None:
        store, conditions = self._session.store, self._session.conditions
        tasks = [t for t in model.tasks if t.workload.hash not in self._seen]
        self._seen.update(t.workload.hash for t in tasks)
        known = [(t, store.measurements(t.workload.hash, conditions)) for t in tasks]
        left = [(t, some, n) for t, some in known if (n := self._left(t, some)) > 0]
        if not left:
            return
        # Under a hash of its own: `autotune run` must not take up such a run as one of the tuner.
        hash_ = digest(["collected", model.hash])
        store.add_model(hash_, model.name, model.source.source, model.tasks)
        settings = {"collect": True, "trials": self._trials}
        run = store.start_run(RunSpec(hash_, conditions, self._seed, settings))
        began, before, status = time.monotonic(), self.collected.measured, RunStatus.INTERRUPTED
        try:
            for task, some, n in left:
                for measurement in self._task(task, some, n, pool):
                    store.add_measurements(run.id, conditions, [measurement])
                    self._note(measurement)
                    store.beat(run.id, time.monotonic() - began, self.collected.measured - before)
                    if self._is_over():
                        return
            status = RunStatus.FINISHED
        finally:
            with suppress(AutotuneError):  # a full or locked database; a run without an end is known as such
                store.end_run(run.id, status)

    def _left(self, task: Task, known: Sequence[Measurement]) -> int:
        """Trials that a kernel still lacks."""
        wanted = math.ceil(self._trials * (1.0 if task.workload.flop else IDLE_SHARE))
        made = sum(not self._guided or m.candidate.origin == BEAM for m in known)
        self.collected.workloads += 1
        self.collected.wanted += wanted
        self.collected.records += min(wanted, made)
        return wanted - made

    def _task(self, task: Task, known: Sequence[Measurement], n: int, pool: Pool) -> Iterator[Measurement]:
        """Measures ``n`` candidates of a kernel, of all its spaces, by all searchers in turn."""
        workload = task.workload
        self._say(f"choosing candidates of {task.name}")
        try:
            spaces = spaces_of(workload, self._session.target)
        except UnsupportedWorkload:
            self.collected.failures["no_space"] += 1
            return
        turns = [(space, self._searchers(space, known)) for space in spaces]
        self._models.add(workload, known, judge=False)
        size = max(1, min(ROUND, n // (len(turns) * len(self._mix))))  # so that all have their turn
        best: Measurement | None = min(known, key=lambda m: m.latency_s, default=None)
        for turn in range(n):  # at most: most turns give more than one
            space, searchers = turns[turn % len(turns)]
            name = self._mix[turn // len(turns) % len(self._mix)]
            candidates = [
                replace(c, origin=name) if name == BEAM else c for c in searchers[name].suggest(min(size, n))
            ]
            if not candidates:  # a small space is exhausted
                turns.remove((space, searchers))
                if not turns:
                    return
                continue
            measured: list[Measurement] = []
            try:
                rival_s = best.samples_s if best else ()
                for measurement in pool.measure(workload, candidates, rival_s):
                    measured.append(measurement)
                    yield measurement
            except ReferenceFailed:
                self.collected.failures["no_reference"] += 1
                return
            for searcher in searchers.values():
                searcher.update(measured)
            self._models.add(workload, measured)
            best = min([*measured, *([best] if best else [])], key=lambda m: m.latency_s, default=None)
            n -= len(measured)
            if n <= 0:
                return

    def _searchers(self, space: Space, known: Sequence[Measurement]) -> dict[str, Searcher]:
        scorers = self._models.scorers(space)
        searchers = {name: SEARCHERS[name](space, scorers, self._seed) for name in self._mix}
        for searcher in searchers.values():
            searcher.update(known)
        return searchers

    def _note(self, measurement: Measurement) -> None:
        collected = self.collected
        collected.measured += 1
        collected.records += 1
        if measurement.error is not None:
            collected.failures[measurement.error.kind] += 1
        self._say(collected.doing)

    def _is_over(self) -> bool:
        return time.monotonic() - self._began >= self._seconds

    def _say(self, doing: str) -> None:
        collected = self.collected
        collected.doing = doing
        collected.elapsed_s = time.monotonic() - self._began
        if math.isfinite(self._seconds):
            collected.left_s = max(0.0, self._seconds - collected.elapsed_s)
        self._observe(collected)
