"""A race ends when it is lost, and takes more samples of what is close; on a clock of the test's own."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import TARGET

from autotune.measure import timing
from autotune.measure.buffers import GUARD, Buffer
from autotune.measure.noise import NOISY, NoiseMeter
from search.compiler import compile_kernel
from search.problem import TensorSpec


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Sequence[float]], timing.Run]]:
    """Makes a run that takes the given seconds in turn, the last ones over and over; nobody waits."""
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def make(seconds: Sequence[float]) -> timing.Run:
        left = list(seconds)

        def run() -> None:
            clock[0] += left.pop(0) if len(left) > 1 else left[0]

        return run

    yield make


RIVAL = (1.0e-3, 1.1e-3, 1.2e-3, 1.0e-3, 1.1e-3)


def test_hopeless_at_the_first_run(kernel: Callable[[Sequence[float]], timing.Run]) -> None:
    assert timing.race(kernel([1.0]), 0.02, RIVAL) == (0.02,)


def test_a_cold_first_run_of_a_short_kernel_is_forgiven(
    kernel: Callable[[Sequence[float]], timing.Run],
) -> None:
    samples = timing.race(kernel([1e-5]), 1.5e-3, (1e-5,) * 5)
    assert samples == pytest.approx((1e-5,) * timing.CLOSE_SAMPLES)


def test_hopeless_when_warm(kernel: Callable[[Sequence[float]], timing.Run]) -> None:
    assert timing.race(kernel([8e-3]), 5e-3, RIVAL) == pytest.approx((8e-3,))


def test_lost_after_two_samples(kernel: Callable[[Sequence[float]], timing.Run]) -> None:
    assert timing.race(kernel([1.5e-3]), 2e-3, RIVAL) == pytest.approx((1.5e-3,) * 2)


def test_close_ones_are_timed_longer(kernel: Callable[[Sequence[float]], timing.Run]) -> None:
    assert len(timing.race(kernel([1.1e-3]), 2e-3, RIVAL)) == timing.CLOSE_SAMPLES


def test_without_a_rival(kernel: Callable[[Sequence[float]], timing.Run]) -> None:
    assert timing.race(kernel([1e-3]), 5.0, ()) == pytest.approx((1e-3,) * timing.CLOSE_SAMPLES)
    assert timing.race(kernel([0.04]), 5.0, ()) == pytest.approx((0.04,) * timing.SAMPLES)


def test_slow_kernels_are_not_timed_for_ever(kernel: Callable[[Sequence[float]], timing.Run]) -> None:
    samples = timing.race(kernel([0.4]), 0.4, ())
    assert samples == pytest.approx((0.4,) * 2)


@given(st.lists(st.floats(1e-6, 1e-1), min_size=1), st.lists(st.floats(1e-6, 1e-1), max_size=5))
def test_any_race_ends_with_true_samples(times: list[float], rival: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = [0.0]
        patch.setattr(timing.time, "perf_counter", lambda: clock[0])
        turn = [0]

        def run() -> None:
            clock[0] += times[turn[0] % len(times)]
            turn[0] += 1

        samples = timing.race(run, times[0], rival)
        assert 1 <= len(samples) <= timing.CLOSE_SAMPLES
        assert all(0.99 * min(times) <= s <= 1.01 * max(times) for s in samples)


def test_pairs_alternate_and_flush(kernel: Callable[[Sequence[float]], timing.Run]) -> None:
    flushed: list[int] = []
    first, second = kernel([1e-3]), kernel([2e-3])
    for swap in (False, True):
        pair = timing.pair(first, second, swap, lambda: flushed.append(1))
        assert pair == pytest.approx((1e-3, 2e-3))
    assert len(flushed) == 4 * timing.BURSTS
    assert timing.pair(first, second, False, None) == pytest.approx((1e-3, 2e-3))


def test_what_is_clear_is_timed_once(kernel: Callable[[Sequence[float]], timing.Run]) -> None:
    runs: list[int] = []
    pair = timing.pair(kernel([1e-3]), kernel([4e-3]), True, lambda: runs.append(1))
    assert pair == pytest.approx((1e-3, 4e-3)) and len(runs) == 2


def test_writing_lines_leaves_their_values_and_their_neighbours() -> None:
    kernels = timing.fixed_kernels(partial(compile_kernel, target=TARGET), 2, 1 << 20)
    buffer = Buffer(TensorSpec((7, 37), "float32"))  # not a whole number of lines
    given = np.random.default_rng(0).standard_normal((7, 37)).astype(np.float32)
    given[0, :2] = np.nan, 1e-42
    buffer.array[...] = given
    kernels.touch(buffer.lines)
    assert buffer.equals(given) and buffer.intact()
    kernels.sweeping(3 << 20)()
    kernels.touch(Buffer(TensorSpec((3,), "float32")).lines)  # less than a line


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "bool", "int64"])
@given(place=st.integers(0, 5))
def test_buffers_are_guarded_wherever_they_are(dtype: str, place: int) -> None:
    buffer = Buffer(TensorSpec((3, 5), dtype))
    buffer.move(np.random.default_rng(place))
    buffer.array[...] = 1
    assert buffer.intact()
    assert buffer.equals(np.ones((3, 5), buffer.array.dtype))
    assert buffer.array.ctypes.data % 64 == 0
    buffer.array[2, 4] = 0
    assert not buffer.equals(np.ones((3, 5), buffer.array.dtype))
    for stray in (buffer._start - 1, buffer._start - GUARD, buffer._start + buffer.bytes):
        whole = Buffer(TensorSpec((3, 5), dtype))
        whole.move(np.random.default_rng(place))
        whole._whole[stray] = 0
        assert not whole.intact()


def test_drift_is_over_the_quiet_time() -> None:
    meter = NoiseMeter()
    quiet = [meter.add(n, [1.0, 1.01, 5.0]) for n in range(20)]  # the median counts, not the spike
    assert quiet == pytest.approx([1.0] * 20)
    assert meter.add(20, [2.0]) == pytest.approx(2 / 1.01)
    assert meter.add(21, [1.01]) == pytest.approx(1.0)
    assert [p.drift > NOISY for p in meter.points].count(True) == 1


def test_a_clock_that_changed_for_good_becomes_the_quiet_time() -> None:
    meter = NoiseMeter()
    for n in range(50):
        meter.add(n, [1.0])
    drifts = [meter.add(n, [1.5]) for n in range(400)]
    assert drifts[0] == pytest.approx(1.5)
    assert drifts[-1] == pytest.approx(1.0)
