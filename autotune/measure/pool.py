"""Warm processes that build in parallel and run alone.

Candidates are compiled on all cores at once while nothing is timed; then they run one after another, each
with all the cores to itself. Whatever a candidate does to its process costs that candidate one failed
measurement: a copy of the process's parent takes its place within milliseconds (see ``worker``).
"""

import itertools
import math
import statistics
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import psutil

from autotune.hardware import usable_cpus
from autotune.measure.noise import NOISY, NoiseMeter
from autotune.measure.process import Process, Root, WorkersFailed, answered
from autotune.measure.protocol import (
    UNTUNED,
    Build,
    Check,
    Done,
    Pairs,
    Prepare,
    Probe,
    Reference,
    Reply,
    Run,
)
from autotune.measure.sequential import PairedTest
from autotune.measure.turns import Turns
from autotune.profile import Profile
from search.errors import AutotuneError
from search.problem import Cache, Candidate, ErrorKind, MeasureError, Measurement, Workload

WORKER = "autotune.measure.worker"
REFERENCE_TRIES = 3  # the process may be killed from outside while it computes
NOISY_TRIES = 2  # of timing in a noisy stretch
PATIENCE_S = 0.3  # to wait for a noisy stretch to end
MATTERS = 1.5  # times the best: slower candidates are not timed again for noise


class ReferenceFailed(AutotuneError):
    """A kernel that cannot even be run with plain loops: its candidates have nothing to be compared with."""

    exit_code = 41


@dataclass(frozen=True)
class Limits:
    """When a process is killed, and how much is done at a time.

    Attributes:
        prepare_s: Plain loops, which make the reference output, can be very slow.
        build_s: At most; once builds of a kernel are known, ``build_times`` their median will do.
        run_s: At most; where there is a best candidate, less: see ``run_limit_s``.
        memory: Bytes that a process may allocate; by default, 40 % of the machine's memory.
        batch: Candidates a builder compiles before they run.
        homes: Bytes of arguments of the workloads that are kept ready.
    """

    start_s: float = 120.0
    prepare_s: float = 300.0
    build_s: float = 15.0
    least_build_s: float = 1.0
    build_times: float = 6.0
    run_s: float = 10.0
    least_run_s: float = 0.25
    check_s: float = 300.0
    memory: int = int(0.4 * psutil.virtual_memory().total)
    batch: int = 16
    homes: int = 1 << 29

    def build_limit_s(self, built_s: Sequence[float]) -> float:
        """Seconds for a build, given those of earlier ones."""
        if len(built_s) < 8:
            return self.build_s
        return min(self.build_s, max(self.least_build_s, self.build_times * statistics.median(built_s)))

    def run_limit_s(self, workload: Workload, rival_s: Sequence[float]) -> float:
        """Seconds for checking and timing a candidate: one that takes 40 times the best's cannot win."""
        if not rival_s:
            return self.run_s
        return min(self.run_s, self.least_run_s + 40 * statistics.median(rival_s) + 4e-9 * workload.bytes)


@dataclass(eq=False)
class _Home:
    """A workload, the process that has its inputs, and the copy that computes the reference output.

    Attributes:
        reference: None once the reference is there.
        built_s: Seconds that builds took.
    """

    workload: Workload
    process: Process
    reference: Process | None
    tries: int = REFERENCE_TRIES
    built_s: list[float] = field(default_factory=list)


