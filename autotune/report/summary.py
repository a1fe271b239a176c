"""The report in a terminal: what there is to know at a glance, in 80 columns."""

from collections.abc import Callable, Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autotune.manifest import Manifest
from autotune.profile import OTHER
from autotune.report import numbers
from autotune.report.facts import Facts, TaskFacts, find_facts
from autotune.report.spread import Estimate, interval
from autotune.report.tuning import MODEL_NAMES

_MAX_TASKS = 15
_MAX_NAMES = 4  # of tasks left untuned for the same reason
_MIN_NAME = 12
_OTHER_COLUMNS = 60  # characters of a row beside the task's name
_MAX_PHASES = 4
_PHASES = {
    "search": "choosing",
    "model": "cost model",
    "build": "compiling",
    "run": "timing",
    "idle": "waiting for quiet",
}
_COLORS = {"tuned": "green", "unverified": "yellow", "untuned": "red"}


def print_summary(manifest: Manifest, console: Console) -> None:
    """Prints headline, table of tasks, what was left untuned and why, failures, time and noise."""
    facts = find_facts(manifest)
    for line in (*_headline(facts), _verdict(facts)):
        console.print(line)
    console.print(_table(facts, console.width))
    for line in (
        *_rest(facts),
        *_untuned(facts),
        _failures(manifest),
        *_phases(facts),
        *_models(facts),
        *_noise(facts),
    ):
        console.print(line)


def _headline(facts: Facts) -> Iterator[Text]:
    """Before, after and the speed-up; of the kernels timed both ways where the whole model's is not known."""
    line = Text.assemble((numbers.plain(facts.manifest.model.name), "bold"), ": ")
    if not facts.latency:
        yield line.append("latency not known")
    elif facts.before and facts.speedup:
        before, after = (numbers.latency(e.middle) for e in (facts.before, facts.latency))
        yield line.append(f"{before} before, {after} after, ").append(_speedup(facts.speedup))
        yield Text("estimated from kernels: their sum before, the whole artifact after, not paired", "dim")
    else:
        yield line.append(_with_spread(facts.latency, numbers.latency))
    if facts.paired and not facts.speedup:
        kernels = f"{facts.paired.kernels} of {len(facts.tasks)} tasks timed both ways: "
        yield Text(kernels).append(_speedup(facts.paired.speedup))


def _speedup(value: Estimate) -> Text:
    return Text(f"speed-up {_with_spread(value, numbers.ratio)}", "green" if value.low > 1 else "yellow")


def _with_spread(value: Estimate, text: Callable[[float], str]) -> str:
    spread = interval(value, text)
    return text(value.middle) + (f" ({spread})" if spread else "")


def _verdict(facts: Facts) -> Text:
    check = facts.manifest.check
    verdict = ("verified against ", "") if facts.verified else ("differs from ", "bold red")
    error = f": error {numbers.scientific(check.max_error)}, {numbers.scientific(check.tolerance)} allowed"
    return Text.assemble(verdict, numbers.plain(check.reference), error)


def _table(facts: Facts, width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("Task", no_wrap=True)
    for name in ("Calls", "Before", "After", "Faster", "GFLOP/s", "Peak", "Trials"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Status", no_wrap=True)
    for task in facts.tasks[:_MAX_TASKS]:
        table.add_row(*_cells(task, max(_MIN_NAME, width - _OTHER_COLUMNS)))
    return table


def _rest(facts: Facts) -> Iterator[Text]:
    if rest := facts.tasks[_MAX_TASKS:]:
        share = sum(t.after_share or 0.0 for t in rest)
        yield Text(f"and {len(rest)} more, with {numbers.percent(share)} of the time", "dim")


def _cells(task: TaskFacts, width: int) -> Iterator[Text]:
    entry = task.entry
    for text in (
        numbers.shorten(numbers.plain(entry.name), width),
        str(entry.weight),
        numbers.latency(task.before.middle if task.before else None),
        numbers.latency(task.after.middle if task.after else None),
        numbers.ratio(task.speedup.middle if task.speedup else None),
        numbers.digits(task.gflops),
        numbers.UNKNOWN if task.of_peak is None else f"{task.of_peak:.0%}",
        str(entry.trials),
    ):
        yield Text(text)
    yield Text(task.status, _COLORS[task.status])


def _untuned(facts: Facts) -> Iterator[Text]:
    for reason, names in facts.untuned.items():
        shown = ", ".join(numbers.plain(n) for n in names[:_MAX_NAMES])
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        yield Text.assemble(("Left untuned: ", "red"), f"{shown}{more}: {numbers.plain(reason)}")


def _failures(manifest: Manifest) -> Text:
    run = manifest.run
    if not run.trials:
        return Text("No candidate was measured: what is not in the records follows from a formula.")
    settled = " Ended early: no task promised enough any more (--gain 0 goes on)." if run.settled else ""
    if not run.failures:
        return Text(f"No failures in {run.trials} trials.{settled}")
    kinds = sorted(run.failures.items(), key=lambda item: -item[1])
    text = ", ".join(f"{count} {numbers.plain(kind).replace('_', ' ')}" for kind, count in kinds)
    return Text(f"Failures: {sum(run.failures.values())} of {run.trials} trials: {text}.{settled}")


def _phases(facts: Facts) -> Iterator[Text]:
    """The longest phases by name, and the rest as other."""
    named = [p for p in facts.phases if p.name != OTHER][:_MAX_PHASES]
    shares = [(p.share, _PHASES.get(p.name, numbers.plain(p.name))) for p in named]
    shares.append((1 - sum(p.share for p in named), OTHER))
    if facts.phases:
        shown = ", ".join(f"{100 * share:.0f} % {name}" for share, name in shares if share >= 0.005)
        yield Text(f"Time: {shown}")


def _models(facts: Facts) -> Iterator[Text]:
    if rankings := facts.rankings:
        shares = ", ".join(f"{MODEL_NAMES[n]} {numbers.percent(a)}" for n, a in rankings.accuracy.items())
        yield Text(f"Pairs ordered rightly before they were measured: {shares}")
    for name in facts.manifest.run.models:
        if name.startswith("not "):
            yield Text(f"Cost models: {name}", style="yellow")


def _noise(facts: Facts) -> Iterator[Text]:
    if noise := facts.noise:
        quiet = f"{numbers.percent(noise.quiet_share)} of {noise.probes:,} probes quiet"
        yield Text(f"Noise: {quiet}, worst {numbers.ratio(noise.worst)}")
        if noise.mostly_noisy:
            yield Text("These times are less certain than they look: autotune doctor tells why.", "yellow")
