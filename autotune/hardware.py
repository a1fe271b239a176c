"""What this machine is: the cores a process may use, a descriptor that identifies it, and how fast it is.

TVM is imported when a probe runs, so that importing this module stays cheap.
"""

import math
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from autotune.cgroups import cpu_quota
from autotune.system import ROOT, caches, cpu_info, cpus_by_core
from search.problem import Hardware

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


def usable_cores() -> int:
    """Physical cores that this process may use, by its affinity and its cgroup's CPU quota; at least 1."""
    return len(usable_cpus())


def describe_hardware(probe: bool = True) -> Hardware:
    """Describes this machine as far as this process may use it.

    Args:
        probe: Also measure what it does, in five seconds plus what importing TVM takes: see
            ``autotune.probes.probe``. Neither the affinity nor the TVM thread pool of the calling thread is
            touched. Tuners wait meanwhile; other load on the cores makes the figures too low. They are not
            part of the identity.
    """
    cpus = usable_cpus()
    info = cpu_info()
    # What is here identifies a machine in every database: a change makes its records those of another one.
    features: dict[str, Any] = {
        "architecture": platform.machine(),
        "isa": extensions(info),
        "cache_bytes": {c.name: c.bytes for c in caches(cpus[0])},
        "vendor": info.get("vendor_id") or info.get("CPU implementer", ""),
        "family": info.get("cpu family") or info.get("CPU architecture", ""),
        "model": info.get("model") or info.get("CPU part", ""),
        "stepping": info.get("stepping") or info.get("CPU revision", ""),
    }
    probes: Mapping[str, float] = {}
    if probe:
        from autotune.measure.turns import alone
        from autotune.probes import probe as measure

        with alone():
            probes = measure(cpus, features["isa"])
    name = info.get("model name") or platform.processor() or platform.machine()
    return Hardware(name=name, cores=len(cpus), features=features, probes=probes)


def allowed_cpus() -> frozenset[int]:
    """Logical CPUs that the affinity of this process, when it began, allows; empty where none can be set."""
    return _ALLOWED_CPUS


def usable_cpus(root: Path = ROOT) -> list[int]:
    """One logical CPU of each physical core that may be used, and no more of them than the quota feeds."""
    if not _ALLOWED_CPUS:
        return list(range(psutil.cpu_count(logical=False) or 1))
    cpus = [threads[0] for threads in cpus_by_core(_ALLOWED_CPUS, root)]
    return cpus[: max(1, math.ceil(min(cpu_quota(root), len(cpus))))]


def extensions(info: Mapping[str, str]) -> list[str]:
    """LLVM's names of a CPU's vector extensions, in a fixed order; ``info`` is that of ``cpu_info``."""
    flags = set((info.get("flags") or info.get("Features", "")).split())
    return [name for name, flag in _EXTENSIONS.items() if flag in flags]
