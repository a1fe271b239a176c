"""The one interface through which searchers use cost models."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from search.problem import Candidate, Choice, Workload
from search.space import Draft

Scored = Draft | Candidate
"""A draft, or as many first decisions of one as are taken yet, or a realized candidate."""


class Prediction(NamedTuple):
    """What a scorer thinks.

    Attributes:
        score: Shape [n], higher is better. Of an incomplete draft: of the best that it can become.
        spread: Shape [n], the standard deviation of ``score``, in its unit; zeros from one that is certain.
    """

    score: NDArray[np.float64]
    spread: NDArray[np.float64]


class Scorer(Protocol):
    """Guesses how good candidates are, without compiling them."""

    def score(self, workload: Workload, items: Sequence[Scored]) -> Prediction | None:
        """Judges drafts or candidates; None where nothing is known of such."""


def choices_of(item: Scored) -> tuple[Choice | None, ...]:
    """The decisions of a draft or candidate."""
    return item.choices if isinstance(item, Candidate) else item
