"""TVM's own MetaSchedule, tuning one kernel; ``benchmarks.throughput`` starts it in a process of its own.

    python -m benchmarks.metaschedule KERNEL TRIALS TARGET_JSON [stock]

Its import problem is mended for it as it is for us (``search.compiler``), in its worker processes too; a
sample takes as long as one of ours, unless ``stock`` leaves its evaluator at its default, 100 ms a candidate.
All else is its default: evolutionary search, XGBoost, local builder and runner.
"""

import json
import sys
import tempfile
import time

from tvm.s_tir import meta_schedule as ms
from tvm.target import Target

from benchmarks.kernels import KERNELS
from search.compiler import load_tensor_intrinsics


def main() -> None:
    kernel, trials, target = sys.argv[1], int(sys.argv[2]), Target(json.loads(sys.argv[3]))
    short = ms.runner.EvaluatorConfig(number=1, repeat=5, min_repeat_ms=3)
    load_tensor_intrinsics()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        database = ms.tune_tir(
            KERNELS[kernel](),
            target,
            folder,
            max_trials_global=trials,
            num_trials_per_iter=min(64, trials),
            builder=ms.builder.LocalBuilder(max_workers=2, initializer=load_tensor_intrinsics),
            runner=ms.runner.LocalRunner(
                evaluator_config=None if "stock" in sys.argv else short,
                initializer=load_tensor_intrinsics,
            ),
            num_tuning_cores=2,
            seed=1,
        )
        seconds = time.perf_counter() - started
        records = database.get_all_tuning_records()
    times = [[float(s) for s in r.run_secs] for r in records if r.run_secs]
    good = [sum(t) / len(t) for t in times if max(t) < 1e9]  # failures are recorded as 1e10 seconds
    print(json.dumps({"trials": trials, "seconds": seconds, "measured": len(good), "best_s": min(good)}))


if __name__ == "__main__":
    main()
