"""A worker process in which chosen candidates misbehave, for real: signals, loops, memory, exits.

The fault is named in the candidate's trace, after the marker; all else is the real worker.
"""

import os
import signal
import sys
import time
from typing import Any

from autotune.measure import worker
from autotune.measure.protocol import Build, Reply, Request, Run

MARK = "#fault:"


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    os._exit(7)


def loop() -> None:
    while True:
        pass


def deaf_loop() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


def throw() -> None:
    raise RuntimeError("compiler says no")


class FaultyWorker(worker.Worker):
    """Misbehaves while building (``build-NAME``) or running (``run-NAME``)."""

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        self._faults: dict[int, str] = {}

    def answer(self, request: Request) -> Reply:
        fault = ""
        if isinstance(request, Build) and MARK in request.trace:
            trace, fault = request.trace.split(MARK)
            self._faults[request.key] = fault
            request = Build(request.key, request.workload, trace)
        elif isinstance(request, Run):
            fault = self._faults.pop(request.key, "")
        stage, _, name = fault.partition("-")
        if stage == ("build" if isinstance(request, Build) else "run"):
            if name == "wrong":
                function, workload = self._built[request.key]
                self._built[request.key] = (lambda *args: function(*args[:-1][::-1], args[-1])), workload
            elif name == "silent":
                self._built[request.key] = (lambda *args: None), self._built[request.key][1]
            elif name == "throw":
                _, workload = self._built[request.key]
                self._built[request.key] = (lambda *args: throw()), workload
            else:
                getattr(sys.modules[__name__], name)()
        return super().answer(request)


if __name__ == "__main__":
    worker.Worker = FaultyWorker  # type: ignore[misc]
    worker.main()
