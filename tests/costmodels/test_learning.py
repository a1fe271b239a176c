"""Models that learn: that they do, that it can be kept, and that nothing is executed from a file."""

import json
import math
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up_data as made
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from costmodels import checkpoint
from costmodels.checkpoint import MODELS, BadCheckpoint
from costmodels.data import Group, TooLittleData
from costmodels.job import Job, Unobserved, train
from costmodels.metrics import summary
from costmodels.network import scored
from costmodels.training import Epoch, TrainSettings

GROUPS = made.learnable()
SMALL: dict[str, dict[str, Any]] = {
    "lstm": {"width": 24},
    "gnn": {"width": 16, "layers": 2},
    "trees": {"trees": 60},
}
kinds = pytest.mark.parametrize("kind", MODELS)


def job(kind: str, epochs: int = 12, seed: int = 0) -> Job:
    settings = TrainSettings(epochs=epochs, groups=2, candidates=32, rate=5e-3, seed=seed)
    return Job(kind, "workload", 0.25, seed, SMALL[kind], settings)


def judged(model: Any, groups: list[Group]) -> dict[str, float]:
    encoded = [model.encode(g) for g in groups]
    return summary([scored(model.predict(e), e) for e in encoded])


@kinds
def test_what_was_not_seen_is_ranked(kind: str, tmp_path: Path) -> None:
    about = train(GROUPS, job(kind), tmp_path / f"m{checkpoint.suffix(kind)}")
    assert about.metrics["pairwise"] > 0.7  # of chance 0.5; the knobs decide all
    assert about.metrics["top@5"] > 0.8
    assert about.data["workloads"] == 9


