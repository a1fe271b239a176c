"""Spaces without a compiler behind them, and landscapes over them."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from search.problem import Candidate, ErrorKind, MeasureError, Measurement, Workload
from search.scorer import Prediction, Scored, choices_of
from search.searchers.base import Searcher
from search.space import Draft, Space
from search.spaces.knobs import KnobSpace
from search.spaces.table import TableSpace

WORK = Workload("w", "made up", (), 0, 0.0, 1, "")


def knobs() -> KnobSpace:
    """8 x 8 x 4 x 2, of which a constraint forbids a good part."""
    return KnobSpace(
        WORK,
        "knobs/1",
        {
            "x": (1, 2, 4, 8, 16, 32, 64, 128),
            "y": (1, 2, 4, 8, 16, 32, 64, 128),
            "z": (0, 1, 2, 3),
            "u": ("a", "b"),
        },
        constraints=(lambda x, y: 32 <= x * y <= 1024, lambda z, u: z > 0 or u == "a"),
    )


def narrow() -> KnobSpace:
    """A million points, of which the constraints leave two."""
    values = tuple(range(100))
    return KnobSpace(
        WORK, "narrow/1", {"a": values, "b": values, "c": values},
        constraints=(lambda a, b: a + b == 198, lambda b, c: b - c in (0, 1)),
    )  # fmt: skip


def point() -> KnobSpace:
    return KnobSpace(WORK, "point/1", {"only": (7,)})


def empty() -> KnobSpace:
    return KnobSpace(WORK, "empty/1", {"a": (1, 2), "b": (1, 2)}, constraints=(lambda a, b: a * b > 4,))


def wide() -> KnobSpace:
    """10^5 points."""
    return KnobSpace(WORK, "wide/1", {f"k{n}": tuple(range(10)) for n in range(5)})


def huge() -> KnobSpace:
    """10^12 points."""
    return KnobSpace(WORK, "huge/1", {f"k{n:02}": tuple(range(10)) for n in range(12)})


def table() -> TableSpace:
    """Every third of 12 x 12 x 4, as recordings that leave out what was illegal."""
    rows = [(a, b, c) for a in range(12) for b in range(12) for c in range(4) if (a + b + c) % 3 == 0]
    return TableSpace(WORK, rows, ("a", "b", "c"))


def tiles() -> TableSpace:
    """Recorded traces: tiles, and two sketches of different lengths."""
    pairs = [(a, 64 // a) for a in (1, 2, 4, 8, 16, 32, 64)]
    long = [(0, p, q, n) for p in pairs for q in pairs for n in range(2)]
    return TableSpace(WORK, [*long, *((1, p) for p in pairs)])


def differences(left: Draft, right: Draft) -> int:
    """In how many decisions two drafts differ."""
    return sum(a != b for a, b in itertools.zip_longest(left, right))


def quality(draft: Draft) -> float:
    """A landscape with a slope: big numbers and big innermost tiles are good."""
    return float(sum(np.log2(c[-1]) if isinstance(c, tuple) else 0.5 * c for c in draft if c is not None))


class Oracle:
    """Knows the landscape; of what is not decided it expects nothing."""

    def score(self, workload: Workload, items: Sequence[Scored]) -> Prediction:
        scores = np.array([quality(choices_of(i)) for i in items])
        return Prediction(scores, np.full(len(items), 0.1))


class Ignorant:
    """Knows nothing."""

    def score(self, workload: Workload, items: Sequence[Scored]) -> None:
        return None


def measure(candidate: Candidate, failing: float = 1 / 7) -> Measurement:
    """By the landscape; a share of candidates fails, always the same ones."""
    if int(candidate.hash[:8], 16) / 16**8 < failing:
        return Measurement(candidate, error=MeasureError(ErrorKind.CRASH, "made up"))
    return Measurement(candidate, (math.exp(-0.3 * quality(candidate.choices)),))


def rows_of(space: Space) -> set[Draft]:
    from search.space import enumerate_drafts

    return set(enumerate_drafts(space))


def four_batches(searcher: Searcher, n: int) -> set[str]:
    """The hashes of what a searcher suggests and hears of in four whole batches, none of them twice."""
    seen = set[str]()
    for _ in range(4):
        suggested = searcher.suggest(n)
        assert len(suggested) == n
        assert not seen & {c.hash for c in suggested}
        seen |= {c.hash for c in suggested}
        searcher.update([measure(c) for c in suggested])
    return seen
