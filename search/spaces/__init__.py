"""All spaces of a kernel. A new one joins by a line here."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
from tvm.target import Target

from search.errors import InvalidCandidate, UnsupportedWorkload
from search.problem import Candidate, Workload
from search.space import Space
from search.spaces import contraction, loops, trace, winograd

Make = Callable[[Workload, Target], Space]

TEMPLATES: dict[str, Make] = {
    contraction.SPACE_NAME: contraction.ContractionSpace,
    winograd.SPACE_NAME: winograd.WinogradSpace,
    loops.SPACE_NAME: loops.LoopSpace,
}
"""By name, the most special first."""

SPACES: dict[str, Make] = {**TEMPLATES, trace.SPACE_NAME: trace.TraceSpace}


def spaces_of(workload: Workload, target: Target) -> list[Space]:
    """Those that hold schedules of a workload, at least one: the most special template, and TVM's rules.

    Raises:
        UnsupportedWorkload: There is none.
    """
    found: list[Space] = []
    with suppress(UnsupportedWorkload):
        found.append(template_of(workload, target))
    try:
        found.append(trace.TraceSpace(workload, target))
    except UnsupportedWorkload:
        if not found:
            raise
    return found


def template_of(workload: Workload, target: Target) -> Space:
    """The most special template that applies.

    Raises:
        UnsupportedWorkload: None does.
    """
    for make in TEMPLATES.values():
        with suppress(UnsupportedWorkload):
            return make(workload, target)
    raise UnsupportedWorkload(f"{workload.name}: no template applies")


def first_guess(workload: Workload, target: Target) -> Candidate | None:
    """The candidate that is good for all that is known without measuring; None where nothing is."""
    with suppress(UnsupportedWorkload, InvalidCandidate):
        space = template_of(workload, target)
        if (draft := space.first()) is not None:
            return space.realize(draft, np.random.default_rng(0))
    return None
