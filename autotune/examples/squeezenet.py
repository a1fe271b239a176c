"""SqueezeNet 1.1."""

import torch
from torch import Tensor, nn


class Fire(nn.Module):
    """A 1x1 squeeze convolution, then 1x1 and 3x3 expansions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps `inputs` channels to twice `expand` channels."""
        squeezed = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.expand1x1(squeezed)), self.relu(self.expand3x3(squeezed))], dim=1)


class SqueezeNet(nn.Module):
    """SqueezeNet of Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters" (2016).

    This is the authors' later version 1.1, which computes 2.4 times less than
    the paper's.  It has no batch norm.  Dropout is left out: the network is for inference.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(
            nn.Conv2d(512, classes, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Maps [batch, 3, 224, 224] to logits [batch, classes]."""
        logits: Tensor = self.classifier(self.features(image))
        return logits


def squeezenet() -> SqueezeNet:
    """Builds SqueezeNet 1.1 for 1000 classes."""
    return SqueezeNet()
