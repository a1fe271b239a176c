"""Where the tuner's own time goes, by phase, less what asking costs.

As in RL-Scope (Gleeson et al., MLSys 2021) the profiler's own cost is calibrated, then taken out of the
phases that it fell into: otherwise those of many short spans look longer than they are.
"""

from statistics import median
from time import perf_counter_ns
from types import TracebackType
from typing import Literal

Phase = Literal["search", "features", "model", "build", "run", "database", "idle"]

OTHER = "other"  # what no span covers
PROFILER = "profiler"

_BATCHES = 20
_BATCH = 100  # empty spans: 2000 in all, about 3 ms


class Span:
    """A phase: the time in it but in no span within, and how often it was entered or left for one within.

    The context manager of all its spans, which may lie within each other.
    """

    __slots__ = ("_profile", "entered", "left", "ns")

    def __init__(self, profile: "Profile") -> None:
        self._profile = profile
        self.ns = self.entered = self.left = 0

    def __enter__(self) -> None:
        profile = self._profile
        parent = profile.stack[-1]
        parent.left += 1
        self.entered += 1
        profile.stack.append(self)
        now = perf_counter_ns()
        parent.ns += now - profile.since_ns
        profile.since_ns = now

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        profile = self._profile
        if profile.stack[-1] is not self:
            raise RuntimeError("a span was closed before one within it: was it left open across a yield?")
        now = perf_counter_ns()
        self.ns += now - profile.since_ns
        profile.since_ns = now
        profile.stack.pop()


class Profile:
    """Splits the time since it was made between phases.

        profile = Profile()
        with profile.span("search"):
            with profile.span("features"):  # counts as features only
                ...
        print(profile.seconds())

    For one thread. A span must not stay open across a ``yield``, for it would take in what the consumer does.

    Attributes:
        stack: The open spans, from the one that covers what no other does.
        since_ns: Up to here, time is counted.
    """

    def __init__(self) -> None:
        self._begin()
        self._inside_ns, self._outside_ns = self._calibrate()
        self._begin()

    def _begin(self) -> None:
        root = Span(self)
        self._spans: dict[str, Span] = {OTHER: root}
        self.stack = [root]
        self.since_ns = perf_counter_ns()

    def span(self, phase: Phase) -> Span:
        """Counts what runs within as this phase, but for spans within."""
        try:
            return self._spans[phase]
        except KeyError:
            return self._spans.setdefault(phase, Span(self))

    def seconds(self) -> dict[str, float]:
        """Of each phase so far, of ``other`` and of the ``profiler``; together the time since this was made.

        The profiler's is an estimate, an empty span's cost in a tight loop times their number, of which no
        more is charged to a phase than it has.
        """
        now = perf_counter_ns()
        self.stack[-1].ns += now - self.since_ns
        self.since_ns = now
        cost_ns = {p: min(s.ns, self._cost_ns(s)) for p, s in self._spans.items()}
        net = {p: (s.ns - cost_ns[p]) / 1e9 for p, s in self._spans.items()}
        return net | {PROFILER: sum(cost_ns.values()) / 1e9}

    def _cost_ns(self, span: Span) -> float:
        """What passes between a span's two readings of the clock falls into it, the rest into its parent."""
        return span.entered * self._inside_ns + span.left * self._outside_ns

    def _calibrate(self) -> tuple[float, float]:
        """What an empty span costs within it and in its parent, in nanoseconds."""
        inside, outside = zip(*(self._batch() for _ in range(_BATCHES)), strict=True)
        return median(inside), median(outside)  # now and then another program interrupts a batch

    def _batch(self) -> tuple[float, float]:
        before_ns = self.span("idle").ns
        started = perf_counter_ns()
        for _ in range(_BATCH):
            pass
        between = perf_counter_ns()
        for _ in range(_BATCH):
            with self.span("idle"):
                pass
        total_ns = (perf_counter_ns() - between) - (between - started)
        inside_ns = self.span("idle").ns - before_ns
        return inside_ns / _BATCH, (total_ns - inside_ns) / _BATCH
