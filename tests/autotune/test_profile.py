"""Tests of the tuner's profile of itself."""

import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune import profile as module
from autotune.profile import Phase, Profile

if TYPE_CHECKING:
    from _typeshed import TraceFunction

PHASES: tuple[Phase, ...] = ("search", "model", "run")
Tree = tuple[Phase, int, list["Tree"]]


class Clock:
    """Stands still but where a test moves it, and for what each reading of it takes."""

    def __init__(self, reading_ns: int = 0) -> None:
        self.now_ns = 0
        self.reading_ns = reading_ns

    def __call__(self) -> int:
        self.now_ns += self.reading_ns
        return self.now_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "perf_counter_ns", clock)
    return clock


def trees(depth: int = 3) -> st.SearchStrategy[list[Tree]]:
    within = trees(depth - 1) if depth else st.just([])
    return st.lists(st.tuples(st.sampled_from(PHASES), st.integers(0, 10**10), within), max_size=3)


@given(trees())
@settings(max_examples=50, deadline=None)
def test_time_counts_to_the_innermost_span(drawn: list[Tree]) -> None:
    expected: dict[str, float] = {}

    def spend(phase: Phase, ns: int, within: list[Tree]) -> None:
        with profile.span(phase):
            clock.now_ns += ns
            expected[phase] = expected.get(phase, 0.0) + ns / 1e9
            for tree in within:
                spend(*tree)

    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "perf_counter_ns", clock)
        profile = Profile()
        for tree in drawn:
            spend(*tree)
        assert profile.seconds() == pytest.approx({"other": 0.0, "profiler": 0.0} | expected)


def test_open_spans_count_so_far(clock: Clock) -> None:
    profile = Profile()
    clock.now_ns += 10**9
    with profile.span("build"):
        clock.now_ns += 2 * 10**9
        assert profile.seconds() == {"other": 1.0, "build": 2.0, "profiler": 0.0}
        clock.now_ns += 10**9
    assert profile.seconds() == {"other": 1.0, "build": 3.0, "profiler": 0.0}


def test_own_cost_is_taken_out_of_the_phases_it_fell_into(clock: Clock) -> None:
    clock.reading_ns = 100  # so an empty span costs 100 ns within it and 100 ns around it
    profile = Profile()
    with profile.span("search"):
        for _ in range(1000):
            with profile.span("model"):
                clock.now_ns += 7
    ns = {phase: round(s * 1e9) for phase, s in profile.seconds().items()}
    assert ns == {
        "other": 100,
        "search": 0,
        "model": 7000,
        "profiler": 2 * 1001 * 100,
    }  # other: seconds() itself


def test_no_phase_is_charged_more_than_it_has(clock: Clock) -> None:
    clock.reading_ns = 100
    profile = Profile()
    clock.reading_ns = 10  # faster than when calibrated
    with profile.span("search"):
        clock.now_ns += 5
    seconds = profile.seconds()
    assert seconds["search"] == seconds["other"] == 0
    assert sum(seconds.values()) == pytest.approx(35e-9)


def test_times_sum_to_the_wall_time() -> None:
    started = time.perf_counter()
    profile = Profile()
    made = time.perf_counter()
    for _ in range(100):
        with profile.span("search"), profile.span("model"):
            sum(range(1000))
    total, now = sum(profile.seconds().values()), time.perf_counter()
    assert now - made <= total + 1e-3  # a switch to another process may fall between two readings
    assert total <= now - started
    assert made - started < 0.5


def test_empty_spans_cost_the_phases_little(clock: Clock) -> None:
    def tick(frame: FrameType, event: str, arg: Any) -> "TraceFunction":
        """Each instruction of the interpreter takes a nanosecond, on any machine."""
        frame.f_trace_opcodes = True
        clock.now_ns += event == "opcode"
        return tick

    def kept() -> float:
        """Share of the time of empty spans that is not attributed to the profiler."""
        profile = Profile()
        with profile.span("search"):
            for _ in range(1000):
                with profile.span("model"):
                    pass
        seconds = profile.seconds()
        return 1 - seconds["profiler"] / sum(seconds.values())

    before = sys.gettrace()
    sys.settrace(tick)
    try:
        share = kept()
    finally:
        sys.settrace(before)
    assert 0 < share < 0.1


def test_exceptions_close_spans(clock: Clock) -> None:
    profile = Profile()
    with pytest.raises(KeyError), profile.span("search"), profile.span("model"):
        clock.now_ns += 10**9
        raise KeyError
    clock.now_ns += 2 * 10**9
    assert profile.seconds() == {"other": 2.0, "search": 0.0, "model": 1.0, "profiler": 0.0}


def test_a_span_open_across_a_yield_is_refused() -> None:
    def generate() -> Iterator[None]:
        with profile.span("model"):
            yield

    profile = Profile()
    generator = generate()
    with pytest.raises(RuntimeError, match="across a yield"), profile.span("search"):
        next(generator)
