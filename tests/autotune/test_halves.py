"""Products by halves of numbers: near enough to exact ones, whatever the shape, and chosen where they pay."""

import re
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kernels import TARGET
from numpy.typing import NDArray
from running import outputs_of
from tvm.target import Target

from autotune.api import as_source
from autotune.frontends import halves
from autotune.frontends.graph import Model, lower
from autotune.target import host_target
from search import amx
from search.compiler import written_out
from search.space import enumerate_drafts
from search.spaces.halves import SPACE_NAME, HalvesSpace
from search.spaces.tir import module_of
from search.spaces.trace import apply_trace
from search.vectors import Vectors

Array = NDArray[Any]

HERE = host_target(2)
HAS_UNIT = amx.multiplies_halves(HERE, Vectors.of(HERE, "float32").lanes)
ELSEWHERE = Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "sapphirerapids", "num-cores": 2})
OFF = 2.0**-15  # of the magnitudes of what is added up: twice what is left of a number, and rounding
CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
needs_unit = pytest.mark.skipif(not HAS_UNIT, reason="this machine has no matrix unit for bfloat16 (AMX)")


class Convolution(torch.nn.Module):
    def __init__(self, inputs: int, outputs: int, residual: bool = False, **more: Any) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(inputs, outputs, **more)
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.convolution(x)
        return torch.relu(y + y.mean() if self.residual else y)


@st.composite
def convolutions(draw: Any) -> tuple[Convolution, torch.Tensor]:
    window = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    stride, dilation, padding = (
        draw(st.tuples(*[st.integers(*ends)] * 2)) for ends in ((1, 3), (1, 2), (0, 2))
    )
    size = draw(st.tuples(*[st.sampled_from((1, 2, 5, 7, 13, 14, 20))] * 2))
    fits = zip(size, window, padding, dilation, strict=True)
    assume(all(n + 2 * p > (w - 1) * d for n, w, p, d in fits))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    inputs, outputs = (
        draw(st.sampled_from((5, 6, 16, 31, 33, 64, 70))),
        draw(st.sampled_from((8, 24, 48, 80))),
    )
    net = Convolution(
        inputs, outputs, draw(st.booleans()),
        kernel_size=window, stride=stride, dilation=dilation, padding=padding,
    )  # fmt: skip
    return net.eval(), torch.randn(draw(st.integers(1, 2)), inputs, *size)


@st.composite
def products(draw: Any) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(draw(st.integers(0, 2**31)))
    inputs, outputs = draw(st.integers(5, 100)), draw(st.integers(8, 100))
    outer = draw(st.lists(st.integers(1, 3), max_size=1))
    net = torch.nn.Sequential(torch.nn.Linear(inputs, outputs), torch.nn.ReLU())
    return net.eval(), torch.randn(*outer, draw(st.integers(2, 70)), inputs)


