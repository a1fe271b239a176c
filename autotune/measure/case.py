"""A workload as all processes that measure it have it: inputs, and the output that is right for them."""

import mmap
from functools import cached_property

import numpy as np
from tvm.target import Target

from autotune.measure.check import Array, is_float, make_input, numpy_dtype, tolerance
from autotune.measure.reference import Reference
from search.problem import TensorSpec, Workload
from search.spaces.tir import module_of


class Case:
    """Made once for a workload; copies of the process share the memory of ``expected``.

    Attributes:
        inputs: Arrays of the kind ``normal``.
        expected: Outputs for them; zeros until ``compute`` was called, in whichever process.
    """

    def __init__(self, workload: Workload, target: Target) -> None:
        self.workload = workload
        self.module = module_of(workload)
        self._target = target
        cut = len(workload.args) - workload.outputs
        self.input_specs, self.output_specs = workload.args[:cut], workload.args[cut:]
        self.inputs = self.draw("normal", seed=0)
        self.expected = [_shared(s) for s in self.output_specs]

    def draw(self, kind: str, seed: int) -> list[Array]:
        """Inputs of a kind; see ``check.make_input``."""
        rng = np.random.default_rng(seed)
        return [make_input(s, kind, rng) for s in self.input_specs]

    def compute(self) -> None:
        """Fills ``expected``."""
        for shared, output in zip(self.expected, self.reference.outputs(self.inputs), strict=True):
            shared[...] = output

    @cached_property
    def reference(self) -> Reference:
        """Plain loops, in double precision where that is possible."""
        return Reference(self.workload, self._target)

    def tolerance(self) -> float:
        """Of the output whose rounding is coarsest."""
        return max(tolerance(s.dtype, self.workload.reduction) for s in self.output_specs)


def _shared(spec: TensorSpec) -> Array:
    """Zeros in memory that copies of this process see changes of."""
    dtype = numpy_dtype("float64" if is_float(spec.dtype) else spec.dtype)
    count = int(np.prod(spec.shape, dtype=np.int64))
    memory = mmap.mmap(-1, max(1, count * dtype.itemsize))
    return np.frombuffer(memory, dtype, count).reshape(spec.shape)
