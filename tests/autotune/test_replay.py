"""Searches of recorded spaces: their scores by hand, their refusals, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from autotune.cli.app import app
from autotune.errors import BadInput
from autotune.replay import comparison
from autotune.replay.kernel_tuner import strategies
from autotune.replay.recording import Outcome, Recording, from_store, read_recording
from autotune.replay.run import ours, replay, search
from autotune.replay.score import TIMES, Step, best_so_far, budget_s, p_score, random_best, times
from db.errors import NoUsableRecords
from db.store import Store
from search.errors import InvalidCandidate
from search.problem import Candidate, Conditions, ErrorKind, Hardware, MeasureError, Measurement, Workload
from search.searchers import SEARCHERS
from search.searchers.random import RandomSearcher
from search.spaces.table import TableSpace

WORK = Workload("00ff", "made up", (), 0, 0.0, 1, "")
CRASH = MeasureError(ErrorKind.CRASH, "made up")


def recording(n: int = 12, failing: int = 0, name: str = "made up") -> Recording:
    """n x n configurations, the best in a corner; each takes a second."""
    outcomes = {
        (x, y): Outcome((1.0 + x + 0.5 * y,), None, 1.0)
        if (x + y) % 10 >= failing
        else Outcome((), CRASH, 1.0)
        for x in range(n)
        for y in range(n)
    }
    return Recording(name, TableSpace(WORK, list(outcomes), ("x", "y")), outcomes)


def invoke(arguments: list[str]) -> str:
    return CliRunner().invoke(app, arguments, catch_exceptions=False).output


def line(*latencies_s: float) -> Recording:
    outcomes = {(n,): Outcome((s,), None, 1.0) for n, s in enumerate(latencies_s)}
    return Recording("line", TableSpace(WORK, list(outcomes)), outcomes)


def test_random_search_by_hand() -> None:
    """Of nine, after M draws the best has rank round(M x 10 / (M + 1)) from the slowest."""
    nine = line(*(float(n) for n in range(1, 10)))
    assert random_best(nine, np.array([1.0, 4.0, 9.0])).tolist() == [5.0, 2.0, 1.0]


def test_the_budget_ends_where_random_search_is_close_to_the_optimum() -> None:
    hundred = line(*(float(n) for n in range(1, 101)))
    # Within 1 + 0.05 x (50.5 - 1) = 3.475, so of rank 98 at least.
    # round(M x 101 / (M + 1)) >= 98 from M = 28 on.
    assert budget_s(hundred) == 28.0


@given(st.lists(st.floats(0.1, 10.0), min_size=5, max_size=60, unique=True))
def test_scores_of_the_extremes(latencies_s: list[float]) -> None:
    recorded = line(*latencies_s)
    at_once = best_so_far(recorded, [Step(0.0, min(latencies_s))])
    assert p_score(recorded, at_once) in (pytest.approx(1.0), 0.0)  # 0 where random search has it at once
    moments = times(recorded)
    as_random = random_best(recorded, moments / recorded.mean_cost_s)
    assert p_score(recorded, as_random) == pytest.approx(0.0)
    assert best_so_far(recorded, []).tolist() == [max(latencies_s)] * TIMES


def test_the_mean_of_random_searches_is_what_was_computed() -> None:
    recorded = line(*(float(n) for n in range(1, 301)))
    reached = np.mean([best_so_far(recorded, search("random", recorded, s, 4)) for s in range(100)], axis=0)
    computed = random_best(recorded, times(recorded) / recorded.mean_cost_s)
    assert np.abs(reached / computed - 1)[TIMES // 4 :].max() < 0.4  # minima of few draws scatter a lot


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_searcher_replays(name: str) -> None:
    recorded = recording(6, failing=4)
    steps = search(name, recorded, seed=1)
    assert len(steps) >= budget_s(recorded)
    assert [s.at_s for s in steps] == [1.0 + n for n in range(len(steps))]
    assert min(s.latency_s for s in steps) < np.inf


def test_the_same_seed_takes_the_same_steps() -> None:
    assert search("cascade", recording(), 3) == search("cascade", recording(), 3)


def test_what_was_not_recorded_is_refused() -> None:
    recorded = recording(3)
    with pytest.raises(InvalidCandidate, match="was not recorded"):
        recorded.measure(Candidate("00ff", "table/1", (9, 9), ""))


@pytest.fixture(params=["kernel_tuner", "t4"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    configurations = [{"block": b, "tile": t} for b in (16, 32, 64, 128) for t in (1, 2, 4, 8)]
    times_ms = [[10.0 + c["block"] / 16 - c["tile"]] * 3 for c in configurations]
    if request.param == "t4":
        results = [
            {
                "configuration": c,
                "times": {"compilation": 500.0, "framework": 1.0, "validation": 0.0, "runtimes": t},
                "invalidity": "correct",
            }
            for c, t in zip(configurations, times_ms, strict=True)
        ]
        text = json.dumps({"metadata": {"timeunit": "milliseconds"}, "results": results})
    else:
        entries = {
            f"{c['block']},{c['tile']}": c
            | {"time": t[0], "times": t, "compile_time": 500.0, "benchmark_time": 3.0, "verification_time": 0}
            for c, t in zip(configurations, times_ms, strict=True)
        }
        head = {"device_name": "A made up GPU", "kernel_name": "k", "problem_size": [1]}
        values = {"block": [16, 32, 64, 128], "tile": [1, 2, 4, 8]}
        text = json.dumps(
            head | {"tune_params_keys": ["block", "tile"], "tune_params": values, "cache": entries}
        )
    path = tmp_path / "recorded.json"
    path.write_text(text)
    return path


def test_files_of_both_formats_are_read(file: Path) -> None:
    recorded = read_recording(file)
    assert len(recorded.outcomes) == 16
    assert recorded.latencies_s[-1] == pytest.approx(3e-3)
    assert 0.5 <= recorded.mean_cost_s < 0.6


def test_a_file_without_costs_and_one_where_nothing_ran(file: Path, tmp_path: Path) -> None:
    found = json.loads(file.read_text())
    for entry in [*found.get("cache", {}).values(), *(r["times"] for r in found.get("results", []))]:
        entry |= {
            k: 0.0 for k in entry if k in ("compile_time", "benchmark_time", "compilation", "framework")
        }
    file.write_text(json.dumps(found))
    assert read_recording(file).mean_cost_s > 0
    for entry in found.get("cache", {}).values():
        entry["time"] = "RuntimeFailedConfig"
    for result in found.get("results", []):
        result["invalidity"] = "runtime"
    file.write_text(json.dumps(found))
    with pytest.raises(NoUsableRecords, match="none of its 16 candidates ran"):
        read_recording(file)


def test_a_recording_of_one_point_is_at_its_optimum() -> None:
    recorded = line(1.0)
    assert p_score(recorded, best_so_far(recorded, search("cascade", recorded, 0))) == 0.0


def test_what_a_database_holds_can_be_replayed(tmp_path: Path) -> None:
    conditions = Conditions(Hardware("made up", 2), "{}", 2)
    with Store.open(str(tmp_path / "db"), create=True) as store:
        store.add_workload(WORK)
        candidates = [Candidate("00ff", "tvm-trace/2", (0, (n, 64 // n)), "t") for n in (1, 2, 4, 8, 16)]
        measured = [Measurement(c, (1.0 + n,), build_s=0.5) for n, c in enumerate(candidates)]
        store.add_measurements(None, conditions, [*measured, Measurement(candidates[0], (3.0,))])
        recorded = from_store(store, "00ff")
    assert recorded.space.name == "tvm-trace/2"
    assert len(recorded.outcomes) == 5
    assert recorded.outcomes[0, (2, 32)].cost_s == 2.5


def test_searchers_are_compared_on_the_same_seeds() -> None:
    recordings = [recording(8), recording(7, name="smaller")]
    compared = comparison.compare(
        recordings, replay(ours(["droplet", "random"]), recordings, repeats=3, jobs=2)
    )
    assert {s.searcher for s in compared.standings} == {"droplet", "random"}
    assert compared.standings[0].scores.shape == (2, 3)
    assert compared.curves["random", "smaller"].shape == (3, TIMES)
    found = json.loads(comparison.to_json(compared))
    assert found["recordings"][0] == {"name": "made up", "budget_s": budget_s(recordings[0])}


def test_kernel_tuner_runs_beside_ours() -> None:
    recorded = recording(8)
    (run,) = strategies(("genetic_algorithm",)).values()
    steps = run(recorded, 0)
    assert [s.at_s for s in steps] == [1.0 + n for n in range(len(steps))]  # each candidate counts once
    assert len(steps) > 10


def test_a_run_of_kernel_tuner_is_told_nothing_by_those_before_it() -> None:
    """Its space remembers neighbours that were asked for, and would propose those to the next run."""
    recorded = recording(12)
    (run,) = strategies(("simulated_annealing",)).values()
    first, _, again = (best_so_far(recorded, run(recorded, seed)) for seed in (0, 1, 0))
    assert first.tolist() == again.tolist()


def test_random_search_is_the_same_there_and_here() -> None:
    """Both are charged and judged alike: their mean scores differ by no more than chance."""
    recorded, (theirs,) = recording(12, failing=3), strategies(("random_sample",)).values()
    searches = (theirs, lambda r, seed: search("random", r, seed))
    scores = np.array(
        [[p_score(recorded, best_so_far(recorded, s(recorded, n))) for n in range(60)] for s in searches]
    )
    noise = np.sqrt((scores.var(axis=1, ddof=1) / scores.shape[1]).sum())
    assert abs(scores[0].mean() - scores[1].mean()) < 3 * noise


def test_the_first_candidates_come_one_by_one() -> None:
    sizes: list[int] = []

    class Watched(RandomSearcher):
        def suggest(self, n: int) -> list[Candidate]:
            sizes.append(n)
            return super().suggest(n)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SEARCHERS, "random", lambda space, scorers, seed: Watched(space, seed))
        search("random", line(*(float(n) for n in range(1, 301))), 0)
    assert sizes[:4] == [1, 1, 1, 1]
    assert sizes == sorted(sizes)
    assert max(sizes) >= 4


def test_the_command(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = invoke(["replay", str(file), "--repeats", "2", "--jobs", "1", "--out", str(out)])
    assert "P score" in text
    assert "cascade" in text
    assert "<svg" in (out / "replay.html").read_text()
    assert len(json.loads((out / "replay.json").read_text())["searchers"]) == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no-such-file.json"], "expected a file that exists"),
        (["{file}", "--searcher", "magic"], "no searcher 'magic'; there are random"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], text: str, file: Path) -> None:
    with pytest.raises(BadInput, match=text):
        invoke(["replay", *(a.format(file=file) for a in arguments)])
