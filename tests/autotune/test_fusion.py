"""Fusion leaves sums of products their tiles."""

import numpy as np
import pytest
import torch
from kernels import TARGET
from running import outputs_of
from torch import Tensor, nn

from autotune.api import as_source
from autotune.frontends.graph import lower
from search.spaces import first_guess, template_of
from search.spaces.contraction import ContractionSpace
from search.spaces.winograd import WinogradSpace


class Head(nn.Module):
    """The end of a detector: boxes by place, not by channel."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(32, channels, 3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.relu(self.convolution(x)).permute(0, 3, 2, 1)
        return found.reshape(1, -1, 2)


@pytest.mark.parametrize(
    ("channels", "stride", "template"),
    [(32, 2, ContractionSpace), (6, 1, ContractionSpace), (32, 1, WinogradSpace)],
)
def test_what_is_moved_after_a_convolution_is_moved_by_a_kernel_of_its_own(
    channels: int, stride: int, template: type
) -> None:
    torch.manual_seed(0)
    net, x = Head(channels, stride).eval(), torch.randn(1, 32, 9, 10)
    model = lower(as_source(net, (x,)), TARGET)
    convolution = next(t for t in model.tasks if "conv2d" in t.name)
    assert "relu" in convolution.name
    assert isinstance(template_of(convolution.workload, TARGET), template)
    guesses = {t.workload.hash: first_guess(t.workload, TARGET) for t in model.tasks}
    traces = {hash_: guess.trace for hash_, guess in guesses.items() if guess}
    (found,) = outputs_of(model, traces, x.numpy())
    expected = net.double()(x.double()).detach().numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
