"""Training a network on groups of candidates: losses, the loop, and what it is judged by.

The loss has three parts. The latency: how improbable the measured one is under the predicted Laplace
distribution (for whose middle that is Steiner et al.'s absolute error of logarithms), fast candidates
counting more. The order: a logistic loss on pairs of a group (as Kaufman et al., 2021), by how much they
differ. And whether a candidate works at all.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from costmodels.metrics import summary
from costmodels.network import Encoded, Network, Outputs, Rows, score_of, scored

SLOW_WEIGHT = 0.1  # of the slowest candidates beside the fastest
ALIKE = 0.02  # share of the best speed: pairs that differ less are not ranked
SHARPNESS = 4.0  # of the logistic loss: scores are logarithms of times, and 20 % matter


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained.

    Attributes:
        groups: Of a step.
        candidates: Of a group in a step, at most.
        rate: Largest learning rate.
        patience: Epochs without improvement before it ends.
        rank: Weight of the order in the loss.
    """

    epochs: int = 60
    groups: int = 8
    candidates: int = 48
    rate: float = 2e-3
    decay: float = 1e-2
    patience: int = 12
    rank: float = 2.0
    seed: int = 0


class Epoch(NamedTuple):
    """Where training stands after an epoch.

    Attributes:
        loss: On what is learnt from.
        valid: On what is judged by: share of pairs ordered wrongly, plus the median error of times.
    """

    number: int
    loss: float
    valid: float
    metrics: dict[str, float]


class Observer(Protocol):
    """Hears how a training gets on."""

    def epoch(self, epoch: Epoch, of: int) -> None:
        """An epoch is over, of so many."""

    def went_on(self, epochs: int) -> None:
        """A training that was left is taken up after so many epochs."""


def loss_of(outputs: Outputs, rows: Rows, rank: float) -> Tensor:
    """The mean over rows, and over pairs of complete ones."""
    count = int(rows.group.max()) + 1
    best = torch.full((count,), math.inf).scatter_reduce(
        0, rows.group, torch.where(rows.works, rows.log_s, math.inf), "amin"
    )[rows.group]
    share = torch.where(rows.works, torch.exp(best - rows.log_s), 0.0)  # of the best speed
    weight = torch.where(rows.works, SLOW_WEIGHT + (1 - SLOW_WEIGHT) * share, 0.0)
    improbable = (outputs.log_s - rows.log_s).abs() / outputs.spread + outputs.spread.log()
    time_loss = (weight * improbable).sum() / weight.sum().clamp(min=1.0)
    works_loss = binary_cross_entropy_with_logits(outputs.works, rows.works.float())
    whole = rows.complete
    scores, labels, group = score_of(outputs)[whole], share[whole], rows.group[whole]
    differ = labels[:, None] - labels[None, :]
    pairs = torch.where((group[:, None] == group[None, :]) & (differ > ALIKE), differ, 0.0)
    rank_loss = (pairs * softplus((scores[None, :] - scores[:, None]) * SHARPNESS)).sum() / pairs.sum().clamp(
        min=1.0
    )
    return time_loss + rank * rank_loss + works_loss


class Trainer:
    """Trains a network; its state can be taken and put back at the end of each epoch.

    Args:
        learn: Encoded groups to learn from.
        judge: Encoded groups to stop by.
    """

    def __init__(
        self, network: Network, learn: Sequence[Encoded], judge: Sequence[Encoded], settings: TrainSettings
    ) -> None:
        self.network = network
        self.settings = settings
        self._learn, self._judge = learn, judge
        self._optimizer = torch.optim.AdamW(network.parameters(), settings.rate, weight_decay=settings.decay)
        self._steps = max(1, math.ceil(len(learn) / settings.groups))
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, settings.rate, total_steps=self._steps * settings.epochs, pct_start=0.15
        )
        self._epoch, self._waited, self._least = 0, 0, math.inf
        self._best = {k: v.clone() for k, v in network.state_dict().items()}

    def run(self, after: Callable[[Epoch], None] = lambda epoch: None) -> None:
        """Trains to the end, and leaves the best weights in the network."""
        s = self.settings
        while self._epoch < s.epochs and self._waited < s.patience:
            rng = np.random.default_rng([s.seed, self._epoch])
            torch.manual_seed(int(rng.integers(2**31)))
            loss = self._train(rng)
            valid, metrics = self._valid()
            if valid < self._least:
                self._least, self._waited = valid, 0
                self._best = {k: v.clone() for k, v in self.network.state_dict().items()}
            else:
                self._waited += 1
            self._epoch += 1
            after(Epoch(self._epoch, loss, valid, metrics))
        self.network.load_state_dict(self._best)
        self.network.eval()

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, of tensors and plain values."""
        return {
            "settings": asdict(self.settings), "model": self._model(),
            "network": self.network.state_dict(), "best": self._best,
            "optimizer": self._optimizer.state_dict(), "schedule": self._schedule.state_dict(),
            "epoch": self._epoch, "waited": self._waited, "least": self._least,
        }  # fmt: skip

    def _model(self) -> dict[str, Any]:
        return {"kind": self.network.kind, "encoding": self.network.encoding, **self.network.settings}

    def go_on(self, state: dict[str, Any]) -> None:
        """Takes up where ``state`` was taken.

        Raises:
            ValueError: It is of other settings or another network.
        """
        if (state["settings"], state["model"]) != (asdict(self.settings), self._model()):
            raise ValueError("the training that was left had other settings")
        self.network.load_state_dict(state["network"])
        self._best = state["best"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._epoch, self._waited, self._least = state["epoch"], state["waited"], state["least"]

    def _train(self, rng: np.random.Generator) -> float:
        self.network.train()
        losses: list[float] = []
        order = rng.permutation(len(self._learn))
        for start in range(0, len(order), self.settings.groups):
            some = [self._learn[int(i)] for i in order[start : start + self.settings.groups]]
            picked = [(g, _pick(g, self.settings.candidates, rng)) for g in some]
            self._optimizer.zero_grad()
            loss = self._backward(picked)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self._optimizer.step()
            self._schedule.step()
            losses.append(loss)
        return float(np.mean(losses))

    def _backward(self, picked: list[tuple[Encoded, NDArray[np.int64]]]) -> float:
        """The loss of a step; leaves its gradients. Of several processes each takes a part of the groups."""
        mine = picked[rank() :: processes()]
        loss = torch.zeros(())
        if mine:
            inputs, rows = self.network.batch(mine)
            loss = loss_of(self.network(inputs), rows, self.settings.rank) * len(mine) / len(picked)
            loss.backward()  # type: ignore[no-untyped-call]
        total = loss.detach()
        if processes() > 1:
            torch.distributed.all_reduce(total)
            for parameter in self.network.parameters():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                torch.distributed.all_reduce(parameter.grad)
        return float(total)

    def _valid(self) -> tuple[float, dict[str, float]]:
        """What is wrong about the groups to judge by: pairs, and times; and all metrics."""
        metrics = summary([scored(self.network.predict(group), group) for group in self._judge])
        return 1 - metrics.get("pairwise", 0.0) + metrics.get("median_error", math.inf), metrics


def processes() -> int:
    """How many train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process among them; the first one tells of the training."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _pick(group: Encoded, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    count = len(group.latency_s)
    return rng.permutation(count)[:n] if count > n else np.arange(count)