@dataclass(eq=False)
class _Builder:
    """A process that compiles, what it holds (seconds by key), and its copy that runs that."""

    process: Process
    cpu: int
    built: dict[int, float] = field(default_factory=dict)
    runner: Process | None = None


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
        self._target = target
        self._cpus = usable_cpus()[:threads]
        self._limits = limits or Limits()
        self._module = worker_module
        self._homes: OrderedDict[str, _Home] = OrderedDict()
        self._turns = Turns(self._profile)
        self.noise = NoiseMeter()
        self._root = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes: they die with their parents."""
        self._root.end()
        self._homes.clear()
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
        home = self._home(workload)
        waiting = deque(range(len(candidates)))
        with self._builders(home, self._cpus) as builders:
            while waiting:
                with self._turns.compiling():
                    yield from self._build(home, builders, candidates, waiting)
                self._await_reference(home)
                for builder in builders:
                    for key, (reply, drift) in self._time(home, builder, rival_s, fastest_s).items():
                        if isinstance(reply, Done) and _faster(reply.samples_s, rival_s):
                            rival_s = reply.samples_s
                        yield _measurement(candidates[key], reply, builder.built.pop(key), drift)
                    if builder.built:  # it died: what it had compiled is compiled again
                        waiting.extend(builder.built)
                        self._renew(home, builder)

    def check(self, workload: Workload, candidate: Candidate, seed: int) -> Reply:
        """Compares a candidate's outputs with the reference on inputs of every kind."""
        home = self._home(workload)
        with self._builders(home, self._cpus[:1]) as (builder,):
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
        test: PairedTest | None = None,
    ) -> PairedTest | MeasureError:
        """Times two candidates (None for the plain loops) in pairs until it is clear which is faster.

        What an application would vary is varied: two processes compile both, one in each order; each look
        runs in a new copy of one of them, with new inputs, and each pair at new addresses in random order.
        """
        test = test or PairedTest()
        traces = [c.trace if c else UNTUNED for c in (first, second)]
        home = self._home(workload)
        with self._builders(home, self._cpus[:1] * 2) as builders:
            for builder, order in zip(builders, ((0, 1), (1, 0)), strict=True):
                for key in order:
                    reply = builder.process.ask(
                        Build(key, traces[key]), self._limits.build_s, ErrorKind.BUILD_TIMEOUT
                    )
                    if not isinstance(reply, Done):
                        return _error(reply)
            for look in itertools.count():
                builder = builders[look % 2]
                request = Pairs(0, 1, test.next_pairs, hash((seed, look)) & 0x7FFFFFFF, cache)
                reply = self._ask_runner(builder, request)
                if not isinstance(reply, Done):
                    return _error(reply)
                test.add(reply.samples_s, reply.rival_s)
                if test.decided:
                    break
        return test

    def _build(
        self, home: _Home, builders: Sequence[_Builder], candidates: Sequence[Candidate], waiting: deque[int]
    ) -> Iterator[Measurement]:
        """Compiles a batch on all builders; yields the failures and leaves the rest in the builders."""
        limits = self._limits
        left = limits.batch * len(builders)
        busy: dict[Process, tuple[_Builder, int, float]] = {}
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
                    self._renew(home, builder)

    def _time(
        self, home: _Home, builder: _Builder, rival_s: tuple[float, ...], fastest_s: float
    ) -> dict[int, tuple[Reply, float]]:
        """Runs what a builder holds: replies and drifts; none from one that died before."""
        with self._turns.timing(), self._profile.span("run"):
            try:
                return self._replies(home, builder, rival_s, fastest_s)
            except WorkersFailed:
                return {}
            finally:
                self._end_runner(builder)

    def _replies(
        self, home: _Home, builder: _Builder, rival_s: tuple[float, ...], fastest_s: float
    ) -> dict[int, tuple[Reply, float]]:
        """What counts and was timed in a noisy stretch is timed again."""
        keys = list(builder.built)
        replies: dict[int, tuple[Reply, float]] = {}
        for _ in range(NOISY_TRIES):
            before = self._quiet_drift(builder) if keys else 1.0
            fresh: dict[int, Reply] = {}
            for key in keys:
                limit_s = self._limits.run_limit_s(home.workload, rival_s)
                reply = self._runner(builder).ask(Run(key, rival_s, fastest_s), limit_s)
                fresh[key] = reply
                if isinstance(reply, MeasureError) and reply.kind is ErrorKind.OUT_OF_BOUNDS:
                    self._end_runner(builder)  # what else it has written over, nobody knows
                if isinstance(reply, Done) and _faster(reply.samples_s, rival_s):
                    rival_s = reply.samples_s
            drift = max(before, self._drift(builder)) if keys else 1.0
            replies |= {key: (reply, drift) for key, reply in fresh.items()}
            keys = [k for k, r in fresh.items() if isinstance(r, Done) and _matters(r.samples_s, rival_s)]
            if drift <= NOISY:
                break
        return replies

    def _quiet_drift(self, builder: _Builder) -> float:
        """Waits for a noisy stretch to end, not forever."""
        patience = time.monotonic() + PATIENCE_S
        while (drift := self._drift(builder)) > NOISY and time.monotonic() < patience:
            with self._profile.span("idle"):
                time.sleep(0.1)
        return drift

    def _drift(self, builder: _Builder) -> float:
        reply = self._runner(builder).ask(Probe(), self._limits.run_s)
        return self.noise.add(time.monotonic(), reply.samples_s) if isinstance(reply, Done) else math.inf

    def _runner(self, builder: _Builder) -> Process:
        """The copy of a builder that runs what it holds: a new one where there is none or it has died."""
        if builder.runner is None or not builder.runner.alive:
            builder.runner = builder.process.copy((), self._limits.memory)
        return builder.runner

    def _renew(self, home: _Home, builder: _Builder) -> None:
        """A new process for a builder whose own has died."""
        builder.process.end()
        builder.built.clear()
        builder.process = self._copy(home, [builder.cpu])

    def _ask_runner(self, builder: _Builder, request: Check | Pairs) -> Reply:
        try:
            with self._turns.timing():
                return self._runner(builder).ask(request, self._limits.check_s)
        except WorkersFailed as error:
            return MeasureError(ErrorKind.CRASH, str(error))
        finally:
            self._end_runner(builder)

    @staticmethod
    def _end_runner(builder: _Builder) -> None:
        if builder.runner is not None:
            builder.runner.end()
            builder.runner = None

    @contextmanager
    def _builders(self, home: _Home, cpus: Sequence[int]) -> Iterator[list[_Builder]]:
        """A builder bound to each CPU, for a while: compilers never give all their memory back."""
        builders = [_Builder(self._copy(home, [cpu]), cpu) for cpu in cpus]
        try:
            yield builders
        finally:
            for builder in builders:
                self._end_runner(builder)
                builder.process.end()

    def _copy(self, home: _Home, cpus: Sequence[int]) -> Process:
        """A copy of a workload's home, which is made anew where it has died."""
        try:
            return home.process.copy(cpus, self._limits.memory)
        except WorkersFailed:
            home.process = self._prepared(home.workload)
            home.reference = self._referring(home.process)
            return home.process.copy(cpus, self._limits.memory)

    def _home(self, workload: Workload) -> _Home:
        """The home of a workload; those used longest ago make room for new ones."""
        home = self._homes.get(workload.hash)
        if home is None or not home.process.alive:
            while self._homes and sum(h.workload.bytes for h in self._homes.values()) > self._limits.homes:
                self._homes.popitem(last=False)[1].process.end()
            process = self._prepared(workload)
            home = self._homes[workload.hash] = _Home(workload, process, self._referring(process))
        self._homes.move_to_end(workload.hash)
        return home

    def _prepared(self, workload: Workload) -> Process:
        process = self._root_copy()
        reply = process.ask(Prepare(workload), self._limits.prepare_s)
        if not isinstance(reply, Done):
            process.end()
            raise ReferenceFailed(f"{workload.name} cannot be prepared: {_error(reply).text}")
        return process

    def _root_copy(self) -> Process:
        try:
            return self._root.copy((), self._limits.memory)
        except WorkersFailed:  # it was killed from outside, and all its copies with it
            self._root.end()
            self._root = self._start()
            return self._root.copy((), self._limits.memory)

    def _referring(self, home: Process) -> Process:
        """A copy that computes the reference output while builders compile."""
        process = home.copy((), self._limits.memory)
        process.send(Reference())
        return process

    def _await_reference(self, home: _Home) -> None:
        while home.reference is not None:
            reply = home.reference.receive(self._limits.prepare_s)
            home.reference.end()
            home.reference = None
            if isinstance(reply, MeasureError):
                home.tries -= 1
                if reply.kind is not ErrorKind.CRASH or home.tries == 0:
                    home.process.end()
                    raise ReferenceFailed(f"{home.workload.name} cannot be run untuned: {reply.text}")
                home.reference = self._referring(home.process)

    def _start(self) -> Root:
        return Root(self._module, self._target, self._cpus, self._limits.start_s)


def _faster(samples_s: Sequence[float], rival_s: Sequence[float]) -> bool:
    return not rival_s or statistics.median(samples_s) < statistics.median(rival_s)


def _matters(samples_s: Sequence[float], rival_s: Sequence[float]) -> bool:
    return not rival_s or min(samples_s) < MATTERS * statistics.median(rival_s)


def _error(reply: Reply) -> MeasureError:
    return reply if isinstance(reply, MeasureError) else MeasureError(ErrorKind.CRASH, f"it said {reply}")


def _measurement(candidate: Candidate, reply: Reply, build_s: float, drift: float) -> Measurement:
    if isinstance(reply, Done):
        return Measurement(candidate, reply.samples_s, build_s=build_s, drift=drift)
    return Measurement(candidate, error=_error(reply), build_s=build_s)
