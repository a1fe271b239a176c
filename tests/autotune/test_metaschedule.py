"""Our parts in MetaSchedule: times are made up, but for the example, which tunes in earnest."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from db_samples import HARDWARE
from kernels import TARGET, convolution, matmul, workload
from tvm import IRModule, relax, te
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.target import Target

from autotune.errors import BadInput
from autotune.metaschedule import CostModel, Database, SearchStrategy
from autotune.metaschedule.records import FAILURE_S, workload_of
from autotune.target import canonical
from db.exchange.modules import SPACE_NAME, choices_of
from db.store import Store
from search.compiler import load_tensor_intrinsics
from search.problem import Candidate, Conditions, Measurement, Verification
from search.searchers import SEARCHERS
from search.spaces.trace import TraceSpace, schedule_of

ROOT = Path(__file__).resolve().parents[2]
HERE = Conditions(HARDWARE, canonical(TARGET), 2)
MODULE = IRModule({"main": matmul()})
HASH = workload(matmul()).hash

load_tensor_intrinsics()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "tuning.db"), create=True) as opened:
        yield opened


def context(strategy: Any = "evolutionary", space: Any = "post-order-apply", seed: int = 1) -> ms.TuneContext:
    return ms.TuneContext(
        MODULE, target=TARGET, space_generator=space, search_strategy=strategy, rand_state=seed, num_threads=1
    )


def sampled(n: int, seed: int = 1) -> list[Any]:
    """Schedules that MetaSchedule draws, postprocessed."""
    replay = context("replay-trace", seed=seed)
    replay.pre_tuning(n, n)
    return [c.sch for c in replay.generate_measure_candidates()]


def quality(choices: tuple[Any, ...]) -> float:
    """A made-up landscape with a slope: big innermost tiles are good."""
    return float(sum(np.log2(c[-1]) for c in choices if isinstance(c, tuple)))


def seconds(schedule: Any) -> float:
    return float(2.0 ** -quality(choices_of(schedule.trace)))


def tune(task: ms.TuneContext, trials: int, batch: int, database: Any, model: Any) -> list[tuple[Any, ...]]:
    """As MetaSchedule's task scheduler does, with times made up; every seventh candidate fails."""
    task.pre_tuning(trials, batch, database=database, cost_model=model)
    chosen: list[tuple[Any, ...]] = []
    while (candidates := task.generate_measure_candidates()) is not None:
        assert 0 < len(candidates) <= batch
        runs = [None if (len(chosen) + n) % 7 == 6 else [seconds(c.sch)] for n, c in enumerate(candidates)]
        results = [ms.runner.RunnerResult(r, None if r else "LocalRunner: made up") for r in runs]
        task.notify_runner_results(candidates, results)
        committed = database.commit_workload(task.mod)
        for candidate, run in zip(candidates, runs, strict=True):
            database.commit_tuning_record(
                ms.database.TuningRecord(
                    candidate.sch.trace, committed, run or [FAILURE_S], TARGET, candidate.args_info
                )
            )
        model.update(task, candidates, results)
        chosen += [choices_of(c.sch.trace) for c in candidates]
    task.search_strategy.post_tuning()
    return chosen


def commit(database: Any, schedule: Any, times: list[float] | None, target: Any = TARGET) -> None:
    committed = database.commit_workload(MODULE)
    args_info = ArgInfo.from_entry_func(schedule.mod)
    database.commit_tuning_record(
        ms.database.TuningRecord(schedule.trace, committed, times, target, args_info)
    )


# What a trace comes down to


def test_sketches_have_numbers_of_their_own() -> None:
    numbers = [choices_of(s.trace)[0] for s in context().generate_design_space()]
    assert len(numbers) == len(set(numbers)) > 1
    drawn = {choices_of(s.trace)[0] for s in sampled(24)}
    assert drawn <= set(numbers)


