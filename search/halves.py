"""Products of float32 in a matrix unit that multiplies bfloat16 (AMX's ``tdpbf16ps``).

A number is the sum of two of bfloat16, its halves: itself rounded to 8 bits, and the rest, rounded to 8 bits.
Of the four products of two numbers' halves three are added up, each exact in float32; the fourth, of the two
rests, is at most 2 ** -16 of the product (Henry, Tang and Heinecke, Leveraging the bfloat16 Artificial
Intelligence Datatype For Higher-Precision Computations, ARITH 2019). PyTorch calls such a precision "high".

Halves of inputs lie in memory as bits of 16, since TVM widens what is of bfloat16 within a kernel.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any

from tvm import tirx
from tvm.s_tir import TensorIntrin

from search import amx, marks
from search.intrinsics import Operand, described

MARK = "autotune.halves"
RESUMED = "autotune.halves_resumed"
APART = "halves"
"""Name of the block that takes numbers apart."""

PLACED = "placed"
"""Name of the block that takes the sums of an image's outputs out of those of all places."""

DTYPES = "uint16", "bfloat16"  # of inputs and weights
TERMS = 2  # products that one instruction adds to a sum
BOTH = 2
PARTS = 3  # products of halves of two numbers
SUMS = 4  # registers; of the others, two hold inputs, two weights

_SHIFT, _SECOND = 16, 0xFFFF0000
_LEFTS, _RIGHTS = (4, 5), (6, 7)


def of_left(part: Any) -> Any:
    """Which half of an input is in a part of a product: the first, the second, the first."""
    return part % BOTH


def of_right(part: Any) -> Any:
    """Which half of a weight."""
    return part // BOTH


def product(left: Any, right: Any) -> Any:
    """Of two halves as they lie in memory."""
    bits = left.astype("uint32") << tirx.const(_SHIFT, "uint32")
    return tirx.reinterpret("float32", bits) * right.astype("float32")


def product_of_word(left: Any, word: Any, nth: Any) -> Any:
    """Of a half as it lies in memory and the first or second of two that are one number of 32 bits."""
    bits = left.astype("uint32") << tirx.const(_SHIFT, "uint32")
    second = word & tirx.const(_SECOND, "uint32")
    other = tirx.Select(nth == 0, word << tirx.const(_SHIFT, "uint32"), second)
    return tirx.reinterpret("float32", bits) * tirx.reinterpret("float32", other)


@dataclass(frozen=True)
class Tile:
    """What one call adds to: columns of outputs by vectors of 16 channels.

    Attributes:
        columns: In one register, or in two.
        vectors: At most as many as there are registers left for sums.
        terms: Added at a time.
        stride: From one column's inputs to the next one's.
    """

    columns: int
    vectors: int
    terms: int
    stride: int

    @property
    def registers(self) -> int:
        """For the sums of a vector."""
        return amx.registers_for(self.columns)

    @property
    def rows(self) -> int:
        """Columns of outputs in a register."""
        return self.columns // self.registers

    @property
    def text(self) -> str:
        return "_".join(map(str, astuple(self)))

    @classmethod
    def of(cls, text: str) -> "Tile":
        """The tile of a ``text``."""
        return cls(*map(int, text.split("_")))

    def name(self, part: str) -> str:
        """What schedules call the part ``zeros``, ``products``, ``words``, ``additions`` or ``sums``.

        TVM knows it from then on. Those of ``additions`` are to sums in memory, see ``resumed``, those of
        ``words`` by operands whose halves lie two in a word.
        """
        _register(self)
        return f"{MARK}.{part}_{self.text}"


def prepare(trace: str) -> None:
    """Sees to it that TVM knows what a trace names."""
    for sizes in set(re.findall(rf"{re.escape(MARK)}\.\w+?_([\d_]+)", trace)):
        _register(Tile.of(sizes))


def configured(text: Any, loops: Sequence[Any], _: Sequence[Any]) -> Any:
    """The body of a marked loop between what allots the registers and what frees them; see ``marks``."""
    tile = Tile.of(str(text))
    return amx.allotted(amx.configuration(SUMS, len(_LEFTS), tile.rows, tile.terms), loops[-1].body)


def resumed(text: Any, loops: Sequence[Any], _: Sequence[Any]) -> Any:
    """The body of a marked loop between what loads a tile's sums from memory and what stores them there."""
    tile = Tile.of(str(text))
    inner, realized, values = marks.innermost(loops[-1].body)
    written = realized.block.writes[0]
    places = [values.simplify(r.min) for r in written.region]
    for loop in inner:
        values.bind(loop.loop_var, loop.min)
    *outer, row, channel = map(values.simplify, places)
    apart = int(written.source.shape[-1]) * amx.TERM_BYTES

    def moved(instruction: Callable[..., Any]) -> Iterator[Any]:
        for register, below, beside in _sums_of(tile):
            where = [*outer, row + below, channel + beside]
            address = tirx.address_of(tirx.BufferLoad(written.source, where))
            yield tirx.Evaluate(instruction(register, address, apart))

    return tirx.SeqStmt([*moved(amx.load), loops[-1].body, *moved(amx.store)])


@cache
def _register(tile: Tile) -> None:
    parts = {
        "zeros": _zeros(tile), "products": _products(tile, "local"), "additions": _products(tile, "global"),
        "words": _products_of_words(tile), "sums": _sums(tile),
    }  # fmt: skip
    for part, both in parts.items():
        TensorIntrin.register(f"{MARK}.{part}_{tile.text}", *both)


