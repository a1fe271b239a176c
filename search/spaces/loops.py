"""A template for all that is no product of matrices: pooling, means, activations, copies, softmax.

Each block runs over all cores, in whole vectors of its innermost axis; what only prepares an element is
computed where it is used. Such kernels are bound by memory, so there is little to choose:

- ``vectors``: how many vectors are computed at a time, their sums in registers.
- ``parallel``: whether on all cores, which pays only where there is enough to do.

``first`` is the draft that a formula takes for the best.
"""

import math
from typing import Any

import numpy as np
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.target import Target
from tvm.tirx.analysis import undefined_vars

from search.errors import InvalidCandidate, UnsupportedWorkload, last_line
from search.problem import Candidate, Workload
from search.space import Draft
from search.spaces.knobs import KnobSpace
from search.spaces.tir import module_of
from search.spaces.trace import trace_to_json
from search.vectors import Vectors

SPACE_NAME = "loops/1"

VECTORS = (1, 2, 4, 8)
ENOUGH_BYTES = 1 << 16  # to move, before a second core is worth what waking it costs (microseconds)


class LoopSpace(KnobSpace):
    """Vectors and cores for kernels whose blocks are sums over one tensor, or no sums.

    Raises:
        UnsupportedWorkload: The template does not apply.
    """

    def __init__(self, workload: Workload, target: Target) -> None:
        self._module = module_of(workload)
        self._vectors = Vectors.of(target, workload.args[-1].dtype)
        knobs = {"vectors": VECTORS, "parallel": (False, True)}
        super().__init__(workload, SPACE_NAME, knobs)
        try:
            self.realize(self.first(), np.random.default_rng(0))
        except InvalidCandidate as error:
            raise UnsupportedWorkload(f"{workload.name}: {error}") from error

    def first(self) -> Draft:
        """Two vectors, on all cores where there is enough to do."""
        return 1, int(self.workload.bytes >= ENOUGH_BYTES)

    def realize(self, draft: Draft, rng: np.random.Generator) -> Candidate:
        config = self.configuration(draft)
        schedule = Schedule(self._module, debug_mask="none", error_render_level="fast")
        try:
            self._apply(schedule, int(config["vectors"]), bool(config["parallel"]))
        except Exception as error:
            raise InvalidCandidate(last_line(error)) from error
        return Candidate(self.workload.hash, self.name, draft, trace_to_json(schedule.trace))  # type: ignore[arg-type]

    def _apply(self, s: Schedule, vectors: int, parallel: bool) -> None:
        blocks = s.get_child_blocks(s.get_sblock("root"))
        for block in blocks[:-1]:
            if _inlinable(s, block):
                s.compute_inline(block)
        for block in s.get_child_blocks(s.get_sblock("root")):
            self._spread(s, block, vectors, parallel)

    def _spread(self, s: Schedule, block: Any, vectors: int, parallel: bool) -> None:
        """Computes a block in vectors, on all cores."""
        axes = s.get(block).iter_vars
        loops = s.get_loops(block)
        if len(loops) != len(axes) or not loops:
            return
        kinds = [a.iter_type for a in axes]
        spatial = [x for x, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.DataPar]
        reduced = [x for x, kind in zip(loops, kinds, strict=True) if kind != tirx.IterVar.DataPar]
        if not spatial:
            return
        inner: list[Any] = []
        extent = int(s.get(spatial[-1]).extent)
        lanes = math.gcd(extent, self._vectors.lanes)
        if lanes >= min(4, self._vectors.lanes) and _is_contiguous(s, block):
            many = math.gcd(extent // lanes, vectors)
            *outer, last = spatial
            rest, *inner = s.split(last, [None, many, lanes])
            spatial = [*outer, rest]
            s.reorder(*spatial, *reduced, *inner)
        tile = spatial[-1]
        if parallel:
            count, _ = self._vectors.spread([int(s.get(x).extent) for x in spatial])
            together = s.fuse(*spatial[:count])
            s.parallel(together)
            tile = together if count == len(spatial) else tile
        if reduced and inner:
            stored = s.cache_write(block, 0, "local")
            s.reverse_compute_at(stored, tile, preserve_unit_loops=True)
            unrolled, lane = s.split(s.get_loops(stored)[-1], [None, lanes])
            s.unroll(unrolled)
            s.vectorize(lane)
        if inner:
            s.unroll(inner[0])
            s.vectorize(inner[1])
        if reduced and inner:
            s.decompose_reduction(block, reduced[0])


def _inlinable(s: Schedule, block: Any) -> bool:
    return all(a.iter_type == tirx.IterVar.DataPar for a in s.get(block).iter_vars)


def _is_contiguous(s: Schedule, block: Any) -> bool:
    """Whether the innermost spatial axis is that of all that is written and read, where it plays a part."""
    axis = [a.var for a in s.get(block).iter_vars if a.iter_type == tirx.IterVar.DataPar][-1]
    regions = [*s.get(block).reads, *s.get(block).writes]
    return all(
        axis not in undefined_vars(extent.min) for region in regions for extent in list(region.region)[:-1]
    )
