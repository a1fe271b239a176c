"""A kernel's small buffers live on the stack, mostly in registers.

TVM asks its runtime for them, and gives them back, each time that their loops come around: for a register
tile of the accumulators, once a tile. That takes as long as a tile with a short sum.
"""

import math
from typing import Any

import tvm
from tvm import tirx

from search.marks import with_body

PIPELINE = "autotune"
"""The name by which TVM's ``build`` knows its own steps with ours among them."""

_BYTES = 4096
"""Larger ones are of stages, not of tiles: who asks for them once a core loses nothing."""

_KEPT = "disable_lower_builtin"
"""What tells TVM to leave an allocation to LLVM."""


@tirx.transform.prim_func_pass(opt_level=0)  # type: ignore[untyped-decorator]
def _keep_small(function: Any, module: tvm.IRModule, context: Any) -> Any:
    return function.with_body(_kept(function.body))


def _kept(node: Any) -> Any:
    match node:
        case tirx.AllocBuffer() if _bytes(node.buffer) <= _BYTES:
            return tirx.AllocBuffer(node.buffer, {**node.annotations, _KEPT: tirx.IntImm("int32", 1)})
        case tirx.SeqStmt():
            return tirx.SeqStmt([_kept(part) for part in node.seq])
        case tirx.For():
            return with_body(node, _kept(node.body))
        case tirx.AttrStmt():
            return tirx.AttrStmt(node.node, node.attr_key, node.value, _kept(node.body))
        case tirx.IfThenElse():
            other = None if node.else_case is None else _kept(node.else_case)
            return tirx.IfThenElse(node.condition, _kept(node.then_case), other)
    return node


def _bytes(buffer: Any) -> float:
    """Of a buffer, or infinity where its size is not known when it is compiled."""
    if not all(isinstance(extent, tirx.IntImm) for extent in buffer.shape):
        return math.inf
    element = tvm.DataType(buffer.dtype)
    elements = math.prod(int(extent) for extent in buffer.shape)
    return elements * int(element.bits) * int(element.lanes) / 8


def _pipeline() -> tuple[Any, Any, Any]:
    lower, finalize_host, finalize_device = tirx.get_tir_pipeline("default")
    return lower, lambda: tvm.transform.Sequential([_keep_small, finalize_host()]), finalize_device


tirx.register_tir_pipeline(PIPELINE, _pipeline)
