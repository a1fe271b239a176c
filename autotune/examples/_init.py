"""Seeded weights for the example networks."""

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def seed_weights(module: nn.Module, seed: int) -> None:
    """Overwrites every parameter and buffer of a network with seeded values.

    Convolutions and linear layers are drawn as in He et al., "Delving Deep into
    Rectifiers" (2015), so that activations keep their scale through the network:
    uniform with variance gain^2 / fan_in, where gain^2 is 2 for a convolution and
    1 for a linear layer.  A module may name other gains for its children in a class
    attribute `init_gains`, for instance for the layer that ends a residual branch.

    Normalisation layers get scales, shifts and running statistics far from the
    identity, so that folding them wrongly changes the result.

    The numbers come from a generator of their own, not from torch's global ones.

    Args:
        module: The network, on the CPU; its values need not be initialised.
        seed: Seed of the generator.

    Raises:
        TypeError: If a layer with parameters or buffers is of a kind not known here.
    """
    generator = torch.Generator().manual_seed(seed)
    gains: dict[nn.Module, float] = {}
    for parent in module.modules():
        for child, gain in getattr(parent, "init_gains", {}).items():
            gains[parent.get_submodule(child)] = gain

    for layer in module.modules():
        match layer:
            case nn.Conv2d():
                _fill_affine(layer.weight, layer.bias, gains.get(layer, math.sqrt(2.0)), generator)
            case nn.Linear():
                _fill_affine(layer.weight, layer.bias, gains.get(layer, 1.0), generator)
            case nn.Embedding():
                layer.weight.normal_(generator=generator)
            case nn.BatchNorm2d() | nn.LayerNorm():
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.normal_(std=0.1, generator=generator)
                if isinstance(layer, nn.BatchNorm2d):
                    _fill_statistics(layer, generator)
            case _ if any(True for _ in layer.parameters(recurse=False)) or any(
                True for _ in layer.buffers(recurse=False)
            ):
                raise TypeError(f"no seeded initialisation for a layer of type {type(layer).__name__}")


def _fill_affine(weight: Tensor, bias: Tensor | None, gain: float, generator: torch.Generator) -> None:
    fan_in = weight[0].numel()
    bound = gain * math.sqrt(3.0 / fan_in)
    weight.uniform_(-bound, bound, generator=generator)
    if bias is not None:
        bias.uniform_(-0.1, 0.1, generator=generator)


def _fill_statistics(layer: nn.BatchNorm2d, generator: torch.Generator) -> None:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    layer.running_mean.normal_(std=0.1, generator=generator)
    layer.running_var.uniform_(0.5, 1.5, generator=generator)
    layer.num_batches_tracked.zero_()
