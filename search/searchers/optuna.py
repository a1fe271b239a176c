"""Optuna's samplers over any space: TPE, CMA-ES, and a Gaussian process.

Each decision is a number from 0 to 1: the place of the choice among those legal at that point. So a space
whose decisions depend on each other has the same parameters throughout, as CMA-ES and the Gaussian process
need.

The study is the history: it is rebuilt from the measurements at each call, so that a search resumes from what
the database holds, whatever process measured it. CMA-ES, whose state Optuna keeps outside of the trials, is
warm-started from them instead (WS-CMA-ES, Nomura et al., AAAI 2021).
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from search.problem import Candidate, Choice, Measurement
from search.searchers.base import History
from search.space import Draft, Space

Sampler = Callable[[int, list[FrozenTrial]], optuna.samplers.BaseSampler]
"""Makes a sampler from a seed and the trials there are."""

SAMPLERS: dict[str, Sampler] = {
    "tpe": lambda seed, trials: optuna.samplers.TPESampler(seed=seed),
    "cmaes": lambda seed, trials: optuna.samplers.CmaEsSampler(seed=seed, source_trials=trials),
    "gp": lambda seed, trials: optuna.samplers.GPSampler(seed=seed),
}
START = 10  # measurements before the samplers are asked
TOLD = {"gp": 64}  # at most so many measurements, the fastest and the newest: its work grows with their cube
ASKS = 4  # for each candidate wanted: a sampler may ask for what is measured or illegal
FAILED = 2.0  # times the slowest: what a failure counts as, since samplers take numbers only
_UNIT = FloatDistribution(0.0, 1.0)


class OptunaSearcher:
    """Asks a sampler for each decision in turn.

    Args:
        sampler: One of ``SAMPLERS``.
    """

    def __init__(self, space: Space, sampler: str, seed: int = 0) -> None:
        self._space = space
        self._sampler = SAMPLERS[sampler]
        self._told = TOLD.get(sampler)
        self._seed = seed
        self._history = History(space, seed)
        self._params: list[dict[str, float]] = []

    def update(self, measurements: Sequence[Measurement]) -> None:
        known = len(self._history.measurements)
        self._history.add(measurements)
        self._params += [self._located(m.candidate.choices) for m in self._history.measurements[known:]]

    def suggest(self, n: int) -> list[Candidate]:
        rng, taken = self._history.generator(), set[tuple[Choice, ...]]()
        found: list[Candidate] = []
        if len(self._params) >= START:
            found = self._history.realize_new(self._asked(n, rng), n, taken)
        return found + self._history.draw_new(n - len(found), taken)

    def _asked(self, n: int, rng: np.random.Generator) -> Iterator[Draft]:
        trials = self._trials()
        seed = int(rng.integers(1 << 31))
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study = optuna.create_study(sampler=self._sampler(seed, trials))
                study.add_trials(trials)
                for _ in range(ASKS * n):
                    yield self._decide(study.ask())
        finally:
            optuna.logging.set_verbosity(verbosity)

    def _trials(self) -> list[FrozenTrial]:
        known = list(zip(self._history.measurements, self._params, strict=True))
        slowest = max((m.latency_s for m, _ in known if m.error is None), default=1.0)
        if self._told is not None and len(known) > self._told:
            newest = known[-self._told // 2 :]
            known = sorted(known[: -len(newest)], key=lambda k: k[0].latency_s)[: len(newest)] + newest
        return [
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                params=params,
                distributions=dict.fromkeys(params, _UNIT),
                value=math.log(m.latency_s if m.error is None else FAILED * slowest),
            )
            for m, params in known
        ]

    def _decide(self, trial: Trial) -> Draft:
        prefix: tuple[Choice, ...] = ()
        while (decision := self._space.next_decision(prefix)) is not None:
            at = trial.suggest_float(_name(len(prefix)), 0.0, 1.0)
            choice = decision.choices[min(int(at * len(decision.choices)), len(decision.choices) - 1)]
            prefix = (*prefix, choice)
        return prefix

    def _located(self, choices: Sequence[Choice]) -> dict[str, float]:
        """The numbers that lead to a candidate: of each choice, the middle of its part of the interval."""
        params: dict[str, Any] = {}
        for place, choice in enumerate(choices):
            decision = self._space.next_decision(tuple(choices[:place]))
            if decision is not None and choice in decision.choices:
                params[_name(place)] = (decision.choices.index(choice) + 0.5) / len(decision.choices)
        return params


def _name(place: int) -> str:
    return f"d{place:02d}"
