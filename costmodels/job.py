"""Training jobs: from groups of measurements to a checkpoint that says what it is worth.

A job that was killed goes on after its last epoch: what it takes lies beside the checkpoint until that is
written.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from costmodels.boosting import StoreTrees
from costmodels.checkpoint import MODELS, About, save
from costmodels.data import Group, Split, fingerprint, split
from costmodels.metrics import summary
from costmodels.network import scored
from costmodels.training import Epoch, Trainer, TrainSettings


@dataclass(frozen=True)
class Job:
    """What to train.

    Attributes:
        kind: Of ``costmodels.checkpoint.MODELS``.
        split: What groups must have in common to be held out together.
        share: Of the groups that is held out.
        model: Arguments of the model's constructor; what is not given is the default.
    """

    kind: str
    split: Split = "model"
    share: float = 0.2
    seed: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    training: TrainSettings = field(default_factory=TrainSettings)


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
    unfinished = path.with_name(path.name + ".unfinished")
    if isinstance(model, StoreTrees):
        model.fit(learnt, job.seed)
    else:
        model.standardize(learnt)
        trainer = Trainer(model, learnt, judged, job.training)
        _go_on(trainer, unfinished, found_in, observer)

        def after(epoch: Epoch) -> None:
            observer.epoch(epoch, job.training.epochs)
            _keep(trainer, unfinished, found_in)

        trainer.run(after)
    metrics = summary([scored(model.predict(g), g) for g in judged])
    training = {"split": job.split, "share": job.share, "seed": job.seed}
    if not isinstance(model, StoreTrees):
        training |= asdict(job.training)
    facts = {"training": training, "data": data, "metrics": metrics, "version": version}
    about = save(model, path, facts)
    unfinished.unlink(missing_ok=True)
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


def _keep(trainer: Trainer, path: Path, data: str) -> None:
    """Writes the trainer's state, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save({"data": data, **trainer.state()}, partial)
    partial.replace(path)


def _go_on(trainer: Trainer, path: Path, data: str, observer: Observer) -> None:
    """Takes up a training of the same settings on the same data, where one was left."""
    if not path.is_file():
        return
    with suppress(Exception):  # a damaged file, or one of another training: begin anew
        state = torch.load(path, weights_only=True)
        if state["data"] == data:
            trainer.go_on(state)
            observer.went_on(state["epoch"])
