"""What else runs here."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from autotune.doctor.finding import Finding, judged, unknown
from autotune.system import ROOT, read

_WINDOW_S = 1.0  # a process that takes _BUSY of it has taken five clock ticks, enough to tell from one
_BUSY = 0.05  # of a core: what takes less shifts a median of times by less than they differ anyway
_HIDDEN = 0.2  # of a core: below it lie the kernel's own work and the ticks that sampling misses
_IDLE = 1.0  # load average: below it, no process wanted a core all the time
_STOLEN = 0.01  # of all time: a steal comes in slices of milliseconds, so some fall into every hundredth run
_SHOWN = 5
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Usage(NamedTuple):
    """A look at what has taken time so far, in clock ticks.

    Attributes:
        processes: Name and time of each process that can be seen from here, by its number.
        busy: Time of all CPUs, those of processes that cannot be seen included.
        stolen: Time in which a CPU was wanted here, but given to another virtual machine.
        total: All time of all CPUs, idle or not.
    """

    processes: Mapping[int, tuple[str, int]]
    busy: int
    stolen: int
    total: int


def findings(root: Path = ROOT) -> Iterator[Finding]:
    """What is found of other load, by looking on for a second."""
    yield load_average(root)
    before = usage(root)
    time.sleep(_WINDOW_S)
    yield others(before, usage(root), _WINDOW_S, os.getpid())


def usage(root: Path = ROOT) -> Usage:
    """What has taken time since boot."""
    processes = dict(filter(None, map(_process, (root / "proc").glob("[0-9]*/stat"))))
    fields = [int(f) for f in read(root / "proc/stat").partition("\n")[0].split()[1:9]]
    user, nice, system, idle, wait, irq, softirq, stolen = fields + [0] * (8 - len(fields))
    busy = user + nice + system + irq + softirq
    return Usage(processes, busy, stolen, busy + idle + wait + stolen)


def _process(stat: Path) -> tuple[int, tuple[str, int]] | None:
    """Number, name and time of a process; None if it has just ended."""
    number, _, rest = read(stat).partition(" (")
    name, _, fields = rest.rpartition(") ")  # a name may hold anything, this too
    numbers = fields.split()
    return (int(number), (name, int(numbers[11]) + int(numbers[12]))) if len(numbers) > 12 else None


def load_average(root: Path = ROOT) -> Finding:
    """Whether the last minute was busy."""
    words = read(root / "proc/loadavg").split()
    if len(words) < 3:
        return unknown("load average", "the system does not tell")
    said = f"{words[0]} in the last minute, {words[2]} in the last 15"
    return judged("load average", float(words[0]) >= _IDLE, said, "wait until what ran before is done")


def others(before: Usage, after: Usage, window_s: float, own: int) -> Finding:
    """Whether other processes took time between two looks.

    Args:
        own: Number of our own process, which does not count.
    """
    if not after.total:
        return unknown("other load", "the system does not tell")
    took = {n: ticks - before.processes.get(n, ("", 0))[1] for n, (_, ticks) in after.processes.items()}
    share = {n: ticks / _TICKS_PER_S / window_s for n, ticks in took.items()}
    hidden = (after.busy - before.busy) / _TICKS_PER_S / window_s - sum(share.values())
    busy = sorted((n for n in share if share[n] > _BUSY and n != own), key=lambda n: -share[n])
    said = [f"{after.processes[n][0]} ({n}): {share[n]:.0%} of a core" for n in busy[:_SHOWN]]
    said += [f"{len(busy) - _SHOWN} more"] if len(busy) > _SHOWN else []
    said += (
        [f"processes that are over or not visible here: {hidden:.0%} of a core"] if hidden > _HIDDEN else []
    )
    advice = "ask who else uses this machine, or wait"
    if busy:
        advice = f"end them, or wait until they are done: ps -fp {','.join(map(str, busy[:_SHOWN]))}"
    return judged("other load", bool(said), ", ".join(said) or "none", advice)


def steal(before: Usage, after: Usage) -> Finding:
    """Whether the host gave CPUs to other machines, between two looks while ours were wanted."""
    if not after.total:
        return unknown("steal", "the system does not tell")
    now = (after.stolen - before.stolen) / max(1, after.total - before.total)
    ever = after.stolen / after.total
    said = f"{now:.1%} under load just now, {ever:.2%} since boot"
    advice = "measure at another hour, or on a machine with dedicated CPUs"
    return judged("steal", max(now, ever) > _STOLEN, said, advice)
