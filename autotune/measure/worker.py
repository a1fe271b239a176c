"""The process that compiles and runs candidates, so that whatever they do, the tuner lives on.

Started as ``python -m autotune.measure.worker FD TARGET`` by the pool. It answers one request at a time.
Candidates are compiled into memory (LLVM's JIT) and run where they were compiled: nothing is linked, written
to disk or sent to another process, which is what makes hundreds of candidates a minute possible.
"""

import ctypes
import gc
import math
import signal
import sys
import time
from collections import OrderedDict
from multiprocessing.connection import Connection
from typing import Any

# tvm_ffi imports torch where it is installed: seconds and hundreds of megabytes that no worker needs.
_torch = sys.modules.get("torch")
sys.modules["torch"] = None  # type: ignore[assignment]
import tvm

del sys.modules["torch"]
if _torch is not None:
    sys.modules["torch"] = _torch

import numpy as np
from tvm.target import Target

from autotune.measure.check import (
    INPUT_KINDS,
    Array,
    make_input,
    nudge,
    poisoned_output,
    relative_error,
    tolerance,
)
from autotune.measure.protocol import Build, Done, Prepare, Reply, Request, Run, Verify
from search.errors import InvalidCandidate
from search.problem import ErrorKind, MeasureError, Workload
from search.spaces.tir import module_of
from search.spaces.trace import apply_trace

