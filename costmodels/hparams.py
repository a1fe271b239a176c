"""Choosing a model's own hyper-parameters, by Optuna.

Trials are judged by a part of what is learnt from, so what the model is judged by in the end had no say in
the choice. The study lies in the same database as the measurements: it goes on where it was left.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any, Protocol

import optuna
import torch

from costmodels.boosting import StoreTrees
from costmodels.checkpoint import MODELS
from costmodels.data import Group, fingerprint, split
from costmodels.job import Job, encoded_groups
from costmodels.metrics import summary
from costmodels.network import scored
from costmodels.training import Epoch, Trainer
from search.problem import digest

METRIC = "pairwise"
BUSY_TIMEOUT_S = 30  # SQLite: to wait for others who write


class Observer(Protocol):
    """Hears how the search gets on."""

    def encoded(self, done: int) -> None:
        """So many groups are encoded."""

    def trial(self, number: int, of: int, best: float) -> None:
        """A trial is over."""


def search(groups: Iterable[Group], job: Job, trials: int, url: str, observer: Observer) -> Job:
    """The job with the best hyper-parameters found.

    Args:
        trials: How many to make in all: those of an earlier search of the same job on the same data count.
        url: Of the database that keeps the study.

    Raises:
        TooLittleData: As of ``costmodels.data.split``.
    """
    encoded = encoded_groups(MODELS[job.kind].encode, groups, observer.encoded)
    learn, _ = split(list(encoded), job.split, job.share, job.seed)
    inner, valid = split(learn, job.split, job.share, job.seed + 1)
    learnt, judged = [encoded[g] for g in inner], [encoded[g] for g in valid]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    timeout = {"connect_args": {"timeout": BUSY_TIMEOUT_S}} if url.startswith("sqlite") else {}
    study = optuna.create_study(
        storage=optuna.storages.RDBStorage(url, engine_kwargs=timeout),
        study_name=f"{job.kind}-{digest([asdict(job), MODELS[job.kind].encoding, fingerprint(inner)])[:12]}",
        sampler=optuna.samplers.TPESampler(seed=job.seed),
        direction="maximize",
        load_if_exists=True,
    )

    def objective(trial: optuna.Trial) -> float:
        tried = _suggested(trial, job)
        torch.manual_seed(job.seed)
        model = MODELS[job.kind](**tried.model)
        if isinstance(model, StoreTrees):
            model.fit(learnt, job.seed)
        else:
            model.standardize(learnt)
            trainer = Trainer(model, learnt, judged, tried.training)

            def after(epoch: Epoch) -> None:
                trial.report(epoch.metrics.get(METRIC, 0.0), epoch.number)
                if trial.should_prune():
                    raise optuna.TrialPruned

            trainer.run(after)
        return summary([scored(model.predict(e), e) for e in judged]).get(METRIC, 0.0)

    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    for number in range(len(study.get_trials(states=ended)) + 1, trials + 1):
        study.optimize(objective, n_trials=1)
        best = [t.value for t in study.get_trials(states=[optuna.trial.TrialState.COMPLETE])]
        observer.trial(number, trials, max((v for v in best if v is not None), default=0.0))
    return _suggested(study.best_trial, job)


def _suggested(trial: optuna.Trial | optuna.trial.FrozenTrial, job: Job) -> Job:
    """The job with what a trial says; what a person fixed stays."""
    suggested: dict[str, Any]
    if job.kind == StoreTrees.kind:
        suggested = {
            "trees": trial.suggest_int("trees", 100, 800, log=True),
            "leaves": trial.suggest_int("leaves", 8, 64, log=True),
            "rate": trial.suggest_float("rate", 0.02, 0.2, log=True),
        }
        return replace(job, model={**suggested, **job.model})
    suggested = {
        "width": trial.suggest_categorical("width", [48, 64, 96, 128]),
        "layers": trial.suggest_int("layers", 1, 2)
        if job.kind == "lstm"
        else trial.suggest_int("layers", 2, 4),
        "dropout": trial.suggest_float("dropout", 0.0, 0.3),
    }
    training = replace(
        job.training,
        rate=trial.suggest_float("rate", 5e-4, 5e-3, log=True),
        decay=trial.suggest_float("decay", 1e-3, 1e-1, log=True),
        rank=trial.suggest_float("rank", 0.5, 5.0, log=True),
    )
    return replace(job, model={**suggested, **job.model}, training=training)
