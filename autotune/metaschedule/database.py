"""Our database in the place of MetaSchedule's."""

import json
from collections.abc import Iterator

import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.database import PyDatabase, TuningRecord
from tvm.s_tir.meta_schedule.database import Workload as Committed
from tvm.s_tir.schedule import Trace
from tvm.target import Target

from autotune.errors import BadInput
from autotune.metaschedule.records import FAILURE_S, candidate_of, measurement_of, workload_of
from autotune.target import canonical
from db.errors import NoSuchRecord
from db.store import Store
from search.errors import InvalidCandidate, UnsupportedWorkload
from search.problem import Candidate, Conditions, Measurement
from search.spaces.tir import module_of
from search.spaces.trace import schedule_of


@derived_object
class Database(PyDatabase):  # type: ignore[misc]
    """Keeps MetaSchedule's tuning records in our store, and answers from all that it holds.

    Each record is durable once committed. Answers hold what ``autotune run`` measured of a workload as well,
    as far as it is a TVM trace, but nothing measured under other conditions. The best is the least median, of
    all times of a candidate put together; what was found to compute something wrong is left out.

    Args:
        store: Stays open for as long as this is used.
        conditions: Under which MetaSchedule measures here: hardware, target and threads.
    """

    def __init__(self, store: Store, conditions: Conditions) -> None:
        super().__init__()
        self._store = store
        self._conditions = conditions
        self._target = Target(json.loads(conditions.target))
        self._traces: dict[str, Trace | None] = {}

    def has_workload(self, mod: tvm.IRModule) -> bool:
        """Whether the store knows the workload, measured or not."""
        try:
            self._store.workload(workload_of(mod).hash)
        except (NoSuchRecord, UnsupportedWorkload):
            return False
        return True

    def commit_workload(self, mod: tvm.IRModule) -> Committed:
        """Adds the workload, if it is new.

        Raises:
            UnsupportedWorkload: A shape is symbolic, or the outputs are not the last parameters.
        """
        self._store.add_workload(workload_of(mod))
        return Committed(mod)

    def commit_tuning_record(self, record: TuningRecord) -> None:
        """Keeps a record's candidate and its times, or that it failed.

        Raises:
            BadInput: It was made for another target, or was not measured.
        """
        if record.target is None or canonical(record.target) != self._conditions.target:
            raise BadInput(
                f"a tuning record for {record.target}, in a database for {self._conditions.target}; "
                "tune for the target that the conditions name"
            )
        if record.run_secs is None:
            raise BadInput("a tuning record without times; only what was measured can be kept")
        candidate = candidate_of(workload_of(record.workload.mod).hash, record.trace)
        measurement = measurement_of(candidate, record.run_secs)
        self._store.add_measurements(None, self._conditions, [measurement])

    def get_top_k(self, workload: Committed, top_k: int) -> list[TuningRecord]:
        """The fastest candidates of a workload, each once, fastest first."""
        hash, wanted = workload_of(workload.mod).hash, top_k
        while True:
            fastest = self._store.best(hash, self._conditions, wanted)
            records = self._records(workload, fastest)
            if len(records) >= top_k or len(fastest) < wanted:
                return records[:top_k]
            wanted *= 2  # some are of spaces whose traces are not TVM's

    def get_all_tuning_records(self) -> list[TuningRecord]:
        """Every measurement of every workload, oldest first; failed ones take ``FAILURE_S``."""
        workloads: dict[str, Committed] = {}
        records: list[TuningRecord] = []
        for measurement in self._measurements():
            hash = measurement.candidate.workload
            if hash not in workloads:
                workloads[hash] = Committed(module_of(self._store.workload(hash)))
            records += self._records(workloads[hash], [measurement])
        return records

    def query_tuning_record(
        self, mod: tvm.IRModule, target: Target, workload_name: str | None = None
    ) -> TuningRecord | None:
        """The best record of a workload; None where there is none, or where ``target`` is another one."""
        if canonical(target) != self._conditions.target or not self.has_workload(mod):
            return None
        return next(iter(self.get_top_k(Committed(mod), 1)), None)

    def __len__(self) -> int:
        """How many measurements there are, of every workload."""
        return sum(1 for _ in self._measurements())

    def _records(self, workload: Committed, measurements: list[Measurement]) -> list[TuningRecord]:
        """As many as there are traces that apply to the workload."""
        args_info = ArgInfo.from_entry_func(workload.mod)
        traces = [self._trace(workload.mod, m.candidate) for m in measurements]
        return [
            TuningRecord(trace, workload, list(m.samples_s) or [FAILURE_S], self._target, args_info)
            for trace, m in zip(traces, measurements, strict=True)
            if trace is not None
        ]

    def _trace(self, module: tvm.IRModule, candidate: Candidate) -> Trace | None:
        """Applied once: it takes milliseconds, and a strategy asks for hundreds each round."""
        hash = candidate.hash
        if hash not in self._traces and _is_tvm_trace(candidate):
            try:
                self._traces[hash] = schedule_of(module, candidate.trace).trace
            except InvalidCandidate:
                self._traces[hash] = None
        return self._traces.get(hash)

    def _measurements(self) -> Iterator[Measurement]:
        """All under these conditions, of all candidates that may be traces of TVM."""
        for conditions, measurement in self._store.stream():
            if conditions.key == self._conditions.key and _is_tvm_trace(measurement.candidate):
                yield measurement


def _is_tvm_trace(candidate: Candidate) -> bool:
    """Templates with knobs and recorded tables keep something else as a trace, or nothing."""
    return candidate.trace.startswith("[[")
