"""The schedule that trained models take for the best, without running anything."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from costmodels.by_space import SpaceModels
from search.errors import InvalidCandidate
from search.problem import Candidate
from search.scorer import Scorer
from search.searchers.cascade import CascadeSearcher
from search.space import Space

SHORTLIST = 16  # candidates of a space that are realized


def choose(spaces: Sequence[Space], models: SpaceModels, seed: int = 0) -> Candidate | None:
    """The best of each space's shortlist, as far as the models know; None where they know nothing.

    The LSTM breeds drafts and searches their prefixes; what it likes best is realized, beside what each space
    takes for the best, and the graph network has its say.
    """
    found: list[Candidate] = []
    scores: list[float] = []
    for space in spaces:
        scorers = models.scorers(space)
        shortlist = CascadeSearcher(space, scorers.complete, scorers.values, seed=seed).suggest(SHORTLIST)
        first = space.first()
        if first is not None:
            with suppress(InvalidCandidate):
                shortlist.append(space.realize(first, np.random.default_rng(seed)))
        judges: list[Scorer] = [scorers.complete]
        if scorers.verifier is not None:
            judges.append(scorers.verifier)
        said = [judge.score(space.workload, shortlist) for judge in judges]
        known = [s.score for s in said if s is not None]
        if known:
            found += shortlist
            scores += np.mean(known, axis=0).tolist()
    return found[int(np.argmax(scores))] if found else None
