"""What a CPU computes with, as the shape of its kernels depends on it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tvm.target import Target
from tvm.target.codegen import llvm_get_vector_width, target_has_features

BALANCED = 1.05


@dataclass(frozen=True)
class Vectors:
    """What a target has to compute with.

    Attributes:
        lanes: Numbers in a vector.
        registers: How many vectors it can hold.
        threads: Cores.
    """

    lanes: int
    registers: int
    threads: int

    @classmethod
    def of(cls, target: Target, dtype: str) -> "Vectors":
        bits, registers = int(llvm_get_vector_width(target)), 32
        if bits == 512 and not target_has_features("avx512f", target):  # TVM says 512 of every x86
            bits, registers = 256 if target_has_features("avx", target) else 128, 16
        lanes = max(1, bits // int("".join(c for c in dtype if c.isdigit()) or 32))
        return cls(lanes, registers, int(target.attrs.get("num-cores", 1)))

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
