"""Winograd's convolutions: chosen where they pay, and equal to the direct sum."""

import itertools
from collections import defaultdict

import numpy as np
import pytest
import torch
from kernels import TARGET
from running import outputs_of

from autotune.api import as_source
from autotune.frontends import winograd
from autotune.frontends.graph import lower
from autotune.frontends.winograd import Axis, Form, form_for
from search.space import Draft, enumerate_drafts
from search.spaces.winograd import WinogradSpace
from search.vectors import Vectors

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
    assert large == Form(Axis(3, 6), Axis(3, 6))
    assert small == Form(Axis(3, 4), Axis(3, 6))


def test_an_axis_without_a_window_stays_as_it_is() -> None:
    assert form_for((1, 5, 256, 512), ONES, ONES, (1, 1, 252, 512)) == Form(Axis(1, 1), Axis(5, 6))


AXES = [Axis(window, taken) for taken in (4, 6) for window in range(2, taken)] + [Axis(1, 1)]


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_matrices_convolve_a_tile(axis: Axis) -> None:
    """Lavin and Gray, equation 5, with numbers that doubles hold."""
    rng = np.random.default_rng(0)
    tile, window = (rng.integers(-8, 8, n).astype(float) for n in (axis.taken, axis.window))
    found = np.array(axis.outputs) @ ((axis.weights @ window) * (np.array(axis.inputs) @ tile))
    np.testing.assert_allclose(found, np.correlate(tile, window, "valid"), atol=1e-9)


class Net(torch.nn.Module):
    def __init__(self, inputs: int, outputs: int, window: tuple[int, int], padding: int) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(inputs, outputs, window, padding=padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.convolution(x))


SMALL, LARGE, FIVE, NONE = Axis(3, 4), Axis(3, 6), Axis(5, 6), Axis(1, 1)


FORMS = [
    Form(LARGE, LARGE), Form(SMALL, SMALL), Form(SMALL, LARGE),
    Form(FIVE, FIVE), Form(NONE, FIVE), Form(LARGE, NONE),
]  # fmt: skip
SHAPES = [
    ((1, 16, 12, 12), 32, 1), ((2, 20, 23, 27), 40, 1), ((1, 24, 13, 14), 50, 0), ((2, 20, 23, 27), 64, 1)
]  # fmt: skip
PAIRS = list(itertools.product(enumerate(FORMS), enumerate(SHAPES)))


def drafts_of_each_kind(space: WinogradSpace) -> dict[tuple[bool, bool], list[Draft]]:
    """By whether cores take parts through all stages, and whether those are of some channels only."""
    found = defaultdict[tuple[bool, bool], list[Draft]](list)
    for draft in enumerate_drafts(space):
        knobs = space.configuration(draft)
        found[bool(knobs["rows"]), knobs["shares"] != 1].append(draft)
    return found


@pytest.mark.parametrize(
    ("form", "shape", "outputs", "padding"),
    [
        pytest.param(form, *shape, id=f"{form}-{n}", marks=() if (m + n) % 3 == 0 else pytest.mark.slow)
        for (m, form), (n, shape) in PAIRS
    ],
)
def test_every_tile_computes_the_direct_sum(
    form: Form, shape: tuple[int, ...], outputs: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "form_for", lambda *_: form)
    torch.manual_seed(0)
    net = Net(shape[1], outputs, (form.rows.window, form.columns.window), padding).eval()
    x = torch.randn(shape)
    model = lower(as_source(net, (x,)), TARGET)
    task = next(t for t in model.tasks if "winograd" in t.name)
    space, rng = WinogradSpace(task.workload, TARGET), np.random.default_rng(0)
    expected = net.double()(x.double()).detach().numpy()
    each = [draft for kind in drafts_of_each_kind(space).values() for draft in (kind[0], kind[-1])]
    for draft in {space.first(), space.sample(rng), *each}:
        trace = space.realize(draft, rng).trace
        (found,) = outputs_of(model, {task.workload.hash: trace}, x.numpy())
        # Measured: 3e-6 to 6e-6 for up to 64 channels; the direct sum is off by 5e-7.
        assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


def test_an_image_of_which_channels_are_left_out_is_not_cut_into_parts() -> None:
    lanes, kinds = Vectors.of(TARGET, "float32").lanes, list[set[tuple[bool, bool]]]()
    for outputs in (16 * lanes, 16 * lanes - 1):
        net = Net(16, outputs, (3, 3), 1).eval()
        model = lower(as_source(net, (torch.randn(1, 16, 28, 28),)), TARGET)
        (task,) = (t for t in model.tasks if "winograd" in t.name)
        kinds.append(set(drafts_of_each_kind(WinogradSpace(task.workload, TARGET))))
    assert kinds == [{(False, False), (True, False), (True, True)}, {(False, False)}]
