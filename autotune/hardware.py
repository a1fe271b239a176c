"""What this machine is: the cores a process may use, a descriptor that identifies it, and how fast it is.

TVM is imported when a probe runs, so that importing this module stays cheap.
"""

import itertools
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from search.problem import Hardware

_ROOT = Path("/")

_ALLOWED_CPUS = frozenset(os.sched_getaffinity(0)) if sys.platform == "linux" else frozenset[int]()
"""CPUs that this process may run on; taken on import because TVM narrows the affinity of any thread that runs
a kernel, and ``sched_getaffinity`` is about a thread."""

_EXTENSIONS = {
    "sse4.2": "sse4_2", "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "avxvnni": "avx_vnni",
    "avx512f": "avx512f", "avx512bw": "avx512bw", "avx512dq": "avx512dq", "avx512vl": "avx512vl",
    "avx512vnni": "avx512_vnni", "avx512bf16": "avx512_bf16", "avx512fp16": "avx512_fp16",
    "amx-tile": "amx_tile", "amx-int8": "amx_int8", "amx-bf16": "amx_bf16", "amx-fp16": "amx_fp16",
    "neon": "asimd", "fullfp16": "asimdhp", "dotprod": "asimddp", "i8mm": "i8mm", "bf16": "bf16",
    "sve": "sve", "sve2": "sve2", "sme": "sme",
}  # fmt: skip
"""Vector extensions that matter to a kernel: LLVM's name and the Linux kernel's."""

_PROBE_S = 0.4  # of running a kernel, of which the best run counts: other load can only make a run slower
_PEAK_FLOP = 1e8  # of a run on each core: a millisecond, so that some fall between the slices of other load
_PEAK_DEPTH = 128  # of the panels multiplied over and over: 23 KiB at most, to stay in L1
_PART_BYTES = 1 << 23  # streamed by each core in a run: as short, for the same reason
_STREAM_BYTES = 1 << 28  # in all, where cache sizes are not known
_ONE_CORE_PER_THREAD = -2  # ThreadGroup::AffinityMode of TVM's runtime


class _Cache(NamedTuple):
    """A data cache: its name (``l1d``, ``l2``), its size in bytes, and the CPUs that share it."""

    name: str
    bytes: int
    shared: str


def usable_cores() -> int:
    """Physical cores that this process may use, by its affinity and its cgroup's CPU quota; at least 1."""
    return len(usable_cpus())


def describe_hardware(probe: bool = True) -> Hardware:
    """Describes this machine as far as this process may use it.

    Args:
        probe: Also measure, in two seconds plus what importing TVM takes: ``peak_gflops_f32`` of the usable
            cores and ``peak_gflops_f32_core`` of one (10^9 operations a second, a multiply-add being two),
            and ``bandwidth_gbps`` (10^9 bytes read from memory a second). Neither the affinity nor the TVM
            thread pool of the calling thread is touched. Other load on the cores makes the figures too low.
    """
    cpus = usable_cpus()
    info = _cpu_info()
    features: dict[str, Any] = {
        "architecture": platform.machine(),
        "isa": _extensions(info),
        "cache_bytes": {c.name: c.bytes for c in _caches(cpus[0])},
        "vendor": info.get("vendor_id") or info.get("CPU implementer", ""),
        "family": info.get("cpu family") or info.get("CPU architecture", ""),
        "model": info.get("model") or info.get("CPU part", ""),
        "stepping": info.get("stepping") or info.get("CPU revision", ""),
    }
    return Hardware(
        name=info.get("model name") or platform.processor() or platform.machine(),
        cores=len(cpus),
        features=features,
        probes=_probe(cpus, features["isa"]) if probe else {},
    )


def usable_cpus(root: Path = _ROOT) -> list[int]:
    """One logical CPU of each physical core that may be used, and no more of them than the quota feeds."""
    if not _ALLOWED_CPUS:
        return list(range(psutil.cpu_count(logical=False) or 1))
    cpus = _one_cpu_per_core(_ALLOWED_CPUS, root)
    return cpus[: max(1, math.ceil(min(_cpu_quota(root), len(cpus))))]


