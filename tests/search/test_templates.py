"""Templates: every schedule of theirs computes what the kernel should, or they refuse the kernel."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import operators as op
import pytest
import tvm
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kernels import runnable
from operators import Array, Operator, Tail, run, scheduled, tensor
from tvm import te, topi
from tvm.target import Target

from autotune.measure.check import numpy_dtype, relative_error, tolerance
from autotune.target import host_target
from search import amx
from search.compiler import written_out
from search.errors import InvalidCandidate, UnsupportedWorkload
from search.problem import Workload
from search.space import enumerate_drafts
from search.spaces import first_guess
from search.spaces.amx import AmxSpace
from search.spaces.contraction import ContractionSpace, analysed
from search.spaces.depthwise import DepthwiseSpace
from search.spaces.knobs import KnobSpace
from search.spaces.loops import LoopSpace
from search.spaces.tir import module_of, workload_from_tir
from search.spaces.trace import apply_trace
from search.vectors import BALANCED, Vectors

HERE = host_target(2)
TEMPLATES = (DepthwiseSpace, ContractionSpace, LoopSpace)


RUNNABLE = runnable("haswell", "x86-64-v2")
WITH_DOTS = [
    t
    for t in runnable('{"kind": "llvm", "mcpu": "haswell", "mattr": ["+avxvnni"]}')
    if Vectors.of(t, "int32").dots
]
WITH_TILES = [t for t in RUNNABLE if Vectors.of(t, "int32").tiles]
ELSEWHERE = {
    "neon": {"mtriple": "aarch64-linux-gnu", "mattr": ["+neon"]},
    "avx2": {"mtriple": "x86_64-linux-gnu", "mcpu": "haswell"},
    "avx512": {"mtriple": "x86_64-linux-gnu", "mcpu": "skylake-avx512"},
}


def elsewhere(name: str) -> Target:
    return Target({"kind": "llvm", "num-cores": 4, **ELSEWHERE[name]})


def templates(work: Workload, target: Target = HERE) -> list[KnobSpace]:
    found: list[KnobSpace] = []
    for template in TEMPLATES:
        try:
            found.append(template(work, target))
        except UnsupportedWorkload as error:
            assert str(error)
    return found


EXTENTS = st.sampled_from((1, 2, 3, 5, 7, 8, 13, 14, 16, 28))
WIDTHS = st.sampled_from((1, 3, 4, 7, 8, 16, 20, 24, 32, 48))
LANES = st.sampled_from((4, 8, 16))
FLAGS = st.booleans()


@st.composite
def convolutions(draw: Any) -> Operator:
    lanes, blocks, size = draw(LANES), draw(st.integers(1, 3)), draw(st.sampled_from((1, 3, 5)))
    height, width, padding = draw(EXTENTS), draw(EXTENTS), draw(st.integers(0, 2))
    dilation = draw(st.integers(1, 2))
    assume(min(height, width) + 2 * padding > dilation * (size - 1))
    left_out = draw(st.sampled_from((0, 0, 1, lanes - 1)))
    return op.convolution(
        draw(st.integers(1, 3)), height, width, draw(st.sampled_from((1, 3, 8, 13))), blocks, lanes, size,
        draw(st.integers(1, 3)), dilation, padding,
        Tail(draw(FLAGS), draw(FLAGS), draw(FLAGS), blocks * lanes - left_out),
    )  # fmt: skip


@st.composite
def images(draw: Any, make: Callable[..., Operator]) -> Operator:
    size, padding = draw(st.integers(1, 3)), draw(st.integers(0, 1))
    height, width = draw(EXTENTS), draw(EXTENTS)
    assume(min(height, width) + 2 * padding > 2 * (size - 1) and padding < size)
    return make(height, width, draw(WIDTHS), size, draw(st.integers(1, 2)), padding)


@st.composite
def products(draw: Any) -> Operator:
    rows = draw(st.lists(EXTENTS, min_size=1, max_size=2))
    lanes, channels = draw(st.none() | LANES), draw(st.integers(1, 40))
    tail = Tail(draw(FLAGS), draw(FLAGS), draw(FLAGS), channels)
    return op.product(rows, draw(st.sampled_from((1, 2, 7, 16, 31))), channels, lanes, tail)


OPERATORS = st.one_of(
    convolutions(),
    products(),
    images(op.depthwise),
    images(partial(op.depthwise, dilation=2)),
    images(op.max_pool),
    st.builds(op.batched, EXTENTS, EXTENTS, EXTENTS, WIDTHS),
    st.builds(op.mean, EXTENTS, EXTENTS, WIDTHS),
    st.builds(op.total, EXTENTS, WIDTHS),
    st.builds(op.concatenate, EXTENTS, EXTENTS, WIDTHS, WIDTHS),
    st.builds(op.transpose, EXTENTS, EXTENTS, WIDTHS),
    st.builds(op.softmax, EXTENTS, WIDTHS),
    st.builds(op.layer_norm, EXTENTS, WIDTHS),
    st.builds(op.relu, EXTENTS, WIDTHS),
)
CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much]


def check(operator: Operator, target: Target, seed: int) -> None:
    """Compares a random schedule of each template with NumPy in double precision."""
    work, inputs = operator.workload, operator.inputs(seed)
    expected = operator.expected(*(x.astype(np.float64) for x in inputs))
    for space in templates(work, target):
        draft = space.sample(np.random.default_rng(seed))
        actual = run(scheduled(space, draft), work.args[-1], inputs, target)
        error = relative_error(actual, expected)
        assert error <= tolerance("float32", work.reduction), space.configuration(draft)


@settings(max_examples=30, deadline=None, suppress_health_check=CHECKS)
@given(OPERATORS, st.sampled_from(RUNNABLE), st.integers(0, 2**32))
def test_every_schedule_computes_what_the_kernel_should(
    operator: Operator, target: Target, seed: int
) -> None:
    check(operator, target, seed)


@pytest.mark.slow
@settings(max_examples=250, deadline=None, suppress_health_check=CHECKS)
@given(OPERATORS, st.sampled_from(RUNNABLE), st.integers(0, 2**32))
def test_many_schedules_compute_what_the_kernel_should(operator: Operator, target: Target, seed: int) -> None:
    check(operator, target, seed)


FULL = Tail(bias=True, residual=True, relu=True)
CONTRACTIONS = {
    "convolution": op.convolution(tail=FULL),
    "cropped": op.convolution(tail=Tail(True, False, True, 29)),
    "one pixel": op.convolution(1, 1, 1, 8, 2, 16, 1, 1, 1, 0, Tail(bias=True, residual=True)),
    "depthwise": op.depthwise(tail=FULL),
    "matmul": op.product((32,), 32, 32, tail=FULL),
    "3-d": op.product((2, 7), 13, 29, 16, Tail(bias=True, crop=29)),
    "gemv": op.product((1,), 64, 48, 16, Tail(bias=True)),
    "attention": op.batched(),
}  # fmt: skip
LOOPS = {
    "max pool": op.max_pool(),
    "mean": op.mean(),
    "concatenate": op.concatenate(),
    "transpose": op.transpose(),
    "softmax": op.softmax(),
    "layer norm": op.layer_norm(),
    "relu": op.relu(3, 50),
}
KERNELS = {**CONTRACTIONS, **LOOPS}


def template_of(name: str) -> str:
    """The most special template of a kernel."""
    if name == "depthwise":
        return "depthwise/1"
    return "contraction/4" if name in CONTRACTIONS else "loops/1"


kernels = pytest.mark.parametrize("name", KERNELS)


def extremes(work: Workload, rng: np.random.Generator) -> list[Array]:
    """Bytes of all values, the least and the greatest often: where an instruction saturates, that shows."""
    arrays = []
    for spec in work.args[:-1]:
        limits = np.iinfo(spec.dtype)
        drawn = rng.integers(limits.min, limits.max + 1, spec.shape)
        ends = rng.choice([limits.min, limits.max], spec.shape)
        arrays.append(np.where(rng.random(spec.shape) < 0.5, drawn, ends).astype(spec.dtype))
    return arrays


@pytest.mark.skipif(not WITH_DOTS, reason="this machine has no instruction for sums of bytes (VNNI)")
@settings(max_examples=20, deadline=None, suppress_health_check=CHECKS)
@given(EXTENTS, st.sampled_from((1, 2, 3, 8, 13, 64)), st.integers(1, 4), st.integers(0, 2**32), st.data())
def test_sums_of_bytes_are_exact(rows: int, terms: int, blocks: int, seed: int, data: Any) -> None:
    target = data.draw(st.sampled_from(WITH_DOTS))
    operator = op.product_of_bytes(rows, terms, blocks, Vectors.of(target, "int32").lanes)
    rng = np.random.default_rng(seed)
    inputs = extremes(operator.workload, rng)
    space = ContractionSpace(operator.workload, target)
    actual = run(scheduled(space, space.sample(rng)), operator.workload.args[-1], inputs, target)
    np.testing.assert_array_equal(actual, operator.expected(*(x.astype(np.int64) for x in inputs)))


@pytest.mark.parametrize("cpu, lanes", [("cascadelake", 16), ("alderlake", 8)])
def test_sums_of_bytes_take_the_instruction_for_them(cpu: str, lanes: int) -> None:
    target = Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": cpu, "num-cores": 2})
    work = op.product_of_bytes(lanes=lanes).workload
    space = ContractionSpace(work, target)
    compiled = tvm.tirx.build(scheduled(space, space.first()), target=target)
    assert "vpdpbusd" in compiled.inspect_source("asm")


@st.composite
def sums_of_bytes(draw: Any) -> Operator:
    """What the matrix unit is for."""
    columns, terms = amx.filled(draw(st.integers(2, 40))), draw(st.sampled_from((3, 4, 5, 6, 12, 16, 32)))
    blocks = draw(st.integers(1, 6))
    kind = draw(st.sampled_from(("product", "side by side", "convolution")))
    if kind == "product":
        return op.product_of_bytes(columns, terms, blocks)
    size, stride = draw(st.sampled_from((1, 2, 3))), draw(st.integers(1, 3))
    if kind == "side by side":
        return op.convolution_side_by_side(columns, terms, blocks, size, stride)
    height, padding = draw(st.integers(3, 7)), draw(st.integers(0, 1))
    return op.convolution_of_bytes(height, max(size + stride, columns), terms, blocks, size, stride, padding)


@pytest.mark.skipif(not WITH_TILES, reason="this machine has no matrix unit (AMX)")
@settings(max_examples=6, deadline=None, suppress_health_check=CHECKS)
@given(sums_of_bytes(), st.integers(0, 2**32))
def test_sums_in_the_matrix_unit_are_exact(operator: Operator, seed: int) -> None:
    work, rng = operator.workload, np.random.default_rng(seed)
    columns = work.args[-1].shape[-2]
    assume(any(columns % rows == 0 for rows in range(2, amx.MOST_ROWS + 1)))
    space, inputs = AmxSpace(work, HERE), extremes(work, rng)
    draft = space.sample(rng)
    actual = run(scheduled(space, draft), work.args[-1], inputs)
    expected = operator.expected(*(x.astype(np.int64) for x in inputs))
    np.testing.assert_array_equal(actual, expected, err_msg=str(space.configuration(draft)))


@pytest.mark.skipif(not WITH_TILES, reason="this machine has no matrix unit (AMX)")
@pytest.mark.parametrize("operator", [op.product_of_bytes(32, 8, 4), op.convolution_of_bytes(8, 8, 4, 6)])
def test_the_matrix_unit_runs_schedules_of_every_kind(operator: Operator) -> None:
    """TVM takes them, however tiles are shared out among cores."""
    space = AmxSpace(operator.workload, HERE)
    for draft in list(enumerate_drafts(space))[::16]:
        scheduled(space, draft)


def test_the_matrix_unit_is_asked_for_allotted_and_freed() -> None:
    target = Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "sapphirerapids", "num-cores": 2})
    space = AmxSpace(op.convolution_of_bytes().workload, target)
    compiled = tvm.tirx.build(written_out(scheduled(space, space.first())), target=target)
    found = re.findall(
        "syscall|ldtilecfg|tilezero|tdpbusd|tilestored|tilerelease", compiled.inspect_source("asm")
    )
    order = list(dict.fromkeys(found))
    assert order == ["syscall", "ldtilecfg", "tilezero", "tdpbusd", "tilestored", "tilerelease"]


@pytest.mark.parametrize("operator", [op.product_of_bytes(1, 16), op.product_of_bytes(8, 2)])
def test_few_columns_or_terms_are_not_for_the_matrix_unit(operator: Operator) -> None:
    target = Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "sapphirerapids", "num-cores": 2})
    with pytest.raises(UnsupportedWorkload, match="too few columns or terms"):
        AmxSpace(operator.workload, target)
    assert (guess := first_guess(operator.workload, target)) and guess.space == "contraction/4"


def test_without_the_instruction_sums_of_bytes_are_left_to_others() -> None:
    with pytest.raises(UnsupportedWorkload, match="no instruction for sums of bytes"):
        ContractionSpace(op.product_of_bytes(lanes=8).workload, elsewhere("avx2"))


@kernels
def test_first_guesses(name: str) -> None:
    """A template's own for all that networks are made of, the same each time, and a trace that applies."""
    work = KERNELS[name].workload
    guess = first_guess(work, HERE)
    assert guess is not None
    assert guess.space == template_of(name)
    assert first_guess(work, HERE) == guess
    assert apply_trace(module_of(work), guess.trace) is not None
    for space in templates(work):
        assert space.holds(space.first())
        assert space.first() == type(space)(work, HERE).first()


