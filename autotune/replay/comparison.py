"""What a replay showed: P scores with their spread, a table, a page of plots, JSON."""

import html
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from autotune.measure.statistics import bootstrap_interval, probability_faster, verdict
from autotune.replay.recording import Recording
from autotune.replay.run import Replayed
from autotune.replay.score import best_so_far, budget_s, p_score, random_best, times

QUARTILES = (0.25, 0.5, 0.75)
SHOWN = 6  # curves a plot holds at most, the best ones


@dataclass(frozen=True)
class Standing:
    """One searcher over all recordings.

    Attributes:
        scores: P score of each repeat on each recording, shape [recordings, repeats].
        own_s: Mean seconds that the searcher itself took for a search.
    """

    searcher: str
    scores: NDArray[np.float64]
    own_s: float

    @property
    def score(self) -> float:
        """The mean over recordings and repeats."""
        return float(self.scores.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mean over the repeats."""
        return bootstrap_interval(self.scores.mean(axis=0).tolist(), np.mean)


@dataclass(frozen=True)
class Comparison:
    """Searchers on recordings, the best first.

    Attributes:
        curves: Latency reached, in seconds, by searcher and recording, shape [repeats, times].
    """

    recordings: Sequence[Recording]
    standings: Sequence[Standing]
    curves: dict[tuple[str, str], NDArray[np.float64]]


def compare(recordings: Sequence[Recording], replayed: Iterable[Replayed]) -> Comparison:
    """Judges searches. Each searcher has the same seeds on every recording."""
    known = {r.name: r for r in recordings}
    reached: dict[str, dict[str, dict[int, NDArray[np.float64]]]] = defaultdict(lambda: defaultdict(dict))
    own_s: dict[str, list[float]] = defaultdict(list)
    for r in replayed:
        reached[r.searcher][r.recording][r.seed] = best_so_far(known[r.recording], r.steps)
        own_s[r.searcher].append(r.own_s)
    curves = {
        (searcher, name): np.stack([by_seed[seed] for seed in sorted(by_seed)])
        for searcher, by_name in reached.items()
        for name, by_seed in by_name.items()
    }
    standings = [
        Standing(
            searcher,
            np.array([[p_score(r, curve) for curve in curves[searcher, r.name]] for r in recordings]),
            float(np.mean(own_s[searcher])),
        )
        for searcher in reached
    ]
    return Comparison(recordings, sorted(standings, key=lambda s: -s.score), curves)


def print_comparison(comparison: Comparison, screen: Console) -> None:
    """A table, the best first, each beside the searcher of the first line in pairs of repeats."""
    repeats = comparison.standings[0].scores.shape[1]
    table = Table(title=f"P score (0: random search, 1: the optimum at once), {repeats} repeats", box=None)
    table.add_column("searcher")
    names = (r.name for r in comparison.recordings)
    for column in ("P", "95 %", *names, "behind", "first better", "own time"):
        table.add_column(column, justify="right")
    first = comparison.standings[0]
    for s in comparison.standings:
        low, high = s.interval
        each = (f"{p:.3f}" for p in s.scores.mean(axis=1))
        beside = ("", "") if s is first else (_behind(first, s), _beside(first, s))
        spread = f"{low:.3f} to {high:.3f}"
        table.add_row(s.searcher, f"{s.score:.3f}", spread, *each, *beside, f"{s.own_s:.2f} s")
    screen.print(table)


def _behind(first: Standing, other: Standing) -> str:
    """How much less its mean score is, with the 95 % bootstrap interval over pairs of repeats."""
    difference = (first.scores - other.scores).mean(axis=0)
    low, high = bootstrap_interval(difference.tolist(), np.mean)
    return f"{difference.mean():.2f} [{low:.2f}, {high:.2f}]"


def _beside(first: Standing, other: Standing) -> str:
    """P(first better in a paired repeat), and what that shows."""
    p, low, high = probability_faster(-first.scores.mean(axis=0), -other.scores.mean(axis=0))
    return f"{p:.2f} [{low:.2f}, {high:.2f}] {verdict(low, high)}"


def to_json(comparison: Comparison) -> str:
    """All scores and the curves' quartiles, for programs."""
    value = {
        "recordings": [{"name": r.name, "budget_s": budget_s(r)} for r in comparison.recordings],
        "searchers": [
            {"name": s.searcher, "p_score": s.score, "interval": s.interval, "own_s": s.own_s,
             "scores": s.scores.tolist()}
            for s in comparison.standings
        ],
        "quartiles_s": [
            {"searcher": searcher, "recording": name, "at": np.quantile(curve, QUARTILES, axis=0).tolist()}
            for (searcher, name), curve in comparison.curves.items()
        ],
    }  # fmt: skip
    return json.dumps(value)


def write_page(comparison: Comparison, path: Path) -> None:
    """One self-contained page: best-so-far curves with bands from the first to the third quartile."""
    from autotune.report.svg import to_svg

    plots = []
    for recording in comparison.recordings:
        with mpl.rc_context({"svg.fonttype": "none", "font.size": 9}):
            plots.append(to_svg(_figure(comparison, recording), recording.name))
    screen = Console(record=True, file=open("/dev/null", "w"), width=160)  # noqa: SIM115
    print_comparison(comparison, screen)
    style = "body{font-family:sans-serif;max-width:70em;margin:2em auto;color:#111;background:#fff}"
    parts = [
        f"<h2>{html.escape(r.name)}</h2>{svg}" for r, svg in zip(comparison.recordings, plots, strict=True)
    ]
    table = html.escape(screen.export_text())
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>Replay</title><style>{style}</style><h1>Replay</h1>"
        f"<pre>{table}</pre>{''.join(parts)}"
    )


def _figure(comparison: Comparison, recording: Recording) -> Figure:
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = figure.subplots()
    moments = times(recording)
    for standing in comparison.standings[:SHOWN]:
        low, middle, high = np.quantile(
            comparison.curves[standing.searcher, recording.name], (0.25, 0.5, 0.75), axis=0
        )
        (line,) = axes.plot(moments, 1e3 * middle, label=standing.searcher)
        axes.fill_between(moments, 1e3 * low, 1e3 * high, color=line.get_color(), alpha=0.15, linewidth=0)
    baseline = random_best(recording, moments / recording.mean_cost_s)
    axes.plot(moments, 1e3 * baseline, "k:", label="random, expected")
    axes.axhline(1e3 * recording.latencies_s[-1], color="k", linewidth=0.6, label="optimum")
    axes.set(xlabel="recorded seconds", ylabel="best so far, ms", yscale="log")
    axes.legend(ncols=2, frameon=False)
    return figure
