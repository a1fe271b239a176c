"""A three-layer perceptron of the size usual for handwritten digits."""

from torch import Tensor, nn


class Mlp(nn.Module):
    """784 -> 512 -> 256 -> 10 with ReLU.

    Fully connected networks on 28x28 digits are the baselines of LeCun et al.,
    "Gradient-Based Learning Applied to Document Recognition" (1998).
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(784, 512),
            nn.ReLU(),
            nn.Linear(512, 256),
            nn.ReLU(),
            nn.Linear(256, 10),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Maps [batch, 784] to logits [batch, 10]."""
        logits: Tensor = self.layers(features)
        return logits


def mlp() -> Mlp:
    """Builds the perceptron."""
    return Mlp()
