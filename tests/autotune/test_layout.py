"""Channels last: what a model computes stays the same, and only what must be is transposed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import TARGET
from running import outputs_of
from torch import nn

from autotune.frontends.graph import Model, lower
from autotune.frontends.model import random_inputs
from autotune.frontends.torch import load_module
from autotune.measure.check import relative_error
from search.spaces import first_guess

Function = Callable[[torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """A convolution, something, and a convolution."""

    def __init__(self, between: Function, channels: int = 8, after: int = 8, axes: int = 2) -> None:
        super().__init__()
        kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.first, self.last = kind(3, channels, 3, padding=1), kind(after, 8, 3)
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.first(x)))  # type: ignore[no-any-return]


def shuffled(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def normalized(x: torch.Tensor) -> torch.Tensor:
    last = torch.nn.functional.layer_norm(x.permute(0, 2, 3, 1), (8,))
    return last.permute(0, 3, 1, 2) * torch.linspace(0, 1, 8)[:, None, None]


def gated(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x.mean((2, 3), keepdim=True)) + x.mean((2, 3))[:, :, None, None]


def split(x: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, 1)
    return torch.cat([b, torch.nn.functional.pad(a, (1, 1, 0, 0))[..., 1:-1], x[:, 2:4]], 1)


def linear(x: torch.Tensor) -> torch.Tensor:
    return (x.permute(0, 2, 3, 1) @ torch.linspace(-1, 1, 64).reshape(8, 8)).permute(0, 3, 1, 2)


def turned(x: torch.Tensor) -> torch.Tensor:
    """Rows and columns change places: nothing is saved."""
    return torch.softmax(x.transpose(2, 3), 1) + 1


CASES: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {
    "hard swish": (Net(nn.functional.hardswish), (2, 3, 7, 6), 2),
    "clip": (Net(lambda x: x.clamp(-0.5, 0.5)), (1, 3, 7, 6), 2),
    "selection": (Net(lambda x: torch.where(x > 0, x, x * torch.ones(8, 1, 1))), (1, 3, 7, 6), 2),
    "gate": (Net(gated), (2, 3, 7, 6), 2),
    "channel shuffle": (Net(shuffled), (2, 3, 7, 6), 3),
    "layer norm": (Net(normalized), (2, 3, 7, 6), 2),
    "group norm": (Net(nn.GroupNorm(2, 8)), (2, 3, 7, 6), 2),
    "mirrored edges": (Net(nn.ReflectionPad2d((1, 2, 2, 1))), (1, 3, 7, 6), 2),
    "instance norm": (Net(nn.InstanceNorm2d(8, affine=True)), (1, 3, 7, 6), 2),
    "norm of one axis": (Net(nn.GroupNorm(4, 8), axes=1), (2, 3, 14), 2),
    "split and joined": (Net(split, after=10), (2, 3, 7, 6), 2),
    "product": (Net(linear), (2, 3, 7, 6), 2),
    "pooling": (Net(nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 1))), (2, 3, 9, 8), 2),
    "larger": (Net(nn.Upsample(scale_factor=2, mode="bilinear")), (1, 3, 5, 4), 2),
    "pixel shuffle": (Net(nn.PixelShuffle(2), after=2), (2, 3, 5, 4), 3),
    "rows for columns": (Net(turned), (2, 3, 7, 6), 3),
    "one axis": (Net(nn.Sequential(nn.ReLU(), nn.MaxPool1d(2)), axes=1), (2, 3, 14), 2),
    "three axes": (Net(nn.Sequential(nn.ReLU(), nn.MaxPool3d(2)), axes=3), (2, 3, 6, 7, 6), 2),
    "one place": (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
        (1, 3, 7, 6), 1,
    ),
    "all turned at once": (Net(lambda x: x.mT.contiguous().mT), (1, 3, 7, 6), 2),
}  # fmt: skip


def lowered(module: nn.Module, shape: tuple[int, ...]) -> Model:
    return lower(load_module(module.eval(), (torch.zeros(shape),)), TARGET)


def error_of(model: Model) -> float:
    """With first guesses, against PyTorch."""
    guesses = {t.workload.hash: first_guess(t.workload, TARGET) for t in model.tasks}
    inputs = random_inputs(model.inputs)
    outputs = outputs_of(model, {h: g.trace for h, g in guesses.items() if g}, *inputs)
    expected = model.source.reference(inputs)
    assert [o.shape for o in outputs] == [e.shape for e in expected]
    return max(relative_error(o, e) for o, e in zip(outputs, expected, strict=True))


ALIKE = {"clip", "instance norm", "norm of one axis", "larger", "pixel shuffle", "three axes"}  # as another


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in CASES]
)
def test_little_is_transposed_and_all_is_right(name: str) -> None:
    module, shape, most = CASES[name]
    model = lowered(module, shape)
    assert sum(t.weight for t in model.tasks if "transpose" in t.workload.name) <= most
    assert error_of(model) < 1e-5


def test_an_output_besides_is_as_the_model_has_it() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(nn.functional.relu)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = self.net.first(x)
            return y, *y.split(3, 1), self.net.last(y).flatten(1)

    assert error_of(lowered(Two(), (2, 3, 7, 6))) < 1e-5


class Residual(nn.Module):
    """Windows of one place beside others, with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.window, self.wide = (
            nn.Conv2d(32, 16, 1),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.Conv2d(16, 32, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(x)
        y = self.wide(torch.relu(self.window(torch.relu(self.narrow(x)))))
        z = torch.relu(x + y)
        return self.narrow(z * torch.sigmoid(z.mean((2, 3), keepdim=True))) * z[:, :16]


@pytest.mark.parametrize("images", [1, 2])
def test_places_of_an_image_are_rows_of_a_product_where_lines_are_awkward(images: int) -> None:
    model = lowered(Residual(), (images, 32, 13, 13))
    names = [t.workload.name for t in model.tasks for _ in range(t.weight)]
    assert sum(n.startswith("matmul") for n in names) == 3
    assert sum(n.startswith(("conv2d", "transpose")) for n in names) <= 3
    assert error_of(model) < 1e-5


OPERATIONS: dict[str, Function] = {
    "clip": lambda x: x.clamp(-0.5, 0.5),
    "shuffle": shuffled,
    "gate": gated,
    "turn": turned,
    "pool": lambda x: nn.functional.max_pool2d(x, 3, 1, 1),
    "split": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "flatten": lambda x: x.flatten(2).softmax(-1).view(x.shape),
    "mirror": lambda x: x.permute(0, 3, 1, 2).permute(0, 2, 3, 1) + x,
    "sum": lambda x: x + x.sum(1, keepdim=True),
    "stack": lambda x: torch.stack([x, -x], 2).flatten(1, 2)[:, ::2],
}


@settings(max_examples=4, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=5), st.integers(1, 2),
    st.sampled_from([5, 7, 13]),
)  # fmt: skip
def test_any_order_of_operations_computes_what_it_did(names: list[str], images: int, size: int) -> None:
    def between(x: torch.Tensor) -> torch.Tensor:
        for name in names:
            x = OPERATIONS[name](x)
        return x

    assert error_of(lowered(Net(between), (images, 3, size, size))) < 2e-5


def test_numbers_stay_in_their_places() -> None:
    """A transposition twice over is none."""
    model = lowered(Net(lambda x: x.permute(2, 3, 0, 1).permute(2, 3, 0, 1)), (1, 3, 7, 6))
    (actual,) = outputs_of(model, {}, *random_inputs(model.inputs))
    np.testing.assert_allclose(
        actual, model.source.reference(random_inputs(model.inputs))[0], rtol=1e-4, atol=1e-5
    )
