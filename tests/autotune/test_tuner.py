"""The loop with scripted times: a tuner that was killed goes on as if nothing had been."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from db_samples import HARDWARE
from kernels import TARGET, matmul, workload

from autotune.frontends.graph import Model
from autotune.measure.pool import Pool
from autotune.target import canonical
from autotune.tuner import Budget, Progress, Tuner
from db.store import Store
from db.values import Run, RunSpec, RunStatus
from search.problem import Candidate, Conditions, ErrorKind, MeasureError, Measurement, Task, Workload
from search.spaces import SPACES

HERE = Conditions(HARDWARE, canonical(TARGET), 2)
TASKS = tuple(Task(f"matmul{m}", workload(matmul(16, m, 16), f"matmul{m}"), 1 + m % 3) for m in (16, 24))
BUDGET = Budget(trials=72)


class ScriptedPool:
    """In place of a pool: a candidate's time follows from its hash, every eighth fails.

    Args:
        rounds: After so many it is killed.
    """

    def __init__(self, rounds: int | None = None) -> None:
        self.asked: list[tuple[Candidate, ...]] = []
        self._rounds = rounds

    def measure(self, work: Workload, candidates: Sequence[Candidate], *rival: Any) -> Iterator[Measurement]:
        if len(self.asked) == self._rounds:
            raise KeyboardInterrupt
        self.asked.append(tuple(candidates))
        for c in candidates:
            number = int(c.hash[:8], 16)
            if number % 8 == 0:
                yield Measurement(c, error=MeasureError(ErrorKind.CRASH, "killed"))
            else:
                yield Measurement(c, (1e-5 * (1 + number / (1 << 32)),))


def tune(store: Store, run: Run, pool: ScriptedPool, searcher: str) -> Progress:
    tuner = Tuner(cast(Model, None), TASKS, TARGET, HERE, store, BUDGET, searcher=searcher)
    try:
        return tuner.run(run, cast(Pool, pool))
    except KeyboardInterrupt:
        store.end_run(run.id, RunStatus.INTERRUPTED)
        return tuner.progress


def start(folder: Path, name: str) -> tuple[Store, Run]:
    store = Store.open(str(folder / name), create=True)
    store.add_model("ab" * 32, "two", "two.onnx", TASKS)
    return store, store.start_run(RunSpec("ab" * 32, HERE, 7, {}))


@pytest.mark.parametrize("searcher", ["random", "evolutionary", "cascade"])
def test_a_resumed_tuner_goes_on_as_the_one_that_was_not_killed(tmp_path: Path, searcher: str) -> None:
    store, run = start(tmp_path, "whole.db")
    whole = ScriptedPool()
    with store:
        expected = tune(store, run, whole, searcher)
    assert expected.trials == BUDGET.trials and len(whole.asked) > 4

    store, run = start(tmp_path, "parts.db")
    with store:
        parts = [ScriptedPool(2), ScriptedPool(2), ScriptedPool()]
        for pool in parts:
            progress = tune(store, run, pool, searcher)
            if pool is not parts[-1]:
                run = store.resume_run(run.id)
    assert [c for p in parts for c in p.asked] == whole.asked
    assert progress.failures == expected.failures and expected.failures[ErrorKind.CRASH]
    assert [(p.trials, p.latency_s) for p in progress.curve] == [
        (p.trials, p.latency_s) for p in expected.curve
    ]
    times = [p.elapsed_s for p in progress.curve]
    assert times == sorted(times) and times[-1] <= progress.elapsed_s
    for task, other in zip(progress.tasks, expected.tasks, strict=True):
        assert (task.best_s, task.trials_after) == (other.best_s, other.trials_after)


def test_what_was_stored_but_not_counted_is_a_trial(tmp_path: Path) -> None:
    store, run = start(tmp_path, "killed.db")
    with store:
        tune(store, run, ScriptedPool(2), "random")
        rows = len(list(store.history([t.workload.hash for t in TASKS], HERE, SPACES)))
        store.beat(run.id, 1.0, rows - 1)
        progress = tune(store, store.resume_run(run.id), ScriptedPool(0), "random")
        assert progress.trials == progress.earlier_trials == rows


def test_time_left_is_of_the_budget_then_of_the_proofs() -> None:
    progress = Progress([], Budget(trials=8), trials=2, elapsed_s=5.0)
    assert progress.share_done == 0.25 and progress.left_s == 15.0
    progress.trials, progress.to_prove = 8, 4
    assert progress.share_done == 0.0 and progress.left_s is None
    progress.proved, progress.proving_s = 1, 2.0
    assert progress.share_done == 0.25 and progress.left_s == 6.0
