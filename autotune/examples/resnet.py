"""ResNet-18 and ResNet-50."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion: ClassVar[int] = 1
    # Sums of many branches grow: the last convolution of each is seeded small.
    init_gains: ClassVar[dict[str, float]] = {"conv2": 0.5}

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width * self.expansion, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps `inputs` channels to `width` channels."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        output: Tensor = self.relu(y + self.shortcut(x))
        return output


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the stride is in the 3x3 ("v1.5")."""

    expansion: ClassVar[int] = 4
    init_gains: ClassVar[dict[str, float]] = {"conv3": 0.5}

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps `inputs` channels to four times `width` channels."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        output: Tensor = self.relu(y + self.shortcut(x))
        return output


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride, bias=False),
        nn.BatchNorm2d(outputs),
    )


class ResNet(nn.Module):
    """Residual network of He et al., "Deep Residual Learning for Image Recognition" (2015).

    The bottleneck differs from the paper's in where it strides: in the 3x3
    convolution rather than in the first 1x1, as is now usual.
    """

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], depths: Sequence[int], classes: int = 1000
    ) -> None:
        """Lays out the network.

        Args:
            block: The residual block to repeat.
            depths: Number of blocks in each stage; the width doubles from one stage to the next.
            classes: Number of logits.
        """
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stages = nn.Sequential()
        channels = 64
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                self.stages.append(block(channels, width, stride))
                channels = width * block.expansion
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Maps [batch, 3, 224, 224] to logits [batch, classes]."""
        x = self.stages(self.stem(image))
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits


def resnet18() -> ResNet:
    """Builds ResNet-18 for 1000 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2))


def resnet50() -> ResNet:
    """Builds ResNet-50 v1.5 for 1000 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3))
