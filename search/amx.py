# mypy: disable-error-code="untyped-decorator, valid-type"
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
from tvm.script import tirx as T
from tvm.target import Target
from tvm.target.codegen import target_has_features

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
    products = _products_side_by_side if tile.side_by_side else _products
    for part, make in (("zeros", _zeros), ("products", products), ("sums", _sums)):
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


def emit(calls: Iterable[Any]) -> None:
    """Writes calls into the function that is being defined."""
    for call in calls:
        T.evaluate(call)


def zeros(columns: int, lanes: int, dtype: str, calls: Callable[[Any], Iterable[Any]]) -> tuple[Any, Any]:
    """What setting sums to zero means, and its instructions: ``calls`` of the buffer that stands for them."""

    @T.prim_func(s_tir=True)
    def meaning(c: T.Buffer((columns, lanes), dtype, offset_factor=1, scope="local")) -> None:
        with T.sblock("root"):
            T.reads()
            T.writes(c[0:columns, 0:lanes])
            for i, j in T.grid(columns, lanes):
                with T.sblock("zero"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    c[vi, vj] = tirx.const(0, dtype)

    @T.prim_func(s_tir=True)
    def instructions(sums: T.handle) -> None:
        across = T.int32()
        c = T.match_buffer(sums, (columns, lanes), dtype, offset_factor=1, scope="local", strides=[across, 1])
        with T.sblock("root"):
            T.reads()
            T.writes(c[0:columns, 0:lanes])
            emit(calls(c))

    return meaning, instructions


def stored(
    columns: int, lanes: int, dtype: str, calls: Callable[[Any, Any], Iterable[Any]]
) -> tuple[Any, Any]:
    """As ``zeros``, of sums that go from registers to memory: ``calls`` of both buffers."""

    @T.prim_func(s_tir=True)
    def meaning(
        c: T.Buffer((columns, lanes), dtype, offset_factor=1, scope="local"),
        d: T.Buffer((columns, lanes), dtype, offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:columns, 0:lanes])
            T.writes(d[0:columns, 0:lanes])
            for i, j in T.grid(columns, lanes):
                with T.sblock("sum"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    d[vi, vj] = c[vi, vj]

    @T.prim_func(s_tir=True)
    def instructions(sums: T.handle, to: T.handle) -> None:
        across, apart = T.int32(), T.int32()
        c = T.match_buffer(sums, (columns, lanes), dtype, offset_factor=1, scope="local", strides=[across, 1])
        d = T.match_buffer(to, (columns, lanes), dtype, offset_factor=1, scope="local", strides=[apart, 1])
        with T.sblock("root"):
            T.reads(c[0:columns, 0:lanes])
            T.writes(d[0:columns, 0:lanes])
            emit(calls(c, d))

    return meaning, instructions


def _zeros(tile: Tile) -> tuple[Any, Any]:
    def calls(c: Any) -> Iterator[Any]:
        return (zero(_number(tile, c.elem_offset, r)) for r in range(tile.registers))

    return zeros(tile.columns, LANES, "int32", calls)


def _products(tile: Tile) -> tuple[Any, Any]:
    columns, terms, stride = tile.columns, tile.terms, tile.stride
    registers, rows, reach = tile.registers, tile.rows * tile.stride, (tile.columns - 1) * tile.stride + 1

    @T.prim_func(s_tir=True)
    def meaning(
        a: T.Buffer((reach, 4 * terms), "uint8", offset_factor=1),
        b: T.Buffer((terms, 16, 4), "int8", offset_factor=1),
        c: T.Buffer((columns, 16), "int32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:columns, 0:16], a[0:reach, 0 : 4 * terms], b[0:terms, 0:16, 0:4])
            T.writes(c[0:columns, 0:16])
            for i, j, k, t in T.grid(columns, 16, terms, 4):
                with T.sblock("update"):
                    vi, vj, vk, vt = T.axis.remap("SSRR", [i, j, k, t])
                    c[vi, vj] = c[vi, vj] + T.cast(a[vi * stride, vk * 4 + vt], "int32") * T.cast(
                        b[vk, vj, vt], "int32"
                    )

    @T.prim_func(s_tir=True)
    def instructions(left: T.handle, right: T.handle, sums: T.handle) -> None:
        apart, across = T.int32(), T.int32()
        a = T.match_buffer(left, (reach, 4 * terms), "uint8", offset_factor=1, strides=[apart, 1])
        b = T.match_buffer(right, (terms, 16, 4), "int8", offset_factor=1)
        c = T.match_buffer(sums, (columns, 16), "int32", offset_factor=1, scope="local", strides=[across, 1])
        with T.sblock("root"):
            T.reads(c[0:columns, 0:16], a[0:reach, 0 : 4 * terms], b[0:terms, 0:16, 0:4])
            T.writes(c[0:columns, 0:16])
            T.evaluate(load(_RIGHT, b.access_ptr("r"), 64))
            for r in T.unroll(registers):
                T.evaluate(load(_LEFT, a.access_ptr("r", offset=r * rows * apart), apart * stride))
                T.evaluate(_multiply(_number(tile, c.elem_offset, r)))

    return meaning, instructions


def _products_side_by_side(tile: Tile) -> tuple[Any, Any]:
    columns, terms, stride = tile.columns, tile.terms, tile.stride
    registers, rows = tile.registers, tile.rows * tile.stride
    reach = (tile.columns - 1) * tile.stride + 4 * tile.terms

    @T.prim_func(s_tir=True)
    def meaning(
        a: T.Buffer((reach,), "uint8", offset_factor=1),
        b: T.Buffer((terms, 16, 4), "int8", offset_factor=1),
        c: T.Buffer((columns, 16), "int32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:columns, 0:16], a[0:reach], b[0:terms, 0:16, 0:4])
            T.writes(c[0:columns, 0:16])
            for i, j, k, t in T.grid(columns, 16, terms, 4):
                with T.sblock("update"):
                    vi, vj, vk, vt = T.axis.remap("SSRR", [i, j, k, t])
                    c[vi, vj] = c[vi, vj] + T.cast(a[vi * stride + vk * 4 + vt], "int32") * T.cast(
                        b[vk, vj, vt], "int32"
                    )

    @T.prim_func(s_tir=True)
    def instructions(left: T.handle, right: T.handle, sums: T.handle) -> None:
        across = T.int32()
        a = T.match_buffer(left, (reach,), "uint8", offset_factor=1)
        b = T.match_buffer(right, (terms, 16, 4), "int8", offset_factor=1)
        c = T.match_buffer(sums, (columns, 16), "int32", offset_factor=1, scope="local", strides=[across, 1])
        with T.sblock("root"):
            T.reads(c[0:columns, 0:16], a[0:reach], b[0:terms, 0:16, 0:4])
            T.writes(c[0:columns, 0:16])
            T.evaluate(load(_RIGHT, b.access_ptr("r"), 64))
            for r in T.unroll(registers):
                T.evaluate(load(_LEFT, a.access_ptr("r", offset=r * rows), stride))
                T.evaluate(_multiply(_number(tile, c.elem_offset, r)))

    return meaning, instructions


def _sums(tile: Tile) -> tuple[Any, Any]:
    def calls(c: Any, d: Any) -> Iterator[Any]:
        apart, _ = d.strides
        for r in range(tile.registers):
            first = d.access_ptr("w", offset=r * tile.rows * apart)
            yield store(_number(tile, c.elem_offset, r), first, apart * TERM_BYTES)

    return stored(tile.columns, LANES, "int32", calls)
