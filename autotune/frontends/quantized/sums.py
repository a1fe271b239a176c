"""Convolutions and products of bytes, with their weights packed for the instructions that add them up."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, te
from tvm.target import Target

from autotune.frontends.fold import Array, static_shape
from autotune.frontends.fusion import FUSABLE, OPAQUE
from autotune.frontends.geometry import cropped, geometry
from autotune.frontends.quantized.held import DynamicProduct, IntegerSum, Lookup
from autotune.frontends.quantized.kernels import (
    SideBySide,
    channelwise,
    depthwise_sums,
    integer_sums,
    packed_bytes,
    scaled,
    side_by_side_sums,
    whole_terms,
    without_zero,
)
from search import amx, dots
from search.vectors import Vectors

_FEW_CHANNELS = 16  # of a window that lies side by side: more fill the instructions' terms alone


@dataclass(frozen=True)
class SumsOfBytes:
    """Writes them out for a target.

    Attributes:
        lookup: What a variable stands for.
        builder: Told what is computed.
    """

    target: Target
    lookup: Lookup
    builder: relax.BlockBuilder

    def written(self, call: Any) -> Any:
        """What computes a call; None where it is no such sum, or the target has no instruction for it."""
        if len(output := static_shape(call.ty) or ()) < 2:
            return None
        sums = IntegerSum.of(call, self.lookup, last=True)
        product = sums is not None and call.op.name == "relax.matmul"
        if (
            sums
            and not product
            and (call.attrs.data_layout[-1] != "C" or call.attrs.kernel_layout[-1] != "O")
        ):
            return None
        if sums and sums.depthwise:
            return self._depthwise(sums, output, call.attrs)
        if not self._vectors.dots:
            return None
        if sums:
            return self._product(sums, output) if product else self._convolution(sums, output, call.attrs)
        found = DynamicProduct.of(call, self.lookup)
        return None if found is None else self._dynamic_product(found, output)

    @property
    def _vectors(self) -> Vectors:
        return Vectors.of(self.target, "int32")

    def _product(self, sums: IntegerSum, output: tuple[int, ...]) -> Any:
        weights = sums.weights.values
        extents, after = self._filled(output, len(weights), 1)

        def product(x: te.Tensor, w: te.Tensor) -> te.Tensor:
            filled = whole_terms(x, [0] * len(output), after, int(sums.x.zero), dots.TERMS)
            return integer_sums(filled, w, (), (), extents, output[-2] + after[-2])

        return self._emit("matmul_bytes", product, sums, self._packed(weights, extents), output)

    def _convolution(self, sums: IntegerSum, output: tuple[int, ...], attrs: Any) -> Any:
        weights, (strides, padding, dilation) = sums.weights.values, geometry(attrs)
        *window, inputs, _ = weights.shape
        spatial, zero = len(window), int(sums.x.zero)
        if spatial == 2 and inputs < _FEW_CHANNELS and dilation[-1] == 1:
            return self._side_by_side(sums, output, attrs)
        extents, after = self._filled(output, inputs, strides[-1])
        before = [0, *padding[:spatial], 0]
        after = [a + more for a, more in zip(after, (0, *padding[spatial:], 0), strict=True)]
        known = extents[-2] if after[-2] > padding[-1] else output[-2]

        def convolution(x: te.Tensor, w: te.Tensor) -> te.Tensor:
            padded = whole_terms(x, before, after, zero, dots.TERMS)
            return integer_sums(padded, w, strides, dilation, extents, known)

        packed = self._packed(weights, extents)
        return self._emit(f"conv{spatial}d_bytes", convolution, sums, packed, output)

    def _side_by_side(self, sums: IntegerSum, output: tuple[int, ...], attrs: Any) -> Any:
        """Of few channels: a window's columns, with their channels, are the terms of one sum."""
        (down, across), (top, left, bottom, _), (apart, _) = geometry(attrs)
        height, width, inputs, outputs = sums.weights.values.shape
        extents, _ = self._filled(output, width * inputs, 1)
        packed = self._packed(sums.weights.values.reshape(height, width * inputs, outputs), extents)
        x = self._transposed(sums)
        images, rows, columns, _ = static_shape(x.ty) or ()
        needed = (extents[-2] - 1) * across * inputs + dots.TERMS * packed.shape[-3]
        image = SideBySide(columns * inputs, left * inputs, needed, top, bottom)
        flat = self.builder.emit(relax.op.reshape(x, [images, rows, columns * inputs]))
        laid_out = self._call("side_by_side", image.laid_out, flat, int(sums.x.zero), pattern=OPAQUE)
        bytes_ = self.builder.emit(relax.op.reshape(self.builder.emit(laid_out), [images, -1]))

        def convolution(x: te.Tensor, w: te.Tensor) -> te.Tensor:
            strides = down * image.row, across * inputs
            return side_by_side_sums(x, w, image.first, apart * image.row, strides, extents)

        return self._emit("conv2d_bytes", convolution, sums, packed, output, bytes_)

    def _depthwise(self, sums: IntegerSum, output: tuple[int, ...], attrs: Any) -> Any:
        strides, padding, dilation = geometry(attrs)
        before, after = [0, *padding[:2], 0], [0, *padding[2:], 0]

        def convolution(x: te.Tensor, w: te.Tensor) -> te.Tensor:
            padded = whole_terms(x, before, after, int(sums.x.zero), 1)
            return depthwise_sums(padded, w, strides, dilation, output)

        weights = sums.weights.values.astype(np.float32)
        return self._emit("conv2d_bytes", convolution, sums, weights, output)

    def _dynamic_product(self, found: DynamicProduct, output: tuple[int, ...]) -> Any:
        extents, after = self._filled(output, len(found.weights), 1)

        def product(x: te.Tensor, w: te.Tensor, total: te.Tensor, zero: te.Tensor) -> te.Tensor:
            filled = whole_terms(x, [0] * len(output), after, 0, dots.TERMS)
            sums = integer_sums(filled, w, (), (), extents, output[-2] + after[-2])
            return cropped(without_zero(sums, total, zero), output)

        total = channelwise(found.weights.astype(np.int32).sum(axis=0, dtype=np.int32), extents[-1])
        packed = relax.const(self._packed(found.weights, extents))
        return self._call("matmul_bytes", product, found.x, packed, total, found.zero)

    def _filled(self, output: tuple[int, ...], inputs: int, stride: int) -> tuple[tuple[int, ...], list[int]]:
        """Extents of the sums that make whole tiles, and how much is added after the input's dimensions.

        Where nothing is, what the added sums are computed from is there already: they are cropped anyway.
        """
        vectors, after = self._vectors, [0] * len(output)
        others = math.prod(output[-3:-2]) if len(output) > 2 else 1
        columns, blocks = vectors.filled(output[-2], -(-output[-1] // vectors.lanes), others)
        if vectors.tiles and amx.pays(output[-2], -(-inputs // dots.TERMS)):
            columns = amx.filled(output[-2])
            after[-2] = (columns - output[-2]) * stride
        return (*output[:-2], columns, blocks * vectors.lanes), after

    def _packed(self, weights: Array, extents: tuple[int, ...]) -> Array:
        lanes = self._vectors.lanes
        return packed_bytes(weights, lanes, extents[-1] // lanes)

    def _transposed(self, sums: IntegerSum) -> Any:
        """What is added up, its dimensions where they belong."""
        if sums.x.axes is None:
            return sums.x.values
        return self.builder.emit(relax.op.permute_dims(sums.x.values, list(sums.x.axes)))

    def _emit(
        self,
        name: str,
        add_up: Callable[[te.Tensor, te.Tensor], te.Tensor],
        sums: IntegerSum,
        weights: Array,
        output: tuple[int, ...],
        x: Any = None,
    ) -> Any:
        """Sums that are scaled to the numbers they stand for.

        Args:
            x: What is added up, if it is not as ``sums`` has it.
        """

        def numbers(x: te.Tensor, w: te.Tensor, offset: te.Tensor, scale: te.Tensor) -> te.Tensor:
            return cropped(scaled(add_up(x, w), offset, scale), output)

        channels = output[-1] if sums.depthwise else weights.shape[0] * self._vectors.lanes
        constants = (channelwise(v, channels) for v in (sums.offset, sums.scale))
        x = self._transposed(sums) if x is None else x
        return self._call(name, numbers, x, relax.const(weights), *constants)

    def _call(
        self, name: str, function: Callable[..., te.Tensor], *arguments: Any, pattern: int = FUSABLE
    ) -> Any:
        attributes = {"op_pattern": pattern}
        return self.builder.call_te(function, *arguments, primfunc_name_hint=name, primfunc_attrs=attributes)
