"""Models quantized to 8 bits: sums of integers where the target has an instruction for them.

Such a model (ONNX's QDQ form) holds real numbers ``scale * (q - zero)`` as bytes ``q``, and says where values
become bytes and real numbers again. A convolution or product of bytes is a sum of integers:

    sum (x - zero) * w * scales = (sum x * w - zero * sum w) * scales

which is exact (Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
Only Inference, 2018, section 2.2). The instruction takes unsigned bytes by signed ones, so signed tensors are
held 128 higher. Where it does not apply, weights become floats when the model is compiled.

Values become bytes by rounding to even, as ONNX says. By which factor they are multiplied before, or divided,
decides ties only, so that an implementation may be off by a step here and there.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax, te, tirx, topi
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.target import Target

from autotune.frontends.fold import Array, Bindings, constant, fold_constants, static_shape, with_main
from search import dots
from search.vectors import Vectors

_SUMS = {"relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d", "relax.matmul"}
_EXACT = 2**24 // (255 * 128)  # terms of a sum of products of bytes in float32
_SIGN = 128  # between a signed byte and the unsigned one that stands for it
_ELEMENTWISE = {
    f"relax.{n}" for n in ("add", "clip", "maximum", "minimum", "multiply", "nn.relu", "subtract")
}

_MOVES = {"relax.expand_dims", "relax.flatten", "relax.nn.max_pool2d", "relax.permute_dims", "relax.reshape",
          "relax.squeeze", "relax.strided_slice"}  # fmt: skip

Lookup = Callable[[Any], Any]
"""What a variable stands for; anything else stands for itself."""


@dataclass(frozen=True)
class Bytes:
    """A tensor held as bytes: ``scale * (values - zero)``.

    Attributes:
        values: An expression, or an array where it is constant.
        scale: Shape [], or [extent] along ``axis``.
        axes: Where the dimensions of ``values`` belong, if it is to be transposed; None where it is not.
    """

    values: Any
    scale: Array
    zero: Array
    axis: int
    axes: tuple[int, ...] | None = None

    @classmethod
    def of(cls, expr: Any, lookup: Lookup) -> "Bytes | None":
        """What ``expr`` is held as; None where it is not."""
        call, axes = lookup(expr), None
        if _name(call) == "relax.permute_dims" and call.attrs.axes is not None:
            axes, call = tuple(int(a) for a in call.attrs.axes), lookup(call.args[0])
        if _name(call) != "relax.dequantize":
            return None
        scale, zero = constant(call.args[1]), constant(call.args[2])
        if scale is None or zero is None or str(call.attrs.out_dtype) != "float32":
            return None
        found = constant(call.args[0])
        axis = int(call.attrs.axis) % len(static_shape(call.ty) or (0,))
        values = call.args[0] if found is None else found
        if axes is not None and found is not None:
            values, axis, axes = np.ascontiguousarray(found.transpose(axes)), axes.index(axis), None
        return cls(values, scale.squeeze(), zero.squeeze(), axis, axes)

    @property
    def real(self) -> Array:
        """The numbers that constant bytes stand for."""
        along = [-1 if n == self.axis else 1 for n in range(self.values.ndim)]
        scale, zero = (p.reshape(along) if p.ndim else p for p in (self.scale, self.zero))
        return np.asarray((self.values.astype(np.int32) - zero.astype(np.int32)) * scale, np.float32)


@dataclass(frozen=True)
class IntegerSum:
    """A convolution or product of bytes.

    Attributes:
        x: Unsigned, with one scale.
        weights: Signed, output channels last, zero at 0.
        depthwise: Each channel of the output is of one of the input.
    """

    x: Bytes
    weights: Bytes
    depthwise: bool

    @classmethod
    def of(cls, call: Any, lookup: Lookup, last: bool) -> "IntegerSum | None":
        """What a call computes, if it is one.

        Args:
            last: Output channels of its weights are the last dimension, else of a convolution's the first.
        """
        if _name(call) not in _SUMS or static_shape(call.ty) is None:
            return None
        x, weights = (Bytes.of(argument, lookup) for argument in call.args[:2])
        if x is None or weights is None or not isinstance(weights.values, np.ndarray):
            return None
        product = _name(call) == "relax.matmul"
        channels = weights.values.ndim - 1 if last or product else 0
        groups = 1 if product else int(call.attrs.groups)
        window = weights.values.size // weights.values.shape[channels]
        depthwise = groups > 1 and weights.values.ndim == 4 and _channels(call, last) == {groups}
        fits = (
            str(x.values.ty.dtype) == "uint8"
            and weights.values.dtype == np.int8
            and not weights.zero.any()
            and not x.scale.ndim
            and not x.zero.ndim
            and (not weights.scale.ndim or weights.axis == channels)
            and (weights.values.ndim == 2 or not product)
            and (window < _EXACT if depthwise else groups == 1)
        )
        return cls(x, weights, depthwise) if fits else None

    @property
    def scale(self) -> Array:
        """Of the sums, shape [channels]."""
        scale = self.x.scale.astype(np.float32) * self.weights.scale.astype(np.float32)
        return np.broadcast_to(scale, self.weights.values.shape[-1:])

    @property
    def offset(self) -> Array:
        """What to take off the sums since the input's zero is not 0, int32 [channels]."""
        total = self.weights.values.astype(np.int32).reshape(-1, self.weights.values.shape[-1]).sum(axis=0)
        return np.asarray(int(self.x.zero) * total, np.int32)


