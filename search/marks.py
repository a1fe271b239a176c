"""Instructions for which TVM has no schedule primitive.

A template marks a loop; what the mark stands for is written there when the kernel is compiled. A compiler
that does not know a mark ignores it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm.sym import Analyzer

Meaning = Callable[[Any, Sequence[Any], Sequence[Any]], Any]
"""The new body of a marked loop: of the mark's value, the loops down to that one, the kernel's arguments."""


def written_out(module: tvm.IRModule, meanings: Mapping[str, Meaning]) -> tvm.IRModule:
    """The module with what its marks stand for, the innermost first."""
    function = module["main"]
    body = _rewritten(function.body, (), function.params, meanings)
    return module if body is None else tvm.IRModule({"main": function.with_body(body)})


def _rewritten(
    node: Any, loops: tuple[Any, ...], arguments: Sequence[Any], meanings: Mapping[str, Meaning]
) -> Any:
    """The statement with instructions, None where it has no mark."""
    match node:
        case tirx.SeqStmt():
            parts = [_rewritten(part, loops, arguments, meanings) for part in node.seq]
            if any(p is not None for p in parts):
                pairs = zip(parts, node.seq, strict=True)
                return tirx.SeqStmt([old if new is None else new for new, old in pairs])
        case tirx.For():
            body = _rewritten(node.body, (*loops, node), arguments, meanings)
            loop = node if body is None else with_body(node, body)
            for mark in meanings.keys() & node.annotations.keys():
                kept = {key: value for key, value in node.annotations.items() if key != mark}
                return _with(loop, meanings[mark](node.annotations[mark], (*loops, loop), arguments), kept)
            return None if body is None else loop
        case tvm.s_tir.SBlockRealize():
            if (body := _rewritten(node.block.body, loops, arguments, meanings)) is not None:
                return realized(node, node.predicate, body)
    return None


def innermost(body: Any) -> tuple[list[Any], Any, Analyzer]:
    """The loops down to a block (of several in a row the last), the block, and what its axes are there."""
    loops = []
    while not isinstance(body, tvm.s_tir.SBlockRealize):
        if isinstance(body, tirx.For):
            loops.append(body)
        body = body.body if isinstance(body, tirx.For) else body.seq[-1]
    values = Analyzer()
    for axis, value in zip(body.block.iter_vars, body.iter_values, strict=True):
        values.bind(axis.var, value)
    return loops, body, values


def with_innermost(body: Any, block: Any) -> Any:
    """The loops of ``innermost`` around another block."""
    match body:
        case tirx.For():
            return with_body(body, with_innermost(body.body, block))
        case tirx.SeqStmt():
            return tirx.SeqStmt([*list(body.seq)[:-1], with_innermost(body.seq[-1], block)])
    return block


def realized(node: Any, predicate: Any, body: Any) -> Any:
    """A block in its loops as it was, but for its condition and what it does."""
    b = node.block
    block = tvm.s_tir.SBlock(
        b.iter_vars, b.reads, b.writes, b.name_hint, body, b.init, b.alloc_buffers, b.match_buffers,
        b.annotations,
    )  # fmt: skip
    return tvm.s_tir.SBlockRealize(node.iter_values, predicate, block)


def with_body(loop: Any, body: Any) -> Any:
    """A loop around something else."""
    return _with(loop, body, loop.annotations)


def _with(loop: Any, body: Any, annotations: Mapping[str, Any]) -> Any:
    return tirx.For(
        loop.loop_var, loop.min, loop.extent, loop.kind, body, loop.thread_binding, annotations or None
    )
