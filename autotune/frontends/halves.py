"""Convolutions and products of float32 by halves (``search.halves``), for targets with a unit for bfloat16.

Those of weights are made when the model is compiled, and need no more bytes than the weights; those of inputs
when the kernel runs. An infinity comes out as NaN, for what is left of it is one.
"""

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from tvm import te, tirx
from tvm.target import Target

from autotune.frontends.fold import Array
from search import amx
from search.halves import APART, BOTH, PARTS, PLACED, SUMS, TERMS, of_left, of_right, product, product_of_word
from search.vectors import Vectors

_KEPT, _ROUND, _SHIFT = 0xFFFF0000, 0x8000, 16
_FULL = 2 * amx.MOST_ROWS  # columns of the largest tile
_PRODUCT = 50  # cycles, with what is loaded for it: 20 on a core of one's own, up to 80 on a shared one
_HALVE = 2.0  # for a number, there and back
_STORE = 8  # for a vector of sums
_FORK = 8000  # for another stage
_WEIGHT = 0.1  # for a byte of weights: where they are read once, products wait for memory longer
_ADD = 0.6  # for a vector's term of a sum, by vector instructions
_WINOGRAD = 1.8  # times as fast, where it is an alternative


def pay(target: Target, weight: Array, places: int, stride: int = 1, winograd: bool = False) -> bool:
    """Whether a target multiplies halves so much faster that taking numbers apart pays.

    Args:
        weight: Shape [*window, inputs, outputs].
        places: Of an image of outputs, or rows of a product.
        stride: Product of those of a convolution.
        winograd: Whether that would compute the same with less.
    """
    vectors = Vectors.of(target, "float32")
    *window, inputs, outputs = weight.shape
    if not (
        weight.dtype == np.float32
        and amx.multiplies_halves(target, vectors.lanes)
        and amx.pays(places, -(-inputs // TERMS))
    ):
        return False
    blocks, (chunks, _) = -(-outputs // amx.LANES), _chunks(inputs)
    many, registers = math.prod(window), -(-filled(places) // amx.MOST_ROWS)
    each = PARTS * _PRODUCT * registers / places
    halved = blocks * (chunks * many * each + _STORE) + _HALVE * inputs * min(stride, many)
    once = _FORK * vectors.threads + _WEIGHT * weight.nbytes
    whole = blocks * inputs * many * _ADD / (_WINOGRAD if winograd else 1.0)
    return halved + once / places < whole and _holds(weight)


def _holds(weight: Array) -> bool:
    """Whether bfloat16 has numbers as large as all of them."""
    return bool((np.abs(weight) < float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)).all())


def filled(places: int) -> int:
    """To how many places to fill up."""
    whole = -(-places // _FULL) * _FULL
    return whole if whole <= places + places // 8 else amx.filled(places)


def vectors_for(places: int, channels: int) -> int:
    """How many vectors of channels a tile takes, of so many places, filled up."""
    blocks, registers = -(-channels // amx.LANES), 1 if places <= amx.MOST_ROWS or places % _FULL else 2

    def price(vectors: int) -> tuple[int, int]:
        return -(-blocks // vectors) * vectors, -vectors

    return min(range(1, SUMS // registers + 1), key=price)


@dataclass(frozen=True)
class Places:
    """The places of images, one line after another with what is around them, so that any follow each other.

    A window then reads the same number of places further, whichever place it is for; what is computed for
    places beyond a line's last output is left out in the end. Of a convolution with strides there are several
    such images, of the rows and columns that one place of a window reads.

    Attributes:
        output: Shape [images, rows, columns, channels].
        before: Zeros above and to the left.
    """

    output: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]

    @property
    def kinds(self) -> tuple[int, ...]:
        """How many images there are of one, down and across."""
        sizes = zip(self.window, self.strides, self.dilation, strict=True)
        return tuple(min(stride, (n - 1) * apart + 1) for n, stride, apart in sizes)

    @property
    def lines(self) -> int:
        """Of an image."""
        return self.output[1] + self._reach[0]

    @property
    def line(self) -> int:
        """Places from one line to the next."""
        return self.output[2] + self._reach[1]

    @property
    def sums(self) -> int:
        """From the first to the last output, filled up."""
        images, rows, columns, _ = self.output
        return filled(((images - 1) * self.lines + rows - 1) * self.line + columns)

    @property
    def count(self) -> int:
        """From the first to the last that is read."""
        return self.sums + self._reach[0] * self.line + self._reach[1]

    @property
    def _reach(self) -> tuple[int, ...]:
        sizes = zip(self.window, self.strides, self.dilation, strict=True)
        return tuple((n - 1) * apart // stride for n, stride, apart in sizes)

    def halves(self, x: te.Tensor) -> te.Tensor:
        """Of images [images, rows, columns, inputs]: [kinds, kinds, chunks, 2, places, inputs of a chunk]."""
        images, rows, columns, inputs = (int(d) for d in x.shape)
        chunks, terms = _chunks(inputs)
        (down, across), (top, left) = self.strides, self.before

        def bits(kind_y: Any, kind_x: Any, chunk: Any, half: Any, place: Any, channel: Any) -> Any:
            image, line, at = (
                place // (self.lines * self.line), place // self.line % self.lines, place % self.line,
            )  # fmt: skip
            y, x_, channel = (
                line * down + kind_y - top, at * across + kind_x - left, chunk * terms * TERMS + channel,
            )  # fmt: skip
            inside = [image < images, y >= 0, y < rows, x_ >= 0, x_ < columns]
            if chunks * terms * TERMS > inputs:
                inside.append(channel < inputs)
            zero = tirx.const(0, "float32")
            return _half(tirx.if_then_else(tirx.all(*inside), x[image, y, x_, channel], zero), half)

        shape = (*self.kinds, chunks, BOTH, self.count, terms * TERMS)
        return te.compute(shape, bits, name=APART)

    def convolution(self, x: te.Tensor, w: te.Tensor) -> te.Tensor:
        """Of ``halves`` and of weights as of ``packed_halves``."""
        chunks, _, _, _, terms, lanes, _ = (int(d) for d in w.shape[1:])
        window = [te.reduce_axis((0, n), name) for n, name in zip(self.window, ("ry", "rx"), strict=True)]
        chunk, part, rc, rt = _axes(chunks, terms)
        (down, across), (apart_y, apart_x) = self.strides, self.dilation

        def term(place: Any, c: Any) -> Any:
            y, x_ = window[0] * apart_y, window[1] * apart_x
            read = place + y // down * self.line + x_ // across
            left = x[y % down, x_ % across, chunk, of_left(part), read, rc * TERMS + rt]
            right = w[(c // lanes, chunk, *window, of_right(part), rc, c % lanes, rt)]
            return te.sum(product(left, right), axis=[chunk, *window, part, rc, rt])

        sums = te.compute((self.sums, int(w.shape[0]) * lanes), term, name="conv2d")

        def placed(image: Any, y: Any, x_: Any, c: Any) -> Any:
            return sums[(image * self.lines + y) * self.line + x_, c]

        return te.compute(self.output, placed, name=PLACED)


def packed_halves(weight: Array, vectors: int) -> Array:
    """Weights [*window, inputs, outputs] as [tiles, chunks, *window, 2, terms, 16 * vectors, 2]."""
    *window, inputs, outputs = weight.shape
    chunks, terms = _chunks(inputs)
    lanes = vectors * amx.LANES
    more = chunks * terms * TERMS - inputs, -outputs % lanes
    whole = np.pad(weight, [(0, 0)] * len(window) + [(0, m) for m in more])
    first = whole.astype(ml_dtypes.bfloat16)
    rest = (whole - first.astype(np.float32)).astype(ml_dtypes.bfloat16)
    both = np.stack([first, rest]).reshape(BOTH, *window, chunks, terms, TERMS, -1, lanes)
    n = len(window)
    return np.ascontiguousarray(both.transpose(n + 4, n + 1, *range(1, n + 1), 0, n + 2, n + 5, n + 3))


def halves(x: te.Tensor, rows: int, name: str = APART) -> te.Tensor:
    """Of matrices [..., rows, inputs]: [..., chunks, 2, rows, inputs of a chunk], with zeros for more rows.

    So what a register is loaded with lies together.
    """
    *outer, own, inputs = (int(d) for d in x.shape)
    chunks, terms = _chunks(inputs)

    def bits(*i: Any) -> Any:
        *batch, chunk, half, row, channel = i
        channel = chunk * terms * TERMS + channel
        inside = [row < own] * (rows > own) + [channel < inputs] * (chunks * terms * TERMS > inputs)
        number = x(*batch, row, channel)
        if inside:
            number = tirx.if_then_else(tirx.all(*inside), number, tirx.const(0, "float32"))
        return _half(number, half)

    return te.compute((*outer, chunks, BOTH, rows, terms * TERMS), bits, name=name)


def matmul(x: te.Tensor, w: te.Tensor) -> te.Tensor:
    """Product of ``halves`` and of weights as of ``packed_halves``, with what was added to both."""
    chunks, _, terms, lanes, _ = (int(d) for d in w.shape[1:])
    chunk, part, rc, rt = _axes(chunks, terms)

    def term(*i: Any) -> Any:
        *outer, row, c = i
        left = x[(*outer, chunk, of_left(part), row, rc * TERMS + rt)]
        right = w[c // lanes, chunk, of_right(part), rc, c % lanes, rt]
        return te.sum(product(left, right), axis=[chunk, part, rc, rt])

    *outer, _, _, rows, _ = x.shape
    return te.compute((*outer, rows, int(w.shape[0]) * lanes), term, name="matmul")


def are_full(inputs: int) -> bool:
    """Whether registers are loaded with as many terms as they have room for."""
    return _chunks(inputs)[1] == amx.MOST_TERMS


def words(x: te.Tensor, columns: int, vectors: int, name: str) -> te.Tensor:
    """Of matrices [..., inputs, columns]: [..., tiles, chunks, 2, terms, 16 * vectors], two inputs in a word.

    So they are multiplied by. Inputs beyond the last are zeros, columns repeat the last one.
    """
    *outer, inputs, own = (int(d) for d in x.shape)
    (chunks, terms), lanes = _chunks(inputs), vectors * amx.LANES

    def word(*i: Any) -> Any:
        *batch, tile, chunk, half, term, lane = i
        column, both = tile * lanes + lane, list[Any]()
        column = column if columns == own else tirx.min(column, own - 1)
        for nth in range(TERMS):
            row = (chunk * terms + term) * TERMS + nth
            number = x(*batch, row, column)
            if chunks * terms * TERMS > inputs:
                number = tirx.if_then_else(row < inputs, number, tirx.const(0, "float32"))
            both.append(_half(number, half).astype("uint32"))
        return both[0] | (both[1] << tirx.const(_SHIFT, "uint32"))

    return te.compute((*outer, columns // lanes, chunks, BOTH, terms, lanes), word, name=name)


def matmul_by_words(x: te.Tensor, w: te.Tensor, name: str) -> te.Tensor:
    """Product of ``halves`` and ``words``, with what was added to both."""
    *outer, tiles, chunks, _, terms, lanes = (int(d) for d in w.shape)
    chunk, part, rc, rt = _axes(chunks, terms)
    n = len(outer)

    def term(*i: Any) -> Any:
        *batch, row, c = i
        left = x[(*batch, chunk, of_left(part), row, rc * TERMS + rt)]
        word = w[(*batch, c // lanes, chunk, of_right(part), rc, c % lanes)]
        return te.sum(product_of_word(left, word, rt), axis=[chunk, part, rc, rt])

    return te.compute((*outer, int(x.shape[n + 2]), tiles * lanes), term, name=name)


def _axes(chunks: int, terms: int) -> list[Any]:
    sizes = {"chunk": chunks, "part": PARTS, "rc": terms, "rt": TERMS}
    return [te.reduce_axis((0, n), name) for name, n in sizes.items()]


def _chunks(inputs: int) -> tuple[int, int]:
    """How many times registers are loaded with inputs, and with how many terms."""
    chunks = -(-inputs // (amx.MOST_TERMS * TERMS))
    return chunks, amx.MOST_TERMS if chunks > 1 else -(-inputs // TERMS)


def _half(number: Any, half: Any) -> Any:
    """Bits of a number's first half, or of its second."""
    whole = _rounded(number)
    first = tirx.reinterpret("float32", whole & tirx.const(_KEPT, "uint32"))
    kept = tirx.Select(half == 0, whole, _rounded(number - first)) >> tirx.const(_SHIFT, "uint32")
    return kept.astype("uint16")


def _rounded(number: Any) -> Any:
    """Bits of a number of float32, the first 16 rounded."""
    return tirx.reinterpret("uint32", number) + tirx.const(_ROUND, "uint32")
