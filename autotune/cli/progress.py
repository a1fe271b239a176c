"""What long work looks like while it runs."""

import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autotune.report.numbers import latency

if TYPE_CHECKING:
    from autotune.collect import Collected
    from autotune.tuner import Progress
    from costmodels.training import Epoch

_PLAIN_EVERY_S = 10.0


class _Live:
    """Lines that stay in place on a terminal; elsewhere one line every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        )
        self._last = -_PLAIN_EVERY_S

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def _show(self, facts: list[str], share: float, doing: str, failures: str) -> None:
        if self._live:
            self._live.update(_panel(facts, share, doing, failures))
        elif time.monotonic() - self._last > _PLAIN_EVERY_S:
            self._last = time.monotonic()
            self._console.print(" | ".join([*facts, doing]), soft_wrap=True)


class LiveProgress(_Live):
    """Of a tuner."""

    def observe(self, progress: "Progress") -> None:
        """Shows where the run stands."""
        failures = _failures(progress.failures)
        if failures:
            failures += f"; last: {progress.last_failure}"
        self._show(_facts(progress), progress.share_done, progress.doing, failures)


class LiveCollection(_Live):
    """Of a collector."""

    def observe(self, collected: "Collected") -> None:
        """Shows where collecting stands."""
        share = collected.records / max(1, collected.wanted)
        if collected.left_s is not None:
            share = collected.elapsed_s / (collected.elapsed_s + collected.left_s)
        rate = 60 * collected.measured / collected.elapsed_s if collected.elapsed_s else 0.0
        facts = [f"{collected.workloads} kernels", f"{collected.measured} measured", f"{rate:.0f}/min"]
        facts.append(f"{sum(collected.failures.values())} failed")
        if collected.left_s is not None:
            facts.append(f"{_clock(collected.left_s)} left")
        self._show(facts, share, collected.doing, _failures(collected.failures))


class LiveTraining(_Live):
    """Of a training job."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._began = time.monotonic()

    def encoded(self, done: int) -> None:
        self._show([f"{done} kernels"], 0.0, "reading and encoding measurements", "")
        self._began = time.monotonic()

    def went_on(self, epochs: int) -> None:
        self._console.print(f"going on after epoch {epochs} of a training that was left")

    def epoch(self, epoch: "Epoch", of: int) -> None:
        left_s = (time.monotonic() - self._began) / epoch.number * (of - epoch.number)
        figures = [f"{n} {epoch.metrics[n]:.3f}" for n in ("top@1", "pairwise", "tau") if n in epoch.metrics]
        facts = [
            f"epoch {epoch.number} of {of}",
            f"loss {epoch.loss:.3f}, held out {epoch.valid:.3f}",
            *figures,
        ]
        self._show([*facts, f"{_clock(left_s)} left at most"], epoch.number / of, "training", "")

    def trial(self, number: int, of: int, best: float) -> None:
        """A trial of the hyper-parameters is over."""
        self._show(
            [f"trial {number} of {of}", f"best {best:.4f}"], number / of, "choosing hyper-parameters", ""
        )


def _facts(progress: "Progress") -> list[str]:
    measured = sum(t.best is not None for t in progress.tasks)
    model = (
        f"model {latency(progress.latency_s)}"
        if measured == len(progress.tasks)
        else f"{measured} of {len(progress.tasks)} tasks measured"
    )
    facts = [model, f"{progress.trials} trials", f"{progress.trials_per_minute:.0f}/min"]
    failed = sum(progress.failures.values())
    facts.append(f"{failed} failed")
    if progress.to_prove:
        facts.append(f"{progress.proved} of {progress.to_prove} winners verified")
    if progress.left_s is not None:
        facts.append(f"{_clock(progress.left_s)} left")
    return facts


def _failures(failures: Counter[str]) -> str:
    """By kind, the most frequent first; empty without any."""
    kinds = ", ".join(f"{n} {kind}" for kind, n in failures.most_common())
    return f"failed: {kinds}" if kinds else ""


def _panel(facts: list[str], share: float, doing: str, failures: str) -> RenderableType:
    line = Table.grid(padding=(0, 2))
    line.add_row(ProgressBar(total=1.0, completed=share, width=24), *facts)
    rows: list[RenderableType] = [line, Text(doing, style="dim", overflow="ellipsis", no_wrap=True)]
    if failures:
        rows.append(Text(failures, style="yellow", overflow="ellipsis", no_wrap=True))
    return Group(*rows)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
