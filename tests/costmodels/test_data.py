"""Data sets: who is grouped with whom, and what is held out."""

import math
from dataclasses import dataclass, replace

import made_up_data as made
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodels.data import Group, TooLittleData, fingerprint, groups, split
from search.problem import Candidate, Conditions, ErrorKind, MeasureError, Measurement, Workload

WORKLOADS = [Workload(f"w{i}", "matmul", (), 0, 1e6, 8, "") for i in range(6)]
BY_HASH = {w.hash: w for w in WORKLOADS}


@dataclass(frozen=True)
class Row:
    workload: str
    candidate: Candidate
    conditions: Conditions
    measurement: Measurement


def row(
    workload: int, choice: int, time_s: float, cores: int = 2, space: str = "a/1", drift: float | None = None
) -> Row:
    candidate = Candidate(f"w{workload}", space, (choice,), "")
    conditions = replace(made.CONDITIONS, hardware=replace(made.HARDWARE, cores=cores))
    failed = MeasureError(ErrorKind.CRASH, "died") if math.isinf(time_s) else None
    times = () if failed else (time_s,)
    return Row(f"w{workload}", candidate, conditions, Measurement(candidate, times, failed, drift=drift))


def gathered(rows: list[Row]) -> list[Group]:
    return list(groups(rows, BY_HASH.__getitem__, {"w0": frozenset({"net"})}, ["a/1"]))


def test_a_group_is_a_workload_under_conditions() -> None:
    rows = [row(w, c, 1.0 + c, cores) for w in (0, 1) for cores in (2, 4) for c in range(4)]
    found = gathered(rows)
    assert [(g.workload.hash, g.conditions.hardware.cores) for g in found] == [
        ("w0", 2), ("w0", 4), ("w1", 2), ("w1", 4),
    ]  # fmt: skip
    assert found[0].networks == {"net"}
    assert not found[2].networks
    assert found[0].latency_s.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert found[0].best_s == 1.0


def test_measured_twice_the_median_counts_and_a_failure_only_without_times() -> None:
    rows = [row(0, c, 1.0) for c in range(4)] + [row(0, 0, 3.0), row(0, 0, math.inf), row(0, 9, math.inf)]
    (found,) = gathered(rows)
    assert found.latency_s.tolist() == [2.0, 1.0, 1.0, 1.0, math.inf]


def test_what_cannot_be_ranked_or_is_of_other_spaces_is_left_out() -> None:
    assert gathered([row(0, c, 1.0) for c in range(3)]) == []
    assert gathered([row(0, c, math.inf) for c in range(9)]) == []
    assert gathered([row(0, c, 1.0, space="b/1") for c in range(9)]) == []
    assert gathered([row(0, c, 1.0, drift=3.0) for c in range(9)]) == []  # the machine was busy
    assert len(gathered([row(0, c, 1.0, drift=1.1) for c in range(9)])) == 1
    assert gathered([]) == []


def some_groups(names: list[frozenset[str]]) -> list[Group]:
    return [Group(w, made.CONDITIONS, (), np.ones(4), n, 1.0) for w, n in zip(WORKLOADS, names, strict=False)]


NETWORKS = st.frozensets(st.sampled_from("abcdef"), max_size=2)


@given(st.lists(NETWORKS, min_size=2, max_size=6), st.integers(0, 100))
def test_networks_are_held_out_whole(names: list[frozenset[str]], seed: int) -> None:
    some = some_groups(names)
    try:
        learn, judge = split(some, "model", seed=seed)
    except TooLittleData as error:
        assert "autotune collect" in str(error)
        return
    assert len(learn) + len(judge) == len(some)
    assert learn
    assert judge
    seen = {n for g in learn for n in g.networks or {g.workload.hash}}
    assert all((g.networks or {g.workload.hash}) - seen for g in judge)  # each is of one never seen


def test_the_same_seed_holds_out_the_same() -> None:
    some = some_groups([frozenset({n}) for n in "abcdef"])
    assert split(some, "model", seed=3) == split(some, "model", seed=3)


def test_one_device_cannot_be_split_by_device() -> None:
    with pytest.raises(TooLittleData, match="--split device needs measurements of two devices"):
        split(some_groups([frozenset()] * 4), "device")


def test_a_fingerprint_follows_from_the_data_alone() -> None:
    some = some_groups([frozenset("a")] * 3)
    assert fingerprint(some) == fingerprint(some[::-1])
    changed = [replace(some[0], latency_s=np.array([1.0, 1.0, 1.0, 2.0]), fingerprint=""), *some[1:]]
    assert fingerprint(changed) != fingerprint(some)
    assert fingerprint([g.summary() for g in some]) == fingerprint(some)