def _one_cpu_per_core(allowed: frozenset[int], root: Path = _ROOT) -> list[int]:
    """The first of the allowed hardware threads of each core."""
    cores: dict[str, int] = {}
    for cpu in sorted(allowed):
        siblings = _read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(siblings or str(cpu), cpu)
    return list(cores.values())


def _cpu_quota(root: Path = _ROOT) -> float:
    """CPUs' worth of time that the process's cgroups allow; infinity where they set no limit.

    Every group on the way up sets a limit of its own. In a container the path may be the one outside, of
    which only the mount itself exists inside.
    """
    quota = math.inf
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        group = mount / path.lstrip("/")
        while group.is_relative_to(mount):
            quota = min(quota, _group_quota(group))
            group = group.parent
    return quota


def _group_quota(group: Path) -> float:
    """Limit of one cgroup: ``cpu.max`` of version 2, ``cpu.cfs_*_us`` of version 1."""
    limit, _, period = _read(group / "cpu.max").partition(" ")
    limit = limit or _read(group / "cpu.cfs_quota_us")
    period = period or _read(group / "cpu.cfs_period_us")
    return int(limit) / int(period) if limit.isdigit() and period.isdigit() else math.inf


def _cpu_info(root: Path = _ROOT) -> dict[str, str]:
    """What ``/proc/cpuinfo`` says of the first CPU; empty where there is none."""
    lines = _read(root / "proc/cpuinfo").partition("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _extensions(info: Mapping[str, str]) -> list[str]:
    """LLVM's names of the vector extensions of the CPU, in a fixed order."""
    flags = set((info.get("flags") or info.get("Features", "")).split())
    return [name for name, flag in _EXTENSIONS.items() if flag in flags]


def _caches(cpu: int, root: Path = _ROOT) -> Iterator[_Cache]:
    """Data caches of a CPU, the nearest first."""
    for index in sorted((root / f"sys/devices/system/cpu/cpu{cpu}/cache").glob("index*")):
        level, kind, size = (_read(index / entry) for entry in ("level", "type", "size"))
        if kind in ("Data", "Unified") and size[:-1].isdigit():
            unit = {"K": 1 << 10, "M": 1 << 20}[size[-1]]
            name = f"l{level}" + ("d" if kind == "Data" else "")
            yield _Cache(name, int(size[:-1]) * unit, _read(index / "shared_cpu_list"))


def _read(path: Path) -> str:
    """Text of a file of the kernel's; empty where the file is not there or not for us."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _probe(cpus: Sequence[int], isa: Sequence[str]) -> dict[str, float]:
    return {
        "peak_gflops_f32": _peak_gflops(cpus, isa),
        "peak_gflops_f32_core": _peak_gflops(cpus[:1], isa),
        "bandwidth_gbps": _bandwidth_gbps(cpus, isa),
    }


def _register_block(isa: Sequence[str]) -> tuple[int, int]:
    """Lanes of a float32 vector, and rows of two vectors whose sums fit the registers beside the operands."""
    blocks = {"avx512f": (16, 14), "avx": (8, 6), "neon": (4, 12)}
    return next((block for name, block in blocks.items() if name in isa), (4, 6))


def _peak_gflops(cpus: Sequence[int], isa: Sequence[str]) -> float:
    """Rate of the core of a matrix product, whose sums stay in registers and whose operands stay in L1.

    28 independent sums (12 where there are 16 registers) cover a latency of 4 to 5 cycles at 2 a cycle.
    """
    import numpy as np
    from tvm import te

    lanes, rows = _register_block(isa)
    shape = len(cpus), rows, 2 * lanes
    turns = round(_PEAK_FLOP / (2 * math.prod(shape[1:]) * _PEAK_DEPTH))
    a, b = (te.placeholder((_PEAK_DEPTH, size)) for size in shape[1:])
    axes = [te.reduce_axis((0, turns)), te.reduce_axis((0, _PEAK_DEPTH))]
    total = te.compute(shape, lambda _, i, j: te.sum(a[axes[1], i] * b[axes[1], j], axis=axes), name="total")
    rng = np.random.default_rng(0)
    operands = [rng.random((_PEAK_DEPTH, size), dtype=np.float32) for size in shape[1:]]
    seconds = _best_s([a, b, total], lanes, cpus, [[*operands, np.empty(shape, np.float32)]])
    return 2 * math.prod(shape) * _PEAK_DEPTH * turns / seconds / 1e9


def _bandwidth_gbps(cpus: Sequence[int], isa: Sequence[str]) -> float:
    """Rate at which the cores together sum a buffer four times as large as all their caches."""
    import numpy as np
    from tvm import te

    lanes, _ = _register_block(isa)
    caches = {(c.name, c.shared): c.bytes for cpu in cpus for c in _caches(cpu)}
    size = min(4 * sum(caches.values()) or _STREAM_BYTES, 1 << 30, psutil.virtual_memory().available // 4)
    shape = len(cpus), 8, lanes
    steps = _PART_BYTES // (4 * 8 * lanes)
    streamed = len(cpus), steps, 8, lanes
    data, step = te.placeholder(streamed, name="data"), te.reduce_axis((0, steps))
    total = te.compute(shape, lambda p, i, j: te.sum(data[p, step, i, j], axis=[step]), name="total")
    # Ones, since pages never written to are all one page of zeros, which stays in L1.
    part, out = np.ones(streamed, np.float32), np.empty(shape, np.float32)
    return part.nbytes / _best_s([data, total], lanes, cpus, [[part, out]] * (size // part.nbytes + 1)) / 1e9


def _best_s(tensors: Sequence[Any], lanes: int, cpus: Sequence[int], batches: Sequence[Any]) -> float:
    """Seconds of the fastest run of a sum, the last of ``tensors``, on one thread for each CPU.

    Each run takes the next of the batches of arrays.

    It runs in a thread of its own, because TVM's thread pool belongs to a thread: its size is fixed when
    first used (and by default half of the logical CPUs), and it changes the affinity of its owner. The owner
    works too, and is bound like the others: left free, it may share a core with one of them all along.
    """
    import tvm

    from autotune.target import host_target

    built = tvm.tirx.build(_in_registers(tensors, lanes), target=host_target(len(cpus)))
    arguments = [[tvm.runtime.tensor(array) for array in batch] for batch in batches]

    def best() -> float:
        configure = tvm.get_global_func("runtime.config_threadpool")
        configure(_ONE_CORE_PER_THREAD, len(cpus), [str(cpu) for cpu in cpus])
        if sys.platform == "linux":
            os.sched_setaffinity(0, cpus[:1])
        kernel = built["main"]
        kernel(*arguments[0])  # starts the threads
        seconds, until = [], time.perf_counter() + _PROBE_S
        for batch in itertools.cycle(arguments):
            start = time.perf_counter()
            kernel(*batch)
            end = time.perf_counter()
            seconds.append(end - start)
            if end > until:
                break
        return min(seconds)

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(best).result()


def _in_registers(tensors: Sequence[Any], lanes: int) -> Any:
    """Module that computes ``total`` (core, row, column), with each core's rows and columns in registers."""
    import tvm.s_tir
    from tvm import te

    schedule = tvm.s_tir.Schedule(te.create_prim_func(list(tensors)))
    block = schedule.get_sblock("total")
    store = schedule.cache_write(block, 0, "local")
    core, row, column, *steps = schedule.get_loops(block)
    vector, lane = schedule.split(column, [None, lanes])
    schedule.reorder(core, *steps, row, vector, lane)
    schedule.reverse_compute_at(store, core)
    schedule.vectorize(lane)
    schedule.unroll(row)
    schedule.unroll(vector)
    schedule.parallel(core)
    schedule.decompose_reduction(block, steps[0])
    return schedule.mod
