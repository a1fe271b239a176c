"""All spaces of a kernel. A new one joins by a line here."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
from tvm.target import Target

from search.errors import UnsupportedWorkload
from search.problem import Candidate, Workload
from search.space import Space
from search.spaces import (
    amx,
    attention,
    contraction,
    depthwise,
    halved_attention,
    halves,
    loops,
    trace,
    winograd,
)
from search.spaces.template import TemplateSpace

TEMPLATES: dict[str, Callable[[Workload, Target], TemplateSpace]] = {
    depthwise.SPACE_NAME: depthwise.DepthwiseSpace,
    amx.SPACE_NAME: amx.AmxSpace,
    halves.SPACE_NAME: halves.HalvesSpace,
    contraction.SPACE_NAME: contraction.ContractionSpace,
    winograd.SPACE_NAME: winograd.WinogradSpace,
    halved_attention.SPACE_NAME: halved_attention.HalvedAttentionSpace,
    attention.SPACE_NAME: attention.AttentionSpace,
    loops.SPACE_NAME: loops.LoopSpace,
}
"""By name, the most special first."""

SPACES: dict[str, Callable[[Workload, Target], Space]] = {**TEMPLATES, trace.SPACE_NAME: trace.TraceSpace}

READABLE: dict[str, Callable[[Workload, Target], Space]] = {
    **SPACES,
    "amx/1": amx.AmxSpace,
    "contraction/1": contraction.ContractionSpace,
    "contraction/2": contraction.ContractionSpace,
    "contraction/3": contraction.ContractionSpace,
    "winograd/1": winograd.WinogradSpace,
    "winograd/2": winograd.WinogradSpace,
}
"""Also former versions whose decisions are named and mean the same: models still learn from their records."""


def spaces_of(workload: Workload, target: Target) -> list[Space]:
    """Those that hold schedules of a workload: the most special template, mostly beside TVM's rules.

    Raises:
        UnsupportedWorkload: There is none.
    """
    found: list[Space] = []
    with suppress(UnsupportedWorkload):
        found.append(template := template_of(workload, target))
        if template.alone:
            return found
    try:
        found.append(trace.TraceSpace(workload, target))
    except UnsupportedWorkload:
        if not found:
            raise
    return found


def template_of(workload: Workload, target: Target) -> TemplateSpace:
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
    with suppress(UnsupportedWorkload):
        space = template_of(workload, target)
        return space.realize(space.first(), np.random.default_rng(0))
    return None
