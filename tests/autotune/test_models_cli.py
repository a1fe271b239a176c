"""Training from the command line: from a database to a checkpoint that a run uses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_up_data as made
import pytest
from typer.testing import CliRunner

from autotune.cli.app import app
from autotune.learning import learned_models
from db.store import Store
from search.errors import AutotuneError
from search.problem import Measurement, Task


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Four networks of three kernels each, measured."""
    url = str(tmp_path_factory.mktemp("models") / "a.db")
    groups = made.learnable()
    with Store.open(url, create=True) as store:
        for name in sorted({n for g in groups for n in g.networks}):
            mine = [g for g in groups if name in g.networks]
            tasks = [Task(f"matmul{i}", g.workload, 1) for i, g in enumerate(mine)]
            store.add_model(f"hash of {name}", name, name, tasks)
            for g in mine:
                times = zip(g.candidates, g.latency_s.tolist(), strict=True)
                store.add_measurements(None, made.CONDITIONS, [Measurement(c, (t,)) for c, t in times])
    yield url


def call(*arguments: str) -> Any:
    """The JSON that a command prints; raises what it raises."""
    done = CliRunner().invoke(app, [*arguments, "--json"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_from_a_database_to_a_model_that_runs_use(database: str, tmp_path: Path) -> None:
    with Store.open(database) as store:
        before = learned_models(store, made.CONDITIONS).names
    out = tmp_path / "mine.safetensors"
    made_it = call(
        "train", "--model", "lstm", "--db", database, "--epochs", "3", "--width", "16",
        "--hold-out", "network-0", "--name", "mine", "--out", str(out),
    )  # fmt: skip
    assert made_it["path"] == str(out)
    assert 0 < made_it["metrics"]["pairwise"] <= 1
    (listed,) = call("models", "list", "--db", database)
    assert (listed["name"], listed["is_default"]) == ("mine", False)
    assert "network-0" not in listed["data"]["held_out"]
    assert listed["data"]["workloads"] < 9
    shown = call("models", "show", "mine", "--db", database)
    assert shown["model"]["width"] == 16
    judged = call("models", "eval", str(out), "--db", database, "--network", "network-0")
    assert judged[str(out)]["tasks"] == 3
    with Store.open(database) as store:
        assert learned_models(store, made.CONDITIONS).names == before
        CliRunner().invoke(app, ["models", "default", "mine", "--db", database])
        learned = learned_models(store, made.CONDITIONS)
        assert "mine" in learned.names
        assert learned.trained is not None
        out.write_bytes(b"damaged")
        assert any(n.startswith("not mine: ") for n in learned_models(store, made.CONDITIONS).names)


@pytest.mark.slow
def test_hyper_parameters_are_chosen_and_the_search_goes_on(database: str, tmp_path: Path) -> None:
    for number in (1, 2):
        call(
            "train", "--model", "trees", "--db", database, "--search-hparams", "2",
            "--name", f"chosen-{number}", "--out", str(tmp_path / f"{number}.skops"),
        )  # fmt: skip
    with Store.open(database) as store:  # the study lies in the same file, and does no harm
        chosen = store.checkpoint("chosen-2")
    assert {"trees", "leaves", "rate"} <= set(chosen.settings["model"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--model", "lstm", "--hold-out", "nothing"], ["--hold-out nothing", "network-0"]),
        (["train", "--model", "lstm", "--split", "device"], ["two devices"]),
        (["models", "show", "nobody"], ["nobody"]),
        (["models", "default", "nobody"], ["nobody"]),
        (["models", "eval", "nothing.safetensors"], ["nothing.safetensors", "no such"]),
        (["models", "show", "README.safetensors"], ["README.safetensors"]),
    ],
)
def test_mistakes_are_told(database: str, arguments: list[str], words: list[str]) -> None:
    done = CliRunner().invoke(app, [*arguments, "--db", database])
    assert isinstance(done.exception, AutotuneError)
    assert len(str(done.exception).splitlines()) <= 2
    assert all(w in str(done.exception) for w in words), done.exception


def test_an_empty_database_says_what_to_do(tmp_path: Path) -> None:
    url = str(tmp_path / "empty.db")
    Store.open(url, create=True).close()
    done = CliRunner().invoke(app, ["train", "--model", "lstm", "--db", url])
    assert isinstance(done.exception, AutotuneError)
    assert "autotune collect" in str(done.exception)
    listed = CliRunner().invoke(app, ["models", "list", "--db", url])
    assert "autotune train" in listed.output
