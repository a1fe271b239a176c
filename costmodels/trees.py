"""Gradient-boosted trees over decisions: the baseline cost model, fitted anew as measurements arrive.

One regressor for each signature (``costmodels.encodings.decisions``) learns from all workloads that have
it, so that a model's tenth convolution profits from the nine before. The label is that of TenSet: the best
latency known of a workload over the candidate's, between 0 (failed) and 1 (best).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from costmodels.encodings.decisions import Signature, encode, signature
from search.problem import Measurement, Workload
from search.space import Draft

Span = Callable[[Literal["features", "model"]], AbstractContextManager[None]]

MIN_ROWS = 16  # measurements of a signature before anything is predicted
MAX_ROWS = 4000  # newest measurements of a signature that are learnt from: keeps a fit under a second


class TreeCostModel:
    """A ``search.scorer.Scorer`` that learns.

    >>> model.add(workload, measurements)         # doctest: +SKIP
    >>> model.score(workload, drafts)             # doctest: +SKIP

    Args:
        span: Makes the context in which ``"features"`` are computed and the ``"model"`` works.
    """

    def __init__(self, seed: int = 0, span: Span = lambda phase: nullcontext()) -> None:
        self._seed = seed
        self._span = span
        self._rows: dict[Signature, list[tuple[Workload, Measurement]]] = defaultdict(list)
        self._best: dict[str, float] = {}
        self._regressors: dict[Signature, HistGradientBoostingRegressor] = {}
        self._stale: set[Signature] = set()

    def add(self, workload: Workload, measurements: Sequence[Measurement]) -> None:
        """Takes note of measurements; what they change is fitted when next asked for."""
        for m in measurements:
            kind = signature(m.candidate.choices)
            self._rows[kind].append((workload, m))
            self._stale.add(kind)
            self._best[workload.hash] = min(self._best.get(workload.hash, np.inf), m.latency_s)

    def score(self, workload: Workload, drafts: Sequence[Draft]) -> NDArray[np.float64] | None:
        """Predicted share of the best speed, shape [n]; None where too little is known of every draft."""
        groups: dict[Signature, list[int]] = defaultdict(list)
        for n, draft in enumerate(drafts):
            groups[signature(draft)].append(n)
        scores = np.full(len(drafts), np.nan)
        # One thread: the tables are small, and OpenMP's barriers take seconds beside busy workers.
        with self._span("model"), threadpool_limits(1, user_api="openmp"):
            for kind, places in groups.items():
                regressor = self._regressor(kind)
                if regressor is not None:
                    scores[places] = regressor.predict(self._encode(workload, [drafts[n] for n in places]))
        if np.isnan(scores).all():
            return None
        # What nothing is known of counts as average, so that it is tried at times.
        return np.where(np.isnan(scores), np.nanmedian(scores), scores)

    def _encode(self, workload: Workload, drafts: Sequence[Draft]) -> NDArray[np.float64]:
        with self._span("features"):
            about = np.log2([1 + workload.flop, 1 + workload.bytes, workload.reduction])
            return np.concatenate([encode(drafts), np.tile(about, (len(drafts), 1))], axis=1)

    def _regressor(self, kind: Signature) -> HistGradientBoostingRegressor | None:
        if kind in self._stale and len(self._rows[kind]) >= MIN_ROWS:
            self._regressors[kind] = self._fit(kind)
            self._stale.discard(kind)
        return self._regressors.get(kind)

    def _fit(self, kind: Signature) -> HistGradientBoostingRegressor:
        rows = self._rows[kind][-MAX_ROWS:]
        features = np.concatenate([self._encode(w, [m.candidate.choices]) for w, m in rows])
        labels = [self._best[w.hash] / m.latency_s if m.error is None else 0.0 for w, m in rows]
        regressor = HistGradientBoostingRegressor(
            max_iter=120, learning_rate=0.1, max_leaf_nodes=15, min_samples_leaf=3, early_stopping=False,
            random_state=self._seed,
        )  # fmt: skip
        return regressor.fit(features, np.array(labels))
