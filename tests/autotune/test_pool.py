"""Measuring survives whatever candidates do; each costs one row with its reason."""

import math
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tvm
from faulty_worker import MARK
from kernels import TARGET, copy, matmul, workload
from tvm import te

from autotune.hardware import usable_cpus
from autotune.measure.arena import Arena
from autotune.measure.family import KNOWN, ReferenceFailed
from autotune.measure.limits import Limits
from autotune.measure.pool import Pool
from autotune.measure.process import Process, WorkersFailed
from autotune.measure.protocol import UNTUNED, Build, Done, Fork, Probe, Reply, Request
from autotune.measure.sequential import PairedTest
from autotune.target import canonical
from search.problem import BACK_TO_BACK, COLD, Between, Cache, Candidate, ErrorKind, MeasureError, Measurement
from search.spaces.trace import TraceSpace

WORK = workload(matmul(16, 16, 16))
SPACE = TraceSpace(WORK, TARGET)
LIMITS = Limits(build_s=3.0, least_build_s=3.0, run_s=3.0, least_run_s=3.0)  # a busy machine keeps to them


def candidates(count: int) -> list[Candidate]:
    rng = np.random.default_rng(0)
    return [SPACE.realize(SPACE.sample(rng), rng) for _ in range(count)]


@pytest.fixture(scope="module", autouse=True)
def find_faulty_worker() -> Iterator[None]:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    yield
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def pool(find_faulty_worker: None) -> Iterator[Pool]:
    with Pool(canonical(TARGET), 2, LIMITS, worker_module="faulty_worker") as pool:
        yield pool


def measure(pool: Pool, faults: dict[int, str], count: int = 6) -> list[Measurement]:
    """Measures candidates of which some misbehave; each comes back exactly once."""
    given = candidates(count)
    for n, fault in faults.items():
        given[n] = replace(given[n], trace=given[n].trace + MARK + fault)
    results = {m.candidate.trace: m for m in pool.measure(WORK, given)}
    assert set(results) == {c.trace for c in given}
    return [results[c.trace] for c in given]


def test_times_are_plausible(pool: Pool) -> None:
    results = measure(pool, {})
    assert all(m.error is None for m in results)
    assert all(0 < s < 1 for m in results for s in m.samples_s)


ALIKE = pytest.mark.slow  # goes the way of another in the list


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("build-crash", ErrorKind.CRASH, "SIGSEGV"),
        pytest.param("build-leave", ErrorKind.CRASH, "exited with 7", marks=ALIKE),
        pytest.param("build-killed", ErrorKind.CRASH, "SIGKILL", marks=ALIKE),
        ("build-loop", ErrorKind.BUILD_TIMEOUT, "3 s"),
        ("build-throw", ErrorKind.BUILD_ERROR, "compiler says no"),
        pytest.param("build-hog", ErrorKind.OUT_OF_MEMORY, "Unable to allocate 100", marks=ALIKE),
        ("build-abort", ErrorKind.OUT_OF_MEMORY, "SIGABRT: LLVM ERROR: out of memory"),
        ("run-crash", ErrorKind.CRASH, "SIGSEGV"),
        pytest.param("run-killed", ErrorKind.CRASH, "SIGKILL", marks=ALIKE),
        ("run-loop", ErrorKind.RUN_TIMEOUT, "3 s"),
        ("run-deaf_loop", ErrorKind.RUN_TIMEOUT, "3 s"),
        pytest.param("run-throw", ErrorKind.RUN_ERROR, "compiler says no", marks=ALIKE),
        ("run-hog", ErrorKind.OUT_OF_MEMORY, "Unable to allocate 100"),
        ("run-wrong", ErrorKind.WRONG_OUTPUT, "tolerance"),
        ("run-nan", ErrorKind.WRONG_OUTPUT, "NaN"),
        # It never wrote its output, which was full of NaN.
        pytest.param("run-silent", ErrorKind.WRONG_OUTPUT, "NaN", marks=ALIKE),
        ("run-after", ErrorKind.OUT_OF_BOUNDS, "outside of output 0"),
        pytest.param("run-before", ErrorKind.OUT_OF_BOUNDS, "outside of output 0", marks=ALIKE),
        ("run-into_input", ErrorKind.OUT_OF_BOUNDS, "into input 0"),
    ],
)
def test_one_bad_candidate_costs_one_row(pool: Pool, fault: str, kind: ErrorKind, text: str) -> None:
    results = measure(pool, {2: fault})
    assert results[2].error is not None
    assert results[2].error.kind == kind
    assert text in results[2].error.text
    assert [m.error for n, m in enumerate(results) if n != 2] == [None] * 5


