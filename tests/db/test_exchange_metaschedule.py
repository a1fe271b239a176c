"""TVM's own database, and lines of traces: what TVM wrote we read, what we write TVM opens."""

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi
from db_samples import HARDWARE
from kernels import TARGET, matmul, softmax
from kernels import workload as tir_workload
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.schedule import Trace
from tvm.target import Target

from autotune.metaschedule import records as drop_in
from autotune.target import canonical
from db.errors import BadRecords, NoUsableRecords
from db.exchange import metaschedule, traces
from db.exchange.formats import METASCHEDULE_FILES, Format, guess
from db.exchange.importing import Imported, add, read
from db.exchange.items import NO_MOMENT, Row, Skipped
from db.exchange.knobs import knob_workload
from db.store import Store
from search.compiler import load_tensor_intrinsics
from search.errors import InvalidCandidate
from search.problem import (
    Candidate,
    Conditions,
    ErrorKind,
    Hardware,
    MeasureError,
    Measurement,
    Workload,
)
from search.spaces.tir import module_of
from search.spaces.trace import TraceSpace, apply_trace

RANDOM_TRACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "random-traces.jsonl.gz"
MATMUL, SOFTMAX = tir_workload(matmul(), "matmul"), tir_workload(softmax(), "softmax")
HERE = Conditions(HARDWARE, canonical(TARGET), 2)

load_tensor_intrinsics()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "records.db"), create=True) as opened:
        yield opened


def candidates(workload: Workload, n: int) -> list[Candidate]:
    space, rng = TraceSpace(workload, TARGET), np.random.default_rng(0)
    found: dict[str, Candidate] = {}
    while len(found) < n:
        try:
            candidate = space.realize(space.sample(rng), rng)
        except InvalidCandidate:
            continue
        found[candidate.hash] = candidate
    return list(found.values())


def traced(workload: Workload, candidate: Candidate) -> Trace:
    schedule = Schedule(module_of(workload), debug_mask="none")
    Trace.apply_json_to_schedule(json.loads(candidate.trace), schedule)
    return schedule.trace


def tvm_database(folder: Path, outcomes: list[tuple[Workload, Candidate, Any]], target: Any = TARGET) -> Path:
    """A database as MetaSchedule writes it."""
    folder.mkdir()
    database = ms.database.JSONDatabase(work_dir=str(folder))
    for workload, candidate, run_secs in outcomes:
        module = module_of(workload)
        committed = database.commit_workload(module)
        arguments = ArgInfo.from_entry_func(module)
        trace = traced(workload, candidate)
        database.commit_tuning_record(ms.database.TuningRecord(trace, committed, run_secs, target, arguments))
    return folder


def same(left: tvm.IRModule, right: tvm.IRModule) -> bool:
    return bool(tvm_ffi.structural_equal(left, right))


def test_what_tvm_wrote_is_read(store: Store, tmp_path: Path) -> None:
    fast, slow, broken = candidates(MATMUL, 3)
    (other,) = candidates(SOFTMAX, 1)
    folder = tvm_database(
        tmp_path / "db",
        [
            (MATMUL, fast, [0.25, 0.5]),
            (MATMUL, slow, [2.0]),
            (MATMUL, broken, [1e10]),
            (SOFTMAX, other, [1.0]),
        ],
    )
    assert add(store, read(folder)) == Imported(added=4)
    known = store.workload(MATMUL.hash)
    assert (known.args, known.flop, known.reduction) == (MATMUL.args, MATMUL.flop, MATMUL.reduction)
    assert known.name == "matmul"
    found = list(store.stream())
    assert [m.samples_s for _, m in found] == [(0.25, 0.5), (2.0,), (), (1.0,)]
    assert found[2][1].error and found[2][1].error.kind is ErrorKind.RUN_ERROR
    assert all(c.hardware == Hardware("unknown", 0) and c.threads == 0 for c, _ in found)
    assert {c.target for c, _ in found} == {canonical(TARGET)}
    assert {m.measured_at for _, m in found} == {NO_MOMENT}
    for (_, m), original in zip(found, (fast, slow, broken, other), strict=True):
        workload = SOFTMAX if original is other else MATMUL
        assert m.candidate.space == "metaschedule/1"
        expected = apply_trace(module_of(workload), original.trace)
        assert same(apply_trace(module_of(store.workload(workload.hash)), m.candidate.trace), expected)
    assert add(store, read(folder / METASCHEDULE_FILES[1])) == Imported(known=4)


