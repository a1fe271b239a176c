"""Sizes that several passes work out."""

from collections.abc import Sequence
from typing import Any

from tvm import relax, te

from autotune.frontends.fold import shape_of


def geometry(attrs: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Strides, padding and dilation of a convolution."""
    return _ints(attrs.strides), _ints(attrs.padding), _ints(attrs.dilation)


def axes_of(call: Any) -> list[int]:
    """How a transposition orders the axes of what it is given."""
    rank, given = len(shape_of(call.args[0])), call.attrs.axes
    return list(range(rank))[::-1] if given is None else [int(a) % rank for a in given]


def moves_nothing(shape: Sequence[int], axes: Sequence[int]) -> bool:
    """Whether a transposition only puts dimensions of extent 1 elsewhere."""
    moved = [axis for axis in axes if shape[axis] > 1]
    return moved == sorted(moved)


def slice_of(call: Any) -> dict[int, int] | None:
    """Where a slice begins, by axis; None where that is not known, counts from the end, or skips some."""
    if not all(isinstance(a, relax.Tuple) for a in call.args[1:]):
        return None
    axes, begins, _, *steps = ([int(getattr(v, "value", v)) for v in a.fields] for a in call.args[1:])
    if not set(*steps) <= {1} or any(begin < 0 for begin in begins):
        return None
    return {axis % len(shape_of(call.args[0])): begin for axis, begin in zip(axes, begins, strict=True)}


def cropped(result: te.Tensor, shape: Sequence[Any]) -> te.Tensor:
    """The first elements along each dimension."""
    if [int(d) for d in result.shape] == [int(d) for d in shape]:
        return result
    return te.compute(tuple(shape), lambda *i: result(*i), name="crop")


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in values)
