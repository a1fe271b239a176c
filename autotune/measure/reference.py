"""What a kernel should compute: the same kernel, unscheduled, with every floating-point number a double.

Such a reference has no rounding error of its own to speak of, so the whole difference is the candidate's.
Integers and booleans stay as they are. A kernel is not widened, and is its own reference, where more
precision gives another answer instead of a better one: where floats become integers or are rounded to whole
numbers, since the exact value may lie on the other side of a step; and where the meaning of a number hangs
on its type (bits reinterpreted, functions of a library).
"""

import json
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import tvm
from tvm.target import Target

from autotune.measure.check import (
    SLACK,
    Array,
    is_float,
    nudge,
    numpy_dtype,
    poisoned_output,
    relative_error,
    tolerance,
)
from search.errors import last_line
from search.problem import Workload
from search.spaces.tir import module_of

WIDE = "float64"
_TO_INTEGERS = "it converts floats to integers"
_ON_EDGES = 0.01  # of all elements at most; of what is rounded at random, a millionth

_CONTINUOUS = {
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "copysign", "cos", "cosh", "erf", "exp",
    "exp10", "exp2", "fabs", "fma", "hypot", "if_then_else", "isfinite", "isinf", "isnan", "likely", "log",
    "log10", "log1p", "log2", "pow", "rsqrt", "sigmoid", "sin", "sinh", "sqrt", "tan", "tanh",
}  # fmt: skip
"""Operations that TVM has for every floating-point type, without steps between finite numbers."""


class CannotWiden(ValueError):
    """A kernel whose result in double precision is not a more exact one, or that TVM refuses to widen."""


class _Graph:
    """The JSON of a module, in which the types of buffers and expressions are nodes ``ir.PrimType``."""

    def __init__(self, module: tvm.IRModule) -> None:
        self._graph = json.loads(tvm.ir.save_json(module))
        self._nodes = self._graph["nodes"]
        self.floats = [n["data"] for n in self._nodes if self._is_float_type(n)]

    @staticmethod
    def _is_float_type(node: Any) -> bool:
        return node["type"] == "ir.PrimType" and is_float(node["data"]["dtype"])

    def _is_float(self, expression: int) -> bool:
        return self._is_float_type(self._nodes[self._nodes[expression]["data"]["ty"]])

    def obstacles(self) -> list[str]:
        """Why a kernel with floats cannot be widened."""
        found = {self._obstacle(i, n["type"], n.get("data")) for i, n in enumerate(self._nodes)}
        return sorted(found - {""})

    def _obstacle(self, index: int, kind: str, data: Any) -> str:
        match kind:
            case "ir.Op" if data.partition(".")[2] not in _CONTINUOUS:
                return f"it calls {data}"
            case "prim.Mod" if self._is_float(index):
                return "it takes remainders of floats"
            case "prim.Cast" if self._is_float(data["value"]) and not self._is_float(index):
                return _TO_INTEGERS
            case "tirx.BufferStore" if not self._is_float(data["value"]):
                return "it stores integers that may follow from floats"
        return ""

    def widened(self) -> tvm.IRModule:
        """Constants first become what their own type makes of them: the kernel has no others."""
        for node in self._nodes:
            if node["type"] == "ir.FloatImm":
                dtype = numpy_dtype(self._nodes[node["data"]["ty"]]["data"]["dtype"])
                node["data"]["value"] = float(np.float64(node["data"]["value"]).astype(dtype))
        for kind in self.floats:
            kind["dtype"] = WIDE
        return tvm.ir.load_json(json.dumps(self._graph))


def widened(module: tvm.IRModule) -> tvm.IRModule:
    """The kernel with every floating-point buffer and expression in double precision.

    Args:
        module: Unscheduled, so that no type is a vector. Without floats, it comes back as it is.

    Raises:
        CannotWiden: The result would not be a more exact one, or TVM refuses it.
    """
    graph = _Graph(module)
    if not graph.floats:
        return module
    if obstacles := graph.obstacles():
        raise CannotWiden("; ".join(obstacles))
    try:
        return graph.widened()
    except Exception as error:  # TVM raises whatever its C++ side throws
        raise CannotWiden(last_line(error)) from error


