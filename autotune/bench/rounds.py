"""Players and rounds: who gets ready, who runs when, and what the times show."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from autotune.bench.contestant import Array, Contestant
from autotune.bench.process import Process
from autotune.bench.protocol import Enter, Entered, Failure, Sample
from autotune.bench.result import Comparison, Entry, Status
from autotune.measure.check import relative_error
from autotune.measure.statistics import (
    FEWEST_PAIRS,
    bootstrap_interval,
    probability_faster,
    speed_ratio,
    verdict,
)

AGREES = 1e-3  # of the largest output: float32 summed in another order stays far below, other models above
_SAMPLE_S = 5e-3
_SLOW_S = 0.5  # a run that takes longer, and longer than _SLOW times the fastest contestant's, is slow:
_SLOW = 3.0
# it takes part in as many rounds as can show a difference,
_FEWEST_ROUNDS = 3  # or in fewer where time is short


@dataclass(frozen=True)
class Limits:
    """Seconds after which a contestant is given up.

    Attributes:
        run_s: For one sample, or ten times what it should take where that is longer.
    """

    prepare_s: float = 900.0
    run_s: float = 30.0


@dataclass(eq=False)
class Player:
    """A contestant that runs, and its samples by round."""

    entry: Entry
    process: Process
    once_s: float
    samples_s: dict[int, float] = field(default_factory=dict)

    @property
    def warm(self) -> bool:
        return self.once_s < _SLOW_S

    @property
    def cost_s(self) -> float:
        """Of one sample."""
        return self.once_s * (self.entry.burst + self.warm)


def enter(
    contestant: Contestant,
    inputs: Sequence[Array],
    expected: Sequence[Array],
    threads: int,
    limits: Limits,
    agrees: float,
) -> Player | Entry:
    """Gets a contestant ready; an entry alone if it cannot take part."""
    started = time.perf_counter()
    process = Process(threads)
    try:
        entered = process.enter(Enter(contestant, inputs, threads), limits.prepare_s)
        if isinstance(entered, Entered):
            player = _admit(
                contestant.name, process, entered, expected, agrees, time.perf_counter() - started
            )
            if isinstance(player, Player):
                return player
            entered = player
    except BaseException:
        process.kill()
        raise
    process.kill()
    return Entry(contestant.name, Status.FAILED if entered.available else Status.UNAVAILABLE, entered.text)


def _admit(
    name: str,
    process: Process,
    entered: Entered,
    expected: Sequence[Array],
    agrees: float,
    prepare_s: float,
) -> Player | Failure:
    shapes = [[list(o.shape) for o in outputs] for outputs in (entered.outputs, expected)]
    if shapes[0] != shapes[1]:
        return Failure(f"it gives outputs of shape {shapes[0]}, the original {shapes[1]}")
    error = max((relative_error(o, e) for o, e in zip(entered.outputs, expected, strict=True)), default=0.0)
    if not math.isfinite(error):
        return Failure("its output is not finite where the original's is, or the other way round")
    entry = Entry(
        name,
        Status.RAN,
        note=entered.setting,
        version=entered.version,
        error=error,
        agrees=error <= agrees,
        prepare_s=prepare_s,
        burst=max(1, math.ceil(_SAMPLE_S / entered.once_s)),
    )
    return Player(entry, process, entered.once_s)


def run_rounds(
    players: Sequence[Player],
    rounds: int,
    limit_s: float,
    seed: int,
    progress: Callable[[str], None],
    limits: Limits,
) -> list[tuple[str, str]]:
    """Takes the samples; returns who failed, and why."""
    rng = np.random.default_rng(seed)
    playing = {player: _spread(count, of) for player, (count, of) in _plan(players, rounds, limit_s).items()}
    failures: list[tuple[str, str]] = []
    until = time.perf_counter() + limit_s
    total = max((max(r) + 1 for r in playing.values()), default=0)
    for number in range(total):
        enough = all(len(p.samples_s) >= min(_FEWEST_ROUNDS, len(playing[p])) for p in playing)
        if enough and time.perf_counter() > until:
            break
        progress(f"round {number + 1} of {total}")
        now = [p for p in players if number in playing.get(p, ())]
        for index in rng.permutation(len(now)):
            player = now[index]
            limit = max(limits.run_s, 10 * player.cost_s)
            sample = player.process.sample(Sample(player.entry.burst, player.warm), limit)
            if isinstance(sample, Failure):
                player.process.kill()
                del playing[player]
                failures.append((player.entry.name, sample.text))
            else:
                player.samples_s[number] = sample
    return failures


def _plan(players: Sequence[Player], rounds: int, limit_s: float) -> dict[Player, tuple[int, int]]:
    """For each contestant, how many rounds it takes part in, of how many."""
    fastest_s = min((p.once_s for p in players), default=0.0)
    slow = [p for p in players if p.once_s > max(_SLOW_S, _SLOW * fastest_s)]
    slow_s = sum(p.cost_s for p in slow)
    fast_s = sum(p.cost_s for p in players if p not in slow)

    def fitting(spare_s: float, cost_s: float, most: int) -> int:
        return min(most, max(_FEWEST_ROUNDS, int(spare_s / cost_s) if cost_s else most))

    total = fitting(limit_s - _FEWEST_ROUNDS * slow_s, fast_s, rounds)
    few = fitting(limit_s - total * fast_s, slow_s, min(FEWEST_PAIRS, total))
    return {p: (few if p in slow else total, total) for p in players}


def _spread(count: int, total: int) -> frozenset[int]:
    """Evenly spread round numbers: ``count`` of ``total``."""
    return frozenset(i * total // count for i in range(count))


def evaluate(player: Player, ours: Player | None, seed: int) -> Entry:
    samples = tuple(player.samples_s.values())
    low, high = bootstrap_interval(samples, seed=seed)
    return replace(
        player.entry,
        rounds=tuple(player.samples_s),
        samples_s=samples,
        median_s=float(np.median(samples)),
        low_s=low,
        high_s=high,
        versus=_compare(ours.samples_s, player.samples_s, seed) if ours else None,
    )


def _compare(ours_s: dict[int, float], theirs_s: dict[int, float], seed: int) -> Comparison | None:
    shared = sorted(ours_s.keys() & theirs_s.keys())
    if not shared:
        return None
    pairs = [ours_s[r] for r in shared], [theirs_s[r] for r in shared]
    p_faster, low, high = probability_faster(*pairs)
    shown = verdict(low, high) if p_faster >= 0.5 else verdict(1 - high, 1 - low)
    return Comparison(*speed_ratio(*pairs, seed=seed), p_faster, low, high, len(shared), shown)
