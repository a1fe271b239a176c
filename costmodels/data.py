"""Data sets: what was measured, by kernel, and what is held out of it.

A *group* is what can be compared: the candidates of one workload under one set of conditions, of whichever
spaces. Splits hold out whole groups by what they have in common, never single candidates: a model that has
seen a kernel's other candidates is asked an easier question than the one that matters.
"""

import itertools
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from tvm.target import Target

from costmodels.formula import roofline_s
from search.errors import AutotuneError
from search.problem import Candidate, Conditions, Measurement, Workload, digest

Split = Literal["workload", "model", "device"]

MAX_CANDIDATES = 2000  # of a group, the newest: more teach little, and memory stays bounded
BUSY_DRIFT = 1.5  # of the machine while something was timed: such a time says more of other load
LEAST_CANDIDATES = 4  # of a group with times: of fewer nothing can be ranked


class TooLittleData(AutotuneError):
    """There is not enough to learn from."""

    exit_code = 36


class Row(Protocol):
    """A measurement as a database gives it; rows of a workload come together."""

    @property
    def workload(self) -> str: ...
    @property
    def candidate(self) -> Candidate: ...
    @property
    def conditions(self) -> Conditions: ...
    @property
    def measurement(self) -> Measurement: ...


@dataclass(frozen=True, eq=False)
class Group:
    """The candidates of one workload under one set of conditions.

    Attributes:
        latency_s: Shape [n], the median of what was measured; infinite for failures.
        networks: Names of the models that have this workload.
        roofline_s: As ``costmodels.formula.roofline_s``.
        fingerprint: Changes with every measurement in it.
    """

    workload: Workload
    conditions: Conditions
    candidates: tuple[Candidate, ...]
    latency_s: NDArray[np.float64]
    networks: frozenset[str]
    roofline_s: float
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if not self.fingerprint:
            hashes, times = [c.hash for c in self.candidates], [repr(t) for t in self.latency_s.tolist()]
            found = digest([self.workload.hash, self.conditions.key, hashes, times])
            object.__setattr__(self, "fingerprint", found)

    @property
    def best_s(self) -> float:
        """The least latency."""
        return float(self.latency_s.min())

    def with_failed(self, hashes: Collection[str]) -> "Group":
        """The same, some candidates counted as failures: those found wrong since they were measured."""
        if not hashes:
            return self
        failed = np.array([c.hash in hashes for c in self.candidates])
        return replace(self, latency_s=np.where(failed, math.inf, self.latency_s), fingerprint="")

    def summary(self) -> "Group":
        """The same without what takes memory: its candidates, and the kernel's code."""
        return replace(self, candidates=(), workload=replace(self.workload, module_json=""))


def groups(
    rows: Iterable[Row],
    workload_of: Callable[[str], Workload],
    networks: Mapping[str, frozenset[str]],
    spaces: Sequence[str],
) -> Iterator[Group]:
    """Groups in the order of their workloads; one workload's rows are held in memory at a time.

    Of candidates measured more than once, the median of all times counts; a failure counts where there is no
    time. Left out: candidates of other spaces, what was measured while the machine was busy, and groups with
    fewer than ``LEAST_CANDIDATES`` times.

    Args:
        workload_of: Gives a workload by its hash.
        networks: Names of the models that have a workload, by its hash.
    """
    for hash_, some in itertools.groupby(rows, lambda row: row.workload):
        by_conditions: dict[tuple[str, str, int], tuple[Conditions, dict[Candidate, list[float]]]] = {}
        for row in some:
            if row.candidate.space in spaces and (row.measurement.drift or 1.0) <= BUSY_DRIFT:
                _, times = by_conditions.setdefault(row.conditions.key, (row.conditions, {}))
                times.setdefault(row.candidate, []).append(row.measurement.latency_s)
        for conditions, times in by_conditions.values():
            newest = list(times.items())[-MAX_CANDIDATES:]
            latency_s = np.array([_median(t) for _, t in newest])
            if np.isfinite(latency_s).sum() >= LEAST_CANDIDATES:
                workload = workload_of(hash_)
                yield Group(
                    workload, conditions, tuple(c for c, _ in newest), latency_s,
                    networks.get(hash_, frozenset()), roofline_s(workload, conditions),
                )  # fmt: skip


def _median(times: Sequence[float]) -> float:
    measured = [t for t in times if math.isfinite(t)]
    return float(np.median(measured)) if measured else math.inf


def target_of(conditions: Conditions) -> Target:
    """What kernels are compiled for."""
    return Target(json.loads(conditions.target))


def split(
    some: Sequence[Group], by: Split, share: float = 0.2, seed: int = 0
) -> tuple[list[Group], list[Group]]:
    """Groups to learn from, and groups to judge by, which have no workload, network or device in common.

    A workload of several networks is judged by as soon as one of them is.

    Raises:
        TooLittleData: All are of one workload, network or device.
    """
    labels = [_labels(g, by) for g in some]
    names = sorted(frozenset().union(*labels))
    if len(names) < 2:
        raise TooLittleData(
            f"--split {by} needs measurements of two {by}s at least, the database holds {len(names)} that "
            "can be used; `autotune collect` gathers more"
        )
    _, hidden = train_test_split(names, test_size=share, random_state=seed)
    learn = [g for g, label in zip(some, labels, strict=True) if not label & set(hidden)]
    if not learn:
        raise TooLittleData(
            f"--split {by}: every kernel is also in {', '.join(hidden)}, which are held out; "
            "`autotune collect` gathers more"
        )
    return learn, [g for g, label in zip(some, labels, strict=True) if label & set(hidden)]


def _labels(group: Group, by: Split) -> frozenset[str]:
    """What a group belongs to; a workload of no network is one by itself."""
    if by == "device":
        return frozenset({group.conditions.hardware.fingerprint})
    return (by == "model" and group.networks) or frozenset({group.workload.hash})


def fingerprint(some: Iterable[Group]) -> str:
    """Of a data set, whatever the order of its groups."""
    return digest(sorted(g.fingerprint for g in some))
