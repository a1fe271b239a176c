"""Transposed convolutions as convolutions.

With stride s, every s-th output takes the same weights: ``y[q s + r - p] = sum of x[q - t] w[r + s t]``
with padding p, along each axis. So there are s convolutions with a window of size / s, one for each r. They
are computed as one with s times as many channels, which then are put between each other. As TVM writes it,
zeros are put between the inputs, and most of the work is to multiply by them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from autotune.frontends.fold import Array, constant, static_shape, tidied, with_main


@dataclass(frozen=True)
class _Axis:
    """One axis of a transposed convolution.

    Attributes:
        given: Extent of the input.
        wanted: Extent of the output.
        window: Extent of the weights, the zeros of a dilation included.
        padding: What is left out before the first output.
    """

    given: int
    wanted: int
    window: int
    stride: int
    padding: int

    @property
    def taken(self) -> int:
        """Window of the convolution."""
        return -(-self.window // self.stride)

    @property
    def first(self) -> int:
        """The q of the first output."""
        return self.padding // self.stride

    @property
    def before(self) -> int:
        """Padding of the convolution."""
        return self.taken - 1 - self.first

    @property
    def after(self) -> int:
        last = (self.wanted - 1 + self.padding) // self.stride
        return max(0, last - (self.given - 1))

    @property
    def places(self) -> int:
        """Extent of the convolution's output."""
        return self.before + self.given + self.after - self.taken + 1


@mutator
class _Rewriter(PyExprMutator):  # type: ignore[misc]
    """Rewrites those whose weights are constant (NCHW, and the same for one axis or three)."""

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        name = str(getattr(call.op, "name", ""))
        if not (name.startswith("relax.nn.conv") and name.endswith("d_transpose")):
            return call
        shape, output = static_shape(call.args[0].ty), static_shape(call.ty)
        weight, attrs = constant(call.args[1]), call.attrs
        spatial = len(output or ()) - 2
        layouts = (attrs.data_layout, attrs.kernel_layout)
        named = "DHW"[3 - spatial :]
        if weight is None or shape is None or output is None or layouts != (f"NC{named}", f"IO{named}"):
            return call
        strides, groups = [int(n) for n in attrs.strides], int(attrs.groups)
        weight = _dilated(weight, [int(n) for n in attrs.dilation])
        axes = [
            _Axis(*numbers)
            for numbers in zip(
                shape[2:], output[2:], weight.shape[2:], strides, map(int, attrs.padding), strict=False
            )
        ]
        if any(axis.before < 0 for axis in axes):
            return call
        return self._convolution(call, _apart(weight, axes, groups), axes, groups)

    def _convolution(self, call: Any, weight: Array, axes: list[_Axis], groups: int) -> Any:
        emit, output = self.builder_.emit, static_shape(call.ty) or ()
        convolve = {1: relax.op.nn.conv1d, 2: relax.op.nn.conv2d, 3: relax.op.nn.conv3d}[len(axes)]
        padding = [*(axis.before for axis in axes), *(axis.after for axis in axes)]
        sums = emit(
            convolve(call.args[0], relax.const(weight, str(weight.dtype)), padding=padding, groups=groups)
        )
        strides, places = [axis.stride for axis in axes], [axis.places for axis in axes]
        if max(strides) == 1 and places == list(output[2:]):
            return sums
        apart = emit(relax.op.reshape(sums, (output[0], groups, *strides, output[1] // groups, *places)))
        channels = len(axes) + 2
        beside = [n for axis in range(len(axes)) for n in (channels + 1 + axis, 2 + axis)]
        together = emit(relax.op.permute_dims(apart, [0, 1, channels, *beside]))
        extents = [s * n for s, n in zip(strides, places, strict=True)]
        whole = emit(relax.op.reshape(together, (*output[:2], *extents)))
        begin = [axis.padding - axis.first * axis.stride for axis in axes]
        if not any(begin) and extents == list(output[2:]):
            return whole
        end = [b + axis.wanted for b, axis in zip(begin, axes, strict=True)]
        return relax.op.strided_slice(whole, list(range(2, len(output))), begin, end)


def _dilated(weight: Array, dilation: list[int]) -> Array:
    window = [(n - 1) * d + 1 for n, d in zip(weight.shape[2:], dilation, strict=True)]
    wide = np.zeros((*weight.shape[:2], *window), weight.dtype)
    wide[_every(dilation)] = weight
    return wide


def _every(steps: Sequence[int], first: Sequence[int] = ()) -> tuple[Any, ...]:
    """An index of the last axes: every so many, from the first ones on."""
    return (..., *(slice(r, None, s) for r, s in zip(first or (0,) * len(steps), steps, strict=True)))


def _apart(weight: Array, axes: list[_Axis], groups: int) -> Array:
    """Weights [inputs, outputs of a group, window] as [phases of all outputs, inputs of a group, taken]."""
    inputs, own = weight.shape[0] // groups, weight.shape[1]
    strides, taken = [axis.stride for axis in axes], [axis.taken for axis in axes]
    fill = [(0, t * s - n) for t, s, n in zip(taken, strides, weight.shape[2:], strict=True)]
    filled = np.pad(weight, [(0, 0), (0, 0), *fill]).reshape(
        groups, inputs, own, *[t * s for t, s in zip(taken, strides, strict=True)]
    )
    made = np.empty((groups, math.prod(strides), own, inputs, *taken), weight.dtype)
    for n, phase in enumerate(product(*map(range, strides))):
        share = filled[_every(strides, phase)]
        made[:, n] = np.flip(share, tuple(range(3, share.ndim))).swapaxes(1, 2)
    return made.reshape(-1, inputs, *taken)


def to_convolutions(module: tvm.IRModule) -> tvm.IRModule:
    """Rewrites the transposed convolutions in ``main``."""
    main = _Rewriter(module).visit_expr(module["main"])
    return tidied(with_main(module, main))
