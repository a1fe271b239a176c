"""Kernel Tuner's cache file: a JSON object of facts, and in its ``cache`` an entry a configuration.

Kernel Tuner appends entries, a line each, and closes the two braces when it is done. So files of runs that
were cut off lack them, and where a run went on after being killed a line may be cut off as well.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from db.errors import BadRecords
from db.exchange.entries import Entry, Table, Value, configuration, cost, moment
from db.exchange.items import Skipped, failed, outcome
from search.problem import ErrorKind

_UNIT_S = 1e-3
_ERRORS = {
    "InvalidConfig": ErrorKind.INVALID,
    "CompilationFailedConfig": ErrorKind.BUILD_ERROR,
    "RuntimeFailedConfig": ErrorKind.RUN_ERROR,
}
_COSTS = ("compile_time", "framework_time", "verification_time", "benchmark_time")
_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"\s*")


class _Repeated(dict[str, Any]):
    """An object in which a key occurs more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def parse(text: str, path: Path) -> Table:
    """A cache file's text as a table.

    Raises:
        BadRecords: It is something else, or ends before its first entry.
    """
    try:
        header = json.loads(text, object_pairs_hook=_object)
        cache = header["cache"]
        found: Iterable[tuple[str, Any]] = cache.pairs if isinstance(cache, _Repeated) else cache.items()
    except (ValueError, RecursionError):
        header, found = _salvaged(text, path)
    except (KeyError, TypeError, AttributeError):
        raise _bad(path) from None
    declared = _declared(header, path)
    entries, skipped = list[Entry](), list[Skipped]()
    for number, (_, given) in enumerate(found, start=1):
        try:
            entries.append(_entry(f"entry {number}", given, tuple(declared), header.get("objective", "time")))
        except ValueError as error:
            skipped.append(Skipped(f"entry {number}", str(error)))
    return Table(
        kernel=str(header.get("kernel_name") or path.name),
        device=str(header.get("device_name") or "unknown"),
        problem_size=header.get("problem_size"),
        declared=declared,
        entries=tuple(entries),
        skipped=tuple(skipped),
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Repeated(pairs)


def _salvaged(text: str, path: Path) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """The facts, and the entries; None in place of those that are damaged."""
    start = re.search(r',\s*"cache"\s*:\s*\{', text)
    try:
        header = json.loads(text[: start.start()] + "}") if start else None
    except (ValueError, RecursionError):
        header = None
    if start is None or not isinstance(header, dict):
        raise _bad(path)
    return header, list(_members(text, start.end()))


def _members(text: str, place: int) -> Iterator[tuple[str, Any]]:
    """Keys and objects from ``place`` on, beginning anew on the next line where one is damaged."""
    damaged = False
    while (start := text.find('"', place)) >= 0:
        try:
            key, end = _DECODER.raw_decode(text, start)
            value, place = _DECODER.raw_decode(text, _BLANK.match(text, text.index(":", end) + 1).end())  # type: ignore[union-attr]
        except (ValueError, RecursionError):
            value = None
            place = text.find("\n", start)
        if isinstance(value, dict):
            damaged = False
            yield key, value
        elif not damaged:  # what follows up to the next entry belongs to this one
            damaged = True
            yield "", None
        if place < 0:
            return


def _declared(header: dict[str, Any], path: Path) -> dict[str, tuple[Value, ...]]:
    """The parameters, with the values that they may have."""
    values = header.get("tune_params")
    values = values if isinstance(values, dict) else {}
    names = header.get("tune_params_keys", list(values))
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise _bad(path)
    lists: dict[str, list[Any]] = {n: v if isinstance(v := values.get(n), list) else [] for n in names}
    return {n: tuple(v for v in some if isinstance(v, (int, float, str))) for n, some in lists.items()}


def _entry(place: str, given: Any, names: tuple[str, ...], objective: Any) -> Entry:
    """An entry as it is; raises ValueError with the reason why it is of no use."""
    if not isinstance(given, dict):
        raise ValueError("not JSON, or cut off")
    chosen = configuration(given, names)
    if name := _failure(given, objective):
        samples_s, error = failed(_ERRORS.get(name, ErrorKind.RUN_ERROR), name)
    else:
        times = given.get("times") or ([given["time"]] if "time" in given else None)
        samples_s, error = outcome(times, _UNIT_S)
    cost_s = sum(cost(given.get(name), _UNIT_S) for name in _COSTS)
    if "benchmark_time" not in given:
        cost_s += sum(samples_s)
    build_s = cost(given.get("compile_time"), _UNIT_S)
    return Entry(place, chosen, samples_s, error, cost_s, build_s, moment(given.get("timestamp")))


def _failure(given: dict[str, Any], objective: Any) -> str:
    """The name of an error that stands where a time should, empty where there is none."""
    for name in ("__error__", str(objective), "time"):
        if isinstance(value := given.get(name), str) and value:
            return value
    return ""


def _bad(path: Path) -> BadRecords:
    return BadRecords(
        f"{path} is no cache file of Kernel Tuner, or ends before its first entry.\n"
        "Expected a JSON object with tune_params_keys and cache."
    )
