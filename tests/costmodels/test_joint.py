"""Who is listened to: whoever ranked best lately."""

from collections.abc import Sequence
from pathlib import Path

import made_up_data as made
import numpy as np
import pytest

from costmodels.by_space import SpaceModels, Trained
from costmodels.checkpoint import load
from costmodels.gnn import ProgramGNN
from costmodels.job import Job, train
from costmodels.joint import JointModel
from costmodels.lstm import DecisionLSTM
from costmodels.prior import ProgramPrior, SequencePrior
from costmodels.training import TrainSettings
from search.problem import Measurement, Workload
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


def rounds(n: int, size: int = 12) -> list[list[Measurement]]:
    group = made.group(WORKLOAD, "net", 400)
    pairs = list(zip(group.candidates, group.latency_s.tolist(), strict=True))
    return [[Measurement(c, (t,)) for c, t in pairs[i * size : (i + 1) * size]] for i in range(n)]


def test_before_anything_is_measured_the_prior_speaks() -> None:
    model = JointModel(Knowing())
    drafts = [m.candidate.choices for m in rounds(1)[0]]
    said = model.score(WORKLOAD, drafts)
    assert said is not None
    np.testing.assert_array_equal(said.score, Knowing().score(WORKLOAD, drafts).score)
    assert JointModel().score(WORKLOAD, drafts) is None


def test_a_good_prior_is_kept() -> None:
    model = JointModel(Knowing())
    for measured in rounds(6):
        model.add(WORKLOAD, measured)
    assert model.listened_to in ("prior", "both")
    assert all(r.accuracy["prior"] == 1.0 for r in model.rankings)


def test_one_that_misleads_is_dropped() -> None:
    model = JointModel(Knowing(-1.0))
    for measured in rounds(6):
        model.add(WORKLOAD, measured)
    assert model.listened_to != "prior"
    assert model.rankings[-1].accuracy["trees"] > model.rankings[-1].accuracy["prior"]


def test_without_a_prior_nothing_is_ranked() -> None:
    model = JointModel()
    for measured in rounds(2):
        model.add(WORKLOAD, measured)
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


@pytest.mark.parametrize("searcher", ["cascade", "beam", "evolutionary", "guided"])
def test_a_search_begins_better_than_by_chance(trained: Trained, searcher: str) -> None:
    models = SpaceModels([SPACE_NAME], trained)
    suggested = SEARCHERS[searcher](SPACE, models.scorers(SPACE), 0).suggest(8)
    drawn = [SPACE.sample(np.random.default_rng(i)) for i in range(200)]
    if searcher == "guided":  # it begins at random
        return
    ours = np.median([made.time_s(SPACE, c.choices) for c in suggested])
    assert ours < np.median([made.time_s(SPACE, d) for d in drawn])
