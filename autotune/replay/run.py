"""Running searchers on recordings."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial

from autotune.replay.recording import Recording
from autotune.replay.score import Step, budget_s
from costmodels.trees import TreeCostModel
from costmodels.values import TreeValueModel
from search.searchers import SEARCHERS, Scorers

BATCH = 4  # candidates a searcher proposes at once, once it has seen a few; the first come one by one
GROWTH = 16  # or a 16th of what it has seen, if that is more: a suggestion costs much where budgets are long

Search = Callable[[Recording, int], tuple[Step, ...]]
"""A search of a recording with a seed, until its budget is spent."""


@dataclass(frozen=True)
class Replayed:
    """One search.

    Attributes:
        own_s: Seconds that the searcher itself took.
    """

    searcher: str
    recording: str
    seed: int
    steps: tuple[Step, ...]
    own_s: float


def search(name: str, recording: Recording, seed: int, batch: int = BATCH) -> tuple[Step, ...]:
    """One of our searchers, with tree models fitted as it goes."""
    model, values = TreeCostModel(seed), TreeValueModel(seed)
    searcher = SEARCHERS[name](recording.space, Scorers(model, values), seed)
    budget, spent, steps = budget_s(recording), 0.0, list[Step]()
    while spent < budget and (candidates := searcher.suggest(_size(len(steps), batch))):
        measured = [recording.measure(c) for c in candidates]
        for m in measured:
            spent += recording.outcomes[m.candidate.choices].cost_s
            steps.append(Step(spent, m.latency_s))
        searcher.update(measured)
        model.add(recording.space.workload, measured)
        values.add(recording.space.workload, measured)
    return tuple(steps)


def _size(seen: int, batch: int) -> int:
    """Candidates proposed at once. Where little is known, each outcome says much about where to look next."""
    return max(min(batch, 1 + seen // BATCH), seen // GROWTH)


def ours(names: Sequence[str], batch: int = BATCH) -> dict[str, Search]:
    """Our searchers by name."""
    return {name: partial(_search, name, batch) for name in names}


def _search(name: str, batch: int, recording: Recording, seed: int) -> tuple[Step, ...]:
    return search(name, recording, seed, batch)


def replay(
    searches: dict[str, Search], recordings: Sequence[Recording], repeats: int, jobs: int
) -> Iterator[Replayed]:
    """Every search on every recording with seeds 0, 1, ..., on several processes; as they end."""
    todo = [(s, r, seed) for seed in range(repeats) for r in range(len(recordings)) for s in searches]
    with ProcessPoolExecutor(jobs, initializer=_begin, initargs=(searches, recordings)) as pool:
        try:
            for future in as_completed([pool.submit(_one, *job) for job in todo]):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_searches: dict[str, Search] = {}
_recordings: Sequence[Recording] = ()


def _begin(searches: dict[str, Search], recordings: Sequence[Recording]) -> None:
    """In each process: what all its searches need, sent once."""
    global _searches, _recordings
    _searches, _recordings = searches, recordings


def _one(name: str, place: int, seed: int) -> Replayed:
    recording = _recordings[place]
    started = time.perf_counter()
    steps = _searches[name](recording, seed)
    return Replayed(name, recording.name, seed, steps, time.perf_counter() - started)
