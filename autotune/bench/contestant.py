"""What takes part in a benchmark, and what it needs to get ready."""

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Run = Callable[[], list[Array]]
"""Runs a model once on inputs that it was given before; the outputs lie on the host when it returns."""

_TRIAL_S = 1.0  # of running each way that a contestant could be set up


class Unavailable(Exception):
    """A contestant cannot take part: why, and where something is missing, how to get it."""


class Ready(NamedTuple):
    """A contestant ready to run.

    Attributes:
        setting: Which of its ways to run was the fastest, for people.
    """

    run: Run
    setting: str = ""


class Contestant(Protocol):
    """Gets a model ready in a process of its own, to which it is pickled.

    Attributes:
        name: Unique in a benchmark.
        package: The distribution whose version is recorded.
    """

    @property
    def name(self) -> str: ...

    @property
    def package(self) -> str: ...

    def prepare(self, inputs: Sequence[Array], threads: int) -> Ready:
        """Loads the model and converts ``inputs``, so that a run does nothing but run.

        Their memory may be borrowed: the arrays live as long as the process.

        Raises:
            Unavailable: It cannot take part here.
        """


def require(module: str, package: str) -> Any:
    """Imports a module of an optional package.

    Raises:
        Unavailable: It is not installed, or broken.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        advice = f"pip install 'autotune-tensor[bench]', or only: pip install {package}"
        raise Unavailable(f"cannot import {module} ({error}); {advice}") from error


def fastest(ways: Mapping[str, Callable[[], Run]]) -> Ready:
    """The way to run with the lowest median, all of them timed in turns; one that fails is left out.

    Raises:
        Exception: That of the last way, if all fail.
    """
    runs: dict[str, Run] = {}
    failure: Exception | None = None
    for setting, make in ways.items():
        try:
            run = make()
            run()
            runs[setting] = run
        except Exception as error:  # of any framework: what matters is that it does not run
            failure = error
    if not runs and failure:
        raise failure
    if len(runs) == 1:
        ((setting, run),) = runs.items()
        return Ready(run, setting)
    seconds: dict[str, list[float]] = {setting: [] for setting in runs}
    until = time.perf_counter() + _TRIAL_S * len(runs)
    while time.perf_counter() < until:
        for setting, run in runs.items():
            run()  # warm after the other
            seconds[setting].append(timed(run, 1))
    best = min(runs, key=lambda s: float(np.median(seconds[s])))
    return Ready(runs[best], best)


def timed(run: Run, repeats: int) -> float:
    """Mean seconds of ``repeats`` runs in a row."""
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - started) / repeats
