"""Models quantized to bytes compute what ONNX says they do, in integers where the target can."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import runnable
from networks import save_onnx
from numpy.typing import NDArray
from onnx import helper
from running import outputs_of
from tvm.target import Target

from autotune.frontends import load_model
from autotune.frontends.graph import Model, lower
from autotune.frontends.quantized.passes import is_quantized
from autotune.measure.check import moved_by_steps
from autotune.target import host_target
from search.spaces import first_guess
from search.vectors import Vectors

Array = NDArray[Any]
STEP = 0.05
KINDS = {"u8": np.uint8, "i8": np.int8}
CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


TARGETS = runnable("x86-64-v2", '{"kind": "llvm", "mcpu": "haswell", "mattr": ["+avxvnni"]}')
WITH_DOTS = [t for t in TARGETS if Vectors.of(t, "int32").dots]


class Graph:
    """A model of ONNX in the making, in which each tensor is rounded to bytes."""

    def __init__(self, kind: str, rng: np.random.Generator) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Any] = {}
        self._kind, self._rng = kind, rng

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def hold(self, value: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(value)
        return name

    def rounded(self, x: str, scale: float = STEP, zero: int = 3) -> str:
        dtype = KINDS[self._kind]
        about = [self.hold(np.float32(scale)), self.hold(dtype(zero))]
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *about), *about)

    def constant(self, *shape: int, axis: int | None) -> str:
        """Weights as signed bytes, scaled along an axis or as a whole."""
        scale = self._rng.uniform(0.01, 0.03, () if axis is None else shape[axis]).astype(np.float32)
        about = [self.hold(scale), self.hold(np.zeros(scale.shape, np.int8))]
        values = self.hold(self._rng.integers(-128, 128, shape).astype(np.int8))
        return self.add("DequantizeLinear", values, *about, axis=axis or 0)

    def save(self, path: Path, output: str, shape: list[int]) -> Path:
        return save_onnx(path, self.nodes, {"x": list(shape)}, output, **self.weights)


def convolution(
    path: Path, rng: np.random.Generator, kind: str, inputs: int, outputs: int, size: int, stride: int,
    padding: int, dilation: int, depthwise: bool, along: bool,
) -> Path:  # fmt: skip
    g = Graph(kind, rng)
    outputs = inputs if depthwise else outputs
    weight = g.constant(outputs, 1 if depthwise else inputs, size, size, axis=0 if along else None)
    bias = g.hold(rng.standard_normal(outputs).astype(np.float32))
    x = g.add("Conv", g.rounded("x"), weight, bias, strides=[stride] * 2, pads=[padding] * 4,
              dilations=[dilation] * 2, group=inputs if depthwise else 1)  # fmt: skip
    return g.save(path, g.rounded(g.add("Relu", x), 0.4, -7 if kind == "i8" else 1), [1, inputs, 9, 11])


def product(path: Path, rng: np.random.Generator, kind: str, rows: int, inputs: int, outputs: int) -> Path:
    g = Graph(kind, rng)
    x = g.add("MatMul", g.rounded("x"), g.constant(inputs, outputs, axis=1))
    x = g.add("Add", x, g.hold(rng.standard_normal(outputs).astype(np.float32)))
    return g.save(path, g.rounded(x, 0.3, 0), [rows, inputs])


def residual(path: Path, kind: str, scales: tuple[float, float] = (0.2, 0.2)) -> Path:
    """Two convolutions of the same shape, a sum of both, and pooling."""
    g = Graph(kind, np.random.default_rng(0))
    x = g.rounded("x")
    first, second = (
        g.rounded(g.add("Relu", g.add("Conv", x, g.constant(16, 16, 3, 3, axis=0), pads=[1] * 4)), scale)
        for scale in scales
    )
    x = g.rounded(g.add("Add", first, second), 0.3)
    return g.save(path, g.rounded(g.add("MaxPool", x, kernel_shape=[2, 2])), [1, 16, 8, 8])


def joined(path: Path, kind: str, scales: tuple[float, float], pooled: bool) -> Path:
    """Two convolutions side by side, joined along the channels."""
    g = Graph(kind, np.random.default_rng(0))
    x = g.rounded("x")
    parts = [
        g.rounded(g.add("Conv", x, g.constant(16, 16, 1, 1, axis=0)), scale, 0 if kind == "i8" else 100)
        for scale in scales
    ]
    x = g.add("Concat", *parts, axis=1)
    if pooled:
        x = g.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    return g.save(path, g.rounded(x, scales[0], 0 if kind == "i8" else 100), [1, 16, 8, 8])


def on_bytes(path: Path, operators: Callable[["Bytes"], str]) -> Path:
    """A model in the other form that ONNX has: operators on bytes."""
    g = Bytes("u8", np.random.default_rng(0))
    return g.save(path, g.add("DequantizeLinear", operators(g), *g.about(0.3)), [1, 16, 8, 8])


class Bytes(Graph):
    """Operators of ONNX and ONNX Runtime that take bytes and give bytes."""

    def about(self, scale: float, zero: int = 5) -> list[str]:
        return [self.hold(np.float32(scale)), self.hold(np.uint8(zero))]

    def input(self) -> list[str]:
        about = self.about(STEP)
        return [self.add("QuantizeLinear", "x", *about), *about]

    def convolution(self, x: list[str], scale: float) -> list[str]:
        scales = self._rng.uniform(0.01, 0.03, 16).astype(np.float32)
        weight = self.hold(self._rng.integers(-128, 128, (16, 16, 1, 1)).astype(np.int8))
        w = [weight, self.hold(scales), self.hold(np.zeros(16, np.int8))]
        bias = self.hold(self._rng.integers(-5000, 5000, 16).astype(np.int32))
        about = self.about(scale)
        return [self.add("QLinearConv", *x, *w, *about, bias), *about]

    def own(self, operator: str, *inputs: str, **attributes: Any) -> str:
        return self.add(operator, *inputs, domain="com.microsoft", **attributes)


def _sum(g: Bytes) -> str:
    x = g.input()
    return g.own("QLinearAdd", *g.convolution(x, 0.2), *g.convolution(x, 0.3), *g.about(0.3))


def _concatenation(g: Bytes) -> str:
    x = g.input()
    return g.own(
        "QLinearConcat", *g.about(0.3), *g.convolution(x, 0.2), *g.convolution(x, 0.3), axis=1
    )  # fmt: skip


def _pool(g: Bytes) -> str:
    return g.own("QLinearGlobalAveragePool", *g.convolution(g.input(), 0.3), *g.about(0.3), channels_last=0)


def _leaky(g: Bytes) -> str:
    return g.own("QLinearLeakyRelu", *g.convolution(g.input(), 0.2), *g.about(0.3), alpha=0.1)


def _classifier(g: Bytes) -> str:
    pooled = g.own("QLinearGlobalAveragePool", *g.input(), *g.about(STEP), channels_last=0)
    w = [g.hold(g._rng.integers(-128, 128, (16, 10)).astype(np.int8)), g.hold(np.float32(0.02)),
         g.hold(np.int8(0))]  # fmt: skip
    bias = g.hold(g._rng.integers(-5000, 5000, 10).astype(np.int32))
    return g.own("QGemm", g.add("Flatten", pooled), *g.about(STEP), *w, bias, *g.about(0.3))


@pytest.mark.parametrize("operators", [_sum, _concatenation, _pool, _leaky, _classifier])
def test_operators_on_bytes(tmp_path: Path, operators: Callable[[Bytes], str]) -> None:
    check(on_bytes(tmp_path / "m.onnx", operators), host_target(2), 0.3)


def dynamic(path: Path, rows: int, inputs: int, outputs: int) -> Path:
    """A product whose input gets its scale at run time."""
    g = Graph("u8", np.random.default_rng(0))
    weight = g.hold(g._rng.integers(-128, 128, (inputs, outputs)).astype(np.int8))
    g.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]))
    sums = g.add("Cast", g.add("MatMulInteger", "q", weight, "zero"), to=onnx.TensorProto.FLOAT)
    return g.save(path, g.add("Mul", g.add("Mul", "scale", g.hold(np.float32(0.01))), sums), [rows, inputs])


def guessed(model: Model, target: Target, x: Array) -> Array:
    """What a model makes of its input, scheduled by first guesses."""
    traces = {t.workload.hash: g.trace for t in model.tasks if (g := first_guess(t.workload, target))}
    (output,) = outputs_of(model, traces, x, target=target)
    return output


def check(path: Path, target: Target, step: float) -> Model:
    """Compares a model with ONNX Runtime; a sum may be rounded to the next byte here and there.

    Args:
        step: Between two values that an output may have.
    """
    source = load_model(str(path))
    model = lower(source, target)
    shape = source.inputs[0].spec.shape
    x = np.random.default_rng(1).uniform(-6, 6, shape).astype(np.float32)
    (expected,) = source.reference([x])
    actual = guessed(model, target, x)
    off = np.abs(actual - expected)
    assert off.max() < 1.01 * step
    assert (off > 0.01 * step).sum() <= max(1, 0.02 * off.size)
    return model


def dtypes(model: Model) -> set[str]:
    return {a.dtype for task in model.tasks for a in task.workload.args}


@settings(max_examples=12, deadline=None, suppress_health_check=CHECKS)
@given(
    st.sampled_from(TARGETS), st.integers(0, 2**32), st.sampled_from(sorted(KINDS)),
    st.tuples(
        st.sampled_from((1, 3, 4, 16, 19)), st.sampled_from((5, 16, 20, 33)), st.integers(1, 3),
        st.integers(1, 2), st.integers(0, 1), st.integers(1, 2), st.booleans(), st.booleans(),
    ),
)  # fmt: skip
def test_convolutions(tmp_path: Path, target: Target, seed: int, kind: str, about: Any) -> None:
    check(convolution(tmp_path / "m.onnx", np.random.default_rng(seed), kind, *about), target, 0.4)


@settings(max_examples=8, deadline=None, suppress_health_check=CHECKS)
@given(
    st.sampled_from(TARGETS), st.integers(0, 2**32), st.sampled_from(sorted(KINDS)),
    st.tuples(st.sampled_from((1, 5, 16)), st.sampled_from((1, 8, 30)), st.sampled_from((1, 10, 48))),
)  # fmt: skip
def test_products(tmp_path: Path, target: Target, seed: int, kind: str, about: Any) -> None:
    check(product(tmp_path / "m.onnx", np.random.default_rng(seed), kind, *about), target, 0.3)


@pytest.mark.parametrize("shape", [(1, 8, 10), (5, 30, 48), (16, 64, 33)])
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_products_with_scales_of_run_time(
    tmp_path: Path, shape: tuple[int, int, int], target: Target
) -> None:
    source = load_model(str(dynamic(tmp_path / "m.onnx", *shape)))
    model = lower(source, target)
    x = np.random.default_rng(1).standard_normal(shape[:2]).astype(np.float32)
    np.testing.assert_allclose(guessed(model, target, x), *source.reference([x]), rtol=1e-6)
    assert (target in WITH_DOTS) == any("matmul_bytes" in t.name for t in model.tasks)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_stands_between_sums(tmp_path: Path, kind: str) -> None:
    check(residual(tmp_path / "m.onnx", kind), host_target(2), 0.3)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("scales", [(0.2, 0.2), (0.2, 0.3)])
@pytest.mark.parametrize("pooled", [False, True])
def test_bytes_are_moved_instead_of_numbers(
    tmp_path: Path, kind: str, scales: tuple[float, float], pooled: bool
) -> None:
    model = check(joined(tmp_path / "m.onnx", kind, scales, pooled), host_target(2), 0.2)
    moves = [t for t in model.tasks if "concatenate" in t.name]
    assert moves and all({a.dtype for a in t.workload.args[:2]} == {"uint8"} for t in moves)


@pytest.mark.skipif(not WITH_DOTS, reason="this machine has no instruction for sums of bytes (VNNI)")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_with_the_instruction_sums_are_of_unsigned_by_signed_bytes(tmp_path: Path, kind: str) -> None:
    model = lower(load_model(str(residual(tmp_path / "m.onnx", kind))), WITH_DOTS[0])
    sums = [t for t in model.tasks if "conv2d_bytes" in t.name]
    assert sum(t.weight for t in sums) == 2
    assert all([a.dtype for a in t.workload.args[:2]] == ["uint8", "int8"] for t in sums)


@pytest.mark.parametrize("zero", [128, 120])
def test_unsigned_weights(tmp_path: Path, zero: int) -> None:
    """Held as signed ones, they have a zero of 0 or are numbers."""
    g = Graph("u8", np.random.default_rng(0))
    about = [g.hold(np.float32(0.02)), g.hold(np.uint8(zero))]
    values = g.hold(np.random.default_rng(0).integers(0, 256, (16, 16)).astype(np.uint8))
    x = g.add("MatMul", g.rounded("x"), g.add("DequantizeLinear", values, *about))
    model = check(g.save(tmp_path / "m.onnx", g.rounded(x, 0.4), [8, 16]), host_target(2), 0.4)
    in_integers = any("matmul_bytes" in t.name for t in model.tasks)
    assert in_integers == (zero == 128 and Vectors.of(host_target(2), "int32").dots)


def test_without_it_weights_are_numbers(tmp_path: Path) -> None:
    target = Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "haswell", "num-cores": 2})
    model = lower(load_model(str(residual(tmp_path / "m.onnx", "i8"))), target)
    assert "int8" not in dtypes(model)


@pytest.mark.skipif(not WITH_DOTS, reason="this machine has no instruction for sums of bytes (VNNI)")
def test_layers_that_differ_in_scales_only_share_a_kernel(tmp_path: Path) -> None:
    def count(*scales: float) -> int:
        path = residual(tmp_path / "m.onnx", "u8", scales)
        return len(lower(load_model(str(path)), WITH_DOTS[0]).tasks)

    assert count(0.2, 0.2) == count(0.2, 0.4)


@pytest.mark.parametrize("zero", [0, 3, 10, 255])
def test_ties_are_rounded_to_even_and_what_is_too_large_is_the_last_byte(tmp_path: Path, zero: int) -> None:
    x = np.array([0.25, 0.75, 1.25, 1.75, -0.25, -0.75, 300, -300, 2**24, -1e30, np.inf, -np.inf], np.float32)
    g = Graph("u8", np.random.default_rng(0))
    path = g.save(tmp_path / "m.onnx", g.rounded("x", 0.5, zero), [len(x)])
    actual = guessed(lower(load_model(str(path)), host_target(2)), host_target(2), x)
    expected = (np.clip(np.rint(x / 0.5) + zero, 0, 255) - zero) * 0.5
    np.testing.assert_array_equal(actual, expected)


def test_how_far_a_step_moves_the_output_is_measured(tmp_path: Path) -> None:
    model = lower(load_model(str(residual(tmp_path / "m.onnx", "u8"))), host_target(2))
    assert is_quantized(model.source.module)
    x = [np.zeros((1, 16, 8, 8), np.float32)]
    assert moved_by_steps(model.source.reference, x, model.source.reference(x)) == 0


def test_where_inputs_are_whole_numbers_constants_are_nudged(tmp_path: Path) -> None:
    """As of language models: what a step moves would be nothing."""
    least = float(np.finfo(np.float32).min)
    table = np.linspace(0.1, 0.9, 96, dtype=np.float32).reshape(6, 16)
    ids = helper.make_node("Cast", ["x"], ["ids"], to=onnx.TensorProto.INT64)
    path = save_onnx(
        tmp_path / "m.onnx", [ids, helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Max", ["rows", "least"], ["out"])], {"x": [4]}, "out",
        table=table, least=np.float32(least),
    )  # fmt: skip
    source = load_model(str(path))
    assert source.nudged is not None
    x = [np.array([0, 1, 2, 3], np.float32)]
    (plain,), (off,), (other,) = source.reference(x), source.nudged(0)(x), source.nudged(1)(x)
    assert 0 < np.abs(off / plain - 1).max() < 2e-6
    assert not np.array_equal(off, other)
    whole = [np.arange(4)]
    moved = moved_by_steps(lambda a: [plain], whole, [plain], lambda seed: lambda a: source.nudged(seed)(x))  # type: ignore[misc]
    assert 0 < moved < 4e-6