@dataclass(frozen=True)
class DynamicProduct:
    """A product of bytes whose zero is known at run time only (``MatMulInteger``).

    Attributes:
        x: Unsigned.
        zero: Of ``x``, one 32-bit integer.
        weights: Signed, shape [inputs, outputs], zero at 0.
    """

    x: Any
    zero: Any
    weights: Array

    @classmethod
    def of(cls, call: Any, lookup: Lookup) -> "DynamicProduct | None":
        """What a call computes, if it is one."""
        if _name(call) != "relax.matmul" or str(call.ty.dtype) != "int32":
            return None
        left, weights = lookup(call.args[0]), constant(lookup(call.args[1]))
        x: Any = lookup(left.args[0]) if _name(left) == "relax.subtract" else None
        if _name(x) != "relax.astype" or weights is None or weights.ndim != 2:
            return None
        narrow = weights.astype(np.int8)
        one = math.prod(static_shape(left.args[1].ty) or ()) == 1
        fits = one and str(x.args[0].ty.dtype) == "uint8" and (narrow == weights).all()
        return cls(x.args[0], left.args[1], narrow) if fits else None


def packed_bytes(weights: Array, lanes: int, blocks: int) -> Array:
    """Weights of shape [..., inputs, outputs] as [blocks, ..., inputs / 4, lanes, 4], zeros added."""
    *window, inputs, outputs = weights.shape
    more = [(0, 0)] * len(window) + [(0, -inputs % dots.TERMS), (0, blocks * lanes - outputs)]
    split = np.pad(weights, more).reshape(*window, -1, dots.TERMS, blocks, lanes)
    n = len(window)
    return np.ascontiguousarray(split.transpose(n + 2, *range(n), n, n + 3, n + 1))


def channelwise(values: Array, channels: int) -> Any:
    """A constant for each of the channels, those that were added included."""
    return relax.const(np.pad(values, (0, channels - len(values))), str(values.dtype))


def without_zero(sums: te.Tensor, total: te.Tensor, zero: te.Tensor) -> te.Tensor:
    """Sums of bytes times weights, as if the bytes' zero were 0; ``total`` is the sum of the weights."""
    return te.compute(sums.shape, lambda *i: sums(*i) - total(i[-1]) * _only(zero), name="without_zero")


def whole_terms(
    x: te.Tensor, before: Sequence[int], after: Sequence[int], zero: int, terms: int
) -> te.Tensor:
    """The input with what is around it, and its channels filled up to whole numbers of ``terms``."""
    more = [*after[:-1], after[-1] + -int(x.shape[-1]) % terms]
    if not any((*before, *more)):
        return x
    return topi.nn.pad(x, list(before), more, pad_value=tirx.const(zero, x.dtype), name="padded")


