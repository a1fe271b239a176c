"""Networks of many families, none of them an example of ours, measured beside OpenVINO and ONNX Runtime.

    python -m benchmarks.zoo                               # first guesses, without a trial
    python -m benchmarks.zoo --minutes 1 --nets yolo,wav

Weights are random from a fixed seed.  Some networks are cut in depth or width, as their docstrings say, to
keep the whole quick.  Writes ``OUT/NAME.pt2``, the artifacts in ``OUT/NAME``, and ``OUT/zoo.json`` with the
fields of ``benchmarks.models`` for each path.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from autotune.errors import AutotuneError
from benchmarks.models import bench, tune

Activation = Callable[[], nn.Module]
Net = tuple[nn.Module, tuple[Tensor, ...]]


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Tensor:
        return self.function(x)


class Residual(nn.Module):
    """Layers plus a shortcut, which is the identity unless given."""

    def __init__(self, *layers: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.shortcut = shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x) + self.shortcut(x)
        return y


class Concat(nn.Module):
    """Branches over one input, joined along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Learned(nn.Module):
    """A function of the input and a parameter."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], parameter: Tensor) -> None:
        super().__init__()
        self.function = function
        self.parameter = nn.Parameter(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.parameter)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al., 2017) over [batch, length, width]."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        y: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return y


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the means of all (Hu et al., 2018)."""

    def __init__(self, channels: int, gate: Activation) -> None:
        super().__init__()
        few = channels // 4
        squeeze = (nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, few, 1), nn.ReLU())
        self.gate = nn.Sequential(*squeeze, nn.Conv2d(few, channels, 1), gate())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.gate(x)
        return y


class ShuffleUnit(nn.Module):
    """Filters half of the channels, or all at half the image size where their number grows; interleaves."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.splits = inputs == outputs
        half, stride = outputs // 2, 1 if self.splits else 2
        shrink = conv_bn(inputs, inputs, 3, 2, groups=inputs, act=None)
        self.left = nn.Identity() if self.splits else nn.Sequential(shrink, conv_bn(inputs, half, 1))
        self.right = nn.Sequential(
            conv_bn(half if self.splits else inputs, half, 1),
            conv_bn(half, half, 3, stride, groups=half, act=None),
            conv_bn(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1) if self.splits else (x, x)
        y = torch.cat([self.left(left), self.right(right)], 1)
        n, channels, height, width = y.shape
        return y.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    *,
    groups: int = 1,
    dilation: int = 1,
    act: Activation | None = nn.ReLU,
) -> nn.Sequential:
    """A convolution that keeps the image size (over the stride), batch norm and perhaps an activation."""
    padding = kernel // 2 * dilation
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), act() if act else nn.Identity())


def inverted_residual(
    inputs: int, hidden: int, outputs: int, kernel: int, stride: int, act: Activation, gate: Activation | None
) -> nn.Module:
    """Expands, filters each channel by itself, perhaps gates, and projects."""
    layers = [
        *([conv_bn(inputs, hidden, 1, act=act)] if hidden != inputs else []),
        conv_bn(hidden, hidden, kernel, stride, groups=hidden, act=act),
        *([SqueezeExcite(hidden, gate)] if gate else []),
        conv_bn(hidden, outputs, 1, act=None),
    ]
    return Residual(*layers) if stride == 1 and inputs == outputs else nn.Sequential(*layers)


def resnet_block(inputs: int, outputs: int, stride: int, *layers: nn.Module) -> nn.Sequential:
    """Layers beside a shortcut, which is projected where it must be, and ReLU."""
    same = stride == 1 and inputs == outputs
    shortcut = None if same else conv_bn(inputs, outputs, 1, stride, act=None)
    return nn.Sequential(Residual(*layers, shortcut=shortcut), nn.ReLU())


def plan(inputs: int, *stages: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
    """Inputs, outputs and stride of each block, for stages of (outputs, blocks, stride of the first)."""
    for outputs, blocks, stride in stages:
        yield inputs, outputs, stride
        yield from [(outputs, outputs, 1)] * (blocks - 1)
        inputs = outputs


def head(channels: int, classes: int = 1000) -> nn.Sequential:
    """Global average and a linear classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def mlp(width: int, hidden: int, act: nn.Module) -> nn.Sequential:
    """Two linear layers over the last axis."""
    return nn.Sequential(nn.Linear(width, hidden), act, nn.Linear(hidden, width))


