"""MetaSchedule's modules, traces and results as our workloads, candidates and measurements, and back."""

from collections.abc import Iterable

import tvm
from tvm.s_tir.schedule import Trace

from db.exchange.modules import SPACE_NAME, choices_of, workload_of_json
from search.problem import Candidate, ErrorKind, MeasureError, Measurement, Workload
from search.spaces.trace import trace_to_json

FAILURE_S = 1e10
"""What MetaSchedule records in place of a time where building or running failed."""


def workload_of(module: tvm.IRModule) -> Workload:
    """The workload that a task's module computes; it is named after its blocks.

    Raises:
        UnsupportedWorkload: A shape is symbolic, or the outputs are not the last parameters.
    """
    return workload_of_json(tvm.ir.save_json(module))


def candidate_of(workload: str, trace: Trace) -> Candidate:
    """The candidate of a workload (by its hash) that a trace describes."""
    return Candidate(workload, SPACE_NAME, choices_of(trace), trace_to_json(trace))


def measurement_of(
    candidate: Candidate, run_secs: Iterable[float] | None, error: str | None = None
) -> Measurement:
    """What MetaSchedule's runner said of a candidate: seconds of each repeat, or an error's text."""
    samples = tuple(float(s) for s in run_secs or ())
    if samples and all(0 < s < FAILURE_S for s in samples):
        return Measurement(candidate, samples)
    text = str(error).strip()[-300:] if error else "MetaSchedule records failures without their reason"
    return Measurement(candidate, error=MeasureError(ErrorKind.RUN_ERROR, text))
