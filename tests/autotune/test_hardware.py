"""Tests of what is found out about this machine."""

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from autotune import hardware
from autotune.hardware import describe_hardware, usable_cores
from search.problem import Hardware

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /sys and /proc")


@pytest.fixture(scope="module")
def probed() -> Hardware:
    return describe_hardware()


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


def test_fingerprint_is_the_same_with_and_without_probes(probed: Hardware) -> None:
    again = describe_hardware(probe=False)
    assert again.probes == {}
    assert again.fingerprint == describe_hardware(probe=False).fingerprint == probed.fingerprint


def test_probes_are_positive_and_finite(probed: Hardware) -> None:
    assert probed.probes.keys() == {"peak_gflops_f32", "peak_gflops_f32_core", "bandwidth_gbps"}
    assert all(math.isfinite(value) and value > 0 for value in probed.probes.values())


@linux
def test_probes_leave_the_affinity_of_the_caller_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_PROBE_S", 0.0)
    before = os.sched_getaffinity(0)
    hardware._peak_gflops(hardware.usable_cpus(), isa=[])
    assert os.sched_getaffinity(0) == before


def test_kernel_of_the_probes_computes_the_sum() -> None:
    """Else the compiler may have dropped what a probe claims to measure."""
    import tvm
    from tvm import te

    data, step = te.placeholder((2, 5, 8, 4), name="data"), te.reduce_axis((0, 5))
    total = te.compute((2, 8, 4), lambda p, i, j: te.sum(data[p, step, i, j], axis=[step]), name="total")
    built = tvm.tirx.build(hardware._in_registers([data, total], lanes=4), target="llvm")
    numbers = np.arange(2 * 5 * 8 * 4, dtype=np.float32).reshape(2, 5, 8, 4)
    result = tvm.runtime.tensor(np.zeros((2, 8, 4), np.float32))
    with ThreadPoolExecutor(1) as thread:  # which keeps TVM's thread pool, and its affinity, to itself
        thread.submit(built["main"], tvm.runtime.tensor(numbers), result).result()
    assert np.array_equal(result.numpy(), numbers.sum(axis=1))


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
        (("0", "1"), {0, 1}, [0, 1]),
        (("0-1", "0-1", "2-3", "2-3"), {0, 1, 2, 3}, [0, 2]),
        (("0,2", "1,3", "0,2", "1,3"), {0, 1, 2, 3}, [0, 1]),
        (("0,2", "1,3", "0,2", "1,3"), {2, 1, 3}, [1, 2]),
        ((), {4, 7}, [4, 7]),  # no topology: as many cores as CPUs
    ],
)
def test_hardware_threads_of_a_core_count_once(
    root: Path, siblings: tuple[str, ...], allowed: set[int], expected: list[int]
) -> None:
    with_siblings(root, *siblings)
    assert hardware._one_cpu_per_core(frozenset(allowed), root) == expected


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
    assert hardware._cpu_quota(root) == quota


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
    assert hardware._extensions(hardware._cpu_info(root)) == ["avx2", "fma", "avx512vnni", "amx-tile"]
    assert hardware._extensions({"Features": "fp asimd asimddp sve"}) == ["neon", "dotprod", "sve"]
    assert hardware._extensions({}) == []


def test_caches(root: Path) -> None:
    caches = [("1", "Data", "48K", "0"), ("1", "Instruction", "32K", "0"), ("3", "Unified", "2M", "0-3")]
    for index, entries in enumerate(caches):
        for name, text in zip(("level", "type", "size", "shared_cpu_list"), entries, strict=True):
            write(root / f"sys/devices/system/cpu/cpu0/cache/index{index}/{name}", text)
    assert list(hardware._caches(0, root)) == [("l1d", 48 << 10, "0"), ("l3", 2 << 20, "0-3")]
    assert list(hardware._caches(1, root)) == []
