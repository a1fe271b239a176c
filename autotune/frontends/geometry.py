"""Sizes that several passes work out."""

from collections.abc import Sequence
from typing import Any

from tvm import te


def geometry(attrs: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Strides, padding and dilation of a convolution."""
    return _ints(attrs.strides), _ints(attrs.padding), _ints(attrs.dilation)


def cropped(result: te.Tensor, shape: Sequence[Any]) -> te.Tensor:
    """The first elements along each dimension."""
    if [int(d) for d in result.shape] == [int(d) for d in shape]:
        return result
    return te.compute(tuple(shape), lambda *i: result(*i), name="crop")


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in values)
