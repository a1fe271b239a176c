"""What a CPU computes with, as the shape of its kernels depends on it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm.target import Target
from tvm.target.codegen import llvm_get_vector_width, target_has_features

from search import ahead, amx, dots

BALANCED = 1.05
_LOAD = 1.08  # half cycles; tiles of one vector, which load as much as they add, show it
_LOAD_OF_WEIGHTS = 2.5  # from the second level of caches, which tiles of few rows wait for
# They add two vectors of 256 bits in the time of one of 512: measured on the last, the others as described.
_NARROW_UNITS = {"cannonlake", "icelake-client", "rocketlake", "tigerlake", "znver4"}
_FEW = 4  # rows: whatever their number, weights are what takes the time


@dataclass(frozen=True)
class Vectors:
    """What a target has to compute with.

    Attributes:
        lanes: Numbers in a vector.
        registers: How many vectors it can hold.
        threads: Cores.
        dots: It adds the products of four bytes to each lane with one instruction (VNNI).
        tiles: It has a unit that does so for whole tiles (AMX).
        narrow: Two vectors of half the width take no longer than a whole one.
    """

    lanes: int
    registers: int
    threads: int
    dots: bool = False
    tiles: bool = False
    narrow: bool = False

    @classmethod
    def of(cls, target: Target, dtype: str) -> "Vectors":
        bits, registers = int(llvm_get_vector_width(target)), 32
        if bits == 512 and not target_has_features("avx512f", target):  # TVM says 512 of every x86
            bits, registers = 256 if target_has_features("avx", target) else 128, 16
        lanes = max(1, bits // int("".join(c for c in dtype if c.isdigit()) or 32))
        bytes_ = dots.has(target, lanes), amx.has(target, lanes)
        narrow = bits == 512 and str(target.attrs.get("mcpu", "")) in _NARROW_UNITS
        return cls(lanes, registers, int(target.attrs.get("num-cores", 1)), *bytes_, narrow)

    def widths(self, rows: int) -> tuple["Vectors", ...]:
        """These, and those of half the width where they compute as much in as long for so many rows."""
        if not self.narrow or rows < _FEW:
            return (self,)
        return self, replace(self, lanes=self.lanes // 2, narrow=False)

    def needed(self, vectors: int, rows: int) -> int:
        """Registers for a tile of so many vectors by rows: its sums, weights, and an input."""
        return vectors * rows + vectors + (rows > 1)

    def cycles(self, vectors: int, rows: int, inputs: int | None = None) -> float:
        """Half cycles for a term of each sum of a tile.

        There are two additions and nearly two loads a cycle, an addition takes four, and weights come from
        the second level of caches, nearly a vector a cycle.

        Args:
            inputs: How many are loaded for a term; None for one a row.
        """
        sums = vectors * rows
        return max(sums, _LOAD * (vectors + (inputs or rows)), _LOAD_OF_WEIGHTS * vectors, 8) / sums

    @property
    def spare(self) -> int:
        """Registers to leave free where a loop is around the innermost; else LLVM keeps sums in memory."""
        return 4 if self.registers > 16 else 1

    def filled(self, rows: int, blocks: int, others: int = 1) -> tuple[int, int]:
        """To how many rows and vectors to fill up, to cut them into tiles that use well what they load.

        Args:
            others: Rows beside each of these that a tile may take in as well, such as lines of an image.
        """
        more = range(rows, rows + rows // 8 + 2) if rows >= _FEW else [rows]
        sizes = [(r, b) for r in more for b in range(blocks, blocks + blocks // 8 + 1)]
        return min(sizes, key=lambda size: (math.prod(size) * self._best(size[0], size[1], others), size))

    def price(self, rows: int, blocks: int, others: int = 1) -> float:
        """Half cycles for a term of each sum in the best tiles, what was filled up included."""
        more, wider = self.filled(rows, blocks, others)
        return more * wider / (rows * blocks) * self._best(more, wider, others)

    def _best(self, rows: int, blocks: int, others: int) -> float:
        free = self.registers - (self.spare if ahead.pays(rows * others) else 0)
        return min(
            self.cycles(n, x * y)
            for x in range(1, min(rows, self.registers) + 1)
            for y in range(1, min(others, 8) + 1)
            for n in range(1, min(blocks, 8) + 1)
            if rows % x == 0 and others % y == 0 and blocks % n == 0 and self.needed(n, x * y) <= free
        )

    def spread(self, extents: Sequence[int]) -> tuple[int, float]:
        """How many of the outermost loops to run in parallel, as one, so that cores have equally much to do.

        As few as will do: the place in each of the loops has to be worked out for every turn of the one.

        Returns:
            The number of loops, and how much longer the busiest core takes than the average one.
        """
        count, turns, imbalance = 0, 1, float(self.threads)
        for extent in extents:
            count, turns = count + 1, turns * extent
            imbalance = -(-turns // self.threads) * self.threads / turns
            if imbalance <= BALANCED:
                break
        return count, imbalance
