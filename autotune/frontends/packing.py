"""Weights in the order in which kernels read them.

A kernel computes a tile of output channels at a time. In the usual layouts it would read, for every input
channel, a few of them and then skip the others: many pages, few bytes of each, nothing that the processor's
prefetcher understands. Packed as ``[channels / lanes, ..., lanes]`` a tile's weights are one stream. That is
done here, when the model is compiled; it costs nothing at run time. ``lanes`` is the width of the target's
vectors, or half of that where fewer lanes stay empty and it takes no longer, so that every tile of whole
vectors is made of whole blocks. Channels beyond the last whole block are filled up with zeros, computed, and
cropped; so are columns (of images) and rows (of matrices) where their number, such as 149 or 197, cannot be
cut into tiles that make good use of what they load.
"""

import math
from typing import Any

import numpy as np
import tvm
from tvm import relax, te, topi
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.target import Target

from autotune.frontends import halves, winograd
from autotune.frontends.fold import Array, constant, operator_of, rewritten, shape_of, static_shape
from autotune.frontends.fusion import FUSABLE, read_in_place
from autotune.frontends.geometry import axes_of, cropped, geometry, slice_of
from autotune.frontends.quantized.sums import SumsOfBytes
from search.vectors import Vectors

_FLOATS = ("float32", "float64", "float16")
_SHARED = 4  # rows: for fewer, packing at run time moves more than it saves
_PART, _OF_PART = "part", "_of_part"  # names of a block, and of the kernels that have it
_IMAGE, _OF_PLANES = "image", "_of_planes"
_MOST_PLANES = 4  # colours
_NARROW_GAIN = 0.95  # of the time: vectors of half the width are twice as many instructions
_LEAST_SHARE = 4  # of a vector, a fourth: with fewer columns, terms are what vectors should hold


