"""How good the cost models are on networks that they never saw, beside baselines on the same data.

    python -m benchmarks.costmodels --seeds 3
    python -m benchmarks.costmodels --pretrained     # the checkpoints that come with the program

Trains the LSTM, the graph network, gradient-boosted trees on TVM's features and TVM's own XGBoost model on
all kernels but those of the held-out networks, and judges them by these: the metrics of the field, with the
spread over seeds. The measurements are those of ``data/``, or those of a database. Writes
``benchmarks/results/costmodels.json``.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from autotune.catalogue import HELD_OUT
from autotune.frontends import load_model
from autotune.frontends.graph import lower
from autotune.learning import read_groups
from costmodels import checkpoint
from costmodels.boosting import StoreTrees
from costmodels.checkpoint import MODELS
from costmodels.data import Group, split, target_of
from costmodels.metrics import ScoredTask, calibration, summary, top_k
from costmodels.network import scored
from costmodels.training import Trainer, TrainSettings
from db.exchange.formats import Format
from db.exchange.importing import add, read
from db.store import Store
from search.compiler import load_tensor_intrinsics, tune_context
from search.spaces.tir import module_of
from search.spaces.trace import schedule_of

DATA = [Path(__file__).parents[1] / "data" / f"{n}.jsonl.gz" for n in ("training", "held-out")]
SHOWN = (
    "top@1",
    "failed@1",
    "top@5",
    "peak@5",
    "pairwise",
    "tau",
    "slowdown@10",
    "median_error",
    "within@80%",
)

Weighted = list[tuple[Group, float]]


def measured(db: str | None) -> list[Group]:
    """Of a database, or of the files that come with the program."""
    if db is not None:
        with Store.open(db) as store:
            return list(read_groups(store))
    with tempfile.TemporaryDirectory() as folder, Store.open(f"{folder}/data.db", create=True) as store:
        for path in DATA:
            add(store, read(path, Format.PORTABLE))
        return list(read_groups(store))


def weighted(groups: Sequence[Group], networks: Sequence[str]) -> Weighted:
    """The groups of some networks' kernels, each as often as it occurs there."""
    by_hash = {g.workload.hash: g for g in groups}
    tasks = [t for n in networks for t in lower(load_model(n), target_of(groups[0].conditions)).tasks]
    return [(by_hash[t.workload.hash], float(t.weight)) for t in tasks if t.workload.hash in by_hash]


def of_formula(held_out: Weighted) -> list[ScoredTask]:
    """The roofline, which takes all candidates of a kernel for equal."""
    return [
        ScoredTask(np.zeros(len(g.latency_s)), g.latency_s, w, np.full(len(g.latency_s), g.roofline_s))
        for g, w in held_out
    ]


class TvmModel:
    """TVM's XGBoost model, as MetaSchedule uses it."""

    def __init__(self, learn: Sequence[Group], seed: int, console: Console) -> None:
        load_tensor_intrinsics()
        config = ms.cost_model.xgb_model.XGBConfig(seed=seed)
        self._model = ms.cost_model.XGBModel(
            extractor=ms.feature_extractor.PerStoreFeature(), config=config, num_warmup_samples=1,
            adaptive_training=True,
        )  # fmt: skip
        with console.status("TVM's model") as status:
            for number, group in enumerate(learn):
                status.update(f"TVM's model learns from kernel {number} of {len(learn)}")
                last = number == len(learn) - 1
                self._model.adaptive_training = not last
                self._learn(group)

    def _learn(self, group: Group) -> None:
        context, candidates = self._candidates(group)
        results = [
            ms.runner.RunnerResult(
                [float(t)] if np.isfinite(t) else None, None if np.isfinite(t) else "failed"
            )
            for t in group.latency_s
        ]
        self._model.update(context, candidates, results)

    def predict(self, group: Group) -> NDArray[np.float64]:
        """Scores, shape [n]."""
        return np.asarray(self._model.predict(*self._candidates(group)), dtype=np.float64)

    @staticmethod
    def _candidates(group: Group) -> tuple[Any, list[Any]]:
        module = module_of(group.workload)
        context = tune_context(module, target_of(group.conditions))
        schedules: list[Schedule] = [schedule_of(module, c.trace) for c in group.candidates]
        infos = ms.arg_info.ArgInfo.from_entry_func(module, remove_preproc=True)
        return context, [ms.MeasureCandidate(s, infos) for s in schedules]


