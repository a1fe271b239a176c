"""Who is listened to: whoever ranked best lately."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import made_up_data as made
import numpy as np
import pytest
from numpy.typing import NDArray

from costmodels.by_space import SpaceModels, Trained
from costmodels.checkpoint import load
from costmodels.choose import choose
from costmodels.gnn import ProgramGNN
from costmodels.job import Job, train
from costmodels.joint import PORTION, JointModel
from costmodels.lstm import DecisionLSTM
from costmodels.prior import ProgramPrior, SequencePrior
from costmodels.training import TrainSettings
from search.problem import Hardware, Measurement, Workload
from search.scorer import Prediction, Scored, choices_of
from search.searchers import SEARCHERS
from search.spaces.contraction import SPACE_NAME, ContractionSpace

WORKLOAD = made.matmuls()[4]
SPACE = ContractionSpace(WORKLOAD, made.TARGET)


class Knowing:
    """Knows the times of the made-up candidates; or the contrary."""

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign

    def score(self, workload: Workload, items: Sequence[Scored]) -> Prediction:
        times = np.array([made.time_s(SPACE, choices_of(i)) for i in items])
        return Prediction(-self.sign * np.log(times), np.full(len(times), 0.1))

    def foretold_s(self, workload: Workload, items: Sequence[Scored]) -> NDArray[np.float64]:
        return np.exp(-self.score(workload, items).score)


def rounds(n: int, size: int = 12) -> list[list[Measurement]]:
    group = made.group(WORKLOAD, "net", 2000)
    pairs = list(zip(group.candidates, group.latency_s.tolist(), strict=True))
    return [[Measurement(c, (t,)) for c, t in pairs[i * size : (i + 1) * size]] for i in range(n)]


def test_before_anything_is_measured_the_prior_speaks() -> None:
    model = JointModel(Knowing())
    drafts = [m.candidate.choices for m in rounds(1)[0]]
    said = model.score(WORKLOAD, drafts)
    assert said is not None
    np.testing.assert_array_equal(said.score, Knowing().score(WORKLOAD, drafts).score)
    assert JointModel().score(WORKLOAD, drafts) is None


def told(model: JointModel, n: int, size: int) -> JointModel:
    """A model that was told of so many rounds of such a size."""
    for measured in rounds(n, size):
        model.add(WORKLOAD, measured)
    return model


def test_a_good_prior_is_kept() -> None:
    model = told(JointModel(Knowing()), 4, PORTION)
    assert model.listened_to in ("prior", "both")
    assert [r.accuracy["prior"] for r in model.rankings] == [1.0] * 4


def test_one_that_misleads_is_dropped() -> None:
    model = told(JointModel(Knowing(-1.0)), 4, PORTION)
    assert model.listened_to != "prior"
    assert model.rankings[-1].accuracy["trees"] > model.rankings[-1].accuracy["prior"]


def test_what_follows_does_not_depend_on_the_portions() -> None:
    """A run that was resumed hears of all at once."""
    drafts = [m.candidate.choices for m in rounds(1, 40)[0]]
    models = [told(JointModel(Knowing()), n, 96 // n) for n in (1, 3, 8)]
    said = [m.score(WORKLOAD, drafts) for m in models]
    assert len({m.listened_to for m in models}) == 1
    assert models[0].rankings == models[1].rankings == models[2].rankings
    for prediction in said:
        assert prediction is not None
        np.testing.assert_array_equal(prediction.score, said[0].score)  # type: ignore[union-attr]


def test_until_something_is_judged_the_prior_is_listened_to() -> None:
    model = told(JointModel(Knowing(-1.0)), 1, PORTION - 1)
    assert model.listened_to == "prior"


def test_what_a_prior_may_have_been_trained_on_proves_nothing() -> None:
    model = JointModel(Knowing())
    for measured in rounds(4, PORTION):
        model.add(WORKLOAD, measured, judge=False)
    assert model.listened_to == "prior"
    assert model.rankings == []
    fresh = rounds(5, PORTION)[4]
    model.add(WORKLOAD, fresh)
    assert model.listened_to in ("prior", "both")
    assert model.rankings[0].accuracy["trees"] > 0.6  # they have learnt it all the same


def test_scores_are_shares_of_the_best_speed_whoever_speaks() -> None:
    model = told(JointModel(Knowing()), 1, 8)
    measured = rounds(1, 8)[0]
    said = model.score(WORKLOAD, [m.candidate.choices for m in measured])
    assert said is not None
    best_s = min(m.latency_s for m in measured)
    np.testing.assert_allclose(said.score, [best_s / m.latency_s for m in measured])


def test_without_a_prior_nothing_is_ranked() -> None:
    model = told(JointModel(), 2, PORTION)
    assert model.rankings == []
    assert model.listened_to == "trees"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder: Path = tmp_path_factory.mktemp("trained")
    found = {}
    for kind in ("lstm", "gnn"):
        settings = TrainSettings(epochs=12, groups=2, candidates=32, rate=5e-3)
        path = folder / f"{kind}.safetensors"
        train(made.learnable(), Job(kind, "workload", model={"width": 24}, training=settings), path)
        found[kind], _ = load(path)
    lstm, gnn = found["lstm"], found["gnn"]
    assert isinstance(lstm, DecisionLSTM)
    assert isinstance(gnn, ProgramGNN)
    return Trained(made.CONDITIONS, lstm, gnn)


def test_a_prior_scores_as_the_network_predicts(trained: Trained) -> None:
    """In the loop as in training: of the same candidates the same."""
    assert trained.lstm is not None
    assert trained.gnn is not None
    group = made.group(WORKLOAD, "net", 20)
    prior = SequencePrior(trained.lstm, made.CONDITIONS)
    assert prior.score(WORKLOAD, group.candidates) is None  # its space is not known yet
    prior.add(SPACE)
    said = prior.predict(WORKLOAD, [c.choices for c in group.candidates])
    assert said is not None
    expected = trained.lstm.predict(trained.lstm.encode(group))
    np.testing.assert_allclose(said.score, expected.score, atol=1e-4)
    programs = ProgramPrior(trained.gnn, made.CONDITIONS).predict(WORKLOAD, group.candidates)
    expected = trained.gnn.predict(trained.gnn.encode(group))
    np.testing.assert_allclose(programs.score, expected.score, atol=1e-4)


def test_a_device_that_was_never_seen_is_taken_for_the_one_that_was(trained: Trained) -> None:
    """All data are of one device: nothing is known of what another's numbers mean, but for its roofline."""
    assert trained.lstm is not None
    other = Hardware("other", 64, {"isa": ["avx512f"]}, {"peak_gflops_f32": 4000.0, "fork_us": 0.1})
    drafts = [m.candidate.choices for m in rounds(1)[0]]
    said = []
    for conditions in (made.CONDITIONS, replace(made.CONDITIONS, hardware=other)):
        prior = SequencePrior(trained.lstm, conditions)
        prior.add(SPACE)
        said.append(prior.predict(WORKLOAD, drafts))
    assert said[0] is not None
    assert said[1] is not None
    np.testing.assert_allclose(np.ptp(said[0].log_s - said[1].log_s), 0.0, atol=1e-4)


