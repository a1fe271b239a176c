"""Packed weights: what a module computes stays the same, and each constant is kept once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernels import TARGET
from numpy.typing import NDArray
from running import outputs_of
from tvm import relax
from tvm.target import Target

from autotune.frontends.fold import constant
from autotune.frontends.graph import lower
from autotune.frontends.model import ModelInput, SourceModel
from autotune.frontends.packing import pack_weights
from autotune.measure.check import make_input, relative_error, tolerance
from autotune.target import host_target
from search import vectors
from search.problem import TensorSpec
from search.spaces import SPACES, first_guess
from search.spaces.contraction import SPACE_NAME as CONTRACTION
from search.spaces.winograd import SPACE_NAME as WINOGRAD
from search.vectors import Vectors

Array = NDArray[Any]
Build = Callable[[relax.BlockBuilder, relax.Var], relax.Expr]
LANES = Vectors.of(TARGET, "float32").lanes
HERE = host_target(2)
WIDE = Vectors.of(HERE, "float32").lanes
ZEN4, XEON = (
    Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": cpu, "num-cores": 2})
    for cpu in ("znver4", "skylake-avx512")
)


def weight(*shape: int, dtype: str = "float32") -> Array:
    return make_input(TensorSpec(shape, dtype), "normal", np.random.default_rng(sum(shape)))


def const(w: Array) -> relax.Expr:
    return relax.const(w, str(w.dtype))  # by default, doubles become singles


def conv2d(w: Array, strides: int = 1, padding: int = 0, dilation: int = 1, **more: Any) -> Build:
    """Channels last."""
    layout = {"data_layout": "NHWC", "kernel_layout": "HWIO", **more}
    return lambda b, x: b.emit(relax.op.nn.conv2d(x, const(w), strides, padding, dilation, **layout))


def conv(axes: int, w: Array, **more: Any) -> Build:
    """Channels last, along one axis or three."""
    named = "DHW"[3 - axes :]
    layout = {"data_layout": f"N{named}C", "kernel_layout": f"{named}IO", **more}
    operator = {1: relax.op.nn.conv1d, 3: relax.op.nn.conv3d}[axes]
    return lambda b, x: b.emit(operator(x, const(w), **layout))


def in_planes(build: Build) -> Build:
    """Of an image whose channels come first."""
    return lambda b, x: build(b, b.emit(relax.op.permute_dims(x, [0, 2, 3, 1])))


def with_itself(b: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
    """The scores of an attention: a product of two tensors."""
    turned = b.emit(relax.op.permute_dims(x, [0, 2, 1]))
    return b.emit(relax.op.matmul(b.emit(relax.op.matmul(x, turned)), x))


def matmul(w: Array, times: int = 1, **more: Any) -> Build:
    def build(b: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        shared = const(w)
        for _ in range(times):
            x = b.emit(relax.op.matmul(x, shared, **more))
        return x

    return build


def matmul_of_left(w: Array) -> Build:
    return lambda b, x: b.emit(relax.op.matmul(const(w), x))


def also_added(w: Array) -> Build:
    """The weight is needed as it was, too."""

    def build(b: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        shared = const(w)
        return b.emit(relax.op.add(b.emit(relax.op.matmul(x, shared)), shared))

    return build


def in_a_tail(b: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
    y = b.emit(relax.op.add(conv2d(weight(3, 3, 5, 2 * LANES + 1), padding=1)(b, x), relax.const(1.5)))
    return b.emit(relax.op.nn.relu(y))


@dataclass(frozen=True)
class Case:
    """A module of one input.

    Attributes:
        constants: Rank of each constant once packed; a packed weight has one more.
    """

    shape: tuple[int, ...]
    build: Build
    constants: list[int]
    dtype: str = "float32"
    reduction: int = 64

    @property
    def source(self) -> SourceModel:
        spec = ModelInput("x", TensorSpec(self.shape, self.dtype))
        return SourceModel("case", "case", self.module(), (spec,), lambda x: [run(self.module(), *x)], "TVM")

    def module(self) -> tvm.IRModule:
        b = relax.BlockBuilder()
        x = relax.Var("x", relax.TensorType(self.shape, self.dtype))
        with b.function("main", [x]):
            with b.dataflow():
                output = b.emit_output(self.build(b, x))
            b.emit_func_output(output)
        return b.get()


CASES = {
    "convolution": Case((1, 7, 7, 5), conv2d(weight(3, 3, 5, 2 * LANES)), [5]),
    "batch": Case((3, 7, 7, 5), conv2d(weight(1, 1, 5, LANES)), [5]),
    "cropped": Case((1, 7, 7, 5), conv2d(weight(3, 3, 5, LANES + 1), 2, 1), [5]),
    "dilated": Case((1, 9, 9, 5), conv2d(weight(3, 3, 5, LANES), padding=2, dilation=2), [5]),
    "uneven": Case((1, 9, 6, 5), conv2d(weight(1, 3, 5, LANES), padding=(0, 1, 2, 3)), [5]),
    "in a tail": Case((1, 7, 7, 5), in_a_tail, [5, 0]),
    "less than a vector": Case((1, 7, 7, 5), conv2d(weight(3, 3, 5, LANES // 4)), [5]),
    "one channel": Case((1, 7, 7, 5), conv2d(weight(3, 3, 5, 1)), [5]),
    "no channels": Case((1, 7, 7, 5), conv2d(weight(3, 3, 5, 0)), [4]),
    "grouped": Case((1, 7, 7, 2 * LANES), conv2d(weight(3, 3, LANES, 2 * LANES), groups=2), [5]),
    "depthwise": Case((1, 7, 7, LANES), conv2d(weight(3, 3, 1, LANES), groups=LANES), [4]),
    "groups of less than a vector": Case(
        (1, 7, 7, 3 * LANES), conv2d(weight(3, 3, 6, 2 * LANES), padding=1, groups=LANES // 2), [5]
    ),
    "groups of no whole vectors": Case((1, 7, 7, 6), conv2d(weight(1, 1, 2, 3 * LANES), groups=3), [5]),
    "many blocks": Case((1, 7, 13, 5), conv2d(weight(1, 1, 5, 29 * LANES)), [5]),
    "planes": Case((2, 3, 9, 7), in_planes(conv2d(weight(3, 3, 3, LANES), padding=(0, 1, 2, 3))), [5]),
    "grouped planes": Case((1, 4, 7, 7), in_planes(conv2d(weight(3, 3, 2, 2 * LANES), groups=2)), [5]),
    "one axis": Case((2, 37, 5), conv(1, weight(3, 5, LANES + 1), strides=2, padding=1), [4]),
    "one axis in groups": Case((1, 9, 2 * LANES), conv(1, weight(3, LANES, 2 * LANES), groups=2), [4]),
    "three axes": Case((1, 4, 5, 13, 5), conv(3, weight(2, 3, 3, 5, LANES), padding=1, dilation=2), [6]),
    "double": Case((1, 7, 7, 5), conv2d(weight(3, 3, 5, LANES, dtype="float64")), [5], "float64"),
    "half": Case((1, 7, 7, 5), conv2d(weight(3, 3, 5, 2 * LANES, dtype="float16")), [5], "float16"),
    "summed in float32": Case(
        (1, 7, 7, 5), conv2d(weight(3, 3, 5, 2 * LANES, dtype="float16"), out_dtype="float32"), [4], "float16"
    ),
    "matmul": Case((7, 9), matmul(weight(9, 2 * LANES)), [3]),
    "no columns": Case((7, 9), matmul(weight(9, 0)), [2]),
    "no terms": Case((7, 0), matmul(weight(0, 9)), [2]),
    "cropped matmul": Case((7, 9), matmul(weight(9, 2 * LANES + 3)), [3]),
    "3-d": Case((2, 7, 9), matmul(weight(9, LANES)), [3]),
    "4-d": Case((2, 1, 7, 9), matmul(weight(9, LANES)), [3]),
    "double matmul": Case((7, 9), matmul(weight(9, LANES, dtype="float64")), [3], "float64"),
    "half matmul": Case((7, 9), matmul(weight(9, 2 * LANES, dtype="float16")), [3], "float16"),
    "vector": Case((9,), matmul(weight(9, LANES)), [2]),
    "vector of weights": Case((7, 9), matmul(weight(9)), [1]),
    "batched weights": Case((2, 4, 9), matmul(weight(2, 9, LANES)), [3]),
    "repeated weights": Case((2, 4, 9), matmul(np.stack([weight(9, LANES)] * 2)), [3]),
    "ragged": Case((2, 4 * LANES + 1, LANES + 3), with_itself, []),
    "left": Case((9, 16), matmul_of_left(weight(LANES, 9)), [2]),
    "integers": Case((7, 9), matmul(weight(9, LANES, dtype="int8"), out_dtype="int32"), [2], "int8"),
    "shared": Case((7, LANES), matmul(weight(LANES, LANES), 3), [3, 3, 3]),
    "needed twice": Case((LANES, LANES), also_added(weight(LANES, LANES)), [3, 2]),
}  # fmt: skip


def run(module: tvm.IRModule, x: Array, target: Target = TARGET) -> Array:
    machine = relax.VirtualMachine(relax.build(module, target), tvm.cpu())
    return machine["main"](tvm.runtime.tensor(x)).numpy()  # type: ignore[no-any-return]


def constants(module: tvm.IRModule) -> list[Array]:
    found: list[Array] = []

    def visit(node: Any) -> None:
        if (value := constant(node)) is not None:
            found.append(value)

    relax.analysis.post_order_visit(module["main"], visit)
    return found


def check(case: Case, target: Target = TARGET) -> tvm.IRModule:
    """Compares a module with its packed form, which it returns."""
    module, rng = case.module(), np.random.default_rng(0)
    packed = pack_weights(module, target)
    x = make_input(TensorSpec(case.shape, case.dtype), "normal", rng)
    expected, actual = run(module, x, target), run(packed, x, target)
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    error = relative_error(actual.astype(np.float64), expected.astype(np.float64))
    assert error <= tolerance(case.dtype, case.reduction)
    return packed


@pytest.mark.parametrize("name", CASES)
def test_a_packed_module_computes_what_it_did(name: str) -> None:
    case = CASES[name]
    packed = check(case)
    assert sorted(c.ndim for c in constants(packed)) == sorted(case.constants)


def test_packed_weights_hold_nothing_but_the_weights_and_zeros() -> None:
    (w,), (packed,) = (constants(m) for m in (CASES["cropped"].module(), check(CASES["cropped"])))
    assert packed.shape == (2, 3, 3, 5, LANES)
    assert packed.flags.c_contiguous
    np.testing.assert_array_equal(packed[0], w[..., :LANES])
    np.testing.assert_array_equal(packed[1, ..., 0], w[..., LANES])
    assert not packed[1, ..., 1:].any()


def test_packing_twice_changes_nothing_more() -> None:
    once = pack_weights(CASES["in a tail"].module(), TARGET)
    assert tvm_ffi.structural_equal(pack_weights(once, TARGET)["main"], once["main"])


def test_an_image_is_read_as_it_is_but_not_many_planes() -> None:
    """Many are put in order by a kernel of their own."""
    for planes, moves in ((3, False), (5, True)):
        case = Case((1, planes, 9, 7), in_planes(conv2d(weight(3, 3, planes, LANES), padding=1)), [5])
        assert ("permute_dims" in str(check(case)["main"])) is moves


LENGTHS = st.integers(1, 9) | st.sampled_from((31, 37, 61))  # the last are filled up, to make even tiles


@st.composite
def convolutions(draw: Any) -> Case:
    size, stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    height, width, depth = draw(st.integers(1, 9)), draw(LENGTHS), draw(st.integers(1, 9))
    padding = draw(st.tuples(*[st.integers(0, 2)] * 4))
    reach = dilation * (size - 1)
    assume(height + padding[0] + padding[2] > reach and width + padding[1] + padding[3] > reach)
    w = weight(size, size, depth, draw(st.integers(1, 3 * LANES)))
    images, build = draw(st.integers(1, 2)), conv2d(w, stride, padding, dilation)
    if draw(st.booleans()):
        return Case((images, depth, height, width), in_planes(build), [5], reduction=size * size * depth)
    return Case((images, height, width, depth), build, [5], reduction=size * size * depth)


@st.composite
def grouped(draw: Any) -> Case:
    groups, inputs, outputs = (
        draw(st.integers(2, 6)),
        draw(st.integers(2, 5)),
        draw(st.integers(1, LANES + 1)),
    )
    size, width = draw(st.integers(1, 3)), draw(LENGTHS)
    assume(width >= size)
    w = weight(size, size, inputs, groups * outputs)
    return Case((1, 4, width, groups * inputs), conv2d(w, groups=groups), [5], reduction=size * size * inputs)


@st.composite
def products(draw: Any) -> Case:
    *outer, depth = draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    shape = (*outer, draw(LENGTHS))
    w = weight(depth, draw(st.integers(LANES // 4, 3 * LANES)))
    return Case((*shape, depth), matmul(w), [3], reduction=depth)


def check_with_schedules(case: Case, seed: int, target: Target = TARGET, template: str = CONTRACTION) -> None:
    """The whole way: packed, fused, and each kernel with its first guess, or with another draft."""
    assert [c.ndim for c in constants(check(case, target))] == case.constants
    model, rng = lower(case.source, target), np.random.default_rng(seed)
    x = make_input(TensorSpec(case.shape, case.dtype), "normal", rng)
    (expected,) = case.source.reference([x])
    first = {t.workload.hash: first_guess(t.workload, target) for t in model.tasks}
    assert any(guess and guess.space == template for guess in first.values())
    drawn = {}
    for task in model.tasks:
        guess = first[task.workload.hash]
        assert guess is not None
        space = SPACES[guess.space](task.workload, target)
        drawn[guess.workload] = space.realize(space.sample(rng), rng)
    for chosen in (first, drawn):
        traces = {hash_: c.trace for hash_, c in chosen.items() if c}
        (actual,) = outputs_of(model, traces, x, target=target)
        assert relative_error(actual, expected) <= tolerance(case.dtype, case.reduction)


@settings(max_examples=10, deadline=None)
@given(st.one_of(convolutions(), grouped(), products()), st.integers(0, 2**32))
def test_any_convolution_and_product_is_packed(case: Case, seed: int) -> None:
    check_with_schedules(case, seed)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(st.one_of(convolutions(), grouped(), products()), st.integers(0, 2**32))
def test_many_convolutions_and_products_are_packed(case: Case, seed: int) -> None:
    check_with_schedules(case, seed)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> int:
    """This CPU taken for one that adds two vectors of half the width in the time of one, if it has AVX-512.

    Returns:
        Lanes of the narrowest.
    """
    monkeypatch.setattr(vectors, "_NARROW_UNITS", {str(HERE.attrs["mcpu"])})
    return Vectors.of(HERE, "float32").widths(144)[-1].lanes


NARROW = {
    "one vector": Case((1, 12, 12, 16), conv2d(weight(1, 1, 16, WIDE // 2)), [5]),
    "three": Case((1, 12, 12, 16), conv2d(weight(1, 1, 16, WIDE + WIDE // 2)), [5]),
    "not filled": Case((1, 12, 12, 16), conv2d(weight(3, 3, 16, WIDE + 3), 2, 1), [5]),
    "of half a vector": Case(
        (1, 9, 9, 4 * WIDE), conv2d(weight(3, 3, 8, 4 * WIDE), 2, groups=WIDE // 2), [5]
    ),
    "of less": Case((1, 7, 7, 2 * WIDE), conv2d(weight(3, 3, 2, 2 * WIDE), padding=1, groups=WIDE), [5]),
    "Winograd": Case((1, 12, 12, 16), conv2d(weight(3, 3, 16, 24), padding=1), [5], reduction=144),
    "cropped, Winograd": Case((1, 24, 21, 16), conv2d(weight(3, 3, 16, 21), padding=1), [5], reduction=144),
    "product": Case((12, 9), matmul(weight(9, WIDE + WIDE // 2)), [3]),
}  # fmt: skip


@pytest.mark.parametrize("name", NARROW)
def test_narrow_vectors_compute_what_whole_ones_do(name: str, narrow: int) -> None:
    check_with_schedules(NARROW[name], 0, HERE, WINOGRAD if "Winograd" in name else CONTRACTION)
    (packed,) = constants(pack_weights(NARROW[name].module(), HERE))
    assert packed.shape[-1] == narrow


def lanes_of(case: Case, target: Target) -> int:
    (packed,) = constants(pack_weights(case.module(), target))
    return packed.shape[-1]


@pytest.mark.parametrize(
    ("case", "zen4"),
    [
        (Case((1, 14, 14, 32), conv2d(weight(1, 1, 32, 24)), []), 8),
        (Case((1, 14, 14, 32), conv2d(weight(1, 1, 32, 32)), []), 16),
        (Case((1, 28, 28, 32), conv2d(weight(1, 1, 32, 176)), []), 16),  # 22 narrow ones, or 11
        (Case((1, 14, 14, 128), conv2d(weight(3, 3, 4, 128), padding=1, groups=32), []), 8),
        (Case((1, 14, 14, 128), conv2d(weight(3, 3, 16, 128), padding=1, groups=8), []), 16),
        (Case((12, 9), matmul(weight(9, 24)), []), 8),
        (Case((1, 9), matmul(weight(9, 24)), []), 16),  # waits for weights
    ],
)
def test_narrow_vectors_are_for_lanes_that_would_be_empty_where_they_cost_nothing(
    case: Case, zen4: int
) -> None:
    assert lanes_of(case, ZEN4) == zen4
    assert lanes_of(case, XEON) == 16
