"""The command line as a person meets it: one or two lines for a mistake, a code each, no traceback."""

import json
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest

from autotune.cli.app import main
from docs.generate import error_classes
from docs.generate import main as check_reference

ROOT = Path(__file__).resolve().parents[2]


def call(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command in this process: to import torch and TVM anew each time takes seconds."""
    out, err, code = StringIO(), StringIO(), 0
    with (
        patch.dict(os.environ, env or {}), patch.object(sys, "argv", ["autotune", *arguments]),
        patch("signal.signal"), chdir(ROOT), redirect_stdout(out), redirect_stderr(err),
    ):  # fmt: skip
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def run_without(code: str, heavy: set[str]) -> None:
    """Runs code in a process of its own, which must not have imported any of these by its end."""
    code += f"loaded = {heavy} & set(sys.modules)\nassert not loaded, loaded"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom autotune.cli.app import app\nfrom typer.testing import CliRunner\n"
        "for command in ([], ['run'], ['bench'], ['db', 'stats']):\n"
        "    assert CliRunner().invoke(app, [*command, '--help']).exit_code == 0, command\n"
    )
    run_without(code, {"torch", "tvm", "sklearn", "onnx", "numpy", "sqlalchemy", "matplotlib"})


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "resnet19"], 10, ["resnet19", "resnet18"]),
        (["run", "missing.onnx"], 10, ["missing.onnx"]),
        (["run", "README.md"], 10, [".onnx"]),
        (["run", "mlp", "--trials", "-1"], 14, ["--trials -1", "expected 0"]),
        (["run", "mlp", "--minutes", "-3"], 14, ["--minutes -3"]),
        (["run", "mlp", "--minutes", "nan"], 14, ["--minutes nan"]),
        (["run", "mlp", "--threads", "999"], 14, ["--threads 999", "cores"]),
        (["run", "mlp", "--batch", "0"], 14, ["--batch 0"]),
        (["run", "mlp", "--input", "x=3xabc"], 14, ["x=3xabc", "1x3x224x224"]),
        (["run", "mlp", "--target", "cuda"], 31, ["cuda"]),
        (["run", "mlp", "--tasks", "nothing_like_it", "--dry-run"], 14, ["nothing_like_it"]),
        (["compile", "mlp", "--db", "/nonexistent/folder/x.db"], 20, ["/nonexistent/folder/x.db"]),
        (["run", "mlp", "--db", "mysql://somewhere/x"], 28, ["mysql"]),
        (["run", "mlp", "--db", "README.md"], 23, ["README.md"]),
        (["db", "show", "99"], 29, ["99"]),
        (["run", "mlp", "--seed", "-1"], 14, ["--seed -1"]),
        (["run", "mlp", "--seed", str(2**63)], 14, ["2**63"]),
        (["tasks", "mlp", "--input", "x=\u00b2x3"], 14, ["positive sizes"]),
        (["db", "show", "\u00b2"], 29, ["\u00b2"]),
        (["db", "runs", "--limit", "9" * 21], 2, ["--limit"]),
        (["run", "mlp", "--db", "/dev/null/x.db"], 28, ["/dev/null/x.db"]),
        (["run", "mlp", "--db", "x" * 300], 28, ["too long"]),
        (["run", "mlp", "--out", "README.md/out"], 17, ["--out"]),
        (["run", "--nonsense"], 2, ["--nonsense"]),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], code: int, words: list[str]) -> None:
    env = {"AUTOTUNE_DB": str(tmp_path / "records.db")}
    if arguments[0] == "db":
        call("db", "create", env=env)
    done = call(*arguments, env=env)
    said = done.stderr.strip()
    assert done.returncode == code, said
    assert "Traceback" not in said
    if code != 2:
        assert said.startswith("autotune: ")
        assert len(said.splitlines()) <= 2
    assert all(w in said for w in words), said


def test_a_missing_model_is_reported_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom autotune.cli.app import app\nfrom autotune.errors import ModelNotFound\n"
        "from typer.testing import CliRunner\n"
        "for command in ('run', 'tasks', 'compile', 'bench'):\n"
        "    assert isinstance(CliRunner().invoke(app, [command, 'none.onnx']).exception, ModelNotFound)\n"
    )
    run_without(code, {"torch", "tvm", "onnx", "numpy", "sqlalchemy"})


def test_mistakes_as_json(tmp_path: Path) -> None:
    done = call("run", "resnet19", "--json", env={"AUTOTUNE_DB": str(tmp_path / "none.db")})
    assert list(tmp_path.iterdir()) == []  # a mistake costs neither a database nor the time to probe
    assert json.loads(done.stdout) | {"message": ""} == {
        "error": "ModelNotFound",
        "message": "",
        "exit_code": 10,
    }


def test_every_error_has_an_exit_code_of_its_own() -> None:
    codes = [c.exit_code for c in error_classes()]
    assert len(codes) == len(set(codes))
    assert not {0, 1, 2, 130} & set(codes)


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = call("run", "mlp", "--dry-run", "--db", str(tmp_path / "x.db"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "3 of 3 tasks" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_tasks_as_json() -> None:
    done = call("tasks", "mlp", "--batch", "2", "--json")
    tasks = json.loads(done.stdout)
    assert len(tasks) == 3
    assert tasks[0]["args"][0]["shape"] == [2, 784]


def test_database_commands(tmp_path: Path) -> None:
    env = {"AUTOTUNE_DB": str(tmp_path / "records.db")}
    assert call("db", "stats", env=env).returncode == 20
    assert call("db", "create", env=env).returncode == 0
    assert call("db", "create", env=env).returncode == 30
    assert json.loads(call("db", "stats", "--json", env=env).stdout)["rows"]["measurements"] == 0
    assert call("db", "migrate", env=env).returncode == 0
    assert "0004" in call("db", "version", env=env).stdout
    assert json.loads(call("db", "runs", "--json", env=env).stdout) == []


def test_reference_is_what_the_program_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["generate", "--check"])
    check_reference()
