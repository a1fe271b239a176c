"""Which workloads are alike, so that what is known of one gives another its first candidates."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from search.problem import Workload

EXTENTS = 8  # largest extents that count
T = TypeVar("T")


def embedding(workload: Workload) -> NDArray[np.float64]:
    """A workload as a point, shape [13]: logarithms (base 2) of its work, bytes, longest sum, and extents.

    It depends on no names, and not on the order of arguments.
    """
    extents = sorted((n for a in workload.args for n in a.shape), reverse=True)[:EXTENTS]
    padded = extents + [1] * (EXTENTS - len(extents))
    facts = [workload.flop, workload.bytes, workload.reduction, len(workload.args), workload.outputs, *padded]
    return np.log2(1.0 + np.array(facts, dtype=np.float64))


def nearest(workload: Workload, others: Sequence[tuple[Workload, T]], n: int) -> list[tuple[Workload, T]]:
    """The ``n`` most like ``workload``, itself included where it is among them; the most like first."""
    own = embedding(workload)
    away = [float(np.linalg.norm(own - embedding(other))) for other, _ in others]
    return [others[i] for i in np.argsort(away, kind="stable")[:n]]