SAMPLES = 5  # of a candidate that is near the best
SAMPLE_S = 3e-3  # a sample is the mean over at least this long
INPUT_BYTES = 1 << 29  # of arguments kept, so that going back to a workload costs nothing
ENOUGH_S = 1.0  # of samples of one candidate, however few they are
SLOW_S = 0.05  # of a run that caches do not matter to
MIN_PAIRS = 6  # the fewest that can show a difference: the interval of 6 wins in 6 begins at 0.54
HOPELESS = 3.0  # times slower than the incumbent: one sample says enough

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Asks Linux to kill this process when the pool's process dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _Inputs:
    """Arguments of a workload with the output that the untuned schedule computes from them."""

    def __init__(self, workload: Workload, reference: Any, kind: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.workload = workload
        self.device = tvm.cpu()
        cut = len(workload.args) - workload.outputs
        inputs = [make_input(s, kind, rng) for s in workload.args[:cut]]
        self.tensors = [tvm.runtime.tensor(a) for a in inputs]
        self._poison = [poisoned_output(s) for s in workload.args[cut:]]
        self._outputs = [tvm.runtime.tensor(a) for a in self._poison]
        reference(*self.arguments)
        self.expected: list[Array] = [o.numpy() for o in self._outputs]
        self.sensitivity = 0.0

    def measure_sensitivity(self, reference: Any) -> None:
        """Finds out how much of the output's error the rounding of the inputs alone explains."""
        rng = np.random.default_rng(0)
        nudged = [tvm.runtime.tensor(nudge(t.numpy(), rng)) for t in self.tensors]
        self.poison()
        reference(*nudged, *self._outputs)
        error = self.error()
        self.sensitivity = error / 2 if math.isfinite(error) else 0.0  # nudges were of two roundoffs

    @property
    def arguments(self) -> list[Any]:
        return [*self.tensors, *self._outputs]

    def poison(self) -> None:
        for output, poison in zip(self._outputs, self._poison, strict=True):
            output.copyfrom(poison)

    def error(self) -> float:
        """Error of what the last run wrote, against the reference."""
        pairs = zip(self._outputs, self.expected, strict=True)
        return max(relative_error(o.numpy(), e) for o, e in pairs)

    def tolerance(self) -> float:
        specs = self.workload.args[-self.workload.outputs :]
        return max(tolerance(s.dtype, self.workload.reduction, self.sensitivity) for s in specs)


class Worker:
    """Answers requests; keeps what was compiled until it has run."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._built: dict[int, Any] = {}
        self._inputs: OrderedDict[str, _Inputs] = OrderedDict()

    def answer(self, request: Request) -> Reply:
        match request:
            case Prepare():
                return self._prepare(request)
            case Build():
                return self._build(request)
            case Run():
                return self._run(request)
            case Verify():
                return self._verify(request)

    def _prepare(self, request: Prepare) -> Reply:
        started = time.perf_counter()
        try:
            self._inputs_of(request.workload)
        except Exception as error:
            return MeasureError(ErrorKind.RUN_ERROR, _short(error))
        return Done(elapsed_s=time.perf_counter() - started)

    def _build(self, request: Build) -> Reply:
        started = time.perf_counter()
        try:
            function = self._compile(apply_trace(module_of(request.workload), request.trace))
        except InvalidCandidate as error:
            return MeasureError(ErrorKind.INVALID, str(error))
        except Exception as error:
            return MeasureError(ErrorKind.BUILD_ERROR, _short(error))
        self._built[request.key] = function, request.workload
        return Done(elapsed_s=time.perf_counter() - started)

    def _compile(self, module: tvm.IRModule) -> Any:
        """The compiled function; taking it out of its library is what makes LLVM compile it."""
        return tvm.tirx.build(module, target=self._target)["main"]

    def _inputs_of(self, workload: Workload) -> _Inputs:
        """Inputs for checking and timing; those used longest ago make room for new ones."""
        if workload.hash not in self._inputs:
            while self._inputs and sum(i.workload.bytes for i in self._inputs.values()) > INPUT_BYTES:
                self._inputs.popitem(last=False)
            reference = self._compile(module_of(workload))
            self._inputs[workload.hash] = _Inputs(workload, reference, "normal", seed=0)
        self._inputs.move_to_end(workload.hash)
        return self._inputs[workload.hash]

    def _run(self, request: Run) -> Reply:
        function, workload = self._built.pop(request.key)
        started = time.perf_counter()
        inputs = self._inputs_of(workload)
        try:
            inputs.poison()
            function(*inputs.arguments)
            error = inputs.error()
            if error > inputs.tolerance():
                return MeasureError(ErrorKind.WRONG_OUTPUT, _wrong(error, inputs.tolerance()))
            samples = _race(function, inputs.arguments, request.incumbent_s)
        except Exception as caught:
            return MeasureError(ErrorKind.RUN_ERROR, _short(caught))
        if min(samples) < request.fastest_s:
            return MeasureError(
                ErrorKind.IMPLAUSIBLE,
                f"{min(samples) * 1e6:.3f} us; this hardware needs at least {request.fastest_s * 1e6:.3f} us",
            )
        return Done(samples, elapsed_s=time.perf_counter() - started, max_error=error)

    def _verify(self, request: Verify) -> Reply:
        started = time.perf_counter()
        try:
            untuned = self._compile(module_of(request.workload))
            tuned = self._compile(apply_trace(module_of(request.workload), request.trace))
            found: list[tuple[float, float]] = []
            for n, kind in enumerate(INPUT_KINDS):
                inputs = _Inputs(request.workload, untuned, kind, seed=request.seed + n)
                inputs.measure_sensitivity(untuned)
                inputs.poison()
                tuned(*inputs.arguments)
                found.append((inputs.error(), inputs.tolerance()))
            error, allowed = max(found, key=lambda pair: pair[0] / max(pair[1], 1e-30))
            before, after = _paired(untuned, tuned, inputs.arguments, request.pairs, request.limit_s)
        except InvalidCandidate as caught:
            return MeasureError(ErrorKind.INVALID, str(caught))
        except Exception as caught:
            return MeasureError(ErrorKind.RUN_ERROR, _short(caught))
        return Done(after, before, time.perf_counter() - started, error, allowed)


def _time(function: Any, arguments: list[Any], repeats: int) -> float:
    """Mean seconds of ``repeats`` runs in a row."""
    started = time.perf_counter()
    for _ in range(repeats):
        function(*arguments)
    return (time.perf_counter() - started) / repeats


def _race(function: Any, arguments: list[Any], incumbent_s: float) -> tuple[float, ...]:
    """Times a function: one sample where it is far behind the incumbent, else several bursts."""
    first = _time(function, arguments, 1)
    if first > HOPELESS * incumbent_s:
        return (first,)
    repeats = max(1, math.ceil(SAMPLE_S / first))
    samples = [first] if first > SLOW_S else []
    while len(samples) < SAMPLES and sum(samples) < ENOUGH_S:
        samples.append(_time(function, arguments, repeats))
    return tuple(samples)


def _paired(
    untuned: Any, tuned: Any, arguments: list[Any], pairs: int, limit_s: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Alternating samples of both, in alternating order; enough for a verdict, whatever they take."""
    before: list[float] = []
    after: list[float] = []
    started = time.perf_counter()
    while len(before) < pairs and (len(before) < MIN_PAIRS or time.perf_counter() - started < limit_s):
        sides = [(untuned, before), (tuned, after)]
        for function, samples in sides if len(before) % 2 else reversed(sides):
            first = _time(function, arguments, 1)
            if first < SLOW_S:  # the caches held what the other one left there
                first = _time(function, arguments, math.ceil(SAMPLE_S / first))
            samples.append(first)
    return tuple(before), tuple(after)


def _wrong(error: float, allowed: float) -> str:
    return f"output differs from the untuned schedule's by {error:.2e}, tolerance {allowed:.2e}"


def _short(error: BaseException) -> str:
    """The last line of an error's text, where compilers put what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:500]


def main() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the pool decides
    connection = Connection(int(sys.argv[1]))
    worker = Worker(Target(sys.argv[2]))
    connection.send(Done())
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        connection.send(worker.answer(request))
        gc.collect(0)


if __name__ == "__main__":
    main()
