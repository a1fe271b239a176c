"""Attention in the stages of its template (``search.spaces.attention``)."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx, topi

from autotune.frontends.attention.finding import CHANGES, Attention, Change
from autotune.frontends.fold import number_of, operator_of, shape_of
from search.spaces import attention as stages


def written(found: Attention, sources: list[te.Tensor], rows: int, blocks: int, lanes: int) -> te.Tensor:
    """The stages of the template, with rows and keys filled up to what makes good tiles.

    Args:
        sources: Of ``found.operands``.
        rows: Of queries; those added repeat the last one, and are left out in the end.
        blocks: Of keys, each a vector; those added repeat the last one, and weigh nothing.
        lanes: Of a vector.
    """
    *heads, own, width = found.shape
    queries, keys, values, *others = (v.of(x) for v, x in zip(found.operands, sources, strict=True))
    depth, count, n, dtype = int(queries.shape[-1]), int(keys.shape[-1]), len(heads), queries.dtype
    queries, keys, values = (_by_heads(x, heads) for x in (queries, keys, values))
    changes = [_of_scores(change, others, heads) for change in found.changes]
    whole, filled = (*heads, rows, blocks * lanes), blocks * lanes > count

    def within(*i: Any) -> tuple[Any, ...]:
        *head, row, key = i
        row = row if rows == own else tirx.min(row, own - 1)
        return (*head, row, tirx.min(key, count - 1) if filled else key)

    taken = te.compute(
        (*heads, rows, depth), lambda *i: queries(*within(*i[:-1], 0)[:-1], i[-1]), name=stages.QUERIES
    )

    def packed(*i: Any) -> Any:
        *head, block, d, lane = i
        *_, key = within(*head, 0, block * lanes + lane)
        return keys(*head, d, key)

    packs = te.compute((*heads, blocks, depth, lanes), packed, name=stages.KEYS)
    mine = te.compute(tuple(values.shape), lambda *i: values(*i), name=stages.VALUES)
    d = te.reduce_axis((0, depth), "d")
    scores = te.compute(
        whole,
        lambda *i: te.sum(taken(*i[:-1], d) * packs(*i[:n], i[-1] // lanes, d, i[-1] % lanes), axis=d),
        name=stages.SCORES,
    )

    def changed(*i: Any) -> Any:
        score = scores(*i)
        for change in changes:
            score = change(score, within(*i))
        return score

    final = te.compute(whole, changed, name=stages.CHANGED)
    highest = _along(te.max, tirx.max, final, lanes, (stages.HIGHEST_BY_LANE, stages.HIGHEST))
    below = te.compute(whole, lambda *i: final(*i) - highest(*i[:-1]))
    exp = topi.fast_exp(below)

    def raised(*i: Any) -> Any:
        return tirx.Select(i[-1] < count, exp(*i), tirx.const(0, dtype)) if filled else exp(*i)

    weights = te.compute(whole, raised, name=stages.RAISED)
    total = _along(te.sum, operator.add, weights, lanes, (stages.TOTAL_BY_LANE, stages.TOTAL))
    k = te.reduce_axis((0, count), "k")
    mixed = te.compute(
        (*heads, rows, width),
        lambda *i: te.sum(weights(*i[:-1], k) * mine(*i[:n], k, i[-1]), axis=k),
        name=stages.MIXED,
    )
    lowest, zero, one = tirx.min_value(dtype), tirx.const(0, dtype), tirx.const(1, dtype)

    def output(*i: Any) -> Any:
        at = [place for _, place in sorted(zip(found.order, i, strict=True), key=lambda pair: pair[0])]
        over = total(*at[:-1])
        empty = tirx.all(highest(*at[:-1]) <= lowest, over >= zero)  # not where it is NaN
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
