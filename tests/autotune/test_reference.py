from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import tvm
from kernels import TARGET, convolution, copy, matmul, softmax, workload
from tvm import te, tirx, topi

from autotune.measure.check import INPUT_KINDS, Array, make_input, poisoned_output
from autotune.measure.reference import CannotWiden, Reference, widened
from search.problem import Workload
from search.spaces.tir import module_of, workload_hash


def function(compute: Callable[..., te.Tensor], *specs: tuple[tuple[int, ...], str]) -> tirx.PrimFunc:
    """A kernel of one output: ``compute`` of placeholders with those shapes and dtypes."""
    inputs = [te.placeholder(shape, dtype, name=f"x{n}") for n, (shape, dtype) in enumerate(specs)]
    return te.create_prim_func([*inputs, compute(*inputs)])


def inner_product(n: int, dtype: str) -> tirx.PrimFunc:
    def compute(a: te.Tensor, b: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, n), "k")
        return te.compute((3,), lambda i: te.sum(a[i, k] * b[i, k], axis=k), name="inner")

    return function(compute, ((3, n), dtype), ((3, n), dtype))


def max_pool() -> tirx.PrimFunc:
    return function(
        lambda x: topi.nn.pool2d(x, [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], "max", layout="NHWC"),
        ((1, 9, 9, 4), "float32"),
    )


def masked() -> tirx.PrimFunc:
    def compute(x: te.Tensor) -> te.Tensor:
        lowest = tirx.const(float("-inf"), "float32")
        mask = te.compute(x.shape, lambda i, j: tirx.if_then_else(j <= i, x[i, j], lowest))
        return topi.nn.softmax(mask)

    return function(compute, ((6, 6), "float32"))


def gather() -> tirx.PrimFunc:
    return function(lambda x, i: topi.take(x, i, axis=0), ((5, 8), "float32"), ((7,), "int32"))


def half_softmax() -> tirx.PrimFunc:
    return function(topi.nn.softmax, ((4, 30), "float16"))


def normalized() -> tirx.PrimFunc:
    shape = ((4, 32), "float32"), ((32,), "float32"), ((32,), "float32")
    return function(lambda x, g, b: topi.nn.layer_norm(x, g, b, [1], 1e-12), *shape)


def gelu() -> tirx.PrimFunc:
    return function(lambda x: topi.multiply(x, topi.erf(x)), ((50,), "float32"))


def integers() -> tirx.PrimFunc:
    def compute(a: te.Tensor, b: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, 9), "k")
        return te.compute((4, 4), lambda i, j: te.sum(a[i, k].astype("int32") * b[j, k], axis=k))

    return function(compute, ((4, 9), "int8"), ((4, 9), "int8"))


def inputs_of(work: Workload, kind: str = "normal") -> list[Array]:
    rng = np.random.default_rng(0)
    return [make_input(s, kind, rng) for s in work.args[: -work.outputs]]


def run(work: Workload, inputs: list[Array]) -> list[Array]:
    """What the untuned kernel makes of ``inputs``."""
    outputs = [tvm.runtime.tensor(poisoned_output(s)) for s in work.args[-work.outputs :]]
    tvm.tirx.build(module_of(work), target=TARGET)["main"](*map(tvm.runtime.tensor, inputs), *outputs)
    return [o.numpy() for o in outputs]


KERNELS = {
    "matmul": matmul(),
    "convolution": convolution(),
    "softmax": softmax(),
    "copy": copy(),
    "max_pool": max_pool(),
    "masked": masked(),
    "gather": gather(),
    "half": inner_product(300, "float16"),
    "bfloat": inner_product(300, "bfloat16"),
    "half_softmax": half_softmax(),
    "normalized": normalized(),
    "gelu": gelu(),
    "integers": integers(),
}


@pytest.mark.parametrize("name", KERNELS)
def test_untuned_kernels_agree_with_their_reference(name: str) -> None:
    work = workload(KERNELS[name])
    reference = Reference(work, TARGET)
    assert reference.exact
    for kind in INPUT_KINDS:
        inputs = inputs_of(work, kind)
        outputs = reference.outputs(inputs)
        assert [o.dtype.name for o in outputs] == ["int32" if name == "integers" else "float64"]
        compared = reference.compare(inputs, run(work, inputs))
        assert compared is not None
        assert compared[0] <= compared[1]


def test_the_reference_is_exact() -> None:
    work = workload(inner_product(1000, "float32"))
    a, b = inputs_of(work, "wide")
    exact = np.einsum("ij,ij->i", a.astype(np.longdouble), b.astype(np.longdouble))
    (output,) = Reference(work, TARGET).outputs([a, b])
    np.testing.assert_allclose(output, exact.astype(np.float64), rtol=1e-13)


def test_constants_are_those_of_the_kernel() -> None:
    work = workload(function(lambda x: topi.add(x, tirx.const(0.1, "float16")), ((3,), "float16")))
    (output,) = Reference(work, TARGET).outputs([np.zeros(3, np.float16)])
    assert output.tolist() == [float(np.float16(0.1))] * 3


def test_a_kernel_without_floats_stays_as_it_is() -> None:
    module = module_of(workload(integers()))
    assert workload_hash(widened(module)["main"]) == workload_hash(module["main"])


