"""Our database, cost model and searchers as parts of TVM MetaSchedule, for those who already use it.

Each can take the place of MetaSchedule's own by itself; all else stays as it is::

    import os
    from tvm.s_tir import meta_schedule as ms
    from autotune.metaschedule import CostModel, Database, SearchStrategy
    from autotune.session import open_session
    from search.compiler import load_tensor_intrinsics

    load_tensor_intrinsics()  # in this process, and below in those of builder and runner
    with open_session("tuning.db", None, None, probe=False) as session:
        os.environ["TVM_NUM_THREADS"] = str(session.conditions.threads)  # else TVM takes half of the cores
        model = CostModel()
        ms.tune_tir(
            function, session.target, "logs", max_trials_global=64,
            builder=ms.builder.LocalBuilder(initializer=load_tensor_intrinsics),
            runner=ms.runner.LocalRunner(initializer=load_tensor_intrinsics),
            database=Database(session.store, session.conditions),
            cost_model=model, strategy=SearchStrategy(cost_model=model),
        )

``load_tensor_intrinsics`` spares each process the import of all platforms' tensor instructions, which on
Python 3.11 takes longer than MetaSchedule waits for a build (``search.compiler`` says why). The target must
be that of the session, for a record applies to one target only. ``docs/examples/metaschedule_drop_in.py`` is
a whole program.
"""

from tvm_ffi import register_error

from autotune.errors import BadInput
from autotune.metaschedule.cost_model import CostModel
from autotune.metaschedule.database import Database
from autotune.metaschedule.search_strategy import SearchStrategy
from search.errors import UnsupportedWorkload

__all__ = ["CostModel", "Database", "SearchStrategy"]

for _error in (BadInput, UnsupportedWorkload):  # others arrive as RuntimeError after their way through TVM
    register_error(_error.__name__, _error)