def test_the_number_of_a_sketch_is_the_same_in_every_release() -> None:
    """If it changes, a search no longer knows what was measured before."""
    schedule = te_schedule()
    assert choices_of(schedule.trace) == (GOLDEN, (4, 8), 1)


def te_schedule() -> Any:
    schedule = schedule_of(MODULE, "[[],[]]")
    block = schedule.get_sblock("matmul", "main")
    loop = schedule.get_loops(block)[0]
    schedule.split(loop, schedule.sample_perfect_tile(loop, 2, decision=[4, 8]))
    schedule.annotate(block, "unroll", schedule.sample_categorical([0, 16], [0.5, 0.5], decision=1))
    return schedule


GOLDEN = 3149305356


def test_workloads_are_those_of_autotune() -> None:
    assert workload_of(MODULE).hash == HASH
    assert workload_of(MODULE).name == "matmul"
    assert workload_of(IRModule({"main": convolution()})).name == "pad_temp_conv2d_nhwc_compute"


# The database


def test_records_come_back_fastest_first(store: Store) -> None:
    database, schedules = Database(store, HERE), sampled(5)
    assert not database.has_workload(MODULE)
    for n, schedule in enumerate(schedules):
        commit(database, schedule, [0.5 - n / 10, 0.6 - n / 10] if n else [FAILURE_S])
    assert database.has_workload(MODULE)
    top = database.get_top_k(database.commit_workload(MODULE), 3)
    assert [choices_of(r.trace) for r in top] == [choices_of(s.trace) for s in reversed(schedules[2:])]
    assert [float(s) for s in top[0].run_secs] == pytest.approx([0.1, 0.2])
    assert len(database) == len(database.get_all_tuning_records()) == 5
    best = database.query_schedule(MODULE, TARGET, "main")
    assert str(best.mod) == str(schedules[4].mod)
    assert str(database.query_ir_module(MODULE, TARGET, "main")) == str(best.mod)


def test_what_was_committed_is_in_the_store(store: Store) -> None:
    """At once, as another process sees it."""
    (schedule,) = sampled(1)
    commit(Database(store, HERE), schedule, [0.25])
    commit(Database(store, HERE), schedule, [FAILURE_S])
    with Store.open(store.url) as other:
        good, bad = other.measurements(HASH, HERE)
    assert good.candidate == Candidate(HASH, SPACE_NAME, choices_of(schedule.trace), "")
    assert good.samples_s == (0.25,)
    assert bad.error is not None
    assert str(schedule_of(MODULE, good.candidate.trace).mod) == str(schedule.mod)


def test_tvm_s_pass_applies_the_best(store: Store) -> None:
    """To the function of a whole model, whatever its name and those of its variables."""
    (schedule,) = sampled(1)
    database = Database(store, HERE)
    commit(database, schedule, [0.25])
    builder = relax.BlockBuilder()
    a, b = (relax.Var(n, relax.TensorType((32, 32), "float32")) for n in "ab")
    with builder.function("model", [a, b]):
        with builder.dataflow():
            kernel = builder.add_func(matmul(names="xyz").with_attr("global_symbol", "mm"), "mm")
            out = builder.emit_output(relax.call_tir(kernel, [a, b], a.ty))
        builder.emit_func_output(out)
    with database, TARGET:
        applied = relax.transform.MetaScheduleApplyDatabase()(builder.finalize())
    assert applied["mm"].attrs["tirx.is_scheduled"]
    assert len(str(applied["mm"])) == pytest.approx(len(str(schedule.mod["main"])), rel=0.1)


def test_tvm_s_own_database_takes_ours(store: Store, tmp_path: Path) -> None:
    slow, fast = sampled(2)
    database = Database(store, HERE)
    commit(database, slow, [0.5])
    commit(database, fast, [0.25])
    pruned = ms.database.JSONDatabase(work_dir=str(tmp_path))
    database.dump_pruned(pruned)
    (record,) = pruned.get_all_tuning_records()
    assert choices_of(record.trace) == choices_of(fast.trace)


