"""The page's plots: latency and noise while tuning, and each task's share of the model's time."""

import math
from collections.abc import Sequence
from itertools import pairwise

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from autotune.manifest import CurvePoint, NoiseEntry, RunEntry
from autotune.measure.noise import NOISY
from autotune.report.facts import TaskFacts
from autotune.report.numbers import latency, percent, plain, ratio, shorten
from autotune.report.svg import AFTER, BAD, BEFORE, INK, MUTED, STYLE, WIDTH_IN, to_svg
from autotune.report.tuning import MODEL_NAMES

_MAX_BARS = 20
_LABEL_CHARS = 38
_LOG_FROM = 4.0  # largest over smallest: below, a linear axis from zero says more
_TIME_UNITS = ((3600.0, "hours"), (60.0, "minutes"))
_MAX_DOTS = 600
_DOTS_ACROSS, _DOTS_UP = 250, 40  # that a plot of probes can show side by side


def curve_plot(run: RunEntry, untuned_s: float | None, measured_s: float | None) -> str:
    """The model's latency while tuning, over time and over trials, as SVG; empty without a curve.

    Args:
        untuned_s: Seconds of the untuned model.
        measured_s: Seconds of the artifact as a whole.
    """
    points = _steps(run.curve)
    if not points:
        return ""
    seconds = [p.latency_s for p in points]
    spent_s = max(run.elapsed_s, points[-1].elapsed_s)
    unit_s, unit = _time_unit(spent_s)
    levels = [(untuned_s, BEFORE, "--", "untuned"), (measured_s, INK, ":", "artifact, measured as a whole")]
    known = [(y, color, style, label) for y, color, style, label in levels if y is not None]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.2), layout="constrained")
        over_time, over_trials = figure.subplots(1, 2, sharey=True)
        _draw_curve(over_time, [*(p.elapsed_s / unit_s for p in points), spent_s / unit_s], seconds)
        _draw_curve(over_trials, [*(p.trials for p in points), max(run.trials, points[-1].trials)], seconds)
        for axes in (over_time, over_trials):
            for y, color, style, label in known:
                axes.axhline(y, color=color, linestyle=style, linewidth=1.2, label=label)
        over_time.set(xlabel=f"{unit} of tuning", ylabel="latency of the model")
        over_trials.set(xlabel="trials")
        _scale_latency(over_time, [*seconds, *(y for y, *_ in known)])
        figure.legend(*over_time.get_legend_handles_labels(), loc="outside upper left", ncols=3)
        return to_svg(figure, "Latency of the model over tuning time and over trials")


def _time_unit(spent_s: float) -> tuple[float, str]:
    return next((u for u in _TIME_UNITS if spent_s >= 2 * u[0]), (1.0, "seconds"))


def _steps(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """The points at which the latency changes: a long run must not make a large page."""
    return [*curve[:1], *(b for a, b in pairwise(curve) if b.latency_s != a.latency_s)]


def _draw_curve(axes: Axes, xs: Sequence[float], seconds: Sequence[float]) -> None:
    """Steps from each of ``xs`` to the next; the last is the end of the run."""
    axes.step(xs, [*seconds, seconds[-1]], where="post", color=AFTER, label="best so far, sum over kernels")
    axes.plot(xs[-1:], seconds[-1:], ".", color=AFTER)
    axes.set_xlim(left=0)


def _scale_latency(axes: Axes, seconds: Sequence[float]) -> None:
    if max(seconds) >= _LOG_FROM * min(seconds):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, 1.1 * max(seconds))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda s, _: latency(s)))


def noise_plot(noise: Sequence[NoiseEntry]) -> str:
    """What each probe found, over time, as SVG; empty without probes."""
    if not noise:
        return ""
    unit_s, unit = _time_unit(max(n.at_s for n in noise))
    drifts = [n.drift for n in noise]
    low, high = 0.95 * min(0.95, *drifts), 1.1 * max(1.4, *drifts)
    shown = _visible(noise, math.log(high / low))
    with mpl.rc_context({**STYLE, "path.simplify": False}):  # it takes out lines without length
        figure = Figure(figsize=(WIDTH_IN, 2.2), layout="constrained")
        axes = figure.subplots()
        axes.axhline(NOISY, color=INK, linestyle="--", linewidth=1.2, label=f"noisy above {ratio(NOISY)}")
        for color, label, noisy in ((AFTER, "quiet probe", False), (BAD, "noisy probe", True)):
            if dots := [(n.at_s / unit_s, n.drift) for n in shown if (n.drift > NOISY) is noisy]:
                _draw_dots(axes, dots, color, label)
        axes.set(xlabel=f"{unit} since the start", ylabel="over the quiet time")
        axes.set(yscale="log", ylim=(low, high))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > _LOG_FROM else (1, 1.2, 1.5, 2, 3)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda drift, _: f"{drift:g}x"))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
        return to_svg(figure, "Noise of the machine over time")


