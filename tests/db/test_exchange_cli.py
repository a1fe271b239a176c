"""``autotune db import`` and ``export`` as a person meets them."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from db_samples import HERE, failed, timed

from db.exchange import exporting, portable
from db.exchange.formats import Format
from db.exchange.knobs import knob_workload
from db.exchange.tables import read_table
from db.store import Store
from search.problem import Candidate, ErrorKind

ROOT = Path(__file__).resolve().parents[2]
KERNEL = knob_workload("gemm", [64], {"x": [1, 2, 3]})

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def database(tmp_path: Path) -> str:
    return str(tmp_path / "records.db")


@pytest.fixture
def call(database: str) -> Call:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "autotune.cli", "db", *arguments, "--db", database],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def cache_file(path: Path, entries: list[dict[str, Any]]) -> Path:
    header = {"device_name": "Some GPU", "kernel_name": "gemm", "problem_size": [64],
              "tune_params_keys": ["x"], "tune_params": {"x": [1, 2, 3]}}  # fmt: skip
    path.write_text(json.dumps(header | {"cache": {str(n): e for n, e in enumerate(entries)}}))
    return path


def filled(database: str, rows: int = 3) -> None:
    with Store.open(database, create=True) as store:
        store.add_workload(KERNEL)
        ran = [
            timed(Candidate(KERNEL.hash, "table/1", (n,), json.dumps({"x": n + 1})), 1.0 + n)
            for n in range(rows)
        ]
        broke = failed(Candidate(KERNEL.hash, "table/1", (99,), '{"x": 99}'), ErrorKind.BUILD_ERROR, "no")
        store.add_measurements(None, HERE, [*ran, broke])


def test_import_says_what_came_and_what_was_skipped(call: Call, tmp_path: Path) -> None:
    path = cache_file(tmp_path / "a.json", [{"x": 1, "time": 1.0}, *({"y": n} for n in range(13))])
    done = call("import", str(path))
    assert done.returncode == 0, done.stderr
    first, second, *reasons = done.stdout.splitlines()
    assert "1 measurements imported into" in first and "(kernel_tuner)" in first
    assert second == "13 skipped:"
    assert reasons == [f"  entry {n}: no value of x" for n in range(2, 12)] + ["  and 3 more"]
    again = call("import", str(path), "--json")
    assert json.loads(again.stdout) | {"database": "", "reasons": []} == {
        "added": 0, "known": 1, "skipped": 13, "reasons": [], "format": "kernel_tuner", "database": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "code", "words"),
    [
        ("none.json", None, 32, ["none.json", "No such file"]),
        ("a.txt", "hello", 32, ["a.txt", "kernel_tuner", "--format"]),
        ("a.json", '{"metadata": {"timeunit": "weeks"}, "results": [{}]}', 32, ["'weeks'", "milliseconds"]),
        ("a.json", '{"metadata": {"timeunit": "ms"}, "results": [{}]}', 32, ["no configuration"]),
    ],
)
def test_a_file_of_no_use_makes_no_database(
    call: Call, database: str, tmp_path: Path, name: str, text: str | None, code: int, words: list[str]
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    done = call("import", str(tmp_path / name))
    assert done.returncode == code
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 2
    assert all(w in done.stderr for w in words), done.stderr
    assert not Path(database).exists()


def test_nothing_imported_is_an_error(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"format": "autotune/records", "version": 1}\nnonsense\n')
    done = call("import", str(path))
    assert done.returncode == 33
    assert "line 2" in done.stderr


def test_export_and_import_again(call: Call, database: str, tmp_path: Path) -> None:
    filled(database)
    path = tmp_path / "out" / "records.jsonl.gz"
    done = call("export", str(path))
    assert done.returncode == 0, done.stderr
    assert "4 measurements exported to" in done.stdout
    assert call("export", str(path)).returncode == 14
    assert call("export", str(tmp_path / "b"), "--format", "traces").returncode == 14
    assert call("export", str(tmp_path / "b"), "--workload", "ffff").returncode == 29
    assert call("export", str(tmp_path / "b"), "--format", "metaschedule").returncode == 33
    assert "were there already" in call("import", str(path)).stdout
    done = call("export", str(tmp_path / "one.jsonl"), "--workload", KERNEL.hash[:8], "--json")
    assert json.loads(done.stdout)["written"] == 4


@pytest.mark.parametrize("format", ["kernel_tuner", "t4"])
def test_export_for_tools_of_one_kernel(call: Call, database: str, tmp_path: Path, format: str) -> None:
    filled(database)
    path = tmp_path / "gemm.json"
    assert call("export", str(path), "--format", format).returncode == 33
    done = call("export", str(path), "--format", format, "--workload", KERNEL.hash)
    assert done.returncode == 0, done.stderr
    table = read_table(path)
    assert table.kernel == "gemm"
    assert table.skipped == ()
    assert {r.configuration["x"]: r.samples_s for r in table.records} == {
        1: (1.0,),
        2: (2.0,),
        3: (3.0,),
        99: (),
    }
    assert [r.build_s for r in table.records] == [0.25, 0.25, 0.25, 0.5]
    assert [r.error and r.error.kind for r in table.records] == [None, None, None, ErrorKind.BUILD_ERROR]


def test_export_takes_the_device_and_the_space_with_most(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "a.db"), create=True) as store:
        filled(store.url)
        other = timed(Candidate(KERNEL.hash, "other/1", (1,), '{"z": 1}'), 1.0)
        strange = timed(Candidate(KERNEL.hash, "traces", (1,), "[[[],[]]]"), 1.0)
        store.add_measurements(None, HERE, [other, strange])
        store.add_measurements(None, replace(HERE, threads=1), [other])
        done = exporting.write(store, tmp_path / "a.json", Format.KERNEL_TUNER, KERNEL.hash)
    assert (done.written, done.skipped) == (4, 3)
    assert [r.partition(":")[0] for r in done.reasons] == [
        "space traces",
        "Test CPU, 1 threads",
        "space other/1",
    ]
    assert set(read_table(tmp_path / "a.json").parameters) == {"x"}


def test_ctrl_c_keeps_what_was_committed(call: Call, database: str, tmp_path: Path) -> None:
    """Rows without end, until it is interrupted."""
    with Store.open(str(tmp_path / "small.db"), create=True) as store:
        store.add_workload(KERNEL)
        store.add_measurements(None, HERE, [timed(Candidate(KERNEL.hash, "table/1", (0,), "{}"), 1.0)])
        portable.write(store, tmp_path / "small.jsonl")
    *head, line = (tmp_path / "small.jsonl").read_text().splitlines()
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        file.write("\n".join(head) + "\n")
        file.writelines(line.replace('"choices":[0', f'"choices":[{n}') + "\n" for n in range(100_000))
    process = subprocess.Popen(
        [sys.executable, "-m", "autotune.cli", "db", "import", str(path), "--db", database],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while rows(database) == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    kept = rows(database)
    assert 0 < kept < 100_000 and kept % 500 == 0


def rows(database: str) -> int:
    if not Path(database).exists():
        return 0
    with Store.open(database) as store:
        return store.stats().rows["measurements"]