def test_what_autotune_measured_is_offered(store: Store) -> None:
    space = TraceSpace(workload(matmul()), TARGET)
    ours = [space.realize(space.sample(rng), rng) for rng in map(np.random.default_rng, range(3))]
    store.add_workload(space.workload)
    knobs = Candidate(HASH, "knobs/1", (1,), '{"a": 1}')
    damaged = Candidate(HASH, "tvm-trace/0", (1,), '[[["NoSuchInstruction",[],[],[]]],[]]')
    times = {knobs: 0.1, damaged: 0.2, ours[0]: 0.5, ours[1]: 0.3, ours[2]: 0.4}
    store.add_measurements(None, HERE, [Measurement(c, (s,)) for c, s in times.items()])
    store.add_verification(None, HERE, Verification(ours[1], False, 1.0, 1e-6))
    database = Database(store, HERE)
    record = database.query_tuning_record(MODULE, TARGET, "main")
    assert str(schedule_of(MODULE, ours[2].trace).trace) == str(record.trace)
    assert len(database.get_top_k(database.commit_workload(MODULE), 10)) == 2


def test_records_hold_for_their_conditions_only(store: Store) -> None:
    (schedule,) = sampled(1)
    commit(Database(store, HERE), schedule, [0.25])
    elsewhere = Database(store, Conditions(HARDWARE, HERE.target, 1))
    assert len(elsewhere) == 0
    assert elsewhere.get_all_tuning_records() == []
    assert elsewhere.query_tuning_record(MODULE, TARGET, "main") is None
    other = Target({"kind": "llvm", "num-cores": 1})
    assert Database(store, HERE).query_tuning_record(MODULE, other, "main") is None
    with pytest.raises(BadInput, match="tune for the target"):
        commit(Database(store, HERE), schedule, [0.25], other)
    with pytest.raises(BadInput, match="without times"):
        commit(Database(store, HERE), schedule, None)


def test_dynamic_shapes_are_not_known(store: Store) -> None:
    x = te.placeholder((te.var("n"),), name="x")
    function = te.create_prim_func([x, te.compute(x.shape, lambda i: x[i] * 2.0, name="y")])
    database = Database(store, HERE)
    assert not database.has_workload(IRModule({"main": function}))
    assert database.query_tuning_record(IRModule({"main": function}), TARGET, "main") is None


# The cost model


def measured(schedules: list[Any]) -> tuple[list[Any], list[Any]]:
    candidates = [ms.MeasureCandidate(s, ArgInfo.from_entry_func(s.mod)) for s in schedules]
    return candidates, [ms.runner.RunnerResult([seconds(s)], None) for s in schedules]


def test_the_cost_model_learns(tmp_path: Path) -> None:
    task, model = context(), CostModel(seed=3)
    unknown = model.predict(task, measured(sampled(8))[0])
    assert len(set(unknown)) == 8
    assert np.array_equal(unknown, CostModel(seed=3).predict(task, measured(sampled(8))[0]))
    known, other = measured(sampled(96)), measured(sampled(32, seed=2))[0]
    model.update(task, *known)
    scores = model.predict(task, other)
    assert np.corrcoef(scores, [seconds(c.sch) ** -1 for c in other])[0, 1] > 0.5
    model.save(str(tmp_path / "model.json"))
    loaded = CostModel(seed=3)
    loaded.load(str(tmp_path / "model.json"))
    assert np.array_equal(loaded.predict(task, other), scores)


