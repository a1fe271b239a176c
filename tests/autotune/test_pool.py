"""Measuring survives whatever candidates do; each costs one row with its reason."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from faulty_worker import MARK
from kernels import TARGET, matmul, workload
from tvm import te

from autotune.measure.pool import Limits, Pool, ReferenceFailed, WorkersFailed
from autotune.measure.protocol import Done
from autotune.target import canonical
from search.problem import Candidate, ErrorKind, MeasureError, Measurement
from search.spaces.trace import TraceSpace

WORK = workload(matmul(16, 16, 16))
SPACE = TraceSpace(WORK, TARGET)
LIMITS = Limits(build_s=10.0, run_s=6.0)  # seconds that a busy machine still keeps to


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


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("build-crash", ErrorKind.CRASH, "SIGSEGV"),
        ("build-leave", ErrorKind.CRASH, "exited with 7"),
        ("build-loop", ErrorKind.BUILD_TIMEOUT, "10 s"),
        ("run-crash", ErrorKind.CRASH, "SIGSEGV"),
        ("run-loop", ErrorKind.RUN_TIMEOUT, "6 s"),
        ("run-deaf_loop", ErrorKind.RUN_TIMEOUT, "6 s"),
        ("run-throw", ErrorKind.RUN_ERROR, "compiler says no"),
        ("run-wrong", ErrorKind.WRONG_OUTPUT, "tolerance"),
        ("run-silent", ErrorKind.WRONG_OUTPUT, "inf"),  # never wrote its output, which was full of NaN
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


def test_a_worker_killed_from_outside_is_replaced(pool: Pool) -> None:
    os.kill(pool._workers[0].process.pid, signal.SIGKILL)
    results = measure(pool, {})
    assert sum(m.error is not None for m in results) <= 1
    assert len(pool._workers) == 2


def test_times_below_what_hardware_can_do_are_not_believed(pool: Pool) -> None:
    (result,) = pool.measure(WORK, candidates(1), fastest_s=1.0)
    assert result.error is not None
    assert result.error.kind == ErrorKind.IMPLAUSIBLE


def test_workers_die_with_the_pool() -> None:
    pool = Pool(canonical(TARGET), 2, LIMITS)
    processes = [w.process for w in pool._workers]
    pool.close()
    assert all(p.poll() is not None for p in processes)


def test_workers_are_renewed_after_many_builds() -> None:
    with Pool(canonical(TARGET), 1, Limits(builds_per_worker=2, batch=2)) as pool:
        before = pool._workers[0].process.pid
        assert all(m.error is None for m in pool.measure(WORK, candidates(4)))
        assert pool._workers[0].process.pid != before


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
    assert all(m.error is None for m in measure(pool, {}))


def test_verification_compares_with_the_untuned_schedule(pool: Pool) -> None:
    reply = pool.verify(WORK, candidates(1)[0], seed=1, pairs=5)
    assert isinstance(reply, Done)
    assert len(reply.samples_s) == len(reply.before_s) == 5
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
    for _ in range(4):
        reply = pool.verify(work, space.realize(space.sample(rng), rng), seed=1, pairs=1)
        assert isinstance(reply, Done)
        assert reply.max_error <= reply.tolerance


def test_verifying_a_bad_trace_is_a_result_too(pool: Pool) -> None:
    reply = pool.verify(WORK, replace(candidates(1)[0], trace="[]"), seed=1)
    assert isinstance(reply, MeasureError)
