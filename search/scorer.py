"""The one interface through which searchers use cost models."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from search.problem import Workload
from search.space import Draft


class Scorer(Protocol):
    """Guesses how good drafts are, without compiling them."""

    def score(self, workload: Workload, drafts: Sequence[Draft]) -> NDArray[np.float64] | None:
        """One score a draft, shape [n], higher is better; None where nothing is known of such drafts."""
