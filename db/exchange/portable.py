"""Our own format: lines of JSON, packed with gzip where the name ends in ``.gz``.

The first line says what the file is. A workload, and conditions with a number, each have a line before the
first that refers to them; a measurement's line holds its candidate. So a file that is cut off is good as far
as it goes, and files may be put one after another.
"""

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter

from db.errors import BadRecords, NoUsableRecords
from db.exchange.files import Source, written_whole
from db.exchange.formats import PORTABLE_NAME
from db.exchange.items import Exported, Item, Observe, Row, Skipped, reason, unobserved
from db.exchange.knobs import knobs_of
from db.store import Store
from search.errors import AutotuneError
from search.problem import Conditions, Measurement, Workload, digest

VERSION = 1

_WORKLOAD = TypeAdapter(Workload)
_CONDITIONS = TypeAdapter(Conditions)
_MEASUREMENT = TypeAdapter(Measurement)
_MEASURED = b'{"measurement"'


def read(path: Path) -> Iterator[Item]:
    """What a file holds, line by line.

    A workload is taken at its hash only where that follows from its module.

    Raises:
        BadRecords: At once, where the file is something else, or of a version after ours.
    """
    source = Source(path)
    lines = source.lines()
    _, first = next(lines, (0, b""))
    _check(first, path)
    return _items(lines, source)


def _check(first: bytes, path: Path) -> None:
    try:
        header = json.loads(first)
        name, version = header["format"], header["version"]
    except (ValueError, RecursionError, TypeError, KeyError):
        name, version = None, 0
    if name != PORTABLE_NAME:
        raise BadRecords(f"{path} does not begin with the line that a portable file of autotune begins with.")
    if version != VERSION:
        raise BadRecords(
            f"{path} is in version {version!r:.20} of the format, and this autotune reads {VERSION}.\n"
            "Upgrade autotune, or export the file anew where it came from."
        )


def _items(lines: Iterator[tuple[int, bytes]], source: Source) -> Iterator[Item]:
    hashes, numbered = set[str](), dict[int, Conditions]()
    for number, line in lines:
        place = f"line {number}"
        try:
            match json.loads(line):
                case {"workload": given}:
                    workload = _proved(_WORKLOAD.validate_python(given))
                    hashes.add(workload.hash)
                    yield workload
                case {"conditions": given, "number": int(key)}:
                    numbered[key] = _CONDITIONS.validate_python(given)
                case {"measurement": given, "under": int(key)}:
                    yield Row(place, *_measurement(given, key, hashes, numbered))
                case {"format": name, "version": version} if (name, version) == (PORTABLE_NAME, VERSION):
                    numbered.clear()  # another file put behind this one
                case _:
                    raise ValueError("no line of a portable file")
        except (ValueError, RecursionError, AutotuneError) as error:
            yield Skipped(place, reason(error))
    if source.damage:
        yield Skipped("end of file", source.damage)


def _measurement(
    given: Any, key: int, hashes: set[str], numbered: dict[int, Conditions]
) -> tuple[Conditions, Measurement]:
    measurement = _MEASUREMENT.validate_python(given)
    if key not in numbered:
        raise ValueError(f"there are no conditions {key} before it")
    if measurement.candidate.workload not in hashes:
        raise ValueError(f"there is no workload {measurement.candidate.workload:.12} before it")
    return numbered[key], measurement


def _proved(workload: Workload) -> Workload:
    """The workload as its module says that it is; only its name is taken on trust.

    Raises:
        ValueError: The module is something else than the hash says.
    """
    again = knobs_of(workload)
    if again is None:
        from db.exchange.modules import workload_of_json  # only these need TVM

        again = workload_of_json(workload.module_json, workload.name)
    if again.hash != workload.hash:
        raise ValueError(f"the module of {workload.name} is not the one that its hash stands for")
    return Workload(
        again.hash,
        workload.name,
        again.args,
        again.outputs,
        again.flop,
        again.reduction,
        workload.module_json,
    )


def write(store: Store, path: Path, workload: str | None = None, observe: Observe = unobserved) -> Exported:
    """Writes all measurements, or those of one workload (by its hash), oldest first.

    Raises:
        NoUsableRecords: There are none.
    """
    done = Exported()
    with ExitStack() as stack:
        file: BinaryIO | gzip.GzipFile = stack.enter_context(written_whole(path))
        if path.suffix == ".gz":  # without time and name: equal records, equal file
            file = stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0))
        for line in _lines(store, workload):
            file.write(line)
            done.written += line.startswith(_MEASURED)
            observe(done.written)
        if not done.written:
            raise NoUsableRecords(f"The database {store} holds no measurements to export.")
    return done


def _lines(store: Store, workload: str | None) -> Iterator[bytes]:
    yield json.dumps({"format": PORTABLE_NAME, "version": VERSION}).encode() + b"\n"
    hashes, numbers = set[str](), dict[str, int]()
    for conditions, measurement in store.stream(workload):
        hash = measurement.candidate.workload
        if hash not in hashes:
            hashes.add(hash)
            yield b'{"workload":%b}\n' % _WORKLOAD.dump_json(store.workload(hash))
        key = digest([*conditions.key, dict(conditions.versions)])
        if key not in numbers:
            numbers[key] = len(numbers)
            yield b'{"number":%d,"conditions":%b}\n' % (numbers[key], _CONDITIONS.dump_json(conditions))
        yield b'%b:%b,"under":%d}\n' % (_MEASURED, _MEASUREMENT.dump_json(measurement), numbers[key])
