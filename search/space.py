"""What every space offers, whatever lies behind it: TVM traces, templates with knobs, recorded tables."""

from typing import Protocol

import numpy as np

from search.problem import Candidate, Choice, Decision, Workload

Draft = tuple[Choice | None, ...]
"""Decisions not checked yet; ``None`` leaves one to the space, which draws it when it realizes the draft."""


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

    def sample(self, rng: np.random.Generator) -> Draft:
        """A draft drawn at random: every choice of every decision can come up."""

    def mutate(self, draft: Draft, rng: np.random.Generator) -> Draft:
        """A draft that differs from ``draft`` in one decision; the same where nothing else is possible."""

    def crossover(self, left: Draft, right: Draft, rng: np.random.Generator) -> Draft:
        """A draft that takes each decision from one of two parents; ``left`` where they do not match."""

    def realize(self, draft: Draft, rng: np.random.Generator) -> Candidate:
        """Applies and completes a draft.

        Raises:
            InvalidCandidate: The decisions cannot be applied.
        """
