"""Tests of the probes: that their kernels compute what they claim to; how fast they are decides nothing."""

import errno
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm

from autotune import counters, probes
from autotune.counters import TASK_CLOCK_NS, Counter, counters_available
from autotune.hardware import describe_hardware, usable_cpus
from autotune.probes import kernels, pinned

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")

ISA: list[str] = describe_hardware(probe=False).features["isa"]
LANES = kernels.vector(ISA)[0] // 4


def run(module: Any, *arrays: Any) -> Any:
    """The last array after a run of ``main``, in a thread that keeps TVM's thread pool to itself."""
    kept: list[Any] = []

    def keep(kernel: Any) -> float:
        kernel()
        kept.append(kernel.args[-1].numpy())
        return 0.0

    pinned.samples(module, [arrays], usable_cpus()[:1], during_s=0, meter=keep)
    return kept[-1]


def assembly(module: Any, target: dict[str, str]) -> str:
    built = tvm.tirx.build(module, target=tvm.target.Target({"kind": "llvm", **target}))
    return str(built.inspect_source("asm"))


def test_probes_are_positive_and_finite_and_no_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "PROBE_S", 0.0)
    probed = describe_hardware()
    assert probed.fingerprint == describe_hardware(probe=False).fingerprint
    expected = {
        "peak_gflops_f32", "peak_gflops_f32_core", "peak_gflops_f64", "peak_gops_i8",
        "bandwidth_gbps", "bandwidth_gbps_core", "fork_us", "clock_ghz",
    }  # fmt: skip
    assert expected <= probed.probes.keys()
    assert all(math.isfinite(value) and value > 0 for value in probed.probes.values())


@linux
def test_probes_leave_the_affinity_of_the_caller_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "PROBE_S", 0.0)
    before = os.sched_getaffinity(0)
    probes.fork_us(usable_cpus())
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_product_of_floats(bits: int) -> None:
    """Else the compiler may have dropped what a probe claims to measure."""
    unit = kernels.of_floats(bits, ISA)
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-2, 3, (5, size)).astype(unit.operand) for size in (3, 2 * unit.lanes))
    result = run(kernels.product(unit, 2, 3, 5, 4), a, b, np.empty((2, 3, 2 * unit.lanes), unit.total))
    assert np.array_equal(result, np.broadcast_to(4 * (a.T @ b), result.shape))


@pytest.mark.parametrize("isa", [ISA, [e for e in ISA if e not in kernels._DOTS]], ids=["native", "plain"])
def test_product_of_bytes(isa: Sequence[str]) -> None:
    unit = kernels.of_bytes(isa)
    rng = np.random.default_rng(0)
    left = (0, 256, "uint8") if unit.products == 4 else (-128, 128, "int8")
    shapes = (5, 3, unit.products), (5, 2 * unit.lanes, unit.products)
    ranges = left, (-128, 128, "int8")
    a, b = (rng.integers(low, end, s).astype(t) for s, (low, end, t) in zip(shapes, ranges, strict=True))
    packed = [np.ascontiguousarray(x).view(unit.operand)[..., 0] for x in (a, b)]
    result = run(kernels.product(unit, 2, 3, 5, 4), *packed, np.empty((2, 3, 2 * unit.lanes), np.int32))
    expected = 4 * np.einsum("kip,kjp->ij", a.astype(np.int32), b.astype(np.int32))
    assert np.array_equal(result, np.broadcast_to(expected, result.shape))


def test_stream_sums_each_part() -> None:
    width = kernels.STREAMS * LANES
    data = np.random.default_rng(0).integers(0, 9, (2, 7, width)).astype(np.float32)
    result = run(kernels.stream(2, 7, 3, LANES), data, np.empty((2, width), np.float32))
    assert np.array_equal(result, 3 * data.sum(axis=1))


def test_chain_takes_every_step() -> None:
    numbers = np.random.default_rng(0).integers(-(2**31), 2**31, kernels.CHAIN).astype(np.int32)
    value = 0
    for number in [*numbers.tolist()] * 3:
        value = ((value ^ number) + number) & 0xFFFFFFFF
    assert int(run(kernels.chain(3), numbers, np.empty(1, np.int32))[0]) & 0xFFFFFFFF == value


def test_fork_runs_every_region_on_every_core() -> None:
    assert run(kernels.fork(3, 5), np.zeros((3, 16), np.int32))[:, 0].tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("target", "isa", "unit", "instruction"),
    [
        ({"mcpu": "sapphirerapids"}, ["avx512f"], "f16", "vfmadd231ph"),
        ({"mcpu": "cascadelake"}, ["avx512f"], "f64", "vfmadd231pd"),
        ({"mcpu": "cascadelake"}, ["avx512f", "avx512vnni"], "i8", "vpdpbusd"),
        ({"mcpu": "alderlake"}, ["avx", "avxvnni"], "i8", "vpdpbusd"),
        ({"mcpu": "neoverse-v1", "mtriple": "aarch64-linux-gnu"}, ["neon", "i8mm"], "i8", "usdot"),
        ({"mcpu": "neoverse-v1", "mtriple": "aarch64-linux-gnu"}, ["neon"], "f16", "fmla"),
    ],
)
def test_instructions_of_cpus_that_are_not_here(
    target: dict[str, str], isa: list[str], unit: str, instruction: str
) -> None:
    rows = kernels.vector(isa)[1]
    chosen = kernels.of_bytes(isa) if unit == "i8" else kernels.of_floats(int(unit[1:]), isa)
    text = assembly(kernels.product(chosen, 2, rows, 128, 40), target)
    loop = text[text.index(instruction) : text.rindex(instruction)]
    assert loop.count(instruction) >= 2 * rows - 1
    stores = re.findall(r"vmov\w+\s+%[xyz]mm\d+, \S*\(|\bst[rp]\s+q", loop)
    assert not stores, "the sums do not stay in registers"


@linux
def test_counter_counts() -> None:
    """Of what the kernel counts by itself, since a virtual machine rarely shows the CPU's counters."""
    try:
        counter = Counter(TASK_CLOCK_NS)
    except OSError as error:
        pytest.skip(f"perf_event_open: {error}")
    with counter:
        first = counter.read()
        math.factorial(5000)
        assert 0 <= first < counter.read()


def test_counters_are_there_or_a_reason_is_given() -> None:
    available, reason = counters_available()
    assert available == (reason == "")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "perf_event_paranoid is 4"),
        (errno.ENOENT, "virtual machines"),
        (errno.ENOSYS, "no perf_event_open"),
    ],
)
def test_why_counters_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(event: object) -> Counter:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(counters, "Counter", refuse)
    level = tmp_path / "proc/sys/kernel/perf_event_paranoid"
    level.parent.mkdir(parents=True)
    level.write_text("4\n")
    available, reason = counters_available(tmp_path)
    assert not available and words in reason


def test_clock_is_counted_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "PROBE_S", 0.0)
    monkeypatch.setattr(probes, "counters_available", lambda: (True, ""))
    monkeypatch.setattr(probes, "seconds_per_cycle", lambda run: 0.5e-9)
    assert probes.clock_ghz(usable_cpus()[:1], ISA) == 2.0
