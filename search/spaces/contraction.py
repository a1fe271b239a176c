"""A template for convolutions and matrix products: tiles of the size of the vector registers.

The kernel's sum is computed tile by tile. A tile is ``y`` rows by ``x`` columns by ``n`` vectors of output
channels; its sums stay in registers from the first term to the last, and what follows element by element
(bias, activation, residual) is done before it is stored. That is how vendor libraries are written; here the
sizes are knobs, few enough that the whole space can be known:

- ``n``, ``x``, ``y``: the tile. Together they need as many registers as the target has, or fewer.
- ``order``: which tiles come one after another: those that share weights, or those that share inputs.
- ``rows``: with shared inputs first, how many rows of tiles use the same weights before the next come.
- ``unroll``: how many terms of the sum a turn of the innermost loop adds.

Sums of 8-bit integers add four products a lane with one instruction (``dots``); a term is then one of these.

Weights that few rows share are fetched ahead (``ahead``): no knob, for what it brings shows only in a model.
Tiles of whole or half lines leave out products with padding (``edges``) where these are many: no knob either,
for it pays wherever it can be done.

``first`` is the draft that a formula takes for the best.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.sym import Analyzer, detect_linear_equation
from tvm.target import Target
from tvm.tirx.analysis import undefined_vars

from search import ahead, dots, edges, halves
from search.errors import UnsupportedWorkload, last_line
from search.problem import Workload
from search.spaces.knobs import Constraint, Value
from search.spaces.template import TemplateSpace, check_extents
from search.spaces.tir import module_of
from search.vectors import Vectors

SPACE_NAME = "contraction/4"

VECTORS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
COLUMNS = tuple(range(1, 33))
ROWS = tuple(range(1, 9))
ROWS_OF_TILES = (1, 2, 4, 7, 8, 14, 16, 28)
UNROLLS = (1, 2, 4, 8)

_LEAST_FLOP = _LEAST_BYTES = 500_000  # some 5 microseconds of one core; to wake another takes about two
_LEAST_PADDED = 0.03  # of all products: fewer are not worth the code that leaves them out
_LONGEST = 1024  # instructions written out for that
_FOREIGN = 3  # times as long as from the last level of caches take bytes that another core has just written


@dataclass(frozen=True)
class Contraction:
    """The sum at the heart of a kernel, and what stands around it.

    Attributes:
        name: Of its block.
        spatial: Extents of the output: any outer ones, rows, columns, channels.
        reduced: Extents of the sum, the innermost last.
        padding: Blocks that prepare its input.
        padded: Share of the products that are with zeros which the one such block fills in around an image.
        after: Blocks that follow element by element; the last writes the output.
        beside: Blocks that prepare what those read besides the sum.
        placed: In place of ``after``: blocks that put sums elsewhere, and what follows.
        weights: Position among the arguments of the operand that all rows and columns share; None where there
            is none (depthwise), or it is no argument.
        weight_bytes: Of that operand.
        input_bytes: Of the other one.
        dtype: Of the sum.
        dots: Its innermost axis is of four products of 8-bit integers, which lie together in both operands.
        halves: Its operands are halves of numbers (``search.halves``): the sum's innermost axis is of two
            products, which lie together in both, and the last but two of the halves that are multiplied.
        stride: From the inputs of one column to those of the next; None where that is not fixed.
        side_by_side: Columns are no axis of the input: their inputs, and a sum's terms, lie along the same.
        channelwise: The sum is over a window, and every channel is computed from one of the input.
        grouped: Which channels of the input are read depends on the channel of the output.
        packed: Channels of a block of weights; 0 where they are in no blocks.
    """

    name: str
    spatial: tuple[int, ...]
    reduced: tuple[int, ...]
    padding: tuple[str, ...]
    padded: float
    after: tuple[str, ...]
    beside: tuple[str, ...]
    placed: tuple[str, ...]
    weights: int | None
    weight_bytes: int
    input_bytes: int
    dtype: str
    dots: bool
    halves: bool
    stride: int | None
    side_by_side: bool
    channelwise: bool
    grouped: bool
    packed: int

    @property
    def terms(self) -> tuple[int, ...]:
        """Extents of the loops that add to the sum, the innermost last."""
        return self.reduced[:-1] if self.dots or self.halves else self.reduced


def analyse(module: tvm.IRModule) -> Contraction:
    """Finds the sum in a kernel.

    Raises:
        UnsupportedWorkload: There is none, or more than one, or it is not of products of two tensors.
    """
    schedule = Schedule(module)
    root = schedule.get_sblock("root")
    blocks = {schedule.get(b).name_hint: b for b in schedule.get_child_blocks(root)}
    sums = [n for n, b in blocks.items() if _is_sum(schedule.get(b))]
    if len(sums) != 1:
        raise UnsupportedWorkload(f"{len(sums)} sums, expected one")
    core = blocks[sums[0]]
    block = schedule.get(core)
    if not _adds_products(block.body) or len(block.reads) != 2:
        raise UnsupportedWorkload("the sum is not one of products of two tensors")
    producers = [schedule.get(b) for b in schedule.get_producers(core)]
    axes = {kind: [v for v in block.iter_vars if v.iter_type == kind] for kind in (_SPATIAL, _REDUCED)}
    spatial = [v.var for v in axes[_SPATIAL]]
    if len(spatial) < 2 or list(block.body.indices) != spatial:
        raise UnsupportedWorkload("the sum's loops are not those of its output, in their order")
    shared = [r for r in block.reads if spatial[-2] not in _variables(r)]
    read = [_channel(r, axes[_REDUCED]) for r in block.reads if r not in shared]
    stride, side_by_side = _stride([r for r in block.reads if r not in shared], spatial[-2])
    moved = blocks.get(halves.PLACED)
    placed = () if moved is None else (halves.PLACED, *_behind(schedule, moved))
    behind, before = () if placed else set(_behind(schedule, core)), set(_before(schedule, core))
    after = tuple(n for n in blocks if n in behind)
    return Contraction(
        name=sums[0],
        spatial=tuple(int(v.dom.extent) for v in axes[_SPATIAL]),
        reduced=tuple(int(v.dom.extent) for v in axes[_REDUCED]),
        padding=tuple(str(p.name_hint) for p in producers),
        padded=_filled_share(module, block, producers),
        after=after,
        beside=tuple(n for n in blocks if n not in {sums[0], *after, *placed, *before}),
        placed=tuple(n for n in blocks if n in placed),
        weights=argument_of(module, shared) if len(shared) == 1 else None,
        weight_bytes=sum(_bytes(r.source) for r in shared),
        input_bytes=sum(_bytes(r.source) for r in block.reads if r not in shared),
        dtype=str(block.writes[0].source.dtype),
        dots=_lie_together(block, "uint8", "int8", dots.TERMS),
        halves=_lie_together(block, *halves.DTYPES, halves.TERMS),
        stride=stride,
        side_by_side=side_by_side,
        channelwise=all(channel.same_as(spatial[-1]) for channel in read),
        grouped=any(spatial[-1] in undefined_vars(channel) for channel in read),
        packed=max((_block_of(r, spatial[-1]) for r in shared), default=0),
    )


def analysed(workload: Workload) -> Contraction:
    """As ``analyse``.

    Raises:
        UnsupportedWorkload: As of ``analyse``, or the kernel is not one that TVM can schedule.
    """
    try:
        return analyse(module_of(workload))
    except Exception as error:  # TVM raises whatever its C++ side throws, of kernels without blocks
        raise UnsupportedWorkload(f"{workload.name}: {last_line(error)}") from error


_SPATIAL, _REDUCED = tirx.IterVar.DataPar, tirx.IterVar.CommReduce


def _is_sum(block: Any) -> bool:
    return any(v.iter_type == _REDUCED for v in block.iter_vars)


def _adds_products(store: Any) -> bool:
    value = getattr(store, "value", None)
    return isinstance(value, tirx.Add) and isinstance(value.b, tirx.Mul)


def _lie_together(block: Any, left: str, right: str, terms: int) -> bool:
    """Whether operands are of such types, and the sum's innermost axis is of terms next to each other."""
    inner = block.iter_vars[-1]
    innermost = [list(r.region)[-1].min for r in block.reads]
    return (
        [str(r.source.dtype) for r in block.reads] == [left, right]
        and int(inner.dom.extent) == terms
        and innermost[1].same_as(inner.var)
        and inner.var in undefined_vars(innermost[0])
    )


