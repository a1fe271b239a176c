"""The processor: its clock, its hardware threads, its memory nodes, its heat, its counters."""

from collections.abc import Collection, Iterator
from pathlib import Path

from autotune.counters import counters_available
from autotune.doctor.finding import Finding, judged, unknown
from autotune.system import CPUS, ROOT, cpu_info, cpu_list, cpus_by_core, read, read_number

_HOT_C = 85.0  # CPUs lower their clock at 90 to 105 degrees Celsius


def findings(cpus: Collection[int], root: Path = ROOT) -> Iterator[Finding]:
    """What is found of the processor, as far as ``cpus`` (those this process may run on) are concerned."""
    yield governor(cpus, root)
    yield turbo(root)
    yield smt(cpus, root)
    yield numa(cpus, root)
    yield heat(root)
    yield counters(root)


def governor(cpus: Collection[int], root: Path = ROOT) -> Finding:
    """Who chooses the clock."""
    files = [root / CPUS / f"cpu{cpu}/cpufreq/scaling_governor" for cpu in cpus]
    found = sorted({name for file in files if (name := read(file))})
    if not found:
        return unknown("governor", "no frequency scaling to be seen, as in most virtual machines")
    said = f"{', '.join(found)}: " + (
        "a fixed clock" if found == ["performance"] else "the clock follows load"
    )
    return judged("governor", found != ["performance"], said, "sudo cpupower frequency-set -g performance")


def turbo(root: Path = ROOT) -> Finding:
    """Whether the clock goes above the nominal one while heat and the other cores allow it."""
    for name, off in (("intel_pstate/no_turbo", 1), ("cpufreq/boost", 0)):
        if (value := read_number(root / CPUS / name)) is not None:
            said = "off" if value == off else "on: the clock depends on heat and on what other cores do"
            return judged("turbo", value != off, said, f"echo {off} | sudo tee /{CPUS / name}")
    return unknown("turbo", "no switch to be seen, as in most virtual machines")


def smt(cpus: Collection[int], root: Path = ROOT) -> Finding:
    """Whether somebody else may use the other hardware thread of a core of ours."""
    lists = [read(root / CPUS / f"cpu{cpu}/topology/thread_siblings_list") for cpu in cpus]
    siblings = {sibling for text in lists for sibling in cpu_list(text)}
    cores = len(cpus_by_core(cpus, root))
    if siblings - set(cpus):
        others = ",".join(map(str, sorted(siblings - set(cpus))))
        return judged(
            "hardware threads", True, f"CPUs {others} share cores with ours, but are not ours to keep idle",
            "echo off | sudo tee /sys/devices/system/cpu/smt/control",
        )  # fmt: skip
    if len(cpus) > cores:
        said = f"{len(cpus)} on {cores} cores; one of each core is used, the other left idle"
        return judged("hardware threads", False, said, "")
    if not any(lists) or "hypervisor" in cpu_info(root).get("flags", "").split():
        return unknown("hardware threads", "one a core to be seen, but a virtual machine may hide the others")
    return judged("hardware threads", False, "one a core", "")


def numa(cpus: Collection[int], root: Path = ROOT) -> Finding:
    """Whether some memory is farther away from a core of ours than other memory."""
    folder = root / "sys/devices/system/node"
    nodes = {node.name: set(cpu_list(read(node / "cpulist"))) for node in folder.glob("node[0-9]*")}
    if not nodes:
        return unknown("memory nodes", "the kernel shows none")
    ours = sorted(name.removeprefix("node") for name, members in nodes.items() if members & set(cpus))
    said = f"our CPUs lie on {len(ours)} of {len(nodes)}"
    advice = f"numactl --cpunodebind={ours[0]} --membind={ours[0]} autotune ..." if ours else ""
    return judged("memory nodes", len(ours) > 1, said, advice)


def heat(root: Path = ROOT) -> Finding:
    """Whether the processor is, or was, too hot for its clock."""
    counts = (root / CPUS).glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    throttled = [count for file in counts if (count := read_number(file)) is not None]
    zones = (root / "sys/class/thermal").glob("thermal_zone*/temp")
    degrees = [value / 1000 for file in zones if (value := read_number(file)) is not None]
    if not throttled and not degrees:
        return unknown("heat", "no sensor to be seen, as in most virtual machines")
    said = [f"{max(degrees):.0f} degrees Celsius"] if degrees else []
    said += [f"clock lowered {max(throttled)} times since boot"] if throttled else []
    bad = max(degrees, default=0) > _HOT_C or max(throttled, default=0) > 0
    return judged("heat", bad, ", ".join(said), "look after fans and air; pause between long runs")


def counters(root: Path = ROOT) -> Finding:
    """Whether the processor's own counters can be read."""
    available, reason = counters_available(root)
    if available:
        return judged("counters", False, "cycles can be counted: the clock is measured", "")
    advice = "sudo sysctl kernel.perf_event_paranoid=2" if "perf_event_paranoid" in reason else ""
    return unknown("counters", f"{reason}; the clock is estimated", advice)
