"""TVM MetaSchedule tunes a matmul with our database, cost model and search strategy in place of its own.

    python docs/examples/metaschedule_drop_in.py [DATABASE]

Its rules, builder, runner and task scheduler are as ever; what differs from plain MetaSchedule is numbered.
"""

import os
import statistics
import sys
import tempfile

from tvm import IRModule, te
from tvm.s_tir import meta_schedule as ms

from autotune.metaschedule import CostModel, Database, SearchStrategy
from autotune.session import open_session
from search.compiler import load_tensor_intrinsics
from search.spaces.tir import workload_from_tir


def matmul(n: int) -> IRModule:
    """n x n x n, float32."""
    a = te.placeholder((n, n), name="a")
    b = te.placeholder((n, n), name="b")
    k = te.reduce_axis((0, n), name="k")
    c = te.compute((n, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="matmul")
    return IRModule({"main": te.create_prim_func([a, b, c])})


def main(db: str, n: int = 128, trials: int = 16) -> None:
    """Tunes, and says what is in the database then."""
    load_tensor_intrinsics()  # 1. Otherwise MetaSchedule imports those of all platforms, which takes minutes.
    module = matmul(n)
    with open_session(db, None, None, probe=False) as session, tempfile.TemporaryDirectory() as folder:
        os.environ["TVM_NUM_THREADS"] = str(session.conditions.threads)  # 2. What the records will say.
        database, model = Database(session.store, session.conditions), CostModel()
        ms.tune_tir(
            module,
            session.target,
            folder,
            max_trials_global=trials,
            num_trials_per_iter=trials,
            builder=ms.builder.LocalBuilder(max_workers=2, initializer=load_tensor_intrinsics),  # 1 again
            runner=ms.runner.LocalRunner(
                evaluator_config=ms.runner.EvaluatorConfig(number=1, repeat=5, min_repeat_ms=3),
                initializer=load_tensor_intrinsics,  # 1 again
            ),
            database=database,  # 3. Our three parts; each does without the others as well.
            cost_model=model,
            strategy=SearchStrategy(cost_model=model),
            num_tuning_cores=session.conditions.threads,
            seed=1,
        )
        record = database.query_tuning_record(module, session.target, "main")  # as TVM's own passes ask
        print(f"best latency: {statistics.median(map(float, record.run_secs)) * 1e6:.1f} us")
        hash = workload_from_tir(module["main"], "matmul").hash
        best = session.store.best(hash, session.conditions)[0].candidate  # as the rest of autotune asks
        print(f"{session.store} holds {len(database)} records; the best is {best.space} {best.choices}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "metaschedule.db")