def test_candidates_are_those_of_the_drop_in_database(tmp_path: Path) -> None:
    some = candidates(MATMUL, 8)
    folder = tvm_database(tmp_path / "db", [(MATMUL, c, [1.0]) for c in some])
    found = [i.measurement.candidate for i in read(folder) if isinstance(i, Row)]
    assert found == [drop_in.candidate_of(MATMUL.hash, traced(MATMUL, c)) for c in some]
    assert len({c.hash for c in found}) == len(some)
    assert found[0].space == drop_in.SPACE_NAME


def test_traces_stay_as_they_are_in_and_out(store: Store, tmp_path: Path) -> None:
    folder = tvm_database(
        tmp_path / "db", [(MATMUL, c, [1.0, n + 1.0]) for n, c in enumerate(candidates(MATMUL, 4))]
    )
    add(store, read(folder))
    again = tmp_path / "again"
    assert metaschedule.write(store, again).written == 4
    texts = ((f / METASCHEDULE_FILES[1]).read_text().splitlines() for f in (folder, again))
    for lines in zip(*texts, strict=True):
        (index, (*record, target, arguments)), (other_index, (*other_record, other_target, others)) = map(
            json.loads, lines
        )
        assert (index, record, arguments) == (other_index, other_record, others)
        assert canonical(Target(target)) == canonical(Target(other_target))
    with Store.open(str(tmp_path / "other.db"), create=True) as other:
        assert add(other, read(again)) == Imported(added=4)
        assert [m for _, m in other.stream()] == [m for _, m in store.stream()]
        assert other.workload(MATMUL.hash) == store.workload(MATMUL.hash)


def test_what_we_write_tvm_opens_and_finds_the_fastest_in(store: Store, tmp_path: Path) -> None:
    slow, fast, broken = candidates(MATMUL, 3)
    knobs = knob_workload("gemm", None, {"x": [1]})
    for workload in (MATMUL, knobs):
        store.add_workload(workload)
    refused = Candidate(MATMUL.hash, slow.space, (0, 0), '[[["GetSBlock",[],["nothing","main"],["b0"]]],[]]')
    failure = MeasureError(ErrorKind.CRASH, "died")
    store.add_measurements(
        None,
        HERE,
        [
            Measurement(slow, (2.0, 3.0)),
            Measurement(fast, (1.0, 1.5)),
            Measurement(broken, error=failure),
            Measurement(refused, error=MeasureError(ErrorKind.INVALID, "no such block")),
            Measurement(Candidate(knobs.hash, "table/1", (0,), '{"x": 1}'), (1.0,)),
        ],
    )
    folder = tmp_path / "db"
    done = metaschedule.write(store, folder)
    assert (done.written, done.skipped) == (3, 2)
    assert "does not apply" in done.reasons[0]
    assert done.reasons[1] == "space table/1: its candidates are no traces of TVM"
    database = ms.database.JSONDatabase(work_dir=str(folder))
    assert len(database) == 3
    module = module_of(MATMUL)
    assert database.has_workload(module)
    schedule = database.query_schedule(module, TARGET, "main")
    assert same(schedule.mod, apply_trace(module, fast.trace))
    top = database.get_top_k(database.commit_workload(module), 5)
    assert [[float(s) for s in r.run_secs] for r in top] == [[1.0, 1.5], [2.0, 3.0]]
    assert canonical(top[0].target) == HERE.target
    assert [a.shape for a in top[0].args_info] == [(32, 32)] * 3
    assert guess(folder) is Format.METASCHEDULE


def test_nothing_of_tvm_is_no_database(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NoUsableRecords):
        metaschedule.write(store, tmp_path / "db")
    assert not any((tmp_path / "db" / name).exists() for name in METASCHEDULE_FILES)


