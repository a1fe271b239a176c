"""What goes into the store comes out of it, and only where it applies."""

import math
from dataclasses import replace
from datetime import timedelta, timezone
from itertools import count

import pytest
from db_samples import (
    HARDWARE,
    HERE,
    add_model,
    candidate,
    failed,
    timed,
    verified,
    workload,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from db.errors import NoSuchRecord
from db.store import Store
from db.values import RunStatus
from search.problem import Candidate, ErrorKind, Hardware, MeasureError, Measurement, Task

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
seconds = st.floats(1e-12, 1e6)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
choices = st.lists(st.integers(0, 1 << 60) | st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=4)
outcomes: st.SearchStrategy[tuple[list[float], MeasureError | None]] = st.tuples(
    st.lists(seconds, min_size=1), st.none()
) | st.tuples(st.just([]), st.builds(MeasureError, st.sampled_from(ErrorKind), texts))


@st.composite
def measurements(draw: st.DrawFn, of: str) -> Measurement:
    samples_s, error = draw(outcomes)
    sequence = Candidate(of, draw(st.sampled_from("ab")), tuple(draw(choices)), draw(texts))
    drift = draw(st.none() | st.floats(0.1, 100))
    moment = draw(st.datetimes(timezones=offsets).filter(lambda t: 1 < t.year < 9999))
    return Measurement(sequence, tuple(samples_s), error, draw(st.floats(0, 1e6)), moment, drift)


def test_measurements_come_back_as_they_were(store: Store) -> None:
    numbers = count()

    @settings(max_examples=30, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        kernel = workload(next(numbers))
        store.add_workload(kernel)
        given = data.draw(st.lists(measurements(kernel.hash), max_size=6, unique_by=lambda m: m.candidate))
        store.add_measurements(None, HERE, given)
        found = store.measurements(kernel.hash, HERE)
        assert found == given
        assert [m.candidate.trace for m in found] == [m.candidate.trace for m in given]
        for m in given:
            assert store.candidate(m.candidate.hash) == m.candidate

    check()


def test_workload_comes_back_and_is_found_by_the_start_of_its_hash(store: Store) -> None:
    first, second = replace(workload(), hash="ab12"), replace(workload(), hash="ab34")
    for each in (first, second, first):
        store.add_workload(each)
    assert store.workload("ab12") == first
    assert store.workload("AB3") == second
    for prefix in ("ab", "", "cd", "%"):
        with pytest.raises(NoSuchRecord, match="hash that starts with"):
            store.workload(prefix)


def test_candidate_is_kept_once_with_all_its_measurements(store: Store) -> None:
    store.add_workload(workload())
    store.add_measurements(None, HERE, [timed(candidate(), 1.0), failed(candidate())])
    store.add_measurements(None, HERE, [timed(candidate(), 2.0)])
    assert store.measurements(workload().hash, HERE) == [
        timed(candidate(), 1.0),
        failed(candidate()),
        timed(candidate(), 2.0),
    ]
    assert store.stats().rows["candidates"] == 1


def test_records_apply_to_their_own_conditions_only(store: Store) -> None:
    store.add_workload(workload())
    store.add_measurements(None, HERE, [timed(candidate(), 1.0)])
    for other in (
        replace(HERE, threads=2),
        replace(HERE, target='{"kind":"cuda"}'),
        replace(HERE, hardware=replace(HARDWARE, cores=8)),
        replace(HERE, hardware=replace(HARDWARE, features={})),
    ):
        assert store.measurements(workload().hash, other) == []
        assert store.best(workload().hash, other) == []
    noisy = replace(HERE, versions={}, hardware=replace(HARDWARE, probes={}))
    assert store.measurements(workload().hash, noisy) == [timed(candidate(), 1.0)]


def test_measurements_of_one_space(store: Store) -> None:
    store.add_workload(workload())
    mine, other = timed(candidate(space="mine"), 1.0), timed(candidate(space="other"), 1.0)
    store.add_measurements(None, HERE, [mine, other])
    assert store.measurements(workload().hash, HERE, space="mine") == [mine]


def test_unknown_workload_is_refused_and_nothing_is_kept(store: Store) -> None:
    store.add_workload(workload())
    known, unknown = timed(candidate(), 1.0), timed(candidate(of=workload(1)), 1.0)
    with pytest.raises(NoSuchRecord, match=r"workloads .* " + workload(1).hash):
        store.add_measurements(None, HERE, [known, unknown])
    assert not any(store.stats().rows[table] for table in ("candidates", "measurements", "hardware"))


def test_more_rows_at_once_than_a_statement_may_have_parameters(store: Store) -> None:
    store.add_workload(workload())
    many = [timed(candidate(i), 1.0 + i) for i in range(2500)]
    store.add_measurements(None, HERE, many)
    assert store.measurements(workload().hash, HERE) == many


def test_text_of_a_crash_is_kept_whatever_is_in_it(store: Store) -> None:
    store.add_workload(workload())
    store.add_measurements(None, HERE, [failed(candidate(), text="a\0b\udc80c\n")])
    error = store.measurements(workload().hash, HERE)[0].error
    assert error and error.text == "a\\x00b\\udc80c\n"


def test_best_counts_the_median_of_all_samples(store: Store) -> None:
    store.add_workload(workload())
    lucky, steady, broken = candidate(1), candidate(2), candidate(3)
    store.add_measurements(None, HERE, [timed(lucky, 1.0), timed(steady, 3.0), failed(broken)])
    store.add_measurements(None, HERE, [timed(lucky, 9.0, 8.0), failed(steady)])
    assert store.best(workload().hash, HERE) == [timed(steady, 3.0)]
    assert store.best(workload().hash, HERE, n=9) == [timed(steady, 3.0), timed(lucky, 1.0, 9.0, 8.0)]


def test_measurements_of_several_workloads_in_the_order_stored(store: Store) -> None:
    run = store.start_run(add_model(store, [workload(0), workload(1), workload(2)])).id
    rows = [(run, timed(candidate(n, of=workload(n % 3)), 1.0)) for n in range(9)]
    other = (None, timed(candidate(9), 0.5))
    for id, measurement in [*rows, other]:
        store.add_measurements(id, HERE, [measurement])
    store.add_measurements(run, HERE, [timed(candidate(space="other"), 1.0)])
    store.add_measurements(run, replace(HERE, threads=1), [timed(candidate(10), 1.0)])
    wanted = [workload(0).hash, workload(2).hash]
    found = [*rows, other]
    assert list(store.history(wanted, HERE, ["tir-1"])) == [
        r for r in found if r[1].candidate.workload in wanted
    ]
    assert dict(store.fastest("tir-1"))[workload(0)] == candidate(9)
    assert store.fastest("tir-1", but=run) == [(workload(0), candidate(9))]


def test_best_leaves_out_what_was_ever_found_wrong_on_the_target(store: Store) -> None:
    store.add_workload(workload())
    given = [candidate(n) for n in range(4)]
    store.add_measurements(None, HERE, [timed(c, 1.0 + n) for n, c in enumerate(given)])
    away = replace(HERE, hardware=replace(HARDWARE, name="other"), threads=1)

    def winner() -> Candidate:
        return store.best(workload().hash, HERE)[0].candidate

    store.add_verification(None, replace(HERE, target="strange"), verified(given[0], correct=False))
    assert winner() == given[0]
    store.add_verification(None, away, verified(given[0], correct=False))
    store.add_verification(None, HERE, verified(given[0]))
    assert winner() == given[1]
    store.add_measurements(None, away, [failed(given[1], ErrorKind.WRONG_OUTPUT)])
    assert winner() == given[2]
    store.add_measurements(None, HERE, [failed(given[2], ErrorKind.OUT_OF_BOUNDS)])
    assert winner() == given[3]


def test_wrong_on_a_target_is_wrong_on_all_its_hardware(store: Store) -> None:
    good, stray, disproved, crashed, elsewhere = (candidate(n) for n in range(5))
    add_model(store)
    other = replace(HERE, hardware=replace(HARDWARE, name="other"), threads=1)
    store.add_measurements(
        None,
        HERE,
        [timed(good, 1.0), failed(stray, ErrorKind.OUT_OF_BOUNDS), failed(crashed), timed(disproved, 1.0)],
    )
    store.add_verification(None, other, verified(disproved, correct=False))
    strange = replace(HERE, target="strange")
    store.add_measurements(None, strange, [failed(elsewhere, ErrorKind.WRONG_OUTPUT)])
    assert set(store.wrong(workload().hash, HERE.target)) == {stray.hash, disproved.hash}
    assert set(store.wrong(workload().hash, "strange")) == {elsewhere.hash}
    assert store.wrong(workload(1).hash, HERE.target) == {}


def test_verifications_come_back_newest_first(store: Store) -> None:
    store.add_workload(workload())
    first = verified(candidate(1))
    second = replace(verified(candidate(2), correct=False), max_error=math.inf, text="inf\0")
    third = replace(second, max_error=math.nan, text="", before_s=(), after_s=())
    for verification in (first, second, third):
        store.add_verification(None, HERE, verification)
    found = store.verifications(workload().hash, HERE)
    assert math.isnan(found[0].max_error)
    assert [replace(found[0], max_error=0.0), *found[1:]] == [
        replace(third, max_error=0.0),
        replace(second, text="inf\\x00"),
        first,
    ]
    assert store.verifications(workload().hash, replace(HERE, threads=1)) == []


def test_artifacts_come_back_newest_first(store: Store) -> None:
    run = store.start_run(add_model(store))
    other = add_model(store, hash="cd" * 32)
    store.add_artifact(run.spec.model, run.id, "/out/1", {"winners": [1.5]})
    store.add_artifact(other.model, None, "/out/2", {})
    assert [(a.model, a.run_id, a.path, a.manifest) for a in store.artifacts()] == [
        (other.model, None, "/out/2", {}),
        (run.spec.model, run.id, "/out/1", {"winners": [1.5]}),
    ]
    assert [a.path for a in store.artifacts(run.spec.model)] == ["/out/1"]


def test_a_model_imported_again_takes_on_its_new_tasks(store: Store) -> None:
    add_model(store, [workload(0), workload(1)])
    store.add_model("ab" * 32, "renamed", "elsewhere.onnx", [Task("only", workload(1), 3)])
    assert store.show_workload(workload(0).hash).tasks == ()
    assert store.show_workload(workload(1).hash[:9]).tasks == (("renamed", "only"),)


def test_what_the_command_line_shows(store: Store) -> None:
    spec = add_model(store, [workload(0), workload(1)])
    run = store.start_run(spec)
    store.add_measurements(
        run.id, HERE, [timed(candidate(1), 2.0), timed(candidate(2), 1.0), failed(candidate(3))]
    )
    store.add_measurements(None, replace(HERE, threads=1), [timed(candidate(1), 5.0)])
    store.beat(run.id, 12.5, 3)
    store.end_run(run.id, RunStatus.FINISHED)
    last = store.start_run(spec)

    stats = store.stats()
    assert stats.revision and stats.size_bytes > 10_000
    assert stats.rows["measurements"] == 4 and stats.rows["runs"] == 2 and stats.rows["artifacts"] == 0
    assert stats.failures == {ErrorKind.CRASH: 1}
    assert stats.hardware == (HARDWARE,) and stats.hardware[0].probes == HARDWARE.probes

    newest, oldest = store.runs()
    assert (newest.id, newest.status, newest.measured) == (last.id, RunStatus.RUNNING, 0)
    assert (oldest.model, oldest.hardware, oldest.target, oldest.seed) == ("tiny", "Test CPU", HERE.target, 7)
    assert (oldest.elapsed_s, oldest.trials, oldest.measured, oldest.failed) == (12.5, 3, 3, 1)
    assert store.runs(limit=1) == [newest]

    detail = store.show_run(run.id)
    assert detail.model == "tiny" and detail.failures == {ErrorKind.CRASH: 1}
    assert [(t.name, t.weight, t.measured, t.fastest_s) for t in detail.tasks] == [
        ("fused_add0", 1, 3, 1.0),
        ("fused_add1", 2, 0, None),
    ]
    with pytest.raises(NoSuchRecord, match="no run 99"):
        store.show_run(99)

    shown = store.show_workload(workload().hash[:12])
    assert shown.workload == workload() and shown.tasks == (("tiny", "fused_add0"),)
    assert [(c.threads, c.measured, c.failed, c.fastest_s) for c in shown.coverage] == [
        (1, 1, 0, 5.0),
        (4, 3, 1, 1.0),
    ]


def test_the_newest_probes_of_a_device_are_kept(store: Store) -> None:
    spec = add_model(store)
    store.start_run(spec)
    quicker = replace(HARDWARE, probes={"peak_gflops": 120.0})
    run = store.start_run(replace(spec, conditions=replace(HERE, hardware=quicker)))
    assert run.spec.conditions.hardware.probes == {"peak_gflops": 120.0}
    assert len(store.stats().hardware) == 1


def test_probes_of_a_device(store: Store) -> None:
    assert store.probes(HARDWARE.fingerprint) == {}
    store.start_run(add_model(store))
    assert store.probes(HARDWARE.fingerprint) == HARDWARE.probes


def test_hardware_with_nothing_known_about_it(store: Store) -> None:
    store.add_workload(workload())
    bare = replace(HERE, hardware=Hardware("", 1), versions={})
    store.add_measurements(None, bare, [timed(candidate(), 1.0)])
    assert store.stats().hardware == (Hardware("", 1),)
