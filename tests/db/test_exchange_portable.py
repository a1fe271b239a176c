"""Our own format: what goes out comes in, from as much of a file as there is."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from db_samples import HARDWARE, HERE, MOMENT, failed, timed
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import matmul
from kernels import workload as tir_workload

from db.errors import BadRecords, NoUsableRecords
from db.exchange import portable
from db.exchange.importing import Imported, add
from db.exchange.items import Skipped
from db.exchange.knobs import knob_workload
from db.store import Store
from search.problem import Candidate, Conditions, ErrorKind, Hardware, MeasureError, Measurement, Workload

ROOT = Path(__file__).resolve().parents[2]
KERNEL = knob_workload("gemm", [64], {"x": [1, 2, 3]})

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
seconds = st.floats(1e-12, 1e6)
choices = st.lists(
    st.integers(-(1 << 60), 1 << 60) | st.lists(st.integers(0, 99), max_size=4).map(tuple), max_size=4
)
outcomes: st.SearchStrategy[tuple[list[float], MeasureError | None]] = st.tuples(
    st.lists(seconds, min_size=1), st.none()
) | st.tuples(st.just([]), st.builds(MeasureError, st.sampled_from(ErrorKind), texts))
features = st.dictionaries(
    texts, st.booleans() | st.integers(-(1 << 60), 1 << 60) | texts | st.floats(-1e9, 1e9), max_size=3
)
devices = st.builds(
    Hardware, texts, st.integers(0, 1000), features, st.dictionaries(texts, seconds, max_size=2)
)
all_conditions = st.builds(
    Conditions, devices, texts, st.integers(0, 1000), st.dictionaries(texts, texts, max_size=2)
)


@st.composite
def measurements(draw: st.DrawFn, of: str) -> Measurement:
    samples_s, error = draw(outcomes)
    candidate = Candidate(
        of, draw(st.sampled_from("ab")), tuple(draw(choices)), draw(texts), draw(st.sampled_from(["", "arm"]))
    )
    moment = draw(st.datetimes(timezones=st.just(MOMENT.tzinfo)).filter(lambda t: 1 < t.year < 9999))  # type: ignore[arg-type]
    return Measurement(
        candidate, tuple(samples_s), error, draw(st.floats(0, 1e6)), moment, draw(st.none() | seconds)
    )


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/other.db", create=True) as opened:
        yield opened


def candidate(number: int, of: Workload = KERNEL) -> Candidate:
    return Candidate(of.hash, "table/1", (number, (1, 2)), json.dumps({"x": number}))


def contents(store: Store) -> list[object]:
    """All that an export must carry, what equality leaves out included."""
    return [
        (
            c,
            dict(c.versions),
            dict(c.hardware.probes),
            m,
            m.candidate.trace,
            store.workload(m.candidate.workload),
        )
        for c, m in store.stream()
    ]


def test_round_trip(store: Store, tmp_path: Path) -> None:
    numbers = count()

    @settings(max_examples=30, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        number = next(numbers)
        kernel = knob_workload(
            f"kernel {number}", data.draw(st.none() | st.lists(st.integers())), {"x": [1.5, "é", True]}
        )
        store.add_workload(kernel)
        wanted: dict[tuple[str, str, int], Conditions] = {}
        for conditions in data.draw(st.lists(all_conditions, max_size=3, unique_by=lambda c: c.key)):
            given = data.draw(
                st.lists(measurements(kernel.hash), max_size=4, unique_by=lambda m: m.candidate)
            )
            store.add_measurements(None, conditions, given)
            wanted |= {conditions.key: conditions} if given else {}
        path = tmp_path / f"{number}.jsonl{'.gz' if number % 2 else ''}"
        if not wanted:
            with pytest.raises(NoUsableRecords):
                portable.write(store, path, kernel.hash)
            assert not path.exists()
            return
        written = portable.write(store, path, kernel.hash).written
        with Store.open(f"sqlite:///{tmp_path}/{number}.db", create=True) as fresh:
            assert add(fresh, portable.read(path)) == Imported(added=written)
            for conditions in wanted.values():
                found, there = (s.measurements(kernel.hash, conditions) for s in (fresh, store))
                assert found == there
                assert [m.candidate.trace for m in found] == [m.candidate.trace for m in there]
            assert add(fresh, portable.read(path)) == Imported(known=written)

    check()


def test_workloads_conditions_and_candidates_come_back_whole(
    store: Store, other: Store, tmp_path: Path
) -> None:
    kernel = tir_workload(matmul())
    store.add_workload(KERNEL)
    store.add_workload(kernel)
    elsewhere = Conditions(replace(HARDWARE, name="other"), "cuda", 1, {"tvm": "0.28"})
    store.add_measurements(None, HERE, [timed(candidate(1), 1.0, 2.0), failed(candidate(2))])
    store.add_measurements(None, elsewhere, [timed(candidate(1), 3.0), timed(candidate(1, kernel), 4.0)])
    store.add_measurements(None, replace(HERE, versions={}), [timed(candidate(1, kernel), 5.0)])
    path = tmp_path / "records.jsonl.gz"
    assert portable.write(store, path).written == 5
    assert add(other, portable.read(path)) == Imported(added=5)
    assert contents(other) == contents(store)
    again = tmp_path / "again.jsonl.gz"
    portable.write(other, again)
    assert again.read_bytes() == path.read_bytes()


def exported(store: Store, path: Path, rows: int = 8) -> Path:
    store.add_workload(KERNEL)
    store.add_measurements(None, HERE, [timed(candidate(n), 1.0 + n) for n in range(rows)])
    portable.write(store, path)
    return path


def test_a_file_cut_off_anywhere_gives_the_lines_that_are_whole(other: Store, tmp_path: Path) -> None:
    path = exported(other, tmp_path / "a.jsonl", 3)
    text, whole = path.read_bytes(), list(portable.read(path))
    for end in range(len(text)):
        path.write_bytes(text[:end])
        lines = text[:end].count(b"\n")
        try:
            items = list(portable.read(path))
        except BadRecords:
            assert lines == 0
            continue
        good = [i for i in items if not isinstance(i, Skipped)]
        assert good == whole[: len(good)]
        assert len(good) >= lines - 2
        assert len(items) <= len(good) + 1


def test_packed_file_cut_off_gives_the_lines_that_are_whole(other: Store, tmp_path: Path) -> None:
    path = exported(other, tmp_path / "a.jsonl.gz", 400)
    packed = path.read_bytes()
    whole = list(portable.read(path))
    path.write_bytes(packed[: len(packed) // 2])
    *items, last, end = portable.read(path)
    assert items == whole[: len(items)] and len(items) > 50
    assert isinstance(last, Skipped) and "cut off" in last.reason
    assert isinstance(end, Skipped) and "ends early" in end.reason


def test_bad_lines_are_told_with_their_number_and_skipped(other: Store, tmp_path: Path) -> None:
    path = exported(other, tmp_path / "a.jsonl")
    lines = path.read_bytes().splitlines()
    header, workload, conditions, *measured = lines
    bad = [b"nonsense", b"[]", b'{"measurement": {}, "under": 0}', b"\xff\xfe", b"[" * 50_000,
           b'{"else": 1}', b"",
           measured[0].replace(b'"under":0', b'"under":7'),
           measured[0].replace(KERNEL.hash.encode(), b"ab" * 32),
           measured[0].replace(b"[1.0]", b"[0.0]"),
           measured[0].replace(b"[1.0]", b"[NaN]"),
           measured[0].replace(b"[1.0]", b"[]"),
           measured[0].replace(b"2025-01-02T", b"yesterday"),
           measured[0].replace(b'"choices":[0', b'"choices":["0.5"')]  # fmt: skip
    path.write_bytes(b"\n".join([header, workload, conditions, *bad, *measured]))
    with Store.open(f"sqlite:///{tmp_path}/fresh.db", create=True) as fresh:
        done = add(fresh, portable.read(path))
        assert (done.added, done.skipped) == (8, len(bad) - 1)
        assert [m for _, m in fresh.stream()] == [m for _, m in other.stream()]
    skipped = [i for i in portable.read(path) if isinstance(i, Skipped)]
    assert [i.place for i in skipped] == [f"line {n}" for n in range(4, 18) if n != 10]
    assert all(len(i.reason) < 200 and "\n" not in i.reason for i in skipped)


def test_a_workload_is_taken_at_its_hash_only_where_that_follows_from_its_module(
    store: Store, other: Store, tmp_path: Path
) -> None:
    kernel = tir_workload(matmul())
    for work in (kernel, KERNEL):
        store.add_workload(work)
        store.add_measurements(None, HERE, [timed(candidate(1, work), 1.0)])
    path = tmp_path / "a.jsonl"
    portable.write(store, path)
    forged = path.read_text().replace(kernel.hash, "ab" * 32).replace(KERNEL.hash, "cd" * 32)
    path.write_text(forged)
    with pytest.raises(NoUsableRecords, match="not the one that its hash stands for"):
        add(other, portable.read(path))
    path.write_text(path.read_text().replace("root_index", "root_indes").replace("knobs/1", "knobs/9"))
    with pytest.raises(NoUsableRecords, match="cannot read the module"):
        add(other, portable.read(path))
    portable.write(store, path)
    path.write_text(path.read_text().replace(f'"flop":{kernel.flop}', '"flop":1.0'))
    add(other, portable.read(path))
    assert other.workload(kernel.hash) == kernel


def test_what_cannot_be_written_is_told_and_leaves_nothing(other: Store, tmp_path: Path) -> None:
    exported(other, tmp_path / "file")
    with pytest.raises(BadRecords, match="cannot be written"):
        portable.write(other, tmp_path / "file" / "a.jsonl")
    with pytest.raises(NoUsableRecords):
        portable.write(other, tmp_path / "b.jsonl", "ab" * 32)
    assert sorted(p.name for p in tmp_path.iterdir() if "db" not in p.name) == ["file"]


def test_files_put_one_after_another(store: Store, other: Store, tmp_path: Path) -> None:
    first = exported(store, tmp_path / "a.jsonl.gz")
    elsewhere = replace(HERE, threads=1)
    other.add_workload(KERNEL)
    other.add_measurements(None, elsewhere, [timed(candidate(1), 9.0)])
    portable.write(other, tmp_path / "b.jsonl.gz")
    both = tmp_path / "both.gz"
    both.write_bytes(first.read_bytes() + (tmp_path / "b.jsonl.gz").read_bytes())
    assert add(other, portable.read(both)) == Imported(added=8, known=1)
    assert len(other.measurements(KERNEL.hash, elsewhere)) == 1


def test_other_versions_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for text, words in (
        ('{"format": "autotune/records", "version": 2}\n', "version 2 .*\nUpgrade"),
        ('{"version": 1}\n', "does not begin"),
        ("", "does not begin"),
    ):
        path.write_text(text)
        with pytest.raises(BadRecords, match=words):
            portable.read(path)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 60,000 lines of 4 kB."""
    with Store.open(f"sqlite:///{tmp_path}/a.db", create=True) as store:
        exported(store, tmp_path / "a.jsonl", 1)
    *head, line = (tmp_path / "a.jsonl").read_text().splitlines()
    with gzip.open(tmp_path / "big.gz", "wt", 1) as file:
        file.write("\n".join(head) + "\n")
        for n in range(60_000):
            large = line.replace('"choices":[0', f'"choices":[{n}').replace(
                '"trace":"', '"trace":"' + "x" * 4000
            )
            file.write(large + "\n")
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom db.exchange import portable\n"
        "items = portable.read(Path(sys.argv[1]))\nnext(items)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert sum(1 for _ in items) == 60_000\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "big.gz"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 20_000  # kB; the lines are 240 MB