def test_a_damaged_file_is_no_cost_model(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("[[")
    with pytest.raises(BadInput, match=r"model\.json"):
        CostModel().load(str(tmp_path / "model.json"))


def test_tvm_s_strategy_with_our_database_and_cost_model(store: Store) -> None:
    strategy = ms.search_strategy.EvolutionarySearch(
        population_size=32, init_min_unmeasured=8, genetic_num_iters=2
    )
    chosen = tune(context(strategy), 32, 8, Database(store, HERE), CostModel())
    assert len(chosen) == len(store.measurements(HASH, HERE)) == 32
    assert np.mean([quality(c) for c in chosen[16:]]) > np.mean([quality(c) for c in chosen[:16]])


# The search strategy


@pytest.mark.parametrize("name", ["random", "evolutionary", "beam", "tpe", "cascade"])
def test_any_searcher_drives_metaschedule(name: str, store: Store) -> None:
    chosen = tune(context(SearchStrategy(SEARCHERS[name])), 20, 8, Database(store, HERE), CostModel())
    assert len(chosen) == len(set(chosen)) == 20
    assert len(store.measurements(HASH, HERE)) == 20


def test_the_searcher_learns(store: Store) -> None:
    """From its own cost model, which it teaches, as from the one that MetaSchedule teaches."""
    for model in (CostModel(), None):
        task = context(SearchStrategy(cost_model=model))
        chosen = tune(task, 48, 16, Database(store, HERE), model or CostModel())
        drawn = [quality(choices_of(s.trace)) for s in sampled(48)]
        assert np.mean([quality(c) for c in chosen[32:]]) > np.mean(drawn) + np.std(drawn)


@pytest.mark.parametrize("first", ["replay-trace", SearchStrategy()])
def test_a_search_goes_on_from_the_database(first: Any, store: Store) -> None:
    database = Database(store, HERE)
    before = tune(context(first, rows_in_parallel()), 2, 2, database, CostModel())
    after = tune(context(SearchStrategy(), rows_in_parallel()), 20, 8, database, CostModel())
    assert not set(before) & set(after)
    assert len(set(before)) + len(after) == 3


def test_the_task_s_seed_decides(store: Store, tmp_path: Path) -> None:
    def chosen(seed: int, name: str) -> list[tuple[Any, ...]]:
        with Store.open(str(tmp_path / name), create=True) as empty:
            return tune(context(SearchStrategy(), seed=seed), 24, 8, Database(empty, HERE), CostModel())

    assert chosen(1, "a") == chosen(1, "b") != chosen(2, "c")


def rows_in_parallel() -> Any:
    """A user's own space of three schedules."""

    def schedule(of: Any) -> None:
        rows = of.get_loops(of.get_sblock("matmul", "main"))[0]
        outer, _ = of.split(rows, of.sample_perfect_tile(rows, 2, max_innermost_factor=4))
        of.parallel(outer)

    return ms.space_generator.ScheduleFn(schedule, postprocs=[])


def test_a_space_of_the_user_s_own(store: Store) -> None:
    """What it leaves open is searched, and no more."""
    task = context(SearchStrategy(), rows_in_parallel())
    chosen = tune(task, 20, 8, Database(store, HERE), CostModel())
    assert sorted(c[1:] for c in chosen) == [((8, 4),), ((16, 2),), ((32, 1),)]


def test_a_strategy_has_one_cost_model_for_all_tasks(store: Store) -> None:
    """Each task has a clone of it, made by MetaSchedule."""
    model = CostModel()
    tune(context(SearchStrategy(cost_model=model)).clone(), 20, 20, Database(store, HERE), CostModel())
    assert model.score(workload(matmul()), [choices_of(s.trace) for s in sampled(2)]) is not None


# All at once


@pytest.fixture
def example() -> ModuleType:
    path = ROOT / "docs" / "examples" / "metaschedule_drop_in.py"
    spec = importlib.util.spec_from_file_location("metaschedule_drop_in", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_runs(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """MetaSchedule's builder and runner, sixteen trials, 64 x 64 x 64."""
    monkeypatch.setenv("TVM_NUM_THREADS", "1")  # which the example sets, and so is put back
    (tmp_path / "torch.py").write_text("raise ImportError")  # four seconds for each worker, and no use
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    example.main(str(tmp_path / "tuning.db"), n=64)
    said = capfd.readouterr().out
    assert re.search(r"best latency: \d+\.\d us", said)
    assert "holds 16 records" in said
