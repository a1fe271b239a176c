"""Latency after 32, 64, 128 and 256 trials: our default searcher beside TVM's, under the same measuring.

    python -m benchmarks.search --seeds 5
    python -m benchmarks.search --workloads dense,softmax --seeds 1 --searcher evolutionary
    python -m benchmarks.search --rival untrained --trials 64     # beside ours without trained models

Ours has the trained models that ``autotune run`` has by default; ``--no-models`` takes them away. TVM's is
its evolutionary search with its XGBoost cost model over features of lowered programs, in rounds of 32 and
with a model from the 33rd trial on (its default would wait for 100); ours begins with smaller rounds. Ours
searches the spaces
that ``autotune run`` does, a template and TVM's; with ``--same-space``, TVM's alone. Both propose; the same
pool builds, checks and times; each starts from nothing, and their turns alternate. The workloads were never
looked at while the searchers were made. Writes ``benchmarks/results/search-RIVAL.json``.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tvm import te, tirx, topi
from tvm.s_tir import meta_schedule as ms
from tvm.target import Target

from autotune.hardware import describe_hardware, usable_cores
from autotune.learning import pretrained
from autotune.measure.pool import Pool
from autotune.measure.statistics import bootstrap_interval
from autotune.target import canonical, resolve_target
from costmodels.by_space import SpaceModels, Trained
from search.compiler import load_tensor_intrinsics
from search.problem import Candidate, Conditions, Measurement, Workload
from search.searchers import DEFAULT, SEARCHERS
from search.searchers.base import Searcher
from search.searchers.portfolio import PortfolioSearcher
from search.searchers.seeded import SeededSearcher
from search.space import Space
from search.spaces import spaces_of
from search.spaces.tir import module_of, workload_from_tir
from search.spaces.trace import TraceSpace, trace_to_json

BUDGETS = (8, 16, 32, 64, 128, 256)
FIRST_ROUND, ROUND = 8, 32  # the first is small, as in autotune.tuner


def _convolution(size: int, channels: int, out: int, kernel: int, stride: int = 1) -> tirx.PrimFunc:
    image = te.placeholder((1, size, size, channels), name="image")
    weight = te.placeholder((kernel, kernel, channels, out), name="weight")
    return te.create_prim_func([image, weight, topi.nn.conv2d_nhwc(image, weight, stride, kernel // 2, 1)])


def _depthwise(size: int, channels: int, kernel: int) -> tirx.PrimFunc:
    image = te.placeholder((1, size, size, channels), name="image")
    weight = te.placeholder((kernel, kernel, channels, 1), name="weight")
    return te.create_prim_func(
        [image, weight, topi.nn.depthwise_conv2d_nhwc(image, weight, 1, kernel // 2, 1)]
    )


def _matmul(n: int, m: int, k: int) -> tirx.PrimFunc:
    a, b = te.placeholder((n, k), name="a"), te.placeholder((k, m), name="b")
    r = te.reduce_axis((0, k), "r")
    return te.create_prim_func(
        [a, b, te.compute((n, m), lambda i, j: te.sum(a[i, r] * b[r, j], axis=r), "c")]
    )


def _batched(batch: int, n: int, m: int, k: int) -> tirx.PrimFunc:
    a, b = te.placeholder((batch, n, k), name="a"), te.placeholder((batch, m, k), name="b")
    return te.create_prim_func([a, b, topi.nn.batch_matmul(a, b)])


def _softmax(rows: int, columns: int) -> tirx.PrimFunc:
    x = te.placeholder((rows, columns), name="x")
    return te.create_prim_func([x, topi.nn.softmax(x)])


WORKLOADS: dict[str, Callable[[], tirx.PrimFunc]] = {
    "matmul": lambda: _matmul(384, 768, 256),
    "dense": lambda: _matmul(1, 1000, 1280),
    "ragged": lambda: _matmul(197, 310, 333),
    "batched": lambda: _batched(12, 128, 128, 64),
    "conv3x3": lambda: _convolution(28, 96, 128, 3),
    "conv1x1": lambda: _convolution(14, 480, 112, 1),
    "strided": lambda: _convolution(112, 32, 64, 3, 2),
    "first": lambda: _convolution(160, 3, 24, 3, 2),
    "depthwise": lambda: _depthwise(28, 120, 5),
    "softmax": lambda: _softmax(128, 768),
}

SpacesOf = Callable[[Workload, Target], Sequence[Space]]

Curve = list[float]
"""Best latency in seconds after each trial; infinite before the first success."""


class OwnTime:
    """Seconds of what runs within."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        self.seconds += time.perf_counter() - started
        return result


