"""Probes of one device, made at different times."""

from autotune.session import best_of


def test_each_probe_from_its_quietest_moment() -> None:
    stored = {"peak_gflops_f32": 300.0, "fork_us": 0.9, "old": 1.0}
    fresh = {"peak_gflops_f32": 150.0, "fork_us": 0.5, "new": 2.0}
    assert best_of(fresh, stored) == {"peak_gflops_f32": 300.0, "fork_us": 0.5, "old": 1.0, "new": 2.0}
    assert best_of({}, stored) == stored
    assert best_of(fresh, {}) == fresh