@mutator
class _Packer(PyExprMutator):  # type: ignore[misc]
    """Replaces convolutions (NHWC) and matrix products whose second operand is constant."""

    def __init__(self, module: tvm.IRModule, target: Target) -> None:
        super().__init__(module)
        self._target = target

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        sums = SumsOfBytes(self._target, self._bound, self.builder_).written(call)
        if sums is not None:
            return sums
        match getattr(call.op, "name", None):
            case "relax.nn.conv1d" | "relax.nn.conv2d" | "relax.nn.conv3d":
                return self._convolution(call)
            case "relax.matmul":
                return self._matmul(call)
        return call

    def _bound(self, expr: Any) -> Any:
        return self.lookup_binding(expr) if isinstance(expr, relax.Var) else expr

    def _convolution(self, call: Any) -> Any:
        attrs, output = call.attrs, static_shape(call.ty) or ()
        spatial = len(output) - 2
        weight = self._weight(call.args[1], spatial + 2)
        axes = "DHW"[3 - spatial :]
        layouts = (attrs.data_layout, attrs.kernel_layout, str(attrs.out_layout or attrs.data_layout))
        last = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
        if weight is None or _is_empty(call) or layouts != last or not _same_dtype(call):
            return call
        strides, padding, dilation = geometry(attrs)
        groups = int(attrs.groups)
        if groups > 1 and weight.shape[-2] == 1:
            return call  # depthwise: there is no sum over channels
        if groups == 1 and spatial == 2:
            form = winograd.form_for(weight.shape, strides, dilation, output)
            places, skipped = math.prod(output[:-1]), math.prod(strides)
            if halves.pay(self._target, weight, places, skipped, winograd=form is not None):
                return self._image_of_halves(call, weight, output)
            if form is not None:
                tiles = form.columns.tiles(output[2]), form.rows.tiles(output[1])
                lanes = self._fitting(weight, 1, *tiles).lanes
                packed = np.moveaxis(_packed(form.transform(weight), lanes), 0, 2)
                return self._emit(
                    lambda x, u: cropped(form.convolution(x, u, padding, output), output),
                    "conv2d_winograd", call.args[0], np.ascontiguousarray(packed),
                )  # fmt: skip
        lines = math.prod(output[-3:-2])
        vectors = self._fitting(weight, groups, output[-2], lines)
        weight, groups = _merged(weight, groups, vectors.lanes)
        own = -(-weight.shape[-1] // groups // vectors.lanes)
        columns, blocks = vectors.filled(output[-2], own if groups == 1 else 1, lines)
        packed = _packed(weight, vectors.lanes, blocks if groups == 1 else groups * own)
        before, after = padding[:spatial], list(padding[spatial:])

        def convolution(x: te.Tensor, w: te.Tensor) -> te.Tensor:
            _, *window, terms, lanes = (int(d) for d in w.shape)
            images, *extents, channels = output
            extents[-1] = columns
            padded = x
            if any((*before, *after)):
                padded = topi.nn.pad(x, [0, *before, 0], [0, *after, 0], name="padded")
            last = int(padded.shape[-2]) - 1
            places = [
                te.reduce_axis((0, n), f"r{axis}") for n, axis in zip(window, "zyx"[-spatial:], strict=True)
            ]
            rc = te.reduce_axis((0, terms), "rc")

            def term(b: Any, *at: Any) -> Any:
                *outputs, c = at
                read = [o * s + r * d for o, s, r, d in zip(outputs, strides, places, dilation, strict=True)]
                if extents[-1] > output[-2]:
                    read[-1] = tvm.tirx.min(read[-1], last)  # what is computed from it is cropped
                first = c // lanes // own * terms if groups > 1 else 0
                return te.sum(
                    padded[(b, *read, first + rc)] * w[(c // lanes, *places, rc, c % lanes)],
                    axis=[*places, rc],
                )

            shape = (images, *extents, int(w.shape[0]) * lanes)
            return cropped(
                te.compute(shape, term, name=f"conv{spatial}d"), (*shape[:-2], output[-2], channels)
            )

        name = f"conv{spatial}d"
        if (planes := self._planes(call.args[0])) is not None:
            return self._emit(_of_planes(convolution), name + _OF_PLANES, planes, packed)
        return self._emit(convolution, name, call.args[0], packed)

    def _planes(self, x: Any) -> Any:
        """Of what an image of few channels is a transposition; its numbers are read one by one anyway."""
        call, rank = self._bound(x), len(shape_of(x))
        moved = operator_of(call) == "relax.permute_dims" and axes_of(call) == [0, *range(2, rank), 1]
        return call.args[0] if moved and shape_of(x)[-1] <= _MOST_PLANES else None

    def _matmul(self, call: Any) -> Any:
        output = static_shape(call.ty) or ()
        if len(output) < 2 or _is_empty(call) or not _same_dtype(call):
            return call
        *outer, rows, channels = output
        weight, within = self._weight(call.args[1], 2), 0
        if weight is not None and halves.pay(self._target, weight, rows):
            return self._product_of_halves(call.args[0], weight, output)
        whole = Vectors.of(self._target, str(call.ty.dtype))
        vectors = whole if weight is None else self._fitting(weight, rows=rows)
        filled, blocks = vectors.filled(rows, -(-channels // vectors.lanes))
        if weight is not None:
            packed = _packed(weight, vectors.lanes, blocks)
        elif self._ragged(call, vectors.lanes, filled):
            packed, within = self._packed_at_run_time(call.args[1], blocks, vectors.lanes), len(outer)
        else:
            return call

        def matmul(x: te.Tensor, w: te.Tensor) -> te.Tensor:
            *_, depth, lanes = (int(d) for d in w.shape)
            k = te.reduce_axis((0, depth), "k")

            def term(*i: Any) -> Any:
                *batch, row, c = i
                if filled > rows:
                    row = tvm.tirx.min(row, rows - 1)  # what is computed from it again is cropped
                return te.sum(x[(*batch, row, k)] * w[(*i[:within], c // lanes, k, c % lanes)], axis=k)

            return cropped(te.compute((*outer, filled, blocks * lanes), term, name="matmul"), output)

        return self._emit(matmul, "matmul", call.args[0], packed)

    def _image_of_halves(self, call: Any, weight: Array, output: tuple[int, ...]) -> Any:
        strides, padding, dilation = geometry(call.attrs)
        places = halves.Places(output, weight.shape[:2], strides, dilation, padding[:2])
        packed = halves.packed_halves(weight, halves.vectors_for(places.sums, output[-1]))

        def convolution(x: te.Tensor, w: te.Tensor) -> te.Tensor:
            return places.convolution(places.halves(x), w)

        return self._emit(convolution, "conv2d_halves", call.args[0], packed)

    def _product_of_halves(self, x: Any, weight: Array, output: tuple[int, ...]) -> Any:
        rows = halves.filled(output[-2])
        packed = halves.packed_halves(weight, halves.vectors_for(rows, output[-1]))

        def matmul(x: te.Tensor, w: te.Tensor) -> te.Tensor:
            return cropped(halves.matmul(halves.halves(x, rows), w), output)

        return self._emit(matmul, "matmul_halves", x, packed)

    def _ragged(self, call: Any, lanes: int, filled: int) -> bool:
        """Whether a product of two tensors has no good tiles, and enough rows share what would be packed."""
        left, right = (static_shape(a.ty) or () for a in call.args)
        if str(call.ty.dtype) not in _FLOATS or left[:-2] != right[:-2] or len(right) < 2:
            return False
        uneven = right[-1] % lanes > 0 or filled > left[-2]
        return uneven and _LEAST_SHARE * right[-1] >= lanes and left[-2] >= _SHARED

    def _packed_at_run_time(self, tensor: Any, blocks: int, lanes: int) -> Any:
        *outer, depth, channels = static_shape(tensor.ty) or ()

        def pack(x: te.Tensor) -> te.Tensor:
            def element(*i: Any) -> Any:
                *batch, block, k, lane = i
                column = block * lanes + lane
                zero = tvm.tirx.const(0, x.dtype)
                return tvm.tirx.if_then_else(column < channels, x[(*batch, k, column)], zero)

            return te.compute((*outer, blocks, depth, lanes), element, name="packed")

        return self.builder_.emit(self.builder_.call_te(pack, tensor, primfunc_name_hint="pack"))

    def _weight(self, expr: Any, rank: int) -> Array | None:
        """A constant; a matrix only if it has enough columns for vectors of them to pay."""
        value = constant(self._bound(expr))
        if value is not None and value.ndim > rank == 2:  # PyTorch repeats a matrix for each of a batch
            value = _unrepeated(value)
        if value is None or value.ndim != rank or str(value.dtype) not in _FLOATS:
            return None
        few = _LEAST_SHARE * value.shape[-1] < self._vectors(value).lanes
        return None if few and rank == 2 else value

    def _whole(self, x: Any) -> tuple[Any, range] | None:
        """The tensor that a tensor is some channels of, outer dimensions merged alike, and which they are."""
        call = self._bound(x)
        shape, name = shape_of(x), operator_of(call)
        if name == "relax.reshape" and shape[-1:] == shape_of(call.args[0])[-1:]:
            if (found := self._whole(call.args[0])) is None:
                return None
            whole, channels = found
            merged = (*shape[:-1], shape_of(whole)[-1])
            return self.builder_.emit(relax.op.reshape(whole, merged)), channels
        begins = slice_of(call) if name == "relax.strided_slice" else None
        if begins is None or list(begins) != [len(shape) - 1]:
            return None
        (begin,) = begins.values()
        return call.args[0], range(begin, begin + shape[-1])

    def _vectors(self, weight: Array) -> Vectors:
        return Vectors.of(self._target, str(weight.dtype))

    def _fitting(self, weight: Array, groups: int = 1, rows: int = 1, others: int = 1) -> Vectors:
        """Vectors of the width that wastes least on empty lanes, and on zeros between groups.

        Of half the width only where there is less to compute: chosen for better tiles they are slower than
        whole ones (192 to 176 channels at 28x28 0.92 as fast).

        Args:
            rows: As of ``Vectors.filled``; so are ``others``.
        """
        own = weight.shape[-1] // groups

        def cost(vectors: Vectors) -> tuple[int, float]:
            joined = _joined(groups, own, vectors.lanes)
            blocks = -(-joined * own // vectors.lanes)
            work = groups * blocks * vectors.lanes  # for each term of a group; joined, all have all terms
            return work, work * vectors.price(rows, blocks if joined == groups else 1, others)

        whole, *narrow = self._vectors(weight).widths(rows * others)
        if not narrow:
            return whole
        (work, time), (less, faster) = cost(whole), cost(narrow[0])
        return narrow[0] if less < work and faster < _NARROW_GAIN * time else whole

    def _emit(self, function: Any, name: str, x: Any, packed: Any) -> Any:
        attributes = {"op_pattern": FUSABLE}
        if (found := self._whole(x)) is not None:
            x, channels = found
            function, name = _of_part(function, channels), name + _OF_PART
        if isinstance(packed, np.ndarray):
            packed = relax.const(packed, str(packed.dtype))  # by default, doubles would become singles
        return self.builder_.call_te(function, x, packed, primfunc_name_hint=name, primfunc_attrs=attributes)


def _of_part(function: Any, channels: range) -> Any:
    """The function of a tensor, as one of a tensor that has these channels among others."""

    def of_whole(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        shape = (*x.shape[:-1], len(channels))
        part = te.compute(shape, lambda *i: x(*i[:-1], i[-1] + channels.start), name=_PART)
        return function(part, w)

    return of_whole


def _of_planes(function: Any) -> Any:
    """The function of an image, as one of an image with its channels first."""

    def of_image(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        images, channels, *extents = x.shape
        shape = (images, *extents, channels)
        return function(te.compute(shape, lambda b, *at: x(b, at[-1], *at[:-1]), name=_IMAGE), w)

    return of_image


def _packed(weight: Array, lanes: int, blocks: int = 1) -> Array:
    """Output channels last, shape [..., channels], to [blocks, ..., lanes], at least so many blocks."""
    more = max(-weight.shape[-1] % lanes, blocks * lanes - weight.shape[-1])
    filled = np.pad(weight, [(0, 0)] * (weight.ndim - 1) + [(0, more)])
    blocked = filled.reshape(*weight.shape[:-1], -1, lanes)
    return np.ascontiguousarray(np.moveaxis(blocked, -2, 0))


def _unrepeated(value: Array) -> Array:
    """The matrix that an array holds over and over; the array where its matrices differ."""
    matrices = value.reshape(-1, *value.shape[-2:])
    return matrices[0] if (matrices[1:] == matrices[0]).all() else value


def _is_empty(call: Any) -> bool:
    """Whether there is nothing to multiply or to put the sums in."""
    return any(0 in shape_of(tensor) for tensor in (call, *call.args))


def _same_dtype(call: Any) -> bool:
    """Whether the result is of fixed shape and of the weights' dtype."""
    return static_shape(call.ty) is not None and str(call.ty.dtype) == str(call.args[1].ty.dtype)


def _joined(groups: int, own: int, lanes: int) -> int:
    """How many groups make whole vectors of their output channels; all, if no fewer do."""
    return next((n for n in range(1, groups) if groups % n == 0 and n * own % lanes == 0), groups)


def _merged(weight: Array, groups: int, lanes: int) -> tuple[Array, int]:
    """Weights of groups joined until their output channels are whole vectors, zero where groups differ.

    Args:
        weight: Shape [..., inputs of a group, outputs].

    Returns:
        The weights and the number of groups that there are now.
    """
    *window, terms, outputs = weight.shape
    own = outputs // groups
    joined = _joined(groups, own, lanes)
    wide = np.zeros((*window, joined, terms, groups // joined, joined, own), weight.dtype)
    narrow = weight.reshape(*window, terms, groups // joined, joined, own)
    for n in range(joined):
        wide[..., n, :, :, n, :] = narrow[..., n, :]
    return wide.reshape(*window, joined * terms, outputs), groups // joined


def pack_weights(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Packs the constant weights of convolutions and matrix products in ``main``."""
    packed = rewritten(_Packer(module, target), module)
    read_in_place(packed, _OF_PART, lambda block: block == _PART)
    read_in_place(packed, _OF_PLANES, lambda block: block == _IMAGE)
    return relax.transform.DeadCodeElimination()(packed)
