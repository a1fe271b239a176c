"""What this machine does on small kernels of our own: a description that no data sheet gives.

MAPLE (Abbasi, Wong and Shafiee, Microprocessor A Priori for Latency Estimation, 2022) describes a device to a
cost model by how it does on probes, and so do we. Importing this package imports TVM.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from autotune.counters import counters_available, seconds_per_cycle
from autotune.probes import kernels
from autotune.probes.pinned import Batch, samples
from autotune.system import caches

_INSTRUCTIONS = 3e6  # multiply-adds of a run on a core: a millisecond, to fall between slices of other load
_PEAK_DEPTH = 128  # of the panels multiplied over and over: 23 KiB at most, to stay in L1
_PART_BYTES = 1 << 23  # streamed by each core in a run: as short, for the same reason
_STREAM_BYTES = 1 << 28  # in all, where cache sizes are not known
_FORKS = 100  # parallel regions of a run, so that calling the kernel costs little beside them
_CHAINS = 20_000  # turns of a run of the chain: again a millisecond


def probe(cpus: Sequence[int], isa: Sequence[str]) -> dict[str, float]:
    """Measures what these CPUs, one of each core, do; each figure is that of the best of many runs.

    - ``peak_gflops_f32``, ``_f64`` and, where the CPU computes with it, ``_f16``: 10^9 operations a second of
      all cores, a multiply-add being two; ``peak_gflops_f32_core``: of one core. There is none for bfloat16,
      which TVM turns into float32 before LLVM sees it, nor of the tiles of AMX, which our kernels do not use.
    - ``peak_gops_i8``: the same of bytes multiplied into int32, four at once where the CPU can.
    - ``bandwidth_gbps`` and ``bandwidth_gbps_core``: 10^9 bytes read from memory a second.
    - ``l1d_gbps_core`` and so on: 10^9 bytes that a core reads a second from each cache.
    - ``fork_us``: microseconds that a parallel region of TVM's takes whose threads still spin from the last.
    - ``clock_ghz``: of one core: cycles counted during the float32 peak; where they cannot be counted
      (``counters_available``), by a chain of dependent integer operations of one cycle each, where a CPU
      that clocks down under wide vectors runs faster.
    """
    one = cpus[:1]
    found = {
        "peak_gflops_f32": peak_gops(kernels.of_floats(32, isa), cpus, isa),
        "peak_gflops_f32_core": peak_gops(kernels.of_floats(32, isa), one, isa),
        "peak_gflops_f64": peak_gops(kernels.of_floats(64, isa), cpus, isa),
    }
    if {"avx512fp16", "fullfp16"} & set(isa):
        found["peak_gflops_f16"] = peak_gops(kernels.of_floats(16, isa), cpus, isa)
    found["peak_gops_i8"] = peak_gops(kernels.of_bytes(isa), cpus, isa)
    found["bandwidth_gbps"] = bandwidth_gbps(cpus, isa)
    found["bandwidth_gbps_core"] = bandwidth_gbps(one, isa)
    return found | dict(_cache_gbps(one, isa)) | {"fork_us": fork_us(cpus), "clock_ghz": clock_ghz(one, isa)}


def peak_gops(unit: kernels.Multiplier, cpus: Sequence[int], isa: Sequence[str]) -> float:
    """Rate of the core of a matrix product, whose sums stay in registers and whose operands stay in L1.

    28 independent sums (12 where there are 16 registers) cover a latency of 4 to 5 cycles at 2 a cycle.
    """
    module, batch, operations = peak(unit, cpus, isa)
    return operations / min(samples(module, [batch], cpus)) / 1e9


def peak(unit: kernels.Multiplier, cpus: Sequence[int], isa: Sequence[str]) -> tuple[Any, Batch, float]:
    """The kernel of the peak rate, arrays to run it on, and its operations: a millisecond of steady work."""
    _, rows = kernels.vector(isa)
    turns = round(_INSTRUCTIONS / (2 * rows * _PEAK_DEPTH))
    module = kernels.product(unit, len(cpus), rows, _PEAK_DEPTH, turns)
    result = np.empty((len(cpus), rows, 2 * unit.lanes), unit.total)
    batch = [_operand((_PEAK_DEPTH, size), unit.operand) for size in result.shape[1:]]
    return module, [*batch, result], 2.0 * result.size * _PEAK_DEPTH * turns * unit.products


def _operand(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Numbers to multiply: not zeros, on which a CPU takes less power and may clock higher."""
    rng = np.random.default_rng(0)
    if dtype.startswith("float"):
        return rng.random(shape).astype(dtype)
    return np.frombuffer(rng.bytes(math.prod(shape) * np.dtype(dtype).itemsize), dtype).reshape(shape)


def bandwidth_gbps(cpus: Sequence[int], isa: Sequence[str]) -> float:
    """Rate at which the cores together sum a buffer four times as large as all their caches."""
    sizes = {(c.name, c.shared): c.bytes for cpu in cpus for c in caches(cpu)}
    size = min(4 * sum(sizes.values()) or _STREAM_BYTES, 1 << 30, psutil.virtual_memory().available // 4)
    return _stream_gbps(cpus, isa, part_bytes=_PART_BYTES, turns=1, buffer_bytes=size)


def _cache_gbps(one: Sequence[int], isa: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Rates of one core's caches, each read at a size that fits well, and not in the one before."""
    before = 0
    for cache in caches(one[0]):
        size = min(cache.bytes // 2, 8 * before or cache.bytes)
        if size > before:
            turns = max(1, _PART_BYTES // size)
            yield f"{cache.name}_gbps_core", _stream_gbps(one, isa, size, turns, buffer_bytes=0)
        before = cache.bytes


def _stream_gbps(
    cpus: Sequence[int], isa: Sequence[str], part_bytes: int, turns: int, buffer_bytes: int
) -> float:
    """Rate of reading parts of a buffer, the next ones in each run; only one part if it is not larger."""
    width = kernels.STREAMS * kernels.vector(isa)[0] // 4
    # Ones, since pages never written to are all one page of zeros, which stays in L1.
    part = np.ones((len(cpus), part_bytes // (4 * width), width), np.float32)
    batch = [part, np.empty((len(cpus), width), np.float32)]
    module = kernels.stream(len(cpus), part.shape[1], turns, kernels.vector(isa)[0] // 4)
    best_s = min(samples(module, [batch] * (buffer_bytes // part.nbytes + 1), cpus))
    return part.nbytes * turns / best_s / 1e9


def fork_us(cpus: Sequence[int]) -> float:
    """Microseconds of a parallel region in which there is nothing to do."""
    seen = np.zeros((len(cpus), 16), np.int32)
    return min(samples(kernels.fork(len(cpus), _FORKS), [[seen]], cpus)) / _FORKS * 1e6


def clock_ghz(one: Sequence[int], isa: Sequence[str]) -> float:
    """Clock of one core; see ``probe``."""
    if counters_available()[0]:
        module, batch, _ = peak(kernels.of_floats(32, isa), one, isa)
        return 1e-9 / min(samples(module, [batch], one, meter=seconds_per_cycle))
    batch = [_operand((kernels.CHAIN,), "int32"), np.empty(1, np.int32)]
    return 2e-9 * kernels.CHAIN * _CHAINS / min(samples(kernels.chain(_CHAINS), [batch], one))
