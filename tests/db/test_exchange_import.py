"""From a file into a database: nothing twice, nothing lost, nothing believed that the file does not prove."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from db_samples import HERE, MOMENT, timed

from db.errors import NoUsableRecords
from db.exchange import importing
from db.exchange.formats import Format, guess
from db.exchange.importing import Imported, add, read
from db.exchange.items import NO_MOMENT, SHOWN, UNKNOWN_TARGET, Item, Row, Skipped
from db.exchange.knobs import knob_workload
from db.store import Store
from search.problem import Candidate, Hardware, Workload

KERNEL = knob_workload("gemm", [64], {"x": [1, 2, 3]})


def candidate(number: int) -> Candidate:
    return Candidate(KERNEL.hash, "table/1", (number,), json.dumps({"x": number}))


def row(number: int, *samples_s: float) -> Row:
    return Row(f"line {number}", HERE, timed(candidate(number), *(samples_s or (1.0,))))


def cache_file(path: Path, entries: list[dict[str, Any]], **facts: Any) -> Path:
    header = {
        "kernel_name": "gemm",
        "problem_size": [64],
        "tune_params_keys": ["x"],
        "tune_params": {"x": [1, 2, 3]},
    }
    path.write_text(json.dumps(header | facts | {"cache": {str(n): e for n, e in enumerate(entries)}}))
    return path


def everything(store: Store) -> list[Any]:
    return [(c.key, m.candidate, m.candidate.trace, m) for c, m in store.stream()]


def test_a_second_time_adds_nothing(store: Store, tmp_path: Path) -> None:
    path = cache_file(
        tmp_path / "a.json",
        [
            {"x": 1, "times": [1.0, 2.0], "timestamp": "2023-12-22 09:53:48.691683+00:00"},
            {"x": 2, "times": [1.0]},
            {"x": 3, "time": "InvalidConfig"},
            {"x": 3, "time": "InvalidConfig"},
        ],
    )
    assert add(store, read(path)) == Imported(added=3, known=1)
    before = everything(store)
    assert add(store, read(path)) == Imported(added=0, known=4)
    assert everything(store) == before
    assert [m.measured_at for _, m in store.stream()][1:] == [NO_MOMENT, NO_MOMENT]


def test_what_differs_in_anything_but_versions_is_another_measurement(store: Store) -> None:
    first = row(1, 1.0, 2.0)
    others = [
        replace(first, conditions=replace(HERE, threads=1)),
        replace(first, conditions=replace(HERE, target="other")),
        replace(first, conditions=replace(HERE, hardware=Hardware("other", 4))),
        replace(first, measurement=replace(first.measurement, samples_s=(2.0, 1.0))),
        replace(first, measurement=replace(first.measurement, measured_at=NO_MOMENT)),
        row(2, 1.0, 2.0),
    ]
    newer = replace(first, conditions=replace(HERE, versions={"tvm": "0.28"}))
    assert add(store, [KERNEL, first, *others, first, newer]) == Imported(added=7, known=2)


def test_only_what_the_file_states_is_known_of_its_hardware(store: Store, tmp_path: Path) -> None:
    add(store, read(cache_file(tmp_path / "a.json", [{"x": 1, "time": 1.0}], device_name="Some GPU")))
    add(store, read(cache_file(tmp_path / "b.json", [{"x": 1, "time": 1.0}])))
    (named, first), (unnamed, second) = store.stream()
    assert named.hardware == Hardware("Some GPU", 0, {"imported": "kernel_tuner"})
    assert unnamed.hardware == Hardware("unknown", 0)
    assert {c.target for c in (named, unnamed)} == {UNKNOWN_TARGET}
    assert {c.threads for c in (named, unnamed)} == {0}
    assert first.candidate == second.candidate
    assert named.hardware.fingerprint != Hardware("Some GPU", 0).fingerprint


def test_a_kernel_of_knobs(store: Store, tmp_path: Path) -> None:
    path = cache_file(tmp_path / "a.json", [{"x": 3, "time": 1.0}, {"x": 5, "time": 1.0}])
    items = list(read(path))
    (workload,) = (i for i in items if isinstance(i, Workload))
    assert workload == knob_workload("gemm", [64], {"x": [1, 2, 3, 5]})
    assert json.loads(workload.module_json)["parameters"] == {"x": [1, 2, 3, 5]}
    assert (workload.args, workload.outputs, workload.flop, workload.reduction) == ((), 0, 0.0, 1)
    add(store, items)
    found = [m.candidate for _, m in store.stream()]
    assert [(c.space, c.choices, c.trace) for c in found] == [
        ("table/1", (2,), '{"x": 3}'),
        ("table/1", (3,), '{"x": 5}'),
    ]
    partial = read(cache_file(tmp_path / "b.json", [{"x": 1, "time": 1.0}, {"x": 5, "time": 1.0}]))
    assert next(partial) == workload


def test_bad_records_are_counted_and_the_first_ones_told(store: Store) -> None:
    bad = [Skipped(f"line {n}", "bad") for n in range(25)]
    done = add(store, [KERNEL, *bad, row(1)])
    assert (done.added, done.skipped) == (1, 25)
    assert done.reasons == [f"line {n}: bad" for n in range(SHOWN)]
    with pytest.raises(NoUsableRecords, match=r"Of 25 records none .* line 0: bad"):
        add(store, [KERNEL, *bad])


def test_what_the_database_refuses_spoils_nothing_else(store: Store) -> None:
    stray = Row("line 9", HERE, timed(replace(candidate(9), workload="ab" * 32), 1.0))
    surrogate = Row("line 10", HERE, timed(replace(candidate(10), trace="\ud800"), 1.0))
    huge = Row("line 11", replace(HERE, threads=1 << 80), timed(candidate(11), 1.0))
    bad_name = replace(KERNEL, hash="cd" * 32, name="\ud800")
    done = add(store, [KERNEL, bad_name, row(1), stray, surrogate, huge, row(2)])
    assert done.added == 2
    assert done.skipped == 4
    assert [r.partition(":")[0] for r in done.reasons] == [
        "workload '\\ud800'",
        "line 9",
        "line 10",
        "line 11",
    ]
    assert [m.candidate for _, m in store.stream()] == [candidate(1), candidate(2)]


def test_ctrl_c_keeps_what_was_committed_and_the_next_time_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_CHUNK", 10)

    def items(stop: int) -> Iterator[Item]:
        yield KERNEL
        yield from (row(n) for n in range(stop))
        if stop < 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add(store, items(35))
    assert store.stats().rows["measurements"] == 30
    assert add(store, items(50)) == Imported(added=20, known=30)


def test_progress_is_told(store: Store) -> None:
    counts: list[int] = []
    add(store, [KERNEL, row(1), Skipped("line 2", "bad"), row(3)], counts.append)
    assert counts == [0, 1, 2, 3]


def test_stream_gives_pages_in_order_and_one_workload_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.store._PAGE", 7)
    other = knob_workload("other", None, {"x": [1]})
    elsewhere = Row("", replace(HERE, threads=1), timed(Candidate(other.hash, "table/1", (0,), "{}"), 3.0))
    add(store, [KERNEL, other, *(row(n) for n in range(20)), elsewhere])
    found = list(store.stream())
    assert [m for _, m in found] == [row(n).measurement for n in range(20)] + [elsewhere.measurement]
    assert found[0][0] == HERE and dict(found[0][0].versions) == dict(HERE.versions)
    assert [m for _, m in store.stream(other.hash)] == [elsewhere.measurement]
    assert list(store.stream("ab")) == []
    assert found[0][1].measured_at == MOMENT


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ('{"format": "autotune/records", "version": 1}\n{"workload": {}}\n', Format.PORTABLE),
        ('{"workload": 0, "model": "m", "task": "t", "module": "{}"}\n', Format.TRACES),
        ('{\n"device_name": "x",\n"kernel_name": "k",\n"tune_params_keys": []', Format.KERNEL_TUNER),
        ('{"metadata": {"timeunit": "s"}, "results": [', Format.T4),
    ],
)
def test_formats_are_seen_from_contents(tmp_path: Path, text: str, format: Format) -> None:
    path = tmp_path / "any.name"
    path.write_text(text)
    assert guess(path) is format
    assert guess(tmp_path) is Format.METASCHEDULE
