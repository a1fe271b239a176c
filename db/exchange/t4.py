"""The T4 format for results of autotuners: one JSON object with ``metadata`` and ``results``.

See https://github.com/odgaard/TuningSchema. There is no word of the kernel, nor of the device.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from db.errors import BadRecords
from db.exchange.entries import Entry, Table, configuration, cost, moment
from db.exchange.items import Skipped, failed, outcome
from search.problem import ErrorKind

_UNITS_S = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}
_SPELLINGS = {
    "s": "seconds", "sec": "seconds",
    "ms": "milliseconds", "msec": "milliseconds", "milisecond": "milliseconds", "miliseconds": "milliseconds",
    "us": "microseconds", "\u00b5s": "microseconds", "\u03bcs": "microseconds", "usec": "microseconds",
    "ns": "nanoseconds", "nsec": "nanoseconds",
}  # fmt: skip
_ERRORS = {
    "timeout": ErrorKind.RUN_TIMEOUT,
    "compile": ErrorKind.BUILD_ERROR,
    "runtime": ErrorKind.RUN_ERROR,
    "correctness": ErrorKind.WRONG_OUTPUT,
    "constraints": ErrorKind.INVALID,
}


def parse(text: str, path: Path) -> Table:
    """A results file's text as a table.

    Raises:
        BadRecords: It is something else, ends before its first result, or measures time in an unknown unit.
    """
    data, skipped = _loaded(text, path)
    results = data.get("results")
    if not isinstance(results, list):
        raise _bad(path)
    unit_s = _unit(data, path)
    names = _names(results)
    entries = list[Entry]()
    for number, given in enumerate(results, start=1):
        try:
            entries.append(_entry(f"entry {number}", given, names, unit_s))
        except ValueError as error:
            skipped.append(Skipped(f"entry {number}", str(error)))
    kernel = path.name.removesuffix(".gz").removesuffix(".json")
    return Table(kernel, "unknown", None, dict.fromkeys(names, ()), tuple(entries), tuple(skipped))


def _loaded(text: str, path: Path) -> tuple[dict[str, Any], list[Skipped]]:
    """The object, and what is left out where it is damaged: all from there on."""
    skipped = list[Skipped]()
    try:
        data = json.loads(text)
    except RecursionError:
        raise _bad(path) from None
    except json.JSONDecodeError as error:
        skipped.append(
            Skipped(f"line {error.lineno}", "the file ends early, or is damaged; nothing after that was read")
        )
        try:
            data = json.loads(_closed(text[: error.pos]))
        except (ValueError, RecursionError):
            raise _bad(path) from None
    if not isinstance(data, dict):
        raise _bad(path)
    return data, skipped


def _closed(text: str) -> str:
    """What is whole of an object cut off within a list, or another object, of objects; brackets closed."""
    open_: list[str] = []
    end, closing = 0, ""
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|["\[\]{}]', text):
        match token[0]:
            case "{":
                open_.append("}")
            case "[":
                open_.append("]")
            case "}" | "]":
                if not open_ or open_.pop() != token[0]:
                    break
                if len(open_) == 2:
                    end, closing = token.end(), open_[1] + open_[0]
            case '"':  # without its end
                break
    return text[:end] + closing


def _unit(data: dict[str, Any], path: Path) -> float:
    """Seconds of the unit that all times are in."""
    metadata = data.get("metadata")
    given = metadata.get("timeunit") if isinstance(metadata, dict) else None
    if given is None:
        given = _unit_of_measurements(data["results"])
    word = str(given).strip().lower()
    word = _SPELLINGS.get(word, word)
    unit_s = _UNITS_S.get(word) or _UNITS_S.get(word + "s")
    if unit_s is None:
        said = "metadata.timeunit is missing" if given is None else f"metadata.timeunit is {given!r:.40}"
        raise BadRecords(
            f"{path}: {said}, so its times mean nothing.\nExpected one of {', '.join(_UNITS_S)}."
        )
    return unit_s


def _unit_of_measurements(results: list[Any]) -> str | None:
    """What Kernel Tuner writes into each result instead: the unit of the measurement ``time``."""
    lists = [
        r["measurements"] for r in results if isinstance(r, dict) and isinstance(r.get("measurements"), list)
    ]
    given = [m for some in lists for m in some if isinstance(m, dict) and m.get("name") == "time"]
    units = {str(m["unit"]) for m in given if m.get("unit")}
    return units.pop() if len(units) == 1 else None


def _names(results: list[Any]) -> tuple[str, ...]:
    """The parameters that most results have."""
    given = [
        r["configuration"]
        for r in results
        if isinstance(r, dict) and isinstance(r.get("configuration"), dict)
    ]
    order = {frozenset(c): tuple(c) for c in reversed(given)}
    most = Counter(frozenset(c) for c in given).most_common(1)
    return order[most[0][0]] if most else ()


def _entry(place: str, given: Any, names: tuple[str, ...], unit_s: float) -> Entry:
    """A result as it is; raises ValueError with the reason why it is of no use."""
    if not isinstance(given, dict):
        raise ValueError("not an object")
    chosen = configuration(given.get("configuration"), names)
    times, verdict = given.get("times"), given.get("invalidity")
    if not isinstance(times, dict):
        raise ValueError("no times")
    if not isinstance(verdict, str):
        raise ValueError("no invalidity")
    if verdict != "correct":
        samples_s, error = failed(_ERRORS.get(verdict, ErrorKind.RUN_ERROR), verdict)
    elif times.get("runtimes"):
        samples_s, error = outcome(times["runtimes"], unit_s)
    else:
        raise ValueError("no runtimes")
    build_s = cost(times.get("compilation", times.get("compilation_time")), unit_s)
    runtimes = times.get("runtimes")
    ran_s = sum(cost(t, unit_s) for t in runtimes) if isinstance(runtimes, list) else 0.0
    cost_s = build_s + cost(times.get("framework"), unit_s) + cost(times.get("validation"), unit_s) + ran_s
    return Entry(place, chosen, samples_s, error, cost_s, build_s, moment(given.get("timestamp")))


def _bad(path: Path) -> BadRecords:
    return BadRecords(
        f"{path} is no results file in the T4 format, or ends before its first result.\n"
        "Expected a JSON object with metadata and results."
    )
