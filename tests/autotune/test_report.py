"""Tests of the report: what it says of a manifest, on the page and in a terminal."""

import io
import re
import subprocess
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from autotune.bench.result import BenchResult, Comparison, Entry, Status
from autotune.manifest import (
    Check,
    CurvePoint,
    HardwareEntry,
    InputEntry,
    Manifest,
    ModelEntry,
    NoiseEntry,
    RankingEntry,
    RunEntry,
    TaskEntry,
)
from autotune.measure.noise import NOISY
from autotune.measure.statistics import Verdict
from autotune.report import numbers
from autotune.report.facts import find_facts
from autotune.report.html import _FAILURES, write_report
from autotune.report.plots import noise_plot, ranking_plot
from autotune.report.spread import Estimate, estimate_medians, interval
from autotune.report.summary import print_summary
from search.problem import Cache, ErrorKind

HOSTILE = "<script>alert('x')</script>$a_b$ [red]\x1b[2J"


def make_task(name: str = "conv", **given: Any) -> TaskEntry:
    """A kernel that became four times as fast: 4 ms to 1 ms, 2e8 operations."""
    usual: dict[str, Any] = {
        "workload": f"hash of {name}", "weight": 1, "flop": 2e8, "bytes": 4000, "status": "tuned",
        "winner": "w", "trials": 64, "failures": 3, "best_s": 1e-3,
        "before_s": (3.9e-3, 4e-3, 4.1e-3) * 5, "after_s": (0.99e-3, 1e-3, 1.01e-3) * 5,
        "p_faster": (1.0, 0.97, 1.0), "max_error": 1e-7, "tolerance": 1e-5,
    }  # fmt: skip
    return TaskEntry(name=name, **{**usual, **given})


def untuned_task(name: str, note: str, **given: Any) -> TaskEntry:
    """A kernel without a winner, as it comes from a run: never timed."""
    bare: dict[str, Any] = {"winner": None, "best_s": None, "before_s": (), "after_s": (), "p_faster": None}
    return make_task(name, status="untuned", note=note, **{**bare, "max_error": None, **given})


def make_manifest(*tasks: TaskEntry, **given: Any) -> Manifest:
    curve = tuple(CurvePoint(elapsed_s=10.0 * i, trials=8 * i, latency_s=0.02 / i) for i in range(1, 9))
    usual: dict[str, Any] = {
        "library": "model.so",
        "created_at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "model": ModelEntry(
            name="net",
            source="net.onnx",
            hash="f" * 64,
            inputs=(InputEntry(name="image", shape=(1, 3, 8, 8), dtype="float32"),),
        ),
        "target": "llvm -mcpu=cascadelake",
        "threads": 2,
        "hardware": HardwareEntry(
            name="A CPU",
            fingerprint="a" * 64,
            cores=4,
            features={"isa": ["avx2", "fma"], "cache_bytes": {"l2": 1 << 20}},
            probes={"peak_gflops_f32": 400.0, "bandwidth_gbps": 20.0},
        ),
        "versions": {"tvm": "0.27.0"},
        "database": "sqlite:///records.db",
        "tasks": tasks or (make_task(),),
        "latency_s": (1.9e-3, 2e-3, 2.1e-3) * 5,
        "untuned_s": 8e-3,
        "check": Check(reference="ONNX Runtime", max_error=1e-6, tolerance=1e-4),
        "run": RunEntry(
            id=1, trials=64, elapsed_s=90.0, failures={"build_timeout": 2, "crash": 1}, curve=curve
        ),
    }
    return Manifest(**{**usual, **given})


