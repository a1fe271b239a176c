"""Tests of what is found out about this machine."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotune import hardware
from autotune.cgroups import cpu_quota, memory_limit_bytes, throttled_periods
from autotune.hardware import describe_hardware, extensions, usable_cores
from autotune.system import caches, cpu_info, cpu_list, cpus_by_core

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /sys and /proc")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory whose files a test writes."""
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def child(code: str) -> str:
    """Output of ``code`` in a new interpreter that finds our packages."""
    prelude = f"import os, sys; sys.path[:] = {sys.path!r}; "
    command = [sys.executable, "-c", prelude + code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def with_siblings(root: Path, *siblings: str) -> None:
    """Writes the topology of CPUs 0, 1, ...: for each the list of the hardware threads of its core."""
    for cpu, text in enumerate(siblings):
        write(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", text)


def test_import_needs_neither_tvm_nor_numpy() -> None:
    print_loaded = "import autotune.hardware, autotune.target; print({'tvm', 'numpy'} & sys.modules.keys())"
    assert child(print_loaded) == "set()\n"


def test_fingerprint_is_that_of_the_features_alone() -> None:
    described = describe_hardware(probe=False)
    assert described.probes == {}
    assert described.fingerprint == describe_hardware(probe=False).fingerprint
    assert described.features.keys() == {
        "architecture", "isa", "cache_bytes", "vendor", "family", "model", "stepping",
    }  # fmt: skip


@linux
def test_affinity_of_one_cpu_leaves_one_core() -> None:
    code = (
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); from autotune.hardware import usable_cores"
    )
    assert child(code + "; print(usable_cores())") == "1\n"


@linux
def test_cores_are_within_the_affinity() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("siblings", "allowed", "expected"),
    [
        (("0", "1"), {0, 1}, [[0], [1]]),
        (("0-1", "0-1", "2-3", "2-3"), {0, 1, 2, 3}, [[0, 1], [2, 3]]),
        (("0,2", "1,3", "0,2", "1,3"), {0, 1, 2, 3}, [[0, 2], [1, 3]]),
        (("0,2", "1,3", "0,2", "1,3"), {2, 1, 3}, [[1, 3], [2]]),
        ((), {4, 7}, [[4], [7]]),  # no topology: as many cores as CPUs
    ],
)
def test_hardware_threads_of_a_core_count_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, siblings: tuple[str, ...], allowed: set[int],
    expected: list[list[int]],
) -> None:  # fmt: skip
    with_siblings(root, *siblings)
    monkeypatch.setattr(hardware, "_ALLOWED_CPUS", frozenset(allowed))
    assert cpus_by_core(allowed, root) == expected
    assert hardware.usable_cpus(root) == [threads[0] for threads in expected]


@pytest.mark.parametrize(("text", "cpus"), [("", []), ("3", [3]), ("0-2,5", [0, 1, 2, 5]), ("0,2", [0, 2])])
def test_lists_of_cpus(text: str, cpus: list[int]) -> None:
    assert cpu_list(text) == cpus


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/", {}, math.inf),
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, math.inf),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3.0),
        ("0::/a/b", {"a/b/cpu.max": "200000 100000", "a/cpu.max": "100000 100000"}, 1.0),
        ("0::/../outside", {"cpu.max": "50000 100000"}, 0.5),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "400000", "cpu/a/cpu.cfs_period_us": "100000"}, 4.0),
        ("4:cpu:/docker/x", {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 2.5),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("3:cpuset:/a", {"cpu/a/cpu.cfs_quota_us": "400000", "cpu/a/cpu.cfs_period_us": "100000"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_cpu_quota(root: Path, membership: str, files: dict[str, str], quota: float) -> None:
    write(root / "proc/self/cgroup", membership)
    for name, text in files.items():
        write(root / "sys/fs/cgroup" / name, text)
    assert cpu_quota(root) == quota


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/a", {"memory.max": "4096", "a/memory.max": "max"}, 4096),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, math.inf),
        ("4:memory:/a", {"memory/memory.limit_in_bytes": "8192"}, 8192),
        ("", {}, math.inf),
    ],
)
def test_memory_limit(root: Path, membership: str, files: dict[str, str], limit: float) -> None:
    write(root / "proc/self/cgroup", membership)
    for name, text in files.items():
        write(root / "sys/fs/cgroup" / name, text)
    assert memory_limit_bytes(root) == limit


def test_throttled_periods_are_of_the_group_throttled_most(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/a")
    assert throttled_periods(root) is None
    write(root / "sys/fs/cgroup/cpu.stat", "usage_usec 100")
    assert throttled_periods(root) is None
    write(root / "sys/fs/cgroup/a/cpu.stat", "nr_periods 9\nnr_throttled 3")
    assert throttled_periods(root) == (3, 9)


@pytest.mark.parametrize(("limit", "cores"), [("max", 4), ("50000", 1), ("150000", 2), ("900000", 4)])
def test_quota_is_rounded_up_to_cores(
    root: Path, monkeypatch: pytest.MonkeyPatch, limit: str, cores: int
) -> None:
    monkeypatch.setattr(hardware, "_ALLOWED_CPUS", frozenset(range(4)))
    with_siblings(root, "0", "1", "2", "3")
    write(root / "proc/self/cgroup", "0::/")
    write(root / "sys/fs/cgroup/cpu.max", f"{limit} 100000")
    assert len(hardware.usable_cpus(root)) == cores


def test_without_affinity_there_is_at_least_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_ALLOWED_CPUS", frozenset())
    assert usable_cores() >= 1


def test_extensions_have_the_names_of_llvm(root: Path) -> None:
    write(root / "proc/cpuinfo", "processor : 0\nflags : fpu fma avx2 amx_tile avx512_vnni\n\nprocessor : 1")
    assert extensions(cpu_info(root)) == ["avx2", "fma", "avx512vnni", "amx-tile"]
    assert extensions({"Features": "fp asimd asimddp sve"}) == ["neon", "dotprod", "sve"]
    assert extensions({}) == []


def test_caches(root: Path) -> None:
    entries = [("1", "Data", "48K", "0"), ("1", "Instruction", "32K", "0"), ("3", "Unified", "2M", "0-3")]
    for index, values in enumerate(entries):
        for name, text in zip(("level", "type", "size", "shared_cpu_list"), values, strict=True):
            write(root / f"sys/devices/system/cpu/cpu0/cache/index{index}/{name}", text)
    assert list(caches(0, root)) == [("l1d", 48 << 10, "0"), ("l3", 2 << 20, "0-3")]
    assert list(caches(1, root)) == []
