"""All searchers by name. A new one joins by a line here, and by that the contract tests and the replay."""

from collections.abc import Callable
from typing import NamedTuple

from search.scorer import Scorer
from search.searchers.annealing import AnnealingSearcher
from search.searchers.base import Searcher
from search.searchers.beam import BeamSearcher, BeamSettings
from search.searchers.cascade import CascadeSearcher
from search.searchers.droplet import DropletSearcher
from search.searchers.evolutionary import EvolutionarySearcher
from search.searchers.guided import GuidedSearcher
from search.searchers.random import RandomSearcher
from search.space import Space


class Scorers(NamedTuple):
    """What searchers are given to judge by; they only ask, whoever owns the models fits them.

    Attributes:
        complete: Judges complete drafts.
        values: Judges incomplete drafts by what they can become.
        verifier: Judges realized candidates, more exactly than ``complete``; None where nothing does.
    """

    complete: Scorer
    values: Scorer
    verifier: Scorer | None = None


Factory = Callable[[Space, Scorers, int], Searcher]
"""Makes a searcher of a space, with scorers and a seed."""


def _optuna(sampler: str) -> Factory:
    def make(space: Space, scorers: Scorers, seed: int) -> Searcher:
        from search.searchers.optuna import OptunaSearcher  # whose import takes half a second

        return OptunaSearcher(space, sampler, seed)

    return make


DEFAULT = "cascade"
SEARCHERS: dict[str, Factory] = {
    "random": lambda space, scorers, seed: RandomSearcher(space, seed),
    "evolutionary": lambda space, scorers, seed: EvolutionarySearcher(space, scorers.complete, seed),
    "greedy": lambda space, scorers, seed: BeamSearcher(space, scorers.values, seed, BeamSettings(width=1)),
    "beam": lambda space, scorers, seed: BeamSearcher(space, scorers.values, seed),
    "guided": lambda space, scorers, seed: GuidedSearcher(space, scorers.complete, seed),
    "droplet": lambda space, scorers, seed: DropletSearcher(space, seed),
    "annealing": lambda space, scorers, seed: AnnealingSearcher(space, seed),
    "tpe": _optuna("tpe"),
    "cmaes": _optuna("cmaes"),
    "gp": _optuna("gp"),
    # Without the beam: with values learnt from a search's own measurements it does not pay (docs/search.md).
    "cascade": lambda space, scorers, seed: CascadeSearcher(
        space, scorers.complete, verifier=scorers.verifier, seed=seed
    ),
}