def transformer_block(width: int, heads: int, causal: bool = False) -> nn.Sequential:
    """Attention and an MLP, each behind its layer norm (Radford et al., 2019)."""
    return nn.Sequential(
        Residual(nn.LayerNorm(width), Attention(width, heads, causal)),
        Residual(nn.LayerNorm(width), mlp(width, 4 * width, nn.GELU(approximate="tanh"))),
    )


def transpose() -> Apply:
    """Exchanges positions and channels of a sequence."""
    return Apply(lambda x: x.transpose(1, 2))


def channels_last(*layers: nn.Module) -> nn.Sequential:
    """Layers that see [N, H, W, C] in a network of [N, C, H, W]."""
    before, after = Apply(lambda x: x.permute(0, 2, 3, 1)), Apply(lambda x: x.permute(0, 3, 1, 2))
    return nn.Sequential(before, *layers, after)


def mbv3() -> Net:
    """MobileNetV3-small (Howard et al., 2019)."""
    # Table 2 of the paper: kernel, expanded and output channels, gate, activation, stride.
    table: list[tuple[int, int, int, Activation | None, Activation, int]] = [
        (3, 16, 16, nn.Hardsigmoid, nn.ReLU, 2),
        (3, 72, 24, None, nn.ReLU, 2),
        (3, 88, 24, None, nn.ReLU, 1),
        (5, 96, 40, nn.Hardsigmoid, nn.Hardswish, 2),
        (5, 240, 40, nn.Hardsigmoid, nn.Hardswish, 1),
        (5, 240, 40, nn.Hardsigmoid, nn.Hardswish, 1),
        (5, 120, 48, nn.Hardsigmoid, nn.Hardswish, 1),
        (5, 144, 48, nn.Hardsigmoid, nn.Hardswish, 1),
        (5, 288, 96, nn.Hardsigmoid, nn.Hardswish, 2),
        (5, 576, 96, nn.Hardsigmoid, nn.Hardswish, 1),
        (5, 576, 96, nn.Hardsigmoid, nn.Hardswish, 1),
    ]
    net = nn.Sequential(conv_bn(3, 16, 3, 2, act=nn.Hardswish))
    inputs = 16
    for kernel, hidden, outputs, gate, act, stride in table:
        net.append(inverted_residual(inputs, hidden, outputs, kernel, stride, act, gate))
        inputs = outputs
    last = (conv_bn(96, 576, 1, act=nn.Hardswish), head(576, 1024), nn.Hardswish(), nn.Linear(1024, 1000))
    return nn.Sequential(net, *last), (torch.randn(1, 3, 224, 224),)


def effnet() -> Net:
    """EfficientNet-B0 (Tan and Le, 2019), its gates squeezed to a quarter of the expanded channels."""
    # Table 1 of the paper: expansion, kernel, output channels, blocks, stride of the first.
    table = [
        (1, 3, 16, 1, 1),
        (6, 3, 24, 2, 2),
        (6, 5, 40, 2, 2),
        (6, 3, 80, 3, 2),
        (6, 5, 112, 3, 1),
        (6, 5, 192, 4, 2),
        (6, 3, 320, 1, 1),
    ]
    net = nn.Sequential(conv_bn(3, 32, 3, 2, act=nn.SiLU))
    inputs = 32
    for expansion, kernel, outputs, blocks, first in table:
        for i, o, stride in plan(inputs, (outputs, blocks, first)):
            net.append(inverted_residual(i, i * expansion, o, kernel, stride, nn.SiLU, nn.Sigmoid))
        inputs = outputs
    net.extend([conv_bn(320, 1280, 1, act=nn.SiLU), head(1280)])
    return net, (torch.randn(1, 3, 224, 224),)


