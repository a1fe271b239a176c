"""The Python API: the same verbs as the command line.

import autotune

model = autotune.tune(net, inputs=(image,), minutes=5)   # net: torch module, path, example, TIR function
logits, = model(image)
model.save("resnet18-tuned")
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune.artifact import CompiledModel, load
from autotune.deliver import deliver
from autotune.errors import BadInput
from autotune.frontends import load_model
from autotune.frontends.graph import Model, lower
from autotune.frontends.model import SourceModel
from autotune.manifest import RunEntry
from autotune.run import RunOptions, run_model
from autotune.session import check_threads, open_session
from autotune.tuner import Budget, Observer
from search.problem import Task
from search.searchers import DEFAULT, SEARCHERS

DEFAULT_MINUTES = 10.0
DEFAULT_GAIN = 0.0005
DEFAULT_FOLDER = Path("autotune-out")


def tune(
    model: Any,
    inputs: Sequence[Any] | None = None,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    threads: int | None = None,
    target: str | None = None,
    db: str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    tasks: str = "*",
    searcher: str = DEFAULT,
    pretrained: bool = True,
    gain: float = DEFAULT_GAIN,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int | None = None,
    observe: Observer = lambda progress: None,
) -> CompiledModel:
    """Tunes a model on this machine and compiles it with the verified winners.

    Args:
        model: Path of an ``.onnx`` or ``.pt2`` file, name of an example, ``torch.nn.Module`` (with
            ``inputs``), ``torch.export.ExportedProgram``, TIR function, or a list of tensor expressions.
        inputs: Example tensors, whose shapes and dtypes the compiled model will take.
        trials: Candidates to measure at most; 0 takes the first guess for each kernel.
        minutes: Minutes to tune at most; 10 where neither this nor ``trials`` is given.
        threads: Threads of the compiled model; all usable cores by default.
        target: An LLVM CPU name; this machine's by default.
        db: URL or path of the database; the default one lies in the user's data folder.
        out: Folder of the artifact; ``autotune-out/NAME`` by default.
        tasks: Shell pattern of the names of the tasks to tune.
        searcher: One of ``search.searchers.SEARCHERS``.
        pretrained: Let the trained cost models take part.
        gain: Share of the model's latency that a round of trials must promise to save, else tuning ends.
        shapes: Sizes of inputs that a file leaves open.
        observe: Called with the progress after each measurement.

    Raises:
        AutotuneError: Its subclasses say what was wrong and what to do.
    """
    budget = make_budget(trials, minutes, gain)
    options = RunOptions(budget, seed, tasks, check_searcher(searcher), pretrained)
    source = as_source(model, inputs, shapes, batch)
    with open_session(db, target, threads) as session:
        lowered = lower(source, session.target)
        folder = Path(out or DEFAULT_FOLDER / source.name)
        run_model(lowered, session, options, folder, observe)
    return load(folder)


def compile(
    model: Any,
    inputs: Sequence[Any] | None = None,
    *,
    threads: int | None = None,
    target: str | None = None,
    db: str | None = None,
    out: str | Path | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int | None = None,
) -> CompiledModel:
    """Compiles a model from what the database holds, without measuring candidates; as ``tune`` otherwise.

    Raises:
        NoRecords: The database holds nothing for this model, hardware, target and number of threads.
    """
    source = as_source(model, inputs, shapes, batch)
    with open_session(db, target, threads, probe=False, create=False) as session:
        folder = Path(out or DEFAULT_FOLDER / source.name)
        deliver(lower(source, session.target), session, folder, RunEntry())
    return load(folder)


def extract_tasks(
    model: Any,
    inputs: Sequence[Any] | None = None,
    *,
    threads: int | None = None,
    target: str | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int | None = None,
) -> tuple[Task, ...]:
    """The distinct kernels of a model with their weights, the most work first."""
    return lowered_model(as_source(model, inputs, shapes, batch), target, threads).tasks


def lowered_model(source: SourceModel, target: str | None, threads: int | None) -> Model:
    """A model's kernels for a target, without opening a database."""
    from autotune.target import resolve_target

    return lower(source, resolve_target(target, check_threads(threads)))


def check_searcher(name: str) -> str:
    """The name as given.

    Raises:
        BadInput: There is no such searcher.
    """
    if name not in SEARCHERS:
        raise BadInput(f"no searcher {name!r}; there are {', '.join(SEARCHERS)}")
    return name


def make_budget(trials: int | None, minutes: float | None, gain: float = DEFAULT_GAIN) -> Budget:
    """The budget of a run from what a person gave.

    Raises:
        BadInput: Negative trials, or minutes that are not positive.
    """
    if trials is not None and trials < 0:
        raise BadInput(f"--trials {trials}: expected 0, to take the first guess of each kernel, or more")
    check_minutes(minutes)
    if not 0 <= gain < 1:
        raise BadInput(f"a gain of {gain:g}: expected a share from 0 to 1, such as {DEFAULT_GAIN:g}")
    if trials is None and minutes is None:
        minutes = DEFAULT_MINUTES
    return Budget(trials, minutes * 60 if minutes is not None else None, gain)


def as_source(
    model: Any,
    inputs: Sequence[Any] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int | None = None,
) -> SourceModel:
    """Imports whatever ``tune`` takes for a model."""
    if isinstance(model, (str, Path)):
        return load_model(str(model), shapes, batch)
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    if kind.startswith("tvm."):
        from autotune.frontends.tir import from_function

        return from_function(model)
    if isinstance(model, Sequence) and model and type(model[0]).__module__.startswith("tvm."):
        from autotune.frontends.tir import from_tensors

        return from_tensors(model)
    import torch

    from autotune.frontends.torch import from_program, load_module

    if isinstance(model, torch.export.ExportedProgram):
        return from_program(model, "exported", "exported program")
    if isinstance(model, torch.nn.Module):
        if inputs is None:
            raise BadInput("a torch module needs inputs=(tensor, ...): their shapes decide what is compiled")
        return load_module(model, inputs)
    raise BadInput(
        f"cannot tune {kind}: expected a path, an example's name, a torch module or exported program, "
        "a TIR function, or a list of tensor expressions"
    )


def check_minutes(minutes: float | None) -> None:
    """Sees to it that minutes, where given, are a time.

    Raises:
        BadInput: They are not.
    """
    if minutes is not None and not 0 < minutes < float("inf"):
        raise BadInput(f"--minutes {minutes:g}: expected a positive number")
