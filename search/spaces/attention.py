"""A template for attention as one kernel (``autotune.frontends.attention`` writes it).

Some rows of queries are multiplied with all keys, then their softmax with all values, while the scores stay
in the core's own caches. Keys are packed, values put together, once for each head. Both products are computed
in register tiles, as in ``contraction``:

- ``x``: rows of both tiles.
- ``n``, ``m``: vectors of keys, and of the values' channels.
- ``rows``: how many tiles' rows are taken together, so that keys and values are loaded less often.
"""

import math
from typing import Any

from tvm.s_tir import Schedule
from tvm.target import Target

from search.errors import UnsupportedWorkload
from search.problem import Workload
from search.spaces import contraction
from search.spaces.knobs import Constraint, Value
from search.spaces.template import TemplateSpace, blocks_of, check_extents, write_out
from search.vectors import BALANCED, Vectors

SPACE_NAME = "attention/1"

STAGES = (
    QUERIES, KEYS, VALUES, SCORES, CHANGED, HIGHEST_BY_LANE, HIGHEST, RAISED, TOTAL_BY_LANE, TOTAL, WEIGHTS,
    MIXED, OUTPUT,
) = tuple(
    f"attention_{stage}"
    for stage in (
        "queries", "keys", "values", "scores", "changed", "highest_by_lane", "highest", "raised",
        "total_by_lane", "total", "weights", "mixed", "output",
    )
)  # fmt: skip
"""Names of the blocks."""

ROWS = (1, 2, 3, 4, 6, 8)

_NEAR = 1 << 15  # bytes of scores: the first level of caches holds them
_CLOSE = 1 << 18  # the second level does, beside keys and values
_UNROLL = 2


