"""The space that a user's own MetaSchedule rules span, for our searchers."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import tvm
from tvm.s_tir import Schedule

from db.exchange.modules import SPACE_NAME, choices_of
from search.problem import Candidate, Workload
from search.space import Draft
from search.spaces.trace import TraceSpace


class DesignSpace(TraceSpace):
    """Every schedule of given sketches, where ``TraceSpace`` makes sketches by rules of its own.

    Its drafts begin with the sketch's place among the given, MetaSchedule's candidates elsewhere with a hash
    of it (``choices_of``): ``outward`` and ``inward`` translate.

    Args:
        generator: TVM's generator of the sketches, whose postprocessors finish each schedule.
        sketches: What it generated for ``module``.
    """

    name = "metaschedule-sketches/1"

    def __init__(
        self, workload: Workload, module: tvm.IRModule, generator: Any, sketches: list[Schedule]
    ) -> None:
        self.workload = workload
        self._module = module
        self._context = SimpleNamespace(space_generator=generator)
        traces = [s.trace.simplified(remove_postproc=True) for s in sketches]
        self._sketches = self._read(traces)
        self._hashes = [choices_of(t)[0] for t in traces]

    def outward(self, draft: Draft) -> Draft:
        """A draft of this space as ``choices_of`` would give it."""
        assert isinstance(draft[0], int)
        return self._hashes[draft[0]], *draft[1:]

    def inward(self, candidate: Candidate) -> Candidate | None:
        """MetaSchedule's candidate as one of this space; None where it was made from none of the sketches."""
        first, *rest = candidate.choices
        if candidate.space != SPACE_NAME or first not in self._hashes:
            return None
        return replace(candidate, space=self.name, choices=(self._hashes.index(first), *rest))
