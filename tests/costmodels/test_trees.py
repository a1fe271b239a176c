import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodels.encodings.decisions import encode, signature
from costmodels.trees import MIN_ROWS, TreeCostModel
from costmodels.values import TreeValueModel
from search.problem import Candidate, ErrorKind, MeasureError, Measurement, TensorSpec, Workload
from search.spaces.trace import factorizations

TILES = factorizations(64, 4, 64)


def work(name: str = "w", flop: float = 1e6) -> Workload:
    return Workload(name, name, (TensorSpec((64, 64), "float32"),), 1, flop, 64, "")


def measured(choices: tuple[int | tuple[int, ...], ...], latency_s: float | None) -> Measurement:
    candidate = Candidate("w", "s", choices, "")
    if latency_s is None:
        return Measurement(candidate, error=MeasureError(ErrorKind.CRASH, "made up"))
    return Measurement(candidate, (latency_s,))


def test_encoding_by_hand() -> None:
    row = encode([(2, (1, 2, 4, 8), 3, None)])[0]
    assert row[0] == 2  # sketch
    assert row[1:5].tolist() == [0, 1, 2, 3]  # logarithms of the factors
    assert row[5:8].tolist() == [5, 6, 6]  # of the inner blocks: 4x8, 2x4x8, all
    assert row[8] == 3
    assert np.isnan(row[9])
    assert row[10:].tolist() == [0, 1, 2, 3, 5, 6, 6]  # summed over the only tile


@given(st.lists(st.sampled_from(TILES), min_size=2, max_size=5))
def test_each_row_is_independent_of_the_others(tiles: list[tuple[int, ...]]) -> None:
    drafts = [(0, t, 1) for t in tiles]
    together = encode(drafts)
    assert all(np.array_equal(together[n], encode([d])[0]) for n, d in enumerate(drafts))


def test_signature_tells_kinds_of_decisions_apart() -> None:
    assert signature((0, (1, 2), 3, None)) == (2, 0, 0)


def test_knows_nothing_at_first() -> None:
    model = TreeCostModel()
    assert model.score(work(), [(0, TILES[0], 1)]) is None
    model.add(work(), [measured((0, t, 1), 1.0) for t in TILES[: MIN_ROWS - 1]])
    assert model.score(work(), [(0, TILES[0], 1)]) is None


def test_learns_a_small_set() -> None:
    model = TreeCostModel()
    model.add(work(), [measured((0, t, 1), 1.0 / (1 + t[-1])) for t in TILES])
    found = model.score(work(), [(0, t, 1) for t in TILES])
    labels = np.array([(1 + t[-1]) / 65 for t in TILES])
    assert found is not None
    assert np.abs(found.score - labels).mean() < 0.02


def test_what_one_workload_taught_helps_another() -> None:
    model = TreeCostModel()
    model.add(work("a", 1e6), [measured((0, t, 1), 1.0 / (1 + t[-1])) for t in TILES])
    found = model.score(work("b", 2e6), [(0, t, 1) for t in TILES])
    assert found is not None
    assert np.corrcoef(found.score, [t[-1] for t in TILES])[0, 1] > 0.9


def test_failures_are_learnt_as_worthless() -> None:
    model = TreeCostModel()
    model.add(work(), [measured((0, t, 1), None if t[0] == 1 else 1.0) for t in TILES])
    found = model.score(work(), [(0, t, 1) for t in TILES])
    assert found is not None
    failed = np.array([t[0] == 1 for t in TILES])
    assert found.score[failed].max() < found.score[~failed].min()


def test_unknown_kinds_of_drafts_count_as_average() -> None:
    model = TreeCostModel()
    model.add(work(), [measured((0, t, 1), 1.0 / (1 + t[-1])) for t in TILES])
    found = model.score(work(), [(0, TILES[0], 1), (1, TILES[0], 1, 1)])
    assert found is not None
    assert np.isfinite(found.score).all()
    assert found.spread[1] > found.spread[0]  # so that it is tried


def test_is_less_sure_of_what_it_has_not_seen() -> None:
    model = TreeCostModel()
    rng = np.random.default_rng(0)
    known = [t for t in TILES if t[-1] <= 8]
    model.add(work(), [measured((0, t, 1), 1.0 / (1 + t[-1] + rng.random())) for t in known])
    seen = model.score(work(), [(0, t, 1) for t in known])
    unseen = model.score(work(), [(0, t, 1) for t in TILES if t[-1] > 8])
    assert seen is not None
    assert unseen is not None
    assert unseen.spread.mean() > seen.spread.mean()


def test_realized_candidates_are_judged_as_their_decisions_are() -> None:
    model = TreeCostModel()
    rows = [measured((0, t, 1), 1.0 / (1 + t[-1])) for t in TILES]
    model.add(work(), rows)
    drafts = model.score(work(), [m.candidate.choices for m in rows])
    candidates = model.score(work(), [m.candidate for m in rows])
    assert drafts is not None
    assert candidates is not None
    assert drafts.score.tolist() == candidates.score.tolist()


def test_the_value_of_a_prefix_is_that_of_the_best_it_can_become() -> None:
    values = TreeValueModel()
    assert values.score(work(), [(0,)]) is None
    values.add(work(), [measured((0, t, n), 1.0 / (t[-1] * (1 + n))) for t in TILES for n in (0, 1)])
    found = values.score(work(), [(0, (64, 1, 1, 1)), (0, (1, 1, 1, 64)), (0,), (0, (1, 1, 1, 64), 0)])
    assert found is not None
    poor, good, start, complete = found.score
    assert good == pytest.approx(1.0, abs=0.1)
    assert start == pytest.approx(1.0, abs=0.15)
    assert poor < 0.3
    assert complete == pytest.approx(0.5, abs=0.15)


def test_a_prefix_of_a_form_never_seen_counts_as_average() -> None:
    values = TreeValueModel()
    values.add(work(), [measured((0, t, 1), 1.0 / t[-1]) for t in TILES])
    found = values.score(work(), [(0, TILES[0]), (7, TILES[0])])
    assert found is not None
    assert np.isfinite(found.score).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_data_gives_the_same_scores(seed: int) -> None:
    def scores() -> object:
        model = TreeCostModel(seed)
        model.add(work(), [measured((0, t, 1), 1.0 / (1 + t[-1])) for t in TILES])
        found = model.score(work(), [(0, t, 1) for t in TILES])
        return found.score.tolist() if found is not None else None

    assert scores() == scores()
