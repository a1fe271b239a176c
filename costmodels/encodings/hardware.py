"""Hardware as numbers, so that one model serves several machines: what it has, and what it did on probes.

After MAPLE (Abbasi et al., 2021): probes say more of a device than its name does.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.problem import Conditions, Hardware

VERSION = "hardware/1"

_CACHES = ("l1d", "l2", "l3")
_PROBES = ("peak_gflops_f32", "peak_gflops_f32_core", "bandwidth_gbps", "bandwidth_gbps_core",
           "l1d_gbps_core", "l2_gbps_core", "l3_gbps_core", "fork_us", "clock_ghz")  # fmt: skip
_VECTORS = ("neon", "avx2", "avx512f", "avx512vnni", "amx-int8")

HARDWARE_FEATURES = 2 + len(_CACHES) + len(_PROBES) + len(_VECTORS)

_ORDINARY = {"peak_gflops_f32": 100.0, "bandwidth_gbps": 20.0, "fork_us": 2.0}
"""Of a device that was never probed."""


def encode_hardware(conditions: Conditions) -> NDArray[np.float32]:
    """Shape [HARDWARE_FEATURES]: logarithms (base 2) of counts, sizes and rates, 0 where one is not known."""
    hardware = conditions.hardware
    caches: Mapping[str, Any] = hardware.features.get("cache_bytes", {})
    isa = hardware.features.get("isa", ())
    numbers: list[float] = [conditions.threads, hardware.cores]
    numbers += [caches.get(name, 0) / 1024 for name in _CACHES]
    numbers += [hardware.probes.get(name, 0.0) for name in _PROBES]
    return np.array([*(math.log2(1 + n) for n in numbers), *(v in isa for v in _VECTORS)], np.float32)


def probe(hardware: Hardware, name: str) -> float:
    """A probe's result, or that of an ordinary device."""
    return hardware.probes.get(name) or _ORDINARY[name]
