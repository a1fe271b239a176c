"""A template for convolutions and matrix products of float32 by halves (``search.halves``) in a matrix unit.

Halves of the inputs are written first, where registers are loaded from; then, as in ``amx``, sums stay in
registers from the first term to the last. How many vectors of channels a tile has is decided when weights are
packed: as many as registers hold. Weights that few rows share are fetched ahead (``ahead``), where a tile has
the time.

- ``x``: columns of outputs of a tile, in one register or two.
- ``order``, ``rows``: which tiles come one after another, as in ``contraction``.
"""

import math
from collections.abc import Sequence
from typing import Any

from tvm.s_tir import Schedule
from tvm.target import Target

from search import ahead, amx, halves
from search.errors import UnsupportedWorkload
from search.problem import Workload
from search.spaces.amx import ALLOTTED, STORED, UnitSpace
from search.spaces.contraction import ROWS_OF_TILES, analysed
from search.spaces.knobs import Constraint, Value
from search.spaces.template import check_extents
from search.vectors import Vectors

SPACE_NAME = "halves/2"

COLUMNS = tuple(range(2, 2 * amx.MOST_ROWS + 1))

_LINE = 64  # bytes
_LINE_CYCLES = 7  # from the last level of caches
_FAR_CYCLES = 12  # from there or from memory, which depends on the model
_PRODUCT = 30  # with what is loaded for it
_MOST_LINES = 2 * ahead.LINES  # to fetch beside three products of each register
_NEAR = 3 << 19  # bytes that the second level of caches holds: of two megabytes where there is such a unit


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
        }
        constraints: list[Constraint] = [
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

    def _cost(self, order: str, x: int, rows: int) -> tuple[float, ...]:  # type: ignore[override]
        """Cycles: of products, of sums stored, of bytes from beyond the second level of caches."""
        about, threads = self._sum, self._vectors.threads
        registers = amx.registers_for(x) * self._blocks
        steps = math.prod(about.terms) // about.terms[-1]
        tiles = self._tiles(order, 1, 1, x, rows)
        _, turns, imbalance = self._turns(tiles)
        cycles = math.prod(tiles) * registers * (steps * _PRODUCT + STORED) + turns * ALLOTTED
        busy = cycles * imbalance / threads
        parts = math.prod(tiles[:-3])
        weights = about.weight_bytes / (1 if parts >= threads else threads)
        waiting = weights / _LINE * _FAR_CYCLES
        if self._fetches_ahead(tiles):
            waiting = max(0.0, waiting - busy / max(1.0, parts / threads))
        moved = self._fetched_bytes(tiles) - weights + self._fetched_again(tiles)
        return busy + waiting + moved / _LINE * _LINE_CYCLES, -x, -rows

    def _fetched_again(self, tiles: Sequence[int]) -> float:
        """Bytes that a core takes from beyond its caches more than once, for want of room."""
        about, threads, parts = self._sum, self._vectors.threads, math.prod(tiles[:-3])
        along, inputs, weights = tiles[-3], about.input_bytes / parts, about.weight_bytes
        turns = max(1.0, parts / threads)
        again = (
            0.0 if inputs + weights / along <= _NEAR else (along * parts / max(parts, threads) - 1) * inputs
        )
        return turns * again + (0.0 if inputs + weights <= _NEAR else (turns - 1) * weights)

    def _apply(self, s: Schedule, order: str, x: int, rows: int) -> None:  # type: ignore[override]
        about = self._sum
        core = s.get_sblock(about.name)
        for name in about.padding:
            self._halve(s, s.get_sblock(name))
        last = self._begin(s, core, about.placed[:-1])
        sums = s.cache_write(core, 0, "local")
        tiles, (yi, xi, ci, lane), reduced = self._cut(s, core, order, 1, 1, x, rows)
        *window, part, terms, products = reduced
        s.reorder(*tiles, *window, yi, ci, part, xi, lane, terms, products)
        extents = self._tiles(order, 1, 1, x, rows)
        if self._fetches_ahead(extents):
            *_, along, down, across = extents
            again = down * across * math.prod(about.terms[:-3])
            window[-1] = ahead.mark(s, window[-1], again, about.weight_bytes // along, self._weights)
        tile = halves.Tile(x, self._blocks, about.terms[-1], about.stride or 1)
        at = self._share(s, tiles, halves.MARK, tile.text)
        s.reverse_compute_at(sums, at, preserve_unit_loops=True)
        s.reverse_compute_at(last, at, preserve_unit_loops=True)
        self._store(s, last)
        zeros = s.decompose_reduction(core, window[0])
        s.tensorize(s.get_loops(zeros)[-2], tile.name("zeros"))
        s.tensorize(part, tile.name("products"))
        s.tensorize(s.get_loops(sums)[-2], tile.name("sums"))
        if about.placed:
            self._spread(s, s.get_sblock(about.placed[-1]))

    def _fetches_ahead(self, tiles: Sequence[int]) -> bool:
        """Whether weights are used rarely, and tiles have the time to fetch those of others meanwhile."""
        about, (along, down, across) = self._sum, tiles[-3:]
        times = down * across * math.prod(about.terms[:-2])
        lines = about.weight_bytes / along / _LINE / times
        return along > 1 and ahead.pays(math.prod(about.spatial[:-1])) and lines <= _MOST_LINES

    def _halve(self, s: Schedule, block: Any) -> None:
        """Takes numbers apart on all cores, in vectors: both halves of one after another."""
        *outer, chunk, half, places, channels = s.get_loops(block)
        vectors, lane = s.split(channels, [None, math.gcd(int(s.get(channels).extent), amx.LANES)])
        s.reorder(places, *outer, chunk, vectors, half, lane)
        if self._on_all_cores:
            s.parallel(places)
        s.unroll(half)
        s.vectorize(lane)
