"""Weights in the order in which kernels read them.

A kernel computes a tile of output channels at a time. In the usual layouts it would read, for every input
channel, a few of them and then skip the others: many pages, few bytes of each, nothing that the processor's
prefetcher understands. Packed as ``[channels / lanes, ..., lanes]`` a tile's weights are one stream. That is
done here, when the model is compiled; it costs nothing at run time. ``lanes`` is the width of the target's
vectors, so that every tile of whole vectors is made of whole blocks. Channels beyond the last whole block are
filled up with zeros, computed, and cropped; so are columns (of images) and rows (of matrices) where their
number, such as 149 or 197, cannot be cut into tiles that make good use of what they load.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax, te, topi
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.target import Target

from autotune.frontends import winograd
from autotune.frontends.fold import Array, constant, static_shape
from autotune.frontends.fusion import FUSABLE
from search.vectors import Vectors

_FLOATS = ("float32", "float64", "float16")
_TILES = range(4, 30)  # columns that share the weights loaded for them, and whose sums fit the registers
_LEAST_SHARE = 4  # of a vector, a fourth: with fewer channels, terms are what vectors should hold


@mutator
class _Packer(PyExprMutator):  # type: ignore[misc]
    """Replaces convolutions (NHWC) and matrix products whose second operand is constant."""

    def __init__(self, module: tvm.IRModule, target: Target) -> None:
        super().__init__(module)
        self._target = target

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        match getattr(call.op, "name", None):
            case "relax.nn.conv2d":
                return self._convolution(call)
            case "relax.matmul":
                return self._matmul(call)
        return call

    def _convolution(self, call: Any) -> Any:
        weight, attrs = self._weight(call.args[1], 4), call.attrs
        layouts = (attrs.data_layout, attrs.kernel_layout, str(attrs.out_layout or attrs.data_layout))
        plain = layouts == ("NHWC", "HWIO", "NHWC") and int(attrs.groups) == 1
        if weight is None or not plain or not _same_dtype(call, weight):
            return call
        strides, padding, dilation = (_ints(v) for v in (attrs.strides, attrs.padding, attrs.dilation))
        output = static_shape(call.ty) or ()
        form = winograd.form_for(weight.shape, strides, dilation, output)
        if form is not None:
            packed = np.moveaxis(self._pack(form.transform(weight)), 0, 2)
            return self._emit(
                lambda x, u: _crop(form.convolution(x, u, padding, output), output),
                "conv2d_winograd", call.args[0], np.ascontiguousarray(packed),
            )  # fmt: skip

        def convolution(x: te.Tensor, w: te.Tensor) -> te.Tensor:
            top, left, bottom, right = padding
            blocks, kh, kw, ic, lanes = (int(d) for d in w.shape)
            _, rows, columns, channels = output
            filled = _fill(columns)
            needed = (filled - 1) * strides[1] + (kw - 1) * dilation[1] + 1
            right = max(right, needed - left - int(x.shape[2]))
            padded = x
            if any((top, left, bottom, right)):
                padded = topi.nn.pad(x, [0, top, left, 0], [0, bottom, right, 0], name="padded")
            ry, rx = te.reduce_axis((0, kh), "ry"), te.reduce_axis((0, kw), "rx")
            rc = te.reduce_axis((0, ic), "rc")
            result = te.compute(
                (x.shape[0], rows, filled, blocks * lanes),
                lambda b, y, x, c: te.sum(
                    padded[b, y * strides[0] + ry * dilation[0], x * strides[1] + rx * dilation[1], rc]
                    * w[c // lanes, ry, rx, rc, c % lanes],
                    axis=[ry, rx, rc],
                ),
                name="conv2d",
            )
            return _crop(result, (x.shape[0], rows, columns, channels))

        return self._emit(convolution, "conv2d", call.args[0], self._pack(weight))

    def _matmul(self, call: Any) -> Any:
        weight = self._weight(call.args[1], 2)
        if weight is None or not _same_dtype(call, weight) or len(static_shape(call.ty) or ()) < 2:
            return call

        def matmul(x: te.Tensor, w: te.Tensor) -> te.Tensor:
            blocks, depth, lanes = (int(d) for d in w.shape)
            *outer, rows, channels = static_shape(call.ty) or ()
            filled = _fill(rows)
            padded = x
            if filled > rows:
                padded = topi.nn.pad(
                    x, [0] * len(x.shape), [*(0 for _ in outer), filled - rows, 0], name="padded"
                )
            k = te.reduce_axis((0, depth), "k")
            result = te.compute(
                (*outer, filled, blocks * lanes),
                lambda *i: te.sum(padded[(*i[:-1], k)] * w[i[-1] // lanes, k, i[-1] % lanes], axis=k),
                name="matmul",
            )
            return _crop(result, (*outer, rows, channels))

        return self._emit(matmul, "matmul", call.args[0], self._pack(weight))

    def _weight(self, expr: Any, rank: int) -> Array | None:
        """A constant with enough output channels for vectors of them to pay."""
        value = constant(self.lookup_binding(expr) if isinstance(expr, relax.Var) else expr)
        if value is None or value.ndim != rank or str(value.dtype) not in _FLOATS:
            return None
        return value if _LEAST_SHARE * value.shape[-1] >= self._lanes(value) else None

    def _lanes(self, weight: Array) -> int:
        return Vectors.of(self._target, str(weight.dtype)).lanes

    def _pack(self, weight: Array) -> Array:
        """Output channels last, shape [..., channels], to [blocks, ..., lanes]."""
        lanes = self._lanes(weight)
        filled = np.pad(weight, [(0, 0)] * (weight.ndim - 1) + [(0, -weight.shape[-1] % lanes)])
        blocked = filled.reshape(*weight.shape[:-1], -1, lanes)
        return np.ascontiguousarray(np.moveaxis(blocked, -2, 0))

    def _emit(self, function: Any, name: str, x: Any, packed: Array) -> Any:
        attributes = {"op_pattern": FUSABLE}
        weight = relax.const(packed, str(packed.dtype))  # by default, doubles would become singles
        return self.builder_.call_te(function, x, weight, primfunc_name_hint=name, primfunc_attrs=attributes)


def _same_dtype(call: Any, weight: Array) -> bool:
    """Whether the result is of fixed shape and of the weights' dtype."""
    return static_shape(call.ty) is not None and str(call.ty.dtype) == str(weight.dtype)


def _crop(result: te.Tensor, shape: Sequence[Any]) -> te.Tensor:
    if [int(d) for d in result.shape] == [int(d) for d in shape]:
        return result
    return te.compute(tuple(shape), lambda *i: result(*i), name="crop")


def _fill(columns: int) -> int:
    """The next number of columns that can be cut into tiles of a size that pays."""
    if columns < min(_TILES):
        return columns
    return next(n for n in itertools.count(columns) if any(n % tile == 0 for tile in _TILES))


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def pack_weights(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Packs the constant weights of convolutions and matrix products in ``main``."""
    packer = _Packer(module, target)
    main = packer.visit_expr(module["main"])
    packed = packer.builder_.get()
    packed.update_func(packed.get_global_var("main"), main)
    return relax.transform.DeadCodeElimination()(packed)
