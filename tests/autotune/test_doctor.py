"""Tests of what is said of a machine, mostly of machines made up in a folder."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from autotune.doctor import State, compiler, limits, load, processor, room, steadiness
from autotune.doctor.finding import Finding
from autotune.doctor.load import Usage
from autotune.errors import LinkFailed

ROOT = Path(__file__).resolve().parents[2]
CPU = "sys/devices/system/cpu"
GROUP = "sys/fs/cgroup"
TICKS = load._TICKS_PER_S


class Case(NamedTuple):
    """A machine: its files, and what is to be said of it."""

    check: Callable[[Path], Finding]
    files: dict[str, str]
    state: State
    words: str


def governor(root: Path) -> Finding:
    return processor.governor({0, 1}, root)


def smt(root: Path) -> Finding:
    return processor.smt({0, 1}, root)


def numa(root: Path) -> Finding:
    return processor.numa({0, 1}, root)


def affinity(root: Path) -> Finding:
    return limits.affinity({0, 1}, root)


def quota(root: Path) -> Finding:
    return limits.quota({0, 1}, root)


def free(root: Path) -> Finding:
    return next(room.memory(root))


def swap(root: Path) -> Finding:
    return list(room.memory(root))[1]


def governors(*names: str) -> dict[str, str]:
    return {f"{CPU}/cpu{i}/cpufreq/scaling_governor": name for i, name in enumerate(names)}


def siblings(*lists: str) -> dict[str, str]:
    return {f"{CPU}/cpu{i}/topology/thread_siblings_list": text for i, text in enumerate(lists)}


def nodes(*lists: str) -> dict[str, str]:
    return {f"sys/devices/system/node/node{i}/cpulist": text for i, text in enumerate(lists)}


def cgroup(**files: str) -> dict[str, str]:
    named = {f"{GROUP}/{name.replace('_', '.', 1)}": text for name, text in files.items()}
    return {"proc/self/cgroup": "0::/", **named}


def meminfo(available_gib: float, swapped_gib: float = 0) -> dict[str, str]:
    free_kib, total_kib = int((8 - swapped_gib) * 2**20), 8 * 2**20
    text = (
        f"MemAvailable: {int(available_gib * 2**20)} kB\nSwapTotal: {total_kib} kB\nSwapFree: {free_kib} kB"
    )
    return {"proc/meminfo": text}


HUGE = "sys/kernel/mm/transparent_hugepage/enabled"
ZONE = "sys/class/thermal/thermal_zone0/temp"
THROTTLED = f"{CPU}/cpu0/thermal_throttle/core_throttle_count"

CASES = [
    Case(governor, {}, State.UNKNOWN, "virtual"),
    Case(governor, governors("performance", "performance"), State.OK, "performance"),
    Case(governor, governors("performance", "powersave"), State.WARNING, "powersave"),
    Case(processor.turbo, {}, State.UNKNOWN, "virtual"),
    Case(processor.turbo, {f"{CPU}/intel_pstate/no_turbo": "1"}, State.OK, "off"),
    Case(processor.turbo, {f"{CPU}/intel_pstate/no_turbo": "0"}, State.WARNING, "on"),
    Case(processor.turbo, {f"{CPU}/cpufreq/boost": "0"}, State.OK, "off"),
    Case(processor.turbo, {f"{CPU}/cpufreq/boost": "1"}, State.WARNING, "on"),
    Case(smt, {}, State.UNKNOWN, "one a core"),
    Case(smt, siblings("0", "1"), State.OK, "one a core"),
    Case(smt, {**siblings("0", "1"), "proc/cpuinfo": "flags : fpu hypervisor"}, State.UNKNOWN, "virtual"),
    Case(smt, siblings("0-1", "0-1"), State.OK, "2 on 1 cores"),
    Case(smt, siblings("0,2", "1,3"), State.WARNING, "2,3"),
    Case(numa, {}, State.UNKNOWN, "none"),
    Case(numa, nodes("0-1"), State.OK, "1 of 1"),
    Case(numa, nodes("0-1", "2-3"), State.OK, "1 of 2"),
    Case(numa, nodes("0", "1"), State.WARNING, "2 of 2"),
    Case(processor.heat, {}, State.UNKNOWN, "no sensor"),
    Case(processor.heat, {ZONE: "45000", THROTTLED: "0"}, State.OK, "45 degrees"),
    Case(processor.heat, {ZONE: "96000"}, State.WARNING, "96 degrees"),
    Case(processor.heat, {ZONE: "45000", THROTTLED: "7"}, State.WARNING, "7 times"),
    Case(affinity, {}, State.UNKNOWN, "not tell"),
    Case(affinity, {f"{CPU}/online": "0-1"}, State.OK, "2 of 2"),
    Case(affinity, {f"{CPU}/online": "0-7"}, State.WARNING, "2 of 8"),
    Case(quota, {}, State.OK, "none"),
    Case(quota, cgroup(cpu_max="200000 100000"), State.OK, "2 CPUs on 2 cores"),
    Case(quota, cgroup(cpu_max="150000 100000"), State.WARNING, "1.5 CPUs on 2 cores"),
    Case(limits.throttling, {}, State.UNKNOWN, "not count"),
    Case(limits.throttling, cgroup(cpu_stat="nr_periods 9\nnr_throttled 0"), State.OK, "never"),
    Case(limits.throttling, cgroup(cpu_stat="nr_periods 9\nnr_throttled 4"), State.WARNING, "4 of 9"),
    Case(free, {}, State.UNKNOWN, "not tell"),
    Case(free, meminfo(6), State.OK, "6.0 GiB"),
    Case(free, meminfo(1), State.WARNING, "1.0 GiB"),
    Case(free, {**meminfo(6), **cgroup(memory_max=str(2**30))}, State.WARNING, "limit of 1.0"),
    Case(swap, meminfo(6), State.OK, "not in use"),
    Case(swap, meminfo(6, swapped_gib=2), State.WARNING, "2.0 GiB"),
    Case(room.huge_pages, {}, State.UNKNOWN, "no setting"),
    Case(room.huge_pages, {HUGE: "always [madvise] never"}, State.OK, "madvise"),
    Case(room.huge_pages, {HUGE: "[always] madvise never"}, State.WARNING, "always"),
    Case(load.load_average, {}, State.UNKNOWN, "not tell"),
    Case(load.load_average, {"proc/loadavg": "0.10 0.50 0.70 1/80 99"}, State.OK, "0.10"),
    Case(load.load_average, {"proc/loadavg": "3.10 0.50 0.70 1/80 99"}, State.WARNING, "3.10"),
]


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.check.__name__}-{c.state}")
def test_findings(tmp_path: Path, case: Case) -> None:
    write(tmp_path, case.files)
    finding = case.check(tmp_path)
    assert finding.state == case.state, finding
    assert case.words in finding.found
    assert bool(finding.advice) == (case.state == State.WARNING)


def test_threads_of_the_environment() -> None:
    assert limits.threads(2, {"TVM_NUM_THREADS": "2"}).state == State.OK
    finding = limits.threads(2, {"TVM_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"})
    assert finding.state == State.WARNING
    assert finding.advice == "unset OMP_NUM_THREADS"


@pytest.mark.parametrize(
    ("answer", "state", "advice"),
    [
        ((True, ""), State.OK, ""),
        ((False, "the CPU shows no counters"), State.UNKNOWN, ""),
        ((False, "refused (perf_event_paranoid is 4)"), State.UNKNOWN, "sysctl kernel.perf_event_paranoid"),
    ],
)
def test_counters(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[bool, str], state: State, advice: str
) -> None:
    monkeypatch.setattr(processor, "counters_available", lambda root: answer)
    finding = processor.counters()
    assert finding.state == state
    assert advice in finding.advice and bool(advice) == bool(finding.advice)


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Space(NamedTuple):
        free: int

    file = str(tmp_path / "not/yet/there.db")
    for gib, state in ((10, State.OK), (0.5, State.WARNING)):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, gib=gib: Space(int(gib * 2**30)))
        assert room.disk(file).state == state
    assert room.disk("postgresql://somewhere/x").state == State.UNKNOWN
    assert room.disk("mysql://somewhere/x").state == State.WARNING


def test_usage_is_read_from_proc(tmp_path: Path) -> None:
    fields = " ".join(map(str, range(1, 50)))
    write(
        tmp_path, {"proc/7/stat": f"7 (a) b (c) S {fields}", "proc/stat": "cpu  1 2 3 40 5 6 7 8 9 9\ncpu0 1"}
    )
    assert load.usage(tmp_path) == Usage({7: ("a) b (c", 11 + 12)}, busy=19, stolen=8, total=72)
    assert load.usage(tmp_path / "nowhere") == Usage({}, 0, 0, 0)


def test_other_load_is_named_without_ourselves() -> None:
    before = Usage({1: ("init", 50), 2: ("us", 0)}, busy=50, stolen=0, total=1000)
    after = Usage(
        {1: ("init", 51), 2: ("us", TICKS), 3: ("python", TICKS // 2)}, 51 + TICKS * 3 // 2, 0, 2000
    )
    finding = load.others(before, after, window_s=1.0, own=2)
    assert finding.state == State.WARNING
    assert finding.found == "python (3): 50% of a core"
    assert "3" in finding.advice
    assert load.others(before, before, 1.0, own=2).state == State.OK
    assert load.others(before, Usage({}, 0, 0, 0), 1.0, own=2).state == State.UNKNOWN


def test_load_that_cannot_be_seen_from_a_container_is_found() -> None:
    before, after = Usage({}, 0, 0, 1000), Usage({}, TICKS, 0, 2000)
    finding = load.others(before, after, window_s=1.0, own=2)
    assert finding.state == State.WARNING
    assert "not visible here: 100%" in finding.found


@pytest.mark.parametrize(
    ("stolen", "state"), [((0, 0), State.OK), ((0, 30), State.WARNING), ((300, 300), State.WARNING)]
)
def test_steal(stolen: tuple[int, int], state: State) -> None:
    before, after = Usage({}, 0, stolen[0], 10_000), Usage({}, 0, stolen[1], 10_100)
    assert load.steal(before, after).state == state
    assert load.steal(before, Usage({}, 0, 0, 0)).state == State.UNKNOWN


def test_instructions_that_kernels_leave_unused() -> None:
    isa = ["avx2", "avx512vnni"]
    assert compiler.instructions("cascadelake", {"avx2", "avx512vnni", "sse"}, isa).state == State.OK
    finding = compiler.instructions("haswell", {"avx2"}, isa)
    assert finding.state == State.WARNING
    assert finding.advice == """--target '{"kind":"llvm","mcpu":"haswell","mattr":["+avx512vnni"]}'"""


def test_linker(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> list[str]:
        raise LinkFailed("none")

    monkeypatch.setattr("autotune.build.find_linker", lambda: ["/usr/bin/cc"])
    assert compiler.linker().found == "/usr/bin/cc"
    monkeypatch.setattr("autotune.build.find_linker", nothing)
    assert compiler.linker().state == State.WARNING


def test_noise() -> None:
    assert steadiness.noise([1.0] * 95 + [1.01] * 5).state == State.OK
    finding = steadiness.noise([1.0] * 90 + [1.2] * 10)
    assert finding.state == State.WARNING
    assert "p95 1.200 times" in finding.found
    assert steadiness.noise([1.0] * 5 + [2.0] * 95).state == State.WARNING  # half the speed, but steadily so


def test_scaling() -> None:
    assert steadiness.scaling(one_s=1.0, all_s=1.1, cores=4).state == State.OK
    finding = steadiness.scaling(one_s=1.0, all_s=2.0, cores=4)
    assert finding.state == State.WARNING
    assert "--threads 2" in finding.advice


def test_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "autotune.cli", "doctor", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    findings = [
        Finding(f["name"], State(f["state"]), f["found"], f["advice"]) for f in json.loads(done.stdout)
    ]
    names = [f.name for f in findings]
    assert len(names) == len(set(names))
    assert {"governor", "threads", "memory", "other load", "linker", "noise"} <= set(names)
    assert all(f.found for f in findings)


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    from autotune.cli.doctor import _print

    _print(
        [Finding("turbo", State.WARNING, "on [x]", "echo 1 | sudo tee /a/very/long/" + "path/" * 30 + "end")]
    )
    shown = capsys.readouterr().out
    assert "on [x]" in shown
    assert "path/end\n" in shown, "a command is not broken into lines"
