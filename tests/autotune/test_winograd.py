"""Winograd's convolutions: chosen where they pay, and equal to the direct sum."""

import numpy as np
import pytest
import torch
import tvm
from kernels import TARGET
from tvm import relax

from autotune.api import as_source
from autotune.build import compile_model
from autotune.frontends.graph import lower
from autotune.frontends.winograd import MOST_BYTES, pays
from search.spaces.winograd import WinogradSpace


@pytest.mark.parametrize(
    ("kernel", "strides", "dilation", "output"),
    [
        ((1, 1, 64, 64), (1, 1), (1, 1), (1, 56, 56, 64)),
        ((3, 3, 64, 64), (2, 2), (1, 1), (1, 28, 28, 64)),
        ((3, 3, 64, 64), (1, 1), (2, 2), (1, 56, 56, 64)),
        ((3, 3, 3, 64), (1, 1), (1, 1), (1, 224, 224, 64)),  # transforms would cost what the products save
        ((3, 3, 64, 64), (1, 1), (1, 1), (1, 7, 7, 64)),  # 8x8 would be computed
        ((3, 3, 512, 512), (1, 1), (1, 1), (1, 28, 28, 512)),  # 38 MB of weights
    ],
)
def test_the_direct_sum_is_kept_where_winograd_does_not_pay(
    kernel: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...], output: tuple[int, ...]
) -> None:
    assert not pays(kernel, strides, dilation, output)


def test_it_pays_for_a_typical_convolution() -> None:
    assert pays((3, 3, 64, 64), (1, 1), (1, 1), (1, 56, 56, 64))
    assert MOST_BYTES > 4 * 36 * 64 * 64


class Net(torch.nn.Module):
    def __init__(self, inputs: int, outputs: int, padding: int) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(inputs, outputs, 3, padding=padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.convolution(x))


@pytest.mark.parametrize(
    ("shape", "outputs", "padding"),
    [((1, 16, 12, 12), 32, 1), ((2, 20, 23, 27), 40, 1), ((1, 24, 13, 14), 50, 0)],
)
def test_every_tile_computes_the_direct_sum(shape: tuple[int, ...], outputs: int, padding: int) -> None:
    torch.manual_seed(0)
    net, x = Net(shape[1], outputs, padding).eval(), torch.randn(shape)
    model = lower(as_source(net, (x,)), TARGET)
    task = next(t for t in model.tasks if "winograd" in t.name)
    space, rng = WinogradSpace(task.workload, TARGET), np.random.default_rng(0)
    expected = net.double()(x.double()).detach().numpy()
    for draft in [space.first(), space.sample(rng)]:
        trace = space.realize(draft, rng).trace
        machine = relax.VirtualMachine(compile_model(model, {task.workload.hash: trace}, TARGET), tvm.cpu())
        (found,) = _tensors(machine["main"](tvm.runtime.tensor(x.numpy())))
        # Measured: 3e-6 to 6e-6 for up to 64 channels; the direct sum is off by 5e-7.
        assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


def _tensors(result: object) -> list[np.ndarray]:
    return [t.numpy() for t in ([result] if hasattr(result, "numpy") else result)]  # type: ignore[attr-defined]