def shuffle() -> Net:
    """ShuffleNetV2 1.0x (Ma et al., 2018)."""
    units = [ShuffleUnit(i, o) for i, o, _ in plan(24, (116, 4, 2), (232, 8, 2), (464, 4, 2))]
    stem = (conv_bn(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *units, conv_bn(464, 1024, 1), head(1024)), (torch.randn(1, 3, 224, 224),)


def densenet() -> Net:
    """DenseNet-121 (Huang et al., 2017), its last two stages cut to 16 and 8 layers."""

    def layer(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), conv)

    net = nn.Sequential(conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
    channels = 64
    for stage, depth in enumerate((6, 12, 16, 8)):
        if stage:
            net.extend([layer(channels, channels // 2), nn.AvgPool2d(2)])
            channels //= 2
        for _ in range(depth):
            net.append(Concat(nn.Identity(), nn.Sequential(layer(channels, 128), layer(128, 32, 3))))
            channels += 32
    net.extend([nn.BatchNorm2d(channels), nn.ReLU(), head(channels)])
    return net, (torch.randn(1, 3, 224, 224),)


def convnext() -> Net:
    """ConvNeXt-T (Liu et al., 2022) with 2, 2, 3 and 2 blocks."""

    def block(width: int) -> Residual:
        spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        scale = Learned(torch.mul, torch.full((width,), 0.1))
        return Residual(spatial, channels_last(nn.LayerNorm(width), mlp(width, 4 * width, nn.GELU()), scale))

    def stage(width: int, depth: int) -> list[nn.Module]:
        shrink = (channels_last(nn.LayerNorm(width // 2)), nn.Conv2d(width // 2, width, 2, 2))
        return [*shrink, *[block(width) for _ in range(depth)]]

    stem = (nn.Conv2d(3, 96, 4, 4), channels_last(nn.LayerNorm(96)), block(96), block(96))
    last = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(768), nn.Linear(768, 1000))
    net = nn.Sequential(*stem, *stage(192, 2), *stage(384, 3), *stage(768, 2), *last)
    return net, (torch.randn(1, 3, 192, 192),)


def mixer() -> Net:
    """MLP-Mixer-S/16 (Tolstikhin et al., 2021), 4 of its 8 layers."""
    net = nn.Sequential(nn.Conv2d(3, 512, 16, 16), nn.Flatten(2), transpose())
    for _ in range(4):
        net.append(Residual(nn.LayerNorm(512), transpose(), mlp(196, 256, nn.GELU()), transpose()))
        net.append(Residual(nn.LayerNorm(512), mlp(512, 2048, nn.GELU())))
    net.extend([Apply(lambda x: x.mean(1)), nn.Linear(512, 1000)])
    return net, (torch.randn(1, 3, 224, 224),)


def resnext() -> Net:
    """ResNeXt-50 32x4d (Xie et al., 2017) with 2, 2, 3 and 2 blocks."""
    net = nn.Sequential(conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
    for i, o, stride in plan(64, (256, 2, 1), (512, 2, 2), (1024, 3, 2), (2048, 2, 2)):
        width = o // 2
        grouped = conv_bn(width, width, 3, stride, groups=32)
        net.append(resnet_block(i, o, stride, conv_bn(i, width, 1), grouped, conv_bn(width, o, 1, act=None)))
    return net.append(head(2048)), (torch.randn(1, 3, 224, 224),)


def resbatch() -> Net:
    """ResNet-20 for CIFAR (He et al., 2015) with projected shortcuts, over a batch of 16."""
    net = nn.Sequential(conv_bn(3, 16))
    for i, o, stride in plan(16, (16, 3, 1), (32, 3, 2), (64, 3, 2)):
        net.append(resnet_block(i, o, stride, conv_bn(i, o, 3, stride), conv_bn(o, o, act=None)))
    return net.append(head(64, 10)), (torch.randn(16, 3, 32, 32),)


def c3d() -> Net:
    """C3D (Tran et al., 2015), narrow and short, over 16 frames of 64x64."""
    net = nn.Sequential()
    for inputs, outputs, frames in [(3, 32, 1), (32, 64, 2), (64, 128, 2), (128, 128, 2)]:
        conv = nn.Conv3d(inputs, outputs, 3, padding=1)
        net.extend([conv, nn.ReLU(), nn.MaxPool3d((frames, 2, 2))])
    net.extend([nn.Flatten(), nn.Linear(128 * 2 * 4 * 4, 101)])
    return net, (torch.randn(1, 3, 16, 64, 64),)


def yolo() -> Net:
    """YOLOv5n's trunk (Jocher, 2020) with one detection head."""

    def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
        return conv_bn(inputs, outputs, kernel, stride, act=nn.SiLU)

    def stage(width: int, depth: int) -> list[nn.Module]:
        half = width // 2
        blocks = [Residual(conv(half, half), conv(half, half, 3)) for _ in range(depth)]
        both = Concat(nn.Sequential(conv(width, half), *blocks), conv(width, half))
        return [conv(half, width, 3, 2), both, conv(width, width)]

    def pyramid(x: Tensor) -> Tensor:
        maps = [x]
        for _ in range(3):
            maps.append(F.max_pool2d(maps[-1], 5, 1, 2))
        return torch.cat(maps, 1)

    trunk = (conv(3, 16, 3, 2), *stage(32, 1), *stage(64, 2), *stage(128, 3), *stage(256, 1))
    net = nn.Sequential(*trunk, conv(256, 128), Apply(pyramid), conv(512, 256), nn.Conv2d(256, 255, 1))
    return net, (torch.randn(1, 3, 320, 320),)


def deeplab() -> Net:
    """DeepLabV3's atrous pyramid (Chen et al., 2017) behind a small trunk."""
    shrink = (conv_bn(3, 32, 3, 2), conv_bn(32, 64, 3, 2), conv_bn(64, 128, 3, 2))
    widen = (conv_bn(128, 128, dilation=2), conv_bn(128, 192, dilation=2))
    whole = (nn.AdaptiveAvgPool2d(1), conv_bn(192, 96, 1), nn.Upsample((32, 40), mode="bilinear"))
    atrous = [conv_bn(192, 96, dilation=dilation) for dilation in (3, 6, 9)]
    pyramid = Concat(conv_bn(192, 96, 1), *atrous, nn.Sequential(*whole))
    last = (conv_bn(5 * 96, 96, 1), nn.Conv2d(96, 21, 1), nn.Upsample(scale_factor=8, mode="bilinear"))
    return nn.Sequential(*shrink, *widen, pyramid, *last), (torch.randn(1, 3, 256, 320),)


def dcgan() -> Net:
    """DCGAN's generator (Radford et al., 2015) of 64x64 images."""

    def grow(inputs: int, outputs: int, stride: int = 2, padding: int = 1) -> list[nn.Module]:
        conv = nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    layers = (*grow(100, 512, 1, 0), *grow(512, 256), *grow(256, 128), *grow(128, 64))
    return nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1), nn.Tanh()), (torch.randn(1, 100, 1, 1),)


def espcn() -> Net:
    """ESPCN (Shi et al., 2016): three times the resolution."""
    first = (nn.Conv2d(1, 64, 5, padding=2), nn.Tanh(), nn.Conv2d(64, 32, 3, padding=1), nn.Tanh())
    net = nn.Sequential(*first, nn.Conv2d(32, 9, 3, padding=1), nn.PixelShuffle(3))
    return net, (torch.randn(1, 1, 180, 240),)


def diffusion() -> Net:
    """The residual blocks of a diffusion U-Net (Ho et al., 2020), without its skips and time embedding."""

    def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, 3, stride, padding=1)

    def norm_conv(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), conv(inputs, outputs))

    def block(inputs: int, outputs: int) -> Residual:
        shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None
        return Residual(norm_conv(inputs, outputs), norm_conv(outputs, outputs), shortcut=shortcut)

    down = (conv(4, 64), block(64, 64), conv(64, 64, 2), block(64, 128), block(128, 128), conv(128, 128, 2))
    up = (nn.Upsample(scale_factor=2), block(256, 128), nn.Upsample(scale_factor=2), block(128, 64))
    return nn.Sequential(*down, block(128, 256), *up, norm_conv(64, 4)), (torch.randn(1, 4, 32, 32),)


def style() -> Net:
    """Fast style transfer (Johnson et al., 2016) with instance norms, 2 of its 5 residual blocks."""

    def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
        pad, norm = nn.ReflectionPad2d(kernel // 2), nn.InstanceNorm2d(outputs, affine=True)
        return nn.Sequential(pad, nn.Conv2d(inputs, outputs, kernel, stride), norm)

    def block() -> Residual:
        return Residual(conv(128, 128), nn.ReLU(), conv(128, 128))

    def grow(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Upsample(scale_factor=2), conv(inputs, outputs), nn.ReLU()]

    down = (conv(3, 32, 9), nn.ReLU(), conv(32, 64, 3, 2), nn.ReLU(), conv(64, 128, 3, 2), nn.ReLU())
    last = (nn.ReflectionPad2d(4), nn.Conv2d(32, 3, 9))
    net = nn.Sequential(*down, block(), block(), *grow(128, 64), *grow(64, 32), *last)
    return net, (torch.randn(1, 3, 128, 128),)


def autoenc() -> Net:
    """A convolutional autoencoder over a batch of 8."""
    encoder = (nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU())
    decoder = (nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 3, 2, 1, 1))
    return nn.Sequential(*encoder, *decoder, nn.Sigmoid()), (torch.randn(8, 1, 64, 64),)


def gpt() -> Net:
    """GPT-2 (Radford et al., 2019) of 6 layers and width 512, over 64 tokens of 8000."""
    positions = Learned(torch.add, torch.randn(1, 64, 512) * 0.02)
    blocks = [transformer_block(512, 8, causal=True) for _ in range(6)]
    last = (nn.LayerNorm(512), nn.Linear(512, 8000, bias=False))
    net = nn.Sequential(nn.Embedding(8000, 512), positions, *blocks, *last)
    return net, (torch.randint(0, 8000, (1, 64)),)


def attn() -> Net:
    """Three transformer encoder blocks over an odd number of tokens."""
    return nn.Sequential(*[transformer_block(256, 8) for _ in range(3)]), (torch.randn(1, 389, 256),)


def conformer() -> Net:
    """Conformer-S (Gulati et al., 2020), 4 of its 16 blocks, each with one MLP behind its attention."""

    def block(width: int) -> nn.Sequential:
        gated = (nn.Conv1d(width, 2 * width, 1), nn.GLU(1))
        depthwise = nn.Conv1d(width, width, 31, padding=15, groups=width)
        filtered = (depthwise, nn.BatchNorm1d(width), nn.SiLU(), nn.Conv1d(width, width, 1))
        return nn.Sequential(
            Residual(nn.LayerNorm(width), mlp(width, 4 * width, nn.SiLU()), Apply(lambda x: x * 0.5)),
            transformer_block(width, 4),
            Residual(nn.LayerNorm(width), transpose(), *gated, *filtered, transpose()),
        )

    return nn.Sequential(*[block(144) for _ in range(4)]), (torch.randn(1, 100, 144),)


def tcn() -> Net:
    """A temporal convolutional network (Bai et al., 2018), not causal, over 400 frames of speech."""

    def block(inputs: int, outputs: int, dilation: int) -> nn.Sequential:
        first = nn.Conv1d(inputs, outputs, 3, padding=dilation, dilation=dilation)
        second = nn.Conv1d(outputs, outputs, 3, padding=dilation, dilation=dilation)
        shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None
        return nn.Sequential(Residual(first, nn.ReLU(), second, nn.ReLU(), shortcut=shortcut), nn.ReLU())

    blocks = (block(40, 128, 1), block(128, 128, 2), block(128, 128, 4), block(128, 256, 8))
    last = (nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(256, 35))
    return nn.Sequential(*blocks, *last), (torch.randn(1, 40, 400),)


def wav() -> Net:
    """wav2vec 2.0's feature encoder (Baevski et al., 2020), half as wide and without its last layer."""
    net = nn.Sequential(nn.Conv1d(1, 256, 10, 5, bias=False), nn.GroupNorm(256, 256), nn.GELU())
    for kernel in (3, 3, 3, 3, 2):
        net.extend([nn.Conv1d(256, 256, kernel, 2, bias=False), nn.GELU()])
    return net, (torch.randn(1, 1, 8000),)


def gru() -> Net:
    """A strided convolution and a GRU over frames, in the manner of Deep Speech 2 (Amodei et al., 2016)."""
    recurrent = (nn.GRU(128, 128, batch_first=True), Apply(lambda results: results[0]))
    net = nn.Sequential(nn.Conv1d(40, 128, 3, 2, 1), nn.ReLU(), transpose(), *recurrent, nn.Linear(128, 30))
    return net, (torch.randn(1, 40, 40),)


def lstm() -> Net:
    """Two layers of LSTM (Hochreiter and Schmidhuber, 1997) that classify a sequence."""
    recurrent = (nn.LSTM(64, 128, 2, batch_first=True), Apply(lambda results: results[0][:, -1]))
    return nn.Sequential(*recurrent, nn.Linear(128, 30)), (torch.randn(1, 20, 64),)


def mlpbatch() -> Net:
    """A multilayer perceptron over a batch of 64 MNIST digits."""
    layers = (nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    return nn.Sequential(*layers), (torch.randn(64, 784),)


CLASSIFIERS = (mbv3, effnet, shuffle, densenet, convnext, mixer, resnext, resbatch, c3d)
OTHER_IMAGES = (yolo, deeplab, dcgan, espcn, diffusion, style, autoenc)
SEQUENCES = (gpt, attn, conformer, tcn, wav, gru, lstm, mlpbatch)
NETS: dict[str, Callable[[], Net]] = {net.__name__: net for net in CLASSIFIERS + OTHER_IMAGES + SEQUENCES}


def export(name: str, out: Path) -> str:
    """Writes the seeded network to OUT/NAME.pt2; the path.  Batch norms get statistics as if trained."""
    torch.manual_seed(0)
    net, inputs = NETS[name]()
    for key, buffer in net.eval().named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif key.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    path = out / f"{name}.pt2"
    with torch.no_grad():
        torch.export.save(torch.export.export(net, inputs), path)
    return str(path)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--nets", default=",".join(NETS), help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=0.0, help="for each network; 0: first guesses")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/zoo"))
    options = parser.parse_args()
    names = options.nets.split(",")
    if unknown := [name for name in names if name not in NETS]:
        parser.error(f"--nets: no {', '.join(unknown)}; there are {', '.join(NETS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    results: dict[str, Any] = {}
    for name in names:
        path = export(name, options.out)
        try:
            results[path] = tune(path, options.minutes, options.out / name, console)
        except AutotuneError as error:
            console.print(f"[red]{name}[/]: {error}", highlight=False)
    bench(list(results), options.out, options.rounds, results, console, ["openvino", "onnxruntime"])
    (options.out / "zoo.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
