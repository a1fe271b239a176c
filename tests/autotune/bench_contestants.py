"""Contestants, some of which misbehave; in a module of their own, which worker processes can import."""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.bench.contestant import Array, Ready


@dataclass(frozen=True)
class Sleeper:
    """Doubles its inputs after a pause."""

    name: str
    pause_s: float = 1e-3
    package: str = "numpy"

    def prepare(self, inputs: Sequence[Array], threads: int) -> Ready:
        def run() -> list[Array]:
            time.sleep(self.pause_s)
            return [2 * a for a in inputs]

        return Ready(run)


@dataclass(frozen=True)
class Faulty(Sleeper):
    """Does something bad in its ``after``-th run, or (0) when it gets ready."""

    fault: str = "raise"
    after: int = 0

    def prepare(self, inputs: Sequence[Array], threads: int) -> Ready:
        good, runs = super().prepare(inputs, threads).run, 0

        def run() -> list[Array]:
            nonlocal runs
            runs += 1
            if runs == self.after:
                _misbehave(self.fault)
            return good()

        if not self.after:
            _misbehave(self.fault)
        return Ready(run)


@dataclass(frozen=True)
class Wrong(Sleeper):
    """Gives something else: ``factor`` times its inputs, or one output too many."""

    factor: float = 3.0
    outputs: int = 1

    def prepare(self, inputs: Sequence[Array], threads: int) -> Ready:
        return Ready(lambda: [self.factor * a for a in inputs] * self.outputs)


@dataclass(frozen=True)
class Spinner(Sleeper):
    """Has a thread that never rests; tells its process id to ``Watcher``."""

    path: Path = Path()

    def prepare(self, inputs: Sequence[Array], threads: int) -> Ready:
        def spin() -> None:
            while True:
                pass

        threading.Thread(target=spin, daemon=True).start()
        self.path.write_text(str(os.getpid()))
        return super().prepare(inputs, threads)


@dataclass(frozen=True)
class Watcher(Sleeper):
    """Fails unless the process of ``Spinner`` stands still."""

    path: Path = Path()

    def prepare(self, inputs: Sequence[Array], threads: int) -> Ready:
        good = super().prepare(inputs, threads).run

        def run() -> list[Array]:
            outputs = good()
            stat = Path(f"/proc/{self.path.read_text()}/stat").read_text()
            state = stat.rpartition(")")[2].split()[0]
            if state != "T":
                raise RuntimeError(f"the spinner is in state {state}")
            return outputs

        return Ready(run)


def _misbehave(fault: str) -> None:
    match fault:
        case "raise":
            raise RuntimeError("first line\nerror: of the compiler\nnote: to ignore it")
        case "crash":
            os.abort()
        case "exit":
            raise SystemExit("no more")
        case "hang":
            time.sleep(1000)
