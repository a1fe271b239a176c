"""Knobs with values and constraints between them: the form of a template's space.

>>> space = KnobSpace(                                                       # doctest: +SKIP
...     workload, "tiles/1", {"x": (1, 2, 4, 8), "y": (1, 2, 4), "unroll": (0, 1)},
...     constraints=(lambda x, y: x * y <= 16,),
... )
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np

from search.errors import AutotuneError, InvalidCandidate
from search.problem import Candidate, Choice, Workload
from search.space import Draft, Role
from search.spaces.counted import CountedSpace

Value = int | float | str | bool
Constraint = Callable[..., bool]
"""Says whether values go together; the names of its parameters are those of the knobs that it is about."""


class BadKnobs(AutotuneError):
    """Knobs without values, or a constraint on a knob that there is not."""

    exit_code = 5


class KnobSpace(CountedSpace):
    """Each knob is a decision, the index of its value the choice.

    Candidates are counted from the last knob to the first, once for each combination of the values that a
    later constraint still asks about. So a space of 10^12 points whose constraints are about few knobs each
    is counted, and sampled uniformly, in milliseconds; one constraint over all knobs makes a space's size the
    cost of counting it.

    Args:
        name: With a version, such as ``conv-direct/1``; to be changed whenever the knobs mean something else.
        knobs: The values of each, in an order in which neighbours are alike.

    Raises:
        BadKnobs: A knob without values, or a constraint that is not about knobs.
    """

    def __init__(
        self,
        workload: Workload,
        name: str,
        knobs: Mapping[str, Sequence[Value]],
        constraints: Sequence[Constraint] = (),
    ) -> None:
        super().__init__(workload, name)
        self.knobs = {knob: tuple(values) for knob, values in knobs.items()}
        if not self.knobs:
            raise BadKnobs(f"{name}: a space needs at least one knob")
        if empty := [knob for knob, values in self.knobs.items() if not values]:
            raise BadKnobs(f"{name}: knob {empty[0]} has no values; give at least one")
        self._names = tuple(self.knobs)
        self._decided: list[list[tuple[Constraint, tuple[int, ...]]]] = [[] for _ in self._names]
        for constraint in constraints:
            about = self._about(constraint)
            self._decided[max(about)].append((constraint, about))
        self._memo: dict[tuple[Choice, ...], dict[Choice, int]] = {}

    def _about(self, constraint: Constraint) -> tuple[int, ...]:
        """The places of the knobs that a constraint is about."""
        asked = tuple(inspect.signature(constraint).parameters)
        if not asked or not set(asked) <= set(self._names):
            about = ", ".join(asked) or "nothing"
            raise BadKnobs(
                f"{self.name}: a constraint is about {about}; the knobs are {', '.join(self._names)}"
            )
        return tuple(self._names.index(a) for a in asked)

    @cached_property
    def _open(self) -> list[tuple[int, ...]]:
        """After each number of decisions: the places of those that a constraint to come asks about."""
        asked = [{p for _, about in decided for p in about} for decided in self._decided]
        return [
            tuple(sorted({p for later in asked[n:] for p in later if p < n}))
            for n in range(len(self._names) + 1)
        ]

    def branches(self, prefix: tuple[Choice, ...]) -> Mapping[Choice, int]:
        place = len(prefix)
        if place == len(self._names):
            return {}
        key = (place, *(prefix[p] for p in self._open[place]))
        found = self._memo.get(key)
        if found is None:
            found = {}
            for choice in range(len(self.knobs[self._names[place]])):
                chosen = (*prefix, choice)
                if self._holds(chosen) and (count := self._behind(chosen)):
                    found[choice] = count
            self._memo[key] = found
        return found

    def _behind(self, prefix: tuple[Choice, ...]) -> int:
        return 1 if len(prefix) == len(self._names) else sum(self.branches(prefix).values())

    def _holds(self, prefix: tuple[Choice, ...]) -> bool:
        """Whether the constraints hold whose last knob was just decided."""
        return all(
            constraint(*(self.value(place, prefix[place]) for place in about))
            for constraint, about in self._decided[len(prefix) - 1]
        )

    def value(self, place: int, choice: Choice) -> Value:
        """What a choice stands for."""
        assert isinstance(choice, int)
        return self.knobs[self._names[place]][choice]

    def decision_name(self, place: int) -> str:
        return self._names[place]

    def roles(self, first: Choice | None) -> tuple[Role, ...]:
        """The knobs; what is no number stands for its place among the values."""
        return tuple(
            Role(n, tuple(float(v) if isinstance(v, int | float) else float(i) for i, v in enumerate(values)))
            for n, values in self.knobs.items()
        )

    def configuration(self, draft: Draft) -> dict[str, Value]:
        """The value of each knob.

        Raises:
            InvalidCandidate: The draft is none of this space.
        """
        if not self.holds(draft):
            raise InvalidCandidate(f"{draft} is no candidate of {self.name}")
        return {n: self.value(place, draft[place]) for place, n in enumerate(self._names)}  # type: ignore[arg-type]

    def realize(self, draft: Draft, rng: np.random.Generator) -> Candidate:
        """The candidate's trace is its configuration as JSON."""
        trace = json.dumps(self.configuration(draft))
        return Candidate(self.workload.hash, self.name, draft, trace)  # type: ignore[arg-type]
