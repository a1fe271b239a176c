"""A space in which every candidate was measured once and for all."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from db.errors import NoSuchRecord, NoUsableRecords
from db.exchange.tables import read_table
from db.store import Store
from search.errors import InvalidCandidate
from search.problem import Candidate, Choice, MeasureError, Measurement, Workload, digest
from search.spaces.table import TableSpace


@dataclass(frozen=True)
class Outcome:
    """What measuring a candidate gave and took.

    Attributes:
        cost_s: Seconds of compiling and running it.
    """

    samples_s: tuple[float, ...]
    error: MeasureError | None
    cost_s: float


@dataclass(frozen=True)
class Recording:
    """A table of outcomes, and the space that it spans.

    Attributes:
        name: Of the kernel and the device.
        outcomes: By the candidate's decisions.
    """

    name: str
    space: TableSpace
    outcomes: Mapping[tuple[Choice, ...], Outcome]

    def measure(self, candidate: Candidate) -> Measurement:
        """What is recorded of a candidate.

        Raises:
            InvalidCandidate: Nothing is.
        """
        outcome = self.outcomes.get(candidate.choices)
        if outcome is None:
            raise InvalidCandidate(f"{candidate.choices} was not recorded in {self.name}")
        return Measurement(candidate, outcome.samples_s, outcome.error)

    @cached_property
    def latencies_s(self) -> NDArray[np.float64]:
        """Of all candidates that ran, shape [n], the slowest first."""
        found = [float(np.median(o.samples_s)) for o in self.outcomes.values() if not o.error]
        return np.sort(np.array(found))[::-1]

    @cached_property
    def mean_cost_s(self) -> float:
        """Of a candidate, failed ones included."""
        return float(np.mean([o.cost_s for o in self.outcomes.values()]))


def read_recording(path: Path) -> Recording:
    """Reads a file of Kernel Tuner or in the T4 format.

    Raises:
        BadRecords: It is neither.
        NoUsableRecords: It holds no candidate that ran.
    """
    table = read_table(path)
    places = {name: {value: n for n, value in enumerate(values)} for name, values in table.parameters.items()}
    outcomes: dict[tuple[Choice, ...], Outcome] = {
        tuple(places[name][record.configuration[name]] for name in table.parameters): Outcome(
            record.samples_s, record.error, record.cost_s
        )
        for record in table.records
    }
    name = path.name.removesuffix(".gz").removesuffix(".json")
    hash_ = digest([table.kernel, {n: list(v) for n, v in table.parameters.items()}])
    return _recording(name, hash_, outcomes, tuple(table.parameters), "table/1")


def from_store(store: Store, workload: str) -> Recording:
    """What a database holds of a workload, as if it were all there is.

    Of several conditions and spaces, those count under which most was measured.

    Args:
        workload: Its hash, or the start of it.

    Raises:
        NoSuchRecord: Nothing of it ran.
    """
    found = store.show_workload(workload).workload
    by_space: dict[str, list[Measurement]] = defaultdict(list)
    for conditions in store.conditions(found.hash)[:1]:
        for m in store.measurements(found.hash, conditions):
            by_space[m.candidate.space].append(m)
    if not by_space:
        raise NoSuchRecord(f"The database {store} holds no measurements of {found.name} ({workload}).")
    space, measured = max(by_space.items(), key=lambda item: len(item[1]))
    outcomes = {
        m.candidate.choices: Outcome(m.samples_s, m.error, m.build_s + sum(m.samples_s)) for m in measured
    }
    return _recording(found.name, found.hash, outcomes, (), space)


def _recording(
    name: str, hash_: str, outcomes: Mapping[tuple[Choice, ...], Outcome], names: Sequence[str], space: str
) -> Recording:
    """Where nothing says what measuring took, each candidate takes a second.

    Raises:
        NoUsableRecords: None of them ran.
    """
    if all(o.error for o in outcomes.values()):
        raise NoUsableRecords(f"{name}: none of its {len(outcomes)} candidates ran; nothing can be compared")
    if not any(o.cost_s for o in outcomes.values()):
        outcomes = {choices: replace(o, cost_s=1.0) for choices, o in outcomes.items()}
    workload = Workload(hash_, name, (), 0, 0.0, 1, "")
    return Recording(name, TableSpace(workload, list(outcomes), names, space), outcomes)
