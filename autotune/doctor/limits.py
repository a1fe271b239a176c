"""What this process is given: CPUs, time on them, threads."""

import math
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from autotune.cgroups import cpu_quota, throttled_periods
from autotune.doctor.finding import Finding, judged, unknown
from autotune.system import CPUS, ROOT, cpu_list, cpus_by_core, read

_POOLS = ("TVM_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def findings(cpus: Collection[int], cores: int, root: Path = ROOT) -> Iterator[Finding]:
    """What is found of the limits.

    Args:
        cpus: CPUs that this process may run on.
        cores: Cores that it is to use.
    """
    yield affinity(cpus, root)
    yield quota(cpus, root)
    yield throttling(root)
    yield threads(cores, os.environ)


def affinity(cpus: Collection[int], root: Path = ROOT) -> Finding:
    """Whether the process may use the whole machine."""
    online = cpu_list(read(root / CPUS / "online"))
    if not online or not cpus:
        return unknown("affinity", "the system does not tell which CPUs may be used")
    said = f"{len(cpus)} of {len(online)} CPUs may be used"
    advice = "start it without taskset or cpuset, or keep to these CPUs where the model will run too"
    return judged("affinity", len(cpus) < len(online), said, advice)


def quota(cpus: Collection[int], root: Path = ROOT) -> Finding:
    """Whether a control group stops threads that have run for too long."""
    allowed, cores = cpu_quota(root), len(cpus_by_core(cpus, root))
    if math.isinf(allowed):
        return judged("CPU quota", False, "none", "")
    said = f"time of {allowed:g} CPUs on {cores} cores"
    advice = (
        f"lift it (docker run --cpus={cores}, systemctl set-property NAME CPUQuota={100 * cores}%), "
        f"or stay below it: --threads {max(1, math.floor(allowed))}"
    )
    return judged("CPU quota", allowed < cores, said, advice)


def throttling(root: Path = ROOT) -> Finding:
    """Whether a control group has done so."""
    counts = throttled_periods(root)
    if counts is None:
        return unknown("throttling", "the kernel does not count it")
    stopped, periods = counts
    said = f"stopped in {stopped} of {periods} periods" if stopped else "never"
    return judged("throttling", stopped > 0, said, "lift the CPU quota, or use fewer threads")


def threads(cores: int, environment: Mapping[str, str]) -> Finding:
    """Whether thread pools are told another number than that of the cores."""
    wrong = {name: environment[name] for name in _POOLS if environment.get(name, str(cores)) != str(cores)}
    said = ", ".join(f"{name}={value}" for name, value in wrong.items())
    said += f" in the environment, for {cores} cores" if wrong else f"nothing says other than {cores} cores"
    return judged("threads", bool(wrong), said, f"unset {' '.join(wrong)}")
