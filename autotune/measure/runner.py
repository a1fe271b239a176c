"""Running compiled candidates: right outputs first, then times."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from autotune.measure import timing
from autotune.measure.buffers import Buffer
from autotune.measure.case import Case
from autotune.measure.check import INPUT_KINDS, Array, badness, poisoned_output, relative_error
from autotune.measure.protocol import Check, Done, Pairs, Run, Time
from search.problem import Between, Cache, ErrorKind, MeasureError, TensorSpec

DOUBTFUL = 100.0  # times the tolerance: beyond, no rounding can be the reason


class Misbehaved(Exception):
    """A kernel did what it must not do; ``error`` says what."""

    def __init__(self, kind: ErrorKind, text: str) -> None:
        super().__init__(text)
        self.error = MeasureError(kind, text)


class Runner:
    """Runs kernels of one workload in buffers of its own.

    Args:
        built: Compiled candidates by key.
        kernels: Of our own, which put the caches into a state.
    """

    def __init__(self, case: Case, built: dict[int, Any], kernels: timing.FixedKernels) -> None:
        self._case = case
        self._built = built
        self._kernels = kernels
        self._inputs = [Buffer(s) for s in case.input_specs]
        self._outputs = [Buffer(s) for s in case.output_specs]
        self._buffers = [*self._inputs, *self._outputs]
        self._tensors = [b.tensor for b in self._buffers]
        self._poison = [poisoned_output(s) for s in case.output_specs]
        self._given: list[Array] = []
        self._give(case.inputs)

    def answer(self, request: Run | Time | Check | Pairs) -> Done:
        """Does what is asked; raises ``Misbehaved`` where the kernel does not behave."""
        match request:
            case Run():
                return self.run(request)
            case Time():
                return self.time(request)
            case Check():
                return self.check(request)
            case Pairs():
                return self.pairs(request)

    def run(self, request: Run) -> Done:
        """Runs a candidate once.

        Raises:
            Misbehaved: It wrote where it must not.
        """
        call = self._call(request.key)
        self._poison_outputs()
        first_s = timing.seconds(call)
        self._check_bounds()
        return Done((first_s,))

    def time(self, request: Time) -> Done:
        """Checks the output of the candidate that was just run, and races it against the best.

        Raises:
            Misbehaved: Its output or its time cannot be true.
        """
        error, allowed = self._error(self._case.expected), self._case.tolerance()
        if allowed < error < DOUBTFUL * allowed:
            judged = self._case.reference.compare(self._case.inputs, [b.array for b in self._outputs])
            error, allowed = judged or (error, allowed)
        if error > allowed:
            raise Misbehaved(ErrorKind.WRONG_OUTPUT, _wrong(error, allowed))
        samples = timing.race(self._call(request.key), request.first_s, request.rival_s)
        if min(samples) < request.fastest_s:
            raise Misbehaved(
                ErrorKind.IMPLAUSIBLE,
                f"{min(samples) * 1e6:.3f} us; this hardware needs at least {request.fastest_s * 1e6:.3f} us",
            )
        return Done(samples, max_error=error, tolerance=allowed)

    def check(self, request: Check) -> Done:
        """Compares outputs for inputs of some kinds with the reference.

        Raises:
            Misbehaved: It wrote where it must not.
        """
        call = self._call(request.key)
        found: list[tuple[float, float]] = []
        for kind in request.kinds:
            inputs = self._case.draw(kind, request.seed + INPUT_KINDS.index(kind))
            self._give(inputs)
            self._poison_outputs()
            call()
            self._check_bounds()
            judged = self._case.reference.compare(inputs, [b.array for b in self._outputs])
            if judged is not None:
                found.append(judged)
        if not found:
            return Done(tolerance=math.inf)
        error, allowed = max(found, key=lambda pair: badness(*pair))
        return Done(max_error=error, tolerance=allowed)

    def pairs(self, request: Pairs) -> Done:
        """Times two candidates in pairs, varying what an application varies."""
        rng = np.random.default_rng(request.seed)
        self._give(self._case.draw("normal", request.seed))
        first, second = self._call(request.first), self._call(request.second)
        before = self._before(request.between)
        taken: list[timing.Pair] = []
        for _ in range(request.count):
            self._move(rng)
            taken.append(timing.pair(first, second, bool(rng.integers(2)), before))
        return Done(tuple(p.first_s for p in taken), tuple(p.second_s for p in taken))

    def _before(self, between: Between) -> timing.Run | None:
        """What puts the caches into a state; none where the run before does."""
        if between.cache is Cache.WARM:
            return None
        sweep = self._kernels.sweeping(between.read_bytes)
        written = [self._buffers[position] for position in between.written]
        last = Buffer(TensorSpec((16,), "int32"))  # what calls kernels is in the caches again

        def before() -> None:
            sweep()
            for buffer in (*written, last):
                self._kernels.touch(buffer.lines)

        return before

    def _call(self, key: int) -> timing.Run:
        function = self._built[key]

        def call() -> None:
            function(*self._tensors)

        return call

    def _give(self, inputs: Sequence[Array]) -> None:
        self._given = list(inputs)
        for buffer, array in zip(self._inputs, inputs, strict=True):
            buffer.array[...] = array

    def _move(self, rng: np.random.Generator) -> None:
        """All buffers go to other addresses, the inputs with their values."""
        for buffer in self._buffers:
            buffer.move(rng)
        self._tensors = [b.tensor for b in self._buffers]
        self._give(self._given)
        self._poison_outputs()

    def _poison_outputs(self) -> None:
        for buffer, poison in zip(self._outputs, self._poison, strict=True):
            buffer.array[...] = poison

    def _check_bounds(self) -> None:
        for name, buffers in (("input", self._inputs), ("output", self._outputs)):
            for number, buffer in enumerate(buffers):
                if not buffer.intact():
                    raise Misbehaved(ErrorKind.OUT_OF_BOUNDS, f"it wrote outside of {name} {number}")
        for number, (buffer, given) in enumerate(zip(self._inputs, self._given, strict=True)):
            if not buffer.equals(given):
                raise Misbehaved(ErrorKind.OUT_OF_BOUNDS, f"it wrote into input {number}")

    def _error(self, expected: Sequence[Array]) -> float:
        """Of what the last run wrote."""
        pairs = zip(self._outputs, expected, strict=True)
        return max(relative_error(b.array, e) for b, e in pairs)


def _wrong(error: float, allowed: float) -> str:
    what = "holds NaN or infinity" if math.isinf(error) else f"is off by {error:.2e}, tolerance {allowed:.2e}"
    return f"its output {what}"