@kinds
def test_a_checkpoint_predicts_as_the_model_did(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{checkpoint.suffix(kind)}"
    about = train(GROUPS[:6], job(kind, epochs=2), path, version="7")
    model, read = checkpoint.load(path)
    assert read == about == checkpoint.read_about(path)
    assert (read.version, read.training["split"]) == ("7", "workload")
    again, _ = checkpoint.load(path)
    assert judged(model, GROUPS[:2]) == judged(again, GROUPS[:2])
    assert [f.name for f in tmp_path.iterdir()] == [path.name]  # nothing half-written is left


@kinds
def test_predictions_say_how_sure_they_are(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{checkpoint.suffix(kind)}"
    train(GROUPS[:6], job(kind, epochs=2), path)
    model, _ = checkpoint.load(path)
    said = model.predict(model.encode(GROUPS[0]))  # type: ignore[arg-type]
    assert all(np.isfinite(x).all() for x in said)
    assert (said.spread > 0).all()
    assert ((said.works > 0) & (said.works <= 1)).all()


@pytest.mark.slow
@kinds
def test_failures_are_learnt(kind: str, tmp_path: Path) -> None:
    """Narrow tiles fail everywhere: the model says so of a kernel that it has not seen."""

    def failing(group: Group) -> Group:
        bad = [c.hash for c in group.candidates if c.choices[1] == 0]
        return group.with_failed(bad)

    groups = [failing(g) for g in GROUPS]
    path = tmp_path / f"m{checkpoint.suffix(kind)}"
    train(groups[1:], job(kind, epochs=25), path)
    model, _ = checkpoint.load(path)
    encoded = model.encode(groups[0])
    works = model.predict(encoded).works  # type: ignore[arg-type]
    ran = np.isfinite(encoded.latency_s)
    assert works[ran].mean() > works[~ran].mean() + 0.3


class Killed(Exception):
    """Stands for a signal."""


class KilledAfter(Unobserved):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.seen: list[int] = []
        self.went_on_after = 0

    def epoch(self, epoch: Epoch, of: int) -> None:
        self.seen.append(epoch.number)
        if epoch.number == self.epochs:
            raise Killed

    def went_on(self, epochs: int) -> None:
        self.went_on_after = epochs


@pytest.mark.parametrize("kind", ["lstm", "gnn"])
def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_happened(kind: str, tmp_path: Path) -> None:
    whole = train(GROUPS[:6], job(kind, epochs=5), tmp_path / "whole.safetensors")
    path = tmp_path / "killed.safetensors"
    with pytest.raises(Killed):
        train(GROUPS[:6], job(kind, epochs=5), path, observer=KilledAfter(3))
    assert not path.exists()
    observer = KilledAfter(99)
    about = train(GROUPS[:6], job(kind, epochs=5), path, observer=observer)
    assert observer.went_on_after == 2  # the third was not over
    assert observer.seen == [3, 4, 5]
    # The last bits of MKL's sums depend on where buffers lie; a lost optimizer would change the first digit.
    assert about.metrics == pytest.approx(whole.metrics, rel=1e-3, abs=1e-3)


def test_what_was_left_of_another_training_is_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for other, groups in ((job("lstm", 5, seed=1), GROUPS[:6]), (job("lstm", 5), GROUPS[:5])):
        with pytest.raises(Killed):
            train(groups, other, path, observer=KilledAfter(3))
        observer = KilledAfter(99)
        train(GROUPS[:6], job("lstm", 4), path, observer=observer)
        assert observer.went_on_after == 0


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    alone = train(GROUPS[:6], job("lstm", 3), tmp_path / "alone.safetensors")
    observer = KilledAfter(99)
    together = replace(job("lstm", 3), processes=2)
    about = train(GROUPS[:6], together, tmp_path / "together.safetensors", observer=observer)
    assert observer.seen == [1, 2, 3]
    assert about.metrics["pairwise"] == pytest.approx(alone.metrics["pairwise"], abs=0.15)


def test_too_little_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TooLittleData, match="two workloads at least"):
        train(GROUPS[:1], job("lstm"), tmp_path / "m.safetensors")
    with pytest.raises(TooLittleData, match="two devices at least"):
        train(GROUPS, Job("lstm", "device"), tmp_path / "m.safetensors")


def written(path: Path, about: object) -> Path:
    save_file({"x": torch.zeros(1)}, path, {"autotune": json.dumps(about)})
    return path


def good_about() -> dict[str, Any]:
    return {"format": 1, "kind": "lstm", "encoding": MODELS["lstm"].encoding, "model": {"width": 24}}


class Bomb:
    """What a hostile pickle holds."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code from a checkpoint was executed",))


def bad_files(folder: Path) -> dict[str, Path]:
    files = {
        "missing": folder / "missing.safetensors",
        "empty": folder / "empty.safetensors",
        "pickle": folder / "pickle.safetensors",
        "no words": folder / "plain.safetensors",
        "pickled trees": folder / "bomb.skops",
        "truncated": folder / "short.safetensors",
    }
    files["empty"].touch()
    files["pickle"].write_bytes(pickle.dumps(Bomb()))
    save_file({"x": torch.zeros(1)}, files["no words"])
    with zipfile.ZipFile(files["pickled trees"], "w") as archive:
        archive.writestr("autotune.json", json.dumps(good_about() | {"kind": "trees", "model": {}}))
        archive.writestr("schema.json", json.dumps({"__class__": "Bomb", "__loader__": "ObjectNode"}))
    files["other format"] = written(folder / "format.safetensors", good_about() | {"format": 2})
    files["other kind"] = written(folder / "kind.safetensors", good_about() | {"kind": "oracle"})
    files["other encoding"] = written(folder / "old.safetensors", good_about() | {"encoding": "sequence/0"})
    files["other weights"] = written(folder / "weights.safetensors", good_about())
    whole = written(folder / "whole.safetensors", good_about()).read_bytes()
    files["truncated"].write_bytes(whole[: len(whole) // 2])
    return files


@pytest.mark.parametrize(
    "name",
    ["missing", "empty", "pickle", "no words", "pickled trees", "truncated", "other format", "other kind",
     "other encoding", "other weights"],
)  # fmt: skip
def test_bad_files_are_refused_in_a_line(name: str, tmp_path: Path) -> None:
    path = bad_files(tmp_path)[name]
    with pytest.raises(BadCheckpoint) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_old_encoding_says_what_to_do(tmp_path: Path) -> None:
    path = bad_files(tmp_path)["other encoding"]
    with pytest.raises(BadCheckpoint, match="autotune train --model lstm"):
        checkpoint.load(path)


@pytest.mark.slow
def test_a_time_is_predicted_in_seconds(tmp_path: Path) -> None:
    about = train(GROUPS, job("lstm", 25), tmp_path / "m.safetensors")
    assert about.metrics["median_error"] < 0.5
    assert math.isfinite(about.metrics["within@80%"])