def ours(
    searcher: str,
    trained: Trained | None,
    spaces_of: SpacesOf,
    workload: Workload,
    target: Target,
    pool: Pool,
    seed: int,
    trials: int,
) -> dict[str, Any]:
    """One of our searchers in each space, as ``autotune run`` has them, from nothing."""
    own, started = OwnTime(), time.perf_counter()
    spaces = own(lambda: spaces_of(workload, target))
    models = SpaceModels([s.name for s in spaces], trained, seed)
    make = SEARCHERS[searcher]
    searchers = own(lambda: {s.name: _seeded(make(s, models.scorers(s), seed), s, seed) for s in spaces})
    chooser = PortfolioSearcher(searchers, seed)
    measured: list[Measurement] = []
    while len(measured) < trials:
        size = min(max(FIRST_ROUND, len(measured) // 2), ROUND, trials - len(measured))
        candidates = own(lambda size=size: chooser.suggest(size))
        if not candidates:
            break
        new = _measure(pool, workload, candidates, measured)
        own(lambda new=new: (chooser.update(new), models.add(workload, new)))
    return _result(measured, trials, own, started)


def _seeded(searcher: Searcher, space: Space, seed: int) -> Searcher:
    first = space.first()
    return SeededSearcher(searcher, space, lambda: [] if first is None else [first], seed)


def metaschedule(workload: Workload, target: Target, pool: Pool, seed: int, trials: int) -> dict[str, Any]:
    """TVM's evolutionary search with XGBoost, from nothing; measured by our pool."""
    own, started = OwnTime(), time.perf_counter()
    measured: list[Measurement] = []
    for candidates, told in _tvm_rounds(workload, target, seed, trials, own):
        new = _measure(pool, workload, candidates, measured)
        told(new)
    return _result(measured, trials, own, started)


def _tvm_rounds(
    workload: Workload, target: Target, seed: int, trials: int, own: OwnTime
) -> Iterator[tuple[list[Candidate], Callable[[Sequence[Measurement]], None]]]:
    module = module_of(workload)
    context = ms.TuneContext(
        mod=module, target=target, space_generator="post-order-apply", search_strategy="evolutionary",
        rand_state=seed + 1, num_threads=usable_cores(),
    )  # fmt: skip
    database = ms.database.MemoryDatabase()
    committed = database.commit_workload(module)
    model = ms.cost_model.XGBModel(num_warmup_samples=ROUND, num_tuning_cores=usable_cores())
    context.pre_tuning(trials, ROUND, database=database, cost_model=model)
    while (batch := own(context.generate_measure_candidates)) is not None:
        candidates = [
            Candidate(workload.hash, "tvm", (n,), trace_to_json(c.sch.trace)) for n, c in enumerate(batch)
        ]

        def told(new: Sequence[Measurement], batch: Any = batch) -> None:
            by_place = {m.candidate.choices[0]: m for m in new}
            results = []
            for n, candidate in enumerate(batch):
                m = by_place.get(n)
                ran = m is not None and m.error is None
                seconds = list(m.samples_s) if ran and m is not None else None
                results.append(ms.runner.RunnerResult(seconds, None if seconds else "failed"))
                record = ms.database.TuningRecord(
                    candidate.sch.trace, committed, seconds or [1e10], target, candidate.args_info
                )
                database.commit_tuning_record(record)
            context.notify_runner_results(batch, results)
            model.update(context, batch, results)

        yield candidates, lambda new, told=told: own(lambda: told(new))
    context.post_tuning()


def _measure(
    pool: Pool, workload: Workload, candidates: Sequence[Candidate], measured: list[Measurement]
) -> list[Measurement]:
    best = min((m for m in measured if m.error is None), key=lambda m: m.latency_s, default=None)
    new = list(pool.measure(workload, candidates, best.samples_s if best else ()))
    measured += new
    return new


def _result(measured: Sequence[Measurement], trials: int, own: OwnTime, started: float) -> dict[str, Any]:
    best, curve = math.inf, Curve()
    for m in measured:
        best = min(best, m.latency_s)
        curve.append(best)
    curve += [best] * (trials - len(curve))  # a space that has run out
    failed = sum(m.error is not None for m in measured)
    return {"curve": curve, "failed": failed, "own_s": own.seconds, "wall_s": time.perf_counter() - started}


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--searcher", default=DEFAULT)
    parser.add_argument("--no-models", action="store_true", help="ours without the trained models")
    parser.add_argument("--rival", choices=("tvm", "untrained"), default="tvm")
    parser.add_argument("--same-space", action="store_true", help="search TVM's space alone, as TVM does")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=max(BUDGETS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    spaces: SpacesOf = (lambda w, t: [TraceSpace(w, t)]) if options.same_space else spaces_of
    load_tensor_intrinsics()
    console = Console()
    target = resolve_target(None, usable_cores())
    results: list[dict[str, Any]] = []
    conditions = Conditions(describe_hardware(), canonical(target), usable_cores())
    trained = pretrained(conditions)
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for name in options.workloads.split(","):
            workload = workload_from_tir(WORKLOADS[name](), name)
            with Pool(canonical(target), usable_cores()) as pool:
                searched = (spaces, workload, target, pool, seed, options.trials)
                us = ours(options.searcher, None if options.no_models else trained, *searched)
                if options.rival == "tvm":
                    them = metaschedule(*searched[1:])
                else:
                    them = ours(options.searcher, None, *searched)
            results.append({"workload": name, "seed": seed, "ours": us, options.rival: them})
            ratios = _ratios(results[-1], options.rival, options.trials).values()
            console.print(
                f"{name}, seed {seed}: {options.rival}'s latency over ours "
                f"{' '.join(f'{r:.2f}' for r in ratios)}; own time {us['own_s']:.1f} of "
                f"{us['wall_s']:.1f} s, {options.rival}'s {them['own_s']:.1f} of {them['wall_s']:.1f} s"
            )
            (options.out / f"search-{options.rival}.json").write_text(json.dumps(results))
    _print(results, options.rival, options.trials, console)


def _ratios(result: dict[str, Any], rival: str, trials: int) -> dict[int, float]:
    """The rival's best latency over ours, by number of trials."""
    budgets = [b for b in BUDGETS if b <= trials]
    return {b: result[rival]["curve"][b - 1] / result["ours"]["curve"][b - 1] for b in budgets}


def _print(results: Sequence[dict[str, Any]], rival: str, trials: int, console: Console) -> None:
    each = [_ratios(r, rival, trials) for r in results]
    table = Table(title=f"{rival}'s latency over ours: over 1, ours is faster", box=None)
    for column in ("workload", *(f"{b} trials" for b in each[0])):
        table.add_column(column, justify="right")
    for name in dict.fromkeys(r["workload"] for r in results):
        rows = [ratios for ratios, r in zip(each, results, strict=True) if r["workload"] == name]
        table.add_row(name, *(f"{_geomean([row[b] for row in rows]):.3f}" for b in each[0]))
    table.add_section()
    cells = []
    for b in each[0]:
        logs = [math.log(row[b]) for row in each if math.isfinite(row[b]) and row[b] > 0]
        low, high = (math.exp(x) for x in bootstrap_interval(logs, np.mean))
        cells.append(f"{_geomean([row[b] for row in each]):.3f} [{low:.3f}, {high:.3f}]")
    table.add_row("geomean", *cells)
    console.print(table)
    needed = [_reached(r["ours"]["curve"], r[rival]["curve"][trials - 1]) for r in results]
    shown = ", ".join(
        f"{r['workload']} {n or f'over {trials}'}" for r, n in zip(results, needed, strict=True)
    )
    console.print(f"our trials until {rival}'s best of {trials} is reached: {shown}")
    share = sum(r["ours"]["own_s"] for r in results) / sum(r["ours"]["wall_s"] for r in results)
    console.print(f"our searcher's own time: {100 * share:.1f} % of the wall time")


def _reached(curve: Curve, latency_s: float) -> int | None:
    """Trials until a latency was reached, or one less than a percent above; None where it never was."""
    return next((n for n, best_s in enumerate(curve, start=1) if best_s <= 1.01 * latency_s), None)


def _geomean(ratios: Sequence[float]) -> float:
    known = [math.log(r) for r in ratios if math.isfinite(r) and r > 0]
    return math.exp(statistics.mean(known)) if known else math.nan


if __name__ == "__main__":
    main()
