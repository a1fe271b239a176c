"""A template for Winograd's convolutions (``autotune.frontends.winograd`` writes them).

Three stages: tiles of inputs are transformed, 36 products of matrices are computed, and tiles of outputs are
transformed back, together with what follows element by element. Either each stage is done on all cores, and
the next begins when all of it is there, though others wrote it. Or the work is cut into parts, some rows of
tiles and some channels of the output, and a core takes one through all stages: it reads only what it wrote
just before, and waits for nobody. Then inputs are transformed for each share of the channels, and weights are
read for each part. The knobs are those of the products' register tiles, as in ``contraction``, and two more:

- ``n``, ``x``, ``y``: vectors of output channels, and how many tiles across and down share their weights.
- ``rows``: rows of tiles in a part; 0 for stage after stage.
- ``shares``: how many parts the channels are cut into.
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

SPACE_NAME = "winograd/3"

ROWS, TILES, PRODUCT, INVERSE, OUTPUT = (
    f"winograd_{stage}" for stage in ("rows", "tiles", "product", "inverse", "output")
)
"""Names of the blocks."""

OUT = "winograd_out"
"""What the last block says of itself: how many columns of outputs a tile has."""

ROWS_OF_TILES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56)
SHARES = (1, 2, 4, 8)

_UNROLL = 2
_TRANSFORM = 7.0  # half cycles for each place of a tile, and vector of inputs
_CROSSING = 1.5  # times as long, by the minute from 1 to 2, where stages read what other cores wrote
_FAR_BYTES = 1 << 22  # of weights: in a model so many come from memory, for each part anew
_AGAIN = 1.2  # times as long
_PAGE, _APART = 4096, 320  # bytes: what lies a whole page apart has to share a place in the caches


class WinogradSpace(TemplateSpace):
    """Register tiles of a Winograd convolution, and how cores share the work.

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
        extents = [int(v.dom.extent) for v in product.iter_vars]
        *_, self._images, self._down, self._across, self._outputs, self._inputs = extents
        self._places = extents[0] * extents[1]
        self._weights = contraction.argument_of(schedule.mod, product.reads)
        self._fetches = ahead.pays(self._images * self._down * self._across)
        self._weight_bytes = workload.args[self._weights].bytes if self._weights is not None else 0
        self._itemsize = np.dtype(workload.args[-1].dtype).itemsize
        self._vectors = vectors = Vectors.of(target, workload.args[-1].dtype)
        self._lanes = lanes = int(np.gcd(self._outputs, vectors.lanes))
        self._input_lanes = int(np.gcd(self._inputs, vectors.lanes))
        registers = vectors.registers - (vectors.spare if self._fetches else 0)
        # Where some are left out, TVM computes as many in a part, and leaves vectors in pieces.
        whole = workload.args[-1].shape[-1] == self._outputs
        knobs: dict[str, tuple[Value, ...]] = {
            "n": contraction.VECTORS,
            "y": contraction.ROWS,
            "x": contraction.COLUMNS,
            "rows": ROWS_OF_TILES,
            "shares": SHARES,
        }
        constraints: list[Constraint] = [
            lambda n: self._outputs % (n * lanes) == 0,
            lambda y: self._down % y == 0,
            lambda x: self._across % x == 0,
            lambda n, y, x: vectors.needed(n, y * x) <= registers,
            lambda y, rows: rows % y == 0 and (rows == 0 or (whole and self._down % rows == 0)),
            lambda n, shares: self._outputs % (n * lanes * shares) == 0,
            lambda rows, shares: shares == 1 or rows > 0,
        ]
        super().__init__(workload, SPACE_NAME, knobs, constraints)

    def _fetched(self, rows: int, shares: int) -> int | None:
        """Position of the weights if they are to be fetched ahead, which a core does that reads them once."""
        once = rows == 0 or self._parts(rows, shares) <= self._vectors.threads
        return self._weights if self._fetches and once else None

    def _parts(self, rows: int, shares: int) -> int:
        return self._images * self._down // rows * shares

    def _cost(  # type: ignore[override]
        self, n: int, y: int, x: int, rows: int, shares: int
    ) -> tuple[float, ...]:
        """What a tile loads for what it computes, the transformations that are done again, idle cores."""
        cycles = self._vectors.cycles(n, y * x) + _TRANSFORM * shares / self._outputs
        if rows == 0:
            return cycles * self._vectors.spread([self._places])[1] * _CROSSING, 0, 0, -n * y * x
        parts = self._parts(rows, shares)
        _, imbalance = self._vectors.spread([parts])
        far = self._weight_bytes > _FAR_BYTES and parts > self._vectors.threads
        return cycles * imbalance * (_AGAIN if far else 1.0), rows, shares, -n * y * x

    def _apply(  # type: ignore[override]
        self, s: Schedule, n: int, y: int, x: int, rows: int, shares: int
    ) -> None:
        for name in self._inlined:
            s.compute_inline(s.get_sblock(name))
        padded = s.get_producers(s.get_sblock(ROWS))[0]
        tiles, product = s.get_sblock(TILES), s.get_sblock(PRODUCT)
        for block in (tiles, product):  # their planes, one for each place in a tile
            s.storage_align(block, 0, 1, _PAGE // self._itemsize, _APART // self._itemsize)
        part = self._cut(s, rows, shares) if rows else None
        stages = [self._transform_outputs(s)]
        if part is not None:
            for block in (product, tiles):
                s.compute_at(block, part, preserve_unit_loops=True)
        places, terms = self._multiply(s, product, n, y, x, rows, shares)
        stages += [places, self._transform_inputs(s, tiles)]
        if part is not None:
            s.compute_at(padded, part, preserve_unit_loops=True)
        *_, image, line, _, channels = s.get_loops(padded)
        s.vectorize(s.split(channels, [None, self._input_lanes])[1])
        if part is None:
            for loops in ([image, line], *stages):
                s.parallel(s.fuse(*loops))
        s.decompose_reduction(product, terms)

    def _cut(self, s: Schedule, rows: int, shares: int) -> Any:
        """The loop over parts, on all cores; what it leaves of the output's loops is of one part."""
        image, lines, columns, channels = s.get_loops(s.get_sblock(self._last))
        each, lines = s.split(lines, [None, rows * self._out[0]])
        share, channels = s.split(channels, [shares, None])
        s.reorder(image, each, share, lines, columns, channels)
        part = s.fuse(image, each, share)
        s.parallel(part)
        return part

    def _transform_outputs(self, s: Schedule) -> list[Any]:
        """Gives the loops over tiles, as the other stages do theirs."""
        last, inverse = s.get_sblock(self._last), s.get_sblock(INVERSE)
        *_, image, rows, columns, channels = s.get_loops(last)
        p, yi = s.split(rows, [None, self._out[0]])
        q, xi = s.split(columns, [None, self._out[1]])
        outer, lane = s.split(channels, [None, int(np.gcd(int(s.get(channels).extent), self._lanes))])
        s.reorder(p, q, outer, yi, xi, lane)
        write_out(s, [yi, xi, lane])
        _compute_in_tiles(s, inverse, outer, 6)
        return [image, p, q]

    def _multiply(
        self, s: Schedule, product: Any, n: int, y: int, x: int, rows: int, shares: int
    ) -> tuple[list[Any], Any]:
        """Gives the loops over places in a tile, too, and the one before which sums are set to zero."""
        stored = s.cache_write(product, 0, "local")
        *_, a, b, image, p, q, channels, k = s.get_loops(product)
        po, pi = s.split(p, [None, y])
        qo, qi = s.split(q, [None, x])
        co, ci, lane = s.split(channels, [None, n, self._lanes])
        ko, ki = s.split(k, [None, _UNROLL if self._inputs % _UNROLL == 0 else 1])
        s.reorder(a, b, image, co, po, qo, ko, ki, pi, qi, ci, lane)
        if (fetched := self._fetched(rows, shares)) is not None:
            used = n * self._lanes * self._inputs * self._itemsize
            again = (rows or self._images * self._down) * self._across // (y * x)
            plane = self._inputs * self._outputs  # another share's follow upon those of a part
            ko = ahead.mark(s, ko, again, used, fetched, plane if rows else None)
        s.reverse_compute_at(stored, qo, preserve_unit_loops=True)
        write_out(s, [ki, pi, qi, ci, lane])
        *others, last = s.get_loops(stored)[-6:]
        write_out(s, [*others, *s.split(last, [None, self._lanes])])
        return [a, b], ko

    def _transform_inputs(self, s: Schedule, tiles: Any) -> list[Any]:
        *_, a, b, image, p, q, channels = s.get_loops(tiles)
        outer, lane = s.split(channels, [None, self._input_lanes])
        s.reorder(image, p, q, outer, a, b, lane)
        write_out(s, [a, b, lane])
        _compute_in_tiles(s, s.get_sblock(ROWS), outer, 5)
        return [image, p, q]


def _compute_in_tiles(s: Schedule, block: Any, at: Any, own: int) -> None:
    """A block where tiles use it, its ``own`` loops written out."""
    s.set_scope(block, 0, "local")
    s.compute_at(block, at, preserve_unit_loops=True)
    write_out(s, s.get_loops(block)[-own:])