class Reference:
    """The compiled reference of a workload.

    Attributes:
        obstacle: Why it computes in the kernel's own precision; empty where it is exact.
    """

    def __init__(self, workload: Workload, target: Target) -> None:
        self.workload = workload
        self._target = target
        self._specs = workload.args[-workload.outputs :]
        self.obstacle = ""
        try:
            self._function = self._compile(widened(module_of(workload)))
        except Exception as error:  # CannotWiden, or whatever TVM's compiler raises
            self.obstacle = last_line(error)
            self._function = self._plain

    @property
    def exact(self) -> bool:
        """Whether floats are doubles in it, if there are any."""
        return not self.obstacle

    @cached_property
    def _plain(self) -> Any:
        """The untuned kernel in its own precision."""
        return self._compile(module_of(self.workload))

    def _compile(self, module: tvm.IRModule) -> Any:
        return tvm.tirx.build(module, target=self._target)["main"]

    def outputs(self, inputs: Sequence[Array]) -> list[Array]:
        """What the kernel should make of ``inputs``: doubles where exact, else of the outputs' own types.

        Args:
            inputs: Of the workload's shapes and dtypes, one for each argument before the outputs.
        """
        return self._run(self._function, inputs, wide=self.exact)

    def _run(self, function: Any, inputs: Sequence[Array], wide: bool) -> list[Array]:
        arrays = [*inputs, *map(poisoned_output, self._specs)]
        tensors = [tvm.runtime.tensor(_wide(a) if wide else a) for a in arrays]
        function(*tensors)
        return [t.numpy() for t in tensors[len(inputs) :]]

    def compare(self, inputs: Sequence[Array], actual: Sequence[Array]) -> tuple[float, float] | None:
        """Error of a candidate's outputs, and how much of it rounding explains.

        An error beyond what dtype and reduction explain is looked into, at the price of more runs. Inputs
        off by a rounding may explain it. So may the kernel itself: where it, untuned, leaves the range of
        its type and doubles do not, its own infinity or NaN is right; and ``SLACK`` times its own error is
        allowed, since some kernels lose more than any change of their inputs does (a thousand equal terms
        summed up in half precision).

        Args:
            actual: What the candidate made of ``inputs``.

        Returns:
            None where the inputs prove nothing: there is no telling whether the output is finite.
        """
        expected = self.outputs(inputs)
        error, allowed = _error(actual, expected), self._tolerance()
        if error > allowed:
            rng = np.random.default_rng(0)
            moved = _error(self.outputs([nudge(a, rng) for a in inputs]), expected)
            # Nudges are of two roundoffs. Integers that follow from floats may be off by a step.
            allowed = max(self._tolerance(moved / 2), moved)
        if error > allowed and self._rounds and _are_steps(actual, expected):
            allowed = error
        if error > allowed and self.exact:
            untuned = self._run(self._plain, inputs, wide=False)
            expected = [_settled(e, u) for e, u in zip(expected, untuned, strict=True)]
            error, allowed = _error(actual, expected), max(allowed, SLACK * _error(untuned, expected))
        return (error, allowed) if math.isfinite(allowed) else None

    @property
    def _rounds(self) -> bool:
        """Whether the outputs are integers that floats were rounded to."""
        return _TO_INTEGERS in self.obstacle and not any(is_float(s.dtype) for s in self._specs)

    def _tolerance(self, sensitivity: float = 0.0) -> float:
        return max(tolerance(s.dtype, self.workload.reduction, sensitivity) for s in self._specs)


def _are_steps(actual: Sequence[Array], expected: Sequence[Array]) -> bool:
    """Whether integers differ by one at most, and few of them do: those that lie on the edge of a rounding.

    A multiplication and an addition may be rounded once or twice; LLVM decides that loop by loop.
    """
    pairs = zip(actual, expected, strict=True)
    return all(
        (off := np.abs(a.astype(np.int64) - e.astype(np.int64))).max(initial=0) <= 1
        and off.sum() <= max(1, _ON_EDGES * off.size)
        for a, e in pairs
    )


def _wide(array: Array) -> Array:
    return array.astype(WIDE) if is_float(array.dtype.name) else array


def _error(actual: Sequence[Array], expected: Sequence[Array]) -> float:
    return max(relative_error(a, e) for a, e in zip(actual, expected, strict=True))


def _settled(exact: Array, untuned: Array) -> Array:
    """The exact output; but where only the untuned kernel overflows, or makes NaN of that, what it makes."""
    return np.where(np.isfinite(exact) & ~np.isfinite(untuned), untuned, exact)