def test_bad_lines_cost_themselves(store: Store, tmp_path: Path) -> None:
    (good,) = candidates(MATMUL, 1)
    folder = tvm_database(tmp_path / "db", [(MATMUL, good, [1.0])])
    (module_line,) = (folder / METASCHEDULE_FILES[0]).read_text().splitlines()
    (line,) = (folder / METASCHEDULE_FILES[1]).read_text().splitlines()
    (folder / METASCHEDULE_FILES[0]).write_text(module_line + '\n["1","????"]\nnot json\n["1","e30="]\n')
    _, (trace, times, target, arguments) = json.loads(line)
    elsewhere = [
        [i if i[0] != "GetSBlock" else [i[0], i[1], ["nothing", "main"], i[3]] for i in trace[0]],
        trace[1],
    ]
    bad = [
        "nonsense",
        json.dumps([0, [trace, None, target, arguments]]),
        json.dumps([1, [trace, times, target, arguments]]),
        json.dumps([9, [trace, times, target, arguments]]),
        json.dumps([0, [elsewhere, times, target, arguments]]),
        json.dumps([0, [[[["NoSuchThing", [], [], []]], []], times, target, arguments]]),
        json.dumps([0, [None, times, target, arguments]]),
        json.dumps([0, [trace, [], target, arguments]]),
        json.dumps([0, trace]),
        line[: len(line) // 2],
    ]
    unknown_target = json.dumps([0, [trace, [2.0], None, arguments]])
    (folder / METASCHEDULE_FILES[1]).write_text("\n".join([*bad, line, unknown_target]))
    skipped = [i for i in read(folder) if isinstance(i, Skipped)]
    assert [s.place for s in skipped] == [f"database_workload.json line {n}" for n in (2, 3, 4)] + [
        f"database_tuning_record.json line {n + 1}" for n in range(len(bad))
    ]
    assert "not measured" in skipped[4].reason
    done = add(store, read(folder))
    assert (done.added, done.skipped) == (2, 13)
    assert {c.target for c, _ in store.stream()} == {canonical(TARGET), '{"kind":"unknown"}'}


def test_no_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecords, match=r"no database_workload.json"):
        read(tmp_path)
    (tmp_path / METASCHEDULE_FILES[0]).write_text("")
    with pytest.raises(BadRecords, match=r"no database_tuning_record.json"):
        read(tmp_path)


def test_target_is_the_one_that_a_session_has(store: Store, tmp_path: Path) -> None:
    (good,) = candidates(MATMUL, 1)
    target = Target({"kind": "llvm", "mcpu": "skylake-avx512", "num-cores": 2})
    add(store, read(tvm_database(tmp_path / "db", [(MATMUL, good, [1.0])], target)))
    assert [c.target for c, _ in store.stream()] == [canonical(target)]


def test_modules_with_and_without_their_length(tmp_path: Path) -> None:
    (good,) = candidates(MATMUL, 1)
    folder = tvm_database(tmp_path / "db", [(MATMUL, good, [1.0])])
    before = list(read(folder))
    path = folder / METASCHEDULE_FILES[0]
    hash, module = json.loads(path.read_text())
    path.write_text(json.dumps([hash, base64.b64encode(base64.b64decode(module)[8:]).decode()]))
    assert list(read(folder)) == before


def lines_of_traces(path: Path) -> Path:
    one, other = candidates(MATMUL, 2)
    lines = [
        {"workload": 0, "model": "m", "task": "fused_matmul3", "weight": 2, "module": MATMUL.module_json},
        {"w": 0, "trace": json.loads(one.trace), "build_s": 0.5, "times_s": [1.0, 2.0]},
        {"w": 0, "trace": json.loads(other.trace), "build_s": 0.5, "error": "it broke"},
        {"w": 1, "trace": json.loads(other.trace), "build_s": 0.5, "times_s": [1.0]},
        {"workload": 1, "module": "{}"},
        {"something": 1},
        {"w": 0, "trace": json.loads(other.trace), "times_s": [0.0]},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_lines_of_traces(store: Store, tmp_path: Path) -> None:
    path = lines_of_traces(tmp_path / "traces.jsonl")
    done = add(store, read(path))
    assert (done.added, done.known, done.skipped) == (3, 0, 3)
    assert [r.partition(":")[0] for r in done.reasons] == ["line 4", "line 5", "line 6"]
    assert store.workload(MATMUL.hash).name == "matmul"
    (conditions, first), (_, second), (_, third) = store.stream()
    assert conditions.hardware == Hardware("unknown", 0)
    assert (first.samples_s, first.build_s) == ((1.0, 2.0), 0.5)
    assert second.error == MeasureError(ErrorKind.RUN_ERROR, "it broke")
    assert third.error and third.error.kind is ErrorKind.IMPLAUSIBLE
    assert second.candidate == third.candidate != first.candidate


@pytest.mark.skipif(not RANDOM_TRACES.exists(), reason=f"no traces: {RANDOM_TRACES} is not there")
def test_recorded_traces(store: Store, tmp_path: Path) -> None:
    """The first three workloads of a real file, the others' lines left out."""
    path = tmp_path / "some.jsonl"
    with gzip.open(RANDOM_TRACES, "rt") as file:
        lines = [line for line in file if json.loads(line).get("w", json.loads(line).get("workload")) < 3]
    path.write_text("".join(lines))
    done = add(store, read(path))
    assert done.skipped == 0
    assert done.added == len(lines) - 3
    assert {m.candidate.hash for _, m in store.stream()} <= {
        i.measurement.candidate.hash for i in traces.read(path) if isinstance(i, Row)
    }
    assert store.stats().rows["workloads"] == 3
