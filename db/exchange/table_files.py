"""Writes a kernel's configurations as Kernel Tuner's cache file or in the T4 format.

Both are about one space of one kernel, and tell nothing of hardware but its name: so a file has those
measurements of a workload that were made under one set of conditions, of candidates of one space whose traces
are configurations. Of several, that with most measurements is taken.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from db.errors import NoUsableRecords
from db.exchange.entries import Value, configuration, ordered
from db.exchange.files import written_whole
from db.exchange.formats import Format
from db.exchange.items import NO_MOMENT, Exported, Observe, Skipped, unobserved
from db.store import Store
from search.problem import Conditions, ErrorKind, Measurement, Workload

_Measured = tuple[dict[str, Value], Measurement]

_ONE = "a file has room for one device and one space; those with most measurements are taken"
_KERNEL_TUNER_ERRORS = {
    ErrorKind.INVALID: "InvalidConfig",
    ErrorKind.BUILD_ERROR: "CompilationFailedConfig",
    ErrorKind.BUILD_TIMEOUT: "CompilationFailedConfig",
}
_T4_ERRORS = {
    ErrorKind.INVALID: "constraints",
    ErrorKind.BUILD_ERROR: "compile",
    ErrorKind.BUILD_TIMEOUT: "timeout",
    ErrorKind.RUN_TIMEOUT: "timeout",
    ErrorKind.WRONG_OUTPUT: "correctness",
    ErrorKind.OUT_OF_BOUNDS: "correctness",
}


def write(
    store: Store, path: Path, format: Format, workload: str | None, observe: Observe = unobserved
) -> Exported:
    """Writes measurements of a workload (by its hash).

    Raises:
        NoUsableRecords: No workload is given, or none of its candidates are configurations.
    """
    if workload is None:
        raise NoUsableRecords(
            f"A file in the format {format} is about one kernel.\nSay which with --workload HASH."
        )
    done = Exported()
    here = store.conditions(workload)[:1]
    by_space: dict[str, list[_Measured]] = {}
    for conditions, measurement in store.stream(workload):
        space = measurement.candidate.space
        if conditions.key != here[0].key:
            done.skip(Skipped(f"{conditions.hardware.name}, {conditions.threads} threads", _ONE))
        elif (chosen := _configuration(measurement)) is None:
            done.skip(Skipped(f"space {space}", "its candidates are no configurations"))
        else:
            by_space.setdefault(space, []).append((chosen, measurement))
        done.written += 1
        observe(done.written)
    if not by_space:
        raise NoUsableRecords(f"The workload {workload:.12} has no candidates that are configurations.")
    measured = max(by_space.values(), key=len)
    done.written = len(measured)
    for space, others in by_space.items():
        for _ in others if others is not measured else ():
            done.skip(Skipped(f"space {space}", _ONE))
    writer = _t4 if format is Format.T4 else _kernel_tuner
    with written_whole(path) as file:
        file.write(writer(store.workload(workload), here[0], measured).encode())
    return done


def _configuration(measurement: Measurement) -> dict[str, Value] | None:
    """The values of a candidate's knobs; None where it is something else."""
    try:
        given = json.loads(measurement.candidate.trace)
        return configuration(given, tuple(given)) if isinstance(given, dict) else None
    except ValueError:
        return None


def _kernel_tuner(workload: Workload, conditions: Conditions, measured: Sequence[_Measured]) -> str:
    try:
        module = json.loads(workload.module_json)
    except ValueError:
        module = {}
    names = list(measured[0][0])
    values = module.get("parameters") or {
        n: list(ordered(c[n] for c, _ in measured if n in c)) for n in names
    }
    header = {
        "device_name": conditions.hardware.name,
        "kernel_name": workload.name,
        "problem_size": module.get("problem_size"),
        "tune_params_keys": names,
        "tune_params": values,
        "objective": "time",
    }
    entries = (
        f"{json.dumps(','.join(map(str, c.values())))}: {json.dumps(c | _kernel_tuner_result(m))}"
        for c, m in measured
    )
    return json.dumps(header)[:-1] + ', "cache": {\n' + ",\n".join(entries) + "}\n}"


def _kernel_tuner_result(m: Measurement) -> dict[str, Any]:
    result: dict[str, Any] = {"compile_time": m.build_s * 1e3, "timestamp": _timestamp(m)}
    if m.error:
        return {"time": _KERNEL_TUNER_ERRORS.get(m.error.kind, "RuntimeFailedConfig"), **result}
    times = [s * 1e3 for s in m.samples_s]
    return {"time": sum(times) / len(times), "times": times, "benchmark_time": sum(times), **result}


def _t4(workload: Workload, conditions: Conditions, measured: Sequence[_Measured]) -> str:
    results = [_t4_result(c, m) for c, m in measured]
    data = {"schema_version": "1.0.0", "metadata": {"timeunit": "seconds"}, "results": results}
    return json.dumps(data, indent=1)


def _t4_result(chosen: dict[str, Value], m: Measurement) -> dict[str, Any]:
    times: dict[str, Any] = {"compilation": m.build_s, "framework": 0, "search_algorithm": 0, "validation": 0}
    verdict = "correct"
    if m.error:
        verdict = _T4_ERRORS.get(m.error.kind, "runtime")
    else:
        times["runtimes"] = list(m.samples_s)
    return {
        "timestamp": _timestamp(m),
        "configuration": chosen,
        "times": times,
        "invalidity": verdict,
        "correctness": int(m.error is None),
        "measurements": [{"name": "time", "value": verdict if m.error else m.latency_s, "unit": "seconds"}],
        "objectives": ["time"],
    }


def _timestamp(m: Measurement) -> str:
    return "" if m.measured_at == NO_MOMENT else str(m.measured_at)