def integer_sums(
    padded: te.Tensor,
    w: te.Tensor,
    strides: Sequence[int],
    dilation: Sequence[int],
    extents: Sequence[int],
    columns: int,
) -> te.Tensor:
    """Of a convolution or product of bytes.

    Args:
        padded: Shape [..., places, inputs].
        w: Shape [blocks, *window, inputs / 4, lanes, 4]; without a window, of a product.
        extents: Of the sums; those beyond ``columns`` are computed from the last place, and to be cropped.
    """
    window, lanes, last = w.shape[1:-3], int(w.shape[-2]), int(padded.shape[-2]) - 1
    places = [
        te.reduce_axis((0, n), f"r{axis}") for n, axis in zip(window, "zyx"[-len(window) :], strict=False)
    ]
    rc, rt = te.reduce_axis((0, w.shape[-3]), "rc"), te.reduce_axis((0, dots.TERMS), "rt")

    def term(*at: Any) -> Any:
        *read, c = at
        if places:
            moved = zip(read[1:], strides, places, dilation, strict=True)
            read = [read[0], *(o * s + r * d for o, s, r, d in moved)]
        if extents[-2] > columns:
            read[-1] = tirx.min(read[-1], last)
        left = padded[(*read, rc * dots.TERMS + rt)].astype("int32")
        right = w[(c // lanes, *places, rc, c % lanes, rt)].astype("int32")
        return te.sum(left * right, axis=[*places, rc, rt])

    return te.compute(tuple(extents), term, name=f"conv{len(window)}d" if places else "matmul")


def depthwise_sums(
    padded: te.Tensor, w: te.Tensor, strides: Sequence[int], dilation: Sequence[int], output: Sequence[int]
) -> te.Tensor:
    """Of a depthwise convolution: whole numbers as float32, which are exact up to 2 ** 24."""
    ry, rx = (te.reduce_axis((0, n), name) for n, name in zip(w.shape, ("ry", "rx"), strict=False))

    def term(b: Any, y: Any, x: Any, c: Any) -> Any:
        down, across = y * strides[0] + ry * dilation[0], x * strides[1] + rx * dilation[1]
        return te.sum(padded[b, down, across, c].astype("float32") * w[ry, rx, 0, c], axis=[ry, rx])

    return te.compute(output, term, name="conv2d")


def scaled(sums: te.Tensor, offset: te.Tensor, scale: te.Tensor) -> te.Tensor:
    """The real numbers that sums of integers stand for."""
    return te.compute(
        sums.shape,
        lambda *i: (sums(*i) - offset(i[-1]).astype(sums.dtype)).astype("float32") * scale(i[-1]),
        name="scaled",
    )


@mutator
class _Unsigned(PyExprMutator):  # type: ignore[misc]
    """Holds signed bytes as unsigned ones where nothing but real numbers is made of them."""

    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        main = module["main"]
        of, uses, taken = Bindings(main).of, Counter[Any](), Counter[Any]()

        def visit(node: Any) -> None:
            if isinstance(node, relax.Call):
                uses.update(a for a in node.args if isinstance(a, relax.Var))
                if _name(node) == "relax.dequantize" and _is_signed(node):
                    taken[node.args[0]] += 1
            elif isinstance(node, relax.Tuple):
                uses.update(f for f in node.fields if isinstance(f, relax.Var))

        relax.analysis.post_order_visit(main, visit)
        uses[main.body.body] += 1
        moved = {
            variable: value
            for variable, value in of.items()
            if _name(value) == "relax.quantize" and _is_signed(value) and uses[variable] == taken[variable]
        }
        self._moved = {*moved, *moved.values()}

    def visit_call_(self, call: Any) -> Any:
        moved = (call.args[0] if _name(call) == "relax.dequantize" else call) in self._moved
        call = self.visit_expr_post_order(call)
        return (
            self._raised(call, "uint8" if _name(call) == "relax.quantize" else "float32") if moved else call
        )

    @staticmethod
    def _raised(call: Any, dtype: str) -> Any:
        zero = (constant(call.args[2]).astype(np.int16) + _SIGN).astype(np.uint8)  # type: ignore[union-attr]
        operator = relax.op.quantize if _name(call) == "relax.quantize" else relax.op.dequantize
        return operator(call.args[0], call.args[1], relax.const(zero, "uint8"), int(call.attrs.axis), dtype)


@mutator
class _Earlier(PyExprMutator):  # type: ignore[misc]
    """Makes bytes of numbers before they are moved, instead of after: there is a fourth as much to move.

    What picks elements, or the largest of them, gives the same before and after a rounding. What then becomes
    the bytes that it was is left as it is.
    """

    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self._bindings = Bindings(module["main"])

    def visit_call_(self, call: Any) -> Any:
        if _name(call) != "relax.quantize" or not _is_uniform(call):
            return self.visit_expr_post_order(call)
        return self._bytes_of(call.args[0], call)

    def _bytes_of(self, expr: Any, call: Any) -> Any:
        """The bytes that ``call`` would make of ``expr``."""
        moved = self._bindings.own(expr)
        if _name(moved) == "relax.concat" and isinstance(moved.args[0], relax.Tuple):
            parts = [self.builder_.emit(self._bytes_of(part, call)) for part in moved.args[0].fields]
            return relax.op.concat(parts, moved.attrs.axis)
        if _name(moved) in _MOVES:
            first = self.builder_.emit(self._bytes_of(moved.args[0], call))
            rest = [self.visit_expr(a) for a in moved.args[1:]]
            return relax.Call(moved.op, [first, *rest], moved.attrs, moved.ty_args)
        value = self._bindings.of.get(expr, expr)
        if _name(value) == "relax.dequantize" and _same_bytes(value, call):
            return self.visit_expr(value.args[0])
        return relax.Call(call.op, [self.visit_expr(expr), *call.args[1:]], call.attrs, call.ty_args)


@mutator
class _RealWeights(PyExprMutator):  # type: ignore[misc]
    """Makes numbers of constant bytes, but for weights of sums that a target has an instruction for."""

    def __init__(self, module: tvm.IRModule, instruction: bool) -> None:
        super().__init__(module)
        of = Bindings(module["main"]).of
        self._kept: set[Any] = set()
        for call in of.values():
            found = IntegerSum.of(call, lambda e: of.get(e, e), last=False)
            if found and (instruction or found.depthwise):
                weights = of[call.args[1]]
                self._kept.add(weights if _name(weights) == "relax.dequantize" else of[weights.args[0]])

    def visit_call_(self, call: Any) -> Any:
        if _name(call) == "relax.dequantize" and call not in self._kept:
            held = Bytes.of(call, lambda e: e)
            if held and isinstance(held.values, np.ndarray):
                return relax.const(held.real, "float32")
        return self.visit_expr_post_order(call)


def prepare_bytes(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Decides what is computed in integers: that keeps its weights as bytes, all else gets numbers."""
    if not is_quantized(module):
        return module
    module = with_main(module, _Unsigned(module).visit_expr(module["main"]))
    module = with_main(module, _Earlier(module).visit_expr(module["main"]))
    instruction = Vectors.of(target, "int32").dots
    return fold_constants(with_main(module, _RealWeights(module, instruction).visit_expr(module["main"])))


def is_quantized(module: tvm.IRModule) -> bool:
    """Whether a module rounds to bytes, or holds any."""
    return any(_name(value) in _CONVERSIONS for value in Bindings(module["main"]).of.values())


_CONVERSIONS = {"relax.quantize", "relax.dequantize"}


@mutator
class _Conversions(PyExprMutator):  # type: ignore[misc]
    """Writes out how numbers become bytes, and come from them.

    TVM's own rounds ties away from zero. Scales are arguments, so that layers that differ in them only share
    a kernel.
    """

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        if _name(call) not in _CONVERSIONS or not _has_one_scale(call):
            return call
        x, scale, zero = call.args
        dtype, factor = str(call.attrs.out_dtype), constant(scale)
        convert: Callable[..., te.Tensor] = from_bytes
        name = "dequantize"
        if _name(call) == "relax.quantize":
            convert, name = _divided, "quantize"
            if factor is not None and self._is_behind_sum(x):  # dividing takes as long as a short sum
                convert, scale = _times, relax.const(1 / factor, str(factor.dtype))
        return self.builder_.call_te(partial(convert, dtype), x, scale, zero, primfunc_name_hint=name)

    def _is_behind_sum(self, expr: Any) -> bool:
        value = self.lookup_binding(expr) if isinstance(expr, relax.Var) else expr
        if _name(value) in _ELEMENTWISE:
            return any(self._is_behind_sum(a) for a in value.args if isinstance(a, relax.Var))
        return _name(value) == "relax.call_tir"


def _times(dtype: str, x: te.Tensor, factor: te.Tensor, zero: te.Tensor) -> te.Tensor:
    return _rounded(x, lambda *i: x(*i) * _only(factor), zero, dtype)


def _divided(dtype: str, x: te.Tensor, scale: te.Tensor, zero: te.Tensor) -> te.Tensor:
    return _rounded(x, lambda *i: x(*i) / _only(scale), zero, dtype)


def _rounded(x: te.Tensor, steps: Callable[..., Any], zero: te.Tensor, dtype: str) -> te.Tensor:
    """Numbers of steps to the nearest byte; ties to even."""
    least, most = (tirx.const(float(v(dtype).value), x.dtype) for v in (tirx.min_value, tirx.max_value))

    def element(*i: Any) -> Any:
        rounded = tirx.nearbyint(steps(*i)) + _only(zero).astype(x.dtype)
        return tirx.max(tirx.min(rounded, most), least).astype(dtype)

    return te.compute(x.shape, element, name="quantized")


def from_bytes(dtype: str, x: te.Tensor, scale: te.Tensor, zero: te.Tensor) -> te.Tensor:
    """Bytes to numbers."""
    place, size = _only(zero).astype(dtype), _only(scale).astype(dtype)
    return te.compute(x.shape, lambda *i: (x(*i).astype(dtype) - place) * size, name="dequantized")


def _only(tensor: te.Tensor) -> Any:
    """The one element of a tensor."""
    return tensor(*[0] * len(tensor.shape))


def write_out_conversions(module: tvm.IRModule) -> tvm.IRModule:
    """Replaces ``quantize`` and ``dequantize`` by what they compute."""
    mutated = _Conversions(module)
    main = mutated.visit_expr(module["main"])
    written = mutated.builder_.get()
    written.update_func(written.get_global_var("main"), main)
    return relax.transform.DeadCodeElimination()(written)


def _name(value: Any) -> str:
    return str(getattr(getattr(value, "op", None), "name", ""))


def _channels(call: Any, last: bool) -> set[int]:
    """How many a convolution of images takes, and makes."""
    return {(static_shape(e.ty) or ())[3 if last else 1] for e in (call.args[0], call)}


def _is_uniform(call: Any) -> bool:
    """Whether a conversion has one scale and one zero, both known."""
    about = [constant(a) for a in call.args[1:3]]
    return all(a is not None and a.size == 1 for a in about)


def _has_one_scale(call: Any) -> bool:
    """Whether a conversion of float32 has one scale and one zero, known or not, for all elements."""
    kinds = {str(call.args[1].ty.dtype), str(call.args[0].ty.dtype), str(call.attrs.out_dtype)}
    return "float32" in kinds and all(math.prod(static_shape(a.ty) or ()) == 1 for a in call.args[1:3])


def _same_bytes(first: Any, second: Any) -> bool:
    """Whether what one conversion takes is what the other one makes."""
    pairs = [(constant(a), constant(b)) for a, b in zip(first.args[1:3], second.args[1:3], strict=True)]
    same = all(a is not None and b is not None and a.size == b.size == 1 and a == b for a, b in pairs)
    return same and str(first.args[0].ty.dtype) == str(second.attrs.out_dtype)


def _is_signed(call: Any) -> bool:
    """Whether ``quantize`` makes, or ``dequantize`` takes, signed bytes with a known zero."""
    kind = call.attrs.out_dtype if _name(call) == "relax.quantize" else call.args[0].ty.dtype
    return str(kind) == "int8" and constant(call.args[2]) is not None and constant(call.args[1]) is not None
