"""Kernel Tuner's own optimisers on our recordings, in its simulation mode.

Each gets the same space (exactly the recorded configurations), the same recorded costs, and the same budget,
with all its settings at their defaults; only that some give up after 100 evaluations is lifted. What it
evaluates, in order, is then judged as ours is.
"""

import functools
import io
import json
import random
import tempfile
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from autotune.errors import BadInput
from autotune.replay.recording import Recording
from autotune.replay.run import Search
from autotune.replay.score import Step, budget_s

STRATEGIES = (
    "adaptive_tabu_greywolf", "basinhopping", "bayes_opt", "diff_evo", "dual_annealing", "firefly_algorithm",
    "genetic_algorithm", "greedy_ils", "greedy_mls", "hybrid_vndx", "minimize", "mls", "ordered_greedy_mls",
    "pso", "random_sample", "simulated_annealing",
)  # fmt: skip
"""Those for one objective that need nothing more installed."""

PREFIX = "kt:"
_FAILED = "RuntimeFailedConfig"


def strategies(names: tuple[str, ...] = STRATEGIES) -> dict[str, Search]:
    """Kernel Tuner's optimisers by name, with a prefix.

    Raises:
        BadInput: It is not installed.
    """
    try:
        import kernel_tuner  # noqa: F401
    except ImportError as error:
        raise BadInput("Kernel Tuner is not installed: pip install 'autotune-tensor[bench]'") from error
    return {PREFIX + name: functools.partial(_search, name) for name in names}


def _search(strategy: str, recording: Recording, seed: int) -> tuple[Step, ...]:
    import kernel_tuner
    from constraint import FunctionConstraint

    cache, parameters = _prepared(recording)
    keys = set(recording.outcomes)
    random.seed(seed)
    np.random.seed(seed)
    results: list[dict[str, Any]] = []
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with _noting(results):
            kernel_tuner.tune_kernel(
                "kernel", "__global__ void kernel(){}", 1, [], parameters,
                restrictions=[FunctionConstraint(lambda *values: values in keys)],
                strategy=strategy,
                strategy_options={"time_limit": 2 * budget_s(recording), "max_fevals": len(keys)},
                cache=str(cache), simulation_mode=True, quiet=True, lang="CUDA", seed=seed,
            )  # fmt: skip
    steps, spent, seen = list[Step](), 0.0, set[tuple[int, ...]]()
    for result in results:
        choices = tuple(int(result[n]) for n in parameters)
        if choices in seen or choices not in recording.outcomes:
            continue
        seen.add(choices)
        outcome = recording.outcomes[choices]
        spent += outcome.cost_s
        latency_s = float("inf") if outcome.error else float(np.median(outcome.samples_s))
        steps.append(Step(spent, latency_s))
    return tuple(steps)


class _noting:
    """While it lasts, notes each configuration that Kernel Tuner evaluates, in order."""

    def __init__(self, results: list[dict[str, Any]]) -> None:
        self._results = results

    def __enter__(self) -> None:
        from kernel_tuner.runners.simulation import SimulationRunner

        self._run = SimulationRunner.run

        def run(runner: Any, space: Any, options: Any) -> Any:
            results = self._run(runner, space, options)
            self._results += [r for r in results if r]
            return results

        SimulationRunner.run = run

    def __exit__(self, *error: object) -> None:
        from kernel_tuner.runners.simulation import SimulationRunner

        SimulationRunner.run = self._run


_folders: list[tempfile.TemporaryDirectory[str]] = []
_caches: dict[int, tuple[Path, dict[str, list[int]], Recording]] = {}
"""By the identity of the recording, which is kept so that it stays unique; names may be the same."""


def _prepared(recording: Recording) -> tuple[Path, dict[str, list[int]]]:
    """The recording as a cache file, and the values of its parameters: the indices of our choices."""
    if id(recording) not in _caches:
        _remember_files()
        _folders.append(tempfile.TemporaryDirectory())
        width = len(next(iter(recording.outcomes)))
        names = [recording.space.decision_name(place) for place in range(width)]
        columns = zip(*recording.outcomes, strict=True)
        parameters = {n: sorted({int(c) for c in column}) for n, column in zip(names, columns, strict=True)}  # type: ignore[arg-type]
        entries: dict[str, dict[str, Any]] = {}
        for choices, outcome in recording.outcomes.items():
            third = 1e3 * outcome.cost_s / 3
            entries[",".join(map(str, choices))] = dict(zip(names, choices, strict=True)) | {
                "time": _FAILED if outcome.error else 1e3 * float(np.median(outcome.samples_s)),
                "times": [], "compile_time": third, "verification_time": third, "benchmark_time": third,
            } | ({"__error__": _FAILED} if outcome.error else {})  # fmt: skip
        path = Path(_folders[-1].name) / "cache.json"
        head = {
            "device_name": recording.name, "kernel_name": "kernel", "problem_size": [1],
            "tune_params_keys": names, "tune_params": parameters, "objective": "time", "cache": entries,
        }  # fmt: skip
        path.write_text(json.dumps(head))
        _caches[id(recording)] = path, parameters, recording
    return _caches[id(recording)][:2]


def _remember_files() -> None:
    """Kernel Tuner reads a cache file anew for each run; once a process is enough.

    Its space, though, is made anew: it remembers which neighbours earlier runs asked for and proposes those
    again, so a run on a used one is told what the runs before it found.
    """
    from kernel_tuner import util

    if not _caches:
        util.read_cache = functools.lru_cache(util.read_cache)
