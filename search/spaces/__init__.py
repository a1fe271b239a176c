"""All spaces of a kernel. A new one joins by a line here."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
from tvm.target import Target

from search.errors import InvalidCandidate, UnsupportedWorkload
from search.problem import Candidate, Workload
from search.space import Space
from search.spaces import contraction, loops, trace, winograd

SPACES: dict[str, Callable[[Workload, Target], Space]] = {
    contraction.SPACE_NAME: contraction.ContractionSpace,
    winograd.SPACE_NAME: winograd.WinogradSpace,
    loops.SPACE_NAME: loops.LoopSpace,
    trace.SPACE_NAME: trace.TraceSpace,
}
"""By name, those with a good first guess in front."""


def spaces_of(workload: Workload, target: Target) -> list[Space]:
    """Those that hold schedules of a workload, at least one.

    Raises:
        UnsupportedWorkload: None does.
    """
    found: list[Space] = []
    for make in SPACES.values():
        try:
            found.append(make(workload, target))
        except UnsupportedWorkload as error:
            reason = error
    if not found:
        raise reason
    return found


def first_guess(workload: Workload, target: Target) -> Candidate | None:
    """The candidate that is good for all that is known without measuring; None where nothing is."""
    for make in SPACES.values():
        with suppress(UnsupportedWorkload, InvalidCandidate):
            space = make(workload, target)
            if (draft := space.first()) is not None:
                return space.realize(draft, np.random.default_rng(0))
    return None
