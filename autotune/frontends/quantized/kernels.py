"""Sums of bytes as TVM computes them: what is packed, padded, added up and scaled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, te, tirx, topi

from autotune.frontends.fold import Array
from search import dots

_WIDEST = 64  # bytes of a vector


def packed_bytes(weights: Array, lanes: int, blocks: int) -> Array:
    """Weights of shape [..., inputs, outputs] as [blocks, ..., inputs / 4, lanes, 4], zeros added."""
    *window, inputs, outputs = weights.shape
    more = [(0, 0)] * len(window) + [(0, -inputs % dots.TERMS), (0, blocks * lanes - outputs)]
    split = np.pad(weights, more).reshape(*window, -1, dots.TERMS, blocks, lanes)
    n = len(window)
    return np.ascontiguousarray(split.transpose(n + 2, *range(n), n, n + 3, n + 1))


def channelwise(values: Array, channels: int) -> Any:
    """A constant for each of the channels, those that were added included."""
    return relax.const(np.pad(values, (0, channels - len(values))), str(values.dtype))


def without_zero(sums: te.Tensor, total: te.Tensor, zero: te.Tensor) -> te.Tensor:
    """Sums of bytes times weights, as if the bytes' zero were 0; ``total`` is the sum of the weights."""
    return te.compute(sums.shape, lambda *i: sums(*i) - total(i[-1]) * only(zero), name="without_zero")


def whole_terms(
    x: te.Tensor, before: Sequence[int], after: Sequence[int], zero: int, terms: int
) -> te.Tensor:
    """The input with what is around it, and its channels filled up to whole numbers of ``terms``."""
    more = [*after[:-1], after[-1] + -int(x.shape[-1]) % terms]
    if not any((*before, *more)):
        return x
    return topi.nn.pad(x, list(before), more, pad_value=tirx.const(zero, x.dtype), name="padded")


@dataclass(frozen=True)
class SideBySide:
    """An image whose rows lie one after another, each followed by what is around it.

    So a window's row, channels included, is one run of bytes. A row begins with the image's own bytes, and
    what is to the left of it ends the row before: what is copied is whole vectors, if the image's rows are.

    Attributes:
        own: Bytes of a row of the image.
        before: To add to the left of those.
        needed: From the first of those to the last that is read.
        top: Rows above the image; ``bottom``, below.
    """

    own: int
    before: int
    needed: int
    top: int
    bottom: int

    @property
    def row(self) -> int:
        """Bytes from one row to the next."""
        more = max(self.before, self.needed - self.before - self.own)
        return self.own + -(-more // self._lanes) * self._lanes

    @property
    def first(self) -> int:
        """Where begins what is read for the first row: a row before it ends with what is to its left."""
        return self.row - self.before

    def laid_out(self, x: te.Tensor, zero: int) -> te.Tensor:
        """The image ``x``, shape [images, height, own], as [images, rows, vectors, bytes of a vector]."""
        images, height, _ = (int(d) for d in x.shape)
        lanes = self._lanes

        def byte(b: Any, row: Any, vector: Any, lane: Any) -> Any:
            down = row - 1 - self.top
            inside = tirx.all(down >= 0, down < height, vector < self.own // lanes)
            return tirx.if_then_else(inside, x[b, down, vector * lanes + lane], tirx.const(zero, x.dtype))

        shape = (images, 1 + self.top + height + self.bottom, self.row // lanes, lanes)
        return te.compute(shape, byte, name="side_by_side")

    @property
    def _lanes(self) -> int:
        return math.gcd(self.own, _WIDEST)


def side_by_side_sums(
    rows: te.Tensor, w: te.Tensor, first: int, row: int, strides: tuple[int, int], extents: Sequence[int]
) -> te.Tensor:
    """Of a convolution of a ``SideBySide`` image.

    Args:
        w: Shape [blocks, height, terms, lanes, 4]: a window's columns and channels are terms of one sum.
        row: Bytes from one row of the window to the next.
        strides: Bytes from the inputs of one output to those of the next one down, and across.
    """
    _, height, terms, lanes, four = (int(d) for d in w.shape)
    ry, rc, rt = (te.reduce_axis((0, n), name) for n, name in ((height, "ry"), (terms, "rc"), (four, "rt")))
    down, across = strides

    def term(b: Any, y: Any, x: Any, c: Any) -> Any:
        left = rows[b, first + y * down + ry * row + x * across + rc * four + rt].astype("int32")
        return te.sum(left * w[c // lanes, ry, rc, c % lanes, rt].astype("int32"), axis=[ry, rc, rt])

    return te.compute(tuple(extents), term, name="conv2d")


def integer_sums(
    padded: te.Tensor,
    w: te.Tensor,
    strides: Sequence[int],
    dilation: Sequence[int],
    extents: Sequence[int],
    columns: int,
) -> te.Tensor:
    """Of a convolution or product of bytes.

    Args:
        padded: Shape [..., places, inputs].
        w: Shape [blocks, *window, inputs / 4, lanes, 4]; without a window, of a product.
        extents: Of the sums; those beyond ``columns`` are computed from the last place, and to be cropped.
    """
    window, lanes, last = w.shape[1:-3], int(w.shape[-2]), int(padded.shape[-2]) - 1
    named = zip(window, "zyx"[3 - len(window) :], strict=True)
    places = [te.reduce_axis((0, n), f"r{axis}") for n, axis in named]
    rc, rt = te.reduce_axis((0, w.shape[-3]), "rc"), te.reduce_axis((0, dots.TERMS), "rt")

    def term(*at: Any) -> Any:
        *read, c = at
        if places:
            moved = zip(read[1:], strides, places, dilation, strict=True)
            read = [read[0], *(o * s + r * d for o, s, r, d in moved)]
        if extents[-2] > columns:
            read[-1] = tirx.min(read[-1], last)
        left = padded[(*read, rc * dots.TERMS + rt)].astype("int32")
        right = w[(c // lanes, *places, rc, c % lanes, rt)].astype("int32")
        return te.sum(left * right, axis=[*places, rc, rt])

    return te.compute(tuple(extents), term, name=f"conv{len(window)}d" if places else "matmul")


def depthwise_sums(
    padded: te.Tensor, w: te.Tensor, strides: Sequence[int], dilation: Sequence[int], output: Sequence[int]
) -> te.Tensor:
    """Of a depthwise convolution: whole numbers as float32, which are exact up to 2 ** 24."""
    ry, rx = (te.reduce_axis((0, n), name) for n, name in zip(w.shape, ("ry", "rx"), strict=False))

    def term(b: Any, y: Any, x: Any, c: Any) -> Any:
        down, across = y * strides[0] + ry * dilation[0], x * strides[1] + rx * dilation[1]
        return te.sum(padded[b, down, across, c].astype("float32") * w[ry, rx, 0, c], axis=[ry, rx])

    return te.compute(output, term, name="conv2d")


def scaled(sums: te.Tensor, offset: te.Tensor, scale: te.Tensor) -> te.Tensor:
    """The real numbers that sums of integers stand for."""
    return te.compute(
        sums.shape,
        lambda *i: (sums(*i) - offset(i[-1]).astype(sums.dtype)).astype("float32") * scale(i[-1]),
        name="scaled",
    )


def only(tensor: te.Tensor) -> Any:
    """The one element of a tensor."""
    return tensor(*[0] * len(tensor.shape))
