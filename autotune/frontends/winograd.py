"""Convolutions of 3x3 with fewer multiplications: Winograd's F(4x4, 3x3) and F(2x2, 3x3).

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015 (arXiv:1509.09308), sections 4.1
and 4.3. Tiles of inputs are transformed, multiplied with transformed weights (a matrix product over the
channels for each place in a tile) and transformed back. Weights are transformed when the model is compiled.
The price: larger weights, more to move, and rounding errors up to some ten times those of the direct sum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import te, tirx, topi

from search.spaces.winograd import INVERSE, OUTPUT, PRODUCT, ROWS, TILES

Matrix = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Form:
    """A tile, and the matrices that transform it (Lavin and Gray, equation 8).

    Attributes:
        out: Its rows, and columns, of outputs.
        inputs: Matrix B transposed, shape [out + 2, out + 2].
        outputs: Matrix A transposed, shape [out, out + 2].
        weights: Matrix G, shape [out + 2, 3].
    """

    out: int
    inputs: Matrix
    outputs: Matrix
    weights: tuple[tuple[float, ...], ...]

    @property
    def taken(self) -> int:
        """Rows, and columns, of inputs that a tile takes."""
        return self.out + 2

    def tiles(self, extent: int) -> int:
        """How many, the last one perhaps beyond the end."""
        return -(-extent // self.out)

    def transform(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Weights of shape [3, 3, inputs, outputs] as [taken, taken, inputs, outputs]."""
        exact = np.einsum("ai,ijco,bj->abco", self.weights, weight.astype(np.float64), self.weights)
        return np.asarray(exact, dtype=weight.dtype)

    def convolution(
        self, x: te.Tensor, u: te.Tensor, padding: Sequence[int], output: Sequence[int]
    ) -> te.Tensor:
        """The convolution, of shape ``output`` up to its last block of channels.

        Args:
            x: Shape [images, rows, columns, inputs].
            u: Transformed weights, shape [taken, taken, outputs / lanes, inputs, lanes].
            padding: Top, left, bottom, right.
        """
        size, taken = self.out, self.taken
        images, height, width, _ = output
        blocks, inputs, lanes = (int(d) for d in u.shape[2:])
        outputs, (down, across) = blocks * lanes, (self.tiles(height), self.tiles(width))
        top, left = padding[0], padding[1]
        bottom, right = (size * n + 2 - int(x.shape[axis]) - before for n, axis, before in
                         ((down, 1, top), (across, 2, left)))  # fmt: skip
        padded = topi.nn.pad(x, [0, top, left, 0], [0, bottom, right, 0], name="padded")
        dtype = x.dtype
        rows = te.compute(
            (taken, images, down, size * across + 2, inputs),
            lambda a, n, p, w, c: _pick(a, self.inputs, lambda i: padded[n, size * p + i, w, c], dtype),
            name=ROWS,
        )
        tiles = te.compute(
            (taken, taken, images, down, across, inputs),
            lambda a, b, n, p, q, c: _pick(b, self.inputs, lambda j: rows[a, n, p, size * q + j, c], dtype),
            name=TILES,
        )
        k = te.reduce_axis((0, inputs), "k")
        product = te.compute(
            (taken, taken, images, down, across, outputs),
            lambda a, b, n, p, q, o: te.sum(
                tiles[a, b, n, p, q, k] * u[a, b, o // lanes, k, o % lanes], axis=k
            ),
            name=PRODUCT,
        )
        inverse = te.compute(
            (size, taken, images, down, across, outputs),
            lambda i, b, n, p, q, o: _pick(i, self.outputs, lambda a: product[a, b, n, p, q, o], dtype),
            name=INVERSE,
        )
        return te.compute(
            (images, height, width, outputs),
            lambda n, y, w, o: _pick(
                w % size, self.outputs, lambda b: inverse[y % size, b, n, y // size, w // size, o], dtype
            ),
            name=OUTPUT,
        )


FORMS = (
    Form(
        out=4,
        inputs=((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
                (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1)),
        outputs=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
        weights=((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
                 (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)),
    ),
    Form(
        out=2,
        inputs=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        outputs=((1, 1, 1, 0), (0, 1, -1, -1)),
        weights=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    ),
)  # fmt: skip

LEAST_CHANNELS = (16, 32)  # of input and output: with fewer, vectors stay empty
GAIN = 0.9  # of the direct convolution's cost: what is not cheaper by a tenth is not worth its errors

# What else costs as much as an operation. Measured: some 480 GFLOP/s, 40 GB/s from memory, 100 from caches.
_OPERATIONS_PER_BYTE_OF_WEIGHTS = 12
_OPERATIONS_PER_BYTE_BETWEEN_STAGES = 5
_OPERATIONS_OF_STAGES = 1e6  # to begin and end them on all cores


def form_for(
    kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int], output: Sequence[int]
) -> Form | None:
    """How to convolve so, if it pays.

    Args:
        kernel: Rows, columns, input channels, output channels.
        output: Shape [images, rows, columns, channels].
    """
    if tuple(kernel[:2]) != (3, 3) or tuple(strides) != (1, 1) or tuple(dilation) != (1, 1):
        return None
    if any(n < least for n, least in zip(kernel[2:], LEAST_CHANNELS, strict=True)):
        return None
    best = min(FORMS, key=lambda form: _cost(form, kernel, output))
    return best if _cost(best, kernel, output) < GAIN * _cost(None, kernel, output) else None


def _cost(form: Form | None, kernel: Sequence[int], output: Sequence[int]) -> float:
    """Operations, and what else takes as long; of the direct convolution without a form.

    Weights come from memory while others are used (``search.ahead``); the rest adds up.
    """
    _, _, inputs, outputs = kernel
    images, height, width, _ = output
    if form is None:
        places, products, between = 9, images * height * width, 0
    else:
        places, products = form.taken**2, images * form.tiles(height) * form.tiles(width)
        between = 2 * 4 * places * products * (inputs + outputs)  # written and read
    operations = 2 * places * products * inputs * outputs
    weights = _OPERATIONS_PER_BYTE_OF_WEIGHTS * 4 * places * inputs * outputs
    stages = _OPERATIONS_PER_BYTE_BETWEEN_STAGES * between + _OPERATIONS_OF_STAGES * (form is not None)
    return max(operations, weights) + stages


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
