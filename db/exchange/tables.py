"""Recorded spaces: files in which every configuration of a kernel has its times, or its error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from db.errors import BadRecords
from db.exchange import kernel_tuner, t4
from db.exchange.entries import Entry, Table, Value
from db.exchange.files import Source
from db.exchange.formats import Format, guess
from db.exchange.items import Skipped
from search.problem import MeasureError

_PARSERS = {Format.KERNEL_TUNER: kernel_tuner.parse, Format.T4: t4.parse}


@dataclass(frozen=True)
class TableRecord:
    """One configuration of a recorded space.

    Attributes:
        samples_s: Empty where it failed.
        cost_s: Seconds that measuring it took in all: compiling, the tuner's own time, checking, running.
        build_s: Seconds of them that compiling took.
    """

    configuration: Mapping[str, Value]
    samples_s: tuple[float, ...]
    error: MeasureError | None
    cost_s: float
    build_s: float


@dataclass(frozen=True)
class TableFile:
    """A recorded space, each configuration once.

    Attributes:
        device: ``unknown`` where the file does not say.
        parameters: The values of each that occur, sorted.
        skipped: What was left out, such as ``entry 17: no runtimes``.
    """

    kernel: str
    device: str
    parameters: Mapping[str, tuple[Value, ...]]
    records: tuple[TableRecord, ...]
    skipped: tuple[str, ...]


def read_table(path: Path) -> TableFile:
    """Reads a cache file of Kernel Tuner or a results file in the T4 format, packed with gzip or not.

    Samples of a configuration that was measured more than once are put together, in the order of the file. If
    it failed at times, those are left out, and ``skipped`` says so.

    Raises:
        BadRecords: It is neither, its unit of time is unknown, or nothing of it is of use.
    """
    table = load(path, guess(path))
    by_values: dict[tuple[Value, ...], list[Entry]] = {}
    for entry in table.entries:
        by_values.setdefault(tuple(entry.configuration.values()), []).append(entry)
    skipped = list(table.skipped)
    records = tuple(_record(entries, skipped) for entries in by_values.values())
    return TableFile(table.kernel, table.device, table.occurring(), records, tuple(map(str, skipped)))


def load(path: Path, format: Format) -> Table:
    """Reads a file as it is.

    Raises:
        BadRecords: ``format`` is none of tables, or the file is something else, or nothing of it is of use.
    """
    if format not in _PARSERS:
        raise BadRecords(f"{path} is {format}, and no table.\nExpected {' or '.join(_PARSERS)}.")
    source = Source(path)
    table = _PARSERS[format](source.text(), path)
    if source.damage:
        table = replace(table, skipped=(*table.skipped, Skipped("end of file", source.damage)))
    if not table.entries:
        first = f"; {table.skipped[0]}" if table.skipped else ""
        raise BadRecords(f"{path} holds no record of any use{first}.\nGive another file.")
    return table


def _record(entries: Sequence[Entry], skipped: list[Skipped]) -> TableRecord:
    """What a configuration's entries say together."""
    ran = [e for e in entries if e.error is None]
    if ran and len(ran) < len(entries):
        failed = (e for e in entries if e.error)
        skipped += [
            Skipped(e.place, f"failed ({e.error.text}), but {ran[0].place} ran") for e in failed if e.error
        ]
    kept = ran or entries
    return TableRecord(
        kept[0].configuration,
        tuple(s for e in kept for s in e.samples_s),
        kept[0].error,
        sum(e.cost_s for e in kept),
        sum(e.build_s for e in kept),
    )
