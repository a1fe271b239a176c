"""Which candidate of each task goes into the artifact: the fastest that is proven right and faster."""

from collections.abc import Callable, Sequence

from autotune.measure.pool import Pool
from autotune.measure.protocol import Done
from autotune.measure.statistics import Verdict, probability_faster, verdict
from db.store import Store
from search.problem import (
    Candidate,
    Conditions,
    ErrorKind,
    MeasureError,
    Measurement,
    Task,
    Verification,
    Workload,
)

CANDIDATES = 5  # of a task, tried in the order of their latency
EVERY = 1 << 30


def verify_winners(
    tasks: Sequence[Task],
    store: Store,
    conditions: Conditions,
    pool: Pool,
    run_id: int,
    observe: Callable[[str], None] = lambda text: None,
) -> None:
    """Verifies the best candidates of each task until one passes; results go to the store.

    What passed before, or was wrong, is not verified again; what was only not faster gets another chance.
    """
    for task in tasks:
        hash_ = task.workload.hash
        passed = {v.candidate.hash for v in store.verifications(hash_, conditions) if v.correct and v.faster}
        for measurement in store.best(hash_, conditions, CANDIDATES):
            if measurement.candidate.hash in passed:
                break
            observe(task.name)
            verification = verify(task.workload, measurement.candidate, pool, seed=run_id)
            if verification is None:
                continue
            store.add_verification(run_id, conditions, verification)
            if verification.correct and verification.faster:
                break


def verify(workload: Workload, candidate: Candidate, pool: Pool, seed: int) -> Verification | None:
    """Compares a candidate with the untuned schedule: outputs, then paired times.

    None where the worker died or ran out of time, which proves nothing against the candidate.
    """
    reply = pool.verify(workload, candidate, seed)
    if isinstance(reply, MeasureError) and reply.kind in (ErrorKind.CRASH, ErrorKind.RUN_TIMEOUT):
        return None
    if not isinstance(reply, Done):
        return Verification(candidate, False, float("inf"), 0.0, text=f"{reply.kind}: {reply.text}")
    estimate = probability_faster(reply.samples_s, reply.before_s)
    correct = reply.max_error <= reply.tolerance
    faster = verdict(*estimate[1:]) is not Verdict.NOT_SIGNIFICANT
    text = ""
    if not correct:
        text = f"wrong output: error {reply.max_error:.2e}, tolerance {reply.tolerance:.2e}"
    elif not faster:
        text = "not faster than the untuned schedule"
    error, allowed = reply.max_error, reply.tolerance
    return Verification(
        candidate, correct, error, allowed, reply.before_s, reply.samples_s, faster, estimate, text
    )


def winner_of(task: Task, store: Store, conditions: Conditions) -> tuple[Verification, Measurement] | None:
    """The fastest candidate that passed, and its measurements; None where none did."""
    passed = {
        v.candidate.hash: v
        for v in reversed(store.verifications(task.workload.hash, conditions))
        if v.correct and v.faster
    }
    for measurement in store.best(task.workload.hash, conditions, EVERY if passed else 0):
        if measurement.candidate.hash in passed:
            return passed[measurement.candidate.hash], measurement
    return None
