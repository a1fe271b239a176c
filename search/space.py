"""What every space offers, whatever lies behind it: TVM traces, templates with knobs, recorded tables."""

import functools
import itertools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from search.problem import Candidate, Choice, Decision, Workload

Draft = tuple[Choice | None, ...]
"""Decisions not checked yet; ``None`` leaves one to the space, which draws it when it realizes the draft."""


@dataclass(frozen=True)
class Role:
    """What a decision is about, for models that learn from the decisions of many kernels.

    Attributes:
        kind: Such as ``tile``, or the name of a knob; there are few.
        values: What each choice stands for, where choices are indices of it.
        steps: Of a choice of a sketch, how often each schedule primitive occurs in it.
        extent: Of the loop that is split, 1 where none is.
        reduced: Whether that loop adds up.
        inner: How many loops of the kernel lie inside of it.
        writes_along: Whether its next iteration writes the next element.
        reads_along: How many operands' next element it reads.
    """

    kind: str
    values: tuple[float, ...] = ()
    steps: tuple[tuple[str, int], ...] = ()
    extent: int = 1
    reduced: bool = False
    inner: int = 0
    writes_along: bool = False
    reads_along: int = 0


ENUMERABLE = 2000
"""Candidates: a space of no more is gone through as a whole where that helps."""


class Space(Protocol):
    """All schedules of a workload on a target, as sequences of decisions.

    Drafts are cheap: thousands are drawn, varied and scored. ``realize`` is what costs (milliseconds): it
    applies the decisions, and so finds out whether they are legal.

        >>> draft = space.mutate(space.sample(rng), rng)  # doctest: +SKIP
        >>> candidate = space.realize(draft, rng)         # doctest: +SKIP
    """

    name: str
    workload: Workload

    def next_decision(self, prefix: tuple[Choice, ...]) -> Decision | None:
        """What is to be decided after ``prefix``, with every legal choice; None where all is decided."""

    def roles(self, first: Choice | None) -> tuple[Role, ...]:
        """What the decisions are about, in order, in drafts whose first one is ``first``.

        Raises:
            InvalidCandidate: No candidate begins so.
        """

    def count(self) -> int | None:
        """How many candidates there are, exactly; None where only applying them tells which are legal."""

    def first(self) -> Draft | None:
        """The draft that is good for all that is known beforehand; None where nothing is."""

    def sample(self, rng: np.random.Generator) -> Draft:
        """A draft drawn at random: every choice of every decision can come up.

        Raises:
            InvalidCandidate: The space is empty.
        """

    def mutate(self, draft: Draft, rng: np.random.Generator) -> Draft:
        """A draft that differs from ``draft`` in one decision; the same where nothing else is possible."""

    def crossover(self, left: Draft, right: Draft, rng: np.random.Generator) -> Draft:
        """A draft that takes each decision from one of two parents; ``left`` where they do not match."""

    def neighbours(self, draft: Draft) -> list[Draft]:
        """Every draft in which one decision is moved by one step, in the order of the decisions."""

    def adapt(self, foreign: Draft) -> Draft | None:
        """The draft of this space most like one of another; None where the decisions are of other kinds."""

    def realize(self, draft: Draft, rng: np.random.Generator) -> Candidate:
        """Applies and completes a draft.

        Raises:
            InvalidCandidate: The decisions cannot be applied.
        """


def enumerate_drafts(space: Space, prefix: tuple[Choice, ...] = ()) -> Iterator[tuple[Choice, ...]]:
    """Every complete sequence of decisions that begins with ``prefix``, in order, lazily."""
    decision = space.next_decision(prefix)
    if decision is None and prefix:
        yield prefix
    for choice in decision.choices if decision else ():
        yield from enumerate_drafts(space, (*prefix, choice))


def middle(space: Space) -> tuple[Choice, ...]:
    """The candidate with the middle choice of each decision: far from the extremes of ordered knobs."""
    prefix: tuple[Choice, ...] = ()
    while decision := space.next_decision(prefix):
        prefix = (*prefix, decision.choices[len(decision.choices) // 2])
    return prefix


def to_text(draft: Draft) -> str:
    """A draft as a person reads and types it: ``0 4x8x1x16 3 ?``; the same for ever."""
    return " ".join(_word(c) for c in draft)


def _word(choice: Choice | None) -> str:
    if isinstance(choice, tuple):
        return "x".join(map(str, choice)) if len(choice) > 1 else f"{choice[0]}x"
    return "?" if choice is None else str(choice)


def from_text(text: str) -> Draft:
    """What ``to_text`` wrote; a tuple of one factor is written ``8x``.

    Raises:
        ValueError: Not of that form.
    """

    def choice(word: str) -> Choice | None:
        if word == "?":
            return None
        return tuple(int(f) for f in word.split("x") if f) if "x" in word else int(word)

    return tuple(choice(word) for word in text.split())


def distance(left: Choice, right: Choice) -> float:
    """How far two choices of one decision lie apart; infinite for choices of different kinds.

    Of numbers, their difference; of tiles, the logarithms (base 2) by which their factors differ, summed.
    """
    if isinstance(left, tuple) and isinstance(right, tuple):
        if len(left) != len(right):
            return math.inf
        return sum(abs(math.log2(max(a, 1)) - math.log2(max(b, 1))) for a, b in zip(left, right, strict=True))
    if isinstance(left, tuple) or isinstance(right, tuple):
        return math.inf
    return float(abs(left - right))


def steps(choice: Choice, legal: Collection[Choice]) -> list[Choice]:
    """The choices next to one: of numbers the next smaller and the next larger; of tiles those in which one
    prime factor has moved to another loop.

    Args:
        legal: A set or mapping where there are many: it is asked whether it holds what.
    """
    if isinstance(choice, tuple):
        return [t for t in _moves(choice) if t in legal]
    numbers = [c for c in legal if isinstance(c, int)]
    below = max((c for c in numbers if c < choice), default=None)
    above = min((c for c in numbers if c > choice), default=None)
    return [c for c in (below, above) if c is not None]


def _moves(tile: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for source, goal in itertools.permutations(range(len(tile)), 2):
        for prime in _primes(tile[source]):
            moved = list(tile)
            moved[source] //= prime
            moved[goal] *= prime
            yield tuple(moved)


@functools.cache
def _primes(n: int) -> tuple[int, ...]:
    """The distinct prime factors."""
    found, p = [], 2
    while p * p <= n:
        if n % p == 0:
            found.append(p)
            while n % p == 0:
                n //= p
        p += 1
    return (*found, n) if n > 1 else tuple(found)
