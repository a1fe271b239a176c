"""While one process times, no other compiles or times."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autotune.errors import VerificationFailed
from autotune.hardware import describe_hardware
from autotune.measure.artifact import run_library
from autotune.measure.turns import Turns, alone
from autotune.profile import Profile

HOLD = """
import sys
from pathlib import Path
from autotune.measure.turns import Turns
from autotune.profile import Profile
turns = Turns(Profile(), Path(sys.argv[1]))
with getattr(turns, sys.argv[2])():
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path, what: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def waits(turns: Turns, what: str, other: "subprocess.Popen[str]") -> bool:
    """Whether this process gets its turn only when the other is gone."""
    got = threading.Event()

    def take() -> None:
        with getattr(turns, what)():
            got.set()

    thread = threading.Thread(target=take)
    thread.start()
    waited = not got.wait(0.3)
    other.kill()
    thread.join(10)
    other.wait()
    assert got.is_set()
    return waited


def test_who_waits_for_whom(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    turns = Turns(Profile(), path)
    assert waits(turns, "timing", holder(path, "timing"))
    assert waits(turns, "timing", holder(path, "compiling"))
    assert waits(turns, "compiling", holder(path, "timing"))
    assert not waits(turns, "compiling", holder(path, "compiling"))
    turns.close()


def test_what_is_timed_outside_of_a_pool_takes_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    turns = Turns(Profile(), path)
    with alone(path):
        got = threading.Thread(target=_take, args=[turns])
        got.start()
        got.join(0.3)
        assert got.is_alive()
    got.join(10)
    assert not got.is_alive()
    turns.close()


def _take(turns: Turns) -> None:
    with turns.compiling():
        pass


def test_probes_and_the_artifact_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []

    @contextmanager
    def noting() -> Iterator[None]:
        held.append("alone")
        yield
        held.append("free")

    monkeypatch.setattr("autotune.measure.turns.alone", noting)
    monkeypatch.setattr("autotune.measure.artifact.alone", noting)
    monkeypatch.setattr("autotune.probes.probe", lambda cpus, isa: {"measured": float(held[-1] == "alone")})
    assert describe_hardware().probes == {"measured": 1.0}
    with pytest.raises(VerificationFailed):
        run_library(tmp_path / "missing.so", [], 1)
    assert held[:3] == ["alone", "free", "alone"]


def test_alone_where_there_is_no_file(tmp_path: Path) -> None:
    turns = Turns(Profile(), tmp_path / "missing" / "lock")
    with turns.timing(), turns.compiling():
        pass
    turns.close()
