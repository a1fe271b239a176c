"""Training jobs: from groups of measurements to a checkpoint that says what it is worth.

A job that was killed goes on after its last epoch: what it takes lies beside the checkpoint until that is
written.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from costmodels import training
from costmodels.boosting import StoreTrees
from costmodels.checkpoint import MODELS, About, save
from costmodels.data import Group, Split, TooLittleData, fingerprint, split
from costmodels.metrics import summary
from costmodels.network import scored
from costmodels.parallel import Work, fit
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
        hidden: Networks that were left out of the data from the beginning; recorded.
    """

    kind: str
    split: Split = "model"
    share: float = 0.2
    seed: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    training: TrainSettings = field(default_factory=TrainSettings)
    processes: int = 1
    hidden: tuple[str, ...] = ()


class Observer(training.Observer, Protocol):
    """Hears how a job gets on."""

    def encoded(self, done: int) -> None:
        """So many groups are encoded."""


class Unobserved:
    """Nobody hears."""

    def encoded(self, done: int) -> None: ...
    def epoch(self, epoch: Epoch, of: int) -> None: ...
    def went_on(self, epochs: int) -> None: ...


def train(
    groups: Iterable[Group], job: Job, path: Path, version: str = "", observer: Observer | None = None
) -> About:
    """Trains a model, judges it by what is held out, and writes its checkpoint.

    Args:
        groups: Taken one by one; what is kept of each is its encoding.

    Raises:
        TooLittleData: As of ``costmodels.data.split``.
        OSError: The checkpoint cannot be written.
    """
    observer = observer or Unobserved()
    torch.manual_seed(job.seed)
    model = MODELS[job.kind](**job.model)
    encoded = encoded_groups(model.encode, groups, observer.encoded)
    learn, judge = split(list(encoded), job.split, job.share, job.seed)
    inner, stop = _apart(learn, job)
    learnt, stopping, judged = ([encoded[g] for g in part] for part in (inner, stop, judge))
    found_in = fingerprint(learn)
    data = {
        "fingerprint": found_in,
        "measurements": sum(len(g.latency_s) for g in learn),
        "workloads": len({g.workload.hash for g in learn}),
        "networks": sorted({n for g in learn for n in g.networks}),
        "hidden": list(job.hidden),
        "devices": len({g.conditions.hardware.fingerprint for g in learn}),
        "held_out": sorted({n for g in judge for n in g.networks}),
    }
    state = State.beside(path, found_in)
    if isinstance(model, StoreTrees):
        model.fit([encoded[g] for g in learn], job.seed)
    else:
        model.standardize(learnt)
        work = Work(model, learnt, stopping, job.training, state)
        fit(work, job.processes, observer)
    metrics = summary([scored(model.predict(g), g) for g in judged])
    settings = {"split": job.split, "share": job.share, "seed": job.seed}
    if not isinstance(model, StoreTrees):
        settings |= asdict(job.training)
    facts = {"training": settings, "data": data, "metrics": metrics, "version": version}
    about = save(model, path, facts)
    state.forget()
    return about


def _apart(learn: Sequence[Group], job: Job) -> tuple[list[Group], list[Group]]:
    """What is learnt from, and what says when to stop, which is not what the model is judged by.

    Where there is too little to part, the same serves for both.
    """
    try:
        return split(learn, job.split, job.share, job.seed + 1)
    except TooLittleData:
        return list(learn), list(learn)


def encoded_groups(
    encode: Callable[[Group], Any], groups: Iterable[Group], done: Callable[[int], None]
) -> dict[Group, Any]:
    """Groups in the form that a model takes, by what is left of each without its candidates.

    Args:
        done: Hears how many are encoded.
    """
    found: dict[Group, Any] = {}
    for group in groups:
        encoded = encoded_or_none(encode, group)
        if encoded is not None:
            found[group.summary()] = encoded
            done(len(found))
    return found


def encoded_or_none(encode: Callable[[Group], Any], group: Group) -> Any | None:
    """A group in the form that a model takes; None where hardly any of its candidates can be encoded.

    A database may hold kernels and traces of another TVM, or of a target that this one does not know.
    """
    try:
        encoded = encode(group)
    except Exception:  # whatever TVM raises
        return None
    return encoded if np.isfinite(encoded.latency_s).sum() > 1 else None
