"""Small buffers live on the stack, in every kernel that is timed or shipped."""

import numpy as np
import operators as op
import pytest
import tvm
from operators import Tail, scheduled

from autotune.target import host_target
from search.compiler import compile_kernel
from search.space import enumerate_drafts
from search.spaces.contraction import ContractionSpace
from search.spaces.depthwise import DepthwiseSpace
from search.stack import PIPELINE
from search.vectors import Vectors

TARGET = host_target(2)
LANES = Vectors.of(TARGET, "float32").lanes
STAGED = """
@T.prim_func
def main(x: T.Buffer((8, {n}), "float32"), y: T.Buffer((8, {n}), "float32")):
    for i in T.parallel(8):
        if i < 5:
            line = T.alloc_buffer(({n},), "float32", scope="{scope}")
            for j in range({n}):
                line[j] = x[i, j] + T.float32(1)
            for j in range({n}):
                y[i, j] = line[{n} - 1 - j] * T.float32(2)
"""
TILED = {
    "3x3": (ContractionSpace, op.convolution(1, 7, 7, 32, 4, LANES, 3, 1, 1, 0, Tail())),
    "product": (ContractionSpace, op.product([28], 96, 4 * LANES, LANES, Tail())),
    "depthwise": (DepthwiseSpace, op.depthwise(7, 7, 4 * LANES)),
}


def compiled(module: tvm.IRModule, pipeline: str = PIPELINE) -> str:
    """The text of what LLVM is given."""
    return str(tvm.tirx.build(module, TARGET, pipeline).inspect_source("ll"))


@pytest.mark.parametrize("name", TILED)
def test_a_tile_asks_nobody_for_memory(name: str) -> None:
    kind, kernel = TILED[name]
    space = kind(kernel.workload, TARGET)
    for draft in list(enumerate_drafts(space))[:20]:
        module = scheduled(space, draft)
        assert "AllocWorkspace" in compiled(module, "default")
        assert "AllocWorkspace" not in compiled(module)


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize(("elements", "asks"), [(16, False), (1024, False), (1025, True), (100_000, True)])
def test_large_buffers_do_not_live_on_the_stack(elements: int, asks: bool, scope: str) -> None:
    module = tvm.IRModule({"main": tvm.script.from_source(STAGED.format(n=elements, scope=scope))})
    assert ("AllocWorkspace" in compiled(module)) == asks
    x = np.arange(8 * elements, dtype="float32").reshape(8, elements)
    y = tvm.runtime.tensor(np.zeros_like(x))
    compile_kernel(module, TARGET)(tvm.runtime.tensor(x), y)
    np.testing.assert_array_equal(y.numpy(), np.where(np.arange(8)[:, None] < 5, 2 * (x[:, ::-1] + 1), 0))
