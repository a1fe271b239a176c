"""A template for attention by halves (``search.halves``) in a matrix unit.

As ``attention``, but queries and the softmax's weights are taken apart where registers are loaded from, keys
and values are packed as halves, and sums of a tile stay in the unit's registers.

- ``x``: rows of a tile, in one register or two.
- ``rows``: how many tiles' rows are taken together.
"""

from typing import Any

from tvm.s_tir import Schedule
from tvm.target import Target

from search import amx, halves
from search.errors import UnsupportedWorkload
from search.problem import Workload
from search.spaces import attention as stages
from search.spaces.attention import ROWS, TiledAttentionSpace
from search.spaces.halves import COLUMNS
from search.spaces.knobs import Constraint, Value
from search.spaces.template import blocks_of, write_out

SPACE_NAME = "halved-attention/1"


class HalvedAttentionSpace(TiledAttentionSpace):
    """Tiles of attention by halves.

    Raises:
        UnsupportedWorkload: The workload is none, its extents allow no tile, or the target has no such unit.
    """

    def __init__(self, workload: Workload, target: Target) -> None:
        self._read(workload, target)
        if stages.WEIGHTS not in self._stages or not amx.multiplies_halves(target, self._vectors.lanes):
            raise UnsupportedWorkload(f"{workload.name}: no halves for the target's matrix unit")
        self._lanes = amx.LANES
        s, _ = blocks_of(workload)
        self._blocks = {
            name: int(s.get(s.get_sblock(name)).iter_vars[-1].dom.extent) // amx.LANES
            for name in (stages.KEYS, stages.VALUES)
        }
        knobs: dict[str, tuple[Value, ...]] = {"x": COLUMNS, "rows": ROWS}
        constraints: list[Constraint] = [lambda x: amx.registers_for(x) <= 2, self._is_cut]
        super().__init__(workload, SPACE_NAME, knobs, constraints)

    def _cost(self, x: int, rows: int) -> tuple[float, ...]:  # type: ignore[override]
        """Products for a row times the imbalance, scores out of reach, loads, rows."""
        registers = amx.registers_for(x)
        products = registers / x * self._imbalance(x, rows)
        return products, self._far(x, rows), -registers, -rows * x

    def _apply(self, s: Schedule, x: int, rows: int) -> None:  # type: ignore[override]
        super()._apply(s, x=x, m=self._blocks[stages.VALUES], rows=rows)

    def _begin(self, s: Schedule, shared: Any, x: int) -> None:
        s.annotate(shared, halves.MARK, self._tile(x, stages.KEYS).text)

    def _tile(self, x: int, right: str) -> halves.Tile:
        return halves.Tile(x, self._blocks[right], amx.MOST_TERMS, 1)

    def _multiply(self, s: Schedule, x: int) -> None:  # type: ignore[override]
        scores, changed = s.get_sblock(stages.SCORES), s.get_sblock(stages.CHANGED)
        row, column, *reduced = s.get_loops(scores)[-6:]
        among, within = s.split(row, [None, x])
        columns, lane = s.split(column, [None, self._blocks[stages.KEYS] * amx.LANES])
        s.reorder(columns, among, *reduced[:2], within, lane, *reduced[2:])
        s.set_scope(scores, 0, "local")
        s.reverse_compute_at(changed, among, preserve_unit_loops=True)
        *others, last = s.get_loops(changed)[-2:]
        write_out(s, [*others, *s.split(last, [None, amx.LANES])])
        self._in_registers(s, scores, reduced, self._tile(x, stages.KEYS))

    def _mix(self, s: Schedule, x: int, m: int) -> None:
        mixed = s.get_sblock(stages.MIXED)
        within, lane, *reduced = s.get_loops(mixed)[-6:]
        s.reorder(*reduced[:2], within, lane, *reduced[2:])
        s.set_scope(mixed, 0, "local")
        self._in_registers(s, mixed, reduced, self._tile(x, stages.VALUES))

    def _prepare(self, s: Schedule, block: Any) -> None:
        """Both halves of a number one after another: it is loaded and rounded once."""
        if str(s.get(block).name_hint) == stages.RAISED:
            super()._prepare(s, block)
            return
        *_, half, terms, numbers = s.get_loops(block)
        vectors, lane = s.split(numbers, [None, amx.LANES])
        s.reorder(terms, vectors, half, lane)
        write_out(s, [half, lane])

    @staticmethod
    def _in_registers(s: Schedule, block: Any, reduced: list[Any], tile: halves.Tile) -> None:
        """Sums in registers, from the first term to the last; then they are stored."""
        chunk, part, *_ = reduced
        sums = s.cache_write(block, 0, "local")
        s.tensorize(s.get_loops(s.decompose_reduction(block, chunk))[-2], tile.name("zeros"))
        s.tensorize(part, tile.name("words"))
        s.tensorize(s.get_loops(sums)[-2], tile.name("sums"))