def _visible(noise: Sequence[NoiseEntry], height: float) -> list[NoiseEntry]:
    """One probe of those that would lie on each other: a long run must not make a large page.

    Args:
        height: Of the plot, as the logarithm of its highest drift over its lowest.
    """
    width_s = max(n.at_s for n in noise) / _DOTS_ACROSS or 1.0
    return list({(n.at_s // width_s, math.log(n.drift) // (height / _DOTS_UP)): n for n in noise}.values())


def _draw_dots(axes: Axes, dots: Sequence[tuple[float, float]], color: str, label: str) -> None:
    """Lines without length but with round ends, all in one path: markers would make a larger page."""
    xs = [x for dot, _ in dots for x in (dot, dot, math.nan)]
    ys = [y for _, dot in dots for y in (dot, dot, math.nan)]
    axes.plot(xs, ys, color=color, linewidth=3, solid_capstyle="round", label=label)


def ranking_plot(run: RunEntry) -> str:
    """What the cost models had foretold, as SVG; empty where no trained one took part.

    Left, how well each ranked the candidates of a round before they were measured, over the rounds; right,
    the seconds that the trained one foretold, over those measured.
    """
    if not run.rankings:
        return ""
    pairs = [p for r in run.rankings for p in r.foreseen_s]
    pairs = pairs[:: max(1, len(pairs) // _MAX_DOTS)]
    with mpl.rc_context({**STYLE, "path.simplify": False}):
        figure = Figure(figsize=(WIDTH_IN, 3.0), layout="constrained")
        by_round, foretold = figure.subplots(1, 2)
        for name, color in zip(("prior", "trees", "both"), (BEFORE, MUTED, AFTER), strict=True):
            if accuracy := [r.accuracy[name] for r in run.rankings if name in r.accuracy]:
                by_round.plot(_averaged(accuracy), color=color, label=MODEL_NAMES[name])
        by_round.axhline(0.5, color=INK, linestyle="--", linewidth=1.2, label="chance")
        by_round.set(xlabel="rounds", ylabel="pairs ordered rightly", ylim=(0.0, 1.02))
        if pairs:
            _draw_dots(foretold, [(measured, said) for said, measured in pairs], AFTER, "candidate")
            ends = [min(min(p) for p in pairs), max(max(p) for p in pairs)]
            foretold.plot(ends, ends, color=INK, linestyle="--", linewidth=1.2)
            foretold.set(xscale="log", yscale="log", xlabel="measured", ylabel="foretold")
            for axis in (foretold.xaxis, foretold.yaxis):
                axis.set_minor_formatter(NullFormatter())
                axis.set_major_formatter(FuncFormatter(lambda s, _: latency(s)))
        figure.legend(*by_round.get_legend_handles_labels(), loc="outside upper left", ncols=4)
        return to_svg(figure, "What the cost models had foretold")


def _averaged(values: Sequence[float]) -> list[float]:
    """Each with those just before it: one round says little."""
    return [sum(some) / len(some) for n in range(len(values)) if (some := values[max(0, n - 7) : n + 1])]


def share_plot(tasks: Sequence[TaskFacts]) -> str:
    """Each task's share of the model's time before and after, as SVG; empty where no time is known.

    Args:
        tasks: The longest first. Those after the first ``_MAX_BARS`` share a bar.
    """
    known = [t for t in tasks if t.after_share is not None or t.before_share is not None]
    if not known:
        return ""
    shown, rest = known[:_MAX_BARS], known[_MAX_BARS:]
    groups = [(shorten(plain(t.entry.name), _LABEL_CHARS), [t]) for t in shown]
    if rest:
        groups.append((f"the other {len(rest)}", rest))
    before = [_sum([t.before_share for t in group]) for _, group in groups]
    after = [_sum([t.after_share for t in group]) for _, group in groups]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 0.8 + 0.34 * len(groups)), layout="constrained")
        axes = figure.subplots()
        _draw_bars(axes, -0.19, before, color=BEFORE, label="before")
        _draw_bars(axes, 0.19, after, color=AFTER, label="after")
        axes.set_yticks(range(len(groups)), [label for label, _ in groups])
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_xlim(0, 1.1 * max(s for s in before + after if s is not None))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axes.set_xlabel("share of the model's time")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        return to_svg(figure, "Share of each task in the model's time before and after tuning")


def _sum(shares: Sequence[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [s for s in shares if s is not None]
    return sum(known) if known else None


def _draw_bars(axes: Axes, offset: float, shares: Sequence[float | None], color: str, label: str) -> None:
    rows = [(row + offset, share) for row, share in enumerate(shares) if share is not None]
    if rows:
        ys, widths = zip(*rows, strict=True)
        bars = axes.barh(ys, widths, 0.36, color=color, label=label)
        axes.bar_label(bars, [percent(w) for w in widths], padding=3, fontsize=7, color=MUTED)
