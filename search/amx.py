"""The matrix unit of Intel's processors (AMX): eight registers, each a tile of 16 rows of 64 bytes.

One instruction, ``tdpbusd``, multiplies 16 rows of 64 bytes by 64 bytes of 16 columns and adds the products
to 16 x 16 sums of 32 bits: sixteen times as much as VNNI's (``dots``), whose weights are packed the same way.
For bfloat16 there is another one; see ``halves``.

Left operands are unsigned, right ones signed. What a thread has in such registers it says first, and last
that they are free. Linux lets no process use them that has not asked; the kernel's code asks each time, since
an artifact has no other place to do so (0.1 microseconds).
"""

import ctypes
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any

from tvm import tirx
from tvm.ir import StringImm
from tvm.s_tir import TensorIntrin
from tvm.target import Target
from tvm.target.codegen import target_has_features

from search.intrinsics import Operand, described

LANES = 16
MARK = "autotune.amx"
SUMS = 6  # registers; of the others, one holds rows, one weights
MOST_ROWS = MOST_TERMS = 16  # of a register; a term is of four products

TERM_BYTES = 4

_LEAST_TERMS = 3
_PRODUCT = 64  # fifths of a cycle that it takes beside one for each row
_LEFT, _RIGHT, _REGISTERS = 6, 7, 8
_ASK = 158, 0x1023, 18  # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)


@dataclass(frozen=True)
class Tile:
    """What one call adds to: columns of outputs by 16 channels, in as many registers as the columns need.

    Attributes:
        columns: Of outputs.
        terms: Added at a time.
        stride: From one column's inputs to the next one's.
        vectors: Tiles of channels beside each other, whose registers these lie among.
        side_by_side: Inputs of all columns lie along one axis, ``stride`` bytes apart.
    """

    columns: int
    terms: int
    stride: int
    vectors: int
    side_by_side: bool

    @property
    def registers(self) -> int:
        """For its sums."""
        return registers_for(self.columns)

    @property
    def rows(self) -> int:
        """Columns of outputs in a register."""
        return self.columns // self.registers

    @property
    def text(self) -> str:
        return "_".join(str(int(size)) for size in astuple(self))

    @classmethod
    def of(cls, text: str) -> "Tile":
        """The tile of a ``text``."""
        columns, terms, stride, vectors, side_by_side = map(int, text.split("_"))
        return cls(columns, terms, stride, vectors, bool(side_by_side))

    def name(self, part: str) -> str:
        """What schedules call the part ``zeros``, ``products`` or ``sums``; TVM knows it from then on."""
        _register(self)
        return f"{MARK}.{part}_{self.text}"