def test_many_at_once(pool: Pool) -> None:
    faults = {0: "run-crash", 1: "build-crash", 3: "run-crash", 4: "build-leave"}
    results = measure(pool, faults)
    assert {n for n, m in enumerate(results) if m.error is not None} == set(faults)


def test_a_trace_that_does_not_apply(pool: Pool) -> None:
    bad = replace(candidates(1)[0], trace="[[], []")
    (result,) = pool.measure(WORK, [bad])
    assert result.error is not None
    assert result.error.kind in (ErrorKind.INVALID, ErrorKind.BUILD_ERROR)


def children(pid: int) -> list[int]:
    return [p.pid for p in psutil.Process(pid).children(recursive=True)]


@pytest.mark.parametrize("who", ["home", "root"])
def test_a_process_killed_from_outside_is_replaced(pool: Pool, who: str) -> None:
    measure(pool, {})
    pid = pool.family.root.pid if who == "root" else pool.family.home(WORK).process.pid
    os.kill(pid, signal.SIGKILL)
    assert all(m.error is None for m in measure(pool, {}))


def test_processes_killed_in_the_midst(pool: Pool) -> None:
    """Whichever it hits: the candidate at hand has another chance."""
    for depth in range(1, 4):
        results = pool.measure(WORK, candidates(12))
        first = next(results)
        below = psutil.Process(pool.family.root.pid).children(recursive=True)
        below[min(depth, len(below) - 1)].kill()
        errors = [m.error for m in (first, *results)]
        assert errors == [None] * 12
    assert all(m.error is None for m in measure(pool, {}))


@pytest.mark.parametrize("who", ["builder", "runner"])
def test_the_pool_is_whole_within_a_second(pool: Pool, who: str) -> None:
    """Of a process killed from outside; the best of three, for the machine may be busy."""
    taken_s = []
    with pool.family.builders(pool.family.home(WORK), usable_cpus()[:1]) as (builder,):
        for _ in range(3):
            runner = pool.family.runner(builder)
            started = time.monotonic()
            os.kill(runner.pid if who == "runner" else builder.process.pid, signal.SIGKILL)
            if who == "builder":
                assert isinstance(builder.process.ask(Probe(), LIMITS.run_s), MeasureError)
                builder.end_runner()
                pool.family.restore(builder)
            else:
                assert isinstance(runner.ask(Probe(), LIMITS.run_s), MeasureError)
            assert isinstance(pool.family.runner(builder).ask(Probe(), LIMITS.run_s), Done)
            taken_s.append(time.monotonic() - started)
    assert min(taken_s) < 1


