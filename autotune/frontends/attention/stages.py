"""Attention in the stages of its template (``search.spaces.attention``)."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import te, tirx, topi
from tvm.target import Target

from autotune.frontends import halves
from autotune.frontends.attention.finding import CHANGES, Attention, Change
from autotune.frontends.fold import number_of, operator_of, shape_of
from search import amx
from search.spaces import attention as stages
from search.vectors import Vectors

_KEYS = 2 * amx.LANES  # beside each other in a tile of scores


@dataclass(frozen=True)
class Floats:
    """Both products by vector instructions.

    Attributes:
        rows: Of queries, filled up; those added repeat the last one.
        blocks: Of keys, each a vector, filled up; those added repeat the last one.
        lanes: Of a vector.
    """

    rows: int
    blocks: int
    lanes: int

    @classmethod
    def of(cls, found: Attention, vectors: Vectors) -> "Floats":
        rows, blocks = vectors.filled(found.shape[-2], -(-found.columns // vectors.lanes))
        return cls(rows, blocks, vectors.lanes)

    @property
    def columns(self) -> int:
        return self.blocks * self.lanes

    def queries(self, x: te.Tensor) -> te.Tensor:
        *heads, own, depth = (int(d) for d in x.shape)

        def number(*i: Any) -> Any:
            *head, row, d = i
            return x(*head, row if self.rows == own else tirx.min(row, own - 1), d)

        return te.compute((*heads, self.rows, depth), number, name=stages.QUERIES)

    def keys(self, x: te.Tensor) -> te.Tensor:
        *heads, depth, own = (int(d) for d in x.shape)

        def number(*i: Any) -> Any:
            *head, block, d, lane = i
            key = block * self.lanes + lane
            return x(*head, d, key if self.columns == own else tirx.min(key, own - 1))

        return te.compute((*heads, self.blocks, depth, self.lanes), number, name=stages.KEYS)

    def scores(self, queries: te.Tensor, keys: te.Tensor) -> te.Tensor:
        *heads, rows, depth = (int(d) for d in queries.shape)
        d = te.reduce_axis((0, depth), "d")

        def score(*i: Any) -> Any:
            *head, row, key = i
            packed = keys(*head, key // self.lanes, d, key % self.lanes)
            return te.sum(queries(*head, row, d) * packed, axis=d)

        return te.compute((*heads, rows, self.columns), score, name=stages.SCORES)

    def weights(self, raised: te.Tensor) -> te.Tensor:
        return raised

    def values(self, x: te.Tensor) -> te.Tensor:
        return te.compute(tuple(x.shape), lambda *i: x(*i), name=stages.VALUES)

    def mixed(self, weights: te.Tensor, values: te.Tensor) -> te.Tensor:
        *heads, own, width = (int(d) for d in values.shape)
        k = te.reduce_axis((0, own), "k")

        def number(*i: Any) -> Any:
            *head, row, channel = i
            return te.sum(weights(*head, row, k) * values(*head, k, channel), axis=k)

        return te.compute((*heads, self.rows, width), number, name=stages.MIXED)


@dataclass(frozen=True)
class Halves:
    """Both products by halves of numbers (``autotune.frontends.halves``).

    Attributes:
        rows: Of queries, filled up with zeros.
        columns: Keys, filled up; those added repeat the last one.
    """

    rows: int
    columns: int

    @classmethod
    def of(cls, found: Attention, vectors: Vectors, target: Target) -> "Halves | None":
        """None where products by halves would not pay, or registers not be full."""
        rows, width = found.shape[-2:]
        full = halves.are_full(found.depth) and halves.are_full(found.columns) and rows >= amx.MOST_ROWS
        if not full or width % amx.LANES or not amx.multiplies_halves(target, vectors.lanes):
            return None
        return cls(halves.filled(rows), -(-found.columns // _KEYS) * _KEYS)

    def queries(self, x: te.Tensor) -> te.Tensor:
        return halves.halves(x, self.rows, stages.QUERIES)

    def keys(self, x: te.Tensor) -> te.Tensor:
        return halves.words(x, self.columns, _KEYS // amx.LANES, stages.KEYS)

    def scores(self, queries: te.Tensor, keys: te.Tensor) -> te.Tensor:
        return halves.matmul_by_words(queries, keys, stages.SCORES)

    def weights(self, raised: te.Tensor) -> te.Tensor:
        return halves.halves(raised, self.rows, stages.WEIGHTS)

    def values(self, x: te.Tensor) -> te.Tensor:
        width = int(x.shape[-1])
        return halves.words(x, width, math.gcd(width // amx.LANES, 2), stages.VALUES)

    def mixed(self, weights: te.Tensor, values: te.Tensor) -> te.Tensor:
        return halves.matmul_by_words(weights, values, stages.MIXED)


def written(found: Attention, sources: list[te.Tensor], form: Floats | Halves, lanes: int) -> te.Tensor:
    """The stages of a template, with rows and keys filled up to what makes good tiles.

    Rows that are added are left out in the end, keys weigh nothing.

    Args:
        sources: Of ``found.operands``.
        lanes: Of a vector.
    """
    *heads, own, _ = found.shape
    queries, keys, values, *others = (v.of(x) for v, x in zip(found.operands, sources, strict=True))
    queries, keys, values = (_by_heads(x, heads) for x in (queries, keys, values))
    changes = [_of_scores(change, others, heads) for change in found.changes]
    scores = form.scores(form.queries(queries), form.keys(keys))
    whole, dtype, filled = scores.shape, scores.dtype, form.columns > found.columns

    def changed(*i: Any) -> Any:
        *head, row, key = i
        row = row if form.rows == own else tirx.min(row, own - 1)
        key = tirx.min(key, found.columns - 1) if filled else key
        score = scores(*i)
        for change in changes:
            score = change(score, (*head, row, key))
        return score

    final = te.compute(whole, changed, name=stages.CHANGED)
    highest = _along(te.max, tirx.max, final, lanes, (stages.HIGHEST_BY_LANE, stages.HIGHEST))
    exp = topi.fast_exp(te.compute(whole, lambda *i: final(*i) - highest(*i[:-1])))
    zero, one = tirx.const(0, dtype), tirx.const(1, dtype)
    raised = te.compute(
        whole,
        lambda *i: tirx.Select(i[-1] < found.columns, exp(*i), zero) if filled else exp(*i),
        name=stages.RAISED,
    )
    total = _along(te.sum, operator.add, raised, lanes, (stages.TOTAL_BY_LANE, stages.TOTAL))
    mixed = form.mixed(form.weights(raised), form.values(values))

    def output(*i: Any) -> Any:
        at = [place for _, place in sorted(zip(found.order, i, strict=True), key=lambda pair: pair[0])]
        over = total(*at[:-1])
        # No score is a number above minus infinity; a total of NaN is no such case.
        empty = tirx.all(highest(*at[:-1]) <= tirx.min_value(dtype), over >= zero)
        over = tirx.Select(empty, one if found.safe else zero, over)
        return tirx.Select(empty, zero, mixed(*at)) / over

    return te.compute(tuple(found.shape[axis] for axis in found.order), output, name=stages.OUTPUT)


def _by_heads(x: te.Tensor, heads: Sequence[int]) -> te.Tensor:
    """The same matrices, counted along other dimensions; TOPI's reshape would divide columns as well."""
    *outer, rows, columns = (int(d) for d in x.shape)
    if outer == list(heads):
        return x

    def element(*i: Any) -> Any:
        *head, row, column = i
        place: Any = 0
        for at, extent in zip(head, heads, strict=True):
            place = place * extent + at
        where = list[Any]()
        for extent in reversed(outer):
            where.insert(0, tirx.indexmod(place, extent))
            place = tirx.indexdiv(place, extent)
        return x(*where, row, column)

    return te.compute((*heads, rows, columns), element)


