"""What follows from a manifest: medians, spreads, shares and rates, for the page and the terminal alike."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from autotune.manifest import Manifest, TaskEntry
from autotune.report.spread import Estimate, estimate_medians
from autotune.report.tuning import (
    NoiseFacts,
    PhaseFacts,
    RankingFacts,
    find_noise,
    find_phases,
    find_rankings,
)
from search.problem import Cache

NO_REASON = "nothing usable was found"


@dataclass(frozen=True)
class TaskFacts:
    """A task, and what its samples say.

    Attributes:
        status: As in the manifest, or ``unverified``: in the artifact, but never timed beside plain loops.
        before: Seconds of one call with plain loops.
        after: Seconds of one call in the artifact; of an unverified kernel, as measured while tuning.
        speedup: Of the paired samples.
        gflops: 10^9 operations a second after tuning; None of a kernel without any.
        gbps: 10^9 bytes of arguments a second after tuning.
        of_peak: ``gflops`` as a share of the machine's probed float32 peak.
        before_share: Of the summed time of all kernels whose time is known, calls counted.
        after_share: The same.
    """

    entry: TaskEntry
    status: str
    before: Estimate | None
    after: Estimate | None
    speedup: Estimate | None
    gflops: float | None
    gbps: float | None
    of_peak: float | None
    before_share: float | None = None
    after_share: float | None = None

    @property
    def before_total(self) -> Estimate | None:
        """Seconds of all its calls in one run of the model, with plain loops."""
        return self.before * self.entry.weight if self.before else None

    @property
    def after_total(self) -> Estimate | None:
        """Seconds of all its calls in one run of the artifact."""
        return self.after * self.entry.weight if self.after else None


@dataclass(frozen=True)
class Paired:
    """Those kernels that were timed before and after, in pairs: seconds of all their calls in one run."""

    kernels: int
    calls: int
    before: Estimate
    after: Estimate

    @property
    def speedup(self) -> Estimate:
        return self.before / self.after


@dataclass(frozen=True)
class Facts:
    """A manifest, and what follows from it.

    Attributes:
        tasks: The longest in the artifact first; those of unknown time last.
        latency: Seconds of one run of the artifact.
        before: Seconds of the untuned model, as the sum over its kernels.
        paired: None where no kernel was timed both ways.
        noise: None where the machine's noise was not probed.
        rankings: None where no trained cost model took part.
        phases: Where the tuner's own time went; empty where it is not known.
    """

    manifest: Manifest
    tasks: tuple[TaskFacts, ...]
    latency: Estimate | None
    before: Estimate | None
    paired: Paired | None
    noise: NoiseFacts | None
    phases: tuple[PhaseFacts, ...]
    rankings: RankingFacts | None

    @property
    def speedup(self) -> Estimate | None:
        """An estimate from kernels: their sum with plain loops, over the artifact; the two are not paired."""
        return self.before / self.latency if self.before and self.latency else None

    @property
    def after(self) -> Estimate | None:
        """Seconds of the kernels in the artifact, as their sum."""
        return _sum(t.after_total for t in self.tasks)

    @property
    def peak_gflops(self) -> float | None:
        """What the machine reached on a probe, float32, all cores."""
        return self.manifest.hardware.probes.get("peak_gflops_f32")

    @property
    def verified(self) -> bool:
        """Whether the artifact computes what the original model does."""
        return self.manifest.check.max_error <= self.manifest.check.tolerance

    @property
    def caches(self) -> set[Cache]:
        """In which states of the caches the pairs were timed."""
        return {t.entry.cache for t in self.tasks if t.entry.cache}

    @property
    def untuned(self) -> dict[str, list[str]]:
        """Names of the tasks left untuned, by reason."""
        reasons: dict[str, list[str]] = defaultdict(list)
        for task in self.tasks:
            if task.status == "untuned":
                reasons[task.entry.note or NO_REASON].append(task.entry.name)
        return dict(reasons)


def find_facts(manifest: Manifest) -> Facts:
    """Works out what a manifest says; the same one gives the same intervals."""
    rng = np.random.default_rng(0)
    latency = _median(manifest.latency_s, rng)
    peak = manifest.hardware.probes.get("peak_gflops_f32")
    tasks = [_task_facts(t, peak, rng) for t in manifest.tasks]
    shares = zip(_shares(t.before_total for t in tasks), _shares(t.after_total for t in tasks), strict=True)
    tasks = [replace(t, before_share=b, after_share=a) for t, (b, a) in zip(tasks, shares, strict=True)]
    tasks.sort(key=lambda t: t.after_total.middle if t.after_total else -1.0, reverse=True)
    before = None
    if manifest.untuned_s is not None:
        before = _sum(t.before_total for t in tasks) or Estimate.exact(manifest.untuned_s)
    noise, phases = find_noise(manifest.run), find_phases(manifest.run)
    rankings = find_rankings(manifest.run)
    return Facts(manifest, tuple(tasks), latency, before, _paired(tasks), noise, phases, rankings)


def _task_facts(task: TaskEntry, peak: float | None, rng: np.random.Generator) -> TaskFacts:
    before, after, speedup = _times(task, rng)
    seconds = after.middle if after else None
    gflops = task.flop / seconds / 1e9 if seconds and task.flop else None
    return TaskFacts(
        entry=task,
        status="unverified" if task.status == "tuned" and not task.p_faster else task.status,
        before=before,
        after=after,
        speedup=speedup,
        gflops=gflops,
        gbps=task.bytes / seconds / 1e9 if seconds else None,
        of_peak=gflops / peak if gflops and peak else None,
    )


def _times(task: TaskEntry, rng: np.random.Generator) -> tuple[Estimate | None, ...]:
    """Seconds before and after, and the speed-up; what is untuned stays as it was."""
    if task.status == "tuned" and 0 < len(task.before_s) == len(task.after_s):
        before, after = estimate_medians(rng, task.before_s, task.after_s)
        return before, after, before / after
    untuned = _median(task.before_s, rng)
    if task.status == "untuned":
        return untuned, untuned, None
    measured = Estimate.exact(task.best_s) if task.best_s is not None else None
    return untuned, _median(task.after_s, rng) or measured, None


def _median(samples: tuple[float, ...], rng: np.random.Generator) -> Estimate | None:
    return estimate_medians(rng, samples)[0] if samples else None


def _paired(tasks: Sequence[TaskFacts]) -> Paired | None:
    both = [t for t in tasks if t.speedup]
    before, after = _sum(t.before_total for t in both), _sum(t.after_total for t in both)
    return Paired(len(both), sum(t.entry.weight for t in both), before, after) if before and after else None


def _sum(parts: Iterable[Estimate | None]) -> Estimate | None:
    """The sum; None of nothing, or where a part is unknown."""
    known = list(parts)
    return reduce(add, known) if known and None not in known else None


def _shares(parts: Iterable[Estimate | None]) -> list[float | None]:
    """Of the sum of what is known."""
    seconds = [p.middle if p else None for p in parts]
    total = sum(s for s in seconds if s is not None)
    return [None if s is None else s / total for s in seconds]