def _variables(region: Any) -> set[Any]:
    """Those that decide which part of a buffer is read."""
    return {v for extent in region.region for v in undefined_vars(extent.min)}


def _channel(region: Any, reduced: Sequence[Any]) -> Any:
    """Which channel of a buffer is read; the only place that a sum over one term visits is 0."""
    analyzer = Analyzer()
    for axis in reduced:
        analyzer.bind(axis.var, axis.dom)
    return analyzer.simplify(region.region[-1].min)


def _stride(regions: Sequence[Any], column: Any) -> tuple[int | None, bool]:
    """How far apart neighbouring columns are read, and whether along the innermost axis."""
    if len(regions) != 1 or len(regions[0].region) < 2:
        return None, False
    *_, rows, inner = (axis.min for axis in regions[0].region)
    side_by_side = column in undefined_vars(inner)
    factors = detect_linear_equation(inner if side_by_side else rows, [column])
    return (int(factors[0]) if factors and isinstance(factors[0], tirx.IntImm) else None), side_by_side


def _block_of(region: Any, channel: Any) -> int:
    """How many channels lie in a block of a buffer; 0 where they are in no blocks, or in one."""
    places = (axis.min for axis in region.region)
    blocks = (p for p in places if isinstance(p, tirx.FloorMod) and p.a.same_as(channel))
    return next((int(p.b) for p in blocks), 0)


