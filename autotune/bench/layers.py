"""The layers of a model that vendors have kernels for: its convolutions and matrix products."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from tvm import relax

from autotune.frontends.fold import Array, constant, fold_constants, static_shape
from autotune.frontends.model import ModelInput, SourceModel
from search.problem import TensorSpec


class Numbers(NamedTuple):
    """Of a layer: ``w`` is OIHW, [k, n], or the second input; ``last`` is ``x`` with its channels last."""

    x: Array
    w: Array
    bias: Array
    last: Array


@dataclass(frozen=True)
class Layer:
    """A convolution (NCHW, OIHW), which has strides, or a matrix product; without weights, of two inputs."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    out: tuple[int, ...]
    weights: bool
    strides: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()  # top, left, bottom, right
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @classmethod
    def of(cls, call: Any) -> "Layer":
        x, w, out = (static_shape(e.ty) or () for e in (*call.args, call))
        attrs, weights = call.attrs, constant(call.args[1]) is not None
        if call.op.name == "relax.matmul":
            return cls(x, w, out, weights)
        strides, padding, dilation = (
            tuple(int(n) for n in s) for s in (attrs.strides, attrs.padding, attrs.dilation)
        )
        return cls(x, w, out, weights, strides, padding, dilation, int(attrs.groups))

    @property
    def gflop(self) -> float:
        """Of its sum alone."""
        return 2e-9 * math.prod(self.out) * (math.prod(self.w[1:]) if self.strides else self.w[-2])

    def least(self) -> "Layer":
        """One of the same kind with next to no work."""
        if self.strides:
            one = (1, 16, 1, 1)
            return Layer(one, (16, *one[1:]), one, True, (1, 1), (0, 0, 0, 0), (1, 1))
        outer = () if self.weights else (1,)
        return Layer((*outer, 1, 16), (*outer, 16, 16), (*outer, 1, 16), self.weights)

    def numbers(self) -> Numbers:
        bias = (1, self.w[0], 1, 1) if self.strides else self.w[-1:]
        torch.manual_seed(0)
        x, w, b = (torch.randn(s) for s in (self.x, self.w, bias))  # unlike NumPy's, they begin cache lines
        last = x.permute(0, 2, 3, 1).contiguous() if self.strides else x
        return Numbers(*(t.numpy() for t in (x, w, b, last)))

    def __str__(self) -> str:
        if not self.strides:
            return " . ".join("x".join(str(n) for n in shape) for shape in (self.x, self.w))
        stride = f"/{self.strides[0]}" if max(self.strides) > 1 else ""
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        dilated = f", dilated {self.dilation[0]}" if max(self.dilation) > 1 else ""
        channels, height, width = self.x[1:]
        size = f"{self.w[2]}x{self.w[3]}{stride}"
        return f"{height}x{width}x{channels} {size} to {self.w[0]}{groups}{dilated}"


def calls_in(function: Any, *names: str) -> list[Any]:
    """The calls of these operators."""
    found: list[Any] = []

    def visit(node: relax.Expr) -> None:
        if getattr(getattr(node, "op", None), "name", "") in names:
            found.append(node)

    relax.analysis.post_order_visit(function, visit)
    return found


def layers_of(source: SourceModel) -> Counter[Layer]:
    """The distinct ones of a model that can be compared, with how often each occurs."""
    module = fold_constants(relax.transform.DecomposeOpsForInference()(source.module))
    calls = calls_in(module["main"], "relax.nn.conv2d", "relax.matmul")
    return Counter(Layer.of(call) for call in calls if _comparable(call))


def _comparable(call: Any) -> bool:
    """Whether it is of float32, and a convolution has constant weights."""
    types = [e.ty for e in (*call.args, call)]
    weights = constant(call.args[1])
    plain = all(str(t.dtype) == "float32" and len(static_shape(t) or ()) > 1 for t in types)
    if call.op.name == "relax.matmul":
        return plain and (weights is None or weights.ndim == 2)
    return plain and weights is not None


def source_of(layer: Layer, numbers: Numbers) -> SourceModel:
    """A model of this layer alone."""
    shapes = {"x": layer.x} if layer.weights else {"x": layer.x, "w": layer.w}
    inputs = tuple(ModelInput(n, TensorSpec(s, "float32")) for n, s in shapes.items())
    x, *second = variables = [relax.Var(n, relax.TensorType(s, "float32")) for n, s in shapes.items()]
    w = second[0] if second else relax.const(numbers.w)
    builder = relax.BlockBuilder()
    with builder.function("main", variables):
        with builder.dataflow():
            if layer.strides:
                conv = relax.op.nn.conv2d
                result = conv(x, w, layer.strides, layer.padding, layer.dilation, layer.groups)
            else:
                result = relax.op.matmul(x, w)
            if layer.weights:
                biased = relax.op.add(builder.emit(result), relax.const(numbers.bias))
                result = relax.op.nn.relu(builder.emit(biased))
            output = builder.emit_output(result)
        builder.emit_func_output(output)
    return SourceModel(str(layer), "benchmark", builder.get(), inputs, lambda _: [], "none")