class Page(HTMLParser):
    """A page's visible text, its tags, and what its attributes refer to."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        names = ("src", "href", "xlink:href", "srcset", "action", "data")
        self.references += [value or "" for name, value in attrs if name in names]

    def handle_data(self, data: str) -> None:
        self.text += data


def render(manifest: Manifest, folder: Path, bench: BenchResult | None = None) -> str:
    write_report(manifest, folder / "report.html", bench)
    return (folder / "report.html").read_text("utf-8")


def summary(manifest: Manifest, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_summary(manifest, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def dots(svg: str) -> list[str]:
    """Those lines of a plot that have no length."""
    return re.findall(r"M (\S+ \S+) *\n? *L \1(?=[\s\"])", svg)


def noise(*drifts: float, every_s: float = 1.0) -> tuple[NoiseEntry, ...]:
    return tuple(NoiseEntry(at_s=every_s * i, drift=d) for i, d in enumerate(drifts))


OWN_S = {
    "search": 9.0, "features": 2.0, "model": 3.0, "build": 62.0, "run": 21.0, "database": 0.9, "idle": 0.2,
    "other": 1.8, "profiler": 0.1,
}  # fmt: skip

RUN_CASES = {
    "compiled": RunEntry(),
    "no curve": RunEntry(id=1, trials=5, elapsed_s=1.0),
    "one point": RunEntry(id=1, trials=1, curve=(CurvePoint(elapsed_s=0.0, trials=1, latency_s=1e-3),)),
    "flat": RunEntry(
        id=1,
        trials=9,
        elapsed_s=1e5,
        curve=tuple(CurvePoint(elapsed_s=i, trials=i, latency_s=1e-3) for i in range(9)),
    ),
    "unknown failure": RunEntry(id=1, trials=9, failures={"new_kind": 9}),
    "profiled": RunEntry(id=1, trials=9, noise=noise(1.0, 1.02, 2.3, 0.98), own_s=OWN_S),
    "one probe": RunEntry(id=1, trials=1, noise=noise(1.0), own_s={"other": 1e-9}),
    "probes at once": RunEntry(id=1, trials=1, noise=noise(1.0, 5000.0, 5000.0, every_s=0.0)),
    "unknown phases": RunEntry(id=1, trials=1, own_s={f"phase{i}": 10.0**i for i in range(9)}),
    "no time": RunEntry(id=1, trials=1, own_s={"other": 0.0, "profiler": 0.0}),
}

BARE_HARDWARE = HardwareEntry(name="", fingerprint="", cores=1, features={}, probes={})

MANIFESTS = {
    "usual": make_manifest(),
    "eighty tasks": make_manifest(*(make_task(f"task{i}", weight=i + 1) for i in range(80))),
    "no flop": make_manifest(make_task(flop=0.0)),
    "no probes": make_manifest(hardware=BARE_HARDWARE),
    "untuned": make_manifest(untuned_task("slow", "never measured"), make_task(), untuned_s=None),
    "all untuned": make_manifest(untuned_task("slow", ""), untuned_s=None),
    "untuned, timed": make_manifest(untuned_task("slow", "", before_s=(1e-3, 2e-3))),
    "unverified": make_manifest(make_task(before_s=(), after_s=(), p_faster=None), untuned_s=None),
    "single samples": make_manifest(make_task(before_s=(1e-3,), after_s=(1e-3,)), latency_s=(1e-3,)),
    "no samples": make_manifest(latency_s=(), untuned_s=None),
    "no inputs": make_manifest(model=ModelEntry(name="", source="", hash="", inputs=())),
    **{name: make_manifest(run=run) for name, run in RUN_CASES.items()},
}


@given(st.floats(1e-9, 1e4))
def test_latency_keeps_three_digits(seconds: float) -> None:
    number, unit = numbers.latency(seconds).split(" ")
    scale = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit]
    assert float(number.replace(",", "")) * scale == pytest.approx(seconds, rel=0.00501)
    assert unit == "s" or float(number) < 1000


@given(st.floats(1e-6, 1e9))
def test_digits_are_three_and_without_an_exponent(value: float) -> None:
    text = numbers.digits(value)
    assert re.fullmatch(r"[\d,]+(\.\d+)?", text)
    assert value >= 1000 or len(text.replace(".", "").lstrip("0")) == 3


@given(st.text("ab_0", max_size=60), st.integers(1, 40))
def test_shortened_text_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = numbers.shorten(text, width)
    assert len(short) == min(len(text), width)
    assert len(text) <= width or (short[:1] == text[:1] or width == 1)
    assert len(text) <= width or width < 3 or short[-1] == text[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numbers.latency(999.9e-6), "1.00 ms"),
        (numbers.latency(0.0), "0 s"),
        (numbers.latency(None), "-"),
        (numbers.latency(float("inf")), "-"),
        (numbers.digits(0.0123456), "0.0123"),
        (numbers.digits(1234.5), "1,234"),
        (numbers.ratio(2.314), "2.31x"),
        (numbers.percent(0.1234), "12.3 %"),
        (numbers.percent(1e-5), "<0.1 %"),
        (numbers.duration(59.97), "1 min 00 s"),
        (numbers.duration(12.34), "12.3 s"),
        (numbers.duration(7260), "2 h 01 min"),
        (numbers.size(37486592), "35.75 MiB"),
        (numbers.plain({"l1": [1, "a"]}), "l1 1, a"),
    ],
)
def test_text_of_numbers(text: str, expected: str) -> None:
    assert text == expected


def test_speedup_is_paired() -> None:
    """What slows down both runs of a pair does not widen the interval of their quotient."""
    after = np.random.default_rng(0).lognormal(size=25)
    one, two = estimate_medians(np.random.default_rng(0), after.tolist(), (3 * after).tolist())
    assert one.low < one.middle < one.high
    assert (two / one).low == pytest.approx(3) == pytest.approx((two / one).high)


def test_interval_is_silent_where_the_spread_is_unknown() -> None:
    assert interval(Estimate.exact(1.0), numbers.latency) == ""
    assert interval(Estimate(1.0, np.array([0.5, 2.0])), numbers.ratio).count("x") == 2
    assert re.fullmatch(r"\S+ to \S+ ms", interval(Estimate(1e-3, np.array([1e-3, 2e-3])), numbers.latency))


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_shares_add_up(manifest: Manifest) -> None:
    facts = find_facts(manifest)
    for shares in ([t.before_share for t in facts.tasks], [t.after_share for t in facts.tasks]):
        known = [s for s in shares if s is not None]
        assert not known or sum(known) == pytest.approx(1)


def test_rates_and_speedups() -> None:
    (task,) = find_facts(make_manifest()).tasks
    assert task.speedup is not None and task.speedup.middle == pytest.approx(4)
    assert task.gflops == pytest.approx(200)
    assert task.of_peak == pytest.approx(0.5)


def test_model_speedup_compares_the_sum_over_kernels_with_the_whole_artifact() -> None:
    facts = find_facts(make_manifest(make_task(weight=2)))
    assert facts.speedup is not None and facts.speedup.middle == pytest.approx(4)
    assert facts.speedup.low < 4 < facts.speedup.high


def test_what_is_untuned_stays_as_it_was() -> None:
    """The winner that failed verification, however fast, is not in the artifact."""
    task = untuned_task("slow", "wrong output", best_s=1e-9, before_s=(2e-3, 2e-3))
    (facts,) = find_facts(make_manifest(task)).tasks
    assert facts.after is not None and facts.after.middle == 2e-3
    assert facts.speedup is None


def test_tasks_are_ordered_by_their_time_in_the_artifact() -> None:
    tasks = [make_task("once"), untuned_task("unknown", ""), make_task("twice", weight=2)]
    assert [t.entry.name for t in find_facts(make_manifest(*tasks)).tasks] == ["twice", "once", "unknown"]


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_page_is_self_contained_and_complete(manifest: Manifest, tmp_path: Path) -> None:
    source = render(manifest, tmp_path)
    page = Page(source)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base"}
    assert all(r.startswith("#") for r in page.references)
    assert not re.search(r"@import|url\((?!#)", source)
    assert all(t.name in page.text for t in manifest.tasks)
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_summary_fits_the_terminal(manifest: Manifest) -> None:
    lines = summary(manifest)
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines), "a column is cut"


def test_page_escapes_what_users_name(tmp_path: Path) -> None:
    entry = InputEntry(name=HOSTILE, shape=(1,), dtype=HOSTILE)
    manifest = make_manifest(
        make_task(HOSTILE, note=HOSTILE),
        untuned_task(HOSTILE + "2", HOSTILE),
        model=ModelEntry(name=HOSTILE, source=HOSTILE, hash="", inputs=(entry,)),
        library=HOSTILE,
        versions={HOSTILE: HOSTILE},
        run=RunEntry(id=1, trials=1, failures={HOSTILE: 1}),
        untuned_s=None,
    )
    page = Page(render(manifest, tmp_path))
    assert "script" not in page.tags
    assert page.text.count("<script>alert") > 5


def test_page_is_the_same_each_time(tmp_path: Path) -> None:
    assert render(make_manifest(), tmp_path) == render(make_manifest(), tmp_path)


def test_plots_take_their_colours_from_the_page(tmp_path: Path) -> None:
    svg = "".join(re.findall(r"<svg.*?</svg>", render(make_manifest(), tmp_path), re.DOTALL))
    assert "var(--after)" in svg and "best so far" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)


def test_noise_counts_what_timing_would_take_as_quiet() -> None:
    found = find_facts(make_manifest(run=RunEntry(noise=noise(1.0, NOISY, 1.001 * NOISY, 3.0)))).noise
    assert found is not None and not found.mostly_noisy
    assert (found.probes, found.quiet, found.worst) == (4, 2, 3.0)
    assert found.median == pytest.approx(1.0005 * NOISY)


@pytest.mark.parametrize("case", ["profiled", "unknown phases", "one probe"])
def test_phases_are_the_longest_first_and_add_up(case: str) -> None:
    phases = find_facts(MANIFESTS[case]).phases
    assert sum(p.share for p in phases) == pytest.approx(1)
    assert [p.seconds for p in phases] == sorted(RUN_CASES[case].own_s.values(), reverse=True)


def test_both_say_where_the_time_went_and_how_noisy_it_was(tmp_path: Path) -> None:
    page = Page(render(MANIFESTS["profiled"], tmp_path)).text
    assert "compiling candidates1 min 02 s, 62.0 %" in page and "measuring these times100 ms, 0.1 %" in page
    assert "75.0 % of 4 probes were quiet" in page and "timed once more" in page
    assert "The median was 1.01x, the worst 2.30x" in page
    lines = summary(MANIFESTS["profiled"])
    assert "Time: 62 % compiling, 21 % timing, 9 % choosing, 3 % cost model, 5 % other" in lines
    assert "Noise: 75.0 % of 4 probes quiet, worst 2.30x" in lines


@pytest.mark.parametrize(("drifts", "less_certain"), [((1.0, 2.0), False), ((1.0, 2.0, 2.0), True)])
def test_both_say_so_when_most_probes_were_noisy(
    drifts: tuple[float, ...], less_certain: bool, tmp_path: Path
) -> None:
    manifest = make_manifest(run=RunEntry(id=1, trials=9, noise=noise(*drifts)))
    for text in (Page(render(manifest, tmp_path)).text, " ".join(summary(manifest))):
        assert ("less certain" in text and "autotune doctor" in text) is less_certain


@pytest.mark.parametrize("case", ["compiled", "no time"])
def test_neither_mentions_what_was_not_recorded(case: str, tmp_path: Path) -> None:
    page = Page(render(MANIFESTS[case], tmp_path)).text
    assert "own time" not in page and "Noise" not in page
    assert not any(line.startswith(("Time:", "Noise:")) for line in summary(MANIFESTS[case]))


def test_noise_plot_has_a_dot_for_each_probe_and_stays_small() -> None:
    assert len(dots(noise_plot(noise(1.0, 1.01, 4.0)))) == 3
    drifts = np.random.default_rng(0).lognormal(0.5, size=20_000)
    assert 1_000 < len(dots(noise_plot(noise(*drifts)))) <= 251 * 41


def test_page_hides_the_password_of_the_database(tmp_path: Path) -> None:
    source = render(make_manifest(database="postgresql+psycopg://me:s3@cret@host/db"), tmp_path)
    assert "cret" not in source and "postgresql+psycopg://me:***@host/db" in source


def test_both_say_why_a_task_is_untuned_and_what_failed(tmp_path: Path) -> None:
    tasks = [make_task(), untuned_task("slow", "never measured"), untuned_task("slower", "")]
    manifest = make_manifest(*tasks, untuned_s=None)
    for text in (Page(render(manifest, tmp_path)).text, " ".join(summary(manifest))):
        assert "never measured" in text and "nothing usable was found" in text
        assert "build timeout" in text and "crash" in text


def test_both_say_so_when_the_outputs_differ(tmp_path: Path) -> None:
    manifest = make_manifest(check=Check(reference="ONNX Runtime", max_error=1.0, tolerance=1e-4))
    for text in (Page(render(manifest, tmp_path)).text, " ".join(summary(manifest))):
        assert "differs" in text and "verified" not in text


def test_both_say_that_the_speedup_is_an_estimate(tmp_path: Path) -> None:
    for text in (Page(render(make_manifest(), tmp_path)).text, " ".join(summary(make_manifest()))):
        assert "estimated from kernels" in text and "not paired" in text


@pytest.mark.parametrize("states", [[Cache.WARM], [Cache.COLD], [Cache.MODEL], [Cache.WARM, Cache.MODEL]])
def test_page_says_what_the_caches_held(tmp_path: Path, states: list[Cache]) -> None:
    tasks = [make_task(f"conv{n}", cache=state) for n, state in enumerate(states)]
    text = Page(render(make_manifest(*tasks), tmp_path)).text
    said = {Cache.WARM: "bursts of runs", Cache.COLD: "caches: cold", Cache.MODEL: "caches: model"}
    assert {state for state, words in said.items() if words in text} == set(states)


def test_every_failure_is_explained(tmp_path: Path) -> None:
    assert {kind.value for kind in ErrorKind} <= set(_FAILURES)


def test_speedup_of_the_tuned_part_where_that_of_the_model_is_unknown(tmp_path: Path) -> None:
    manifest = make_manifest(make_task(), untuned_task("slow", "never measured"), untuned_s=None)
    for text in (Page(render(manifest, tmp_path)).text, " ".join(summary(manifest))):
        assert "1 of 2 tasks timed both ways" in text and "4.00x" in text


def test_summary_shows_the_longest_tasks_and_counts_the_rest() -> None:
    lines = summary(MANIFESTS["eighty tasks"])
    assert sum(line.startswith("task") for line in lines) == 15
    assert any(line.startswith("task79") for line in lines)
    assert any("and 65 more" in line for line in lines)


def test_summary_prints_names_as_they_are_but_for_control_characters() -> None:
    text = "\n".join(summary(make_manifest(model=ModelEntry(name=HOSTILE, source="", hash="", inputs=()))))
    assert "[red]" in text and "\x1b" not in text


def test_importing_the_package_is_cheap() -> None:
    code = f"import sys; sys.path[:] = {sys.path!r}; import autotune.report, autotune.report.numbers; "
    code += "print({'numpy', 'matplotlib', 'jinja2', 'tvm'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_page_shows_the_peers(tmp_path: Path) -> None:
    versus = Comparison(2.5, 2.0, 3.0, 1.0, 0.9, 1.0, 30, Verdict.MEANINGFUL)
    ours = Entry("autotune", Status.RAN, median_s=2e-3, low_s=1.9e-3, high_s=2.1e-3)
    theirs = Entry("vendor", Status.RAN, "latency hint", "1.2", 1e-6, True, median_s=5e-3, versus=versus)
    missing = Entry("other", Status.UNAVAILABLE, "pip install other")
    bench = BenchResult("net", "A CPU", 2, "PyTorch", 30, 0, 1.0, 0.0, (ours, theirs, missing))
    text = Page(render(make_manifest(), tmp_path, bench)).text
    assert all(w in text for w in ("Beside its peers", "vendor", "5.00 ms", "2.50x", "pip install other"))
    assert "Beside its peers" not in render(make_manifest(), tmp_path)


def rankings(n: int, accuracy: float) -> tuple[RankingEntry, ...]:
    return tuple(
        RankingEntry(
            task="w", listened_to="both" if i % 2 else "prior",
            accuracy={"prior": accuracy, "trees": 0.5, "both": 0.9}, foreseen_s=((1.1e-3, 1e-3),),
        )
        for i in range(n)
    )  # fmt: skip


def test_page_says_what_the_models_foretold(tmp_path: Path) -> None:
    run = RunEntry(rankings=rankings(4, 0.75), models=("pretrained-lstm",))
    page = render(make_manifest(make_task(), run=run), tmp_path)
    assert "What the cost models foretold" in page
    assert "pretrained-lstm" in page
    facts = find_facts(make_manifest(run=run)).rankings
    assert facts is not None
    assert facts.accuracy == pytest.approx({"prior": 0.75, "trees": 0.5, "both": 0.9})
    assert facts.listened == {"prior": 0.5, "trees": 0.0, "both": 0.5}
    assert facts.error == pytest.approx(0.1)


def test_a_page_without_trained_models_does_not_speak_of_them(tmp_path: Path) -> None:
    assert "foretold" not in render(make_manifest(make_task(), run=RunEntry()), tmp_path)
    assert find_facts(make_manifest()).rankings is None
    assert ranking_plot(RunEntry()) == ""


def test_ranking_plot_stays_small() -> None:
    assert len(ranking_plot(RunEntry(rankings=rankings(4000, 0.6)))) < 400_000
