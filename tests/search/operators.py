"""Kernels as networks have them, each with what it should compute, in NumPy and double precision."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import te, tirx, topi
from tvm.target import Target

from autotune.frontends.quantized.kernels import side_by_side_sums
from autotune.measure.check import poisoned_output
from autotune.target import host_target
from search.compiler import compile_kernel
from search.problem import TensorSpec, Workload
from search.space import Draft, Space
from search.spaces.tir import module_of, workload_from_tir
from search.spaces.trace import apply_trace

Array = NDArray[Any]


@dataclass(frozen=True)
class Operator:
    """A kernel of one output.

    Attributes:
        expected: What it makes of its inputs, all of them doubles.
    """

    workload: Workload
    expected: Callable[..., Array]

    def inputs(self, seed: int = 0) -> list[Array]:
        rng = np.random.default_rng(seed)
        return [rng.standard_normal(a.shape).astype(a.dtype) for a in self.workload.args[:-1]]


def scheduled(space: Space, draft: Draft) -> tvm.IRModule:
    return apply_trace(module_of(space.workload), space.realize(draft, np.random.default_rng(0)).trace)


def run(
    module: tvm.IRModule, output: TensorSpec, inputs: Sequence[Array], target: Target | None = None
) -> Array:
    """What a kernel makes of its inputs on this machine."""
    tensors = [tvm.runtime.tensor(a) for a in (*inputs, poisoned_output(output))]
    compile_kernel(module, target or host_target(2))(*tensors)
    return tensors[-1].numpy()  # type: ignore[no-any-return]


def operator(inputs: Sequence[te.Tensor], output: te.Tensor, expected: Callable[..., Array]) -> Operator:
    return Operator(workload_from_tir(te.create_prim_func([*inputs, output]), output.op.name), expected)


def tensor(name: str, *shape: int, dtype: str = "float32") -> te.Tensor:
    return te.placeholder(shape, dtype, name=name)


def unpacked(w: Array) -> Array:
    """From ``[blocks, ..., lanes]`` to ``[..., channels]``."""
    return np.moveaxis(w, 0, -2).reshape(*w.shape[1:-1], -1)


@dataclass(frozen=True)
class Tail:
    """What follows a sum, element by element; ``crop`` channels are left of it."""

    bias: bool = False
    residual: bool = False
    relu: bool = False
    crop: int | None = None

    def of(self, sums: te.Tensor) -> tuple[list[te.Tensor], te.Tensor]:
        more, x, dtype = list[te.Tensor](), sums, sums.dtype
        if self.crop not in (None, int(x.shape[-1])):
            x = te.compute((*x.shape[:-1], self.crop), lambda *i: sums(*i), name="crop")
        if self.bias:
            more.append(tensor("bias", int(x.shape[-1]), dtype=dtype))
            x = topi.add(x, more[-1])
        if self.residual:
            more.append(tensor("residual", *map(int, x.shape), dtype=dtype))
            x = topi.add(x, more[-1])
        return more, topi.nn.relu(x) if self.relu else x

    def expected(self, sums: Array, more: Sequence[Array]) -> Array:
        x = sums[..., : self.crop]
        for array in more:
            x = x + array
        return np.where(x > 0, x, 0) if self.relu else x


def windows(x: Array, size: int, stride: int, dilation: int, padding: int, fill: float = 0.0) -> Array:
    """Shape [b, y, x, size, size, c]: what each place of the output sees of an image."""
    x = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)], constant_values=fill)
    reach = dilation * (size - 1) + 1
    seen = np.lib.stride_tricks.sliding_window_view(x, (reach, reach), (1, 2))
    return np.moveaxis(seen[:, ::stride, ::stride, :, ::dilation, ::dilation], 3, -1)


def convolution(
    batch: int = 1, height: int = 8, width: int = 8, depth: int = 16, blocks: int = 2, lanes: int = 16,
    size: int = 3, stride: int = 1, dilation: int = 1, padding: int = 1, tail: Tail = Tail(),
    dtype: str = "float32",
) -> Operator:  # fmt: skip
    """Channels last, the weights packed: shape [blocks, size, size, depth, lanes]."""
    x = tensor("x", batch, height, width, depth, dtype=dtype)
    w = tensor("w", blocks, size, size, depth, lanes, dtype=dtype)
    padded = topi.nn.pad(x, [0, padding, padding, 0], name="padded") if padding else x
    ry, rx, rc = (te.reduce_axis((0, n), name) for n, name in ((size, "ry"), (size, "rx"), (depth, "rc")))
    rows, columns = ((n + 2 * padding - dilation * (size - 1) - 1) // stride + 1 for n in (height, width))
    sums = te.compute(
        (batch, rows, columns, blocks * lanes),
        lambda b, i, j, c: te.sum(
            padded[b, i * stride + ry * dilation, j * stride + rx * dilation, rc]
            * w[c // lanes, ry, rx, rc, c % lanes],
            axis=[ry, rx, rc],
        ),
        name="conv2d",
    )
    more, output = tail.of(sums)

    def expected(x: Array, w: Array, *more: Array) -> Array:
        seen = windows(x, size, stride, dilation, padding)
        return tail.expected(np.einsum("byxhwd,hwdc->byxc", seen, unpacked(w)), more)

    return operator([x, w, *more], output, expected)


def product_of_bytes(rows: int = 8, terms: int = 3, blocks: int = 2, lanes: int = 16) -> Operator:
    """Sums of four products a lane: weights are packed as [blocks, terms, lanes, 4]."""
    x = tensor("x", rows, 4 * terms, dtype="uint8")
    w = tensor("w", blocks, terms, lanes, 4, dtype="int8")
    k, four = te.reduce_axis((0, terms), "k"), te.reduce_axis((0, 4), "four")
    sums = te.compute(
        (rows, blocks * lanes),
        lambda i, c: te.sum(
            x[i, 4 * k + four].astype("int32") * w[c // lanes, k, c % lanes, four].astype("int32"),
            axis=[k, four],
        ),
        name="matmul",
    )

    def expected(x: Array, w: Array) -> Array:
        return x @ w.transpose(1, 3, 0, 2).reshape(4 * terms, -1)

    return operator([x, w], sums, expected)


def convolution_of_bytes(
    height: int = 4, width: int = 8, terms: int = 4, blocks: int = 2,
    size: int = 3, stride: int = 1, padding: int = 1,
) -> Operator:  # fmt: skip
    """As ``product_of_bytes`` of 16 lanes, over a window; then halved, as real numbers."""
    x = tensor("x", 1, height, width, 4 * terms, dtype="uint8")
    w = tensor("w", blocks, size, size, terms, 16, 4, dtype="int8")
    padded = topi.nn.pad(x, [0, padding, padding, 0], pad_value=tirx.const(7, "uint8"), name="padded")
    ry, rx, k, four = (
        te.reduce_axis((0, n), name) for n, name in ((size, "ry"), (size, "rx"), (terms, "k"), (4, "four"))
    )
    rows, columns = ((n + 2 * padding - size) // stride + 1 for n in (height, width))

    def term(b: Any, i: Any, j: Any, c: Any) -> Any:
        left = padded[b, i * stride + ry, j * stride + rx, 4 * k + four].astype("int32")
        return te.sum(left * w[c // 16, ry, rx, k, c % 16, four].astype("int32"), axis=[ry, rx, k, four])

    sums = te.compute((1, rows, columns, 16 * blocks), term, name="conv2d")
    halves = te.compute(
        sums.shape, lambda *i: sums(*i).astype("float32") * tirx.const(0.5, "float32"), name="halves"
    )

    def expected(x: Array, w: Array) -> Array:
        around = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=7)
        plain = w.transpose(1, 2, 3, 5, 0, 4).reshape(size, size, 4 * terms, -1)
        total = np.zeros((1, rows, columns, 16 * blocks), x.dtype)
        for i, j in np.ndindex(size, size):
            total += (
                around[:, i : i + stride * rows : stride, j : j + stride * columns : stride][
                    :, :rows, :columns
                ]
                @ plain[i, j]
            )
        return total / 2

    return operator([x, w], halves, expected)


def convolution_side_by_side(
    columns: int = 8, terms: int = 4, blocks: int = 2, size: int = 3, stride: int = 1
) -> Operator:
    """As ``product_of_bytes`` of 16 lanes, of windows whose rows begin ``stride`` bytes apart."""
    row = (columns - 1) * stride + 4 * terms + 3
    x, w = (
        tensor("x", 1, 5 + (4 + size) * row, dtype="uint8"),
        tensor("w", blocks, size, terms, 16, 4, dtype="int8"),
    )
    sums = side_by_side_sums(x, w, 5, row, (row, stride), (1, 4, columns, 16 * blocks))

    def expected(x: Array, w: Array) -> Array:
        first = 5 + row * np.arange(4)[:, None] + stride * np.arange(columns)
        read = first[..., None, None] + row * np.arange(size)[:, None] + np.arange(4 * terms)
        plain = w.transpose(1, 2, 4, 0, 3).reshape(size, 4 * terms, -1)
        return np.einsum("bijyk,ykc->bijc", x[:, read], plain)

    return operator([x, w], sums, expected)


def depthwise(
    height: int = 8, width: int = 8, channels: int = 16, size: int = 3, stride: int = 1, padding: int = 1,
    tail: Tail = Tail(), dilation: int = 1,
) -> Operator:  # fmt: skip
    x, w = tensor("x", 1, height, width, channels), tensor("w", size, size, channels)
    padded = topi.nn.pad(x, [0, padding, padding, 0], name="padded") if padding else x
    ry, rx = te.reduce_axis((0, size), "ry"), te.reduce_axis((0, size), "rx")
    rows, columns = ((n + 2 * padding - dilation * (size - 1) - 1) // stride + 1 for n in (height, width))
    sums = te.compute(
        (1, rows, columns, channels),
        lambda b, i, j, c: te.sum(
            padded[b, i * stride + ry * dilation, j * stride + rx * dilation, c] * w[ry, rx, c],
            axis=[ry, rx],
        ),
        name="depthwise",
    )
    more, output = tail.of(sums)

    def expected(x: Array, w: Array, *more: Array) -> Array:
        seen = windows(x, size, stride, dilation, padding)
        return tail.expected(np.einsum("byxhwc,hwc->byxc", seen, w), more)

    return operator([x, w, *more], output, expected)


def product(
    rows: Sequence[int] = (32,), depth: int = 32, channels: int = 32, lanes: int | None = None,
    tail: Tail = Tail(), dtype: str = "float32",
) -> Operator:  # fmt: skip
    """A matrix product; the right operand packed where ``lanes`` are given."""
    x, k = tensor("x", *rows, depth, dtype=dtype), te.reduce_axis((0, depth), "k")
    if lanes is None:
        w, width = tensor("w", depth, channels, dtype=dtype), channels
    else:
        blocks = -(-channels // lanes)
        w, width = tensor("w", blocks, depth, lanes, dtype=dtype), blocks * lanes

    def weight(c: Any) -> Any:
        return w[k, c] if lanes is None else w[c // lanes, k, c % lanes]

    sums = te.compute(
        (*rows, width), lambda *i: te.sum(x[(*i[:-1], k)] * weight(i[-1]), axis=k), name="matmul"
    )
    more, output = tail.of(sums)

    def expected(x: Array, w: Array, *more: Array) -> Array:
        return tail.expected(x @ (w if lanes is None else unpacked(w)), more)

    return operator([x, w, *more], output, expected)


def batched(batch: int = 2, rows: int = 8, depth: int = 16, columns: int = 16) -> Operator:
    """Both operands are given, as in attention."""
    x, y = tensor("x", batch, rows, depth), tensor("y", batch, depth, columns)
    k = te.reduce_axis((0, depth), "k")
    sums = te.compute(
        (batch, rows, columns), lambda b, i, j: te.sum(x[b, i, k] * y[b, k, j], axis=k), name="batched"
    )
    return operator([x, y], sums, np.matmul)


def max_pool(
    height: int = 8, width: int = 8, channels: int = 16, size: int = 3, stride: int = 2, padding: int = 1
) -> Operator:
    x = tensor("x", 1, height, width, channels)
    pads = [padding] * 4
    output = topi.nn.pool2d(x, [size, size], [stride, stride], [1, 1], pads, "max", layout="NHWC")

    def expected(x: Array) -> Array:
        seen: Array = windows(x, size, stride, 1, padding, -math.inf).max((3, 4))
        return seen

    return operator([x], output, expected)


def total(height: int = 8, channels: int = 16) -> Operator:
    """A sum of all elements."""
    x = tensor("x", height, channels)
    return operator([x], topi.sum(x), lambda x: x.sum())


def mean(height: int = 8, width: int = 8, channels: int = 16) -> Operator:
    x = tensor("x", 1, height, width, channels)
    total = topi.sum(x, [1, 2])
    output = te.compute((1, channels), lambda *i: total(*i) / (height * width), name="mean")
    return operator([x], output, lambda x: x.mean((1, 2)))


def concatenate(height: int = 8, width: int = 8, left: int = 16, right: int = 8) -> Operator:
    x, y = tensor("x", 1, height, width, left), tensor("y", 1, height, width, right)
    return operator([x, y], topi.concatenate([x, y], 3), lambda x, y: np.concatenate([x, y], 3))


def transpose(height: int = 8, width: int = 8, channels: int = 16) -> Operator:
    x = tensor("x", 1, height, width, channels)
    return operator([x], topi.transpose(x, [0, 3, 1, 2]), lambda x: x.transpose(0, 3, 1, 2))


def softmax(rows: int = 8, columns: int = 16) -> Operator:
    x = tensor("x", rows, columns)

    def expected(x: Array) -> Array:
        e = np.exp(x - x.max(-1, keepdims=True))
        shares: Array = e / e.sum(-1, keepdims=True)
        return shares

    return operator([x], topi.nn.softmax(x), expected)


def layer_norm(rows: int = 8, columns: int = 16) -> Operator:
    x, g, b = tensor("x", rows, columns), tensor("g", columns), tensor("b", columns)

    def expected(x: Array, g: Array, b: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * g + b

    return operator([x, g, b], topi.nn.layer_norm(x, g, b, [1], 1e-5), expected)


def relu(*shape: int) -> Operator:
    x = tensor("x", *shape)
    return operator([x], topi.nn.relu(x), lambda x: np.where(x > 0, x, 0))
