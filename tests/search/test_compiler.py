"""Compiling without the checks of arguments changes nothing else."""

import numpy as np
import tvm
from kernels import TARGET, matmul, workload

from search.compiler import compile_kernel, tune_context
from search.spaces.tir import module_of
from search.spaces.trace import TraceSpace, apply_trace


def test_it_computes_what_tvm_computes() -> None:
    work = workload(matmul(16, 24, 8))
    space, rng = TraceSpace(work, TARGET), np.random.default_rng(0)
    module = apply_trace(module_of(work), space.realize(space.sample(rng), rng).trace)
    arrays = [rng.standard_normal(a.shape, dtype=np.float32) for a in work.args]
    found = []
    for function in (compile_kernel(module, TARGET), tvm.tirx.build(module, target=TARGET)["main"]):
        tensors = [tvm.runtime.tensor(a) for a in arrays]
        function(*tensors)
        found.append(tensors[-1].numpy())
    np.testing.assert_array_equal(*found)


def test_no_candidate_is_unrolled_by_hundreds() -> None:
    """Compiling those took half of all the time (docs/measuring.md)."""
    rules = tune_context(module_of(workload(matmul(16, 16, 16))), TARGET).space_generator.sch_rules
    assert [type(r).__name__ for r in rules].count("ParallelizeVectorizeUnroll") == 1
    space, rng = TraceSpace(workload(matmul(64, 64, 64)), TARGET), np.random.default_rng(0)
    traces = "".join(space.realize(space.sample(rng), rng).trace for _ in range(20))
    assert "512" not in traces