def test_what_a_bad_build_takes_along_depends_on_how_many_there_were(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where builders often die, what they have compiled is kept; where they never did, not even copied."""
    asked: list[Request] = []
    send = Process.send

    def noted(process: Process, request: Request) -> None:
        asked.append(request)
        send(process, request)

    monkeypatch.setattr(Process, "send", noted)
    builds = pool.family.home(WORK).builds
    builds.extend([1.0] * KNOWN)
    measure(pool, {}, count=12)
    copies = sum(isinstance(r, Fork) for r in asked)
    asked.clear()
    builds.extend([None] * KNOWN)
    results = measure(pool, {8: "build-crash", 11: "build-crash"}, count=12)
    assert [n for n, m in enumerate(results) if m.error] == [8, 11]
    assert sum(isinstance(r, Build) for r in asked) == 12
    assert sum(isinstance(r, Fork) for r in asked) > copies + 2


def test_time_in_which_others_had_the_core_does_not_count(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pool.family.builders(pool.family.home(WORK), usable_cpus()[:1]) as (builder,):
        runner = pool.family.runner(builder)
        waited_ns = iter([0, 2_000_000_000])
        monkeypatch.setattr(Path, "read_text", lambda path: f"0 {next(waited_ns)} 0")
        runner.send(Probe())
        time.sleep(0.01)
        assert -2 < runner.spent_s() < 0
        monkeypatch.undo()
        assert isinstance(runner.receive(LIMITS.run_s), Done)


def test_limits_follow_what_is_known() -> None:
    limits = Limits()
    assert limits.build_limit_s([0.1] * 7) == limits.build_s
    assert limits.build_limit_s([0.01] * 8) == limits.least_build_s
    assert limits.build_limit_s([0.1] * 90 + [0.5] * 10) == pytest.approx(3 * 0.5)
    assert limits.build_limit_s([9.0] * 20) == limits.build_s
    assert limits.first_run_s(WORK, ()) == limits.run_s
    assert 0.04 < limits.first_run_s(WORK, (1e-3,)) - limits.least_run_s < 0.041


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nothing_grows_over_many_candidates(pool: Pool) -> None:
    """2,000 of them, some bad: as many processes as at first, and as much memory."""
    work = workload(copy())
    space, rng = TraceSpace(work, TARGET), np.random.default_rng(0)
    seen = []
    for _ in range(20):
        given = [space.realize(space.sample(rng), rng) for _ in range(100)]
        for n, fault in ((10, "run-crash"), (20, "build-crash"), (30, "run-after")):
            given[n] = replace(given[n], trace=given[n].trace + MARK + fault)
        results = list(pool.measure(work, given))
        assert len(results) == 100 and sum(m.error is None for m in results) > 50
        root = psutil.Process(pool.family.root.pid)
        processes = [root, *root.children(recursive=True)]
        seen.append((len(processes), sum(p.memory_full_info().uss for p in processes)))
    assert len({count for count, _ in seen}) == 1
    assert seen[-1][1] < seen[1][1] * 1.05 + (4 << 20)


def test_times_below_what_hardware_can_do_are_not_believed(pool: Pool) -> None:
    (result,) = pool.measure(WORK, candidates(1), fastest_s=1.0)
    assert result.error is not None
    assert result.error.kind == ErrorKind.IMPLAUSIBLE


def test_processes_die_with_the_pool() -> None:
    pool = Pool(canonical(TARGET), 2, LIMITS)
    results = pool.measure(WORK, candidates(3))
    next(results)
    pids = [pool.family.root.pid, *children(pool.family.root.pid)]
    assert len(pids) >= 4  # root, home and builders
    pool.close()
    deadline = time.monotonic() + 5
    while any(psutil.pid_exists(p) for p in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [p for p in pids if psutil.pid_exists(p)]


def test_nothing_is_left_of_a_round(pool: Pool) -> None:
    measure(pool, {0: "run-crash", 1: "build-crash"})
    before = len(children(pool.family.root.pid))
    measure(pool, {2: "run-killed"})
    assert len(children(pool.family.root.pid)) == before


def test_workers_that_cannot_start_are_an_error_with_advice() -> None:
    started = time.monotonic()
    with pytest.raises(WorkersFailed, match="import no_such_module"):
        Pool(canonical(TARGET), 1, LIMITS, worker_module="no_such_module")
    assert time.monotonic() - started < LIMITS.start_s


def test_a_caller_that_stops_early_leaves_nothing_behind(pool: Pool) -> None:
    """Answers that nobody waited for would be taken for those of the next request."""
    for count in (1, 3):
        results = pool.measure(WORK, candidates(6))
        for _ in range(count):
            next(results)
        results.close()
        assert all(m.error is None for m in measure(pool, {}))


def test_a_kernel_that_cannot_run_at_all(pool: Pool) -> None:
    x = te.placeholder((8,), name="x")
    y = te.compute((8,), lambda i: tvm.tirx.call_pure_extern("float32", "no_such_symbol", x[i]), name="y")
    work = replace(workload(te.create_prim_func([x, y])), hash="of its own")
    with pytest.raises(ReferenceFailed, match="cannot be run untuned"):
        list(pool.measure(work, candidates(2)))
    with pytest.raises(ReferenceFailed, match="cannot be run untuned"), pool.arena(work):
        pass
    assert all(m.error is None for m in measure(pool, {}))


def test_a_candidate_is_compared_with_plain_loops(pool: Pool) -> None:
    work = workload(matmul(96, 96, 96))
    space, rng = TraceSpace(work, TARGET), np.random.default_rng(0)
    given = [space.realize(space.sample(rng), rng) for _ in range(6)]
    best = min(pool.measure(work, given), key=lambda m: m.latency_s).candidate
    with pool.arena(work) as arena:
        for between in (BACK_TO_BACK, COLD, Between(Cache.MODEL, 1 << 22, (2, 0))):
            test = arena.compare(best, None, seed=1, between=between)
            assert isinstance(test, PairedTest)
            assert test.decided
            assert len(test.first_s) == len(test.second_s) == test.pairs >= 8


def test_a_bad_candidate_cannot_be_compared(pool: Pool) -> None:
    good, bad = candidates(2)
    with pool.arena(WORK) as arena:
        for fault in ("build-throw", "build-crash", "run-crash"):
            faulty = replace(bad, trace=bad.trace + MARK + fault)
            assert isinstance(arena.compare(good, faulty, seed=1), MeasureError)
            assert isinstance(arena.check(faulty, seed=1), MeasureError)
        assert isinstance(arena.compare(good, bad, seed=1), PairedTest)
        assert isinstance(arena.check(good, seed=1), Done)
    assert all(m.error is None for m in measure(pool, {}))


def test_one_that_kills_its_builder_costs_the_others_nothing(pool: Pool) -> None:
    good, bad, other = candidates(3)
    fatal = replace(bad, trace=bad.trace + MARK + "build-crash")
    with pool.arena(WORK) as arena:
        assert isinstance(arena.compare(good, other, seed=1), PairedTest)
        assert isinstance(arena.compare(fatal, good, seed=1), MeasureError)
        assert isinstance(arena.check(good, seed=1), Done)
        for builder in arena._builders:
            os.kill(builder.process.pid, signal.SIGKILL)
        arena.compare(good, other, seed=1)  # finds out
        assert isinstance(arena.compare(good, other, seed=1), PairedTest)
        assert isinstance(arena.check(good, seed=1), Done)


def test_inputs_that_tell_nothing_say_nothing_against_a_candidate(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, right = Done(tolerance=math.inf), Done(max_error=0.0, tolerance=1e-6)
    crash = MeasureError(ErrorKind.CRASH, "killed")
    wrong = Done(max_error=1.0, tolerance=1e-6)
    (candidate,) = candidates(1)
    with pool.arena(WORK) as arena:
        cases = (
            ([silent, right], right),
            ([right, wrong], wrong),
            ([wrong, crash], wrong),
            ([right, crash], crash),
        )
        for replies, expected in cases:
            monkeypatch.setattr(arena, "_ask", lambda *_, replies=replies: replies)
            assert arena.check(candidate, seed=1) == expected
        monkeypatch.setattr(arena, "_ask", lambda *_: [silent, silent])
        reply = arena.check(candidate, seed=1)
        assert isinstance(reply, MeasureError) and reply.kind is ErrorKind.WRONG_OUTPUT


def test_who_meets_several_others_is_compiled_once(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    send = Process.send

    def noting(process: Process, request: Request) -> None:
        if isinstance(request, Build):
            built.append(request.trace)
        send(process, request)

    monkeypatch.setattr(Process, "send", noting)
    best, second, third = candidates(3)
    with pool.arena(WORK) as arena:
        arena.compare(best, second, seed=1)
        arena.compare(third, best, seed=1)
        arena.check(best, seed=1)
        once = [UNTUNED, *(c.trace for c in (best, second, third))]
        assert Counter(built) == dict.fromkeys(once, 2)  # in each of two processes
        arena.compare(best, best, seed=1)
        assert Counter(built)[best.trace] == 4  # itself is another copy


def test_pairs_wait_for_the_reference(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a core from what is timed."""
    work = workload(matmul(16, 16, 48))
    computing: list[bool] = []
    asked = Arena._ask

    def ask(*args: Any) -> list[Reply]:
        computing.append(not pool.family.home(work).computed)
        return asked(*args)

    monkeypatch.setattr(Arena, "_ask", ask)
    with pool.arena(work) as arena:
        assert isinstance(arena.compare(None, None, seed=1), PairedTest)
    assert computing and not any(computing)


def test_a_check_does_without_what_compiled_the_reference(pool: Pool) -> None:
    work = replace(WORK, hash="of its own, too")
    home = pool.family.home(work)
    pool.family.await_reference(home)
    os.kill(home.judge.pid, signal.SIGKILL)
    with pool.arena(work) as arena:
        assert isinstance(arena.check(candidates(1)[0], seed=1), Done)


def test_few_processes_that_compiled_references_are_kept(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.measure.family.JUDGES", 1)
    home = pool.family.home(WORK)
    pool.family.await_reference(home)
    other = pool.family.home(workload(matmul(16, 32, 48)))
    assert other.judge.alive and not home.judge.alive
    with pool.arena(WORK) as arena:
        assert isinstance(arena.check(candidates(1)[0], seed=1), Done)


def test_others_time_nothing_while_a_check_compiles(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []
    for name in ("compiling", "timing"):
        monkeypatch.setattr(pool._turns, name, partial(_noting, name, held))
    with pool.arena(WORK) as arena:
        assert isinstance(arena.check(candidates(1)[0], seed=1), Done)
    assert held == ["compiling"] * 3  # the reference, the build, the check: nothing is timed


@contextmanager
def _noting(name: str, held: list[str]) -> Iterator[None]:
    held.append(name)
    yield


def test_checking_finds_what_is_right(pool: Pool) -> None:
    with pool.arena(WORK) as arena:
        reply = arena.check(candidates(1)[0], seed=1)
    assert isinstance(reply, Done)
    assert reply.max_error <= reply.tolerance < 1e-4


def test_a_clipped_sum_of_large_terms_is_not_called_wrong(pool: Pool) -> None:
    """Its error is that of the terms, which are a million times larger than what the clip leaves."""
    a = te.placeholder((64, 96), name="a")
    b = te.placeholder((96, 64), name="b")
    k = te.reduce_axis((0, 96), name="k")
    c = te.compute((64, 64), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="c")
    zero, six = tvm.tirx.const(0.0), tvm.tirx.const(6.0)
    d = te.compute((64, 64), lambda i, j: tvm.tirx.max(tvm.tirx.min(c[i, j], six), zero), name="d")
    work = workload(te.create_prim_func([a, b, d]))
    space, rng = TraceSpace(work, TARGET), np.random.default_rng(0)
    with pool.arena(work) as arena:
        for _ in range(4):
            reply = arena.check(space.realize(space.sample(rng), rng), seed=1)
            assert isinstance(reply, Done)
            assert reply.max_error <= reply.tolerance


def test_verifying_a_bad_trace_is_a_result_too(pool: Pool) -> None:
    with pool.arena(WORK) as arena:
        assert isinstance(arena.check(replace(candidates(1)[0], trace="[]"), seed=1), MeasureError)