@kernels
def test_first_guesses_compute_what_they_should(name: str) -> None:
    operator = KERNELS[name]
    work, inputs = operator.workload, operator.inputs()
    expected = operator.expected(*(x.astype(np.float64) for x in inputs))
    for space in templates(work):
        actual = run(scheduled(space, space.first()), work.args[-1], inputs)
        assert relative_error(actual, expected) <= tolerance("float32", work.reduction)


@kernels
def test_nan_and_infinity_come_out_as_from_the_kernel_itself(name: str) -> None:
    work, inputs = KERNELS[name].workload, KERNELS[name].inputs()
    rng = np.random.default_rng(1)
    for x in inputs:
        if x.ndim == 5 and analysed(work).padded:
            continue  # weights of windows: an infinite one meets padding, or is left out with it
        x.flat[rng.choice(x.size, 3, replace=False)] = np.nan, np.inf, -np.inf
    expected = run(module_of(work), work.args[-1], inputs)
    assert not np.isfinite(expected).all()
    for space in templates(work):
        for draft in (space.first(), space.sample(rng)):
            actual = run(scheduled(space, draft), work.args[-1], inputs)
            assert relative_error(actual, expected) <= tolerance("float32", work.reduction)


@pytest.mark.parametrize("target", ELSEWHERE)
@pytest.mark.parametrize("name", ["convolution", "cropped", "depthwise", "3-d", "softmax", "max pool"])
def test_what_cannot_run_here_can_be_compiled(name: str, target: str) -> None:
    work = KERNELS[name].workload
    guess = first_guess(work, elsewhere(target))
    assert guess is not None
    assert guess.space == template_of(name)
    assert tvm.tirx.build(apply_trace(module_of(work), guess.trace), target=elsewhere(target))


