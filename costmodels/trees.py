"""Trees over decisions: the baseline cost model, fitted anew as measurements arrive.

One forest for each signature (``costmodels.encodings.decisions``) learns from all workloads that have it, so
that a model's tenth convolution profits from the nine before. The label is that of TenSet: the best latency
known of a workload over the candidate's, between 0 (failed) and 1 (best). So what fails is learnt as well.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from threadpoolctl import ThreadpoolController

from costmodels.encodings.decisions import Signature, encode, signature
from search.problem import Measurement, Workload
from search.scorer import Prediction, Scored, Scorer, choices_of
from search.space import Draft

Span = Callable[[Literal["features", "model"]], AbstractContextManager[None]]

MIN_ROWS = 4  # measurements of a signature before anything is predicted
MAX_ROWS = 4000  # newest measurements of a signature that are learnt from: keeps a fit under a second
FRESHNESS = 16  # a model is fitted anew when a 16th to a 32nd has come to what it was fitted to
TREES = 24


class Row(NamedTuple):
    """A measurement, encoded.

    Attributes:
        best_s: The least latency of the workload that was known then.
        features: Shape [features]; empty where only prefixes are encoded.
    """

    workload: Workload
    measurement: Measurement
    best_s: float
    features: NDArray[np.float64]


def labels(rows: Sequence[Row]) -> NDArray[np.float64]:
    """Share of the best speed known with the last of the rows, shape [n]: 1 the best, 0 what failed."""
    best_s = {row.workload.hash: row.best_s for row in rows}
    return np.array([best_s[w.hash] / m.latency_s if m.error is None else 0.0 for w, m, _, _ in rows])


class TreeCostModel:
    """A ``search.scorer.Scorer`` of complete drafts that learns.

    >>> model.add(workload, measurements)         # doctest: +SKIP
    >>> model.score(workload, drafts)             # doctest: +SKIP

    Args:
        span: Makes the context in which ``"features"`` are computed and the ``"model"`` works.
        prior: Its scores and spreads are features too.
        boosted: Whether boosted trees have half the say; they take most of a fit's time.
    """

    def __init__(
        self,
        seed: int = 0,
        span: Span = lambda phase: nullcontext(),
        prior: Scorer | None = None,
        boosted: bool = True,
    ) -> None:
        self._boosted = boosted
        self._seed = seed
        self._span = span
        self._prior = prior
        self._rows: dict[Signature, list[Row]] = defaultdict(list)
        self._best: dict[str, float] = {}
        self._forests: dict[Signature, tuple[int, Forest]] = {}

    def add(self, workload: Workload, measurements: Sequence[Measurement]) -> None:
        """Takes note of measurements; what they change is fitted when next asked for."""
        groups: dict[Signature, list[tuple[Measurement, float]]] = defaultdict(list)
        for m in measurements:
            best_s = min(self._best.get(workload.hash, np.inf), m.latency_s)
            self._best[workload.hash] = best_s
            groups[signature(m.candidate.choices)].append((m, best_s))
        for kind, some in groups.items():
            features = self._encode(workload, [m.candidate.choices for m, _ in some], kind)
            self._rows[kind] += [
                Row(workload, m, best_s, f) for (m, best_s), f in zip(some, features, strict=True)
            ]

    def score(self, workload: Workload, items: Sequence[Scored]) -> Prediction | None:
        """Predicted share of the best speed; None where too little is known of every item."""
        drafts = [choices_of(item) for item in items]
        groups: dict[Signature, list[int]] = defaultdict(list)
        for n, draft in enumerate(drafts):
            groups[signature(draft)].append(n)
        scores, spreads = np.full(len(drafts), np.nan), np.full(len(drafts), np.nan)
        with self._span("model"), one_thread():
            for kind, places in groups.items():
                forest = self._forest(kind)
                if forest is not None:
                    features = self._encode(workload, [drafts[n] for n in places], kind)
                    scores[places], spreads[places] = forest.predict(features)
        if np.isnan(scores).all():
            return None
        # What nothing is known of counts as average, and as uncertain as the labels are, so that it is tried.
        unknown = np.isnan(scores)
        return Prediction(np.where(unknown, np.nanmedian(scores), scores), np.where(unknown, 0.5, spreads))

    def _encode(self, workload: Workload, drafts: Sequence[Draft], kind: Signature) -> NDArray[np.float64]:
        with self._span("features"):
            features = with_workload(workload, encode(drafts, kind))
        if self._prior is not None:
            said = self._prior.score(workload, drafts)
            columns = np.full((len(drafts), 2), np.nan) if said is None else np.stack(said, axis=1)
            features = np.concatenate([features, columns], axis=1)
        return features

    def _forest(self, kind: Signature) -> "Forest | None":
        """Of the first so many measurements, in whichever portions they came: a resumed run has the same."""
        count = milestone(len(self._rows[kind]))
        if count < MIN_ROWS:
            return None
        fitted, forest = self._forests.get(kind, (0, None))
        if forest is None or fitted != count:
            rows = self._rows[kind][:count][-MAX_ROWS:]
            features = np.stack([row.features for row in rows])
            forest = Forest(features, labels(rows), self._seed, self._boosted)
            self._forests[kind] = count, forest
        return forest


def one_thread() -> AbstractContextManager[object]:
    """One thread for OpenMP: the tables are small, and its barriers take seconds beside busy workers."""
    limit: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="openmp")
    return limit


@functools.cache
def _libraries() -> ThreadpoolController:
    """Looked for once, which takes milliseconds: scikit-learn has loaded all that matter by then."""
    return ThreadpoolController()


def milestone(count: int) -> int:
    """How many of ``count`` measurements a model is fitted to: a fit costs more than the last few add."""
    step = 1 << max(0, count.bit_length() - FRESHNESS.bit_length())
    return count - count % step


def with_workload(workload: Workload, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Features of drafts, followed by three of their workload: its work, its bytes, its longest sum."""
    about = np.log2([1 + workload.flop, 1 + workload.bytes, workload.reduction])
    return np.concatenate([features, np.tile(about, (len(features), 1))], axis=1)


class Forest:
    """Boosted and extremely randomised trees, averaged; how much the latter disagree is how little they know.

    Args:
        features: Shape [n, features]; NaN where something is not decided.
        labels: Shape [n].
        boosted: As of ``TreeCostModel``.
    """

    def __init__(
        self, features: NDArray[np.float64], labels: NDArray[np.float64], seed: int, boosted: bool = True
    ) -> None:
        self._random = ExtraTreesRegressor(n_estimators=TREES, max_features=0.8, random_state=seed)
        self._random.fit(features, labels)
        self._boosted = None
        if boosted:
            self._boosted = HistGradientBoostingRegressor(
                max_iter=100, learning_rate=0.1, max_leaf_nodes=15, min_samples_leaf=3, early_stopping=False,
                random_state=seed,
            )  # fmt: skip
            self._boosted.fit(features, labels)

    def predict(self, features: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation, each of shape [n]."""
        checked = np.asarray(features, dtype=np.float32)  # what each tree would do again
        each = np.stack([tree.tree_.predict(checked)[:, 0] for tree in self._random.estimators_])
        mean = each.mean(axis=0)
        if self._boosted is not None:
            mean = (mean + self._boosted.predict(features)) / 2
        return mean, each.std(axis=0)
