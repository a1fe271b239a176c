"""Our kernels beside the fastest that vendors have for the same layers, in pairs, in a process of its own.

Every distinct convolution and matrix product of a model becomes a model of its own, with a bias and a relu
(without, where both operands are computed), and goes through the passes that all models go through. What the
database knows of the same sum with another end (a residual, another activation) counts if it is a tile; else
it is the first guess. The vendor is the fastest, in a pilot, of ``autotune.bench.vendors``. Warm caches. On
Linux only, which tells how long threads waited for cores.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
import torch
import tvm
from tvm.target import Target

from autotune.bench.layers import Layer, Numbers, calls_in, layers_of, source_of
from autotune.bench.result import KernelEntry
from autotune.bench.rounds import AGREES
from autotune.bench.vendors import QUIET_S, Run, Sample, Side, openvino_ways, torch_ways
from autotune.errors import AutotuneError
from autotune.frontends import load_model
from autotune.frontends.fold import Array, constant
from autotune.frontends.graph import lower
from autotune.frontends.model import SourceModel
from autotune.hardware import usable_cpus
from autotune.measure.statistics import speed_ratio
from autotune.measure.threads import bind
from autotune.session import Session, open_session
from autotune.system import die_with_parent
from autotune.target import host_target
from autotune.winners import EVERY, winner_of
from db.errors import DatabaseMissing, DatabaseOlder
from search.compiler import compile_kernel
from search.errors import UnsupportedWorkload
from search.problem import Candidate, Workload
from search.spaces import TEMPLATES, contraction, depthwise, first_guess, halves
from search.spaces.contraction import analyse
from search.spaces.tir import module_of
from search.spaces.trace import apply_trace

SPINS = "10000"  # turns, some 2 ms, that TVM's threads wait for work; by default so long that others starve
PILOTS = 3  # samples of each way of the vendors
SHARE = 0.25  # of its call's time that a layer must take: what is left of less is noise
GUESS = "guess"
TILED = (contraction.SPACE_NAME, depthwise.SPACE_NAME, halves.SPACE_NAME)
"""Templates whose tiles suit a kernel whatever follows it element by element."""


class KernelsFailed(AutotuneError):
    """Kernels could not be compared with the vendors'."""

    exit_code = 35


def bench_kernels(
    model: str,
    shapes: Mapping[str, tuple[int, ...]] | None,
    batch: int | None,
    db: str | None,
    threads: int,
    rounds: int,
) -> Generator[tuple[int, KernelEntry | str]]:
    """Compares the layers of a model.

    Args:
        model: As for ``load_model``; so are ``shapes`` and ``batch``.
        db: The database that may know a better kernel than the first guess; None for the default one.
        rounds: Pairs of samples of each layer.

    Yields:
        How many layers are left, and what was found of one, or which could not be compared and why.

    Raises:
        KernelsFailed: The database or the model cannot be used, or the process ended early.
    """
    if sys.platform != "linux":
        raise KernelsFailed("kernels are compared with the vendors' on Linux only")
    asked = {
        "model": model, "shapes": shapes, "batch": batch, "db": db, "threads": threads, "rounds": rounds
    }  # fmt: skip
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "TVM_NUM_THREADS": str(threads), "TVM_THREAD_POOL_SPIN_COUNT": SPINS,
    }  # fmt: skip
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "autotune.bench.kernels", json.dumps(asked)], env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
        ) as process,
    ):  # fmt: skip
        os.sched_setaffinity(process.pid, usable_cpus())  # ours may have been narrowed by TVM
        assert process.stdout
        try:
            for line in process.stdout:
                said = json.loads(line)
                if "error" in said:
                    raise KernelsFailed(said["error"])
                found = said["found"]
                yield said["left"], found if isinstance(found, str) else KernelEntry(**found)
            code = process.wait()
        finally:
            process.kill()
        if code:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [f"exit code {code}"])[-1]
            raise KernelsFailed(f"comparing kernels ended early: {last}")


