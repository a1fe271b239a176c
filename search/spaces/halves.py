"""A template for convolutions and matrix products of float32 by halves (``search.halves``) in a matrix unit.

Halves of the inputs are written first, where registers are loaded from; then, as in ``amx``, sums stay in
registers from the first term to the last. How many vectors of channels a tile has is decided when weights are
packed: as many as registers hold. Weights that few rows share are fetched ahead (``ahead``), where a tile has
the time.

- ``x``: columns of outputs of a tile, in one register or two.
- ``order``, ``rows``: which tiles come one after another, as in ``contraction``.
- ``passes``: in how many of these the sums of all tiles are added up, each over a part of the terms, so that
  what a pass reads stays in the caches. Between passes sums are in memory.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from tvm.s_tir import Schedule
from tvm.target import Target

from search import ahead, amx, halves
from search.ahead import LINE_BYTES
from search.errors import UnsupportedWorkload
from search.problem import Workload
from search.spaces.amx import ALLOTTED, STORED, UnitSpace
from search.spaces.contraction import ROWS_OF_TILES, analysed
from search.spaces.knobs import Constraint, Value
from search.spaces.template import check_extents
from search.vectors import Vectors

SPACE_NAME = "halves/2"

COLUMNS = tuple(range(2, 2 * amx.MOST_ROWS + 1))
PASSES = (1, 2, 3, 4, 6, 8, 12)

_LINE_CYCLES = 7  # from the last level of caches
_FAR_CYCLES = 20  # from memory
_PRODUCT = 30  # with what is loaded for it
_LEAST_CHUNKS = 4  # of terms, in a pass
_MOST_LINES = 2 * ahead.LINES  # to fetch beside three products of each register
_NEAR = 3 << 19  # bytes that the second level of caches holds: of two megabytes where there is such a unit


def _passes(chunks: int) -> list[int]:
    """In how many passes over the terms it may be worth adding them up."""
    return [n for n in PASSES if n == 1 or (chunks % n == 0 and chunks // n >= _LEAST_CHUNKS)]


class HalvesSpace(UnitSpace):
    """Tiles of a convolution or matrix product by halves.

    Raises:
        UnsupportedWorkload: The workload is none, its extents allow no tile, or the target has no such unit.
    """

    def __init__(self, workload: Workload, target: Target) -> None:
        check_extents(workload)
        self._sum = about = analysed(workload)
        self._vectors = vectors = Vectors.of(target, about.dtype)
        if not (about.halves and about.stride and amx.multiplies_halves(target, vectors.lanes)):
            raise UnsupportedWorkload(f"{workload.name}: no halves for the target's matrix unit")
        columns = about.spatial[-2]
        knobs: dict[str, tuple[Value, ...]] = {
            "order": ("weights", "inputs"),
            "x": COLUMNS,
            "rows": ROWS_OF_TILES,
            "passes": PASSES,
        }
        constraints: list[Constraint] = [
            lambda passes: passes in _passes(about.terms[0]),
            lambda x: columns % x == 0 and amx.registers_for(x) * self._blocks <= halves.SUMS,
            lambda x: amx.registers_for(x) <= 2,
            lambda order, x, rows: self._has_rows(order, 1, x, rows),
        ]
        super().__init__(workload, SPACE_NAME, knobs, constraints)

    @property
    def _lanes(self) -> int:
        """Channels of a tile."""
        return self.workload.args[self._weights].shape[-2]

    @property
    def _weights(self) -> int:
        assert self._sum.weights is not None, "halves of weights are an argument"
        return self._sum.weights

    @property
    def _blocks(self) -> int:
        """Vectors of channels of a tile."""
        return self._lanes // amx.LANES

    def _cost(self, order: str, x: int, rows: int, passes: int) -> tuple[float, ...]:  # type: ignore[override]
        """Cycles: of products, of sums stored, of bytes from beyond the second level of caches."""
        about, threads = self._sum, self._vectors.threads
        registers = amx.registers_for(x) * self._blocks
        steps = math.prod(about.terms) // about.terms[-1]
        tiles = self._tiles(order, 1, 1, x, rows)
        _, turns, imbalance = self._turns(tiles)
        cycles = math.prod(tiles) * registers * (steps * _PRODUCT + STORED * passes)
        busy = (cycles + turns * ALLOTTED) * imbalance / threads
        waiting = self._weight_bytes(tiles) / LINE_BYTES * _FAR_CYCLES
        if self._fetches_ahead(tiles):
            waiting = max(0.0, waiting - busy / max(1.0, math.prod(tiles[:-3]) / threads))
        moved = self._foreign_bytes(tiles) + self._fetched_again(tiles, passes)
        again = 0.0 if passes == 1 else 2 * self.workload.args[-1].bytes / threads  # what follows the sums
        return busy + waiting + (moved + again) / LINE_BYTES * _LINE_CYCLES, -x, -rows

    def _fetched_again(self, tiles: Sequence[int], passes: int) -> float:
        """Bytes that a core takes from beyond its caches more than once, for want of room."""
        about, threads, parts = self._sum, self._vectors.threads, math.prod(tiles[:-3])
        along, inputs, weights = tiles[-3], about.input_bytes / parts, about.weight_bytes
        turns = max(1.0, parts / threads)
        # A core's rows are so far apart that they lie in some sets of the caches only.
        held = about.input_bytes + 2 * weights / along
        again = 0.0 if held <= _NEAR * passes else (along * parts / max(parts, threads) - 1) * inputs
        return turns * again + (0.0 if inputs + weights <= _NEAR else (turns - 1) * weights)

    def _apply(self, s: Schedule, order: str, x: int, rows: int, passes: int) -> None:  # type: ignore[override]
        about = self._sum
        core = s.get_sblock(about.name)
        for name in about.padding:
            self._halve(s, s.get_sblock(name))
        if passes == 1:
            last = self._begin(s, core, about.placed[:-1])
            sums = s.cache_write(core, 0, "local")
        else:
            self._inline(s, about.placed[:-1])
        tiles, (yi, xi, ci, lane), reduced = self._cut(s, core, order, 1, 1, x, rows)
        *window, part, terms, products = reduced
        passed, window[0] = s.split(window[0], [passes, None])
        s.reorder(*tiles, passed, *window, yi, ci, part, xi, lane, terms, products)
        extents = self._tiles(order, 1, 1, x, rows)
        if self._fetches_ahead(extents):
            again = self._times(extents) // int(s.get(window[-1]).extent)
            window[-1] = ahead.mark(s, window[-1], again, about.weight_bytes // extents[-3], self._weights)
        tile = halves.Tile(x, self._blocks, about.terms[-1], about.stride or 1)
        at = self._share(s, tiles, halves.MARK, tile.text)
        if passes == 1:
            s.reverse_compute_at(sums, at, preserve_unit_loops=True)
            s.reverse_compute_at(last, at, preserve_unit_loops=True)
            self._store(s, last)
            s.tensorize(s.get_loops(s.decompose_reduction(core, passed))[-2], tile.name("zeros"))
            s.tensorize(part, tile.name("products"))
            s.tensorize(s.get_loops(sums)[-2], tile.name("sums"))
            ends = about.placed
        else:
            within = itertools.takewhile(lambda n: s.get(n) != s.get(passed), s.get_loops(core)[1:])
            s.reorder(passed, *within)
            s.vectorize(s.get_loops(s.decompose_reduction(core, passed))[-1])
            s.annotate(at, halves.RESUMED, tile.text)
            s.tensorize(part, tile.name("additions"))
            ends = about.placed or about.after
        for name in ends[-1:]:
            block = s.get_sblock(name)
            if len(loops := s.get_loops(block)) == 2:
                s.add_unit_loop(loops[0])  # rows are shared out as lines are
            self._spread(s, block)

    def _fetches_ahead(self, tiles: Sequence[int]) -> bool:
        """Whether weights are used rarely, and tiles have the time to fetch those of others meanwhile."""
        about, along = self._sum, tiles[-3]
        lines = about.weight_bytes / along / LINE_BYTES / self._times(tiles)
        return along > 1 and ahead.pays(math.prod(about.spatial[:-1])) and lines <= _MOST_LINES

    def _times(self, tiles: Sequence[int]) -> int:
        """How often products are added with weights of one tile."""
        return math.prod(tiles[-2:]) * math.prod(self._sum.terms[:-2])

    def _halve(self, s: Schedule, block: Any) -> None:
        """Takes numbers apart on all cores, in vectors: both halves of one after another."""
        *outer, chunk, half, places, channels = s.get_loops(block)
        vectors, lane = s.split(channels, [None, math.gcd(int(s.get(channels).extent), amx.LANES)])
        s.reorder(places, *outer, chunk, vectors, half, lane)
        if self._on_all_cores:
            s.parallel(places)
        s.unroll(half)
        s.vectorize(lane)
