"""What Linux says of the machine in ``/proc`` and ``/sys``. Functions take another root for tests."""

import ctypes
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
CPUS = Path("sys/devices/system/cpu")
_PR_SET_PDEATHSIG = 1


class Cache(NamedTuple):
    """A data cache: its name (``l1d``, ``l2``), its size in bytes, and the CPUs that share it."""

    name: str
    bytes: int
    shared: str


def read(path: Path) -> str:
    """Text of a file of the kernel's; empty where the file is not there or not for us."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def read_number(path: Path) -> int | None:
    """The whole number that a file holds; None where it holds none."""
    text = read(path)
    return int(text) if text.lstrip("-").isdigit() else None


def cpu_info(root: Path = ROOT) -> dict[str, str]:
    """What ``/proc/cpuinfo`` says of the first CPU; empty where there is none."""
    lines = read(root / "proc/cpuinfo").partition("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def caches(cpu: int, root: Path = ROOT) -> Iterator[Cache]:
    """Data caches of a CPU, the nearest first."""
    for index in sorted((root / CPUS / f"cpu{cpu}/cache").glob("index*")):
        level, kind, size = (read(index / entry) for entry in ("level", "type", "size"))
        if kind in ("Data", "Unified") and size[:-1].isdigit():
            unit = {"K": 1 << 10, "M": 1 << 20}[size[-1]]
            name = f"l{level}" + ("d" if kind == "Data" else "")
            yield Cache(name, int(size[:-1]) * unit, read(index / "shared_cpu_list"))


def cpus_by_core(cpus: Iterable[int], root: Path = ROOT) -> list[list[int]]:
    """The CPUs in groups, one for each core: of a core's hardware threads those that are among ``cpus``."""
    cores: dict[str, list[int]] = {}
    for cpu in sorted(cpus):
        siblings = read(root / CPUS / f"cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(siblings or str(cpu), []).append(cpu)
    return list(cores.values())


def cpu_list(text: str) -> list[int]:
    """CPUs of a list as the kernel writes it, such as ``0-2,5``."""
    ends = [part.partition("-")[::2] for part in text.split(",") if part]
    return [cpu for first, last in ends for cpu in range(int(first), int(last or first) + 1)]


def die_with_parent() -> None:
    """Asks Linux to kill this process when its parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
