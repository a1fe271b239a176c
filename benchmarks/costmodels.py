"""How good the cost models are on networks that they never saw, beside baselines on the same data.

    python -m benchmarks.costmodels --db sqlite:///measurements.db --seeds 3
    python -m benchmarks.costmodels --db ... --pretrained     # the checkpoints that come with the program

Trains the LSTM, the graph network, gradient-boosted trees on TVM's features and TVM's own XGBoost model on
all kernels but those of the held-out networks, and judges them by these: the metrics of the field, with the
spread over seeds. Writes ``benchmarks/results/costmodels.json``.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from costmodels.data import Group, split, target_of, without
from costmodels.job import encoded_groups
from costmodels.metrics import ScoredTask, summary
from costmodels.network import scored
from costmodels.training import Trainer, TrainSettings
from db.store import Store
from search.compiler import load_tensor_intrinsics, tune_context
from search.spaces.tir import module_of
from search.spaces.trace import schedule_of

SHOWN = ("top@1", "top@5", "peak@5", "pairwise", "tau", "slowdown@10", "median_error", "within@80%")

Weighted = list[tuple[Group, float]]


def weighted(groups: Sequence[Group], networks: Sequence[str]) -> Weighted:
    """The groups of some networks, each as often as it occurs there."""
    found: Weighted = []
    for name in networks:
        by_hash = {g.workload.hash: g for g in groups if name in g.networks}
        target = target_of(next(iter(by_hash.values())).conditions)
        for task in lower(load_model(name), target).tasks:
            if task.workload.hash in by_hash:
                found.append((by_hash[task.workload.hash], float(task.weight)))
    return found


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


def trained(kind: str, learn: Sequence[Group], encoded: dict[str, list[Any]], seed: int, epochs: int) -> Any:
    """A model of a kind, trained on groups whose encodings are known; a part of them says when to stop."""
    inner, valid = split(learn, "model", 0.15, seed)
    place = {id(g): i for i, g in enumerate(learn)}
    parts = [[encoded[kind][place[id(g)]] for g in part] for part in (inner, valid)]
    torch.manual_seed(seed)
    model = MODELS[kind]()
    if isinstance(model, StoreTrees):
        model.fit(encoded[kind], seed)
    else:
        model.standardize(parts[0])
        Trainer(model, *parts, TrainSettings(epochs=epochs, seed=seed)).run()
    return model


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--db", required=True)
    parser.add_argument("--networks", default=",".join(HELD_OUT))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=TrainSettings.epochs)
    parser.add_argument("--models", default="lstm,gnn,trees,tvm")
    parser.add_argument("--pretrained", action="store_true", help="judge what comes with the program")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    console, networks = Console(), options.networks.split(",")
    kinds = [k for k in options.models.split(",") if k != "tvm"]
    with Store.open(options.db) as store, console.status("reading measurements"):
        groups = read_groups(store)
    learn, held_out = without(groups, networks), weighted(groups, networks)
    console.print(
        f"{sum(len(g.candidates) for g in learn)} candidates of {len(learn)} kernels to learn from; to judge "
        f"by {sum(len(g.candidates) for g, _ in held_out)} of {len(held_out)} of {', '.join(networks)}"
    )
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    found["formula"].append(summary(of_formula(held_out)))
    encoded, judged = {}, {}
    for kind in kinds:
        started = time.perf_counter()
        encoded[kind] = (
            [] if options.pretrained else encoded_groups(MODELS[kind].encode, learn, lambda *_: None)
        )
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
                model = trained(kind, learn, encoded, seed, options.epochs)
            if model is None:
                continue
            scores[kind] = [
                scored(model.predict(e), e, w) for e, (_, w) in zip(judged[kind], held_out, strict=True)
            ]
            found[kind].append(summary(scores[kind]))
            console.print(
                f"{kind}, seed {seed}: {time.perf_counter() - started:.0f} s {shown(found[kind][-1:])}"
            )
        if {"lstm", "gnn"} <= scores.keys():
            both = [
                ScoredTask(a.scores + b.scores, a.latencies_s, a.weight)
                for a, b in zip(scores["lstm"], scores["gnn"], strict=True)
                if len(a.scores) == len(b.scores)
            ]
            found["lstm + gnn"].append(summary(both))
        if "tvm" in options.models.split(","):
            tvm_model = TvmModel(learn, seed, console)
            found["tvm"].append(
                summary([ScoredTask(tvm_model.predict(g), g.latency_s, w) for g, w in held_out])
            )
    table = Table("model", *SHOWN)
    for name, metrics in found.items():
        table.add_row(name, *shown(metrics))
    console.print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "costmodels.json").write_text(json.dumps(found, indent=1))


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
