"""Convolutions of 3x3 with a quarter of the multiplications: Winograd's F(4x4, 3x3).

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015 (arXiv:1509.09308), section 4.3. Tiles
of 6x6 inputs are transformed, multiplied with transformed weights (36 matrix products, over the channels) and
transformed back to 4x4 outputs. Weights are transformed when the model is compiled. The price: weights four
times as large, and rounding errors some ten times those of the direct sum.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import te, tirx, topi

from search.spaces.winograd import INVERSE, OUTPUT, PRODUCT, ROWS, TILES

OUT, IN = 4, 6  # extents of a tile of outputs and of the inputs that it takes

_B = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
      (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1))  # fmt: skip
_A = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_G = np.array([
    [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
])  # fmt: skip

LEAST_CHANNELS = (16, 32)  # of input and output: with fewer, the transforms cost what the products save
MOST_WASTE = 1.2  # outputs computed, whole tiles, over those needed
MOST_BYTES = 4 << 20  # of transformed weights: what has to come from memory costs more than it saves


def pays(
    kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int], output: Sequence[int]
) -> bool:
    """Whether to convolve so.

    Args:
        kernel: Rows, columns, input channels, output channels.
        output: Shape [images, rows, columns, channels].
    """
    rows, columns, inputs, outputs = kernel
    if (rows, columns) != (3, 3) or tuple(strides) != (1, 1) or tuple(dilation) != (1, 1):
        return False
    waste = _tiles(output[1]) * _tiles(output[2]) * OUT * OUT / (output[1] * output[2])
    enough = inputs >= LEAST_CHANNELS[0] and outputs >= LEAST_CHANNELS[1]
    return enough and waste <= MOST_WASTE and 4 * IN * IN * inputs * outputs <= MOST_BYTES


def transform(weight: NDArray[Any]) -> NDArray[Any]:
    """Weights of shape [3, 3, inputs, outputs] as [6, 6, inputs, outputs]."""
    exact = np.einsum("ai,ijco,bj->abco", _G, weight.astype(np.float64), _G)
    return np.asarray(exact, dtype=weight.dtype)


def convolution(x: te.Tensor, u: te.Tensor, padding: Sequence[int], output: Sequence[int]) -> te.Tensor:
    """The convolution, of shape ``output`` up to its last block of channels.

    Args:
        x: Shape [images, rows, columns, inputs].
        u: Transformed weights, shape [6, 6, outputs / lanes, inputs, lanes].
        padding: Top, left, bottom, right.
    """
    images, height, width, _ = output
    blocks, inputs, lanes = (int(d) for d in u.shape[2:])
    outputs, (down, across) = blocks * lanes, (_tiles(height), _tiles(width))
    top, left = padding[0], padding[1]
    bottom, right = (OUT * n + 2 - int(x.shape[axis]) - before for n, axis, before in
                     ((down, 1, top), (across, 2, left)))  # fmt: skip
    padded = topi.nn.pad(x, [0, top, left, 0], [0, bottom, right, 0], name="padded")
    dtype = x.dtype
    rows = te.compute(
        (IN, images, down, OUT * across + 2, inputs),
        lambda a, n, p, w, c: _pick(a, _B, lambda i: padded[n, OUT * p + i, w, c], dtype),
        name=ROWS,
    )
    tiles = te.compute(
        (IN, IN, images, down, across, inputs),
        lambda a, b, n, p, q, c: _pick(b, _B, lambda j: rows[a, n, p, OUT * q + j, c], dtype),
        name=TILES,
    )
    k = te.reduce_axis((0, inputs), "k")
    product = te.compute(
        (IN, IN, images, down, across, outputs),
        lambda a, b, n, p, q, o: te.sum(tiles[a, b, n, p, q, k] * u[a, b, o // lanes, k, o % lanes], axis=k),
        name=PRODUCT,
    )
    inverse = te.compute(
        (OUT, IN, images, down, across, outputs),
        lambda i, b, n, p, q, o: _pick(i, _A, lambda a: product[a, b, n, p, q, o], dtype),
        name=INVERSE,
    )
    return te.compute(
        (images, height, width, outputs),
        lambda n, y, w, o: _pick(w % OUT, _A, lambda b: inverse[y % OUT, b, n, y // OUT, w // OUT, o], dtype),
        name=OUTPUT,
    )


def _tiles(extent: int) -> int:
    return -(-extent // OUT)


def _pick(index: Any, matrix: Sequence[Sequence[int]], term: Callable[[int], Any], dtype: str) -> Any:
    """Row ``index`` of the matrix times the vector of terms; once the index is known, just that row's sum."""
    *rows, picked = [_combine(row, term, dtype) for row in matrix]
    for n in reversed(range(len(rows))):
        picked = tirx.Select(index == n, rows[n], picked)
    return picked


def _combine(row: Sequence[int], term: Callable[[int], Any], dtype: str) -> Any:
    """The sum of terms with these factors; factors of 0 and 1 cost nothing."""
    total: Any = None
    for place, factor in enumerate(row):
        if not factor:
            continue
        size = term(place) if abs(factor) == 1 else tirx.const(float(abs(factor)), dtype) * term(place)
        if total is None:
            total = size if factor > 0 else -size
        else:
            total = total + size if factor > 0 else total - size
    return total
