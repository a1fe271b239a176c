"""How fast the schedules are that the models choose without running anything, beside the best known.

    python -m benchmarks.zero_shot --db measurements.db

For each kernel of the held-out networks: what the default models choose, what the templates' formula takes
for the best, and the best that was ever measured (by ``autotune collect`` or a tuner, in the database given),
timed in turn. One core chooses. Writes ``benchmarks/results/zero_shot.json``.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from autotune.catalogue import HELD_OUT
from autotune.frontends import load_model
from autotune.frontends.graph import lower
from autotune.learning import learned_models
from autotune.measure.pool import Pool
from autotune.session import open_session
from costmodels.by_space import SpaceModels
from costmodels.choose import choose
from search.problem import Candidate, Workload
from search.spaces import SPACES, first_guess, spaces_of

ROUNDS = 5
WAYS = ("best known", "models", "formula")


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--db", required=True)
    parser.add_argument("--networks", default=",".join(HELD_OUT))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    console = Console()
    torch.set_num_threads(1)
    results: dict[str, dict[str, dict[str, float]]] = {}
    own_s: list[float] = []
    with (
        open_session(options.db, None, None, create=False) as session,
        Pool(session.conditions.target, session.conditions.threads) as pool,
    ):
        learned = learned_models(session.store, session.conditions)
        console.print(f"models: {', '.join(learned.names)}")
        if learned.trained is None:
            parser.error("there are no trained models that could choose")
        for network in options.networks.split(","):
            results[network] = {}
            for task in lower(load_model(network), session.target).tasks:
                best = session.store.best(task.workload.hash, session.conditions)
                if not best or not task.workload.flop:
                    continue
                spaces = spaces_of(task.workload, session.target)
                started = time.perf_counter()
                chosen = choose(spaces, SpaceModels(SPACES, learned.trained))
                own_s.append(time.perf_counter() - started)
                guess = first_guess(task.workload, session.target)
                ways = dict(zip(WAYS, (best[0].candidate, chosen, guess), strict=True))
                times = timed(pool, task.workload, {n: c for n, c in ways.items() if c is not None})
                results[network][task.name] = times | {"weight": task.weight}
                console.print(
                    f"{network} {task.name}: {', '.join(f'{n} {t * 1e6:.1f} us' for n, t in times.items())}"
                )
    table = Table("network", "kernels", *(f"best known / {w}, of the sum" for w in WAYS[1:]),
                  *(f"{w}, geometric mean" for w in WAYS[1:]))  # fmt: skip
    for network, kernels in results.items():
        known = [k for k in kernels.values() if all(math.isfinite(k.get(w, math.inf)) for w in WAYS)]
        if not known:
            continue
        sums = {w: sum(k[w] * k["weight"] for k in known) for w in WAYS}
        means = [statistics.geometric_mean(k["best known"] / k[w] for k in known) for w in WAYS[1:]]
        table.add_row(network, str(len(known)), *(f"{sums['best known'] / sums[w]:.2f}" for w in WAYS[1:]),
                      *(f"{m:.2f}" for m in means))  # fmt: skip
    console.print(table)
    console.print(
        f"choosing took {statistics.median(own_s):.1f} s a kernel, {max(own_s):.1f} at most, on one core"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "zero_shot.json").write_text(json.dumps(results, indent=1))


def timed(pool: Pool, workload: Workload, ways: dict[str, Candidate]) -> dict[str, float]:
    """Median seconds of each, over rounds in which all take turns; infinite for a failure."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        distinct = list(dict.fromkeys(ways.values()))
        measured = {m.candidate: m.latency_s for m in pool.measure(workload, distinct)}
        for name, candidate in ways.items():
            times[name].append(measured[candidate])
    return {name: statistics.median(t) for name, t in times.items()}


if __name__ == "__main__":
    main()
