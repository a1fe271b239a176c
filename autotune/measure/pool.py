"""Warm processes that build in parallel and run alone.

Candidates are compiled on all cores at once while nothing is timed; then they run one after another, each
with all the cores to itself. Whatever a candidate does to its process costs that candidate one failed
measurement: a copy of the process's parent takes its place within milliseconds (see ``worker``).
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from autotune.hardware import usable_cpus
from autotune.measure.arena import Arena
from autotune.measure.family import Builder, Family, Home
from autotune.measure.limits import Limits
from autotune.measure.noise import NOISY, NoiseMeter
from autotune.measure.process import Process, WorkersFailed, answered, killed
from autotune.measure.protocol import Build, Done, Probe, Reply, Run, Time, error_of
from autotune.measure.turns import Turns
from autotune.profile import Profile
from search.problem import Candidate, ErrorKind, MeasureError, Measurement, Workload

WORKER = "autotune.measure.worker"
NOISY_TRIES = 2  # of timing in a noisy stretch
PATIENCE_S = 0.3  # to wait for a noisy stretch to end
MATTERS = 1.5  # times the best: slower candidates are not timed again for noise


@dataclass
class Round:
    """The candidates of one call of ``Pool.measure``; a key is a place in ``candidates``.

    Attributes:
        rival_s: Samples of the best candidate so far.
        waiting: To be compiled.
        spared: Whose process was killed once, perhaps by another's hand.
    """

    candidates: Sequence[Candidate]
    rival_s: tuple[float, ...]
    fastest_s: float
    waiting: deque[int]
    spared: set[int] = field(default_factory=set)

    def spares(self, key: int, reply: Reply) -> bool:
        """Whether a candidate has another chance, its only one."""
        if not killed(reply) or key in self.spared:
            return False
        self.spared.add(key)
        return True


class Pool:
    """Measures candidates of one target with a fixed number of threads.

        >>> with Pool(target_json, threads=2) as pool:                       # doctest: +SKIP
        ...     for measurement in pool.measure(workload, candidates): ...

    Args:
        target: Canonical JSON of the target (``autotune.target.canonical``).
        threads: Threads that a kernel runs on; also the number of builders.
        worker_module: What a worker process runs; tests put misbehaving ones here.
        profile: Told of the time spent in building and running.

    Attributes:
        noise: What the probes between timed stretches found.
        family: Its processes.
    """

    def __init__(
        self,
        target: str,
        threads: int,
        limits: Limits | None = None,
        worker_module: str = WORKER,
        profile: Profile | None = None,
    ) -> None:
        self._profile = profile or Profile()
        self._cpus = usable_cpus()[:threads]
        self._limits = limits or Limits()
        self._turns = Turns(self._profile)
        self.noise = NoiseMeter()
        self.family = Family(worker_module, target, self._cpus, self._limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes."""
        self.family.close()
        self._turns.close()

    def measure(
        self,
        workload: Workload,
        candidates: Sequence[Candidate],
        rival_s: tuple[float, ...] = (),
        fastest_s: float = 0.0,
    ) -> Iterator[Measurement]:
        """Measures each candidate once, yielding each result as soon as it is known to hold.

        Args:
            rival_s: Samples of the workload's best candidate so far, against which the others race.
            fastest_s: A faster time is recorded as implausible.

        Raises:
            ReferenceFailed: The workload cannot be run with plain loops.
        """
        todo = Round(candidates, rival_s, fastest_s, deque(range(len(candidates))))
        with ExitStack() as stack:
            turn = stack.enter_context(ExitStack())
            turn.enter_context(self._turns.compiling())  # a new home begins to compute the reference
            home = self.family.home(workload)
            builders = stack.enter_context(self.family.builders(home, self._cpus))
            while todo.waiting:
                yield from self._build(home, builders, todo)
                self.family.await_reference(home)
                turn.close()
                for builder in builders:
                    for key, (reply, drift) in self._time(builder, todo).items():
                        yield _measurement(candidates[key], reply, builder.built.pop(key), drift)
                    todo.waiting.extend(builder.built)  # what it held when it was killed is compiled again
                    self.family.empty(builder)
                if todo.waiting:
                    turn.enter_context(self._turns.compiling())

    @contextmanager
    def arena(self, workload: Workload) -> Iterator[Arena]:
        """Where candidates of a workload are checked and compared.

        Raises:
            ReferenceFailed: The workload cannot be run with plain loops.
        """
        with self._turns.compiling():
            home = self.family.home(workload)
            self.family.await_reference(home)  # it takes a core from what is timed
        with self.family.builders(home, (self._cpus[0], self._cpus[-1]), judge=True) as builders:
            yield Arena(builders, self.family, self._limits, self._turns, self._profile)

    def _build(self, home: Home, builders: Sequence[Builder], todo: Round) -> Iterator[Measurement]:
        """Compiles a batch on all builders; yields the failures and leaves the rest in the builders."""
        left = self._limits.batch * len(builders)
        busy: dict[Process, tuple[Builder, int, float]] = {}  # what each compiles, and its limit
        while busy or (todo.waiting and left):
            for builder in builders:
                if builder.process not in busy and todo.waiting and left:
                    left += self._keep(builder, todo)
                    key, left = todo.waiting.popleft(), left - 1
                    builder.process.send(Build(key, todo.candidates[key].trace))
                    busy[builder.process] = builder, key, self._limits.build_limit_s(home.built_s)
            soonest = min(limit_s - process.spent_s() for process, (_, _, limit_s) in busy.items())
            with self._profile.span("build"):
                ready = answered(list(busy), soonest)
            for process in ready or [p for p, (_, _, limit_s) in busy.items() if p.spent_s() >= limit_s]:
                builder, key, limit_s = busy.pop(process)
                reply = process.receive(limit_s, ErrorKind.BUILD_TIMEOUT)
                if isinstance(reply, Done):
                    builder.built[key] = reply.elapsed_s
                    home.builds.append(reply.elapsed_s)
                    continue
                if todo.spares(key, reply):
                    todo.waiting.append(key)
                    left += 1
                else:
                    yield Measurement(todo.candidates[key], error=error_of(reply))
                if not process.alive:
                    home.builds.append(None)
                    left += self._restore(builder, todo)

    def _keep(self, builder: Builder, todo: Round) -> int:
        """Sees to it that little is lost with a builder; says how many must be compiled again."""
        try:
            self.family.keep(builder)
        except WorkersFailed:
            return self._restore(builder, todo)
        return 0

    def _restore(self, builder: Builder, todo: Round) -> int:
        lost = self.family.restore(builder)
        todo.waiting.extend(lost)
        return len(lost)

    def _time(self, builder: Builder, todo: Round) -> dict[int, tuple[Reply, float]]:
        """Runs what a builder holds: replies and drifts; some are missing where it was killed meanwhile."""
        replies: dict[int, tuple[Reply, float]] = {}
        with self._turns.timing(), self._profile.span("run"):
            try:
                self._run_all(builder, todo, replies)
            except WorkersFailed:
                pass
            finally:
                builder.end_runner()
        return replies

    def _run_all(self, builder: Builder, todo: Round, replies: dict[int, tuple[Reply, float]]) -> None:
        """What counts and was timed in a noisy stretch is timed again."""
        keys = list(builder.built)
        for _ in range(NOISY_TRIES):
            before = self._quiet_drift(builder) if keys else 1.0
            for key in keys:
                reply = self._run(builder, key, todo)
                if todo.spares(key, reply):
                    reply = self._run(builder, key, todo)
                replies[key] = reply, math.inf
                if isinstance(reply, MeasureError) and reply.kind is ErrorKind.OUT_OF_BOUNDS:
                    builder.end_runner()  # what else it has written over, nobody knows
                if isinstance(reply, Done) and _faster(reply.samples_s, todo.rival_s):
                    todo.rival_s = reply.samples_s
            drift = max(before, self._drift(builder)) if keys else 1.0
            replies |= {key: (replies[key][0], drift) for key in keys}
            keys = [key for key in keys if _matters(replies[key][0], todo.rival_s)]
            if drift <= NOISY:
                break

    def _run(self, builder: Builder, key: int, todo: Round) -> Reply:
        """Runs a candidate once, within little time; times it if that went well."""
        runner = self.family.runner(builder)
        reply = runner.ask(Run(key), self._limits.first_run_s(builder.home.workload, todo.rival_s))
        if not isinstance(reply, Done):
            return reply
        return runner.ask(Time(key, reply.samples_s[0], todo.rival_s, todo.fastest_s), self._limits.run_s)

    def _quiet_drift(self, builder: Builder) -> float:
        """Waits for a noisy stretch to end, not forever."""
        patience = time.monotonic() + PATIENCE_S
        while (drift := self._drift(builder)) > NOISY and time.monotonic() < patience:
            with self._profile.span("idle"):
                time.sleep(0.1)
        return drift

    def _drift(self, builder: Builder) -> float:
        reply = self.family.runner(builder).ask(Probe(), self._limits.run_s)
        return self.noise.add(time.monotonic(), reply.samples_s) if isinstance(reply, Done) else math.inf


def _faster(samples_s: Sequence[float], rival_s: Sequence[float]) -> bool:
    return not rival_s or statistics.median(samples_s) < statistics.median(rival_s)


def _matters(reply: Reply, rival_s: Sequence[float]) -> bool:
    return isinstance(reply, Done) and min(reply.samples_s) < MATTERS * statistics.median(rival_s)


def _measurement(candidate: Candidate, reply: Reply, build_s: float, drift: float) -> Measurement:
    if isinstance(reply, Done):
        known = drift if math.isfinite(drift) else None
        return Measurement(candidate, reply.samples_s, build_s=build_s, drift=known)
    return Measurement(candidate, error=error_of(reply), build_s=build_s)