UNSAFE = {
    "tirx.reinterpret": function(topi.fast_exp, ((4,), "float32")),
    "tirx.nearbyint": function(topi.round, ((4,), "float32")),
    "tirx.call_pure_extern": function(
        lambda x: te.compute((4,), lambda i: tirx.call_pure_extern("float32", "sinf", x[i])),
        ((4,), "float32"),
    ),
    "remainders of floats": function(
        lambda x, y: te.compute((4,), lambda i: tirx.truncmod(x[i], y[i])),
        ((4,), "float32"),
        ((4,), "float32"),
    ),
    "converts floats": function(lambda x: topi.cast(x, "int8"), ((4,), "float32")),
    "stores integers": function(lambda a, b: topi.less(a, b), ((4,), "float32"), ((4,), "float32")),
    "tirx.floor": function(topi.floor_mod, ((4,), "float32"), ((4,), "float32")),
}


@pytest.mark.parametrize("reason", UNSAFE)
def test_where_more_precision_gives_another_answer_a_kernel_is_not_widened(reason: str) -> None:
    with pytest.raises(CannotWiden, match=reason):
        widened(module_of(workload(UNSAFE[reason])))


def test_without_doubles_the_kernel_is_its_own_reference() -> None:
    work = workload(UNSAFE["tirx.nearbyint"])
    reference = Reference(work, TARGET)
    inputs = [np.array([0.4, 1.6, -2.5, 3], np.float32)]
    assert not reference.exact
    assert "nearbyint" in reference.obstacle
    assert [(o.dtype, o.tolist()) for o in reference.outputs(inputs)] == [(np.float32, [0, 2, -2, 3])]
    assert reference.compare(inputs, run(work, inputs)) == (0.0, pytest.approx(16 * 2**-24))


def test_integers_made_of_floats_may_lie_on_the_other_side_of_a_step() -> None:
    work = workload(function(lambda x: topi.cast(topi.round(x), "int8"), ((2,), "float32")))
    inputs = [np.array([2.5, 10], np.float32)]
    found = []
    for first in (2, 3, 4):
        compared = Reference(work, TARGET).compare(inputs, [np.array([first, 10], np.int8)])
        assert compared is not None
        found.append(compared[0] <= compared[1])
    assert found == [True, True, False]


@cache
def products(dtype: str) -> Reference:
    return Reference(workload(inner_product(1001, dtype)), TARGET)


def rounded(n: int = 400) -> Workload:
    x, scale = te.placeholder((n,), "int32", name="x"), te.placeholder((1,), name="scale")
    steps = te.compute((n,), lambda i: x[i].astype("float32") * scale[0], name="steps")
    result = te.compute((n,), lambda i: tirx.nearbyint(steps[i]).astype("int8"), name="rounded")
    return workload(te.create_prim_func([x, scale, result]))


@pytest.mark.parametrize("off, count, right", [(1, 1, True), (1, 4, True), (1, 40, False), (2, 1, False)])
def test_what_is_rounded_to_bytes_may_be_off_by_a_step_in_few_places(
    off: int, count: int, right: bool
) -> None:
    reference = Reference(rounded(), TARGET)
    inputs = [np.arange(400, dtype=np.int32), np.array([0.2345678], np.float32)]
    (actual,) = reference.outputs(inputs)
    actual[:count] += off
    error, allowed = reference.compare(inputs, [actual]) or (0, 0)
    assert (error <= allowed) == right


@pytest.mark.parametrize("kind", INPUT_KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_missing_edge_is_found(dtype: str, kind: str) -> None:
    """In single precision with every kind of input; in half precision at least with the kind made for it."""
    reference = products(dtype)
    a, b = inputs_of(reference.workload, kind)
    missing = np.einsum("ij,ij->i", a[:, :-1], b[:, :-1], dtype=np.float32)
    compared = reference.compare([a, b], [missing.astype(dtype)])
    assert compared is not None
    if dtype == "float32" or kind == "edge":
        assert compared[0] > compared[1]


def test_where_the_kernel_overflows_it_must_overflow() -> None:
    work = workload(inner_product(8, "float16"))
    inputs = [np.full((3, 8), 200, np.float16)] * 2
    reference = Reference(work, TARGET)
    right, wrong = np.full(3, np.inf, np.float16), np.full(3, 65504, np.float16)
    assert np.isfinite(reference.outputs(inputs)[0]).all()
    found = [reference.compare(inputs, [output]) for output in (right, wrong)]
    assert [f is not None and f[0] <= f[1] for f in found] == [True, False]


def test_a_kernel_may_lose_what_it_loses_untuned() -> None:
    """A sum of equal terms in half precision stops growing at 2048 of them; in parts it does not."""
    work = workload(inner_product(6000, "float16"))
    inputs = inputs_of(work, "constant")
    reference = Reference(work, TARGET)
    exact = reference.outputs(inputs)[0]
    stuck = run(work, inputs)[0]
    assert exact[0] == 1500
    assert stuck[0] < 1000
    for output in (stuck, exact.astype(np.float16)):
        compared = reference.compare(inputs, [output])
        assert compared is not None
        assert compared[0] <= compared[1]


def test_singular_inputs_prove_nothing() -> None:
    """The exact denominator is zero; in single precision it is 2, or else, in another order."""

    def compute(*x: te.Tensor) -> te.Tensor:
        return te.compute((2,), lambda i: 1 / (x[0][i] + x[1][i] + x[1][i] - x[2][i]))

    work = workload(function(compute, *[((2,), "float32")] * 3))
    inputs = [np.full(2, v, np.float32) for v in (2**24, 1, 2**24 + 2)]
    assert np.isfinite(run(work, inputs)[0]).all()
    assert Reference(work, TARGET).compare(inputs, run(work, inputs)) is None


def test_outputs_never_written_are_wrong() -> None:
    work = workload(gather())
    inputs = inputs_of(work)
    compared = Reference(work, TARGET).compare(inputs, [poisoned_output(work.args[-1])])
    assert compared is not None
    assert compared[0] == np.inf > compared[1]
