"""Convolutions with fewer multiplications: Winograd's F(m, r), along rows and columns.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015 (arXiv:1509.09308), sections 4.1 and
4.3. Tiles of inputs are transformed, multiplied with transformed weights (a matrix product over the channels
for each place in a tile) and transformed back. Weights are transformed when the model is compiled. The price:
larger weights, more to move, and rounding errors up to some ten times those of the direct sum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import te, tirx, topi

from search.spaces.winograd import INVERSE, OUT, OUTPUT, PRODUCT, ROWS, TILES

Matrix = tuple[tuple[int, ...], ...]

_POINTS = {1: (), 4: (0, 1, -1), 6: (0, 1, -1, 2, -2)}
"""Where polynomials are evaluated, by their number with infinity: the extent of a tile of inputs."""

_SCALES = {1: (), 4: (1, 1 / 2, 1 / 2), 6: (1 / 4, -1 / 6, -1 / 6, 1 / 24, 1 / 24)}
"""Of the weights at these points, so that the inputs' matrix holds whole numbers."""

_INPUTS: dict[int, Matrix] = {
    1: ((1,),),
    4: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1)),
    6: ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1)),
}  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis, and the matrices that transform them (Lavin and Gray, equation 5).

    Attributes:
        window: Extent of the weights.
        taken: Extent of a tile of inputs: 1, 4 or 6.
    """

    window: int
    taken: int

    @property
    def out(self) -> int:
        """Extent of a tile of outputs."""
        return self.taken - self.window + 1

    @property
    def inputs(self) -> Matrix:
        """B transposed, shape [taken, taken]."""
        return _INPUTS[self.taken]

    @property
    def outputs(self) -> Matrix:
        """A transposed, shape [out, taken]."""
        last = self.out - 1
        return tuple((*(p**n for p in _POINTS[self.taken]), int(n == last)) for n in range(self.out))

    @property
    def weights(self) -> NDArray[np.float64]:
        """G, shape [taken, window]."""
        pairs = zip(_POINTS[self.taken], _SCALES[self.taken], strict=True)
        rows = [[scale * point**n for n in range(self.window)] for point, scale in pairs]
        return np.array([*rows, [float(n == self.window - 1) for n in range(self.window)]])

    def tiles(self, extent: int) -> int:
        """How many, the last one perhaps beyond the end."""
        return -(-extent // self.out)

    def past(self, given: int, extent: int, before: int) -> int:
        """Inputs beyond the given ones, and those before, that the tiles of an output's extent take."""
        return self.out * self.tiles(extent) + self.window - 1 - given - before


@dataclass(frozen=True)
class Form:
    """How an image is cut into tiles."""

    rows: Axis
    columns: Axis

    def transform(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Weights of shape [window, window, inputs, outputs] as [taken, taken, inputs, outputs]."""
        wide = weight.astype(np.float64)
        exact = np.einsum("ai,ijco,bj->abco", self.rows.weights, wide, self.columns.weights, optimize=True)
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
        over, along, dtype = self.rows, self.columns, x.dtype
        images, height, width, _ = output
        blocks, inputs, lanes = (int(d) for d in u.shape[2:])
        outputs, (down, across) = blocks * lanes, (over.tiles(height), along.tiles(width))
        top, left = padding[0], padding[1]
        bottom, right = (
            axis.past(int(given), extent, before)
            for axis, given, extent, before in (
                (over, x.shape[1], height, top),
                (along, x.shape[2], width, left),
            )
        )
        padded = topi.nn.pad(x, [0, top, left, 0], [0, bottom, right, 0], name="padded")
        rows = te.compute(
            (over.taken, images, down, int(padded.shape[2]), inputs),
            lambda a, n, p, w, c: _pick(a, over.inputs, lambda i: padded[n, over.out * p + i, w, c], dtype),
            name=ROWS,
        )
        tiles = te.compute(
            (over.taken, along.taken, images, down, across, inputs),
            lambda a, b, n, p, q, c: _pick(
                b, along.inputs, lambda j: rows[a, n, p, along.out * q + j, c], dtype
            ),
            name=TILES,
        )
        k = te.reduce_axis((0, inputs), "k")
        sums = te.compute(
            (over.taken, along.taken, images, down, across, outputs),
            lambda a, b, n, p, q, o: te.sum(
                tiles[a, b, n, p, q, k] * u[a, b, o // lanes, k, o % lanes], axis=k
            ),
            name=PRODUCT,
        )
        inverse = te.compute(
            (over.out, along.taken, images, down, across, outputs),
            lambda i, b, n, p, q, o: _pick(i, over.outputs, lambda a: sums[a, b, n, p, q, o], dtype),
            name=INVERSE,
        )
        return te.compute(
            (images, height, width, outputs),
            lambda n, y, w, o: _pick(
                w % along.out,
                along.outputs,
                lambda b: inverse[y % over.out, b, n, y // over.out, w // along.out, o],
                dtype,
            ),
            name=OUTPUT,
            attrs={OUT: along.out},
        )


LEAST_CHANNELS = (8, 16)  # of input and output: with fewer, vectors stay empty
GAIN = 0.85  # of the direct convolution's cost: what is not cheaper by so much is not worth its errors

# What else costs as much as an operation. Measured: some 480 GFLOP/s and 40 GB/s from memory; the rest is
# fitted, see docs/decisions.md.
_OPERATIONS_PER_BYTE_OF_WEIGHTS = 12
_OPERATIONS_PER_BYTE_BETWEEN_STAGES = 2
_OPERATIONS_OF_STAGES = 1e5  # to begin and end them


def form_for(
    kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int], output: Sequence[int]
) -> Form | None:
    """How to convolve so, if it pays.

    Args:
        kernel: Rows, columns, input channels, output channels.
        output: Shape [images, rows, columns, channels].
    """
    if tuple(strides) != (1, 1) or tuple(dilation) != (1, 1):
        return None
    if any(n < least for n, least in zip(kernel[2:], LEAST_CHANNELS, strict=True)):
        return None
    forms = [Form(*axes) for axes in product(*map(_axes, kernel[:2]))]
    best = min(forms, key=lambda form: _cost(form, kernel, output), default=None)
    direct = Form(*(Axis(window, window) for window in kernel[:2]))
    return best if best and _cost(best, kernel, output) < GAIN * _cost(direct, kernel, output) else None


def _axes(window: int) -> list[Axis]:
    """The ways to cut an axis into tiles; a window of one place leaves it as it is."""
    axes = [Axis(window, taken) for taken in _POINTS]
    return [axis for axis in axes if (axis.out > 1 and window > 1) or axis.taken == window == 1]


def _cost(form: Form, kernel: Sequence[int], output: Sequence[int]) -> float:
    """Operations, and what else takes as long; tiles of one output stand for the direct convolution.

    Weights come from memory while others are used (``search.ahead``); the rest adds up.
    """
    _, _, inputs, outputs = kernel
    images, height, width, _ = output
    places = form.rows.taken * form.columns.taken
    products = images * form.rows.tiles(height) * form.columns.tiles(width)
    busy = max(2 * products * outputs, _OPERATIONS_PER_BYTE_OF_WEIGHTS * 4 * outputs) * places * inputs
    if form.rows.out == form.columns.out == 1:
        return busy
    between = 2 * 4 * places * products * (inputs + outputs)  # written and read
    return busy + _OPERATIONS_PER_BYTE_BETWEEN_STAGES * between + _OPERATIONS_OF_STAGES


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