def _filled_share(module: tvm.IRModule, block: Any, producers: Sequence[Any]) -> float:
    """See ``Contraction.padded``; 0 where more is done to what is read, or nothing."""
    match producers:
        case [filling] if argument_of(module, filling.reads) is not None:
            return edges.share(block, filling)
    return 0.0


def argument_of(module: tvm.IRModule, regions: Sequence[Any]) -> int | None:
    """Position of the first of a kernel's arguments that one of the regions is of."""
    arguments = enumerate(module["main"].params)
    return next((n for n, a in arguments if any(r.source.same_as(a) for r in regions)), None)


def _bytes(buffer: Any) -> int:
    return math.prod(int(d) for d in buffer.shape) * int(np.dtype(str(buffer.dtype)).itemsize)


def _behind(schedule: Schedule, block: Any) -> Iterator[str]:
    """The blocks that follow from one, directly or not."""
    for consumer in schedule.get_consumers(block):
        if not _is_elementwise(schedule.get(consumer), schedule.get(block)):
            raise UnsupportedWorkload("what follows the sum is not done element by element")
        yield str(schedule.get(consumer).name_hint)
        yield from _behind(schedule, consumer)


def _before(schedule: Schedule, block: Any) -> Iterator[str]:
    """The blocks that a block's inputs come from."""
    for producer in schedule.get_producers(block):
        yield str(schedule.get(producer).name_hint)
        yield from _before(schedule, producer)


def _is_elementwise(block: Any, producer: Any) -> bool:
    """Whether each element follows from the producer's in the same place; the last ones may be left out."""
    written, axes = producer.writes[0].source, [v.var for v in block.iter_vars]
    read = [r.region for r in block.reads if r.source.same_as(written)]
    return (
        not _is_sum(block)
        and len(read) == 1
        and [e.min for e in read[0]] == axes
        and all(int(v.dom.extent) <= int(d) for v, d in zip(block.iter_vars, written.shape, strict=True))
    )


