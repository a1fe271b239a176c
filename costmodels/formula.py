"""The floor under every cost model: the roofline, which needs no data at all.

Williams, Waterman, Patterson: Roofline (CACM 2009): time is that of the arithmetic or that of the memory,
whichever is longer; a parallel region comes on top.
"""

from costmodels.encodings.hardware import probe
from search.problem import Conditions, Workload


def roofline_s(workload: Workload, conditions: Conditions) -> float:
    """Seconds that no schedule of a workload is much below, on this hardware."""
    hardware = conditions.hardware
    share = conditions.threads / hardware.cores
    arithmetic_s = workload.flop / (probe(hardware, "peak_gflops_f32") * 1e9 * share)
    memory_s = workload.bytes / (probe(hardware, "bandwidth_gbps") * 1e9)
    return max(arithmetic_s, memory_s) + probe(hardware, "fork_us") * 1e-6
