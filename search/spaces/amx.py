"""A template for convolutions and matrix products of bytes: tiles of the size of a matrix unit's registers.

As in ``contraction``, but sums lie in up to six registers of 16 rows by 16 channels (``search.amx``), are
copied to the first level of caches when they are complete, and go on from there as vectors.

- ``n``, ``x``, ``y``: vectors of channels, columns and rows of outputs of a tile. Columns lie in as few
  registers as hold them.
- ``order``, ``rows``: which tiles come one after another, as in ``contraction``.
"""

import math
from collections.abc import Sequence
from typing import Any

from tvm.s_tir import Schedule
from tvm.target import Target

from search import amx
from search.errors import UnsupportedWorkload
from search.problem import Workload
from search.spaces.contraction import ROWS, ROWS_OF_TILES, TiledSpace, analysed
from search.spaces.knobs import Constraint, Value
from search.spaces.template import check_extents
from search.vectors import Vectors

SPACE_NAME = "amx/2"

VECTORS = tuple(range(1, amx.SUMS + 1))
COLUMNS = tuple(range(2, amx.SUMS * amx.MOST_ROWS + 1))

STORED = 24  # cycles for a register of sums: to the cache, and back as vectors
ALLOTTED = 600  # cycles for a turn: registers are asked for, allotted and freed


class UnitSpace(TiledSpace):
    """What templates for the matrix unit have in common: cores allot its registers, in few turns."""

    alone = True

    def _turns(self, extents: Sequence[int]) -> tuple[int, int, float]:
        """How many loops to share out among cores, in how many turns, and how much longer the busiest takes.

        In as few as will do, for each allots the registers anew.
        """
        count, _ = self._vectors.spread(extents)
        *whole, parted = extents[:count]
        factors = [n for n in range(1, parted + 1) if parted % n == 0]
        turns = min((math.prod(whole) * n for n in factors), key=self._imbalance)
        return count, turns, self._imbalance(turns)

    def _imbalance(self, turns: int) -> float:
        return self._vectors.spread([turns])[1]

    def _share(self, s: Schedule, tiles: list[Any], mark: str, text: str) -> Any:
        """Shares tiles out among cores; the loop at which each begins."""
        extents = [int(s.get(t).extent) for t in tiles]
        count, turns, _ = self._turns(extents)
        begun, within = s.split(tiles[count - 1], [turns // math.prod(extents[: count - 1]), None])
        turn = s.fuse(*tiles[: count - 1], begun)
        if self._on_all_cores:
            s.parallel(turn)
        s.annotate(turn, mark, text)
        return within if count == len(tiles) else tiles[-1]


class AmxSpace(UnitSpace):
    """Tiles of a convolution or matrix product of bytes.

    Raises:
        UnsupportedWorkload: The workload is none, its extents allow no tile, or the target has no such unit.
    """

    def __init__(self, workload: Workload, target: Target) -> None:
        check_extents(workload)
        self._sum = about = analysed(workload)
        self._vectors = vectors = Vectors.of(target, about.dtype)
        if not (about.dots and about.stride and vectors.tiles and self._lanes == amx.LANES):
            raise UnsupportedWorkload(f"{workload.name}: no sum of bytes for the target's matrix unit")
        self._stride = about.stride
        *outer, columns, channels = about.spatial
        if not amx.pays(columns, about.terms[-1]):
            raise UnsupportedWorkload(f"{workload.name}: too few columns or terms for the matrix unit")
        self._terms = amx.terms_for(about.terms[-1])
        height = outer[-1] if outer else 1
        knobs: dict[str, tuple[Value, ...]] = {
            "order": ("weights", "inputs"),
            "n": VECTORS,
            "y": ROWS,
            "x": COLUMNS,
            "rows": ROWS_OF_TILES,
        }
        constraints: list[Constraint] = [
            lambda n: channels % (n * amx.LANES) == 0,
            lambda y: height % y == 0,
            lambda x: columns % x == 0,
            lambda n, y, x: n * y * amx.registers_for(x) <= amx.SUMS,
            self._has_rows,
        ]
        super().__init__(workload, SPACE_NAME, knobs, constraints)

    def _cost(self, order: str, n: int, y: int, x: int, rows: int) -> tuple[float, ...]:  # type: ignore[override]
        """Cycles for each sum (a row is multiplied in one, as are two loaded), then bytes that move."""
        about = self._sum
        registers = n * y * amx.registers_for(x)
        steps = math.prod(about.terms) // self._terms
        multiplied, loaded = registers * amx.MOST_ROWS, n * y * (self._terms + x)
        cycles = steps * max(multiplied, loaded / 2) + registers * STORED
        tiles = self._tiles(order, n, y, x, rows)
        _, turns, imbalance = self._turns(tiles)
        total = (math.prod(tiles) * cycles + turns * ALLOTTED) * imbalance
        moved = about.weight_bytes if order == "inputs" else about.input_bytes
        return total, moved, -n * y * x, -rows

    def _apply(self, s: Schedule, order: str, n: int, y: int, x: int, rows: int) -> None:  # type: ignore[override]
        about = self._sum
        core = s.get_sblock(about.name)
        for name in about.padding:
            self._spread(s, s.get_sblock(name))
        last = self._begin(s, core, ())
        sums = s.cache_write(core, 0, "local")
        tiles, (yi, xi, ci, lane), reduced = self._cut(s, core, order, n, y, x, rows)
        *window, terms, products = reduced
        ko, ki = s.split(terms, [None, self._terms])
        s.reorder(*tiles, *window, ko, yi, ci, xi, lane, ki, products)
        tile = amx.Tile(x, self._terms, self._stride, n, about.side_by_side)
        at = self._share(s, tiles, amx.MARK, tile.text)
        s.reverse_compute_at(sums, at, preserve_unit_loops=True)
        s.reverse_compute_at(last, at, preserve_unit_loops=True)
        self._store(s, last)
        for loop in (yi, ci):
            s.unroll(loop)
        zeros = s.decompose_reduction(core, window[0] if window else ko)
        s.tensorize(s.get_loops(zeros)[-2], tile.name("zeros"))
        s.tensorize(xi, tile.name("products"))
        *_, columns, channels = s.get_loops(sums)
        vectors, lane = s.split(channels, [None, amx.LANES])
        s.reorder(vectors, columns, lane)
        for loop in s.get_loops(sums)[-3 - (y > 1) : -2]:
            s.unroll(loop)
        s.tensorize(columns, tile.name("sums"))