class Tuned:
    """The best candidates of a database, if there is one: of a kernel, or of one around the same sum."""

    def __init__(self, session: Session | None) -> None:
        self._session = session
        self._near: dict[Any, Candidate] = {}

    def learn(self, source: SourceModel) -> None:
        """Looks up a model's kernels."""
        if self._session is None:
            return
        store, conditions = self._session.store, self._session.conditions
        for task in lower(source, self._session.target).tasks:
            ranked = store.best(task.workload.hash, conditions, EVERY)
            tiles = (m.candidate for m in ranked if m.candidate.space in TILED)
            if best := next(tiles, None):
                self._near[_sum(task.workload)] = best

    def _best(self, workload: Workload) -> Candidate | None:
        if self._session is None:
            return None
        store, conditions = self._session.store, self._session.conditions
        if won := winner_of(workload, store, conditions):
            return won[0].candidate
        found = store.best(workload.hash, conditions)
        return found[0].candidate if found else None

    def candidate(self, workload: Workload, target: Target) -> tuple[Candidate | None, str]:
        """What to run, and what it is."""
        if best := self._best(workload):
            return best, "tuned"
        guess = first_guess(workload, target)
        near = self._near.get(_sum(workload)) if guess and guess.space in TILED else None
        if guess and near and near.space == guess.space:
            space = TEMPLATES[guess.space](workload, target)
            if tile := space.adapt(near.choices):
                return space.realize(tile, np.random.default_rng(0)), "tuned tile"
        return guess, GUESS


def _sum(workload: Workload) -> Any:
    """What kernels have in common that the same tile suits."""
    about = analyse(module_of(workload))
    return about.spatial, about.reduced, about.weight_bytes, about.input_bytes


def ours(layer: Layer, numbers: Numbers, tuned: Tuned, cpus: Sequence[int]) -> Side:
    """Our kernel.

    Raises:
        UnsupportedWorkload: It is not one, or there is no candidate.
    """
    target = host_target(len(cpus))
    model = lower(source_of(layer, numbers), target)
    workload, *more = (t.workload for t in model.tasks if t.workload.flop)
    candidate, name = tuned.candidate(workload, target)
    if more or candidate is None:
        raise UnsupportedWorkload(f"{1 + len(more)} kernels" if more else "no candidate without measuring")
    kernel = compile_kernel(apply_trace(module_of(workload), candidate.trace), target)
    calls = calls_in(model.module["main"], "relax.call_tir")
    (call,) = (c for c in calls if model.functions[c.args[0].name_hint] == workload.hash)
    given = dict(zip(model.module["main"].params, (numbers.x, numbers.w), strict=False))
    known = ((a, constant(a)) for a in call.args[1].fields)
    values = [given.get(a, numbers.last) if value is None else value for a, value in known]
    *shapes, result = (spec.shape for spec in workload.args)
    inputs = list(zip(values, shapes, strict=True))
    if any(value.size != math.prod(shape) for value, shape in inputs):
        raise UnsupportedWorkload("another kernel fills up its inputs")
    # The places of an image may be rows of a product, which in a model is a reshape.
    tensors = [tvm.runtime.tensor(value.reshape(shape)) for value, shape in inputs]
    tensors.append(tvm.runtime.empty(result, "float32"))
    output = np.from_dlpack(tensors[-1])

    def run() -> Array:
        kernel(*tensors)
        return output

    return Side(name, run, cpus[:1], cpus)


def sides(layer: Layer, tuned: Tuned, cpus: Sequence[int]) -> list[Side]:
    """Our kernel, and all ways of the vendors that are installed and can do this.

    Raises:
        UnsupportedWorkload: We have no kernel.
    """
    numbers = layer.numbers()
    found = [ours(layer, numbers, tuned, cpus)]
    for ways in (torch_ways, openvino_ways):
        with suppress(ImportError, RuntimeError, AttributeError):  # not installed, or not for this shape
            for name, run in ways(layer, numbers):
                run()
                found.append(Side(name, run, cpus, cpus))
    return found


def pilot(side: Side) -> Sample:
    """The best of a few samples."""
    return min((side.sample() for _ in range(PILOTS)), key=attrgetter("net_s"))