def _of_scores(change: Change, others: list[te.Tensor], heads: Sequence[int]) -> Callable[..., Any]:
    """What changes a score, given its place; takes what it needs from the front of ``others``."""
    operation, arguments = CHANGES[operator_of(change.call)], list[Any]()
    for place, argument in enumerate(change.call.args):
        number = number_of(argument)
        if place == change.place or number is not None:
            arguments.append(number)
        else:
            spread = topi.broadcast_to(others.pop(0), shape_of(change.call))
            arguments.append(_by_heads(spread, heads))

    def change_(score: Any, at: tuple[Any, ...]) -> Any:
        values = [a(*at) if isinstance(a, te.Tensor) else tirx.const(a or 0, "float32") for a in arguments]
        values[change.place] = score
        return operation(*values)

    return change_


def _along(
    combine: Any, join: Callable[[Any, Any], Any], x: te.Tensor, lanes: int, names: tuple[str, str]
) -> te.Tensor:
    """Combines the innermost axis: in vectors first, then the lanes of one, two and two."""
    *outer, extent = (int(d) for d in x.shape)
    vector = te.reduce_axis((0, extent // lanes), "v")
    by_lane = te.compute(
        (*outer, lanes), lambda *i: combine(x(*i[:-1], vector * lanes + i[-1]), axis=vector), name=names[0]
    )

    def joined(i: tuple[Any, ...], first: int, count: int) -> Any:
        if count == 1:
            return by_lane(*i, first)
        half = count // 2
        return join(joined(i, first, half), joined(i, first + half, count - half))

    return te.compute(outer, lambda *i: joined(i, 0, lanes), name=names[1])
