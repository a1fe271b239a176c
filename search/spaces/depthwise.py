"""A template for depthwise convolutions: every channel has a small window of its own.

A tile is ``y`` rows by ``x`` columns by ``n`` vectors of channels, as in ``contraction``, but the whole
window is written out, so that what neighbouring sums share of the input is loaded once. Padding is decided
where an element is loaded: to copy the input first, as pays where all output channels share it, takes longer
than the convolution itself.

- ``n``, ``x``, ``y``: the tile.
- ``order``: what comes next after a tile: the next ``columns``, or the same columns of the next ``channels``.
"""

import math

from tvm.s_tir import Schedule
from tvm.target import Target

from search.errors import UnsupportedWorkload
from search.problem import Workload
from search.spaces.contraction import COLUMNS, ROWS, TiledSpace, analysed
from search.spaces.knobs import Constraint, Value
from search.spaces.template import check_extents
from search.vectors import Vectors

SPACE_NAME = "depthwise/1"

VECTORS = (1, 2, 3, 4)
UNDER_WAY = 8  # additions: two a cycle, and one takes four
CROWDED = 0.55  # of the registers: with more sums, LLVM moves some to memory and back
LONGEST = 1024  # products written out: more do not fit where the processor keeps decoded instructions


class DepthwiseSpace(TiledSpace):
    """Register tiles of a depthwise convolution.

    Raises:
        UnsupportedWorkload: The workload is none, or its extents allow no tile.
    """

    def __init__(self, workload: Workload, target: Target) -> None:
        check_extents(workload)
        self._sum = about = analysed(workload)
        if len(about.spatial) != 4 or not about.channelwise:
            raise UnsupportedWorkload(f"{workload.name} is no depthwise convolution")
        self._vectors = vectors = Vectors.of(target, about.dtype)
        images, height, width, channels = about.spatial
        self._window = window = math.prod(about.reduced)
        lanes = self._lanes
        knobs: dict[str, tuple[Value, ...]] = {
            "order": ("columns", "channels"),
            "n": VECTORS,
            "y": ROWS,
            "x": COLUMNS,
        }
        constraints: list[Constraint] = [
            lambda n: channels % (n * lanes) == 0,
            lambda y: height % y == 0,
            lambda x: width % x == 0,
            lambda n, y, x: n * y * x + 2 <= vectors.registers and n * y * x * window <= LONGEST,
            lambda order, y, x: self._parts(order, y, x) >= min(images * height, vectors.threads),
        ]
        super().__init__(workload, SPACE_NAME, knobs, constraints)

    def _cost(self, order: str, n: int, y: int, x: int) -> tuple[float, ...]:  # type: ignore[override]
        """Loads for each vector of sums, then what decides between equals.

        Of tiles with more sums than are needed to keep the adders busy, what they share is not kept in
        registers: each sum loads its own, and of many more twice (19 columns of 19x19x512: 55 us, one 39;
        17 of 17x17x240: 9, one 14). Between equals: a tall tile that moves on by a column took up to
        twice as long as one that moves on by channels (28x28x192 on one core: 50 and 32 us); with strides it
        is the fastest.
        """
        images, height, width, channels = self._sum.spatial
        down, across, *_ = (*self._sum.reduced, 1)
        sums = n * y * x
        inputs = y * x * self._window if sums > UNDER_WAY else (y - 1 + down) * (x - 1 + across)
        crowded = sums > CROWDED * self._vectors.registers
        tiles = [images, height // y, channels // (n * self._lanes), width // x]
        _, imbalance = self._vectors.spread(tiles)
        strided = self._sum.stride != 1
        return (
            (inputs + self._window) / (y * x) * imbalance * (2 if crowded else 1),
            n,
            order == "columns" and y > 1 and not strided,
            x if strided else -x,
            order != "columns",
        )

    def _parts(self, order: str, y: int, x: int) -> int:
        """How many parts of images there are to share out, each of all channels.

        Cores that share out the channels of each place fetch ahead across the border, line by line, what the
        other is about to write: two to three times as long in minutes in which that trip is slow.
        """
        images, height, width, _ = self._sum.spatial
        return images * (height // y) * (width // x if order == "channels" else 1)

    def _apply(self, s: Schedule, order: str, n: int, y: int, x: int) -> None:  # type: ignore[override]
        core = s.get_sblock(self._sum.name)
        last = self._begin(s, core, self._sum.padding)
        image, height, width, channels, *window = s.get_loops(core)
        yo, yi = s.split(height, [None, y])
        xo, xi = s.split(width, [None, x])
        co, ci, lane = s.split(channels, [None, n, self._lanes])
        tiles = [image, yo, co, xo] if order == "columns" else [image, yo, xo, co]
        s.reorder(*tiles, *window, yi, xi, ci, lane)
        self._end(s, core, last, tiles, window[0], (*window, yi, xi, ci), lane)
