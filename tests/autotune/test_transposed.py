"""Transposed convolutions: what they compute stays the same, without products of zeros in between."""

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernels import TARGET
from running import outputs_of
from torch import nn

from autotune.frontends.graph import Model, lower
from autotune.frontends.model import random_inputs
from autotune.frontends.torch import load_module
from autotune.measure.check import relative_error
from search.spaces import first_guess


def lowered(module: nn.Module, *shape: int) -> Model:
    return lower(load_module(module.eval(), (torch.zeros(shape),)), TARGET)


def check(model: Model) -> None:
    guesses = {t.workload.hash: first_guess(t.workload, TARGET) for t in model.tasks}
    inputs = random_inputs(model.inputs)
    (actual,) = outputs_of(model, {h: g.trace for h, g in guesses.items() if g}, *inputs)
    (expected,) = model.source.reference(inputs)
    assert actual.shape == expected.shape
    assert relative_error(actual, expected) < 1e-5


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_no_more_work_than_the_weights_have(stride: int) -> None:
    """And a norm that follows is folded into the weights."""
    upwards = nn.ConvTranspose2d(16, 16, 2 * stride, stride, stride // 2, bias=False)
    model = lowered(nn.Sequential(upwards, nn.BatchNorm2d(16), nn.ReLU()), 1, 16, 8, 8)
    check(model)
    work = max(t.workload.flop for t in model.tasks)
    places = (8 + 2) ** 2  # at most, of the convolution
    assert work < 1.2 * 2 * places * 16 * 16 * (2 * stride) ** 2 + 5 * places * 16 * stride**2
    assert not any("divide" in t.name or "sqrt" in t.name for t in model.tasks)


@st.composite
def transposed(draw: Any) -> tuple[nn.Module, tuple[int, ...]]:
    axes, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    size, stride, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    padding, more = (
        draw(st.integers(0, (size - 1) * dilation)),
        draw(st.integers(0, stride - 1)),
    )
    extents = draw(st.tuples(*[st.integers(1, 6)] * axes))
    reach = (size - 1) * dilation + more + 1 - 2 * padding
    assume(all((extent - 1) * stride + reach > 0 for extent in extents))
    inputs, outputs = groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 9))
    kind: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d)[axes - 1]
    torch.manual_seed(0)
    module = kind(inputs, outputs, size, stride, padding, more, groups, dilation=dilation)
    return module, (draw(st.integers(1, 2)), inputs, *extents)


@settings(max_examples=5, deadline=None)
@given(transposed())
def test_any_is_right(case: tuple[nn.Module, tuple[int, ...]]) -> None:
    module, shape = case
    check(lowered(module, *shape))
