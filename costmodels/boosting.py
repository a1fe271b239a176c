"""The baseline: gradient-boosted trees on TVM's own features of the lowered program."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from costmodels.data import Group, target_of
from costmodels.encodings import stores
from costmodels.encodings.hardware import encode_hardware
from costmodels.encodings.stores import encode_stores
from costmodels.network import Predicted
from costmodels.trees import one_thread

LEAST_SPREAD = 0.02
TENTH = 10

_TRUSTED = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]
"""The one type of these trees that skops does not know: arrays of numbers."""


@dataclass(frozen=True)
class EncodedStores:
    """A group for the trees; what cannot be encoded has NaN for features.

    Attributes:
        features: Shape [n, features]: of the program, then of the hardware.
    """

    features: NDArray[np.float32]
    latency_s: NDArray[np.float64]
    log_roofline_s: float


class StoreTrees:
    """Predicts how many times longer than the roofline a candidate takes, and whether it works.

    Args:
        leaves: Of a tree.
    """

    kind = "trees"
    encoding = stores.VERSION

    def __init__(self, trees: int = 400, leaves: int = 31, rate: float = 0.08) -> None:
        self.settings: dict[str, Any] = {"trees": trees, "leaves": leaves, "rate": rate}
        self._spread = 1.0
        self._times: HistGradientBoostingRegressor | None = None
        self._works: HistGradientBoostingClassifier | None = None

    @staticmethod
    def encode(group: Group) -> EncodedStores:
        """Features of a group's candidates."""
        traces = [c.trace for c in group.candidates]
        features = encode_stores(group.workload, traces, target_of(group.conditions))
        hardware = np.tile(encode_hardware(group.conditions), (len(traces), 1))
        return EncodedStores(
            np.concatenate([features, hardware], axis=1), group.latency_s, math.log(group.roofline_s)
        )

    def fit(self, groups: Sequence[EncodedStores], seed: int = 0) -> None:
        """Learns from encoded groups; the fast candidates of a group count more."""
        features = np.concatenate([g.features for g in groups])
        works = np.concatenate([np.isfinite(g.latency_s) for g in groups])
        times = np.concatenate([np.log(g.latency_s) - g.log_roofline_s for g in groups])
        share = np.concatenate([g.latency_s.min() / g.latency_s for g in groups])
        s = self.settings
        options = {
            "max_leaf_nodes": s["leaves"], "learning_rate": s["rate"], "random_state": seed,
            "early_stopping": False,
        }  # fmt: skip
        owner = np.repeat(np.arange(len(groups)), [len(g.latency_s) for g in groups])
        # How far off it is shows where it has not learnt: a tenth of the groups, before it learns all.
        for learnt in (owner % TENTH != 0, np.ones(len(owner), bool)):
            rows, others = works & learnt, works & ~learnt
            self._times = HistGradientBoostingRegressor(max_iter=s["trees"], **options)
            self._times.fit(features[rows], times[rows], sample_weight=0.1 + share[rows])
            if others.any() and rows.any():
                error = np.abs(self._times.predict(features[others]) - times[others])
                self._spread = max(LEAST_SPREAD, float(error.mean()))
        self._works = None
        if not works.all():
            self._works = HistGradientBoostingClassifier(max_iter=100, **options)
            self._works.fit(features, works)

    def predict(self, group: EncodedStores) -> Predicted:
        """Of the candidates of an encoded group, in their order."""
        assert self._times is not None, "fit first"
        with one_thread():
            log_s = self._times.predict(group.features) + group.log_roofline_s
            works = self._works.predict_proba(group.features)[:, 1] if self._works else np.ones(len(log_s))
        works = np.clip(works, 1e-6, 1.0)
        return Predicted(np.log(works) - log_s, log_s, np.full(len(log_s), self._spread), works)

    def dump(self, path: Path) -> None:
        """Writes the trees in a form that is read without executing what it holds."""
        import skops.io  # which imports all of scikit-learn: seconds that only these trees need

        path.write_bytes(skops.io.dumps({"times": self._times, "works": self._works, "spread": self._spread}))

    def read(self, path: Path) -> None:
        """Reads what ``dump`` wrote.

        Raises:
            Exception: Whatever skops raises of a file that is damaged, or holds what is not of scikit-learn.
        """
        import skops.io

        found = skops.io.load(path, trusted=_TRUSTED)
        self._times, self._works, self._spread = found["times"], found["works"], float(found["spread"])
