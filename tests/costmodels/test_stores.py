"""TVM's features of stores, put together to rows of one length."""

import json
from typing import Any

import numpy as np
import pytest
from kernels import TARGET, convolution, matmul, softmax, workload

from costmodels.encodings import stores
from costmodels.encodings.stores import FEATURES, STORE_FEATURES, aggregate, encode_stores
from search.errors import InvalidCandidate
from search.problem import Workload
from search.spaces.trace import TraceSpace

KERNELS = {  # and the multiplications of each
    "matmul": (matmul(32, 32, 32), 32**3),
    "convolution": (convolution(8, 16), 8 * 8 * 16 * 16 * 3 * 3),
    "softmax": (softmax(), 0),
}


def traces_of(work: Workload, n: int) -> list[str]:
    space, rng = TraceSpace(work, TARGET), np.random.default_rng(0)
    found: list[str] = []
    while len(found) < n:
        try:
            found.append(space.realize(space.sample(rng), rng).trace)
        except InvalidCandidate:
            continue
    return found


def test_aggregate_by_hand() -> None:
    small, large = np.zeros(STORE_FEATURES), np.zeros(STORE_FEATURES)
    small[0], large[1] = np.log2(1 + 3.0), np.log2(1 + 8.0)  # 3 additions, 8 of another kind
    small[160], large[160] = np.log2(1 + 1.0), np.log2(1 + 2.0)
    small[163] = 5.0
    row = aggregate(np.stack([small, large]))
    assert row[[0, 1, 160, 163]] == pytest.approx([2.0, np.log2(9), 2.0, 5.0])  # the totals
    assert row[STORE_FEATURES : 2 * STORE_FEATURES].tolist() == large.tolist()
    assert row[-1] == 2
    assert aggregate(small[None])[:STORE_FEATURES] == pytest.approx(small)
    assert np.isnan(aggregate(np.empty((0, STORE_FEATURES)))).all()


@pytest.mark.parametrize("function, multiplications", KERNELS.values(), ids=KERNELS)
def test_rows_tell_candidates_apart_and_their_work_is_the_same(function: Any, multiplications: int) -> None:
    work = workload(function)
    rows = encode_stores(work, traces_of(work, 6), TARGET)
    assert rows.shape == (6, FEATURES) and rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert len({row.tobytes() for row in rows}) > 1
    assert np.exp2(rows[:, 2]) - 1 == pytest.approx(
        np.full(6, multiplications), rel=1e-5
    )  # of float32's bits


def test_each_row_is_independent_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    work = workload(matmul())
    traces = traces_of(work, 5)
    together = encode_stores(work, traces, TARGET)
    monkeypatch.setattr(stores, "_BATCH", 2)
    assert np.array_equal(encode_stores(work, traces[::-1], TARGET)[::-1], together)
    assert encode_stores(work, [], TARGET).shape == (0, FEATURES)


def test_traces_that_do_not_apply_are_nan() -> None:
    work, other = workload(matmul()), workload(convolution())
    (good,), (foreign,) = traces_of(work, 1), traces_of(other, 1)
    rows = encode_stores(work, ["", foreign, good, json.dumps([[["Nothing", [], [], []]], []])], TARGET)
    assert np.isnan(rows).all(axis=1).tolist() == [True, True, False, True]


def test_a_program_that_tvm_cannot_lower_costs_its_own_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    work, plain = workload(matmul()), "[[],[]]"
    traces = [*traces_of(work, 2), plain, plain]
    whole = encode_stores(work, traces, TARGET)
    extractor = stores.PerStoreFeature()

    class Refusing:
        """Of programs that nothing was done to."""

        def extract_from(self, context: Any, candidates: list[Any]) -> Any:
            if not all(c.sch.trace.insts for c in candidates):
                raise RuntimeError("made up")
            return extractor.extract_from(context, candidates)

    monkeypatch.setattr(stores, "PerStoreFeature", Refusing)
    rows = encode_stores(work, traces, TARGET)
    assert np.array_equal(rows[:2], whole[:2]) and np.isfinite(whole).all()
    assert np.isnan(rows[2:]).all()
