"""Spaces in which the candidates behind every prefix of decisions can be counted.

That one ability gives all the rest: which choices are legal, uniform sampling, enumeration, and the repair of
drafts that mutation and crossover have made illegal.
"""

import math
from collections.abc import Mapping

import numpy as np

from search.errors import InvalidCandidate
from search.problem import Candidate, Choice, Decision, Workload
from search.space import Draft, Role, distance, steps

_TRIES = 8  # places at which a mutation looks for a change of one decision alone, before it repairs others


class CountedSpace:
    """Base of knob spaces and tables; a subclass has ``branches``, ``decision_name`` and ``realize``.

    Drafts of such a space are legal as they are, with nothing left open.
    """

    def __init__(self, workload: Workload, name: str) -> None:
        self.workload = workload
        self.name = name

    def branches(self, prefix: tuple[Choice, ...]) -> Mapping[Choice, int]:
        """The legal choices after a legal prefix, in order, each with the number of candidates behind it."""
        raise NotImplementedError

    def decision_name(self, place: int) -> str:
        """Of the decision at ``place``."""
        raise NotImplementedError

    def realize(self, draft: Draft, rng: np.random.Generator) -> Candidate:
        """As ``Space.realize``."""
        raise NotImplementedError

    def next_decision(self, prefix: tuple[Choice, ...]) -> Decision | None:
        if prefix and prefix not in self:
            raise InvalidCandidate(f"no candidate of {self.name} begins with {prefix}")
        legal = tuple(self.branches(prefix))
        return Decision(self.decision_name(len(prefix)), legal) if legal else None

    def roles(self, first: Choice | None) -> tuple[Role, ...]:
        """By name; the choices stand for themselves. As many as the longest draft has."""
        prefix, names = (() if first is None else (first,)), list[str]()
        if first is not None:
            names.append(self.decision_name(0))
        while legal := self.branches(prefix):
            names.append(self.decision_name(len(prefix)))
            prefix = (*prefix, next(iter(legal)))
        return tuple(Role(name) for name in names)

    def count(self) -> int:
        return sum(self.branches(()).values())

    def first(self) -> Draft | None:
        """None: a template knows better, and has its own."""
        return None

    def __contains__(self, draft: Draft) -> bool:
        """Whether some candidate begins so."""
        return all(c is not None and c in self.branches(self._prefix(draft, n)) for n, c in enumerate(draft))

    def holds(self, draft: Draft) -> bool:
        """Whether that is a candidate, whole."""
        return bool(draft) and draft in self and not self.branches(self._prefix(draft, len(draft)))

    def sample(self, rng: np.random.Generator) -> Draft:
        """Uniform over all candidates."""
        return self.complete((), rng)

    def complete(self, wish: Draft, rng: np.random.Generator) -> Draft:
        """The draft that follows ``wish`` as long as that is legal; where it is not, or None, it is drawn.

        Raises:
            InvalidCandidate: The space is empty.
        """
        taken: list[Choice] = []
        while legal := self.branches(tuple(taken)):
            wished = wish[len(taken)] if len(taken) < len(wish) else None
            taken.append(wished if wished is not None and wished in legal else _draw(legal, rng))
        if not taken:
            raise InvalidCandidate(f"{self.name} holds no candidate: its constraints leave none")
        return tuple(taken)

    def mutate(self, draft: Draft, rng: np.random.Generator) -> Draft:
        """Half of the time by one step. Later decisions are drawn anew where nothing else would be legal."""
        places = [n for n in range(len(draft)) if len(self.branches(self._prefix(draft, n))) > 1]
        if not places:
            return draft
        repaired = draft
        for place in rng.choice(places, _TRIES).tolist():
            legal = self.branches(self._prefix(draft, place))
            own = draft[place]
            assert own is not None  # drafts of counted spaces are complete
            near = steps(own, legal) if rng.random() < 0.5 else []
            others = near or [c for c in legal if c != own]
            wish = _replaced(draft, place, others[int(rng.integers(len(others)))])
            if self.holds(wish):
                return wish
            repaired = self.complete(wish, rng)
        return repaired

    def crossover(self, left: Draft, right: Draft, rng: np.random.Generator) -> Draft:
        """Takes each decision from one parent, from the other where that is illegal, and draws the rest."""
        taken: list[Choice] = []
        while legal := self.branches(tuple(taken)):
            parents = [p[len(taken)] for p in (left, right) if len(taken) < len(p)]
            if rng.random() < 0.5:
                parents.reverse()
            wished = [c for c in parents if c is not None and c in legal]
            taken.append(wished[0] if wished else _draw(legal, rng))
        return tuple(taken)

    def neighbours(self, draft: Draft) -> list[Draft]:
        found: list[Draft] = []
        for place, own in enumerate(draft):
            assert own is not None
            # What is next to it among the choices with which the decisions after it stay legal.
            legal = self.branches(self._prefix(draft, place))
            fitting = {c for c in legal if self.holds(_replaced(draft, place, c))}
            found += [_replaced(draft, place, c) for c in steps(own, fitting)]
        return found

    def adapt(self, foreign: Draft) -> Draft | None:
        taken: list[Choice] = []
        for wished in foreign:
            legal = self.branches(tuple(taken))
            if wished is None or not legal:
                return None
            nearest = min(legal, key=lambda c: distance(wished, c))
            if distance(wished, nearest) == math.inf:
                return None
            taken.append(nearest)
        return None if self.branches(tuple(taken)) else tuple(taken)

    @staticmethod
    def _prefix(draft: Draft, length: int) -> tuple[Choice, ...]:
        return draft[:length]  # type: ignore[return-value]  # complete, see the class


def _replaced(draft: Draft, place: int, choice: Choice) -> Draft:
    return (*draft[:place], choice, *draft[place + 1 :])


def _draw(legal: Mapping[Choice, int], rng: np.random.Generator) -> Choice:
    """Each choice as often as there are candidates behind it."""
    left = int(rng.integers(sum(legal.values())))
    for choice, count in legal.items():
        left -= count
        if left < 0:
            return choice
    raise AssertionError("counts changed while drawing")
