"""Warm worker processes that build in parallel and run alone.

Candidates are compiled on all workers at once while nothing is timed; then they run one after another, each
with all the machine's cores to itself. Whatever a candidate does to its worker costs that candidate one
failed measurement: the worker is replaced, and what it had compiled besides is compiled again.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from autotune.measure.protocol import Build, Done, Prepare, Reply, Request, Run, Verify
from search.errors import AutotuneError
from search.problem import Candidate, ErrorKind, MeasureError, Measurement, Workload

WORKER = "autotune.measure.worker"


PREPARE_TRIES = 3  # a worker may be killed from outside while it prepares


class WorkersFailed(AutotuneError):
    """Workers cannot be started, so nothing can be measured."""

    exit_code = 40


class ReferenceFailed(AutotuneError):
    """A kernel that cannot even be run with plain loops: its candidates have nothing to be compared with."""

    exit_code = 41


@dataclass(frozen=True)
class Limits:
    """Seconds after which a worker is killed, and how many builds it lives for.

    Attributes:
        prepare_s: The untuned schedule, which makes the reference output, can be very slow.
        builds_per_worker: LLVM never gives all memory of compiled code back.
        batch: Candidates a worker compiles before they run.
    """

    start_s: float = 120.0
    prepare_s: float = 300.0
    build_s: float = 15.0
    run_s: float = 10.0
    verify_s: float = 300.0
    builds_per_worker: int = 500
    batch: int = 16


@dataclass(eq=False)
class _Worker:
    """A process and what the pool knows of it.

    Attributes:
        owes: It has not answered yet.
        prepared: It has the reference output of the workload at hand.
        built: Seconds that compiling took, of the candidates that it holds.
    """

    process: subprocess.Popen[bytes]
    connection: Connection
    builds: int = 0
    owes: bool = False
    prepared: bool = False
    built: dict[int, float] = field(default_factory=dict)

    def kill(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()

    def epitaph(self) -> str:
        """How the process ended, for people."""
        code = self.process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"


class Pool:
    """Measures candidates of one target with a fixed number of threads.

        >>> with Pool(target_json, threads=2) as pool:                       # doctest: +SKIP
        ...     for measurement in pool.measure(workload, candidates): ...

    Args:
        target: Canonical JSON of the target (``autotune.target.canonical``).
        threads: Threads that a kernel runs on; also the number of workers.
        worker_module: What a worker process runs; tests put misbehaving ones here.
    """

    def __init__(
        self, target: str, threads: int, limits: Limits | None = None, worker_module: str = WORKER
    ) -> None:
        self._target = target
        self._threads = threads
        self._limits = limits or Limits()
        self._module = worker_module
        self._workers: list[_Worker] = []
        self._start(threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all workers."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def measure(
        self,
        workload: Workload,
        candidates: Sequence[Candidate],
        incumbent_s: float = float("inf"),
        fastest_s: float = 0.0,
    ) -> Iterator[Measurement]:
        """Measures each candidate once, yielding each result as soon as it is there.

        Args:
            incumbent_s: Best latency of the workload so far; those far behind it are timed only once.
            fastest_s: A faster time is recorded as implausible.

        Raises:
            ReferenceFailed: The workload cannot be run with plain loops.
        """
        for worker in self._workers:
            worker.prepared = False  # costs nothing where the worker still has the reference
        try:
            yield from self._measure(workload, candidates, incumbent_s, fastest_s)
        finally:
            self._forget()

    def _measure(
        self, workload: Workload, candidates: Sequence[Candidate], incumbent_s: float, fastest_s: float
    ) -> Iterator[Measurement]:
        waiting = deque(range(len(candidates)))
        while waiting:
            self._renew()
            count = min(len(waiting), self._limits.batch * len(self._workers))
            batch = deque(waiting.popleft() for _ in range(count))
            yield from self._build(workload, candidates, batch)
            for worker in list(self._workers):
                for key in list(worker.built):
                    build_s = worker.built.pop(key)
                    request = Run(key, incumbent_s, fastest_s)
                    reply = self._ask(worker, request, self._limits.run_s, ErrorKind.RUN_TIMEOUT)
                    yield _measurement(candidates[key], reply, build_s)
                    if isinstance(reply, Done):
                        incumbent_s = min(incumbent_s, *reply.samples_s)
                    if worker not in self._workers:  # it died: what else it had built is lost
                        waiting.extend(worker.built)
                        break

    def _forget(self) -> None:
        """Replaces workers that were left in the middle of something, when the caller has had enough."""
        for worker in [w for w in self._workers if w.owes or w.built]:
            self._replace(worker)

    def verify(
        self, workload: Workload, candidate: Candidate, seed: int, pairs: int = 29, limit_s: float = 3.0
    ) -> Reply:
        """Compares a candidate with the untuned schedule; see ``protocol.Verify``."""
        self._renew()
        request = Verify(workload, candidate.trace, seed, pairs, limit_s)
        return self._ask(self._workers[0], request, self._limits.verify_s, ErrorKind.RUN_TIMEOUT)

    def _build(
        self, workload: Workload, candidates: Sequence[Candidate], batch: deque[int]
    ) -> Iterator[Measurement]:
        """Compiles ``batch`` on all workers; yields the failures and leaves the rest in the workers."""
        busy: dict[_Worker, tuple[int | None, float]] = {}
        idle = deque(self._workers)
        tries = PREPARE_TRIES
        while batch or busy:
            while idle and (batch or not idle[0].prepared):
                worker = idle.popleft()
                key = self._next_request(worker, workload, candidates, batch)
                limit = self._limits.prepare_s if key is None else self._limits.build_s
                busy[worker] = key, time.monotonic() + limit
            for worker in self._ready(busy):
                key, deadline = busy.pop(worker)
                limit = self._limits.prepare_s if key is None else self._limits.build_s
                expired = time.monotonic() >= deadline
                reply = self._receive(worker, expired, ErrorKind.BUILD_TIMEOUT, limit)
                if isinstance(reply, MeasureError):
                    if key is not None:
                        yield _measurement(candidates[key], reply, 0.0)
                    elif reply.kind is not ErrorKind.CRASH or (tries := tries - 1) == 0:
                        raise ReferenceFailed(f"{workload.name} cannot be run untuned: {reply.text}")
                elif key is None:
                    worker.prepared = True
                else:
                    worker.built[key] = reply.elapsed_s
                if worker in self._workers:
                    idle.append(worker)
                else:
                    batch.extend(worker.built)
                    idle.append(self._workers[-1])

    def _next_request(
        self, worker: _Worker, workload: Workload, candidates: Sequence[Candidate], batch: deque[int]
    ) -> int | None:
        """Sends the next request to an idle worker: the key that it builds, or None for preparing."""
        if not worker.prepared:
            self._send(worker, Prepare(workload))
            return None
        key = batch.popleft()
        worker.builds += 1
        self._send(worker, Build(key, workload, candidates[key].trace))
        return key

    @staticmethod
    def _ready(busy: dict[_Worker, tuple[int | None, float]]) -> list[_Worker]:
        """Workers that have answered, died or run out of time; waits until there is one."""
        patience = min(deadline for _, deadline in busy.values()) - time.monotonic()
        answered = wait([w.connection for w in busy], timeout=max(0.0, patience))
        ready = [w for w in busy if w.connection in answered]
        return ready or [w for w, (_, deadline) in busy.items() if time.monotonic() >= deadline]

    def _ask(self, worker: _Worker, request: Request, limit_s: float, timeout: ErrorKind) -> Reply:
        """Sends one request and waits for its answer."""
        self._send(worker, request)
        expired = not worker.connection.poll(limit_s)
        return self._receive(worker, expired, timeout, limit_s)

    @staticmethod
    def _send(worker: _Worker, request: Request) -> None:
        worker.owes = True
        with suppress(OSError):  # it has died; receiving says so
            worker.connection.send(request)

    def _receive(
        self,
        worker: _Worker,
        expired: bool,
        timeout: ErrorKind,
        limit_s: float,
    ) -> Reply:
        """The answer of a worker, which is replaced if it has none."""
        if expired and not worker.connection.poll():
            self._replace(worker)
            return MeasureError(timeout, f"not done after {limit_s:g} s")
        try:
            reply: Reply = worker.connection.recv()
        except (EOFError, OSError):
            text = worker.epitaph()
            self._replace(worker)
            return MeasureError(ErrorKind.CRASH, text)
        worker.owes = False
        return reply

    def _replace(self, worker: _Worker) -> None:
        worker.kill()
        self._workers.remove(worker)
        self._start(1)

    def _renew(self) -> None:
        """Replaces workers that have compiled so much that their memory has grown."""
        for worker in [w for w in self._workers if w.builds >= self._limits.builds_per_worker]:
            self._replace(worker)

    def _start(self, count: int) -> None:
        started = [self._spawn() for _ in range(count)]
        for worker in started:
            if not worker.connection.poll(self._limits.start_s):
                worker.kill()
                raise WorkersFailed(f"a worker process did not start within {self._limits.start_s:g} s")
            try:
                worker.connection.recv()
            except EOFError as error:
                raise WorkersFailed(
                    f"a worker process {worker.epitaph()} while starting; to see why: "
                    f"{sys.executable} -c 'import {self._module}'"
                ) from error
            self._workers.append(worker)

    def _spawn(self) -> _Worker:
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
        process = subprocess.Popen(
            [sys.executable, "-m", self._module, str(theirs.fileno()), self._target],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C in the terminal is the tuner's alone
            env={**os.environ, "PYTHONPATH": path, "TVM_NUM_THREADS": str(self._threads),
                 "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        theirs.close()
        return _Worker(process, Connection(ours.detach()))


def _measurement(candidate: Candidate, reply: Reply, build_s: float) -> Measurement:
    if isinstance(reply, MeasureError):
        return Measurement(candidate, error=reply, build_s=build_s)
    return Measurement(candidate, reply.samples_s, build_s=build_s)
