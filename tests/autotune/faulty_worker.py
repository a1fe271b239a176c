"""A worker in which chosen candidates misbehave, for real: signals, loops, memory, stray writes, exits.

The fault is named in the candidate's trace, after the marker: ``build-NAME`` happens while it is compiled,
``run-NAME`` when it is run. All else is the real worker.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from autotune.measure import worker
from autotune.measure.protocol import Build

MARK = "#fault:"


def crash(*args: Any) -> None:
    ctypes.string_at(0)


def leave(*args: Any) -> None:
    os._exit(7)


def killed(*args: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def loop(*args: Any) -> None:
    while True:
        pass


def deaf_loop(*args: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


def throw(*args: Any) -> None:
    raise RuntimeError("something long\ncompiler says no")


def hog(*args: Any) -> None:
    np.ones(100 << 30, np.uint8)


def abort(*args: Any) -> None:
    os.write(2, b"LLVM ERROR: out of memory\n")
    os.abort()


def silent(*args: Any) -> None:
    """Never writes its output."""


def nan(*args: Any) -> None:
    _floats(args[-1])[...] = np.nan


def wrong(*args: Any) -> None:
    _floats(args[-1])[...] = 1.0


def after(*args: Any) -> None:
    """Writes behind its output."""
    ctypes.memset(_address(args[-1]) + args[-1].shape[0] + 100, 0, 4)


def before(*args: Any) -> None:
    ctypes.memset(_address(args[-1]) - 8, 0, 4)


def into_input(*args: Any) -> None:
    ctypes.memset(_address(args[0]), 1, 4)


def _address(tensor: Any) -> int:
    return int(np.from_dlpack(tensor).ctypes.data)


def _floats(tensor: Any) -> Any:
    return np.from_dlpack(tensor).view(np.float32)


FAULTS: dict[str, Callable[..., None]] = {
    f.__name__: f
    for f in (
        crash,
        leave,
        killed,
        loop,
        deaf_loop,
        throw,
        hog,
        abort,
        silent,
        nan,
        wrong,
        after,
        before,
        into_input,
    )
}
_AFTER_RUNNING = {"after", "before", "into_input"}


class FaultyWorker(worker.Worker):
    def build(self, request: Build) -> None:
        trace, _, fault = request.trace.partition(MARK)
        stage, _, name = fault.partition("-")
        if stage == "build":
            FAULTS[name]()
        super().build(replace(request, trace=trace))
        if stage == "run":
            good = self._built[request.key] if name in _AFTER_RUNNING else lambda *args: None
            self._built[request.key] = lambda *args: (good(*args), FAULTS[name](*args))


if __name__ == "__main__":
    worker.main(FaultyWorker)
