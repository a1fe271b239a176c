"""What the control groups of this process allow it, of versions 1 and 2.

Every group on the way up sets a limit of its own. In a container the path may be the one outside, of which
only the mount itself exists inside.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from autotune.system import ROOT, read, read_number

_NO_LIMIT = 1 << 60  # bytes; version 1 says "none" with a number near 2^63


def cpu_quota(root: Path = ROOT) -> float:
    """CPUs' worth of time that the groups allow; infinity where they set no limit."""
    return min((_group_quota(g) for g in _groups("cpu", root)), default=math.inf)


def memory_limit_bytes(root: Path = ROOT) -> float:
    """Bytes of memory that the groups allow; infinity where they set no limit."""
    files = [g / name for g in _groups("memory", root) for name in ("memory.max", "memory.limit_in_bytes")]
    limits = [limit for file in files if (limit := read_number(file)) is not None and limit < _NO_LIMIT]
    return min(limits, default=math.inf)


def throttled_periods(root: Path = ROOT) -> tuple[int, int] | None:
    """Periods in which a group had used up its quota, and all periods; of the group throttled most often.

    None where the kernel does not count.
    """
    counts = []
    for group in _groups("cpu", root):
        stat = dict(line.split(maxsplit=1) for line in read(group / "cpu.stat").splitlines())
        if "nr_throttled" in stat:
            counts.append((int(stat["nr_throttled"]), int(stat.get("nr_periods", 0))))
    return max(counts, default=None)


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of the groups that limit this process, from its own up to the mount."""
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        group = mount / path.lstrip("/")
        while group.is_relative_to(mount):
            yield group
            group = group.parent


def _group_quota(group: Path) -> float:
    """Limit of one group: ``cpu.max`` of version 2, ``cpu.cfs_*_us`` of version 1."""
    limit, _, period = read(group / "cpu.max").partition(" ")
    limit = limit or read(group / "cpu.cfs_quota_us")
    period = period or read(group / "cpu.cfs_period_us")
    return int(limit) / int(period) if limit.isdigit() and period.isdigit() else math.inf
