"""How numbers become bytes, and come from them."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax, te, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from autotune.frontends.fold import constant, rewritten, static_shape
from autotune.frontends.quantized.held import CONVERSIONS, name_of
from autotune.frontends.quantized.kernels import only

_ROUNDS = 1.5 * 2.0**23
"""Plus a number below 2 ** 22: rounded to a whole one, ties to even, which the sum's last bits are.

Three instructions for a whole vector, where rounding and converting to bytes take eight.
"""
_ROUNDS_BITS = int(np.float32(_ROUNDS).view(np.int32))

_ELEMENTWISE = {
    f"relax.{n}" for n in ("add", "clip", "maximum", "minimum", "multiply", "nn.relu", "subtract")
}


@mutator
class _Conversions(PyExprMutator):  # type: ignore[misc]
    """Writes out how numbers become bytes, and come from them.

    TVM's own rounds ties away from zero. Scales are arguments, so that layers that differ in them only share
    a kernel.
    """

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        if name_of(call) not in CONVERSIONS or not _has_one_scale(call):
            return call
        x, scale, zero = call.args
        dtype, factor = str(call.attrs.out_dtype), constant(scale)
        convert: Callable[..., te.Tensor] = _from_bytes
        name = "dequantize"
        if name_of(call) == "relax.quantize":
            convert, name = _divided, "quantize"
            if factor is not None and self._is_behind_sum(x):  # dividing takes as long as a short sum
                convert, scale = _times, relax.const(1 / factor, str(factor.dtype))
        return self.builder_.call_te(partial(convert, dtype), x, scale, zero, primfunc_name_hint=name)

    def _is_behind_sum(self, expr: Any) -> bool:
        value = self.lookup_binding(expr) if isinstance(expr, relax.Var) else expr
        if name_of(value) in _ELEMENTWISE:
            return any(self._is_behind_sum(a) for a in value.args if isinstance(a, relax.Var))
        return name_of(value) == "relax.call_tir"


def _times(dtype: str, x: te.Tensor, factor: te.Tensor, zero: te.Tensor) -> te.Tensor:
    return _rounded(x, lambda *i: x(*i) * only(factor), zero, dtype)


def _divided(dtype: str, x: te.Tensor, scale: te.Tensor, zero: te.Tensor) -> te.Tensor:
    return _rounded(x, lambda *i: x(*i) / only(scale), zero, dtype)


def _rounded(x: te.Tensor, steps: Callable[..., Any], zero: te.Tensor, dtype: str) -> te.Tensor:
    """Numbers of steps to the nearest byte; ties to even."""
    least, most = int(tirx.min_value(dtype).value), int(tirx.max_value(dtype).value)

    def element(*i: Any) -> Any:
        place = only(zero).astype(x.dtype)
        rounded = tirx.nearbyint(steps(*i)) + place
        return tirx.max(tirx.min(rounded, tirx.const(most, x.dtype)), tirx.const(least, x.dtype)).astype(
            dtype
        )

    def element_of_bits(*i: Any) -> Any:
        place = only(zero).astype("int32")
        low, high = ((tirx.const(end, "int32") - place).astype("float32") for end in (least, most))
        within = tirx.max(tirx.min(steps(*i), high), low)
        bits = tirx.reinterpret("int32", within + tirx.const(_ROUNDS, "float32"))
        return (bits + (place - tirx.const(_ROUNDS_BITS, "int32"))).astype(dtype)

    small = x.dtype == "float32" and dtype in ("uint8", "int8")
    return te.compute(x.shape, element_of_bits if small else element, name="quantized")


def _from_bytes(dtype: str, x: te.Tensor, scale: te.Tensor, zero: te.Tensor) -> te.Tensor:
    """Bytes to numbers."""
    place, size = only(zero).astype(dtype), only(scale).astype(dtype)
    return te.compute(x.shape, lambda *i: (x(*i).astype(dtype) - place) * size, name="dequantized")


def write_out_conversions(module: tvm.IRModule) -> tvm.IRModule:
    """Replaces ``quantize`` and ``dequantize`` by what they compute."""
    return relax.transform.DeadCodeElimination()(rewritten(_Conversions(module), module))


def _has_one_scale(call: Any) -> bool:
    """Whether a conversion of float32 has one scale and one zero, known or not, for all elements."""
    made, taken = str(call.attrs.out_dtype), str(call.args[0].ty.dtype)
    numbers, whole = (taken, made) if name_of(call) == "relax.quantize" else (made, taken)
    return (
        numbers == "float32"
        and "int" in whole
        and all(math.prod(static_shape(a.ty) or ()) == 1 for a in call.args[1:3])
    )