@pytest.mark.parametrize("target", ELSEWHERE)
@pytest.mark.parametrize("name", CONTRACTIONS)
def test_a_tile_fits_the_registers(name: str, target: str) -> None:
    work, registers = CONTRACTIONS[name].workload, Vectors.of(elsewhere(target), "float32").registers
    space = ContractionSpace(work, elsewhere(target))
    tiles = [[c[k] for k in "nyx"] for c in map(space.configuration, enumerate_drafts(space))]
    assert all(n * y * x + n + (y * x > 1) <= registers for n, y, x in tiles)  # sums, weights, an input
    assert max(n * y * x for n, y, x in tiles) > 1


@pytest.mark.parametrize("name", [n for n in CONTRACTIONS if n != "depthwise"])
def test_only_windows_of_single_channels_are_depthwise(name: str) -> None:
    with pytest.raises(UnsupportedWorkload, match="no depthwise convolution"):
        DepthwiseSpace(CONTRACTIONS[name].workload, HERE)


@pytest.mark.parametrize("height", [2, 3, 7, 14])
def test_cores_share_out_places_of_images_before_channels(height: int) -> None:
    space = DepthwiseSpace(op.depthwise(height, 14, 64).workload, HERE)
    drafts = [space.configuration(d) for d in enumerate_drafts(space)]
    before = [height // c["y"] * (14 // c["x"] if c["order"] == "channels" else 1) for c in drafts]
    assert min(before) >= 2
    assert {c["order"] for c in drafts} == {"columns", "channels"}


def test_a_tall_tile_of_a_depthwise_convolution_moves_on_by_columns_only_with_strides() -> None:
    def guess(stride: int) -> dict[str, Any]:
        space = DepthwiseSpace(op.depthwise(28 * stride, 28 * stride, 64, stride=stride).workload, HERE)
        return space.configuration(space.first())

    assert guess(1)["order"] == "channels" or guess(1)["y"] == 1
    assert guess(2)["order"] == "columns"
    assert guess(2)["y"] > 1


@pytest.mark.parametrize(("extent", "columns"), [(11, 11), (13, 13), (17, 17), (19, 1)])
def test_a_line_of_a_prime_number_of_columns_is_one_tile_if_its_sums_fit(extent: int, columns: int) -> None:
    space = DepthwiseSpace(op.depthwise(extent, extent, 64).workload, elsewhere("avx512"))
    assert space.configuration(space.first())["x"] == columns


@pytest.mark.parametrize(
    ("target", "lanes", "registers"), [("neon", 4, 32), ("avx2", 8, 16), ("avx512", 16, 32)]
)
def test_vectors_are_those_of_the_target(target: str, lanes: int, registers: int) -> None:
    vectors = Vectors.of(elsewhere(target), "float32")
    assert vectors == Vectors(lanes, registers, 4)
    assert Vectors.of(elsewhere(target), "float64").lanes == lanes // 2
    assert Vectors.of(elsewhere(target), "float16").lanes == lanes * 2


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 64))
def test_work_is_spread_over_as_few_loops_as_will_do(extents: list[int], threads: int) -> None:
    def longest(count: int) -> float:
        turns = np.prod(extents[:count])
        return float(np.ceil(turns / threads) * threads / turns)

    count, imbalance = Vectors(8, 16, threads).spread(extents)
    assert imbalance == pytest.approx(longest(count))
    assert imbalance <= BALANCED or count == len(extents)
    assert all(longest(fewer) > BALANCED for fewer in range(1, count))


