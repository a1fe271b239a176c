"""The process of one contestant: ``python -m autotune.bench.worker FD``. Runs only when it is told to."""

import gc
import sys
import time
from importlib import metadata
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from autotune.bench.contestant import Contestant, Run, Unavailable, timed
from autotune.bench.protocol import Enter, Entered, Failure, Reply, Request, Sample, Started
from autotune.system import die_with_parent

_TRIAL_S = 0.2  # of runs to tell how long one takes
_SLOW_S = 2.0  # a first run that takes longer says enough


def _enter(request: Enter) -> tuple[Run, Entered]:
    contestant = request.contestant
    ready = contestant.prepare(request.inputs, request.threads)
    first_s = time.perf_counter()
    outputs = [np.array(o) for o in ready.run()]  # copies: some give views of buffers that they use again
    first_s = time.perf_counter() - first_s
    once_s = first_s if first_s > _SLOW_S else _typical_s(ready.run)
    return ready.run, Entered(outputs, once_s, ready.setting, _version(contestant))


def _typical_s(run: Run) -> float:
    """Median seconds of a few runs."""
    seconds: list[float] = []
    until = time.perf_counter() + _TRIAL_S
    while not seconds or time.perf_counter() < until:
        seconds.append(timed(run, 1))
    return float(np.median(seconds))


def _version(contestant: Contestant) -> str:
    try:
        return metadata.version(contestant.package)
    except metadata.PackageNotFoundError:  # a variant of the package under another name
        return ""


def _sample(run: Run, request: Sample) -> float:
    if request.warm:
        run()
    gc.disable()
    try:
        return timed(run, request.burst)
    finally:
        gc.enable()


def _explain(error: Exception) -> str:
    """The last line of an error's text that speaks of an error, as compilers' do; else the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = next((line for line in reversed(lines) if "error:" in line.lower()), lines[0] if lines else "")
    return f"{type(error).__name__}: {line}"[:300]


def main() -> None:
    die_with_parent()
    connection = Connection(int(sys.argv[1]))
    connection.send(Started())
    run: Run | None = None
    inputs: list[Any] = []  # kept: OpenVINO runs on memory that it does not own
    while True:
        try:
            request: Request = connection.recv()
        except EOFError:
            return
        reply: Reply
        try:
            if isinstance(request, Enter):
                inputs.extend(request.inputs)
                run, reply = _enter(request)
            else:
                assert run is not None
                reply = _sample(run, request)
        except Unavailable as reason:
            reply = Failure(str(reason), available=False)
        except Exception as error:  # of any framework
            reply = Failure(_explain(error))
        connection.send(reply)


if __name__ == "__main__":
    main()
