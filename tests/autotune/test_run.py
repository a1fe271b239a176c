"""The whole way on a tiny network: tune, resume after a kill, compile, load; and what can go wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from kernels import matmul
from networks import tiny

import autotune
from autotune.errors import ArtifactError, BadInput, LinkFailed, NoRecords
from autotune.manifest import Manifest
from db.store import Store
from db.values import RunStatus
from search.errors import AutotuneError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[autotune.CompiledModel, str]]:
    folder = tmp_path_factory.mktemp("tuned")
    module, inputs = tiny()
    database = str(folder / "records.db")
    yield autotune.tune(module, inputs, trials=12, db=database, out=folder / "out"), database


def test_computes_what_the_original_does(tuned: tuple[autotune.CompiledModel, str]) -> None:
    module, inputs = tiny()
    (output,) = tuned[0](inputs[0].numpy())
    assert np.abs(output - module(*inputs).detach().numpy()).max() < 1e-5


def test_manifest_tells_all(tuned: tuple[autotune.CompiledModel, str]) -> None:
    manifest = tuned[0].manifest
    assert manifest == Manifest.read(tuned[0].folder)
    assert manifest.run.trials <= 12
    assert manifest.check.max_error <= manifest.check.tolerance
    assert manifest.latency_s
    assert all(t.p_faster or t.note for t in manifest.tasks)  # a busy machine decides which
    assert tuned[0].report.read_text().startswith("<!doctype html>")


def test_every_measurement_is_in_the_database(tuned: tuple[autotune.CompiledModel, str]) -> None:
    with Store.open(tuned[1]) as store:
        (run,) = store.runs()
        assert run.status is RunStatus.FINISHED
        assert run.measured == run.trials == tuned[0].manifest.run.trials
        assert store.stats().rows["measurements"] == run.trials


def test_compile_measures_nothing_and_gives_the_same(
    tuned: tuple[autotune.CompiledModel, str], tmp_path: Path
) -> None:
    module, inputs = tiny()
    with Store.open(tuned[1]) as store:
        before = store.stats().rows["measurements"]
    again = autotune.compile(module, inputs, db=tuned[1], out=tmp_path / "out")
    with Store.open(tuned[1]) as store:
        assert store.stats().rows["measurements"] == before
    assert [t.winner for t in again.tasks] == [t.winner for t in tuned[0].tasks]
    assert np.array_equal(again(inputs[0].numpy())[0], tuned[0](inputs[0].numpy())[0])


def test_compiling_takes_no_more_than_to_read(
    tuned: tuple[autotune.CompiledModel, str], tmp_path: Path
) -> None:
    module, inputs = tiny()
    again = autotune.compile(module, inputs, db=f"sqlite:///{tuned[1]}?mode=ro", out=tmp_path / "out")
    assert [t.winner for t in again.tasks] == [t.winner for t in tuned[0].tasks]


def test_a_second_run_goes_on_from_the_records(
    tuned: tuple[autotune.CompiledModel, str], tmp_path: Path
) -> None:
    module, inputs = tiny()
    seen = []
    autotune.tune(
        module, inputs, trials=6, db=tuned[1], out=tmp_path / "out", observe=lambda p: seen.append(p.records)
    )
    assert seen[-1] == tuned[0].manifest.run.trials
    with Store.open(tuned[1]) as store:
        hashes = [store.measurements(t.workload, _conditions(store)) for t in tuned[0].tasks]
    candidates = [m.candidate.hash for found in hashes for m in found]
    assert len(candidates) == len(set(candidates))  # nothing was measured twice


def _conditions(store: Store) -> object:
    return store.show_run(1).run.spec.conditions


def test_records_of_other_conditions_are_not_used(
    tuned: tuple[autotune.CompiledModel, str], tmp_path: Path
) -> None:
    module, inputs = tiny()
    with pytest.raises(NoRecords, match="1 threads"):
        autotune.compile(module, inputs, db=tuned[1], threads=1, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_inputs_that_do_not_fit(tuned: tuple[autotune.CompiledModel, str]) -> None:
    with pytest.raises(BadInput, match="takes 1"):
        tuned[0]()
    with pytest.raises(BadInput, match=r"float64 \[1, 3, 12, 12\]"):
        tuned[0](np.zeros((1, 3, 12, 12)))


def test_save_and_load(tuned: tuple[autotune.CompiledModel, str], tmp_path: Path) -> None:
    _, inputs = tiny()
    copy = autotune.load(tuned[0].save(tmp_path / "copy"))
    assert np.array_equal(copy(inputs[0].numpy())[0], tuned[0](inputs[0].numpy())[0])


def test_an_artifact_of_another_machine(
    tuned: tuple[autotune.CompiledModel, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would die of SIGILL."""
    copy = tuned[0].save(tmp_path / "copy")
    monkeypatch.setattr("autotune.target._host_features", lambda: {"sse2"})
    with pytest.raises(ArtifactError, match=r"uses what this machine lacks: .*\nCompile it here"):
        autotune.load(copy)


