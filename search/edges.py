"""Sums that leave out what is multiplied with padding.

Of the products of a window of 3x3 with an image of 7x7, 18 % are with zeros that were filled in around it;
with one of 14x14 9 %. A template that takes the image as it is, marks the loop over the columns of the window
(``search.marks``) and writes it out computes only the others: a line that lies beyond the image is skipped as
a whole, and which columns do is known once they are written out. So no zero makes no number of a weight that
is infinite.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.sym import detect_linear_equation
from tvm.tirx.analysis import undefined_vars

from search import marks

MARK = "autotune.skip_padding"

_FILLED_IN = tvm.ir.Op.get("prim.if_then_else")


def share(block: Any, filling: Any) -> float:
    """Share of the products of a sum that are with zeros filled in around an image.

    0 where ``skipping`` cannot tell these from the others: where the block ``filling`` does something else to
    what is multiplied, or where a place along the image follows from other axes than those of the output, but
    for its channels, and of a window, the innermost axis of each for one side of the image.
    """
    filled, product = filling.writes[0].source, block.body.value.b
    direct = any(filled.same_as(getattr(factor, "source", None)) for factor in (product.a, product.b))
    if not direct or not _is_filled_in(getattr(filling.body, "value", None)) or len(filling.reads) != 1:
        return 0.0
    (image,) = filling.reads
    (read,) = (r for r in block.reads if r.source.same_as(filled))
    if len(image.region) != len(read.region):
        return 0.0
    spatial, reduced = (
        [n for n, v in enumerate(block.iter_vars) if v.iter_type == kind]
        for kind in (tirx.IterVar.DataPar, tirx.IterVar.CommReduce)
    )
    columns, channels = {*spatial[-2:-1], *reduced[-2:-1]}, {spatial[-1], reduced[-1]}
    within = 1.0
    for taken, axis, given, extent in zip(
        read.region, filling.iter_vars, image.region, image.source.shape, strict=True
    ):
        if int(axis.dom.extent) == int(extent):
            continue
        place = detect_linear_equation(taken.min, [v.var for v in block.iter_vars])
        shift = detect_linear_equation(given.min, [axis.var])
        if not place or not shift or not all(isinstance(n, tirx.IntImm) for n in (*place, *shift)):
            return 0.0
        factors, start = [int(n) for n in place[:-1]], int(place[-1] + shift[-1])
        used = {n for n, factor in enumerate(factors) if factor}
        if int(shift[0]) != 1 or used & channels or (used & columns and not used <= columns):
            return 0.0
        steps = [factors[n] * np.arange(int(block.iter_vars[n].dom.extent)) for n in sorted(used)]
        places = reduce(np.add.outer, steps, np.asarray(start))
        within *= float(np.mean((places >= 0) & (places < int(extent))))
    return 1 - within


def _is_filled_in(value: Any) -> bool:
    chosen = isinstance(value, tvm.ir.Call) and value.op.same_as(_FILLED_IN)
    return chosen and getattr(value.args[2], "value", None) == 0


def mark(s: Schedule, columns: Any) -> Any:
    """Marks the loop over a window's columns, which has to be written out, and gives it back."""
    s.annotate(columns, MARK, 1)
    return columns


def skipping(_: Any, loops: Sequence[Any], arguments: Sequence[Any]) -> Any:
    """The body of a marked loop over a sum of products without those with padding; see ``marks``."""
    inner, node, values = marks.innermost(loops[-1].body)
    store = node.block.body
    factors = (store.value.b.a, store.value.b.b)
    ((condition, *_),) = (f.args for f in factors if _is_filled_in(f))
    for loop in inner:
        if int(loop.extent) == 1:
            values.bind(loop.loop_var, loop.min)
    later = {n.loop_var for n in inner}
    outside, inside = list[Any](), [node.predicate]
    for part in _parts(condition):
        known = values.simplify(part)
        (inside if later & set(undefined_vars(known)) else outside).append(known)
    product = tirx.Mul(*(f.args[1] if _is_filled_in(f) else f for f in factors))
    body = tirx.BufferStore(store.buffer, tirx.Add(store.value.a, product), store.indices)
    block = marks.realized(node, reduce(tirx.And, inside), body)
    rest = marks.with_innermost(loops[-1].body, block)
    return _guarded(rest, reduce(tirx.And, outside)) if outside else rest


def _guarded(body: Any, condition: Any) -> Any:
    """A sum under a condition; what stands before its loops, to fetch ahead, is done in any case."""
    match body:
        case tirx.For(body=tirx.SeqStmt() as steps):
            *before, last = steps.seq
            return marks.with_body(body, tirx.SeqStmt([*before, tirx.IfThenElse(condition, last, None)]))
    return tirx.IfThenElse(condition, body, None)


def _parts(condition: Any) -> Iterator[Any]:
    """What has to hold, each alone."""
    if isinstance(condition, tirx.And):
        yield from _parts(condition.a)
        yield from _parts(condition.b)
    else:
        yield condition