class TiledAttentionSpace(TemplateSpace):
    """What attention's templates have in common: which rows are taken when, and where each stage is computed.

    A subclass has ``_cost``, ``_multiply`` and ``_mix``.
    """

    alone = True

    _vectors: Vectors
    _stages: list[str]
    _heads: int
    _rows: int
    _row_bytes: int
    _lanes: int

    def _read(self, workload: Workload, target: Target) -> tuple[int, int, int]:
        """How many keys there are, filled up and really, and how many channels.

        Raises:
            UnsupportedWorkload: There is no attention.
        """
        check_extents(workload)
        schedule, names = blocks_of(workload)
        self._stages = [stage for stage in STAGES if stage in names]
        if not {SCORES, MIXED, OUTPUT} <= set(names):
            raise UnsupportedWorkload(f"{workload.name} is no attention")
        scores, values = (schedule.get(schedule.get_sblock(n)) for n in (CHANGED, VALUES))
        *heads, self._rows, keys = (int(v.dom.extent) for v in scores.iter_vars)
        output = workload.args[-1]
        self._heads = math.prod(heads)
        self._row_bytes = keys * output.bytes // math.prod(output.shape)
        self._vectors = Vectors.of(target, output.dtype)
        return keys, int(values.iter_vars[len(heads)].dom.extent), output.shape[-1]

    def _is_cut(self, x: int, rows: int) -> bool:
        """Whether rows can be taken so, their scores near enough."""
        close = rows == 1 or x * rows * self._row_bytes <= _CLOSE
        return self._rows % (x * rows) == 0 and close

    def _imbalance(self, x: int, rows: int) -> float:
        return self._vectors.spread([self._heads, self._rows // (x * rows)])[1]

    def _far(self, x: int, rows: int) -> int:
        """Bytes of scores, where the first level of caches does not hold them."""
        return max(_NEAR, x * rows * self._row_bytes)

    def _apply(  # type: ignore[override]
        self, s: Schedule, x: int, m: int, rows: int, **config: Any
    ) -> None:
        """Takes rows on all cores, and computes each stage for these; what all rows need once for a head."""
        *heads, row, channel = self._loops_as_mixed(s)
        head = s.fuse(*heads)
        tile, among, within = s.split(row, [None, rows, x])
        channels, vector, lane = s.split(channel, [None, m, self._lanes])
        s.reorder(head, tile, channels, among, within, vector, lane)
        write_out(s, [within, vector, lane])
        _, imbalance = self._vectors.spread([self._heads])
        by_heads = imbalance <= BALANCED
        shared = head if by_heads else s.fuse(head, tile)
        s.parallel(shared)
        tile = tile if by_heads else shared
        s.compute_at(s.get_sblock(MIXED), among, preserve_unit_loops=True)
        for name in reversed(self._stages):
            if name not in (KEYS, VALUES, MIXED, OUTPUT):
                s.compute_at(s.get_sblock(name), tile, preserve_unit_loops=True)
        for name in (KEYS, VALUES):
            block = s.get_sblock(name)
            if by_heads:
                s.compute_at(block, head, preserve_unit_loops=True)
            else:
                s.parallel(s.fuse(*s.get_loops(block)[: len(heads)]))
        self._multiply(s, x=x, **config)
        self._mix(s, x, m)
        for name in (HIGHEST_BY_LANE, TOTAL_BY_LANE):
            self._by_lane(s, s.get_sblock(name))
        for name in self._stages:  # in their order: equal configurations are equal traces
            if name in (QUERIES, KEYS, VALUES, RAISED, WEIGHTS):
                self._prepare(s, s.get_sblock(name))
        self._begin(s, shared, x)

    def _multiply(self, s: Schedule, x: int, **config: Any) -> None:
        """Queries by keys, what follows done before a tile is stored."""
        raise NotImplementedError

    def _mix(self, s: Schedule, x: int, m: int) -> None:
        """Softmax by values, up to what each core stores."""
        raise NotImplementedError

    def _begin(self, s: Schedule, shared: Any, x: int) -> None:
        """What a core does first, in the loop that is shared out."""

    def _prepare(self, s: Schedule, block: Any) -> None:
        """Computes a stage element by element, in vectors."""
        *_, last = s.get_loops(block)
        extent = int(s.get(last).extent)
        s.vectorize(s.split(last, [None, math.gcd(extent, self._vectors.lanes)])[1])

    def _loops_as_mixed(self, s: Schedule) -> list[Any]:
        """The output's loops, as axes of what it is made of follow each other."""
        block = s.get_sblock(OUTPUT)
        axes, loops = [v.var for v in s.get(block).iter_vars], s.get_loops(block)
        read = next(r for r in s.get(block).reads if len(r.region) == len(axes))
        ordered = [next(n for n, a in enumerate(axes) if a.same_as(e.min)) for e in read.region]
        found = [loops[n] for n in ordered]
        s.reorder(*found)
        return found

    @staticmethod
    def _by_lane(s: Schedule, block: Any) -> None:
        """A sum, or a maximum, over vectors, in a register."""
        *_, row, lane, vectors = s.get_loops(block)
        stored = s.cache_write(block, 0, "local")
        s.reorder(vectors, lane)
        s.reverse_compute_at(stored, row, preserve_unit_loops=True)
        s.vectorize(s.get_loops(stored)[-1])
        s.vectorize(lane)
        s.vectorize(s.get_loops(s.decompose_reduction(block, vectors))[-1])


class AttentionSpace(TiledAttentionSpace):
    """Register tiles of attention.

    Raises:
        UnsupportedWorkload: The workload is none, or its extents allow no tile.
    """

    def __init__(self, workload: Workload, target: Target) -> None:
        keys, self._keys, width = self._read(workload, target)
        vectors = self._vectors
        if WEIGHTS in self._stages:
            raise UnsupportedWorkload(f"{workload.name}: halves are for a matrix unit")
        self._lanes, lanes = math.gcd(width, vectors.lanes), vectors.lanes
        if self._lanes < min(4, lanes):
            raise UnsupportedWorkload(f"{workload.name}: {width} channels are no whole number of vectors")
        registers = vectors.registers - vectors.spare
        knobs: dict[str, tuple[Value, ...]] = {
            "x": contraction.COLUMNS,
            "n": contraction.VECTORS,
            "m": contraction.VECTORS,
            "rows": ROWS,
        }
        constraints: list[Constraint] = [
            lambda x, n: keys // lanes % n == 0 and vectors.needed(n, x) <= registers,
            lambda x, m: width // self._lanes % m == 0 and vectors.needed(m, x) <= registers,
            self._is_cut,
        ]
        super().__init__(workload, SPACE_NAME, knobs, constraints)

    def _cost(self, x: int, n: int, m: int, rows: int) -> tuple[float, ...]:  # type: ignore[override]
        """Half cycles for a term of each sum times the imbalance, scores out of reach, loads, rows."""
        cycles = self._vectors.cycles(n, x) + self._vectors.cycles(m, x)
        loads = (n + x) / (n * x) + (m + x) / (m * x)
        return cycles * self._imbalance(x, rows), self._far(x, rows), loads, -rows * x

    def _multiply(self, s: Schedule, x: int, n: int) -> None:  # type: ignore[override]
        scores, changed = s.get_sblock(SCORES), s.get_sblock(CHANGED)
        row, column, depth = s.get_loops(scores)[-3:]
        among, within = s.split(row, [None, x])
        columns, vector, lane = s.split(column, [None, n, self._vectors.lanes])
        extent = int(s.get(depth).extent)
        depth, again = s.split(depth, [None, _UNROLL if extent % _UNROLL == 0 else 1])
        s.reorder(columns, among, depth, again, within, vector, lane)
        s.set_scope(scores, 0, "local")
        s.reverse_compute_at(changed, among, preserve_unit_loops=True)
        *others, last = s.get_loops(changed)[-2:]
        write_out(s, [*others, *s.split(last, [None, self._vectors.lanes])])
        write_out(s, [again, within, vector, lane])
        s.decompose_reduction(scores, depth)

    def _mix(self, s: Schedule, x: int, m: int) -> None:
        mixed = s.get_sblock(MIXED)
        s.set_scope(mixed, 0, "local")
        within, channel, key = s.get_loops(mixed)[-3:]
        vector, lane = s.split(channel, [m, self._lanes])
        key, again = s.split(key, [None, _UNROLL if self._keys % _UNROLL == 0 else 1])
        s.reorder(key, again, within, vector, lane)
        write_out(s, [again, within, vector, lane])
        s.decompose_reduction(mixed, key)
