"""Numbers for people: text with units and three significant digits."""

import math
from typing import Any

UNKNOWN = "-"

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def digits(value: float | None) -> str:
    """Three significant digits, never an exponent: ``0.0123``, ``1.23``, ``12.3``, ``1,234``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    exponent = int(f"{value:.2e}".partition("e")[2]) if value else 2
    return f"{value:,.{max(0, 2 - exponent)}f}"


def latency(seconds: float | None) -> str:
    """Seconds with the unit that fits: ``1.23 ms``."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    rounded = float(f"{seconds:.2e}")  # so that 999.9 µs become 1.00 ms, not 1,000 µs
    scale, unit = next((u for u in _UNITS if rounded >= u[0]), _UNITS[-1] if rounded else _UNITS[0])
    return f"{digits(rounded / scale)} {unit}"


def duration(seconds: float) -> str:
    """How long something took: ``12.3 s``, ``3 min 05 s``, ``2 h 04 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def ratio(value: float | None) -> str:
    """A speed-up: ``2.31x``."""
    text = digits(value)
    return text if text == UNKNOWN else f"{text}x"


def percent(share: float | None) -> str:
    """A share, 1 being everything: ``12.3 %``."""
    if share is None:
        return UNKNOWN
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def scientific(value: float | None) -> str:
    """An error or a tolerance: ``1.2e-06``."""
    return UNKNOWN if value is None else "0" if value == 0 else f"{value:.1e}"


def size(count: int) -> str:
    """Bytes of memory: ``32 KiB``, ``35.8 MiB``."""
    exponent = min(max(0, (max(count, 1).bit_length() - 1) // 10), 3)
    return f"{count / 1024**exponent:.4g} {('B', 'KiB', 'MiB', 'GiB')[exponent]}"


def plain(value: Any) -> str:
    """A value of a descriptor: lists and mappings as text, one printable line."""
    if isinstance(value, dict):
        return ", ".join(f"{plain(key)} {plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, float):
        return digits(value)
    return "".join(c if c.isprintable() else "\ufffd" for c in str(value))


def shorten(text: str, width: int) -> str:
    """At most ``width`` characters; the middle goes, since kernels' names differ at their ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
