"""Training jobs: from groups of measurements to a checkpoint that says what it is worth.

A job that was killed goes on after its last epoch: what it takes lies beside the checkpoint until that is
written.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from costmodels.boosting import StoreTrees
from costmodels.checkpoint import MODELS, About, save
from costmodels.data import Group, Split, fingerprint, split
from costmodels.metrics import summary
from costmodels.network import scored
from costmodels.parallel import Told, Work, fit
from costmodels.state import State
from costmodels.training import Epoch, TrainSettings


@dataclass(frozen=True)
class Job:
    """What to train.

    Attributes:
        kind: Of ``costmodels.checkpoint.MODELS``.
        split: What groups must have in common to be held out together.
        share: Of the groups that is held out.
        model: Arguments of the model's constructor; what is not given is the default.
        processes: That train a network together.
    """

    kind: str
    split: Split = "model"
    share: float = 0.2
    seed: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    training: TrainSettings = field(default_factory=TrainSettings)
    processes: int = 1


class Observer:
    """Hears how a job gets on; does nothing with it."""

    def encoded(self, done: int, of: int) -> None:
        """So many groups are encoded."""

    def epoch(self, epoch: Epoch, of: int) -> None:
        """An epoch is over, of so many."""

    def went_on(self, epochs: int) -> None:
        """A training that was left is taken up after so many epochs."""


def train(
    groups: Sequence[Group], job: Job, path: Path, version: str = "", observer: Observer | None = None
) -> About:
    """Trains a model, judges it by what is held out, and writes its checkpoint.

    Raises:
        TooLittleData: As of ``costmodels.data.split``.
        OSError: The checkpoint cannot be written.
    """
    observer = observer or Observer()
    learn, judge = split(groups, job.split, job.share, job.seed)
    make = MODELS[job.kind]
    torch.manual_seed(job.seed)
    model = make(**job.model)
    encoded = encoded_groups(model.encode, [*learn, *judge], observer.encoded)
    learnt, judged = encoded[: len(learn)], encoded[len(learn) :]
    found_in = fingerprint(learn)
    data = {
        "fingerprint": found_in,
        "measurements": sum(len(g.candidates) for g in learn),
        "workloads": len({g.workload.hash for g in learn}),
        "devices": len({g.conditions.hardware.fingerprint for g in learn}),
        "held_out": sorted({n for g in judge for n in g.networks}),
    }
    state = State.beside(path, found_in)
    if isinstance(model, StoreTrees):
        model.fit(learnt, job.seed)
    else:
        model.standardize(learnt)
        work = Work(model, learnt, judged, job.training, state)
        fit(work, job.processes, _Relay(observer, job.training.epochs))
    metrics = summary([scored(model.predict(g), g) for g in judged])
    training = {"split": job.split, "share": job.share, "seed": job.seed}
    if not isinstance(model, StoreTrees):
        training |= asdict(job.training)
    facts = {"training": training, "data": data, "metrics": metrics, "version": version}
    about = save(model, path, facts)
    state.forget()
    return about


def encoded_groups(
    encode: Callable[[Group], Any], groups: Sequence[Group], done: Callable[[int, int], None]
) -> list[Any]:
    """Groups in the form that a model takes.

    Args:
        done: Hears how many of how many are encoded.
    """
    found = []
    for number, group in enumerate(groups, start=1):
        found.append(encode(group))
        done(number, len(groups))
    return found


class _Relay(Told):
    """Passes on what is heard of a training."""

    def __init__(self, observer: Observer, epochs: int) -> None:
        self._observer = observer
        self._epochs = epochs

    def epoch(self, epoch: Epoch) -> None:
        self._observer.epoch(epoch, self._epochs)

    def went_on(self, epochs: int) -> None:
        self._observer.went_on(epochs)