class TiledSpace(TemplateSpace):
    """What templates of register tiles have in common: their sums, and how a tile begins and ends.

    A subclass sets ``_sum`` and ``_vectors`` and has ``_cost``.
    """

    _sum: Contraction
    _vectors: Vectors

    @cached_property
    def _lanes(self) -> int:
        """Channels of a vector.

        Raises:
            UnsupportedWorkload: Too few for vectors to pay.
        """
        channels, lanes = self._sum.spatial[-1], self._vectors.lanes
        found = math.gcd(channels, lanes, self._sum.packed)
        if found < min(4, lanes):
            raise UnsupportedWorkload(f"{channels} channels are no whole number of vectors")
        return found

    @property
    def _on_all_cores(self) -> bool:
        """Whether there is enough to do for a second core to be worth what waking it takes."""
        return self.workload.flop >= _LEAST_FLOP or self.workload.bytes >= _LEAST_BYTES

    def _tiles(self, order: str, n: int, y: int, x: int, rows: int) -> list[int]:
        """How many tiles there are along each loop over them, as they come; ``_cut`` makes the loops.

        Those of channels are the third from the end, for the last two share their weights.
        """
        *outer, height, columns, channels = (1, *self._sum.spatial)
        across, down, along = columns // x, height // y, channels // (n * self._lanes)
        if order == "weights":
            return [*outer, along, down, across]
        if self._is_line:
            return [*outer, across // rows, along, down, rows]
        return [*outer, down // rows, along, rows, across]

    @property
    def _is_line(self) -> bool:
        """Whether there are no rows but one, so that those of tiles are made of its columns."""
        return math.prod(self._sum.spatial[-3:-2]) == 1

    def _has_rows(self, order: str, y: int, x: int, rows: int) -> bool:
        """Whether tiles can be taken so many rows at a time: none, where those that share weights follow."""
        if order == "weights":
            return rows == 1
        return (self._sum.spatial[-2] // x if self._is_line else self._sum.spatial[-3] // y) % rows == 0

    def _fetched_bytes(self, tiles: Sequence[int]) -> float:
        """What a core takes from beyond its own caches; a byte that another core wrote counts as several.

        Kernels share images out by lines, so that each core finds in its caches what it wrote. One that
        shares out channels reads what others wrote, and writes what others will read.
        """
        return self._weight_bytes(tiles) + self._foreign_bytes(tiles)

    def _weight_bytes(self, tiles: Sequence[int]) -> float:
        """Of the weights that a core uses: all, or its share of channels."""
        return self._sum.weight_bytes / (self._vectors.threads if self._shares_channels(tiles) else 1)

    def _foreign_bytes(self, tiles: Sequence[int]) -> float:
        """What other cores wrote or will read, each byte as several."""
        if not self._shares_channels(tiles):
            return 0.0
        threads = self._vectors.threads
        passed = self._sum.input_bytes + self.workload.args[-1].bytes / threads
        return _FOREIGN * passed * (threads - 1) / threads

    def _shares_channels(self, tiles: Sequence[int]) -> bool:
        return math.prod(tiles[:-3]) < self._vectors.threads

    def _cut(
        self, s: Schedule, core: Any, order: str, n: int, y: int, x: int, rows: int
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """Loops over tiles, those within one (rows, columns, vectors, lanes), and those over terms."""
        loops = s.get_loops(core)
        spatial, reduced = loops[: len(self._sum.spatial)], loops[len(self._sum.spatial) :]
        if len(spatial) == 2:
            spatial = [s.add_unit_loop(spatial[0]), *spatial]
        *outer, height, columns, channels = spatial
        yo, yi = s.split(height, [None, y])
        xo, xi = s.split(columns, [None, x])
        co, ci, lane = s.split(channels, [None, n, self._lanes])
        if order == "weights":
            return [*outer, co, yo, xo], [yi, xi, ci, lane], reduced
        if self._is_line:
            xo, xm = s.split(xo, [None, rows])
            return [*outer, xo, co, yo, xm], [yi, xi, ci, lane], reduced
        yo, ym = s.split(yo, [None, rows])
        return [*outer, yo, co, ym, xo], [yi, xi, ci, lane], reduced

    def _spread(self, s: Schedule, block: Any) -> None:
        """Computes a block on all cores, in vectors."""
        *outer, channels = s.get_loops(block)
        if len(outer) > 1 and self._on_all_cores:
            s.parallel(s.fuse(*outer[:2]))
        extent = int(s.get(channels).extent)
        lanes = math.gcd(extent, self._lanes)
        if lanes > 1:
            s.vectorize(s.split(channels, [None, lanes])[1])

    def _begin(self, s: Schedule, core: Any, inlined: Sequence[str]) -> Any:
        """Keeps the sums of ``core`` in registers; gives the block that stores them."""
        self._inline(s, inlined)
        if not self._sum.after:
            return s.cache_write(core, 0, "local")
        last = s.get_sblock(self._sum.after[-1])
        s.set_scope(core, 0, "local")
        return last

    def _inline(self, s: Schedule, inlined: Sequence[str]) -> None:
        """Leaves of what stands around the sum only the block that ends the kernel."""
        for name in (*inlined, *self._sum.beside, *self._sum.after[:-1]):
            s.compute_inline(s.get_sblock(name))

    def _end(
        self,
        s: Schedule,
        core: Any,
        last: Any,
        tiles: Sequence[Any],
        first: Any,
        unrolled: Sequence[Any],
        lane: Any,
    ) -> None:
        """Tiles on all cores, each stored at its end: whole vectors of channels, all else written out.

        Args:
            tiles: The loops over tiles.
            first: The loop before which the sums are set to zero.
        """
        count, _ = self._vectors.spread([int(s.get(t).extent) for t in tiles])
        together = s.fuse(*tiles[:count])
        if self._on_all_cores:
            s.parallel(together)
        s.reverse_compute_at(last, together if count == len(tiles) else tiles[-1], preserve_unit_loops=True)
        for loop in unrolled:
            s.unroll(loop)
        if not self._sum.dots:
            s.vectorize(lane)
        for loop in s.get_loops(last)[-len(self._sum.spatial) : -1]:
            s.unroll(loop)
        self._store(s, last)
        zeros = s.decompose_reduction(core, first)
        if self._sum.dots:
            s.vectorize(s.get_loops(zeros)[-1])
            s.tensorize(lane, dots.name(self._lanes))

    def _store(self, s: Schedule, last: Any) -> None:
        """Stores whole vectors of channels."""
        *_, channels = s.get_loops(last)
        lanes = math.gcd(self.workload.args[-1].shape[-1], self._lanes)
        vectors, stored = s.split(channels, [None, lanes])
        s.unroll(vectors)
        s.vectorize(stored)


class ContractionSpace(TiledSpace):
    """Register tiles of a convolution or matrix product.

    Raises:
        UnsupportedWorkload: The workload is none, or its extents allow no tile.
    """

    def __init__(self, workload: Workload, target: Target) -> None:
        check_extents(workload)
        self._sum = about = analysed(workload)
        self._vectors = vectors = Vectors.of(target, about.dtype)
        if about.dots and not vectors.dots:
            raise UnsupportedWorkload(f"{workload.name}: the target has no instruction for sums of bytes")
        if about.halves:
            raise UnsupportedWorkload(f"{workload.name}: bfloat16 is for a matrix unit")
        *outer, columns, channels = about.spatial
        height = outer[-1] if outer else 1
        lanes = self._lanes
        pays = ahead.pays(math.prod(outer) * columns) and not about.dots
        self._fetched = about.weights if pays else None
        registers = vectors.registers - (0 if self._fetched is None else self._vectors.spare)
        knobs: dict[str, tuple[Value, ...]] = {
            "order": ("weights", "inputs"),
            "n": VECTORS,
            "y": ROWS,
            "x": COLUMNS,
            "rows": ROWS_OF_TILES,
            "unroll": UNROLLS,
        }
        constraints: list[Constraint] = [
            lambda n: channels % (n * lanes) == 0,
            lambda y: height % y == 0,
            lambda x: columns % x == 0,
            lambda n, y, x: vectors.needed(n, y * x) <= registers,
            self._has_rows,
            lambda unroll: about.terms[-1] % unroll == 0,
        ]
        super().__init__(workload, SPACE_NAME, knobs, constraints)

    def _cost(  # type: ignore[override]
        self, order: str, n: int, y: int, x: int, rows: int, unroll: int
    ) -> tuple[float, ...]:
        """Cycles for each vector of sums, bytes from elsewhere, loads, then what decides between equals.

        Loads cost nothing where they fit beside additions; but where a core is shared with another thread, as
        virtual machines' are, what loads least is fastest (169 and 144 GFLOP/s for 3x8 and 2x8).
        """
        about = self._sum
        cycles = self._vectors.cycles(n, y * x, inputs=y * x * (n if about.grouped else 1))
        tiles = self._tiles(order, n, y, x, rows)
        if self._leaves_out_padding(tiles, n, y, x, unroll):
            cycles *= 1 - about.padded
        _, imbalance = self._vectors.spread(tiles)
        moved = about.weight_bytes if order == "inputs" else about.input_bytes
        # What is fetched ahead lies in the cache beside what is used.
        return (
            cycles * imbalance,
            self._fetched_bytes(tiles),
            (n + y * x) / (n * y * x),
            moved,
            0 if self._fetched is None else n,
            -n * y * x,
            -rows,
            abs(unroll - 2),
        )

    def _apply(  # type: ignore[override]
        self, s: Schedule, order: str, n: int, y: int, x: int, rows: int, unroll: int
    ) -> None:
        about = self._sum
        core = s.get_sblock(about.name)
        counts = self._tiles(order, n, y, x, rows)
        skips = self._leaves_out_padding(counts, n, y, x, unroll)
        if not skips:
            for name in about.padding:
                self._spread(s, s.get_sblock(name))
        last = self._begin(s, core, about.padding if skips else ())
        tiles, (yi, xi, ci, lane), reduced = self._cut(s, core, order, n, y, x, rows)
        reduced, products = reduced[: len(about.terms)], reduced[len(about.terms) :]
        ko, ki = s.split(reduced[-1], [None, unroll])
        s.reorder(*tiles, *reduced[:-1], ko, ki, yi, xi, ci, lane, *products)
        *_, along, down, across = counts
        if self._fetched is not None and along > 1:
            used = about.weight_bytes * n * self._lanes // about.spatial[-1]
            again = down * across * math.prod(about.reduced[:-1])
            ko = ahead.mark(s, ko, again, used, self._fetched)
        first = reduced[0] if len(reduced) > 1 else ko
        unrolled = [ki, yi, xi, ci]
        if skips:
            unrolled += [edges.mark(s, reduced[-2]), *([tiles[-1]] if across > 1 else [])]
        self._end(s, core, last, tiles, first, unrolled, lane)

    def _leaves_out_padding(self, tiles: Sequence[int], n: int, y: int, x: int, unroll: int) -> bool:
        """Whether a tile computes only what lies within the image.

        For that it is of a whole line or of half of one, each half with code of its own.
        """
        about = self._sum
        if about.padded < _LEAST_PADDED or self._is_line or y > 1:
            return False
        columns = about.spatial[-2]
        in_halves = columns == 2 * x and self._vectors.spread(tiles)[0] < len(tiles)
        return (in_halves or columns == x) and n * columns * about.reduced[-2] * unroll <= _LONGEST
