"""The value of a partial schedule: how good the best is that it can become, learnt from what was measured.

After Steiner et al. (MLSys 2021, section 4): V(s) of a prefix s is the best result known of any candidate
that begins so. Here trees, which take what is not decided yet as missing, generalise from the prefixes seen.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np

from costmodels.encodings.decisions import Signature, encode, signature
from costmodels.trees import MIN_ROWS, Forest, Row, Span, labels, milestone, one_thread, with_workload
from search.problem import Measurement, Workload
from search.scorer import Prediction, Scored, choices_of
from search.space import Draft

MAX_CANDIDATES = 200  # newest of a signature whose prefixes are learnt from


class TreeValueModel:
    """A ``search.scorer.Scorer`` of incomplete drafts, and complete ones, that learns.

    Args:
        span: As of ``TreeCostModel``.
    """

    def __init__(self, seed: int = 0, span: Span = lambda phase: nullcontext()) -> None:
        self._seed = seed
        self._span = span
        self._rows: dict[Signature, list[Row]] = defaultdict(list)
        self._forms: dict[tuple[str, object], Signature] = {}
        self._best: dict[str, float] = {}
        self._forests: dict[Signature, tuple[int, Forest]] = {}

    def add(self, workload: Workload, measurements: Sequence[Measurement]) -> None:
        """Takes note of measurements; what they change is fitted when next asked for."""
        for m in measurements:
            kind = signature(m.candidate.choices)
            self._best[workload.hash] = min(self._best.get(workload.hash, np.inf), m.latency_s)
            self._rows[kind].append(Row(workload, m, self._best[workload.hash], np.empty(0)))
            self._forms[workload.hash, m.candidate.choices[0]] = kind

    def score(self, workload: Workload, items: Sequence[Scored]) -> Prediction | None:
        """Predicted share of the best speed that the best completion reaches; None where nothing is known.

        What an incomplete draft is to become follows from its first decision, as of candidates seen.
        """
        drafts = [choices_of(item) for item in items]
        groups: dict[Signature | None, list[int]] = defaultdict(list)
        for n, draft in enumerate(drafts):
            groups[self._forms.get((workload.hash, draft[0]))].append(n)
        scores, spreads = np.full(len(drafts), np.nan), np.full(len(drafts), 0.5)
        with self._span("model"), one_thread():
            for kind, places in groups.items():
                if kind is not None and milestone(len(self._rows[kind])) >= MIN_ROWS:
                    features = with_workload(workload, encode([drafts[n] for n in places], kind))
                    scores[places], spreads[places] = self._forest(kind).predict(features)
        if np.isnan(scores).all():
            return None
        return Prediction(np.where(np.isnan(scores), np.nanmedian(scores), scores), spreads)

    def _forest(self, kind: Signature) -> Forest:
        count = milestone(len(self._rows[kind]))
        fitted, forest = self._forests.get(kind, (0, None))
        if forest is None or fitted != count:
            rows = self._rows[kind][:count][-MAX_CANDIDATES:]
            values: dict[tuple[str, Draft], tuple[Workload, float]] = {}
            for row, value in zip(rows, labels(rows).tolist(), strict=True):
                choices = row.measurement.candidate.choices
                for length in range(1, len(choices) + 1):
                    key = row.workload.hash, choices[:length]
                    values[key] = row.workload, max(value, values.get(key, (row.workload, 0.0))[1])
            features = [with_workload(w, encode([prefix], kind)) for (_, prefix), (w, _) in values.items()]
            best = np.array([value for _, value in values.values()])
            forest = Forest(np.concatenate(features), best, self._seed)
            self._forests[kind] = count, forest
        return forest
