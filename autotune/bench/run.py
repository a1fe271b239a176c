"""Contestants run in interleaved rounds, each in a process of its own.

A process each, rather than one for all, because then nothing of one contestant touches another: threads that
spin after a run stand still (``Process`` stops them), OpenMP runtimes and thread counts do not collide, each
library is loaded as its own users load it, and one that crashes or hangs costs only itself.

In each round every contestant gives one sample, in an order drawn anew: what drifts (clock, temperature,
other load) then falls on all alike, and two samples of one round are a pair. A sample is the mean over a
burst of runs long enough to be timed well, after one run that is not timed and warms the caches.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from autotune.bench.contestant import Array, Contestant
from autotune.bench.original import originals
from autotune.bench.peers import PEERS, Artifact
from autotune.bench.result import BenchResult, Entry, Status
from autotune.bench.rounds import AGREES, Limits, Player, enter, evaluate, run_rounds
from autotune.errors import ArtifactError, BadInput
from autotune.hardware import describe_hardware
from autotune.manifest import LIBRARY_NAME
from autotune.measure.check import moved_by_steps
from autotune.measure.statistics import PAIRS

LIMIT_S = 120.0
_LOAD_S = 0.5  # of watching what other programs use


def bench_model(
    model: str,
    artifact: Path | None,
    threads: int,
    rounds: int,
    shapes: dict[str, tuple[int, ...]] | None,
    batch: int | None,
    peers: Sequence[str] | None,
    progress: Callable[[str], None],
    limit_s: float = LIMIT_S,
    seed: int = 0,
) -> BenchResult:
    """Measures a model as compiled by us and as its peers run it.

    Args:
        model: As for ``load_model``; so are ``shapes`` and ``batch``.
        artifact: Folder of the compiled model; None measures the peers alone.
        rounds: 29 suffice for a verdict.
        peers: Names from ``PEERS``; None for all.
        progress: Called with lines for people.
        limit_s: About how long all rounds may take, getting ready not counted.

    Raises:
        BadInput: There is no such peer, or there are no rounds.
        ArtifactError: There is no compiled model in the folder.
        AutotuneError: The model cannot be loaded (``load_model``).
    """
    if rounds < 1:
        raise BadInput(f"--rounds {rounds}: expected at least 1")
    unknown = [p for p in peers or () if p not in PEERS]
    if unknown:
        raise BadInput(f"unknown peer {unknown[0]!r}; the peers are {', '.join(PEERS)}")
    if artifact and not (artifact / LIBRARY_NAME).is_file():
        raise ArtifactError(f"{artifact} holds no {LIBRARY_NAME}; autotune run {model} --out DIR makes one")
    from autotune.frontends import load_model
    from autotune.frontends.model import random_inputs
    from autotune.frontends.quantized.passes import is_quantized

    progress(f"loading {model}")
    source = load_model(model, shapes, batch)
    inputs = random_inputs(source.inputs, seed)
    expected = source.reference(inputs)
    agrees = AGREES
    if is_quantized(source.module):
        agrees = max(agrees, moved_by_steps(source.reference, inputs, expected, source.nudged))
    with tempfile.TemporaryDirectory() as folder:
        original = originals(model, source, Path(folder))
        contestants: list[Contestant] = [PEERS[p](original) for p in (PEERS if peers is None else peers)]
        if artifact:
            contestants.insert(0, Artifact(artifact.resolve()))
        result = bench(contestants, inputs, expected, threads, rounds, limit_s, seed, progress, agrees=agrees)
    return replace(result, model=source.name, reference=source.reference_name)


def bench(
    contestants: Sequence[Contestant],
    inputs: Sequence[Array],
    expected: Sequence[Array],
    threads: int,
    rounds: int = PAIRS,
    limit_s: float = LIMIT_S,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
    limits: Limits | None = None,
    ours: str = Artifact.name,
    agrees: float = AGREES,
) -> BenchResult:
    """Measures contestants on the same inputs.

    Args:
        expected: Outputs of the original model.
        limit_s: See ``bench_model``; every contestant takes part in three rounds, whatever they take.
        ours: Name of the contestant that the others are compared with.
        agrees: How far outputs may be from ``expected``, relative to the largest, and be the same model's.
    """
    limits = limits or Limits()
    entries: dict[str, Entry] = {}
    players: list[Player] = []
    try:
        for contestant in contestants:
            progress(f"preparing {contestant.name}")
            entered = enter(contestant, inputs, expected, threads, limits, agrees)
            if isinstance(entered, Player):
                players.append(entered)
                entered = entered.entry
            entries[contestant.name] = entered
        load = _foreign_load()
        started = time.perf_counter()
        for name, text in run_rounds(players, rounds, limit_s, seed, progress, limits):
            entries[name] = replace(entries[name], status=Status.FAILED, note=text)
        elapsed_s = time.perf_counter() - started
        load = max(load, _foreign_load())
    finally:
        for player in players:
            player.process.kill()
    ran = {p.entry.name: p for p in players if entries[p.entry.name].status is Status.RAN}
    for name, player in ran.items():
        entries[name] = evaluate(player, ran.get(ours) if name != ours else None, seed)
    count = max((len(p.samples_s) for p in ran.values()), default=0)
    machine = describe_hardware(probe=False).name
    return BenchResult("", machine, threads, "", count, seed, elapsed_s, load, tuple(entries.values()))


def _foreign_load() -> float:
    """Share of all CPUs' time that is used while our contestants stand still."""
    return float(psutil.cpu_percent(_LOAD_S)) / 100