@cache
def idle_calls(least: Layer, cpus: tuple[int, ...]) -> dict[str, Run]:
    """Calls for next to no work, by the side's name."""
    return {side.name: side.run for side in sides(least, Tuned(None), cpus)}


def compare(layer: Layer, count: int, tuned: Tuned, rounds: int, cpus: tuple[int, ...]) -> KernelEntry:
    """Times our kernel and the vendors' fastest in pairs.

    Raises:
        UnsupportedWorkload: We have no kernel, or no vendor has one that takes long enough to be timed.
        KernelsFailed: The two compute different things.
    """
    idle = idle_calls(layer.least(), cpus)
    us, *ways = (side._replace(idle=idle.get(side.name, idle[GUESS])) for side in sides(layer, tuned, cpus))
    expected = us.output()
    for way in ways:
        error = np.abs(way.output() - expected).max() / expected.max()
        if not error < AGREES:
            raise KernelsFailed(f"{layer}: {way.name} and ours differ by {error:.1e} of the largest output")
    pilots = [(pilot(way), way) for way in ways]
    told = [(taken.net_s, way) for taken, way in pilots if taken.net_s > SHARE * taken.call_s]
    if not told:
        raise UnsupportedWorkload("no vendor computes it in a time that can be told from a call's")
    _, fastest = min(told, key=itemgetter(0))
    pair, rng = (us, fastest), np.random.default_rng(0)
    samples: tuple[list[float], list[float]] = ([], [])
    disturbed = 0
    for _ in range(rounds):
        for number in rng.permutation(2):
            taken = pair[number].sample()
            disturbed += taken.waited_s > QUIET_S
            samples[number].append(taken.net_s)
    ours_s, theirs_s = (statistics.median(s) for s in samples)
    if min(map(min, samples)) <= 0:
        raise UnsupportedWorkload("it takes no longer than its call")
    ratio, low, high = speed_ratio(*samples)
    return KernelEntry(
        str(layer), count, layer.gflop, us.name, ours_s, pair[1].name, theirs_s, ratio, low, high,
        disturbed / (2 * rounds),
    )  # fmt: skip


def compare_all(
    source: SourceModel, session: Session | None, threads: int, rounds: int
) -> Iterator[tuple[int, KernelEntry | str]]:
    """As ``bench_kernels``, in this process, which must have made no threads yet."""
    cpus = tuple(usable_cpus()[:threads])
    torch.set_num_threads(threads)
    bind(cpus)
    os.sched_setaffinity(0, cpus)
    tuned = Tuned(session)
    tuned.learn(source)
    layers = layers_of(source)
    with torch.inference_mode():
        for number, (layer, count) in enumerate(layers.items(), start=1):
            found: KernelEntry | str
            try:
                found = compare(layer, count, tuned, rounds, cpus)
            except UnsupportedWorkload as error:
                found = f"{layer}: {error}"
            yield len(layers) - number, found


@contextmanager
def _known(db: str | None, threads: int) -> Iterator[Session | None]:
    """The database; None where none was named and the default one is not there, or too old."""
    with ExitStack() as stack:
        session = None
        with suppress(DatabaseMissing, DatabaseOlder) if db is None else nullcontext():
            session = stack.enter_context(open_session(db, None, threads, probe=False, create=False))
        yield session


def main() -> None:
    """What the process of ``bench_kernels`` does: a line for each layer."""
    die_with_parent()
    asked, answers = json.loads(sys.argv[1]), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    shapes = {name: tuple(sizes) for name, sizes in (asked["shapes"] or {}).items()}
    try:
        with _known(asked["db"], asked["threads"]) as session:
            source = load_model(asked["model"], shapes, asked["batch"])
            for left, found in compare_all(source, session, asked["threads"], asked["rounds"]):
                said = found if isinstance(found, str) else asdict(found)
                print(json.dumps({"left": left, "found": said}), file=answers, flush=True)
    except AutotuneError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)
    except KeyboardInterrupt:
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
