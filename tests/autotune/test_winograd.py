"""Winograd's convolutions: chosen where they pay, and equal to the direct sum."""

import numpy as np
import pytest
import torch
import tvm
from kernels import TARGET
from tvm import relax

from autotune.api import as_source
from autotune.build import compile_model
from autotune.frontends import winograd
from autotune.frontends.graph import lower
from autotune.frontends.winograd import FORMS, Form, form_for
from search.spaces.winograd import WinogradSpace

ONES = (1, 1)


@pytest.mark.parametrize(
    ("kernel", "strides", "dilation", "output"),
    [
        ((1, 1, 64, 64), ONES, ONES, (1, 56, 56, 64)),
        ((3, 3, 64, 64), (2, 2), ONES, (1, 28, 28, 64)),
        ((3, 3, 64, 64), ONES, (2, 2), (1, 56, 56, 64)),
        ((3, 3, 3, 64), ONES, ONES, (1, 224, 224, 64)),  # three channels leave vectors empty
        ((3, 3, 16, 32), ONES, ONES, (1, 7, 7, 32)),  # stages would cost what the products save
        ((3, 3, 512, 512), ONES, ONES, (1, 7, 7, 512)),  # 17 or 38 MB of weights
    ],
)
def test_the_direct_sum_is_kept_where_winograd_does_not_pay(
    kernel: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...], output: tuple[int, ...]
) -> None:
    assert form_for(kernel, strides, dilation, output) is None


def test_tiles_are_large_where_they_fit_and_small_where_weights_would_grow_most() -> None:
    large, small = (
        form_for((3, 3, n, n), ONES, ONES, (1, extent, extent, n)) for n, extent in ((64, 56), (256, 14))
    )
    assert large is not None and large.out == 4
    assert small is not None and small.out == 2


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f"F{f.out}")
def test_a_form_convolves_a_tile(form: Form) -> None:
    """Lavin and Gray, equation 7, with numbers that doubles hold exactly."""
    rng = np.random.default_rng(0)
    tile, kernel = (rng.integers(-8, 8, (n, n)).astype(float) for n in (form.taken, 3))
    b, a, g = (np.array(m) for m in (form.inputs, form.outputs, form.weights))
    found = a @ ((g @ kernel @ g.T) * (b @ tile @ b.T)) @ a.T
    direct = [[(tile[y : y + 3, x : x + 3] * kernel).sum() for x in range(form.out)] for y in range(form.out)]
    np.testing.assert_allclose(found, direct, atol=1e-9)


class Net(torch.nn.Module):
    def __init__(self, inputs: int, outputs: int, padding: int) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(inputs, outputs, 3, padding=padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.convolution(x))


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f"F{f.out}")
@pytest.mark.parametrize(
    ("shape", "outputs", "padding"),
    [((1, 16, 12, 12), 32, 1), ((2, 20, 23, 27), 40, 1), ((1, 24, 13, 14), 50, 0)],
)
def test_every_tile_computes_the_direct_sum(
    shape: tuple[int, ...], outputs: int, padding: int, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "form_for", lambda *_: form)
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
