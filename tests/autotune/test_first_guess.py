"""Zero trials: each kernel gets the schedule that a formula takes for the best, and nothing is measured."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import tiny
from typer.testing import CliRunner

import autotune
from autotune.cli.app import app
from autotune.deliver import NEVER_MEASURED
from autotune.errors import BadInput
from db.store import Store


def test_zero_trials_give_a_compiled_model_that_was_checked(tmp_path: Path) -> None:
    module, inputs = tiny()
    model, database, out = (str(tmp_path / n) for n in ("tiny.pt2", "records.db", "out"))
    torch.export.save(torch.export.export(module, inputs), model)
    options = ["--trials", "0", "--db", database, "--out", out, "--json"]
    done = CliRunner().invoke(app, ["run", model, *options])
    assert done.exit_code == 0, done.output
    compiled = autotune.load(out)
    assert np.abs(compiled(inputs[0].numpy())[0] - module(*inputs).detach().numpy()).max() < 1e-5
    with Store.open(database) as store:
        assert store.stats().rows["measurements"] == 0
    convolutions = [t for t in compiled.tasks if "conv2d" in t.name]
    assert convolutions
    assert all(t.winner and t.status == "tuned" and t.note == NEVER_MEASURED for t in convolutions)
    assert not any(t.trials or t.after_s or t.p_faster for t in compiled.tasks)
    assert json.loads(done.stdout)["run"]["trials"] == compiled.manifest.run.trials == 0


@pytest.mark.slow
def test_measuring_goes_on_from_there(tmp_path: Path) -> None:
    """A run without trials is not in the way of one with some."""
    module, inputs = tiny()
    for trials in (0, 6):
        model = autotune.tune(module, inputs, trials=trials, db=str(tmp_path / "db"), out=tmp_path / "out")
    assert model.manifest.run.trials == 6
    assert any(t.trials for t in model.tasks)


def test_fewer_than_no_trials_are_refused() -> None:
    module, inputs = tiny()
    with pytest.raises(BadInput, match="--trials -1: expected 0"):
        autotune.tune(module, inputs, trials=-1)


def test_tiles_of_an_artifact_ask_nobody_for_memory(tmp_path: Path) -> None:
    module, inputs = torch.nn.Linear(64, 128), (torch.randn(48, 64),)
    autotune.tune(module, inputs, trials=0, db=str(tmp_path / "db"), out=tmp_path / "out")
    (library,) = (tmp_path / "out").glob("*.so")
    assert b"TVMBackendParallelLaunch" in library.read_bytes()
    assert b"TVMBackendAllocWorkspace" not in library.read_bytes()
