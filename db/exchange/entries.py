"""What files of recorded configurations have in common: Kernel Tuner's caches and T4's results."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from db.exchange.items import NO_MOMENT, Skipped, scaled
from search.problem import MeasureError

Value = int | float | str | bool


@dataclass(frozen=True)
class Entry:
    """One configuration, measured once.

    Attributes:
        place: Such as ``entry 17``, counted from 1.
        samples_s: Empty where it failed.
        cost_s: Seconds that it took in all: compiling, checking, running, and the tuner's own.
        build_s: Seconds of them that compiling took.
    """

    place: str
    configuration: Mapping[str, Value]
    samples_s: tuple[float, ...]
    error: MeasureError | None
    cost_s: float
    build_s: float
    measured_at: datetime


@dataclass(frozen=True)
class Table:
    """A file as it is.

    Attributes:
        device: ``unknown`` where the file does not say.
        problem_size: JSON value; None where the file does not say.
        declared: The parameters in order, each with the values that the file says it may have, if it does.
    """

    kernel: str
    device: str
    problem_size: Any
    declared: Mapping[str, tuple[Value, ...]]
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]

    def occurring(self) -> dict[str, tuple[Value, ...]]:
        """The values of each parameter that occur, sorted."""
        return {n: ordered(e.configuration[n] for e in self.entries) for n in self.declared}

    def all_values(self) -> dict[str, tuple[Value, ...]]:
        """Those that occur and those that may, sorted."""
        return {n: ordered([*values, *self.declared[n]]) for n, values in self.occurring().items()}


def ordered(values: Iterable[Value]) -> tuple[Value, ...]:
    """Each once, numbers by size, then text."""
    return tuple(sorted(set(values), key=lambda v: (1, 0, v) if isinstance(v, str) else (0, v, "")))


def configuration(given: Any, names: Sequence[str]) -> dict[str, Value]:
    """The parameters' values out of a larger mapping.

    Raises:
        ValueError: One is missing, or is no plain value.
    """
    if not isinstance(given, dict):
        raise ValueError("no configuration")
    for name in names:
        value = given.get(name)
        if not isinstance(value, (int, float, str)) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise ValueError(f"no value of {name}" if value is None else f"{name} is {value!r:.40}")
    return {name: given[name] for name in names}


def cost(value: Any, unit_s: float) -> float:
    """Seconds that something took; 0 where the file does not say."""
    taken_s = scaled(value, unit_s)
    return taken_s if 0 < taken_s < math.inf else 0.0


def moment(text: Any) -> datetime:
    """A time stamp, in UTC where it has no zone; ``NO_MOMENT`` where there is none."""
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        return NO_MOMENT