def trained(kind: str, encoded: dict[Group, Any], seed: int, epochs: int) -> Any:
    """A model of a kind, trained on groups whose encodings are known; a part of them says when to stop."""
    parts = [[encoded[g] for g in part] for part in split(list(encoded), "model", 0.15, seed)]
    torch.manual_seed(seed)
    model = MODELS[kind]()
    if isinstance(model, StoreTrees):
        model.fit(list(encoded.values()), seed)
    else:
        model.standardize(parts[0])
        Trainer(model, *parts, TrainSettings(epochs=epochs, seed=seed)).run()
    return model


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--db", help="of other measurements than those in data/")
    parser.add_argument("--networks", default=",".join(HELD_OUT))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=TrainSettings.epochs)
    parser.add_argument("--models", default="lstm,gnn,trees,tvm")
    parser.add_argument("--plot", type=Path, help="file for a plot of the first seed's predictions")
    parser.add_argument("--pretrained", action="store_true", help="judge what comes with the program")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    console, networks = Console(), options.networks.split(",")
    kinds = [k for k in options.models.split(",") if k != "tvm"]
    with console.status("reading measurements"):
        groups = measured(options.db)
    held_out = weighted(groups, networks)
    hidden = {g.workload.hash for g, _ in held_out}
    learn = [g for g in groups if g.workload.hash not in hidden]
    if not held_out or len(learn) < 2:
        parser.error(
            f"measurements of {len(held_out)} kernels to judge by, and of {len(learn)} to learn from"
        )
    console.print(
        f"{sum(len(g.candidates) for g in learn)} candidates of {len(learn)} kernels to learn from; to judge "
        f"by {sum(len(g.candidates) for g, _ in held_out)} of {len(held_out)} of {', '.join(networks)}"
    )
    found = judge(kinds, learn, held_out, options, console)
    table = Table("model", *SHOWN)
    for name, metrics in found.items():
        table.add_row(name, *shown(metrics))
    console.print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "costmodels.json").write_text(json.dumps(found, indent=1))


def judge(
    kinds: Sequence[str],
    learn: Sequence[Group],
    held_out: Weighted,
    options: argparse.Namespace,
    console: Console,
) -> dict[str, list[dict[str, float]]]:
    """The metrics of each model, one entry a seed."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    found["formula"].append(summary(of_formula(held_out)))
    encoded, judged = {}, {}
    for kind in kinds:
        started = time.perf_counter()
        encoded[kind] = {} if options.pretrained else {g: MODELS[kind].encode(g) for g in learn}
        judged[kind] = [MODELS[kind].encode(g) for g, _ in held_out]
        console.print(f"{kind}: encoded in {time.perf_counter() - started:.0f} s")
    for seed in range(1 if options.pretrained else options.seeds):
        scores: dict[str, list[ScoredTask]] = {}
        for kind in kinds:
            started = time.perf_counter()
            if options.pretrained:
                path = checkpoint.pretrained(kind)
                model: Any = checkpoint.load(path)[0] if path else None
            else:
                model = trained(kind, encoded[kind], seed, options.epochs)
            if model is not None:
                pairs = zip(judged[kind], held_out, strict=True)
                scores[kind] = [scored(model.predict(e), e, w) for e, (_, w) in pairs]
                found[kind].append(summary(scores[kind]))
                took_s = time.perf_counter() - started
                console.print(f"{kind}, seed {seed}: {took_s:.0f} s {shown(found[kind][-1:])}")
        if seed == 0 and options.plot:
            draw(scores, options.plot)
        if {"lstm", "gnn"} <= scores.keys():
            found["lstm + gnn"].append(summary(together(scores["lstm"], scores["gnn"])))
        if "tvm" in options.models.split(","):
            tvm_model = TvmModel(learn, seed, console)
            tasks = [ScoredTask(tvm_model.predict(g), g.latency_s, w) for g, w in held_out]
            found["tvm"].append(summary(tasks))
    return found


def together(left: Sequence[ScoredTask], right: Sequence[ScoredTask]) -> list[ScoredTask]:
    """Scores of the same candidates, added."""
    return [
        ScoredTask(a.scores + b.scores, a.latencies_s, a.weight)
        for a, b in zip(left, right, strict=True)
        if np.array_equal(a.latencies_s, b.latencies_s)
    ]


def draw(scores: dict[str, list[ScoredTask]], path: Path) -> None:
    """Foretold over measured times; the best of the first k by each model; how sure it is, and if rightly."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    times, ranks, sure = figure.subplots(1, 3)
    levels = np.linspace(0.05, 0.95, 19)
    for kind, tasks in scores.items():
        known = [(t.predicted_s, t.latencies_s, t.spread) for t in tasks if t.predicted_s is not None]
        said, measured = (np.concatenate([k[i] for k in known]) for i in (0, 1))
        ran = np.isfinite(measured)
        times.plot(measured[ran] * 1e6, said[ran] * 1e6, ".", markersize=1, alpha=0.4, label=kind)
        ranks.plot(
            range(1, 33),
            [top_k([t for t in tasks if np.isfinite(t.chosen_s(k))], k) for k in range(1, 33)],
            label=kind,
        )
        found = calibration(tasks, tuple(levels))
        sure.plot(levels, [found[p] for p in levels], label=kind)
    ends = [min(t.latencies_s.min() for t in next(iter(scores.values()))) * 1e6, 1e5]
    times.plot(ends, ends, "k--", linewidth=0.8)
    times.set(xscale="log", yscale="log", xlabel="measured, us", ylabel="foretold, us")
    ranks.set(xlabel="k", ylabel="speed of the best of the first k", ylim=(0, 1.02))
    sure.plot([0, 1], [0, 1], "k--", linewidth=0.8)
    sure.set(xlabel="interval that should hold this share", ylabel="share that it held")
    for axes in (times, ranks, sure):
        axes.legend(markerscale=8, fontsize=7)
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def shown(metrics: Sequence[dict[str, float]]) -> list[str]:
    """Mean and standard deviation over seeds, of each metric shown."""
    cells = []
    for name in SHOWN:
        values = [m[name] for m in metrics if name in m]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.3f}{spread}" if values else "-")
    return cells


if __name__ == "__main__":
    main()