def registers_for(columns: int) -> int:
    """The fewest that hold so many columns, in each equally many."""
    return next(n for n in range(1, columns + 1) if columns % n == 0 and columns // n <= MOST_ROWS)


def terms_for(terms: int) -> int:
    """How many of a sum's terms to add at a time: all sums take whole steps."""
    return next(n for n in range(MOST_TERMS, 0, -1) if terms % n == 0)


def pays(columns: int, terms: int) -> bool:
    """Whether registers are full enough to add more with an instruction than VNNI does."""
    return columns > 1 and terms_for(terms) >= _LEAST_TERMS


def filled(columns: int) -> int:
    """To how many columns to fill up, so that registers are full."""

    def price(more: int) -> int:
        rows = next(n for n in range(MOST_ROWS, 0, -1) if more % n == 0)
        return more // rows * (_PRODUCT + rows)

    return min(range(columns, columns + columns // 8 + 2), key=lambda more: (price(more), more))


def has(target: Target, lanes: int) -> bool:
    """Whether a target has the unit, and sums of bytes are packed as it wants them."""
    return lanes == LANES and bool(target_has_features("amx-int8", target))


def multiplies_halves(target: Target, lanes: int) -> bool:
    """Whether a target has the unit for bfloat16, and vectors as wide as its registers."""
    return lanes == LANES and bool(target_has_features("amx-bf16", target))


def permitted() -> bool:
    """Whether the operating system lets this process use it."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return False
    return bool(ctypes.CDLL(None).syscall(*(ctypes.c_long(n) for n in _ASK)) == 0)


def prepare(trace: str) -> None:
    """Sees to it that TVM knows what a trace names."""
    for sizes in set(re.findall(rf"{re.escape(MARK)}\.\w+?_([\d_]+)", trace)):
        _register(Tile.of(sizes))


def configured(text: Any, loops: Sequence[Any], _: Sequence[Any]) -> Any:
    """The body of a marked loop between what allots the registers and what frees them; see ``marks``."""
    tile = Tile.of(str(text))
    return allotted(configuration(SUMS, 1, tile.rows, tile.terms), loops[-1].body)


def allotted(cut: str, body: Any) -> Any:
    """A statement between what asks for the unit and cuts its registers, and what frees them."""
    ask = tirx.call_extern("int64", "syscall", *(tirx.const(n, "int64") for n in _ASK))
    begin = tirx.call_llvm_intrin("void", "llvm.x86.ldtilecfg", StringImm(cut))
    end = tirx.call_llvm_intrin("void", "llvm.x86.tilerelease")
    return tirx.SeqStmt([*map(tirx.Evaluate, (ask, begin)), body, tirx.Evaluate(end)])


def configuration(sums: int, lefts: int, rows: int, terms: int) -> str:
    """64 bytes: the palette, bytes in a row of each register, and rows (Intel SDM, volume 1, 18.3).

    Registers are for ``sums`` first, then ``lefts`` for inputs, the others for weights.
    """
    rights = _REGISTERS - sums - lefts
    widths = [64] * sums + [TERM_BYTES * terms] * lefts + [64] * rights
    heights = [rows] * (sums + lefts) + [terms] * rights
    bytes_ = bytearray(64)
    bytes_[0] = 1
    for register in range(_REGISTERS):
        bytes_[16 + 2 * register] = widths[register]
        bytes_[48 + register] = heights[register]
    return bytes_.decode("ascii")


@cache
def _register(tile: Tile) -> None:
    for part, make in (("zeros", _zeros), ("products", _products), ("sums", _sums)):
        TensorIntrin.register(f"{MARK}.{part}_{tile.text}", *make(tile))


def _number(tile: Tile, offset: Any, nth: Any) -> Any:
    """Which register holds sums: a constant when loops are written out.

    Args:
        offset: Of the tile in a buffer of [lines, columns, vectors * 16] sums that stands for the registers.
    """
    place = offset // LANES
    line, vector = place // (tile.columns * tile.vectors), place % (tile.columns * tile.vectors)
    return tirx.Cast("int8", (line * tile.vectors + vector) * tile.registers + nth)


def _operand(register: Any) -> Any:
    return tirx.const(register, "int8") if isinstance(register, int) else register


def zero(register: Any) -> Any:
    """Sets a register to zeros."""
    return tirx.call_llvm_intrin("void", "llvm.x86.tilezero", _operand(register))


def load(register: Any, first: Any, apart: Any) -> Any:
    """Rows from memory, the first at an address, the others so many bytes ``apart``."""
    apart = tirx.Cast("int64", apart)
    return tirx.call_llvm_intrin("void", "llvm.x86.tileloadd64", _operand(register), first, apart)


def _multiply(register: Any) -> Any:
    left, right = (tirx.const(n, "int8") for n in (_LEFT, _RIGHT))
    return tirx.call_llvm_intrin("void", "llvm.x86.tdpbusd", register, left, right)


def store(register: Any, first: Any, apart: Any) -> Any:
    """Rows to memory, as of ``load``."""
    apart = tirx.Cast("int64", apart)
    return tirx.call_llvm_intrin("void", "llvm.x86.tilestored64", _operand(register), first, apart)


def zeros(columns: int, lanes: int, dtype: str, calls: Callable[[Any], Iterable[Any]]) -> tuple[Any, Any]:
    """What setting sums to zero means, and its instructions: ``calls`` of the buffer that stands for them."""
    sums = Operand((columns, lanes), dtype, "local", apart=True)
    return described((), sums, (), lambda c, i, j: tirx.const(0, dtype), calls)


def stored(
    columns: int, lanes: int, dtype: str, calls: Callable[[Any, Any], Iterable[Any]]
) -> tuple[Any, Any]:
    """As ``zeros``, of sums that go from registers to memory: ``calls`` of both buffers."""
    sums = Operand((columns, lanes), dtype, "local", apart=True)
    return described((sums,), sums, (), lambda c, d, i, j: c[i, j], calls)


def _zeros(tile: Tile) -> tuple[Any, Any]:
    def calls(c: Any) -> Iterator[Any]:
        return (zero(_number(tile, c.elem_offset, r)) for r in range(tile.registers))

    return zeros(tile.columns, LANES, "int32", calls)


def _products(tile: Tile) -> tuple[Any, Any]:
    """Of inputs whose columns are rows of a tensor, or lie ``side_by_side`` so that they share numbers."""
    reach = (tile.columns - 1) * tile.stride
    if tile.side_by_side:
        inputs = Operand((reach + TERM_BYTES * tile.terms,), "uint8")
    else:
        inputs = Operand((reach + 1, TERM_BYTES * tile.terms), "uint8", apart=True)

    def value(a: Any, b: Any, c: Any, i: Any, j: Any, k: Any, t: Any) -> Any:
        column, first = i * tile.stride, k * TERM_BYTES
        left = a[column + first + t] if tile.side_by_side else a[column, first + t]
        return c[i, j] + tirx.Cast("int32", left) * tirx.Cast("int32", b[k, j, t])

    def calls(a: Any, b: Any, c: Any) -> Iterator[Any]:
        apart = 1 if tile.side_by_side else a.strides[0]
        yield load(_RIGHT, b.access_ptr("r"), LANES * TERM_BYTES)
        for r in range(tile.registers):
            first = a.access_ptr("r", offset=r * tile.rows * tile.stride * apart)
            yield load(_LEFT, first, apart * tile.stride)
            yield _multiply(_number(tile, c.elem_offset, r))

    return described(
        (inputs, Operand((tile.terms, LANES, TERM_BYTES), "int8")),
        Operand((tile.columns, LANES), "int32", "local", apart=True),
        (tile.terms, TERM_BYTES),
        value,
        calls,
    )


def _sums(tile: Tile) -> tuple[Any, Any]:
    def calls(c: Any, d: Any) -> Iterator[Any]:
        apart, _ = d.strides
        for r in range(tile.registers):
            first = d.access_ptr("w", offset=r * tile.rows * apart)
            yield store(_number(tile, c.elem_offset, r), first, apart * TERM_BYTES)

    return stored(tile.columns, LANES, "int32", calls)
