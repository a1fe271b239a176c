"""Networks whose kernels are worth knowing: the examples, and made-up ones of shapes near to what is usual.

A made-up network is a bunch of short branches, each with an input of its own; lowered like any other model,
it gives the kernels that real networks would have: packed, fused, filled up to whole vectors.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from autotune.frontends import load_model
from autotune.frontends.model import SourceModel
from autotune.frontends.torch import load_module

TRAINING = ("resnet18", "mobilenet_v2", "squeezenet", "bert_base", "mlp")
"""Networks to learn from."""

HELD_OUT = ("inception_v1", "resnet50")
"""Networks to judge by: nothing is trained, tuned or chosen on them, nor on a kernel that they share."""

BRANCHES = 12

_CHANNELS = (8, 16, 24, 32, 48, 64, 96, 112, 128, 160, 192, 256, 320, 384, 512)
_PIXELS = (7, 8, 10, 13, 14, 20, 27, 28, 35, 40, 52, 56, 80, 112)
_TOKENS = (1, 16, 49, 64, 77, 128, 196, 256, 384)
_FEATURES = (64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072)
_ACTIVATIONS: tuple[type[nn.Module], ...] = (nn.Identity, nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU)
_MOST_FLOP = 6e8  # of a branch: slow ones cost time and teach no more
_MOST_ELEMENTS = 1 << 21

T = TypeVar("T")


class Product(nn.Module):
    """A matrix with itself transposed, as attention has it, and the softmax of that."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x @ x.transpose(-1, -2) / math.sqrt(x.shape[-1]), -1) @ x


class Residual(nn.Module):
    """What another module makes of its input, added to that."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.inner(x)
        return y


class Branches(nn.Module):
    """Modules side by side, each with an input and an output."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(branch(x) for branch, x in zip(self.branches, inputs, strict=True))


def networks(names: Sequence[str], neighbours: int, seed: int = 0) -> Iterator[SourceModel]:
    """Models by name or path, then made-up ones; each is built when it is asked for.

    Args:
        neighbours: How many made-up networks; the n-th of a seed is always the same.
    """
    for name in names:
        yield load_model(name)
    for number in range(neighbours):
        yield neighbour(seed, number)


def neighbour(seed: int, number: int) -> SourceModel:
    """A made-up network."""
    rng = np.random.default_rng([seed, number])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        made = [_branch(rng) for _ in range(BRANCHES)]
        inputs = [torch.randn(shape) for _, shape in made]
    return load_module(Branches([module for module, _ in made]).eval(), inputs, f"neighbour-{seed}-{number}")


def _branch(rng: np.random.Generator) -> tuple[nn.Module, tuple[int, ...]]:
    """A module and the shape of its input."""
    while True:
        make = _KINDS[int(rng.choice(len(_KINDS), p=_SHARES))]
        module, shape, flop = make(rng)
        if flop <= _MOST_FLOP and math.prod(shape) <= _MOST_ELEMENTS:
            return module, shape


_Made = tuple[nn.Module, tuple[int, ...], float]


def _pick(rng: np.random.Generator, values: Sequence[T]) -> T:
    return values[int(rng.integers(len(values)))]


def _convolution(rng: np.random.Generator) -> _Made:
    inputs, outputs, pixels = _pick(rng, (3, *_CHANNELS)), _pick(rng, _CHANNELS), _pick(rng, _PIXELS)
    size = _pick(rng, (1, 1, 3, 3, 5, 7))
    stride, dilation = _pick(rng, (1, 1, 1, 2)), _pick(rng, (1, 1, 1, 2)) if size == 3 else 1
    padding = dilation * (size // 2)
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding, dilation)
    module: nn.Module = nn.Sequential(convolution, _pick(rng, _ACTIVATIONS)())
    if inputs == outputs and stride == 1 and rng.random() < 0.5:
        module = Residual(module)
    return module, (1, inputs, pixels, pixels), 2 * inputs * outputs * (pixels / stride * size) ** 2


def _grouped(rng: np.random.Generator) -> _Made:
    channels, pixels, size = _pick(rng, _CHANNELS[2:]), _pick(rng, _PIXELS), _pick(rng, (3, 3, 5, 7))
    groups, stride = _pick(rng, (channels, channels, channels, 4)), _pick(rng, (1, 1, 2))
    convolution = nn.Conv2d(channels, channels, size, stride, size // 2, groups=groups)
    flop = 2 * channels * channels / groups * (pixels / stride * size) ** 2
    return nn.Sequential(convolution, _pick(rng, _ACTIVATIONS)()), (1, channels, pixels, pixels), flop


def _linear(rng: np.random.Generator) -> _Made:
    tokens, inputs, outputs = _pick(rng, _TOKENS), _pick(rng, _FEATURES), _pick(rng, (10, *_FEATURES, 1000))
    module = nn.Sequential(nn.Linear(inputs, outputs), _pick(rng, _ACTIVATIONS)())
    return module, (1, tokens, inputs), 2.0 * tokens * inputs * outputs


def _attention(rng: np.random.Generator) -> _Made:
    heads, tokens, depth = _pick(rng, (1, 2, 4, 8, 12)), _pick(rng, _TOKENS[1:]), _pick(rng, (32, 64, 96))
    return Product(), (heads, tokens, depth), 4.0 * heads * tokens * tokens * depth


def _pooling(rng: np.random.Generator) -> _Made:
    channels, pixels, size = _pick(rng, _CHANNELS), _pick(rng, _PIXELS), _pick(rng, (2, 3))
    stride = _pick(rng, (1, 2, 2))
    module = _pick(
        rng,
        (nn.MaxPool2d(size, stride), nn.AvgPool2d(size, stride), nn.AdaptiveAvgPool2d(1)),
    )
    return module, (1, channels, pixels, pixels), float(channels * (pixels * size) ** 2)


def _norm(rng: np.random.Generator) -> _Made:
    tokens, features = _pick(rng, _TOKENS), _pick(rng, _FEATURES)
    module = _pick(rng, (nn.LayerNorm(features), nn.Softmax(-1), Residual(nn.LayerNorm(features))))
    return module, (1, tokens, features), 8.0 * tokens * features


def _elementwise(rng: np.random.Generator) -> _Made:
    channels, pixels = _pick(rng, _CHANNELS), _pick(rng, _PIXELS)
    chain = [_pick(rng, (nn.ReLU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.GELU))() for _ in range(3)]
    return Residual(nn.Sequential(*chain)), (1, channels, pixels, pixels), 30.0 * channels * pixels**2


_KINDS = (_convolution, _grouped, _linear, _attention, _pooling, _norm, _elementwise)
_SHARES = (0.4, 0.12, 0.2, 0.1, 0.06, 0.07, 0.05)
