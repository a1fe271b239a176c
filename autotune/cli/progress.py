"""What a run looks like while it runs."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autotune.report.numbers import latency
from autotune.tuner import Progress

_PLAIN_EVERY_S = 10.0


class LiveProgress:
    """A few lines that stay in place on a terminal; elsewhere a line every ten seconds."""

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

    def observe(self, progress: Progress) -> None:
        """Shows where the run stands."""
        if self._live:
            self._live.update(_panel(progress))
        elif time.monotonic() - self._last > _PLAIN_EVERY_S:
            self._last = time.monotonic()
            self._console.print(" | ".join([*_facts(progress), progress.doing]), soft_wrap=True)


def _facts(progress: Progress) -> list[str]:
    measured = sum(t.best is not None for t in progress.tasks)
    model = (
        f"model {latency(progress.latency_s)}"
        if measured == len(progress.tasks)
        else f"{measured} of {len(progress.tasks)} tasks measured"
    )
    facts = [model, f"{progress.trials} trials", f"{progress.trials_per_minute:.0f}/min"]
    failed = sum(progress.failures.values())
    facts.append(f"{failed} failed")
    if progress.left_s is not None:
        facts.append(f"{_clock(progress.left_s)} left")
    return facts


def _panel(progress: Progress) -> RenderableType:
    share = progress.budget.share_done(progress.trials, progress.elapsed_s)
    line = Table.grid(padding=(0, 2))
    line.add_row(ProgressBar(total=1.0, completed=share, width=24), *_facts(progress))
    rows: list[RenderableType] = [line, Text(progress.doing, style="dim", overflow="ellipsis", no_wrap=True)]
    if progress.failures:
        kinds = ", ".join(f"{n} {kind}" for kind, n in progress.failures.most_common())
        text = f"failed: {kinds}; last: {progress.last_failure}"
        rows.append(Text(text, style="yellow", overflow="ellipsis", no_wrap=True))
    return Group(*rows)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
