"""Inception v1 (GoogLeNet)."""

import torch
from torch import Tensor, nn


def conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the image size (over the stride), batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, eps=0.001),
        nn.ReLU(),
    )


class Inception(nn.Module):
    """Four branches side by side, their channels concatenated.

    The third branch is the paper's "5x5", which torchvision builds with a 3x3
    convolution, a known bug kept for its published weights; so does this one.
    """

    def __init__(
        self, inputs: int, ch1x1: int, ch3x3: tuple[int, int], ch5x5: tuple[int, int], pool_proj: int
    ) -> None:
        """Lays out the branches.

        Args:
            inputs: Channels of the input.
            ch1x1: Channels of the 1x1 branch.
            ch3x3: Channels of the 3x3 branch after its 1x1 reduction, and at its end.
            ch5x5: The same for the "5x5" branch.
            pool_proj: Channels of the 1x1 projection after max pooling.
        """
        super().__init__()
        self.branch1 = conv_bn_relu(inputs, ch1x1, 1)
        self.branch2 = nn.Sequential(conv_bn_relu(inputs, ch3x3[0], 1), conv_bn_relu(*ch3x3, 3))
        self.branch3 = nn.Sequential(conv_bn_relu(inputs, ch5x5[0], 1), conv_bn_relu(*ch5x5, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_bn_relu(inputs, pool_proj, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the image size."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class InceptionV1(nn.Module):
    """GoogLeNet of Szegedy et al., "Going Deeper with Convolutions" (2014), for inference.

    As in torchvision's googlenet, batch norm follows each convolution and local
    response normalisation is gone.  The auxiliary heads and dropout, which only
    training uses, are left out.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_bn_relu(3, 64, 7, stride=2),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            conv_bn_relu(64, 64, 1),
            conv_bn_relu(64, 192, 3),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Inception(192, 64, (96, 128), (16, 32), 32),
            Inception(256, 128, (128, 192), (32, 96), 64),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Inception(480, 192, (96, 208), (16, 48), 64),
            Inception(512, 160, (112, 224), (24, 64), 64),
            Inception(512, 128, (128, 256), (24, 64), 64),
            Inception(512, 112, (144, 288), (32, 64), 64),
            Inception(528, 256, (160, 320), (32, 128), 128),
            nn.MaxPool2d(2, stride=2, ceil_mode=True),
            Inception(832, 256, (160, 320), (32, 128), 128),
            Inception(832, 384, (192, 384), (48, 128), 128),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1024, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Maps [batch, 3, 224, 224] to logits [batch, classes]."""
        logits: Tensor = self.classifier(self.pool(self.features(image)).flatten(1))
        return logits


def inception_v1() -> InceptionV1:
    """Builds Inception v1 for 1000 classes."""
    return InceptionV1()
