"""Decisions as a vector, without applying them: some microseconds a draft.

Drafts whose decisions are of the same kinds, in the same order, share a *signature*; their vectors have the
same meaning at the same place, whatever the workload, so one model can learn from all of them. What is not
decided yet, whether left open or behind the end of an incomplete draft, is NaN.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.space import Draft

Signature = tuple[int, ...]
"""Of each decision after the first: the number of factors of a tile, or 0 for a single number."""


def signature(draft: Draft) -> Signature:
    """What kinds of decisions a complete draft has, in order."""
    return tuple(len(c) if isinstance(c, tuple) else 0 for c in draft[1:])


def encode(drafts: Sequence[Draft], kinds: Signature | None = None) -> NDArray[np.float64]:
    """Vectors of drafts of one signature, shape [n, features].

    For each tile the logarithms (base 2) of its factors and of the products of its last ones, which are the
    extents of inner blocks; for all tiles with equally many factors the same summed, which are the sizes of
    blocks in elements; and every other decision as it is.

    Args:
        kinds: The signature of what the drafts are to become; needed where they are incomplete.
    """
    kinds = signature(drafts[0]) if kinds is None else kinds
    short = [*drafts] if all(len(d) > len(kinds) for d in drafts) else [_padded(d, kinds) for d in drafts]
    columns = [_numbers([d[0] for d in short])]
    tiles: dict[int, list[NDArray[np.float64]]] = {}
    for place, length in enumerate(kinds, start=1):
        chosen = [d[place] for d in short]
        if not length:
            columns.append(_numbers(chosen))
            continue
        factors = np.log2(
            np.array([(np.nan,) * length if c is None else c for c in chosen], dtype=np.float64)
        )
        tiles.setdefault(length, []).append(factors)
        columns += [factors, _inner(factors)]
    for group in tiles.values():
        total = np.sum(group, axis=0)
        columns += [total, _inner(total)]
    return np.concatenate(columns, axis=1)


def _padded(draft: Draft, kinds: Signature) -> Draft:
    return (*draft, *(None,) * (len(kinds) + 1 - len(draft)))


def _numbers(choices: Sequence[object]) -> NDArray[np.float64]:
    return np.array([np.nan if c is None else c for c in choices], dtype=np.float64)[:, None]


def _inner(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of the products of the last 2, 3, ... factors, shape [n, factors - 1]."""
    return np.cumsum(logs[:, ::-1], axis=1)[:, 1:]
