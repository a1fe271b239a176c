"""Decisions as a vector, without applying them: some microseconds a draft.

Drafts whose decisions are of the same kinds, in the same order, share a *signature*; their vectors have the
same meaning at the same place, whatever the workload, so one model can learn from all of them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.space import Draft

Signature = tuple[int, ...]
"""Of each decision after the sketch: the number of factors of a tile, or 0 for a single number."""


def signature(draft: Draft) -> Signature:
    """What kinds of decisions a draft has, in order."""
    return tuple(len(c) if isinstance(c, tuple) else 0 for c in draft[1:])


def encode(drafts: Sequence[Draft]) -> NDArray[np.float64]:
    """Vectors of drafts of one signature, shape [n, features].

    For each tile the logarithms (base 2) of its factors and of the products of its last ones, which are the
    extents of inner blocks; for all tiles with equally many factors the same summed, which are the sizes of
    blocks in elements; and every other decision as it is, NaN where it is open.
    """
    lengths = signature(drafts[0])
    numbers = np.array([d[0] for d in drafts], dtype=np.float64)[:, None]
    columns = [numbers]
    tiles: dict[int, list[NDArray[np.float64]]] = {}
    for place, length in enumerate(lengths, start=1):
        if not length:
            column = [np.nan if d[place] is None else d[place] for d in drafts]
            columns.append(np.array(column, dtype=np.float64)[:, None])
            continue
        factors = np.log2(np.array([d[place] for d in drafts], dtype=np.float64))
        tiles.setdefault(length, []).append(factors)
        columns += [factors, _inner(factors)]
    for group in tiles.values():
        total = np.sum(group, axis=0)
        columns += [total, _inner(total)]
    return np.concatenate(columns, axis=1)


def _inner(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of the products of the last 2, 3, ... factors, shape [n, factors - 1]."""
    return np.cumsum(logs[:, ::-1], axis=1)[:, 1:]
