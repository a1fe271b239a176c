"""What reading a file of records yields, one after another, whatever its format."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from db.exchange.formats import Format
from search.errors import last_line
from search.problem import Conditions, ErrorKind, Hardware, MeasureError, Measurement, Workload

NO_MOMENT = datetime(1970, 1, 1, tzinfo=UTC)
"""When something was measured, where a file does not say: always the same, so that a record that is imported
again is known to be the same."""

UNKNOWN_TARGET = '{"kind":"unknown"}'

SHOWN = 10
"""Of what is left out, so many reasons are kept; the rest is counted."""

LONGEST_S = 1e10
"""No kernel takes 300 years: MetaSchedule records failures as 1e10 s, old Kernel Tuners as 1e20 ms."""


@dataclass(frozen=True)
class Row:
    """A measurement, under what conditions it was made, and where in the file it stands."""

    place: str
    conditions: Conditions
    measurement: Measurement


@dataclass(frozen=True)
class Skipped:
    """What is left out, and why."""

    place: str
    reason: str

    def __str__(self) -> str:
        """One line, whatever the file had in it."""
        return "".join(c if c.isprintable() else "\ufffd" for c in f"{self.place}: {self.reason}")


Item = Workload | Row | Skipped
"""A workload comes before its rows."""

Observe = Callable[[int], None]
"""Told again and again how many records were seen, of a work that may take long."""


@dataclass
class Tally:
    """What was left out.

    Attributes:
        skipped: How many records.
        reasons: The first ``SHOWN`` of them with their reasons, none twice.
    """

    skipped: int = 0
    reasons: list[str] = field(default_factory=list)

    def skip(self, what: Skipped) -> None:
        """Counts a record that is left out."""
        self.skipped += 1
        if len(self.reasons) < SHOWN and (text := str(what)) not in self.reasons:
            self.reasons.append(text)


@dataclass
class Exported(Tally):
    """How much of a database went into a file: the number of measurements."""

    written: int = 0


def unobserved(count: int) -> None:
    """Tells nobody."""


def unknown_conditions(device: str, format: Format, target: str = UNKNOWN_TARGET) -> Conditions:
    """Conditions of a file that says little: no probed device ever equals them.

    Args:
        device: What the file calls it, ``unknown`` where it does not.
    """
    features = {} if device == "unknown" else {"imported": format.value}
    return Conditions(Hardware(device, 0, features), target, 0)


Outcome = tuple[tuple[float, ...], MeasureError | None]
"""Samples in seconds and no error, or none and an error."""


def failed(kind: ErrorKind, text: str) -> Outcome:
    """The outcome of what failed, with a text of bearable length."""
    return (), MeasureError(kind, text[:300])


def outcome(times: Any, unit_s: float) -> Outcome:
    """Samples in seconds, or the error that some of them are no times.

    Args:
        times: A list of numbers in ``unit_s``, if the file is right.

    Raises:
        ValueError: There are none.
    """
    if not isinstance(times, list) or not times:
        raise ValueError("no times")
    samples_s = [scaled(t, unit_s) for t in times]
    for given, sample_s in zip(times, samples_s, strict=True):
        if not 0 < sample_s < LONGEST_S:
            kind = ErrorKind.IMPLAUSIBLE if sample_s <= 0 else ErrorKind.RUN_ERROR
            return failed(kind, f"a time of {given!r:.40} was recorded")
    return tuple(samples_s), None


def scaled(value: Any, unit_s: float) -> float:
    """Seconds; NaN of what is no number, which ``true`` is neither."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return math.nan
    try:
        return value * unit_s
    except OverflowError:  # JSON's integers have no limit
        return math.inf


def reason(error: BaseException) -> str:
    """An error in a few words. Of those that pydantic finds, the first."""
    if hasattr(error, "errors"):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if isinstance(error, UnicodeError):
        return "no UTF-8 text"
    return "not JSON, or cut off" if hasattr(error, "lineno") else last_line(error)
