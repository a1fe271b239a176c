"""A benchmark's result for people, within 80 columns."""

import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autotune.bench.result import BenchResult, Comparison, Entry, KernelEntry, Status
from autotune.measure.statistics import FEWEST_PAIRS, Verdict

_QUIET = 0.05  # of the CPUs, for other programs: more, and thread pools that spin wait for whole time slices
_BUSY = (
    "Other programs used {share:.0%} of the CPUs. Peers whose threads wait for each other suffer most from "
    "that: measure again on a quiet machine."
)
_NOTE = (
    "Brackets: 95 % bootstrap interval. theirs/ours: median over rounds. Verdict on P(ours faster) over "
    "pairs of runs (Bouthillier et al. 2021): slower or faster where the difference is meaningful, mostly so "
    "where it is only significant. error: against {reference}."
)


def print_bench(result: BenchResult, console: Console) -> None:
    """Prints a table of the contestants that ran, then how each ran or why it did not."""
    compared = any(e.versus for e in result.entries)
    title = f"{result.model}: {_count(result.threads, 'thread')}, {_count(result.rounds, 'round')}"
    console.print(f"[bold]{escape(title)}[/] on {escape(result.machine)}")
    console.print(_table([e for e in result.entries if e.status is Status.RAN], compared))
    for entry in result.entries:
        if line := _remark(entry, result.rounds):
            console.print(f"  {escape(entry.name)}: {line}")
    print_kernels(result.kernels, result.not_compared, console)
    if result.foreign_load > _QUIET:
        console.print(f"[yellow]{_BUSY.format(share=result.foreign_load)}[/]", highlight=False)
    console.print(_NOTE.format(reference=result.reference), style="dim", highlight=False)


def print_kernels(kernels: Sequence[KernelEntry], not_compared: Sequence[str], console: Console) -> None:
    """Prints a table of layers, what the vendors' kernels would bring, and what could not be compared."""
    if kernels:
        _print_kernels(kernels, console)
    for layer in not_compared:
        console.print(f"not compared: {escape(layer)}", highlight=False)


def _print_kernels(kernels: Sequence[KernelEntry], console: Console) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", title="kernels")
    for column in ("layer", "", "ours", "GFLOP/s", "vendor", "GFLOP/s", "theirs/ours"):
        table.add_column(column, justify="right" if column in ("GFLOP/s", "theirs/ours") else "left")
    for k in kernels:
        ratio = f"{k.ratio:.2f} [{k.ratio_low:.2f}, {k.ratio_high:.2f}]"
        ours, theirs = (f"{k.gflop / s:.0f}" for s in (k.ours_s, k.vendor_s))
        times = f"x{k.count}" if k.count > 1 else ""
        table.add_row(*map(escape, (k.layer, times, k.ours, ours, k.vendor, theirs, ratio)))
    console.print(table)
    disturbed = statistics.mean(k.disturbed for k in kernels)
    faster, saved_s = sum(k.would_save_s > 0 for k in kernels), sum(k.would_save_s for k in kernels)
    ratios = [k.ratio for k in kernels]
    console.print(
        f"{_count(len(kernels), 'layer')}: theirs/ours {statistics.geometric_mean(ratios):.2f} (geometric "
        f"mean), {min(ratios):.2f} at worst. A vendor's kernel is faster for {faster}: they would "
        f"save {saved_s * 1e3:.2f} ms a run. Other load had the cores in {disturbed:.0%} of the samples.",
        highlight=False,
    )


def _table(entries: list[Entry], compared: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("")
    table.add_column("median ms", justify="right")
    if compared:
        table.add_column("theirs/ours", justify="right")
        table.add_column("ours is")
    table.add_column("error", justify="right")
    for entry in entries:
        cells = [escape(entry.name), _median(entry)]
        if compared:
            cells += [_ratio(entry.versus), _verdict(entry.versus)]
        table.add_row(*cells, _error(entry))
    return table


def _median(entry: Entry) -> str:
    if entry.median_s is None or entry.low_s is None or entry.high_s is None:
        return ""
    digits = _digits(entry.median_s * 1e3)
    median, low, high = (f"{s * 1e3:.{digits}f}" for s in (entry.median_s, entry.low_s, entry.high_s))
    return escape(f"{median} [{low}, {high}]")


def _ratio(versus: Comparison | None) -> str:
    if versus is None:
        return ""
    digits = _digits(versus.ratio)
    ratio, low, high = (f"{r:.{digits}f}" for r in (versus.ratio, versus.ratio_low, versus.ratio_high))
    return escape(f"{ratio} [{low}, {high}]")


def _verdict(versus: Comparison | None) -> str:
    if versus is None:
        return ""
    if versus.pairs < FEWEST_PAIRS:
        return "too few rounds"
    if versus.verdict is Verdict.NOT_SIGNIFICANT:
        return "not significant"
    side, color = ("faster", "green") if versus.p_faster >= 0.5 else ("slower", "red")
    degree = "" if versus.verdict is Verdict.MEANINGFUL else "mostly "
    return f"[{color}]{degree}{side}[/]"


def _error(entry: Entry) -> str:
    return f"{entry.error:.0e}" if entry.agrees else f"[red]{entry.error:.0e}[/]"


def _remark(entry: Entry, rounds: int) -> str:
    """How it ran, or why it did not; empty where there is nothing to say."""
    if entry.status is not Status.RAN:
        return f"[red]{entry.status}[/]: {escape(entry.note)}"
    said = [f"{entry.version}", entry.note]
    if len(entry.rounds) < rounds:
        said.append(_count(len(entry.rounds), "round"))
    if not entry.agrees:
        said.append("[red]its outputs differ from the original's[/]")
    return ", ".join(s for s in said if s)


def _digits(value: float) -> int:
    """Decimals that give three or four significant digits."""
    return 3 if value < 1 else 2 if value < 100 else 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
