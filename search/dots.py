"""The instruction that adds the products of four bytes to each lane of a vector (VNNI's ``vpdpbusd``).

TVM ships it for sums in memory and AVX-512, with operands of 32 bits, which the LLVM that it comes with
refuses; here sums are in registers, and AVX-VNNI has it in 256 bits, too.
Left operands are unsigned, right ones signed; unlike the pair of instructions that it replaces, it does not
saturate: products are added in 32 bits.
"""

from functools import cache
from typing import Any

from tvm import tirx
from tvm.s_tir import TensorIntrin
from tvm.target import Target
from tvm.target.codegen import target_has_features
from tvm.tirx.script import builder as T

from search.intrinsics import Operand, described

TERMS = 4  # products of a lane
_LANES = (8, 16)
_NAME = "autotune.dots"


def has(target: Target, lanes: int) -> bool:
    """Whether a target has the instruction for vectors of so many 32-bit lanes."""
    features = {16: ("avx512vnni",), 8: ("avxvnni", "avx512vnni")}.get(lanes, ())
    return any(target_has_features(feature, target) for feature in features)


def name(lanes: int) -> str:
    """What schedules call it; TVM knows it from then on."""
    _register()
    return f"{_NAME}_{lanes}"


def prepare(trace: str) -> None:
    """Sees to it that TVM knows what a trace names."""
    if _NAME in trace:
        _register()


@cache
def _register() -> None:
    for lanes in _LANES:
        TensorIntrin.register(f"{_NAME}_{lanes}", *_dots(lanes))


def _dots(lanes: int) -> tuple[Any, Any]:
    vector, packed = f"int32x{lanes}", f"int8x{TERMS * lanes}"
    llvm = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"

    def value(a: Any, b: Any, c: Any, i: Any, k: Any) -> Any:
        return c[i] + tirx.Cast("int32", a[k]) * tirx.Cast("int32", b[i, k])

    def store(a: Any, b: Any, c: Any) -> tuple[()]:
        four = tirx.Broadcast(tirx.reinterpret("int32", a.vload([0], f"uint8x{TERMS}")), lanes)
        added = tirx.call_llvm_pure_intrin(
            vector, llvm, c.vload([0], vector), tirx.reinterpret(packed, four), b.vload([0, 0], packed)
        )
        T.buffer_store(c, added, [tirx.Ramp(0, 1, lanes)])
        return ()

    return described(
        (Operand((TERMS,), "uint8"), Operand((lanes, TERMS), "int8")),
        Operand((lanes,), "int32", "local"),
        (TERMS,),
        value,
        store,
    )
