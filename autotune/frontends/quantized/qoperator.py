"""ONNX's operators on bytes (``QLinearConv`` and its kin) as what they stand for.

Each is an operator on numbers between conversions, by its own definition in the ONNX standard and in ONNX
Runtime's list of contributed operators. Written so (the QDQ form), there is one form of quantized model from
here on.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

_ACTIVATIONS = {
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSigmoid": "Sigmoid",
    "QLinearSoftmax": "Softmax",
}
_PAIRS = {"QLinearAdd": "Add", "QLinearMatMul": "MatMul", "QLinearMul": "Mul"}
_OWN = {"channels_last", "opset"}  # attributes that ONNX's operators do not have


class _Writer:
    """Nodes that take the place of one.

    Attributes:
        node: The one.
        nodes: So far.
        constants: That they need besides.
    """

    def __init__(self, node: onnx.NodeProto, constants: dict[str, Any]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.node, self._known = node, constants

    def numbers(self, about: Sequence[str], axis: int = 1) -> str:
        """Of bytes, their scale and zero."""
        name = f"{self.node.output[0]}.numbers{len(self.nodes)}"
        self.nodes.append(helper.make_node("DequantizeLinear", [a for a in about if a], [name], axis=axis))
        return name

    def bias(self, name: str, *scales: str) -> str:
        """Numbers of a sum's 32-bit integers."""
        both = [numpy_helper.to_array(self._known[s]) for s in scales]
        scale, zero = f"{self.node.output[0]}.scale", f"{self.node.output[0]}.zero"
        product = np.asarray(both[0] * both[1], np.float32).squeeze()
        self.constants += [
            numpy_helper.from_array(product, scale),
            numpy_helper.from_array(np.zeros(product.shape, np.int32), zero),
        ]
        return self.numbers([name, scale, zero], axis=0)

    def end(self, operator: str, inputs: Sequence[str], about: Sequence[str]) -> None:
        """The operator itself; with a scale and a zero, its result as bytes."""
        output = self.node.output[0]
        result = f"{output}.result" if about else output
        kept = {a.name: helper.get_attribute_value(a) for a in self.node.attribute if a.name not in _OWN}
        self.nodes.append(helper.make_node(operator, list(inputs), [result], **kept))
        if about:
            self.nodes.append(helper.make_node("QuantizeLinear", [result, *about], [output]))


def _convolution(to: _Writer, given: list[str]) -> None:
    x, w = to.numbers(given[:3]), to.numbers(given[3:6], axis=0)
    bias = [to.bias(given[8], given[1], given[4])] if len(given) > 8 else []
    to.end("Conv", [x, w, *bias], given[6:8])


def _gemm(to: _Writer, given: list[str]) -> None:
    bias = [to.bias(given[6], given[1], given[4])] if len(given) > 6 and given[6] else []
    to.end("Gemm", [to.numbers(given[:3]), to.numbers(given[3:6], axis=0), *bias], given[7:9])


def _concatenation(to: _Writer, given: list[str]) -> None:
    parts = [to.numbers(given[n : n + 3]) for n in range(2, len(given), 3)]
    to.end("Concat", parts, given[:2])


def _pair(to: _Writer, given: list[str]) -> None:
    to.end(_PAIRS[to.node.op_type], [to.numbers(given[:3]), to.numbers(given[3:6])], given[6:8])


def _activation(to: _Writer, given: list[str]) -> None:
    to.end(_ACTIVATIONS[to.node.op_type], [to.numbers(given[:3])], given[3:5])


_RULES: dict[str, Callable[[_Writer, list[str]], None]] = {
    "QLinearConv": _convolution,
    "QGemm": _gemm,
    "QLinearConcat": _concatenation,
    **dict.fromkeys(_PAIRS, _pair),
    **dict.fromkeys(_ACTIVATIONS, _activation),
}


def to_conversions(model: onnx.ModelProto) -> None:
    """Writes a model's operators on bytes as operators on numbers, in place; others stay as they are."""
    known = {w.name: w for w in model.graph.initializer}
    nodes = list(model.graph.node)
    if not any(node.op_type in _RULES for node in nodes):
        return
    del model.graph.node[:]
    model.graph.node.extend(new for node in nodes for new in _rewritten(node, known, model))


def _rewritten(
    node: onnx.NodeProto, known: dict[str, Any], model: onnx.ModelProto
) -> Iterator[onnx.NodeProto]:
    rule = _RULES.get(node.op_type)
    if rule is None or any(a.name == "channels_last" and a.i for a in node.attribute):
        yield node
        return
    to = _Writer(node, known)
    rule(to, list(node.input))
    model.graph.initializer.extend(to.constants)
    yield from to.nodes
