import math

from hypothesis import given
from hypothesis import strategies as st

from autotune.allocation import FLOOR_TRIALS, TaskProgress, next_task
from search.problem import Candidate, ErrorKind, MeasureError, Measurement, Task, TensorSpec, Workload


def task(name: str, weight: int = 1) -> TaskProgress:
    work = Workload(name, name, (TensorSpec((1,), "float32"),), 1, 1e6, 1, "")
    return TaskProgress(Task(name, work, weight))


def play(progress: TaskProgress, *rounds: list[float | None]) -> TaskProgress:
    for samples in rounds:
        for latency in samples:
            candidate = Candidate("w", "s", (progress.trials,), "")
            error = MeasureError(ErrorKind.CRASH, "x") if latency is None else None
            progress.add(Measurement(candidate, () if latency is None else (latency,), error))
        progress.end_round()
    return progress


def test_new_tasks_come_first() -> None:
    assert next_task([play(task("a"), [1.0]), task("b")]).task.name == "b"  # type: ignore[union-attr]


def test_weight_decides_between_equals() -> None:
    tasks = [play(task("a", 1), [1.0, 0.5] * FLOOR_TRIALS), play(task("b", 3), [1.0, 0.5] * FLOOR_TRIALS)]
    assert next_task(tasks).task.name == "b"  # type: ignore[union-attr]


def test_what_still_falls_beats_what_stands_still() -> None:
    falling = play(task("falling"), [1.0] * FLOOR_TRIALS, [0.8], [0.6])
    standing = play(task("standing"), [1.0] * FLOOR_TRIALS, [1.0], [1.0])
    assert next_task([standing, falling]) is falling


def test_a_task_at_the_speed_of_light_promises_nothing() -> None:
    done = play(task("done"), [1.0] * FLOOR_TRIALS, [1.0], [1.0])
    done.floor_s = 1.0
    other = play(task("other"), [0.01] * FLOOR_TRIALS, [0.01], [0.01])
    assert next_task([done, other]) is other


def test_exhausted_tasks_are_left_alone() -> None:
    only = task("only")
    only.exhausted = True
    assert next_task([only]) is None


def test_a_task_that_only_fails_gives_way() -> None:
    failing = play(task("failing"), [None] * 64)
    assert failing.failures == 64
    assert math.isinf(failing.latency_s)
    good = play(task("good"), [2e-6] * 4, [1e-6] * 4)
    assert next_task([failing, good]) is good
    assert next_task([failing]) is None


@given(st.lists(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=5), min_size=1, max_size=5))
def test_promise_is_never_negative(rounds: list[list[float]]) -> None:
    assert play(task("a"), *rounds).promise_s() >= 0
