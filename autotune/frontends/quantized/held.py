"""What a quantized model holds, and which of its operators are sums of bytes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.frontends.fold import Array, constant, static_shape

CONVERSIONS = {"relax.quantize", "relax.dequantize"}
SIGN = 128  # between a signed byte and the unsigned one that stands for it
_SUMS = {"relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d", "relax.matmul"}
_EXACT = 2**24 // (255 * 128)  # terms of a sum of products of bytes in float32

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
        if name_of(call) == "relax.permute_dims" and call.attrs.axes is not None:
            axes, call = tuple(int(a) for a in call.attrs.axes), lookup(call.args[0])
        if name_of(call) != "relax.dequantize":
            return None
        scale, zero = constant(call.args[1]), constant(call.args[2])
        if scale is None or zero is None or str(call.attrs.out_dtype) != "float32":
            return None
        found = constant(call.args[0])
        if found is not None and found.dtype == np.uint8:
            found, zero = _lowered(found).astype(np.int8), _lowered(zero)
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
        if name_of(call) not in _SUMS or static_shape(call.ty) is None:
            return None
        x, weights = (Bytes.of(argument, lookup) for argument in call.args[:2])
        if x is None or weights is None or not isinstance(weights.values, np.ndarray):
            return None
        product = name_of(call) == "relax.matmul"
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
        if name_of(call) != "relax.matmul" or str(call.ty.dtype) != "int32":
            return None
        left, weights = lookup(call.args[0]), constant(lookup(call.args[1]))
        x: Any = lookup(left.args[0]) if name_of(left) == "relax.subtract" else None
        if name_of(x) != "relax.astype" or weights is None or weights.ndim != 2:
            return None
        narrow = weights.astype(np.int8)
        one = math.prod(static_shape(left.args[1].ty) or ()) == 1
        fits = one and str(x.args[0].ty.dtype) == "uint8" and (narrow == weights).all()
        return cls(x.args[0], left.args[1], narrow) if fits else None


def name_of(value: Any) -> str:
    """The name of the operator of a call; empty for anything else."""
    return str(getattr(getattr(value, "op", None), "name", ""))


def _lowered(values: Array) -> Array:
    return np.asarray(values.astype(np.int16) - SIGN)


def _channels(call: Any, last: bool) -> set[int]:
    """How many a convolution of images takes, and makes."""
    return {(static_shape(e.ty) or ())[3 if last else 1] for e in (call.args[0], call)}
