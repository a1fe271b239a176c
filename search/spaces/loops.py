"""A template for all that is no product of matrices: pooling, means, activations, copies, softmax.

Each block runs over all cores, in whole vectors of its innermost axis; what only prepares an element is
computed where it is used. Such kernels are bound by memory, so there is little to choose:

- ``vectors``: how many vectors are computed at a time, their sums in registers.
- ``parallel``: whether on all cores, which pays only where there is enough to do.

``first`` is the draft that a formula takes for the best.
"""

import math
from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.target import Target
from tvm.tirx.analysis import undefined_vars

from search.problem import Workload
from search.space import Draft
from search.spaces.template import TemplateSpace, check_extents
from search.vectors import Vectors

SPACE_NAME = "loops/1"

VECTORS = (1, 2, 4, 8)
_PIECES = range(32, 3, -1)  # numbers, written one after another: some lines of a cache
_CLOSE = 8192  # numbers that the first level of caches holds
ENOUGH_BYTES = 1 << 16  # to move, before a second core is worth what waking it costs (microseconds)


class LoopSpace(TemplateSpace):
    """Vectors and cores for kernels whose blocks are sums over one tensor, or no sums.

    Raises:
        UnsupportedWorkload: The template does not apply.
    """

    def __init__(self, workload: Workload, target: Target) -> None:
        check_extents(workload)
        kinds = [workload.args[-1].dtype, *(a.dtype for a in workload.args if "float" in a.dtype)]
        self._vectors = min((Vectors.of(target, kind) for kind in kinds), key=lambda v: v.lanes)
        knobs = {"vectors": VECTORS, "parallel": (False, True)}
        super().__init__(workload, SPACE_NAME, knobs)

    def first(self) -> Draft:
        """Two vectors, on all cores where there is enough to do."""
        return 1, int(self.workload.bytes >= ENOUGH_BYTES)

    def _apply(self, s: Schedule, vectors: int, parallel: bool) -> None:  # type: ignore[override]
        blocks = s.get_child_blocks(s.get_sblock("root"))
        for block in blocks[:-1]:
            if _inlinable(s, block):
                s.compute_inline(block)
        for block in s.get_child_blocks(s.get_sblock("root")):
            self._spread(s, block, vectors, parallel)

    def _spread(self, s: Schedule, block: Any, vectors: int, parallel: bool) -> None:
        """Computes a block in vectors, on all cores."""
        axes, loops = s.get(block).iter_vars, s.get_loops(block)
        if len(loops) != len(axes):
            return
        kinds = [a.iter_type for a in axes]
        spatial = [x for x, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.DataPar]
        reduced = [x for x, kind in zip(loops, kinds, strict=True) if kind != tirx.IterVar.DataPar]
        if not spatial:
            self._total(s, block, reduced)
            return
        if _is_contiguous(s, block):
            self._across(s, block, spatial, reduced, vectors, parallel)
        elif reduced and self._width(s, reduced[-1]):
            self._along(s, block, spatial, reduced, parallel)
        else:
            self._tiles(s, self._ordered(s, block, spatial), parallel)

    def _ordered(self, s: Schedule, block: Any, spatial: list[Any]) -> list[Any]:
        """Of a transposition: the output's innermost axis, or a piece of it, within that of the input.

        So what is read lies together, too, and stays in the first level of caches until all of it was used.
        """
        if len(s.get(block).reads) != 1:
            return spatial
        used = undefined_vars(list(s.get(block).reads[0].region)[-1].min)
        axes = [a.var for a in s.get(block).iter_vars]
        inner = [x for x, axis in zip(spatial, axes, strict=False) if axis in used]
        if len(inner) != 1 or inner[0].same_as(spatial[-1]):
            return spatial
        extent = piece = int(s.get(spatial[-1]).extent)
        if extent * int(s.get(inner[0]).extent) > _CLOSE:
            piece = next((n for n in _PIECES if extent % n == 0), extent)
        pieces, within = s.split(spatial[-1], [None, piece])
        order = [*(x for x in spatial[:-1] if not x.same_as(inner[0])), pieces, inner[0], within]
        s.reorder(*order)
        return order

    def _across(
        self, s: Schedule, block: Any, spatial: list[Any], reduced: list[Any], vectors: int, parallel: bool
    ) -> None:
        """Vectors of the innermost axis of the output; sums over other axes stay in registers.

        Each of what is put side by side is read in whole vectors, where they need not be narrow for that.
        """
        lanes = self._width(s, spatial[-1])
        whole = math.gcd(lanes, *_ends(s, block))
        lanes = whole if whole >= min(4, self._vectors.lanes) else lanes
        if not lanes:
            self._tiles(s, spatial, parallel)
            return
        many = math.gcd(int(s.get(spatial[-1]).extent) // lanes, vectors)
        rest, *inner = s.split(spatial[-1], [None, many, lanes])
        s.reorder(*spatial[:-1], rest, *reduced, *inner)
        tile = self._tiles(s, [*spatial[:-1], rest], parallel)
        if reduced:
            stored = s.cache_write(block, 0, "local")
            s.reverse_compute_at(stored, tile, preserve_unit_loops=True)
            unrolled, lane = s.split(s.get_loops(stored)[-1], [None, lanes])
            s.unroll(unrolled)
            s.vectorize(lane)
        s.unroll(inner[0])
        s.vectorize(inner[1])
        if reduced:
            s.decompose_reduction(block, reduced[0])

    def _along(self, s: Schedule, block: Any, spatial: list[Any], reduced: list[Any], parallel: bool) -> None:
        """A sum along the innermost axis of the input: one for each lane first, then over the lanes."""
        _, lane = s.split(reduced[-1], [None, self._width(s, reduced[-1])])
        by_lane = s.rfactor(lane, -1)
        tile = self._tiles(s, spatial, parallel)
        s.compute_at(by_lane, tile, preserve_unit_loops=True)
        lane, *inside = s.get_loops(by_lane)[-1 - len(spatial) - len(reduced) :]
        s.reorder(*inside, lane)
        s.vectorize(lane)
        s.decompose_reduction(by_lane, inside[len(spatial)])

    def _total(self, s: Schedule, block: Any, reduced: list[Any]) -> None:
        """Of all elements: one for each lane first, then over the lanes; on one core."""
        if not reduced or not (lanes := self._width(s, reduced[-1])):
            return
        _, lane = s.split(reduced[-1], [None, lanes])
        by_lane = s.rfactor(lane, 0)
        *outer, lane = s.get_loops(by_lane)
        s.vectorize(lane)
        s.decompose_reduction(by_lane, outer[0])

    def _tiles(self, s: Schedule, loops: list[Any], parallel: bool) -> Any:
        """Shares loops out among the cores; the innermost of what remains of them."""
        if not parallel:
            return loops[-1]
        count, _ = self._vectors.spread([int(s.get(x).extent) for x in loops])
        together = s.fuse(*loops[:count])
        s.parallel(together)
        return together if count == len(loops) else loops[-1]

    def _width(self, s: Schedule, loop: Any) -> int:
        """Of the vectors that a loop can be made of; 0 where that would not pay."""
        lanes = math.gcd(int(s.get(loop).extent), self._vectors.lanes)
        return lanes if lanes >= min(4, self._vectors.lanes) else 0


def _inlinable(s: Schedule, block: Any) -> bool:
    """Whether a block only prepares elements, each used by one other block."""
    elementwise = all(a.iter_type == tirx.IterVar.DataPar for a in s.get(block).iter_vars)
    return elementwise and len(s.get_consumers(block)) == 1


def _ends(s: Schedule, block: Any) -> list[int]:
    """How far what is read along the innermost spatial axis reaches."""
    axis = _innermost(s, block)
    reads = [r for r in s.get(block).reads if r.region]
    return [int(r.source.shape[-1]) for r in reads if axis in undefined_vars(r.region[-1].min)]


def _innermost(s: Schedule, block: Any) -> Any:
    """The innermost spatial axis."""
    return [a.var for a in s.get(block).iter_vars if a.iter_type == tirx.IterVar.DataPar][-1]


def _is_contiguous(s: Schedule, block: Any) -> bool:
    """Whether the innermost spatial axis is that of all that is written and read, where it plays a part."""
    axis = _innermost(s, block)
    regions = [*s.get(block).reads, *s.get(block).writes]
    return all(
        axis not in undefined_vars(extent.min) for region in regions for extent in list(region.region)[:-1]
    )
