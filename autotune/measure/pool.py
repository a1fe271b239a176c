"""Warm processes that build in parallel and run alone.

Candidates are compiled on all cores at once while nothing is timed; then they run one after another, each
with all the cores to itself. Whatever a candidate does to its process costs that candidate one failed
measurement: a copy of the process's parent takes its place within milliseconds (see ``worker``).
"""

import itertools
import math
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from autotune.hardware import usable_cpus
from autotune.measure.family import Builder, Family, Home, ReferenceFailed
from autotune.measure.limits import Limits
from autotune.measure.noise import NOISY, NoiseMeter
from autotune.measure.process import Process, WorkersFailed, answered
from autotune.measure.protocol import UNTUNED, Build, Check, Done, Pairs, Probe, Reply, Run
from autotune.measure.sequential import PairedTest
from autotune.measure.turns import Turns
from autotune.profile import Profile
from search.problem import Cache, Candidate, ErrorKind, MeasureError, Measurement, Workload

WORKER = "autotune.measure.worker"
NOISY_TRIES = 2  # of timing in a noisy stretch
PATIENCE_S = 0.3  # to wait for a noisy stretch to end
PAIRS_A_PROCESS = 4  # so that what favours one side in a process favours it in few pairs only
MATTERS = 1.5  # times the best: slower candidates are not timed again for noise


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
        waiting = deque(range(len(candidates)))
        with ExitStack() as stack:
            turn = stack.enter_context(ExitStack())
            turn.enter_context(self._turns.compiling())  # a new home begins to compute the reference
            home = self.family.home(workload)
            builders = stack.enter_context(self.family.builders(home, self._cpus))
            while waiting:
                yield from self._build(home, builders, candidates, waiting)
                self.family.await_reference(home)
                turn.close()
                for builder in builders:
                    for key, (reply, drift) in self._time(builder, rival_s, fastest_s).items():
                        if isinstance(reply, Done) and _faster(reply.samples_s, rival_s):
                            rival_s = reply.samples_s
                        yield _measurement(candidates[key], reply, builder.built.pop(key), drift)
                    if builder.built:  # it died: what it had compiled is compiled again
                        waiting.extend(builder.built)
                        self.family.renew(builder)
                if waiting:
                    turn.enter_context(self._turns.compiling())

    def check(self, workload: Workload, candidate: Candidate, seed: int) -> Reply:
        """Compares a candidate's outputs with the reference on inputs of every kind."""
        home = self._ready_home(workload)
        if isinstance(home, MeasureError):
            return home
        with self.family.builders(home, self._cpus[:1]) as (builder,):
            with self._turns.compiling(), self._profile.span("build"):
                reply = builder.process.ask(
                    Build(0, candidate.trace), self._limits.build_s, ErrorKind.BUILD_TIMEOUT
                )
            if isinstance(reply, Done):
                reply = self._ask_runner(builder, Check(0, seed))
            return reply

    def compare(
        self,
        workload: Workload,
        first: Candidate | None,
        second: Candidate | None,
        seed: int,
        cache: Cache = Cache.WARM,
    ) -> PairedTest | MeasureError:
        """Times two candidates (None for the plain loops) in pairs until it is clear which is faster.

        What an application would vary is varied: two processes compile both, one in each order; a few pairs
        at a time run in a new copy of one of them, with new inputs; each at new addresses, in random order.
        """
        test = PairedTest()
        traces = [c.trace if c else UNTUNED for c in (first, second)]
        home = self._ready_home(workload)
        if isinstance(home, MeasureError):
            return home
        with self.family.builders(home, (self._cpus[0], self._cpus[-1])) as builders:
            if error := self._build_pair(builders, traces):
                return error
            for turn in itertools.count():
                count = min(test.next_pairs, PAIRS_A_PROCESS)
                request = Pairs(0, 1, count, hash((seed, turn)) & 0x7FFFFFFF, cache)
                reply = self._ask_runner(builders[turn % 2], request)
                if not isinstance(reply, Done):
                    return _error(reply)
                test.add(reply.samples_s, reply.rival_s)
                if test.decided:
                    break
        return test

    def _ready_home(self, workload: Workload) -> Home | MeasureError:
        """The home of a workload once its reference is there; else an error that proves nothing."""
        try:
            with self._turns.compiling():
                home = self.family.home(workload)
                self.family.await_reference(home)
                return home
        except ReferenceFailed as error:
            return MeasureError(ErrorKind.CRASH, str(error))

    def _build_pair(self, builders: Sequence[Builder], traces: Sequence[str]) -> MeasureError | None:
        """Compiles both in both builders, in another order in each."""
        with self._turns.compiling(), self._profile.span("build"):
            for keys in ((0, 1), (1, 0)):
                for builder, key in zip(builders, keys, strict=True):
                    builder.process.send(Build(key, traces[key]))
                for builder in builders:
                    reply = builder.process.receive(self._limits.build_s, ErrorKind.BUILD_TIMEOUT)
                    if not isinstance(reply, Done):
                        return _error(reply)
        return None

    def _build(
        self, home: Home, builders: Sequence[Builder], candidates: Sequence[Candidate], waiting: deque[int]
    ) -> Iterator[Measurement]:
        """Compiles a batch on all builders; yields the failures and leaves the rest in the builders."""
        limits = self._limits
        left = limits.batch * len(builders)
        busy: dict[Process, tuple[Builder, int, float]] = {}
        while busy or (waiting and left):
            for builder in builders:
                if builder.process not in busy and waiting and left:
                    key, left = waiting.popleft(), left - 1
                    builder.process.send(Build(key, candidates[key].trace))
                    limit_s = limits.build_limit_s(home.built_s)
                    busy[builder.process] = builder, key, time.monotonic() + limit_s
            soonest = min(deadline for _, _, deadline in busy.values()) - time.monotonic()
            with self._profile.span("build"):
                ready = answered(list(busy), soonest)
            for process in ready or [p for p, (_, _, end) in busy.items() if end <= time.monotonic()]:
                builder, key, _ = busy.pop(process)
                reply = process.receive(0.0, ErrorKind.BUILD_TIMEOUT)
                if isinstance(reply, Done):
                    builder.built[key] = reply.elapsed_s
                    home.built_s.append(reply.elapsed_s)
                    continue
                error = _error(reply)
                if error.kind is ErrorKind.BUILD_TIMEOUT:
                    text = f"not compiled after {limits.build_limit_s(home.built_s):.2g} s"
                    error = MeasureError(error.kind, text)
                yield Measurement(candidates[key], error=error)
                if not process.alive:  # what else it had compiled is compiled again
                    waiting.extend(builder.built)
                    left += len(builder.built)
                    self.family.renew(builder)

    def _time(
        self, builder: Builder, rival_s: tuple[float, ...], fastest_s: float
    ) -> dict[int, tuple[Reply, float]]:
        """Runs what a builder holds: replies and drifts; none from one that died before."""
        with self._turns.timing(), self._profile.span("run"):
            try:
                return self._replies(builder, rival_s, fastest_s)
            except WorkersFailed:
                return {}
            finally:
                builder.end_runner()

    def _replies(
        self, builder: Builder, rival_s: tuple[float, ...], fastest_s: float
    ) -> dict[int, tuple[Reply, float]]:
        """What counts and was timed in a noisy stretch is timed again."""
        keys = list(builder.built)
        replies: dict[int, tuple[Reply, float]] = {}
        for _ in range(NOISY_TRIES):
            before = self._quiet_drift(builder) if keys else 1.0
            fresh: dict[int, Reply] = {}
            for key in keys:
                limit_s = self._limits.run_limit_s(builder.home.workload, rival_s)
                reply = self.family.runner(builder).ask(Run(key, rival_s, fastest_s), limit_s)
                fresh[key] = reply
                if isinstance(reply, MeasureError) and reply.kind is ErrorKind.OUT_OF_BOUNDS:
                    builder.end_runner()  # what else it has written over, nobody knows
                if isinstance(reply, Done) and _faster(reply.samples_s, rival_s):
                    rival_s = reply.samples_s
            drift = max(before, self._drift(builder)) if keys else 1.0
            replies |= {key: (reply, drift) for key, reply in fresh.items()}
            keys = [k for k, r in fresh.items() if isinstance(r, Done) and _matters(r.samples_s, rival_s)]
            if drift <= NOISY:
                break
        return replies

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

    def _ask_runner(self, builder: Builder, request: Check | Pairs) -> Reply:
        try:
            with self._turns.timing(), self._profile.span("run"):
                return self.family.runner(builder).ask(request, self._limits.check_s)
        except WorkersFailed as error:
            return MeasureError(ErrorKind.CRASH, str(error))
        finally:
            builder.end_runner()


def _faster(samples_s: Sequence[float], rival_s: Sequence[float]) -> bool:
    return not rival_s or statistics.median(samples_s) < statistics.median(rival_s)


def _matters(samples_s: Sequence[float], rival_s: Sequence[float]) -> bool:
    return not rival_s or min(samples_s) < MATTERS * statistics.median(rival_s)


def _error(reply: Reply) -> MeasureError:
    return reply if isinstance(reply, MeasureError) else MeasureError(ErrorKind.CRASH, f"it said {reply}")


def _measurement(candidate: Candidate, reply: Reply, build_s: float, drift: float) -> Measurement:
    if isinstance(reply, Done):
        known = drift if math.isfinite(drift) else None
        return Measurement(candidate, reply.samples_s, build_s=build_s, drift=known)
    return Measurement(candidate, error=_error(reply), build_s=build_s)
