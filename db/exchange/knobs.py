"""Kernels of which only their parameters are known: no TIR, but a table of configurations."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from db.exchange.entries import Table
from db.exchange.formats import Format
from db.exchange.items import Item, Row, unknown_conditions
from db.exchange.tables import load
from search.problem import Candidate, Measurement, Workload, digest

SPACE_NAME = "table/1"
MODULE_FORMAT = "knobs/1"


def read(path: Path, format: Format) -> Iterator[Item]:
    """A kernel and its configurations; one that was measured more than once has as many rows.

    The values of a parameter are those that occur and those that the file declares, so that a Kernel Tuner
    file of a run that was cut off is about the same workload as that of the whole run.

    Raises:
        BadRecords: At once, where the file is something else or nothing of it is of use.
    """
    return _items(load(path, format), format)


def _items(table: Table, format: Format) -> Iterator[Item]:
    values = table.all_values()
    places = {name: {value: n for n, value in enumerate(some)} for name, some in values.items()}
    workload = knob_workload(table.kernel, table.problem_size, {n: list(v) for n, v in values.items()})
    conditions = unknown_conditions(table.device, format)
    yield workload
    yield from table.skipped
    for entry in table.entries:
        choices = tuple(places[name][value] for name, value in entry.configuration.items())
        candidate = Candidate(workload.hash, SPACE_NAME, choices, json.dumps(entry.configuration))
        measurement = Measurement(candidate, entry.samples_s, entry.error, entry.build_s, entry.measured_at)
        yield Row(entry.place, conditions, measurement)


def knob_workload(kernel: str, problem_size: Any, parameters: dict[str, list[Any]]) -> Workload:
    """The workload of a kernel that nothing is known of but its parameters and their values.

    Its module is a JSON object with ``format`` ``knobs/1``, ``kernel``, ``problem_size`` (null where that is
    not known) and ``parameters``: each name with its values, which choices are indices of.
    """
    module = {
        "format": MODULE_FORMAT,
        "kernel": kernel,
        "problem_size": problem_size,
        "parameters": parameters,
    }
    identity = [MODULE_FORMAT, kernel, problem_size, [[n, v] for n, v in parameters.items()]]
    return Workload(digest(identity), kernel, (), 0, 0.0, 1, json.dumps(module))


def knobs_of(workload: Workload) -> Workload | None:
    """The workload anew from what its module says; None where that is no JSON of ours.

    Raises:
        ValueError: It is, but damaged.
    """
    if f'"format": "{MODULE_FORMAT}"' not in workload.module_json[:200]:
        return None
    module = json.loads(workload.module_json)
    try:
        return knob_workload(module["kernel"], module["problem_size"], dict(module["parameters"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"its module has no {error}") from error
