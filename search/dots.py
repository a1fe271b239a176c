# mypy: disable-error-code="untyped-decorator, valid-type"
"""The instruction that adds the products of four bytes to each lane of a vector (VNNI's ``vpdpbusd``).

TVM ships it for sums in memory and AVX-512, with operands of 32 bits, which the LLVM that it comes with
refuses; here sums are in registers, and AVX-VNNI has it in 256 bits, too.
Left operands are unsigned, right ones signed; unlike the pair of instructions that it replaces, it does not
saturate: products are added in 32 bits.
"""

from functools import cache
from typing import Any

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T
from tvm.target import Target
from tvm.target.codegen import target_has_features

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
        TensorIntrin.register(f"{_NAME}_{lanes}", _meaning(lanes), _instruction(lanes))


def _meaning(lanes: int) -> Any:
    @T.prim_func(s_tir=True)
    def meaning(
        a: T.Buffer((4,), "uint8", offset_factor=1),
        b: T.Buffer((lanes, 4), "int8", offset_factor=1),
        c: T.Buffer((lanes,), "int32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:lanes], a[0:4], b[0:lanes, 0:4])
            T.writes(c[0:lanes])
            for i in T.serial(0, lanes):
                for k in T.serial(0, 4):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        c[vi] = c[vi] + T.cast(a[vk], "int32") * T.cast(b[vi, vk], "int32")

    return meaning


def _instruction(lanes: int) -> Any:
    vector, packed = f"int32x{lanes}", f"int8x{4 * lanes}"
    llvm = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"

    @T.prim_func(s_tir=True)
    def instruction(
        a: T.Buffer((4,), "uint8", offset_factor=1),
        b: T.Buffer((lanes, 4), "int8", offset_factor=1),
        c: T.Buffer((lanes,), "int32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:lanes], a[0:4], b[0:lanes, 0:4])
            T.writes(c[0:lanes])
            c[T.ramp(T.int32(0), 1, lanes)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(llvm),
                c.vload([0], dtype=vector),
                T.reinterpret(
                    T.broadcast(T.reinterpret(a.vload([0], "uint8x4"), dtype="int32"), lanes), dtype=packed
                ),
                b.vload([0, 0], dtype=packed),
                dtype=vector,
            )

    return instruction
