"""Weights fetched from memory while others are used.

In a model, a kernel's weights were last read a run ago; where the model is larger than the caches, they come
from memory. A tile that uses weights for the first time then waits for them, and those that use them again
leave the memory idle; a processor's own prefetcher looks only some lines ahead. So each tile fetches a part
of what the tiles after the next change of weights will use (prefetching with a distance: Mowry, Lam and
Gupta, Design and Evaluation of a Compiler Algorithm for Prefetching, 1992).

TVM has an instruction for it but no schedule primitive: a template marks a loop (``search.marks``).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.tirx.analysis import undefined_vars

from search import marks

LINE_BYTES = 64
LINES = 16  # fetched together: of many more, some are late, and loads wait behind them

MARK = "autotune.fetch_ahead"
_LEVEL = 3  # of the caches, as LLVM counts locality: the first, from which lines fall into the second
_RARE = 1024  # rows that use the same weights: with more, fetching is some percent of the work at most


def pays(rows: int) -> bool:
    """Whether weights are used so rarely, for ``rows`` of a product, that waiting for them matters."""
    return 1 < rows <= _RARE


def mark(
    s: Schedule, terms: Any, tiles: int, weight_bytes: int, argument: int, apart: int | None = None
) -> Any:
    """Splits the loop over terms so that each turn of the outer one fetches some lines.

    Args:
        terms: The innermost loop over terms of the sum that is a loop.
        tiles: How often it is run through with the same weights.
        weight_bytes: Of those.
        argument: Position of the weights among the kernel's arguments.
        apart: How many numbers from the weights of a tile to those that its core is to fetch; None: those
            that follow, by all cores that use them together.

    Returns:
        The outer loop.
    """
    extent = int(s.get(terms).extent)
    wanted = weight_bytes / LINE_BYTES / tiles / LINES
    turns = next((n for n in range(1, extent + 1) if extent % n == 0 and n >= wanted), extent)
    outer, _ = s.split(terms, [turns, None])
    s.annotate(outer, MARK, argument if apart is None else [argument, apart])
    return outer


def fetching(argument: Any, loops: Sequence[Any], arguments: Sequence[Any]) -> Any:
    """The body of a marked loop with the instructions before it; see ``marks``."""
    position, *apart = map(int, argument) if isinstance(argument, tvm.ir.Array) else [int(argument)]
    return tirx.SeqStmt([_fetch(loops, arguments[position], *apart), loops[-1].body])


def _fetch(outer: Sequence[Any], weights: Any, apart: int | None = None) -> Any:
    """The instructions for one turn of the last of the loops ``outer``.

    The weights of a tile lie together: mostly, those of the next tile that needs others follow them.
    """
    inner, realized, values = marks.innermost(outer[-1].body)
    block, terms = realized.block, set[Any]()
    for axis, value in zip(block.iter_vars, realized.iter_values, strict=True):
        if axis.iter_type == tirx.IterVar.CommReduce:
            terms |= set(undefined_vars(value))
    read = next(r for r in block.reads if r.source.same_as(weights))
    place = values.simplify(_flat([r.min for r in read.region], weights.shape))
    within = [*inner, *(n for n in outer if n.loop_var in terms)]
    for loop in within:
        values.bind(loop.loop_var, loop.min)
    start = values.simplify(place)
    line = LINE_BYTES // np.dtype(str(weights.dtype)).itemsize
    at_once = math.prod(int(r.extent) for r in read.region)
    size = at_once * _turns(n for n in within if n.loop_var in undefined_vars(place))
    again = [n for n in outer if n.loop_var not in undefined_vars(start)]
    if apart is not None:  # each core fetches all that it uses itself
        again = [n for n in again if n.kind != tirx.ForKind.PARALLEL]
    lines = -(-size // (line * _turns(again)))
    turn = _flat([n.loop_var for n in again], [n.extent for n in again])
    each = tirx.Var("line", "int64")
    where = start + (size if apart is None else apart) + (turn * lines + each) * line
    address = tirx.address_of(tirx.BufferLoad(weights, [*[0] * (len(weights.shape) - 1), where]))
    call = tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", address, 0, _LEVEL, 1))
    zero, count = (tirx.const(n, "int64") for n in (0, lines))
    return tirx.For(each, zero, count, tirx.ForKind.SERIAL, call)


def _flat(indices: Sequence[Any], extents: Sequence[Any]) -> Any:
    """The place in memory of an element, and the turn of loops in each other."""
    place: Any = tirx.const(0, "int64")
    for index, extent in zip(indices, extents, strict=True):
        place = place * extent + index
    return place


def _turns(loops: Iterable[Any]) -> int:
    return math.prod(int(n.extent) for n in loops)
