"""Recorded spaces: what a file says is what is read, however much of it is there."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.errors import BadRecords
from db.exchange.tables import TableFile, TableRecord, read_table
from search.errors import AutotuneError
from search.problem import ErrorKind, MeasureError

SPACES = Path(__file__).resolve().parents[3] / "shared" / "spaces"

ENTRIES: dict[str, dict[str, Any]] = {
    "16,1": {"x": 16, "y": 1, "time": 5.0, "times": [5.0, 6.0], "compile_time": 100.0, "benchmark_time": 20.0,
             "framework_time": 3.0, "verification_time": 0, "strategy_time": 9.0},
    "32,1": {"x": 32, "y": 1, "time": "CompilationFailedConfig", "compile_time": 50.0},
    "16,2": {"x": 16, "y": 2, "time": 4.0, "times": [4.0], "compile_time": 1000.0},
}  # fmt: skip


def kernel_tuner(path: Path, entries: Any = None, **facts: Any) -> Path:
    """Writes a cache file as Kernel Tuner does: a line an entry."""
    header = {
        "device_name": "Some GPU",
        "kernel_name": "gemm",
        "problem_size": [64, 64],
        "tune_params_keys": ["x", "y"],
        "tune_params": {"x": [16, 32, 64], "y": [1, 2]},
        "objective": "time",
    } | facts
    items = ENTRIES.items() if entries is None else entries
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in items)
    path.write_text(json.dumps(header, indent="")[:-2] + ',\n"cache": {\n' + lines + "}\n}")
    return path


def result(x: int, runtimes: Any = (5.0, 6.0), verdict: str = "correct", **times: Any) -> dict[str, Any]:
    all_times = {"compilation": 100.0, "framework": 3.0, "search_algorithm": 9.0, "validation": 7.0} | times
    if runtimes is not None:
        all_times["runtimes"] = list(runtimes)
    return {"configuration": {"x": x, "name": "a"}, "times": all_times, "invalidity": verdict}


def t4(path: Path, results: list[Any], unit: Any = "miliseconds") -> Path:
    path.write_text(
        json.dumps({"metadata": {"timeunit": unit}, "results": results, "schema_version": "1.0.0"}, indent=1)
    )
    return path


def test_kernel_tuner(tmp_path: Path) -> None:
    table = read_table(kernel_tuner(tmp_path / "cache.json"))
    assert table == TableFile(
        "gemm",
        "Some GPU",
        {"x": (16, 32), "y": (1, 2)},
        (
            TableRecord({"x": 16, "y": 1}, (0.005, 0.006), None, pytest.approx(0.123), 0.1),  # type: ignore[arg-type]
            TableRecord(
                {"x": 32, "y": 1},
                (),
                MeasureError(ErrorKind.BUILD_ERROR, "CompilationFailedConfig"),
                0.05,
                0.05,
            ),
            TableRecord({"x": 16, "y": 2}, (0.004,), None, 1.004, 1.0),
        ),
        (),
    )


def test_t4(tmp_path: Path) -> None:
    path = t4(tmp_path / "gemm_T4.json", [result(8), result(4, None, "runtime", validation=0)])
    table = read_table(path)
    assert (table.kernel, table.device) == ("gemm_T4", "unknown")
    assert table.parameters == {"x": (4, 8), "name": ("a",)}
    good, bad = table.records
    assert good.samples_s == (0.005, 0.006)
    assert good.cost_s == pytest.approx(0.1 + 0.003 + 0.007 + 0.011)
    assert good.build_s == pytest.approx(0.1)
    assert bad.samples_s == () and bad.error == MeasureError(ErrorKind.RUN_ERROR, "runtime")
    assert bad.cost_s == pytest.approx(0.103)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("seconds", 1.0), ("milliseconds", 1e-3), ("miliseconds", 1e-3), ("ms", 1e-3), ("Microseconds", 1e-6),
     ("us", 1e-6), ("nanoseconds", 1e-9), ("nanosecond", 1e-9)],
)  # fmt: skip
def test_t4_in_other_units(tmp_path: Path, unit: str, factor: float) -> None:
    record = read_table(t4(tmp_path / "a.json", [result(1)], unit)).records[0]
    assert record.samples_s == (5.0 * factor, 6.0 * factor)
    assert record.cost_s == pytest.approx(121 * factor)


@pytest.mark.parametrize("unit", ["fortnights", "", None, 3])
def test_t4_in_an_unknown_unit_is_refused(tmp_path: Path, unit: Any) -> None:
    with pytest.raises(BadRecords, match=r"timeunit .*(\n.*)*Expected one of seconds, milliseconds"):
        read_table(t4(tmp_path / "a.json", [result(1)], unit))


def test_t4_as_kernel_tuner_writes_it_has_its_unit_in_the_measurements(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    def results(*units: str) -> list[dict[str, Any]]:
        return [result(n) | {"measurements": [{"name": "time", "unit": u}]} for n, u in enumerate(units)]

    path.write_text(json.dumps({"results": results("ms", "ms", ""), "schema_version": "1.0.0"}))
    assert read_table(path).records[0].samples_s == (0.005, 0.006)
    for units in (("ms", "s"), ("",), ("weeks",)):
        path.write_text(json.dumps({"results": results(*units), "schema_version": "1.0.0"}))
        with pytest.raises(BadRecords, match="timeunit"):
            read_table(path)


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [("timeout", ErrorKind.RUN_TIMEOUT), ("compile", ErrorKind.BUILD_ERROR), ("runtime", ErrorKind.RUN_ERROR),
     ("correctness", ErrorKind.WRONG_OUTPUT), ("constraints", ErrorKind.INVALID),
     ("else", ErrorKind.RUN_ERROR)],
)  # fmt: skip
def test_t4_failures(tmp_path: Path, verdict: str, kind: ErrorKind) -> None:
    record = read_table(t4(tmp_path / "a.json", [result(1, verdict=verdict)])).records[0]
    assert record.error == MeasureError(kind, verdict)
    assert record.samples_s == ()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("InvalidConfig", ErrorKind.INVALID),
        ("RuntimeFailedConfig", ErrorKind.RUN_ERROR),
        ("__error__", ErrorKind.RUN_ERROR),
    ],
)
@pytest.mark.parametrize("key", ["time", "GFLOP/s", "__error__"])
def test_kernel_tuner_failures(tmp_path: Path, name: str, kind: ErrorKind, key: str) -> None:
    entry = {"x": 1, "y": 1, "times": [1.0]} | {key: name}
    record = read_table(kernel_tuner(tmp_path / "a.json", [("1,1", entry)], objective="GFLOP/s")).records[0]
    assert record.error == MeasureError(kind, name)
    assert record.samples_s == ()


def test_missing_fields_are_reported_and_skipped(tmp_path: Path) -> None:
    without_times, without_verdict, without_parameter = result(3), result(4), result(5)
    del without_times["times"], without_verdict["invalidity"], without_parameter["configuration"]["x"]
    results = [
        result(1),
        result(2, None),
        without_times,
        without_verdict,
        without_parameter,
        "text",
        None,
        result(9),
    ]
    table = read_table(t4(tmp_path / "a.json", results))
    assert [r.configuration["x"] for r in table.records] == [1, 9]
    assert table.skipped == (
        "entry 2: no runtimes",
        "entry 3: no times",
        "entry 4: no invalidity",
        "entry 5: no value of x",
        "entry 6: not an object",
        "entry 7: not an object",
    )
    entries = [("1", {"x": 1, "time": 1.0}), ("2", {"x": 1, "y": 2}), ("3", {"x": 1, "y": [3], "time": 1.0}),
               ("4", {"x": 1, "y": 4, "time": 1.0})]  # fmt: skip
    table = read_table(kernel_tuner(tmp_path / "b.json", entries))
    assert [r.configuration["y"] for r in table.records] == [4]
    assert table.skipped == ("entry 1: no value of y", "entry 2: no times", "entry 3: y is [3]")


@pytest.mark.parametrize(
    ("time", "kind"),
    [("0.0", ErrorKind.IMPLAUSIBLE), ("-1.0", ErrorKind.IMPLAUSIBLE), ("NaN", ErrorKind.RUN_ERROR),
     ("1e999", ErrorKind.RUN_ERROR),
     ("null", ErrorKind.RUN_ERROR), ('"fast"', ErrorKind.RUN_ERROR), ("1e20", ErrorKind.RUN_ERROR),
     ("9" * 400, ErrorKind.RUN_ERROR)],
)  # fmt: skip
def test_times_that_are_none_are_failures(tmp_path: Path, time: str, kind: ErrorKind) -> None:
    path = kernel_tuner(tmp_path / "a.json", [("1,1", {"x": 1, "y": 1, "times": [2.0, "TIME", 2.0]})])
    path.write_text(path.read_text().replace('"TIME"', time))
    record = read_table(path).records[0]
    assert record.samples_s == ()
    assert record.error and record.error.kind is kind


def test_duplicates_are_put_together_and_contradictions_told(tmp_path: Path) -> None:
    ran = {"x": 1, "y": 1, "times": [2.0, 3.0], "compile_time": 1000}
    again = {"x": 1, "y": 1, "times": [4.0], "compile_time": 500}
    failed = {"x": 1, "y": 1, "time": "RuntimeFailedConfig"}
    table = read_table(kernel_tuner(tmp_path / "a.json", [("1,1", ran), ("1,1", again)]))
    (record,) = table.records
    assert record.samples_s == (0.002, 0.003, 0.004)
    assert record.build_s == 1.5
    assert table.skipped == ()
    table = read_table(kernel_tuner(tmp_path / "b.json", [("1,1", failed), ("1,1", ran), ("1,1", again)]))
    (record,) = table.records
    assert record.samples_s == (0.002, 0.003, 0.004) and record.error is None
    assert table.skipped == ("entry 1: failed (RuntimeFailedConfig), but entry 2 ran",)
    (record,) = read_table(
        t4(tmp_path / "c.json", [result(1, None, "runtime"), result(1, None, "compile")])
    ).records
    assert record.error and record.error.kind is ErrorKind.RUN_ERROR


def test_parameters_of_all_kinds_have_their_values_sorted(tmp_path: Path) -> None:
    entries = [(str(v), {"x": v, "y": 1, "time": 1.0}) for v in (8, "b", 2.5, "a", True)]
    table = read_table(kernel_tuner(tmp_path / "a.json", entries))
    assert table.parameters["x"] == (True, 2.5, 8, "a", "b")


def test_a_parameter_may_be_named_as_a_key_of_the_other_format(tmp_path: Path) -> None:
    (record,) = read_table(t4(tmp_path / "a.json", [result(1) | {"configuration": {"cache": 1}}])).records
    assert record.configuration == {"cache": 1}
    facts = {"tune_params_keys": ["results"], "tune_params": {"results": [1]}, "schema_version": "1.1.0"}
    (record,) = read_table(
        kernel_tuner(tmp_path / "b.json", [("1", {"results": 1, "time": 2.0})], **facts)
    ).records
    assert record.samples_s == (0.002,)


def test_kernel_tuner_file_of_a_run_that_was_cut_off(tmp_path: Path) -> None:
    """Kernel Tuner appends entries, each with a comma, and closes the braces in the end."""
    whole = kernel_tuner(tmp_path / "whole.json").read_text()
    path = tmp_path / "open.json"
    for end in ("", ",", ",\n"):
        path.write_text(whole.removesuffix("}\n}") + end)
        assert read_table(path) == read_table(tmp_path / "whole.json")


def test_kernel_tuner_line_cut_off_in_the_middle_costs_that_line(tmp_path: Path) -> None:
    path = kernel_tuner(tmp_path / "a.json")
    path.write_text(
        path.read_text().replace('"time": "CompilationFailedConfig", "compile_time": 50.0}', '"time": "Comp')
    )
    table = read_table(path)
    assert [tuple(r.configuration.values()) for r in table.records] == [(16, 1), (16, 2)]
    assert table.skipped == ("entry 2: not JSON, or cut off",)


@pytest.mark.parametrize("write", [kernel_tuner, t4])
def test_a_file_cut_off_anywhere_gives_what_is_whole_or_says_no(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / "a.json", *([[result(n) for n in range(3)]] if write is t4 else []))
    whole = read_table(path)
    text, found = path.read_text(), []
    for end in range(len(text)):
        path.write_text(text[:end])
        try:
            table = read_table(path)
        except BadRecords:
            assert not found
            continue
        found.append(len(table.records))
        assert table.records == whole.records[: len(table.records)]
        if len(table.records) < len(whole.records):
            assert set(table.parameters) == set(whole.parameters)
    assert found == sorted(found)
    assert set(found) == {1, 2, 3}


def test_packed_file_cut_off_gives_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    results = [result(n, [1.0 + n * n / 7, 2.0 + n / 3]) for n in range(500)]
    packed = gzip.compress(t4(path, results).read_bytes())
    path = tmp_path / "a.json.gz"
    path.write_bytes(packed)
    whole = read_table(path)
    assert len(whole.records) == 500 and whole.kernel == "a"
    path.write_bytes(packed[: len(packed) // 2])
    table = read_table(path)
    assert 0 < len(table.records) < 500
    assert table.records == whole.records[: len(table.records)]
    assert any("ends early" in s for s in table.skipped)
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    path.write_bytes(bytes(damaged))
    try:
        table = read_table(path)
        assert table.skipped
    except BadRecords:
        pass


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "hello", "{", '{"cache": 1}', '{"cache": {}}',
             '{"cache": {}, "tune_params_keys": ["x"]}',
             '{"results": 1}', '{"results": []}', '{"metadata": {"timeunit": "ms"}, "results": []}',
             "[" * 100_000, '{"results":' + "[" * 100_000,
             '{"tune_params": {}, "cache": {"a": ' + "[" * 100_000],
)  # fmt: skip
def test_what_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(BadRecords) as error:
        read_table(path)
    assert "a.json" in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(BadRecords):
            read_table(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(["x", "y", "time", "times", "compile_time", "timestamp", "__error__"])
results_fields = st.sampled_from(["configuration", "times", "invalidity", "timestamp"])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.dictionaries(fields, json_values) | json_values, max_size=3),
    st.lists(st.dictionaries(results_fields, json_values) | json_values, max_size=3),
    json_values,
)
def test_whatever_a_file_holds_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Any], results: list[Any], anything: Any
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    for path in (
        kernel_tuner(folder / "a.json", [(str(n), e) for n, e in enumerate(entries)]),
        kernel_tuner(folder / "b.json", tune_params_keys=anything, objective=anything),
        kernel_tuner(folder / "c.json", tune_params=anything, kernel_name=anything),
        t4(folder / "d.json", [*results, result(1)]),
        t4(folder / "e.json", [result(1)], anything),
    ):
        try:
            table = read_table(path)
        except AutotuneError:
            continue
        for record in table.records:
            assert bool(record.samples_s) != (record.error is not None)
            assert all(0 < s < 1e10 for s in record.samples_s)
            assert all(record.configuration[n] in values for n, values in table.parameters.items())


@pytest.mark.skipif(not SPACES.exists(), reason=f"no recorded spaces: {SPACES} is not there")
def test_both_formats_say_the_same_of_the_same_run() -> None:
    cache = read_table(SPACES / "convolution_milo_A4000.json.gz")
    results = read_table(SPACES / "convolution_milo_A4000_T4.json.gz")
    assert cache.kernel == "convolution_kernel" and cache.device == "NVIDIA RTX A4000"
    assert len(cache.records) == len(results.records) == 4362
    assert cache.parameters == results.parameters
    assert cache.skipped == results.skipped == ()
    for one, other in zip(cache.records, results.records, strict=True):
        assert one.configuration == other.configuration
        assert one.samples_s == other.samples_s
        assert (one.error and one.error.kind) == (other.error and other.error.kind)
        assert one.build_s == other.build_s
    assert sum(r.error is not None for r in cache.records) == 161
