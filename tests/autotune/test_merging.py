"""Branches of one tensor as one kernel, of which what follows reads its part; equal to those apart."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from kernels import TARGET
from running import outputs_of
from torch import Tensor, nn

from autotune.api import as_source
from autotune.frontends.graph import Model, lower
from search.spaces import first_guess
from search.spaces.tir import module_of


class Module(nn.Module):
    """Branches as Inception's: convolutions of one image, of which some go on, and a concatenation."""

    def __init__(self, channels: tuple[int, ...], window: int = 1, last: int = 3, **more: object) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Conv2d(12, n, window, **more) for n in channels)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in channels)
        self.last = nn.ModuleList(nn.Conv2d(n, 16, last, padding=last // 2) for n in channels[1:])

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.first, self.norms, strict=True)
        begun = [torch.relu(norm(convolution(x))) for convolution, norm in pairs]
        gone_on = [last(y) for last, y in zip(self.last, begun[1:], strict=True)]
        return torch.cat([begun[0], *gone_on], dim=1)


class Apart(nn.Module):
    """Two convolutions of one image that cannot be one, or are no better for it."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why
        strides = (1, 2) if why == "strides" else (1, 1)
        self.two = nn.ModuleList(nn.Conv2d(12, 16, 1, stride) for stride in strides)
        self.then, self.few = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        one, other = (convolution(x) for convolution in self.two)
        if self.why == "joined":  # all ends up in one tensor: a concatenation is a copy already
            return (torch.cat([one, other], dim=1),)
        then: dict[str, Callable[[Tensor], Tensor]] = {
            "strides": self.then,
            "functions": lambda y: self.then(torch.sigmoid(y)),
            "a result of the model": lambda y: y,
            "a sum over all": lambda y: y.mean((1, 2, 3)),
            "a reshape": lambda y: y.flatten(2).mT @ y.flatten(2),  # moves nothing; then a product
            "a convolution of few channels": self.few,
        }
        return self.then(one), then[self.why](other)


class Attention(nn.Module):
    """Its projections are products of one matrix."""

    def __init__(self, wide: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(wide, wide) for _ in range(4))
        self.norm = nn.LayerNorm(wide)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            f(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.transpose(-1, -2) / 4.0, dim=-1)
        found = self.out((weights @ value).transpose(1, 2).reshape(x.shape))
        summed: Tensor = self.norm(x + found)
        return torch.nn.functional.gelu(self.out(summed))


def lowered(net: nn.Module, *shape: int) -> tuple[Model, Tensor]:
    torch.manual_seed(0)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    x = torch.randn(shape)
    return lower(as_source(net.eval(), (x,)), TARGET), x


def check(net: nn.Module, model: Model, x: Tensor) -> None:
    guesses = {t.workload.hash: first_guess(t.workload, TARGET) for t in model.tasks}
    found = outputs_of(model, {h: g.trace for h, g in guesses.items() if g}, x.numpy())
    exact = net.double()(x.double())
    for actual, expected in zip(found, exact if isinstance(exact, tuple) else (exact,), strict=True):
        assert np.abs(actual - expected.detach().numpy()).max() <= 1e-5 * expected.abs().max().item()


def kernels(model: Model, name: str) -> int:
    """How many calls there are of kernels of this name."""
    return sum(t.weight for t in model.tasks if name in t.name)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (Module((16, 24, 8)), (1, 12, 9, 10)),
        (Module((16, 5, 32), window=3, padding=1, bias=False), (2, 12, 7, 7)),
        (Module((16, 16), window=3, stride=2), (1, 12, 15, 15)),
        (Module((16, 64), last=1), (1, 12, 13, 13)),  # a product of the image's places
    ],
)
def test_branches_are_one_kernel_and_what_follows_reads_its_part(net: Module, shape: tuple[int, ...]) -> None:
    model, x = lowered(net, *shape)
    assert kernels(model, "conv2d") + kernels(model, "matmul") == 1 + len(net.last)
    assert kernels(model, "slice") == kernels(model, "concat") == 1  # a copy of its own for no part
    readers = [module_of(t.workload) for t in model.tasks if "of_part" in t.name]
    assert sum(t.weight for t in model.tasks if "of_part" in t.name) == len(net.last)
    assert not any('sblock("part")' in str(reader) for reader in readers)
    check(net, model, x)


WHYS = [
    "strides", "functions", "a result of the model", "a sum over all", "a reshape",
    "a convolution of few channels", "joined",
]  # fmt: skip


@pytest.mark.parametrize("why", WHYS)
def test_what_differs_or_needs_its_own_tensor_stays_apart(why: str) -> None:
    net = Apart(why)
    model, x = lowered(net, 1, 12, 8, 8)
    assert not kernels(model, "of_part") and not kernels(model, "slice")
    check(net, model, x)


class Rows(nn.Module):
    """Reshapes that products had better not see through."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = x.reshape(-1, 32)
        distances = x.reshape(1, -1, 32)[0, :, None] - x.reshape(1, 1, -1, 32)[0]
        return torch.relu(self.linear(rows)), distances.abs()


def test_rows_stay_together() -> None:
    net = Rows()
    model, x = lowered(net, 1, 6, 7, 32)
    product = next(t.workload for t in model.tasks if "matmul" in t.name)
    assert product.args[0].shape[-2] == 42  # not seven rows six times
    check(net, model, x)


def test_attention_projects_once_and_ends_no_kernel_at_a_reshape() -> None:
    net = Attention(64, 4)
    model, x = lowered(net, 1, 24, 64)
    assert kernels(model, "matmul") == 3  # projections, two linear layers
    assert kernels(model, "attention") == 1
    assert [t.name for t in model.tasks if t.name.startswith(("add", "divide", "gelu", "fused_gelu"))] == []
    check(net, model, x)
