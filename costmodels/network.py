"""What the neural cost models share: outputs, the blocks that they are made of, the batches they take."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from costmodels.data import Group
from costmodels.metrics import ScoredTask

AT_ONCE = 2048  # candidates predicted
LEAST_SCALE = 0.1


class Outputs(NamedTuple):
    """What a network says of each row, each of shape [rows].

    Attributes:
        log_s: Natural logarithm of the latency in seconds: of a candidate, or of the best that a prefix of
            decisions can become.
        spread: Scale of the Laplace distribution that ``log_s`` is the middle of.
        works: Logit of the probability that it runs and is right.
    """

    log_s: Tensor
    spread: Tensor
    works: Tensor


class Rows(NamedTuple):
    """What a network is to say of each row, each of shape [rows].

    Attributes:
        group: Number of the group in the batch: rows of different groups are never ranked.
        complete: Whether the row is a whole candidate.
        log_s: As of ``Outputs``; of a failure it means nothing.
        works: Whether it ran.
    """

    group: Tensor
    complete: Tensor
    log_s: Tensor
    works: Tensor

    @classmethod
    def of(cls, group: Tensor, complete: Tensor, latency_s: Tensor) -> "Rows":
        """Of latencies, shape [rows], infinite for failures."""
        works = torch.isfinite(latency_s)
        return cls(group, complete, torch.where(works, latency_s, 1.0).log().float(), works)


class Predicted(NamedTuple):
    """What a network says of candidates, each of shape [n].

    Attributes:
        score: Higher is better: less the logarithm of the time it takes for each time that it works.
        log_s: As of ``Outputs``; ``spread`` likewise.
        works: Probability.
    """

    score: NDArray[np.float64]
    log_s: NDArray[np.float64]
    spread: NDArray[np.float64]
    works: NDArray[np.float64]


class Encoded(Protocol):
    """A group, encoded."""

    @property
    def latency_s(self) -> NDArray[np.float64]:
        """Shape [n]; infinite for failures."""


class Network(nn.Module):
    """A cost model's network; a subclass says how groups are encoded and put into batches.

    Attributes:
        kind: Its name.
        encoding: Version of what it takes.
        settings: What its constructor was given, by name.
    """

    kind: str
    encoding: str
    settings: dict[str, Any]

    @staticmethod
    def encode(group: Group) -> Any:
        """A group in the form that ``batch`` takes; what cannot be encoded is left out."""
        raise NotImplementedError

    @staticmethod
    def batch(groups: Sequence[tuple[Any, NDArray[np.int64]]]) -> tuple[Any, Rows]:
        """Inputs of ``forward``, and what it should say, of some candidates of each of some groups."""
        raise NotImplementedError

    def standardize(self, groups: Sequence[Any]) -> None:
        """Takes note of the scale of the features in encoded groups, before training."""
        raise NotImplementedError

    def forward(self, inputs: Any) -> Outputs:
        """Of each row of ``batch``."""
        raise NotImplementedError

    @torch.no_grad()
    def predict(self, group: Encoded) -> Predicted:
        """Of the candidates of an encoded group, in their order."""
        self.eval()
        parts: list[Predicted] = []
        count = len(group.latency_s)
        for start in range(0, count, AT_ONCE):
            inputs, rows = self.batch([(group, np.arange(start, min(count, start + AT_ONCE)))])
            parts.append(predicted(Outputs(*(values[rows.complete] for values in self(inputs)))))
        return Predicted(*(np.concatenate(p) for p in zip(*parts, strict=True)))


def score_of(outputs: Outputs) -> Tensor:
    """As of ``Predicted``."""
    return logsigmoid(outputs.works) - outputs.log_s


def predicted(outputs: Outputs) -> Predicted:
    """Tensors as numbers."""
    values = (score_of(outputs), outputs.log_s, outputs.spread, outputs.works.sigmoid())
    return Predicted(*(v.double().numpy() for v in values))


def scored(said: Predicted, group: Encoded, weight: float = 1.0) -> ScoredTask:
    """What was predicted of a group beside what was measured.

    Args:
        weight: How often its workload occurs in its network.
    """
    return ScoredTask(said.score, group.latency_s, weight, np.exp(said.log_s), said.spread)


class Standard(nn.Module):
    """Inputs less their mean, over their deviation, as found in the data that a model is trained on."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def fit(self, rows: NDArray[np.float32]) -> None:
        """Shape [n, features]. What is rare does not get large.

        What never varies, as all that is known of the hardware where there is one device, teaches nothing, so
        it is not looked at later either.
        """
        deviation = rows.std(axis=0, dtype=np.float64)
        constant = rows.min(axis=0) == rows.max(axis=0)
        scale = np.where(constant, np.inf, np.maximum(deviation, LEAST_SCALE))
        self.mean.copy_(torch.from_numpy(rows.mean(axis=0, dtype=np.float64).astype(np.float32)))
        self.scale.copy_(torch.from_numpy(scale.astype(np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.scale).clamp(-8.0, 8.0)


def perceptron(inputs: int, width: int, outputs: int | None = None) -> nn.Sequential:
    """Two layers, with a normalisation before the last."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, outputs or width)
    )


def pool(x: Tensor, owner: Tensor, count: int) -> Tensor:
    """Mean and maximum over the rows of each owner, shape [count, 2 x features].

    Args:
        x: Shape [n, features].
        owner: Shape [n], between 0 and ``count``.
    """
    empty, places = x.new_zeros(count, x.shape[-1]), owner[:, None].expand_as(x)
    mean = empty.scatter_reduce(0, places, x, "mean", include_self=False)
    return torch.cat([mean, empty.scatter_reduce(0, places, x, "amax", include_self=False)], -1)


class Head(nn.Module):
    """From features of a row, and the roofline's logarithm, to ``Outputs``.

    What is learnt is how many times longer than the roofline a candidate takes, which is alike for kernels of
    all sizes.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = perceptron(width, width, 3)

    def forward(self, features: Tensor, log_roofline_s: Tensor) -> Outputs:
        times, spread, works = self.layers(features).unbind(-1)
        return Outputs(log_roofline_s + 1.0 + times, 0.02 + nn.functional.softplus(spread - 1.0), works + 2.0)
