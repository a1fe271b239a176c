"""A template for Winograd's convolutions (``autotune.frontends.winograd`` writes them).

Three stages, each on all cores: tiles of inputs are transformed, 36 products of matrices are computed, and
tiles of outputs are transformed back, together with what follows element by element. The knobs are those of
the products' register tiles, as in ``contraction``:

- ``n``, ``x``, ``y``: vectors of output channels, and how many tiles across and down share their weights.
"""

from typing import Any

import numpy as np
from tvm.s_tir import Schedule
from tvm.target import Target

from search import ahead
from search.errors import UnsupportedWorkload
from search.problem import Workload
from search.spaces import contraction
from search.spaces.knobs import Constraint, Value
from search.spaces.template import TemplateSpace, blocks_of, write_out
from search.vectors import Vectors

SPACE_NAME = "winograd/2"

ROWS, TILES, PRODUCT, INVERSE, OUTPUT = (
    f"winograd_{stage}" for stage in ("rows", "tiles", "product", "inverse", "output")
)
"""Names of the blocks."""

OUT = "winograd_out"
"""What the last block says of itself: how many columns of outputs a tile has."""

_UNROLL = 2
_PAGE, _APART = 4096, 320  # bytes: what lies a whole page apart has to share a place in the caches


class WinogradSpace(TemplateSpace):
    """Register tiles of a Winograd convolution.

    Raises:
        UnsupportedWorkload: The workload is none.
    """

    def __init__(self, workload: Workload, target: Target) -> None:
        schedule, names = blocks_of(workload)
        if not {ROWS, TILES, PRODUCT, INVERSE, OUTPUT} <= set(names):
            raise UnsupportedWorkload(f"{workload.name} is no Winograd convolution")
        *others, self._last = names[names.index(ROWS) :]
        self._inlined = [n for n in others if n not in (ROWS, TILES, PRODUCT, INVERSE)]
        product, inverse, output = (schedule.get(schedule.get_sblock(n)) for n in (PRODUCT, INVERSE, OUTPUT))
        self._out = int(inverse.iter_vars[0].dom.extent), int(output.annotations[OUT])
        _, _, images, down, across, outputs, inputs = (int(v.dom.extent) for v in product.iter_vars)
        self._tiles = images * down * across
        weights = contraction.argument_of(schedule.mod, product.reads)
        self._fetched = weights if ahead.pays(self._tiles) else None
        self._itemsize = np.dtype(workload.args[-1].dtype).itemsize
        self._vectors = Vectors.of(target, workload.args[-1].dtype)
        self._lanes = int(np.gcd(outputs, self._vectors.lanes))
        self._input_lanes = int(np.gcd(inputs, self._vectors.lanes))
        lanes = self._lanes
        registers = self._vectors.registers - (0 if self._fetched is None else self._vectors.spare)
        knobs: dict[str, tuple[Value, ...]] = {
            "n": contraction.VECTORS,
            "y": contraction.ROWS,
            "x": contraction.COLUMNS,
        }
        constraints: list[Constraint] = [
            lambda n: outputs % (n * lanes) == 0,
            lambda y: down % y == 0,
            lambda x: across % x == 0,
            lambda n, y, x: self._vectors.needed(n, y * x) <= registers,
        ]
        super().__init__(workload, SPACE_NAME, knobs, constraints)

    def _cost(self, n: int, y: int, x: int) -> tuple[float, ...]:  # type: ignore[override]
        """What a tile loads for what it computes."""
        return self._vectors.cycles(n, y * x), -n * y * x

    def _apply(self, s: Schedule, n: int, y: int, x: int) -> None:  # type: ignore[override]
        padded = s.get_producers(s.get_sblock(ROWS))[0]
        images, rows, *_, channels = s.get_loops(padded)
        s.vectorize(s.split(channels, [None, self._input_lanes])[1])
        s.parallel(s.fuse(images, rows))
        self._transform_inputs(s)
        self._multiply(s, n, y, x)
        self._transform_outputs(s)

    def _transform_inputs(self, s: Schedule) -> None:
        tiles, rows = s.get_sblock(TILES), s.get_sblock(ROWS)
        self._set_apart(s, tiles)
        a, b, image, p, q, channels = s.get_loops(tiles)
        outer, lane = s.split(channels, [None, self._input_lanes])
        s.reorder(image, p, q, outer, a, b, lane)
        write_out(s, [a, b, lane])
        self._compute_in_tiles(s, rows, [image, p, q], outer, 5)

    def _multiply(self, s: Schedule, n: int, y: int, x: int) -> None:
        product = s.get_sblock(PRODUCT)
        self._set_apart(s, product)
        stored = s.cache_write(product, 0, "local")
        a, b, image, p, q, channels, k = s.get_loops(product)
        po, pi = s.split(p, [None, y])
        qo, qi = s.split(q, [None, x])
        co, ci, lane = s.split(channels, [None, n, self._lanes])
        depth = int(s.get(k).extent)
        ko, ki = s.split(k, [None, _UNROLL if depth % _UNROLL == 0 else 1])
        s.reorder(a, b, image, co, po, qo, ko, ki, pi, qi, ci, lane)
        if self._fetched is not None:
            used = n * self._lanes * depth * self._itemsize
            ko = ahead.mark(s, ko, self._tiles // (y * x), used, self._fetched)
        s.reverse_compute_at(stored, qo, preserve_unit_loops=True)
        write_out(s, [ki, pi, qi, ci, lane])
        *others, last = s.get_loops(stored)[-6:]
        write_out(s, [*others, *s.split(last, [None, self._lanes])])
        s.parallel(s.fuse(a, b))
        s.decompose_reduction(product, ko)

    def _transform_outputs(self, s: Schedule) -> None:
        for name in self._inlined:
            s.compute_inline(s.get_sblock(name))
        last, inverse = s.get_sblock(self._last), s.get_sblock(INVERSE)
        image, rows, columns, channels = s.get_loops(last)
        p, yi = s.split(rows, [None, self._out[0]])
        q, xi = s.split(columns, [None, self._out[1]])
        outer, lane = s.split(channels, [None, int(np.gcd(int(s.get(channels).extent), self._lanes))])
        s.reorder(image, p, q, outer, yi, xi, lane)
        write_out(s, [yi, xi, lane])
        self._compute_in_tiles(s, inverse, [image, p, q], outer, 6)

    def _compute_in_tiles(self, s: Schedule, block: Any, tiles: list[Any], at: Any, own: int) -> None:
        """Tiles on all cores; a block where they use it, its ``own`` loops written out."""
        s.set_scope(block, 0, "local")
        s.compute_at(block, at, preserve_unit_loops=True)
        s.parallel(s.fuse(*tiles))
        write_out(s, s.get_loops(block)[-own:])

    def _set_apart(self, s: Schedule, block: Any) -> None:
        """The planes of what a block writes, one for each place in a tile."""
        s.storage_align(block, 0, 1, _PAGE // self._itemsize, _APART // self._itemsize)