def work_of(output: te.Tensor, *inputs: te.Tensor) -> Workload:
    return workload_from_tir(te.create_prim_func([*inputs, output]), "kernel")


def behind(follow: Callable[[te.Tensor], te.Tensor], *more: te.Tensor) -> Workload:
    """A matrix product of 16 x 32 and what follows from it."""
    x, w, k = tensor("x", 16, 16), tensor("w", 16, 32), te.reduce_axis((0, 16), "k")
    y = te.compute((16, 32), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="y")
    return work_of(follow(y), x, w, *more)


def chained() -> Workload:
    x, w, v = tensor("x", 8, 8), tensor("w", 8, 16), tensor("v", 16, 16)
    return work_of(topi.matmul(topi.matmul(x, w), v), x, w, v)


def used_twice() -> Workload:
    """What prepares the left operand is also added to the sum."""
    x, w, k = tensor("x", 16, 16), tensor("w", 16, 16), te.reduce_axis((0, 16), "k")
    r = topi.nn.relu(x)
    y = te.compute((16, 16), lambda i, j: te.sum(r[i, k] * w[k, j], axis=k), name="y")
    return work_of(topi.add(y, r), x, w)


def both_are_outputs() -> Workload:
    x, w, k = tensor("x", 16, 16), tensor("w", 16, 16), te.reduce_axis((0, 16), "k")
    y = te.compute((16, 16), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="y")
    return workload_from_tir(te.create_prim_func([x, w, y, topi.nn.relu(y)]), "two")


