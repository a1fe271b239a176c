"""Arguments of a kernel in memory with guard zones around, so that writing outside of them shows."""

import ctypes
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from autotune.measure.check import Array, numpy_dtype
from search.problem import TensorSpec

GUARD = 1 << 16  # bytes on each side: more than a row of tiles that runs over an edge
_ALIGNMENT = 64  # what TVM's compiled code assumes
_PLACES = 64  # of a buffer within a page, at which addresses of several buffers may collide in a cache
_PATTERN = 0xA5

_compare = ctypes.CDLL(None).memcmp


class Buffer:
    """One argument. Its address is that of an allocation plus a place that ``move`` draws anew.

    Attributes:
        tensor: What a compiled kernel takes that does not check its arguments; bytes, whatever the dtype.
        lines: The whole lines of a cache in it, 16 int32 each, for kernels of our own; what is left over at
            the end, less than a line, is in none.
        array: The same memory for NumPy.
    """

    tensor: Any
    lines: Any
    array: Array

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._dtype = numpy_dtype(spec.dtype)
        self.bytes = int(np.prod(spec.shape, dtype=np.int64)) * self._dtype.itemsize
        size = self.bytes + 2 * GUARD + _PLACES * _ALIGNMENT
        self._whole: NDArray[Any] = np.from_dlpack(tvm.runtime.empty((size,), "uint8"))
        self._place(0)

    def move(self, rng: np.random.Generator) -> None:
        """Goes to another address, where it holds garbage."""
        self._place(int(rng.integers(_PLACES)))

    def intact(self) -> bool:
        """Whether nothing was written next to it."""
        start, end = self._start, self._start + self.bytes
        return bool(
            (self._whole[start - GUARD : start] == _PATTERN).all()
            and (self._whole[end : end + GUARD] == _PATTERN).all()
        )

    def equals(self, array: Array) -> bool:
        """Whether it holds the same bytes as a contiguous array of its shape and dtype."""
        ours, theirs = (ctypes.c_void_p(a.ctypes.data) for a in (self.array, array))
        return bool(_compare(ours, theirs, ctypes.c_size_t(self.bytes)) == 0)

    def _place(self, place: int) -> None:
        self._whole[:GUARD] = _PATTERN
        self._start = GUARD + place * _ALIGNMENT
        end = self._start + self.bytes
        self._whole[GUARD : self._start] = _PATTERN
        self._whole[end : end + GUARD] = _PATTERN
        own = self._whole[self._start : end]
        self.array = own.view(self._dtype).reshape(self._spec.shape)
        self.tensor = tvm.runtime.from_dlpack(own)
        whole = own[: self.bytes // _ALIGNMENT * _ALIGNMENT]
        self.lines = tvm.runtime.from_dlpack(whole.view(np.int32).reshape(-1, _ALIGNMENT // 4))