def _sums_of(tile: Tile) -> list[tuple[int, int, int]]:
    """The registers of a tile's sums, with the first column and channel of each."""
    both = itertools.product(range(tile.registers), range(tile.vectors))
    return [(_sum(tile, nth, v), nth * tile.rows, v * amx.LANES) for nth, v in both]


def _sum(tile: Tile, nth: int, vector: int) -> int:
    """The register of the ``nth`` columns' sums."""
    return nth * tile.vectors + vector


def _multiply(tile: Tile, nth: int, vector: int, left: int, right: int) -> Any:
    registers = (tirx.const(n, "int8") for n in (_sum(tile, nth, vector), left, right))
    return tirx.call_llvm_intrin("void", "llvm.x86.tdpbf16ps", *registers)


def _additions(tile: Tile, a: Any, address: Callable[[int], Any]) -> Iterator[Any]:
    """Loads and products, what is loaded once used as often as registers last.

    Args:
        a: Inputs, shape [2, places, 2 * terms].
        address: Of a word of weights, shape [2, terms, 16 * vectors].
    """
    plane, apart, _ = a.strides
    lanes = amx.LANES * tile.vectors

    def inputs(register: int, half: int, nth: int) -> Any:
        place = half * plane + nth * tile.rows * tile.stride * apart
        return amx.load(register, a.access_ptr("r", offset=place), apart * (tile.stride * 2))

    def weights(register: int, half: int, vector: int) -> Any:
        first = address(half * tile.terms * lanes + vector * amx.LANES)
        return amx.load(register, first, lanes * amx.TERM_BYTES)

    if tile.registers == 1:
        for half, left in enumerate(_LEFTS):
            yield inputs(left, half, 0)
        for vector in range(tile.vectors):
            first, rest = _RIGHTS
            yield weights(first, 0, vector)
            yield from (_multiply(tile, 0, vector, left, first) for left in _LEFTS)
            yield weights(rest, 1, vector)
            yield _multiply(tile, 0, vector, _LEFTS[0], rest)
        return
    for left_half, right_half in ((1, 0), (0, 0), (0, 1)):
        if (left_half, right_half) != (0, 1):
            yield from (inputs(left, left_half, nth) for nth, left in enumerate(_LEFTS))
        if (left_half, right_half) != (0, 0):
            yield from (weights(_RIGHTS[v], right_half, v) for v in range(tile.vectors))
        for nth, left in enumerate(_LEFTS):
            yield from (_multiply(tile, nth, v, left, _RIGHTS[v]) for v in range(tile.vectors))


def _zeros(tile: Tile) -> tuple[Any, Any]:
    def calls(_: Any) -> Iterator[Any]:
        return (amx.zero(register) for register, _, _ in _sums_of(tile))

    return amx.zeros(tile.columns, amx.LANES * tile.vectors, "float32", calls)


def _products(tile: Tile, scope: str) -> tuple[Any, Any]:
    lanes = amx.LANES * tile.vectors

    def term(left: Any, b: Any, half: Any, k: Any, j: Any, t: Any) -> Any:
        return product(left, b[half, k, j, t])

    def calls(a: Any, b: Any, c: Any) -> Iterator[Any]:
        def address(place: int) -> Any:
            """A pointer to bits: TVM would make one to bfloat16 one to float32."""
            kind, extent = tirx.type_annotation("uint16"), tile.terms * lanes * TERMS
            first = b.elem_offset + place * TERMS
            return tirx.call_intrin("handle", "tirx.tvm_access_ptr", kind, b.data, first, extent, 1)

        return _additions(tile, a, address)

    weights = Operand((BOTH, tile.terms, lanes, TERMS), "bfloat16")
    return _added(tile, weights, scope, term, calls)


def _products_of_words(tile: Tile) -> tuple[Any, Any]:
    def term(left: Any, b: Any, half: Any, k: Any, j: Any, t: Any) -> Any:
        return product_of_word(left, b[half, k, j], t)

    def calls(a: Any, b: Any, c: Any) -> Iterator[Any]:
        return _additions(tile, a, lambda place: b.access_ptr("r", offset=place))

    words = Operand((BOTH, tile.terms, amx.LANES * tile.vectors), "uint32")
    return _added(tile, words, "local", term, calls)


def _added(
    tile: Tile,
    right: Operand,
    scope: str,
    term: Callable[..., Any],
    calls: Callable[[Any, Any, Any], Iterable[Any]],
) -> tuple[Any, Any]:
    """Products by ``right`` operands, each a ``term``, added to sums of a ``scope``."""
    reach = (tile.columns - 1) * tile.stride + 1

    def value(a: Any, b: Any, c: Any, i: Any, j: Any, p: Any, k: Any, t: Any) -> Any:
        left = a[of_left(p), i * tile.stride, k * TERMS + t]
        return c[i, j] + term(left, b, of_right(p), k, j, t)

    return described(
        (Operand((BOTH, reach, TERMS * tile.terms), "uint16", apart=True), right),
        Operand((tile.columns, amx.LANES * tile.vectors), "float32", scope, apart=True),
        (PARTS, tile.terms, TERMS),
        value,
        calls,
        order=(2, 0, 1, 3, 4),
    )


def _sums(tile: Tile) -> tuple[Any, Any]:
    def calls(_: Any, d: Any) -> Iterator[Any]:
        apart, _ = d.strides
        for register, below, beside in _sums_of(tile):
            first = d.access_ptr("w", offset=below * apart + beside)
            yield amx.store(register, first, apart * amx.TERM_BYTES)

    return amx.stored(tile.columns, amx.LANES * tile.vectors, "float32", calls)