def without_blocks() -> Workload:
    x = tensor("x", 16, 16)
    return work_of(topi.cumsum(x, 1), x)


Z = tensor("z", 16, 32)
NO_CONTRACTIONS = {
    "no sum": op.relu(16, 16).workload,
    "two sums": chained(),
    "a sum of one tensor": op.mean().workload,
    "softmax": op.softmax().workload,
    "1 channel": op.product((8,), 8, 1).workload,
    "3 channels": op.product((8,), 8, 3).workload,
    "7 channels": op.product((8,), 8, 7).workload,
    "a prime of channels": op.product((3,), 3, 104729).workload,
    "all ones": op.convolution(1, 1, 1, 1, 1, 1, 1, 1, 1, 0).workload,
    "no rows": op.product((0,), 8, 16).workload,
    "no terms": op.product((8,), 0, 16).workload,
    "shifted": behind(
        lambda y: te.compute(y.shape, lambda i, j: te.if_then_else(i > 0, y[i - 1, j], 0.0), name="shifted")
    ),
    "padded": behind(lambda y: topi.nn.pad(y, [1, 0])),
    "concatenated": behind(lambda y: topi.concatenate([y, Z], 1), Z),
    "transposed": behind(lambda y: topi.transpose(y, [1, 0])),
    "a softmax behind": behind(topi.nn.softmax),
    "prepared for two": used_twice(),
    "two outputs": both_are_outputs(),
    "no blocks": without_blocks(),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_CONTRACTIONS)