def test_prefixes_are_judged_too(trained: Trained) -> None:
    assert trained.lstm is not None
    prior = SequencePrior(trained.lstm, made.CONDITIONS)
    prior.add(SPACE)
    draft = SPACE.first()
    said = prior.score(WORKLOAD, [draft[:n] for n in range(1, len(draft) + 1)])
    assert said is not None
    assert np.isfinite(said.score).all()


def test_programs_are_judged_only_when_realized(trained: Trained) -> None:
    assert trained.gnn is not None
    assert ProgramPrior(trained.gnn, made.CONDITIONS).score(WORKLOAD, [SPACE.first()]) is None


def by_chance() -> list[float]:
    return [made.time_s(SPACE, SPACE.sample(np.random.default_rng(i))) for i in range(200)]


@pytest.mark.parametrize("searcher", ["cascade", "beam"])
def test_a_search_begins_better_than_by_chance(trained: Trained, searcher: str) -> None:
    models = SpaceModels([SPACE_NAME], trained)
    suggested = SEARCHERS[searcher](SPACE, models.scorers(SPACE), 0).suggest(8)
    ours = [made.time_s(SPACE, c.choices) for c in suggested]
    assert np.median(ours) < np.median(by_chance())


def test_a_good_candidate_is_chosen_without_running_any(trained: Trained) -> None:
    chosen = choose([SPACE], SpaceModels([SPACE_NAME], trained))
    assert chosen is not None
    assert made.time_s(SPACE, chosen.choices) <= np.quantile(by_chance(), 0.2)
    assert choose([SPACE], SpaceModels([SPACE_NAME], trained)) == chosen
    assert choose([SPACE], SpaceModels([SPACE_NAME])) is None  # nothing is known