@pytest.mark.slow
def test_an_artifact_written_anew_is_not_the_old_one(tmp_path: Path) -> None:
    """dlopen goes by the path, so the second of two models in one place would be the first."""
    results = []
    for scale in (1.0, 2.0):
        module, inputs = torch.nn.Sequential(torch.nn.Linear(8, 4)).eval(), (torch.ones(1, 8),)
        torch.nn.init.constant_(module[0].weight, scale)
        torch.nn.init.zeros_(module[0].bias)
        model = autotune.tune(module, inputs, trials=2, db=str(tmp_path / "db"), out=tmp_path / "out")
        results.append(float(model(inputs[0].numpy())[0][0, 0]))
    assert results == [8.0, 16.0]


@pytest.mark.parametrize("content", [None, "{", '{"format": 2}'])
def test_what_is_no_artifact(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        autotune.load(tmp_path)


def test_a_folder_that_cannot_be_written(tuned: tuple[autotune.CompiledModel, str], tmp_path: Path) -> None:
    module, inputs = tiny()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="--out"):
        autotune.compile(module, inputs, db=tuned[1], out=tmp_path / "file" / "out")


def test_no_compiler(
    tuned: tuple[autotune.CompiledModel, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, inputs = tiny()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("autotune.build.find_spec", lambda name: None)
    with pytest.raises(LinkFailed, match="pip install ziglang"):
        autotune.compile(module, inputs, db=tuned[1], out=tmp_path / "out")


def test_a_function_of_one_s_own(tmp_path: Path) -> None:
    kernel = autotune.tune(matmul(16, 24, 32), trials=4, db=str(tmp_path / "db"), out=tmp_path / "out")
    a, b = (np.random.default_rng(0).standard_normal(s, dtype=np.float32) for s in ((16, 32), (32, 24)))
    assert np.abs(kernel(a, b)[0] - a @ b).max() < 1e-4


@pytest.mark.parametrize(
    "ends",
    [
        [(signal.SIGINT, 130)],
        pytest.param([(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)], marks=pytest.mark.slow),
    ],
    ids=["interrupted", "and killed"],
)
def test_interrupted_and_started_again(tmp_path: Path, ends: list[tuple[int, int]]) -> None:
    """Ctrl-C, or SIGKILL: all that was stored stays, and the same run goes on to its end."""
    database, out = tmp_path / "db", tmp_path / "out"
    command = [sys.executable, "-m", "autotune.cli", "run", "mlp", "--tasks", "fused_matmul2_add2"]
    command += ["--trials", "9", "--db", str(database), "--out", str(out), "--json"]
    stored = 0
    for number, code in ends:
        goal = stored + 2
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None and _rows(database) < goal:
            time.sleep(0.1)
        os.kill(process.pid, number)
        said = process.communicate()[1].decode()
        assert process.returncode == code, said
        assert number == signal.SIGKILL or "goes on from here" in said
        stored = _rows(database)
        assert stored >= goal
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(finished.stdout)["run"]["trials"] == 9
    with Store.open(str(database)) as store:
        (run,) = store.runs()
        assert run.status is RunStatus.FINISHED
        assert 9 <= run.measured <= 10  # one may have been stored but not counted when the process died


@pytest.mark.slow
@pytest.mark.parametrize("error", [NoRecords("x"), OSError(28, "full")])
def test_what_a_person_can_mend_leaves_the_run_resumable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    module, inputs = torch.nn.Linear(8, 4).eval(), (torch.ones(1, 8),)

    def fail(*_: object) -> None:
        raise error

    def tune() -> None:
        autotune.tune(module, inputs, trials=2, db=str(tmp_path / "db"), out=tmp_path / "out")

    with monkeypatch.context() as patch:
        patch.setattr("autotune.run.deliver", fail)
        with pytest.raises(type(error)):
            tune()
    tune()
    with Store.open(str(tmp_path / "db")) as store:
        (run,) = store.runs()
        assert run.status is RunStatus.FINISHED


def _rows(database: Path) -> int:
    if not database.exists():
        return 0
    try:
        with Store.open(str(database)) as store:
            return store.stats().rows["measurements"]
    except AutotuneError:  # it is being made
        return 0


def test_a_full_disk_is_found_before_anything_is_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLVM would end the process instead of raising."""
    from autotune import deliver
    from autotune.errors import ArtifactError
    from autotune.frontends import load_model
    from autotune.frontends.graph import lower
    from autotune.target import resolve_target

    model = lower(load_model("mlp"), resolve_target(None, 1))
    free = deliver.ROOM_BYTES + deliver.COPIES * model.constant_bytes
    monkeypatch.setattr(deliver.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free}))
    deliver.check_delivery(model, tmp_path / "out")
    monkeypatch.setattr(deliver.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free - 1}))
    with pytest.raises(ArtifactError, match="no space left on the disk"):
        deliver.check_delivery(model, tmp_path / "out")