def test_what_is_no_contraction_is_refused_or_left_to_others(name: str) -> None:
    work = NO_CONTRACTIONS[name]
    with pytest.raises(UnsupportedWorkload):
        ContractionSpace(work, HERE)
    guess = first_guess(work, HERE)
    assert guess is None or apply_trace(module_of(work), guess.trace) is not None


@pytest.mark.parametrize("shape", [(0, 16), (4, 0)])
def test_where_there_is_nothing_to_compute_loops_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedWorkload, match="nothing to compute"):
        LoopSpace(op.relu(*shape).workload, HERE)


def test_a_huge_prime_is_no_obstacle() -> None:
    space = ContractionSpace(op.product((104729,), 3, 16).workload, HERE)
    assert space.configuration(space.first())["x"] == 1


BESIDE = {
    "silu": behind(lambda y: topi.multiply(y, topi.sigmoid(y))),
    "prepared beside": behind(lambda y: topi.add(y, topi.exp(topi.negative(Z))), Z),
    "both": behind(lambda y: topi.multiply(topi.exp(y), topi.add(topi.tanh(y), topi.nn.relu(Z))), Z),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_follows_may_branch_and_join(name: str) -> None:
    """As activations do that use their input twice, and residuals that are scaled first."""
    work, rng = BESIDE[name], np.random.default_rng(0)
    inputs = [rng.standard_normal(a.shape).astype(a.dtype) for a in work.args[:-1]]
    expected = run(module_of(work), work.args[-1], inputs)
    space = ContractionSpace(work, HERE)
    actual = run(scheduled(space, space.first()), work.args[-1], inputs)
    assert relative_error(actual, expected) <= tolerance("float32", work.reduction)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32", "int8"])
def test_other_dtypes_are_computed_as_the_kernel_does(dtype: str) -> None:
    work, rng = op.product((8,), 24, 64, tail=FULL, dtype=dtype).workload, np.random.default_rng(0)
    inputs = [rng.integers(-2, 3, a.shape).astype(numpy_dtype(dtype)) for a in work.args[:-1]]
    expected = run(module_of(work), work.args[-1], inputs).astype(np.float64)
    spaces = templates(work)
    assert spaces
    for space in spaces:
        for draft in (space.first(), space.sample(rng)):
            actual = run(scheduled(space, draft), work.args[-1], inputs).astype(np.float64)
            np.testing.assert_array_equal(actual, expected)  # of small integers: nothing is rounded


def test_a_draft_of_another_space_is_refused() -> None:
    space = LoopSpace(op.relu(16, 16).workload, HERE)
    with pytest.raises(InvalidCandidate, match="no candidate of loops/1"):
        space.realize((9, 9), np.random.default_rng(0))
