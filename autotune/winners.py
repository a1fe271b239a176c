"""From measured candidates to verified winners, and back out of the database."""

from collections.abc import Callable, Sequence
from functools import partial

from autotune.measure.arena import PROVES_NOTHING, Arena
from autotune.measure.family import ReferenceFailed
from autotune.measure.pool import Pool
from autotune.measure.sequential import Outcome
from db.store import Store
from search.problem import (
    BACK_TO_BACK,
    Between,
    Cache,
    Candidate,
    Conditions,
    MeasureError,
    Measurement,
    Task,
    Verification,
    Workload,
)

CANDIDATES = 5  # of a task, tried in the order of their latency
CHALLENGERS = 2  # compared with the one in front of them, where that matters
MATTERS = 0.005  # of the model's latency: of kernels that take less, whichever is in front will do
CLOSE = 1.05  # times the best latency: measured alone, slower ones are slower
EVERY = 1 << 30


def verify_winners(
    tasks: Sequence[Task],
    store: Store,
    conditions: Conditions,
    pool: Pool,
    run_id: int,
    read_bytes: int = 0,
    observe: Callable[[int, int, str], None] = lambda done, of, doing: None,
    guess: Callable[[Workload], Candidate | None] = lambda workload: None,
) -> None:
    """Finds the winner of each task among its best candidates and verifies it; results go to the store.

    What passed before keeps its place until a faster one is shown to be so in pairs; so does, at first, what
    would be taken without measuring. What was wrong is not tried again; what was only not faster than plain
    loops gets another chance.

    Args:
        read_bytes: What the rest of the model reads between two runs of a kernel; 0 leaves caches warm.
        observe: Told how many tasks are done, of how many that need it, and what is being done.
        guess: What would be taken without measuring. Candidates are timed one by one, with warm caches, in
            whatever the machine's state is: the least of hundreds of times may be luck.
    """
    ranked = [store.best(task.workload.hash, conditions, EVERY) for task in tasks]
    shares_s = [t.weight * best[0].latency_s if best else 0.0 for t, best in zip(tasks, ranked, strict=True)]
    contested: list[tuple[Task, list[Measurement], float, Candidate | None]] = []
    for task, best, share_s in zip(tasks, ranked, shares_s, strict=True):
        won = winner_of(task.workload, store, conditions)
        standing = won[0].candidate if won else None
        if best and best[0].candidate != standing:
            contested.append((task, best, share_s, standing))
    for number, (task, best, share_s, standing) in enumerate(contested):
        say = partial(observe, number, len(contested))
        challengers = CHALLENGERS if share_s >= MATTERS * sum(shares_s) else 0
        state = between(task, read_bytes)
        try:
            with pool.arena(task.workload) as arena:
                contest = _Contest(task, store, conditions, arena, run_id, state, challengers, say)
                contest.hold(best, standing, guess(task.workload))
        except ReferenceFailed as error:
            say(f"not verifying {task.name}: {error}")


class _Contest:
    """Finds the winner of one task."""

    def __init__(
        self,
        task: Task,
        store: Store,
        conditions: Conditions,
        arena: Arena,
        run_id: int,
        between: Between,
        challengers: int,
        observe: Callable[[str], None],
    ) -> None:
        self._task = task
        self._store = store
        self._conditions = conditions
        self._arena = arena
        self._run_id = run_id
        self._between = between
        self._challengers = challengers
        self._observe = observe

    def hold(self, every: Sequence[Measurement], standing: Candidate | None, guess: Candidate | None) -> None:
        if standing or not self._challengers or all(m.candidate != guess for m in every):
            guess = None
        ranked = every[:CANDIDATES]
        for number, front in enumerate(ranked):
            if standing and not self._beats(front.candidate, standing):
                return
            champion = self._champion(front, ranked[number + 1 :])
            if champion == standing:
                return
            if guess and not self._beats(champion, guess):
                rival, guess = guess, None
                if self._passes(rival):
                    return
                if rival == champion:
                    continue
            if self._passes(champion):
                return

    def _passes(self, candidate: Candidate) -> bool:
        """Whether a candidate computes what it should, and faster than plain loops do."""
        self._observe(f"verifying {self._task.name}")
        verification = verify(candidate, self._arena, self._run_id, self._between)
        if verification is None:
            return False
        self._store.add_verification(self._run_id, self._conditions, verification)
        return verification.correct and verification.faster

    def _champion(self, front: Measurement, others: Sequence[Measurement]) -> Candidate:
        """The best of those whose times lie too close to tell."""
        champion = front.candidate
        close = [m for m in others if m.latency_s < CLOSE * front.latency_s]
        for challenger in close[: self._challengers]:
            if self._beats(challenger.candidate, champion):
                champion = challenger.candidate
        return champion

    def _beats(self, challenger: Candidate, champion: Candidate) -> bool:
        """Whether pairs of times show it; the one that stands stays where they do not."""
        if challenger == champion:
            return False
        self._observe(f"comparing the best of {self._task.name}")
        test = self._arena.compare(challenger, champion, self._run_id, self._between)
        return not isinstance(test, MeasureError) and test.outcome is Outcome.FIRST


def between(task: Task, read_bytes: int) -> Between:
    """What a model that runs over and over does between two runs of a kernel of its own.

    The other kernels read their weights and what is passed on; then this one's outputs are where another's
    lay not long ago, and its inputs have just been written. ``benchmarks/share.py``
    compares this with caches that are warm, and with cold ones.
    """
    return Between(Cache.MODEL, read_bytes, task.passed) if read_bytes else BACK_TO_BACK


def verify(candidate: Candidate, arena: Arena, seed: int, between: Between) -> Verification | None:
    """Compares a candidate with the reference and with plain loops: outputs, then paired times.

    None where the process died or ran out of time, which proves nothing against the candidate.
    """
    checked = arena.check(candidate, seed)
    if isinstance(checked, MeasureError):
        return _failure(candidate, checked)
    error, allowed = checked.max_error, checked.tolerance
    if error > allowed:
        text = f"wrong output: error {error:.2e}, tolerance {allowed:.2e}"
        return Verification(candidate, False, error, allowed, text=text)
    test = arena.compare(candidate, None, seed, between)
    if isinstance(test, MeasureError):
        return _failure(candidate, test)
    seen = test.comparison()
    faster = test.outcome is Outcome.FIRST
    return Verification(
        candidate, True, error, allowed, tuple(test.second_s), tuple(test.first_s), faster,
        (seen.p_faster, seen.low, seen.high), "" if faster else "not faster than plain loops", between.cache,
    )  # fmt: skip


def _failure(candidate: Candidate, error: MeasureError) -> Verification | None:
    if error.kind not in PROVES_NOTHING:
        return Verification(candidate, False, float("inf"), 0.0, text=f"{error.kind}: {error.text}")
    return None


def winner_of(
    workload: Workload, store: Store, conditions: Conditions
) -> tuple[Verification, Measurement] | None:
    """The last candidate that passed, having beaten those before it, and its measurements."""
    proofs: dict[str, Verification] = {}  # the newest of each candidate
    for proof in store.verifications(workload.hash, conditions):
        proofs.setdefault(proof.candidate.hash, proof)
    passed = [p for p in proofs.values() if p.correct and p.faster]
    ranked = store.best(workload.hash, conditions, EVERY if passed else 0)
    measured = {m.candidate.hash: m for m in ranked}
    return next(((p, measured[p.candidate.hash]) for p in passed if p.candidate.hash in measured), None)
