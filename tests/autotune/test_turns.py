"""While one process times, no other compiles or times."""

import subprocess
import sys
import threading
from pathlib import Path

from autotune.measure.turns import Turns
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


def test_alone_where_there_is_no_file(tmp_path: Path) -> None:
    turns = Turns(Profile(), tmp_path / "missing" / "lock")
    with turns.timing(), turns.compiling():
        pass
    turns.close()
