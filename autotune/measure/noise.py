"""How quiet the machine is, by the time that a fixed kernel takes."""

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

NOISY = 1.15  # times the quiet time: what is timed then is timed again; close to what other load does least
_WINDOW = 200  # probes that the quiet time is taken from, so that it follows clocks that change for good
_QUIET = 0.1  # quantile of them


@dataclass(frozen=True)
class NoisePoint:
    """One probe.

    Attributes:
        at_s: ``time.monotonic`` of it.
        drift: Its time over the quiet time: 1 on a quiet machine.
    """

    at_s: float
    drift: float


class NoiseMeter:
    """Turns samples of the fixed kernel into drifts."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self.points: list[NoisePoint] = []

    def add(self, at_s: float, samples_s: Sequence[float]) -> float:
        """Takes note of a probe and says its drift."""
        middle = statistics.median(samples_s)
        self._recent.append(middle)
        ranked = sorted(self._recent)
        drift = middle / ranked[int(_QUIET * len(ranked))]
        self.points.append(NoisePoint(at_s, drift))
        return drift
