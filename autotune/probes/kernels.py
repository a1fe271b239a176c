"""The kernels of the probes, written loop by loop: what a schedule of TVM's makes of them must not matter."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tvm
import tvm.s_tir
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

STREAMS = 12  # sums in registers: 2 loads a cycle at a latency of 4, and some more
CHAIN = 64  # steps of the dependent chain between two jumps

_DOTS = {
    "avx512vnni": "llvm.x86.avx512.vpdpbusd.512",
    "avxvnni": "llvm.x86.avx512.vpdpbusd.256",
    "i8mm": "llvm.aarch64.neon.usdot.v4i32.v16i8",
}
"""Instructions that add four products of an unsigned and a signed byte to each int32, the widest first."""


class Multiplier(NamedTuple):
    """How sums are made of products.

    Attributes:
        operand: Type of an operand; ``int32`` for four packed bytes.
        total: Type of a sum.
        lanes: Sums in a vector.
        products: Products that a multiply-add adds to a sum.
        combine: The sums, the left and the right operands (vectors) to the new sums.
    """

    operand: str
    total: str
    lanes: int
    products: int
    combine: Callable[[Any, Any, Any], Any]


def vector(isa: Sequence[str]) -> tuple[int, int]:
    """Bytes of a vector, and rows of two vectors whose sums fit the registers beside the operands."""
    blocks = {"avx512f": (64, 14), "avx": (32, 6), "neon": (16, 12)}
    return next((block for name, block in blocks.items() if name in isa), (16, 6))


def of_floats(bits: int, isa: Sequence[str]) -> Multiplier:
    """Multiply-adds of floating-point numbers."""
    dtype = f"float{bits}"
    return Multiplier(dtype, dtype, vector(isa)[0] * 8 // bits, 1, lambda sums, x, y: sums + x * y)


def of_bytes(isa: Sequence[str]) -> Multiplier:
    """Multiply-adds of bytes into int32: of four at once where the CPU can, else what LLVM makes of it."""
    lanes = vector(isa)[0] // 4
    name = next((name for extension, name in _DOTS.items() if extension in isa), None)
    total, packed = f"int32x{lanes}", f"int8x{4 * lanes}"
    if name is None:
        return Multiplier("int8", "int32", lanes, 1, lambda s, x, y: s + T.cast(x, total) * T.cast(y, total))

    def dot(sums: Any, x: Any, y: Any) -> Any:
        operands = T.reinterpret(packed, x), T.reinterpret(packed, y)
        return T.call_llvm_pure_intrin(total, name, sums, *operands)

    return Multiplier("int32", "int32", lanes, 4, dot)


def product(unit: Multiplier, cores: int, rows: int, depth: int, turns: int) -> Any:
    """On each core the same matrix product over and over, with its sums in registers.

    Arguments: the operands, [depth, rows] and [depth, two vectors], and the result, [cores, rows, two
    vectors].
    """
    lanes, width = unit.lanes, 2 * unit.lanes

    def body(a: Any, b: Any, total: Any) -> None:
        with T.parallel(cores) as core:
            sums = _zeros((rows, width), unit.total, lanes)
            with T.grid(turns, depth) as (_, k), T.unroll(rows) as i, T.unroll(2) as v:
                left, right = T.broadcast(a[k, i], lanes), b[k, _vector(v, lanes)]
                new = unit.combine(sums[i, _vector(v, lanes)], left, right)
                T.buffer_store(sums, new, [i, _vector(v, lanes)])
            with T.grid(rows, 2) as (i, v):
                T.buffer_store(total, sums[i, _vector(v, lanes)], [core, i, _vector(v, lanes)])

    operands = ((depth, rows), unit.operand), ((depth, width), unit.operand)
    return _module(body, *operands, ((cores, rows, width), unit.total))


def stream(cores: int, steps: int, turns: int, lanes: int) -> Any:
    """Each core sums its part of a buffer over and over.

    Arguments: the buffer, [cores, steps, STREAMS vectors] float32, and the sums, [cores, STREAMS vectors].
    """
    width = STREAMS * lanes

    def body(data: Any, total: Any) -> None:
        with T.parallel(cores) as core:
            sums = _zeros((1, width), "float32", lanes)
            with T.grid(turns, steps) as (_, step), T.unroll(STREAMS) as v:
                new = sums[0, _vector(v, lanes)] + data[core, step, _vector(v, lanes)]
                T.buffer_store(sums, new, [0, _vector(v, lanes)])
            with T.serial(STREAMS) as v:
                T.buffer_store(total, sums[0, _vector(v, lanes)], [core, _vector(v, lanes)])

    return _module(body, ((cores, steps, width), "float32"), ((cores, width), "float32"))


def chain(turns: int) -> Any:
    """``x = (x ^ d) + d`` for each of CHAIN numbers over and over: operations that wait for each other.

    Neither a compiler nor a CPU can shorten it, as they do with additions of a constant. Arguments: the
    numbers, [CHAIN] int32, and the result, [1].
    """

    def body(numbers: Any, result: Any) -> None:
        value = _zeros((1, 1), "int32", 1)
        with T.serial(turns), T.unroll(CHAIN) as i:
            T.buffer_store(value, T.bitwise_xor(value[0, 0], numbers[i]) + numbers[i], [0, 0])
        T.buffer_store(result, value[0, 0], [0])

    return _module(body, ((CHAIN,), "int32"), ((1,), "int32"))


def fork(cores: int, turns: int) -> Any:
    """Parallel regions one after another, in each of which a core writes its number of the region.

    Argument: [cores, 16] int32, a cache line for each core.
    """

    def body(seen: Any) -> None:
        with T.serial(turns) as turn, T.parallel(cores) as core:
            T.buffer_store(seen, turn + 1, [core, 0])

    return _module(body, ((cores, 16), "int32"))


def _module(body: Callable[..., None], *arguments: tuple[tuple[int, ...], str]) -> Any:
    """A module whose ``main`` is ``body`` of buffers of these shapes and types."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({"tirx.noalias": True})  # else sums go to memory after every step
        body(*(T.arg(f"argument{i}", T.buffer(*kind)) for i, kind in enumerate(arguments)))
    return tvm.IRModule({"main": builder.get()})


def _zeros(shape: tuple[int, int], dtype: str, lanes: int) -> Any:
    """A buffer for sums, which LLVM keeps in registers where it can."""
    sums = T.alloc_buffer(shape, dtype, scope="local")
    with T.grid(shape[0], shape[1] // lanes) as (i, v):
        zero = T.cast(0, dtype)
        T.buffer_store(sums, T.broadcast(zero, lanes) if lanes > 1 else zero, [i, _vector(v, lanes)])
    return sums


def _vector(index: Any, lanes: int) -> Any:
    """Where the vector of this number lies in a row."""
    return T.ramp(index * lanes, 1, lanes) if lanes > 1 else index
