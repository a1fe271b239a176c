"""What all templates have in common: knobs whose values say how TVM's schedule primitives are applied."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tvm.s_tir import Schedule

from search.errors import InvalidCandidate, UnsupportedWorkload, last_line
from search.problem import Candidate, Workload
from search.space import Draft, enumerate_drafts
from search.spaces.knobs import Constraint, KnobSpace, Value
from search.spaces.tir import module_of
from search.spaces.trace import trace_to_json


class _Schedule(Schedule):  # type: ignore[misc]
    """TVM's, without its checks in Python of each argument's type: a third of a template's time."""


for _name, _method in vars(Schedule).items():
    if inspect.isfunction(_method) and hasattr(_method, "__wrapped__"):
        setattr(_Schedule, _name, _method.__wrapped__)


class TemplateSpace(KnobSpace):
    """Schedules of a workload by a template; candidates are traces of TVM's, as of its own rules.

    Args:
        name: As of ``KnobSpace``.

    Raises:
        UnsupportedWorkload: The template does not apply.
    """

    alone = False
    """Whether TVM's own rules have nothing that could be as fast."""

    def __init__(
        self,
        workload: Workload,
        name: str,
        knobs: Mapping[str, Sequence[Value]],
        constraints: Sequence[Constraint] = (),
    ) -> None:
        super().__init__(workload, name, knobs, constraints)
        self._module = module_of(workload)
        if not self.count():
            raise UnsupportedWorkload(f"{workload.name}: {name} has no configuration for it")
        try:
            self.realize(self.first(), np.random.default_rng(0))
        except InvalidCandidate as error:
            raise UnsupportedWorkload(f"{workload.name}: {error}") from error

    def first(self) -> Draft:
        """The draft that a formula takes for the best: the one that costs least."""
        return min(enumerate_drafts(self), key=lambda d: self._cost(**self.configuration(d)))

    def _cost(self, **config: Any) -> tuple[float, ...]:
        """What to make small."""
        raise NotImplementedError

    def _apply(self, s: Schedule, **config: Any) -> None:
        """Schedules the kernel by a configuration; may raise whatever TVM does where that cannot be."""
        raise NotImplementedError

    def realize(self, draft: Draft, rng: np.random.Generator) -> Candidate:
        config = self.configuration(draft)
        schedule = _Schedule(self._module, debug_mask="none", error_render_level="fast")
        try:
            self._apply(schedule, **config)
        except NameError:
            raise  # a template's own mistake; whatever else there is may be TVM's way to refuse
        except Exception as error:
            raise InvalidCandidate(last_line(error)) from error
        return Candidate(self.workload.hash, self.name, draft, trace_to_json(schedule.trace))  # type: ignore[arg-type]


def blocks_of(workload: Workload) -> tuple[Schedule, list[str]]:
    """A kernel yet to be scheduled, and the names of its blocks.

    Raises:
        UnsupportedWorkload: It has none.
    """
    schedule = Schedule(module_of(workload))
    try:
        root = schedule.get_child_blocks(schedule.get_sblock("root"))
    except Exception as error:  # TVM raises whatever its C++ side throws
        raise UnsupportedWorkload(f"{workload.name}: {last_line(error)}") from error
    return schedule, [str(schedule.get(block).name_hint) for block in root]


def write_out(s: Schedule, loops: Sequence[Any]) -> None:
    """All turns of the loops one after another, those of the last at once."""
    for loop in loops[:-1]:
        s.unroll(loop)
    s.vectorize(loops[-1])


def check_extents(workload: Workload) -> None:
    """Refuses a workload without elements.

    Raises:
        UnsupportedWorkload: A tensor has an extent of 0.
    """
    if any(0 in a.shape for a in workload.args):
        raise UnsupportedWorkload(f"{workload.name}: there is nothing to compute")
