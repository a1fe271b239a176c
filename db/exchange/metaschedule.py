"""TVM MetaSchedule's JSON database: a folder of two files of JSON lines.

``database_workload.json``: TVM's structural hash, and in base 64 the module (``tvm.ir.save_json``).
``database_tuning_record.json``: the number of the workload's line, from 0, and trace, seconds (null where not
measured, 1e10 where it failed), target, and the arguments' shapes.
"""

import base64
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.database import Workload as Committed

from db.errors import BadRecords, NoUsableRecords
from db.exchange.files import Source, written_whole
from db.exchange.formats import METASCHEDULE_FILES, Format
from db.exchange.items import (
    LONGEST_S,
    NO_MOMENT,
    UNKNOWN_TARGET,
    Exported,
    Item,
    Observe,
    Row,
    Skipped,
    failed,
    outcome,
    reason,
    unknown_conditions,
    unobserved,
)
from db.exchange.modules import candidate_of, workload_of_json
from db.store import Store
from search.errors import AutotuneError
from search.problem import Conditions, ErrorKind, Measurement, Workload
from search.spaces.tir import module_of

_UNREADABLE = (ValueError, RecursionError, TypeError, AutotuneError)


def read(folder: Path) -> Iterator[Item]:
    """What a database holds. Its workloads are kept in memory, its records are not.

    Raises:
        BadRecords: At once, where the two files are not there.
    """
    missing = [name for name in METASCHEDULE_FILES if not (folder / name).is_file()]
    if missing:
        raise BadRecords(
            f"{folder} is no database of MetaSchedule: there is no {missing[0]}.\n"
            f"Give a folder with {' and '.join(METASCHEDULE_FILES)}."
        )
    return _items(folder)


def _items(folder: Path) -> Iterator[Item]:
    workloads: dict[int, Workload] = {}
    source = Source(folder / METASCHEDULE_FILES[0])
    for number, line in source.lines():
        try:
            workloads[number] = _workload(line)
            yield workloads[number]
        except _UNREADABLE as error:
            yield Skipped(f"{METASCHEDULE_FILES[0]} line {number}", reason(error))
    source = Source(folder / METASCHEDULE_FILES[1])
    for number, line in source.lines():
        place = f"{METASCHEDULE_FILES[1]} line {number}"
        try:
            yield _row(place, line, workloads)
        except _UNREADABLE as error:
            yield Skipped(place, reason(error))


def _workload(line: bytes) -> Workload:
    """The hash is TVM's, of this platform, and left alone. Some versions put the text's length before it."""
    _, module = json.loads(line)
    text = base64.b64decode(module, validate=True)
    if int.from_bytes(text[:8], "little") == len(text) - 8:
        text = text[8:]
    return workload_of_json(text.decode())


def _row(place: str, line: bytes, workloads: dict[int, Workload]) -> Row:
    index, (trace, times, target, _) = json.loads(line)
    if times is None:
        raise ValueError("it was not measured")
    if not isinstance(index, int) or index + 1 not in workloads:
        raise ValueError(f"its workload, {index!r:.20} counted from 0, could not be read")
    candidate = candidate_of(workloads[index + 1], trace)
    samples_s, error = outcome(times, 1.0)
    if error and any(t == LONGEST_S for t in times):
        _, error = failed(ErrorKind.RUN_ERROR, "MetaSchedule records failures without their reason")
    conditions = unknown_conditions("unknown", Format.METASCHEDULE, _target(target))
    return Row(place, conditions, Measurement(candidate, samples_s, error, measured_at=NO_MOMENT))


def _target(config: Any) -> str:
    """A target's configuration as text; what follows from the rest is left out, as for our own targets."""
    if not isinstance(config, dict) or "kind" not in config:
        return UNKNOWN_TARGET
    kept = {k: v for k, v in config.items() if k not in ("tag", "host") and not k.startswith("feature.")}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"))


def write(store: Store, folder: Path, workload: str | None = None, observe: Observe = unobserved) -> Exported:
    """Writes a database that ``JSONDatabase`` opens, of all workloads or one (by its hash).

    Left out are candidates that are no traces of TVM, and traces that do not apply: TVM would open none of a
    database with one of these.

    Raises:
        NoUsableRecords: Nothing is left.
    """
    done = Exported()
    modules, records = (folder / name for name in METASCHEDULE_FILES)
    with written_whole(modules) as module_file, written_whole(records) as record_file:
        writer = _Writer(store, module_file, record_file)
        for conditions, measurement in store.stream(workload):
            candidate = measurement.candidate
            if not candidate.trace.startswith("[["):
                done.skip(Skipped(f"space {candidate.space}", "its candidates are no traces of TVM"))
                continue
            try:
                writer.add(conditions, measurement)
                done.written += 1
            except _UNREADABLE as error:
                done.skip(Skipped(f"candidate {candidate.hash:.12}", reason(error)))
            observe(done.written + done.skipped)
        if not done.written:
            raise NoUsableRecords(f"The database {store} holds no candidates that are traces of TVM.")
    return done


class _Writer:
    """Writes the lines of both files, a workload's before its first record's."""

    def __init__(self, store: Store, modules: BinaryIO, records: BinaryIO) -> None:
        self._store, self._modules, self._records = store, modules, records
        self._indices: dict[str, int] = {}
        self._described = lru_cache(maxsize=64)(self._describe)

    def add(self, conditions: Conditions, measurement: Measurement) -> None:
        """Raises InvalidCandidate, or ValueError, where the trace does not apply or cannot be read."""
        candidate = measurement.candidate
        workload, arguments = self._described(candidate.workload)
        trace = json.loads(candidate.trace)
        candidate_of(workload, trace)
        if workload.hash not in self._indices:
            self._indices[workload.hash] = len(self._indices)
            _write(self._modules, Committed(module_of(workload)).as_json())
        target = None if conditions.target == UNKNOWN_TARGET else json.loads(conditions.target)
        times = list(measurement.samples_s) or [LONGEST_S]
        _write(self._records, [self._indices[workload.hash], [trace, times, target, arguments]])

    def _describe(self, hash: str) -> tuple[Workload, Any]:
        """A workload, and its arguments as MetaSchedule writes them."""
        workload = self._store.workload(hash)
        return workload, [a.as_json() for a in ArgInfo.from_entry_func(module_of(workload))]


def _write(file: BinaryIO, value: Any) -> None:
    file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
