"""Workloads and candidates out of what TVM writes: modules and traces as JSON."""

import functools
import json
from dataclasses import replace
from typing import Any

import tvm
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace

from search.compiler import load_tensor_intrinsics
from search.errors import InvalidCandidate, last_line
from search.problem import Candidate, Choice, Workload, digest
from search.spaces.tir import workload_from_tir
from search.spaces.trace import trace_to_json

SPACE_NAME = "metaschedule/1"
"""MetaSchedule's spaces: what a trace was made from is not known but for the trace."""


def workload_of_json(module_json: str, name: str | None = None) -> Workload:
    """The workload of a module's function ``main``.

    Args:
        module_json: ``tvm.ir.save_json`` of the module.
        name: For people; None calls it by its blocks.

    Raises:
        ValueError: TVM cannot read it, or there is no such function.
        UnsupportedWorkload: A shape is symbolic, or the outputs are not the last parameters.
    """
    try:
        function = tvm.ir.load_json(module_json)["main"]
    except Exception as error:  # TVM raises whatever its C++ side throws
        raise ValueError(f"TVM cannot read the module: {last_line(error)}") from error
    workload = workload_from_tir(function, name or "main")
    return workload if name else replace(workload, name=_blocks(workload))


def _blocks(workload: Workload) -> str:
    nodes = json.loads(workload.module_json)["nodes"]
    names = [nodes[n["data"]["name_hint"]]["data"] for n in nodes if n["type"] == "s_tir.SBlock"]
    return "_".join(n for n in names if n != "root")[:80] or "main"


def candidate_of(workload: Workload, trace: Any) -> Candidate:
    """The candidate that a trace, as JSON values, describes; the trace is kept as it is.

    It is applied to the workload's module, for one that does not apply proves nothing.

    Raises:
        InvalidCandidate: It does not.
    """
    try:
        schedule = Schedule(_module(workload.module_json), debug_mask="none", error_render_level="fast")
        Trace.apply_json_to_schedule(trace, schedule)
        choices = choices_of(schedule.trace)
    except Exception as error:
        raise InvalidCandidate(f"the trace does not apply: {last_line(error)}") from error
    return Candidate(workload.hash, SPACE_NAME, choices, json.dumps(trace, separators=(",", ":")))


@functools.lru_cache(maxsize=64)
def _module(module_json: str) -> tvm.IRModule:
    load_tensor_intrinsics()  # which traces name
    return tvm.ir.load_json(module_json)


def choices_of(trace: Trace) -> tuple[Choice, ...]:
    """A number that stands for the sketch, then what the sampling instructions decided, in order.

    The number is needed: sketches of one function have decisions of the same kinds, and would be taken for
    each other. It is a hash of all instructions that have an effect, without those of postprocessing; their
    arguments are the same whatever was decided. ``autotune.metaschedule`` says the same of what it measures.
    """
    instructions, decisions = json.loads(trace_to_json(trace.simplified(remove_postproc=True)))
    sketch = int(digest(instructions)[:8], 16)
    return sketch, *(tuple(d) if isinstance(d, list) else d for _, d in decisions)
