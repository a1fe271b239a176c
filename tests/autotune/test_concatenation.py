"""Convolutions of concatenated channels: taken apart where that moves less, and equal to the whole."""

import numpy as np
import pytest
import torch
from kernels import TARGET
from running import outputs_of
from torch import Tensor, nn

from autotune.api import as_source
from autotune.frontends.graph import Model, lower


class Joined(nn.Module):
    """A convolution of what other convolutions gave, side by side."""

    def __init__(
        self, parts: tuple[int, ...], channels: int, pooling: bool = False, twice: bool = False
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(3, n, 3, padding=1) for n in parts)
        self.last = nn.Conv2d(sum(parts), channels, 1)
        self.pooling, self.twice = pooling, twice

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([torch.relu(part(x)) for part in self.parts], dim=1)
        pooled = nn.functional.max_pool2d(joined, 3, stride=2, ceil_mode=True) if self.pooling else joined
        last: Tensor = torch.relu(self.last(pooled))
        return last + joined.mean() if self.twice else last


def lowered(net: nn.Module) -> tuple[Model, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 10, 11)
    return lower(as_source(net.eval(), (x,)), TARGET), x


def joins(model: Model) -> int:
    return sum("concat" in t.name for t in model.tasks)


@pytest.mark.parametrize("pooling", [False, True])
@pytest.mark.parametrize("parts", [(32, 32), (48, 16), (32, 64, 48)])
def test_parts_are_convolved_apart_and_added(parts: tuple[int, ...], pooling: bool) -> None:
    net = Joined(parts, 16, pooling)
    model, x = lowered(net)
    assert not joins(model)
    assert sum("transpose" in t.name for t in model.tasks) <= 2  # at the ends: all else is channels last
    (found,) = outputs_of(model, {}, x.numpy())
    expected = net.double()(x.double()).detach().numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    "net",
    [
        Joined((32, 32), 64),  # the sums would be as large as what is joined
        Joined((56, 8), 16),  # eight channels are no work for a kernel
        Joined((32, 32), 16, twice=True),  # something else needs it joined
    ],
)
def test_a_concatenation_stays_where_it_does_not_cost_more_or_is_needed(net: Joined) -> None:
    assert joins(lowered(net)[0]) == 1
