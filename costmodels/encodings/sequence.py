"""Decision sequences for a model over decisions: what is scheduled, and a token for each decision taken.

What no schedule changes (operations, extents, strides, reuse) is read off the program graph of the kernel's
plain loops. A token says what its decision is about and what was chosen, in numbers that mean the same for
every kernel; nothing is lowered or even applied, so a draft takes some microseconds.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from costmodels.encodings import program
from costmodels.encodings.hardware import HARDWARE_FEATURES, encode_hardware
from costmodels.encodings.program import encode_program
from search.errors import InvalidCandidate
from search.problem import Choice, Conditions
from search.space import Draft, Role, Space
from search.spaces.tir import module_of

VERSION = f"sequence/2+{program.VERSION}"

KINDS = ("sketch", "tile", "category", "location", "order", "n", "y", "x", "rows", "unroll", "vectors",
         "parallel")  # fmt: skip
"""Kinds of decisions; whatever else there is counts as one more."""

STEPS = ("ComputeInline", "ReverseComputeInline", "CacheWrite", "ComputeAt", "ReverseComputeAt", "RFactor",
         "SamplePerfectTile", "SampleCategorical", "SampleComputeLocation", "Annotate")  # fmt: skip
"""Schedule primitives whose number in a sketch is told."""

_FACTORS = 5  # of a tile, at most
_KIND = len(KINDS) + 1
_ABOUT = ("decided", "extent", "reduced", "inner", "writes along", "reads along", "factors")
_NUMBER = ("number", "logarithm")
_OWN = _KIND + len(_ABOUT) + len(STEPS) + len(_NUMBER) + 2 * _FACTORS
_SUMS = 1 + 4 * _FACTORS  # over the tokens so far
TOKEN_FEATURES = _OWN + _SUMS


class Subject(NamedTuple):
    """What is scheduled, on what: equal for all schedules.

    Attributes:
        kinds: Shape [nodes], of the program graph of the plain loops.
        nodes: Shape [nodes, features], of the same.
        context: Shape [features]: the kernel and the hardware.
    """

    kinds: NDArray[np.int64]
    nodes: NDArray[np.float32]
    context: NDArray[np.float32]


class Sequences(NamedTuple):
    """Drafts as tokens.

    Attributes:
        tokens: Shape [n, longest, TOKEN_FEATURES]; zeros behind the end of a shorter draft.
        lengths: Shape [n].
    """

    tokens: NDArray[np.float32]
    lengths: NDArray[np.int64]

    def of(self, some: NDArray[np.int64]) -> "Sequences":
        """Those of some drafts."""
        return Sequences(self.tokens[some], self.lengths[some])


def joined(parts: Sequence[Sequences]) -> Sequences:
    """One after the other, as long as the longest."""
    return Sequences(stacked([p.tokens for p in parts], 0.0), np.concatenate([p.lengths for p in parts]))


def stacked(parts: Sequence[NDArray[Any]], fill: float) -> NDArray[Any]:
    """Rows of several arrays of shape [n, length, ...], one after the other, filled up to the longest."""
    longest = max(p.shape[1] for p in parts)
    rest = [(0, 0)] * (parts[0].ndim - 2)
    return np.concatenate(
        [np.pad(p, [(0, 0), (0, longest - p.shape[1]), *rest], constant_values=fill) for p in parts]
    )


CONTEXT_FEATURES = program.KERNEL_FEATURES + HARDWARE_FEATURES


class SequenceEncoder:
    """Encodes the drafts of a space under some conditions.

    >>> encoder = SequenceEncoder(space, conditions)          # doctest: +SKIP
    >>> encoder.encode([(0, 3, 1), (0, 2)])                   # doctest: +SKIP
    """

    def __init__(self, space: Space, conditions: Conditions) -> None:
        self._space = space
        graph = encode_program(module_of(space.workload))
        context = np.concatenate([graph.kernel, encode_hardware(conditions)])
        self.subject = Subject(graph.kinds, graph.nodes, context)
        self._roles: dict[Choice | None, tuple[Role, ...]] = {}
        self._known: dict[tuple[Role, Choice | None], int] = {}
        self._rows: list[NDArray[np.float32]] = [np.zeros(_OWN, np.float32)]

    def knows(self, draft: Draft) -> bool:
        """Whether the draft's decisions are of this space, as far as can be told without applying them."""
        try:
            return 0 < len(draft) <= len(self._roles_of(draft))
        except InvalidCandidate:
            return False

    def encode(self, drafts: Sequence[Draft]) -> Sequences:
        """Drafts, or as many first decisions of them as are taken."""
        longest = max(map(len, drafts), default=0)
        places = np.zeros((len(drafts), longest), np.int64)
        for row, draft in zip(places, drafts, strict=True):
            row[: len(draft)] = [
                self._place(role, choice) for role, choice in zip(self._roles_of(draft), draft, strict=False)
            ]
        lengths = np.fromiter(map(len, drafts), np.int64, len(drafts))
        own = np.stack(self._rows)[places]
        return Sequences(np.concatenate([own, _sums(own) * (places > 0)[:, :, None]], axis=2), lengths)

    def _roles_of(self, draft: Draft) -> tuple[Role, ...]:
        roles = self._roles.get(draft[0])
        if roles is None:
            roles = self._roles[draft[0]] = self._space.roles(draft[0])
        return roles

    def _place(self, role: Role, choice: Choice | None) -> int:
        """Where the row of features lies of what was chosen."""
        place = self._known.get((role, choice))
        if place is None:
            place = self._known[role, choice] = len(self._rows)
            self._rows.append(_token(role, choice))
        return place


def _token(role: Role, choice: Choice | None) -> NDArray[np.float32]:
    """What a token says of its own decision.

    Its kind; ``_ABOUT`` what it is; of a sketch what is in it; the number chosen, and its logarithm; of a
    tile the logarithms of its factors from the innermost on, and of their products.
    """
    kinds = np.zeros(_KIND, np.float32)
    kinds[KINDS.index(role.kind) if role.kind in KINDS else len(KINDS)] = 1.0
    number, factors = 0.0, np.zeros(_FACTORS, np.float32)
    if isinstance(choice, tuple):
        logs = [math.log2(f) for f in reversed(choice)][:_FACTORS]
        factors[: len(logs)] = logs
    elif choice is not None:
        number = role.values[choice] if role.values and 0 <= choice < len(role.values) else float(choice)
    length = len(choice) if isinstance(choice, tuple) else 0
    counts = dict(role.steps)
    about = [choice is not None, math.log2(role.extent), role.reduced, min(role.inner, 8),
             role.writes_along, min(role.reads_along, 4), length]  # fmt: skip
    steps = [math.log2(1 + counts.get(step, 0)) for step in STEPS]
    value = [number / 16, math.log2(1 + abs(number))]
    return np.concatenate([kinds, np.array(about + steps + value, np.float32), factors, np.cumsum(factors)])


def _sums(own: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the tokens up to each: logarithms of the numbers chosen, and of the sizes of blocks in elements.

    These are sums over the tiles of loops that add up, and over those of the others, of the logarithms of
    their factors and of the products of their inner ones. A network could add by itself; told, it needs fewer
    examples.

    Args:
        own: Shape [n, longest, features], as ``_token`` gives them.
    """
    factors = own[:, :, -2 * _FACTORS :]
    reduced = own[:, :, _KIND + _ABOUT.index("reduced")][:, :, None]
    logarithm = own[:, :, -2 * _FACTORS - 1 : -2 * _FACTORS]
    return np.cumsum(np.concatenate([logarithm, factors * reduced, factors * (1 - reduced)], axis=2), axis=1)
