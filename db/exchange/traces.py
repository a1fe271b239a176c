"""Lines of workloads and of traces that were measured, as in a collection of random schedules.

A workload's line has ``workload`` (its number), ``task`` (a name) and ``module`` (``tvm.ir.save_json``); a
measurement's has ``w`` (that number), ``trace``, ``build_s``, and ``times_s`` or ``error``. Nothing says
where and when.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from db.exchange.entries import cost
from db.exchange.files import Source
from db.exchange.formats import Format
from db.exchange.items import NO_MOMENT, Item, Row, Skipped, failed, outcome, reason, unknown_conditions
from db.exchange.modules import candidate_of, workload_of_json
from search.errors import AutotuneError
from search.problem import ErrorKind, Measurement, Workload

_FLOAT = re.compile(rb'"T\.float\d+\(([-+.e\d]+)\)"')
"""A number as TVM's constants print: some writers of JSON take their text, and TVM refuses such a trace."""


def read(path: Path) -> Iterator[Item]:
    """What a file holds, line by line. Its workloads are kept in memory, its measurements are not."""
    source = Source(path)
    workloads: dict[int, Workload] = {}
    for number, line in source.lines():
        place = f"line {number}"
        try:
            match json.loads(_FLOAT.sub(rb"\1", line)):
                case {"workload": int(key), "module": str(module), **rest}:
                    workloads[key] = workload_of_json(module, str(rest.get("task") or "") or None)
                    yield workloads[key]
                case {"w": int(key), "trace": trace, **rest}:
                    if key not in workloads:
                        raise ValueError(f"there is no workload {key} before it")
                    yield _row(place, workloads[key], trace, rest)
                case _:
                    raise ValueError("neither a workload nor a trace")
        except (ValueError, RecursionError, AutotuneError) as error:
            yield Skipped(place, reason(error))
    if source.damage:
        yield Skipped("end of file", source.damage)


def _row(place: str, workload: Workload, trace: Any, rest: Mapping[Any, Any]) -> Row:
    if failure := rest.get("error"):
        samples_s, error = failed(ErrorKind.RUN_ERROR, str(failure))
    else:
        samples_s, error = outcome(rest.get("times_s"), 1.0)
    candidate = candidate_of(workload, trace)
    measurement = Measurement(candidate, samples_s, error, cost(rest.get("build_s"), 1.0), NO_MOMENT)
    return Row(place, unknown_conditions("unknown", Format.TRACES), measurement)