NETS = st.one_of(convolutions(), products())


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    def pay(target: Target, weight: Array, places: int, stride: int = 1, winograd: bool = False) -> bool:
        return amx.pays(places, weight.shape[-2] // 2)

    monkeypatch.setattr(halves, "pay", pay)


def lowered(net: torch.nn.Module, x: torch.Tensor, target: Target = HERE) -> Model:
    return lower(as_source(net, (x,)), target)


def halved(model: Model) -> Any:
    return next(t.workload for t in model.tasks if "halves" in t.name)


def check(net: torch.nn.Module, x: torch.Tensor, found: Array) -> None:
    """Within what is left of numbers, of what was added up: all of it, in double precision."""
    exact = net.double()(x.double()).detach().numpy()
    with torch.no_grad():
        for p in net.parameters():
            p.abs_()
    most = net(x.abs().double()).detach().numpy()
    assert (np.abs(found - exact) <= OFF * most.max()).all()


@pytest.mark.usefixtures("always")
@settings(max_examples=4, deadline=None, suppress_health_check=[*CHECKS, HealthCheck.function_scoped_fixture])
@given(NETS)
def test_plain_loops_compute_the_exact_sum(given: tuple[torch.nn.Module, torch.Tensor]) -> None:
    net, x = given
    model = lower(as_source(net, (x,)), TARGET)
    assume(any("halves" in t.name for t in model.tasks))
    check(net, x, outputs_of(model, {}, x.numpy())[0])


@needs_unit
@pytest.mark.usefixtures("always")
@settings(max_examples=4, deadline=None, suppress_health_check=[*CHECKS, HealthCheck.function_scoped_fixture])
@given(NETS, st.integers(0, 2**32))
def test_every_schedule_computes_the_exact_sum(
    given: tuple[torch.nn.Module, torch.Tensor], seed: int
) -> None:
    net, x = given
    model, rng = lowered(net, x), np.random.default_rng(seed)
    assume(any("halves" in t.name for t in model.tasks))
    work = halved(model)
    space = HalvesSpace(work, HERE)
    trace = space.realize(space.sample(rng), rng).trace
    check(net, x, outputs_of(model, {work.hash: trace}, x.numpy(), target=HERE)[0])


def small(**more: Any) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return Convolution(64, 64, kernel_size=3, padding=1, **more).eval(), torch.randn(1, 64, 12, 12)


@needs_unit
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.usefixtures("always")
def test_tvm_takes_each_schedule(stride: int) -> None:
    work = halved(lowered(*small(stride=stride)))
    space = HalvesSpace(work, HERE)
    for draft in list(enumerate_drafts(space))[::6]:
        apply_trace(module_of(work), space.realize(draft, np.random.default_rng(0)).trace)


@needs_unit
@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (torch.nn.Sequential(torch.nn.Linear(500, 72), torch.nn.ReLU()), (40, 500)),
        (torch.nn.Linear(256, 32), (32, 256)),  # nothing follows the sums
        (Convolution(256, 72, kernel_size=3, padding=1, stride=2), (1, 256, 9, 13)),
    ],
)
@pytest.mark.usefixtures("always")
def test_sums_may_be_added_up_in_passes(net: torch.nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    model = lowered(net.eval(), x)
    work, rng = halved(model), np.random.default_rng(0)
    space = HalvesSpace(work, HERE)
    drafts = [d for d in enumerate_drafts(space) if int(space.configuration(d)["passes"]) > 1]
    traces = [space.realize(d, rng).trace for d in (drafts[0], drafts[len(drafts) // 2], drafts[-1])]
    found = [outputs_of(model, {work.hash: t}, x.numpy(), target=HERE)[0] for t in traces]
    check(net, x, np.stack(found))


@pytest.mark.usefixtures("always")
def test_the_matrix_unit_is_asked_for_allotted_and_freed() -> None:
    work = halved(lowered(*small(), target=ELSEWHERE))
    space = HalvesSpace(work, ELSEWHERE)
    scheduled = apply_trace(module_of(work), space.realize(space.first(), np.random.default_rng(0)).trace)
    assembly = tvm.tirx.build(written_out(scheduled), target=ELSEWHERE).inspect_source("asm")
    found = re.findall("syscall|ldtilecfg|tilezero|tdpbf16ps|tilestored|tilerelease", assembly)
    assert list(dict.fromkeys(found)) == [
        "syscall", "ldtilecfg", "tilezero", "tdpbf16ps", "tilestored", "tilerelease",
    ]  # fmt: skip


@pytest.mark.usefixtures("always")
def test_nan_reaches_what_reads_it_and_an_infinity_becomes_nan() -> None:
    net, x = torch.nn.Conv2d(64, 64, 3, padding=1).eval(), torch.randn(1, 64, 12, 12)
    x[0, 3, 0, 0], x[0, 5, 11, 11] = np.nan, np.inf
    (found,) = outputs_of(lower(as_source(net, (x,)), TARGET), {}, x.numpy())
    with torch.no_grad():
        expected = net(x).isfinite().numpy()
    assert (np.isnan(found) == ~expected).all()


def test_weights_that_bfloat16_does_not_hold_stay_whole() -> None:
    weight = np.full((512, 512), 1.0, np.float32)
    assert halves.pay(ELSEWHERE, weight, 128)
    weight[0, 0] = 3.4e38
    assert not halves.pay(ELSEWHERE, weight, 128)


@pytest.mark.parametrize(
    ("shape", "places", "stride", "pays"),
    [
        ((768, 768), 128, 1, True),
        ((768, 768), 1, 1, False),  # a single row: weights are all that takes time
        ((3, 3, 256, 256), 14 * 14, 1, True),
        ((960, 320), 7 * 7, 1, False),  # weights are read once, and waited for
        ((144, 24), 56 * 56, 1, False),  # to take numbers apart takes longer
        ((1, 1, 512, 1024), 14 * 14, 4, True),
        ((7, 7, 3, 64), 112 * 112, 4, False),  # three channels leave registers empty
        ((16, 16), 16, 1, False),
    ],
)
def test_halves_are_for_large_sums(shape: tuple[int, ...], places: int, stride: int, pays: bool) -> None:
    assert halves.pay(ELSEWHERE, np.ones(shape, np.float32), places, stride) is pays
    assert not halves.pay(TARGET, np.ones(shape, np.float32), places, stride)


def test_halves_have_to_be_faster_than_winograd() -> None:
    weight = np.ones((3, 3, 32, 32), np.float32)
    assert halves.pay(ELSEWHERE, weight, 56 * 56)
    assert not halves.pay(ELSEWHERE, weight, 56 * 56, winograd=True)


def test_a_model_for_such_a_target_has_them() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(768, 768), torch.nn.ReLU()).eval()
    work = halved(lowered(net, torch.randn(128, 768), ELSEWHERE))
    assert HalvesSpace(work, ELSEWHERE).name == SPACE_NAME
