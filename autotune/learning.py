"""Training jobs on a database: its measurements in, a checkpoint and its row out."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from autotune.errors import BadInput
from autotune.examples import EXAMPLES
from autotune.frontends import load_model
from autotune.frontends.graph import lower
from autotune.hardware import usable_cores
from autotune.session import own_version
from autotune.target import host_target
from costmodels import checkpoint
from costmodels.by_space import Trained
from costmodels.checkpoint import About, BadCheckpoint
from costmodels.data import Group, TooLittleData, groups
from costmodels.gnn import ProgramGNN
from costmodels.job import Job, Observer, train
from costmodels.lstm import DecisionLSTM
from db.store import Store
from db.values import Checkpoint, CheckpointKind
from search.problem import Conditions, digest
from search.spaces import READABLE

SHIPPED = "pretrained-"
"""What the names of checkpoints begin with that come with the program."""
IN_THE_LOOP = ("lstm", "gnn")
"""Kinds of trained models that take part in a run."""


def read_groups(store: Store, hold_out: Sequence[str] = ()) -> Iterator[Group]:
    """All that can be learnt from in a database, one kernel's candidates at a time.

    Args:
        hold_out: Networks whose kernels are left out, whichever other networks they are of too.

    Raises:
        TooLittleData: There is nothing.
        BadInput: There is no such network.
    """
    networks = store.networks()
    hidden = _kernels(hold_out, networks)
    rows, found = store.training_rows(list(READABLE)), False
    for group in groups(rows, store.workload, networks, list(READABLE)):
        if group.workload.hash not in hidden:
            found = True
            yield group.with_failed(store.wrong(group.workload.hash, group.conditions.target))
    if not found:
        raise TooLittleData(
            f"{store} holds no kernel with enough measurements of a quiet machine to learn from; "
            "`autotune collect` gathers them"
        )


def _kernels(names: Sequence[str], networks: Mapping[str, frozenset[str]]) -> set[str]:
    """Hashes of the kernels of networks: as the database knows them, and of examples and files as they are.

    Raises:
        BadInput: Neither the database nor the examples nor the files hold one.
    """
    known = {name for some in networks.values() for name in some}
    hashes = {hash_ for hash_, some in networks.items() if some & set(names)}
    for name in names:
        if name in EXAMPLES or Path(name).is_file():
            model = lower(load_model(name), host_target(usable_cores()))
            hashes.update(t.workload.hash for t in model.tasks)
        elif name not in known:
            raise BadInput(
                f"--hold-out {name}: neither a file, an example ({', '.join(EXAMPLES)}), nor a network of "
                f"the database ({', '.join(sorted(known)) or 'none'})"
            )
    return hashes


def checkpoint_folder() -> Path:
    """Where checkpoints are written by default."""
    return Path(platformdirs.user_data_dir("autotune")) / "checkpoints"


def free_name(store: Store, kind: str) -> str:
    """The first of ``lstm-1``, ``lstm-2``, ... that no checkpoint has."""
    taken = {c.name for c in store.checkpoints()}
    return next(n for n in (f"{kind}-{i}" for i in range(1, len(taken) + 2)) if n not in taken)


def train_on(
    store: Store,
    job: Job,
    name: str | None = None,
    out: Path | None = None,
    observer: Observer | None = None,
) -> Checkpoint:
    """Trains a model on a database, but for what ``job`` hides, and records it there.

    Args:
        name: Of the checkpoint; the next free one if not given.
        out: Its file.

    Raises:
        BadInput: The name is taken or no name, or the file cannot be.
    """
    name = _checked_name(store, name) if name else free_name(store, job.kind)
    path = (out or _default_file(store, name, job.kind)).absolute()
    if path.suffix != checkpoint.suffix(job.kind):
        raise BadInput(f"--out {path.name}: a checkpoint of {job.kind} ends in {checkpoint.suffix(job.kind)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {path}: {error.strerror}") from error
    about = train(read_groups(store, job.hidden), job, path, own_version(), observer)
    record = recorded(name, about, path)
    store.add_checkpoint(record)
    return record


def _checked_name(store: Store, name: str) -> str:
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith(SHIPPED):
        raise BadInput(f"--name {name}: expected letters, digits, dots and dashes, and not {SHIPPED}...")
    if name in {c.name for c in store.checkpoints()}:
        raise BadInput(f"--name {name}: there is such a checkpoint; choose another name")
    return name


def _default_file(store: Store, name: str, kind: str) -> Path:
    """In the user's data folder, apart from those of other databases."""
    return checkpoint_folder() / digest(store.url)[:8] / f"{name}{checkpoint.suffix(kind)}"


def recorded(name: str, about: About, path: Path) -> Checkpoint:
    """A checkpoint as the database keeps it; what is not a number there is null."""
    facts = json.loads(json.dumps(asdict(about)), parse_constant=lambda constant: None)
    return Checkpoint(
        name=name,
        kind=CheckpointKind(about.kind),
        path=str(path),
        settings={"model": facts["model"], **facts["training"]},
        data=facts["data"],
        metrics=facts["metrics"],
        encoding=about.encoding,
        version=about.version,
    )


def default_path(store: Store, kind: str) -> Path | None:
    """The checkpoint that is used: the database's default, else the one that comes with the program."""
    chosen = store.default_checkpoint(CheckpointKind(kind))
    return Path(chosen.path) if chosen else checkpoint.pretrained(kind)


def find_checkpoint(store: Store, name: str) -> Path:
    """A checkpoint's file, by its name in the database, by ``pretrained-lstm`` and the like, or by itself.

    Raises:
        NoSuchRecord: There is none of that name.
    """
    if name.startswith(SHIPPED) and (path := checkpoint.pretrained(name.removeprefix(SHIPPED))):
        return path
    if Path(name).suffix in {checkpoint.suffix(kind) for kind in checkpoint.MODELS}:
        return Path(name)
    return Path(store.checkpoint(name).path)


def make_default(store: Store, name: str) -> str:
    """Makes a checkpoint the one that is used of its kind; ``pretrained-lstm`` is the shipped one again.

    Returns:
        The kind.

    Raises:
        BadCheckpoint: It cannot be used.
        NoSuchRecord: There is none of that name.
    """
    kind = name.removeprefix(SHIPPED)
    if name.startswith(SHIPPED) and kind in checkpoint.MODELS:
        store.unset_default(CheckpointKind(kind))
        return kind
    checkpoint.load(find_checkpoint(store, name))
    store.make_default(name)
    return store.checkpoint(name).kind.value


@dataclass(frozen=True)
class Learned:
    """The trained networks of a run.

    Attributes:
        names: Of their checkpoints, for people; or why one is not used.
    """

    trained: Trained | None = None
    names: tuple[str, ...] = ()


def learned_models(store: Store, conditions: Conditions) -> Learned:
    """The default networks; where one cannot be used, that is told, and the shipped one takes its place."""
    return _learned(
        {kind: [default_path(store, kind), checkpoint.pretrained(kind)] for kind in IN_THE_LOOP}, conditions
    )


def pretrained(conditions: Conditions) -> Trained | None:
    """The networks that come with the program."""
    return _learned({kind: [checkpoint.pretrained(kind)] for kind in IN_THE_LOOP}, conditions).trained


def _learned(paths: Mapping[str, Sequence[Path | None]], conditions: Conditions) -> Learned:
    found: dict[str, checkpoint.CostModel] = {}
    names: list[str] = []
    for kind, choices in paths.items():
        for path in dict.fromkeys(p for p in choices if p is not None):
            try:
                found[kind], _ = checkpoint.load(path)
                names.append(path.stem if path.parent != checkpoint.PRETRAINED else f"{SHIPPED}{kind}")
                break
            except BadCheckpoint as error:
                names.append(f"not {path.stem}: {error}")
    lstm, gnn = found.get("lstm"), found.get("gnn")
    if not found:
        return Learned(None, tuple(names))
    return Learned(
        Trained(
            conditions,
            lstm if isinstance(lstm, DecisionLSTM) else None,
            gnn if isinstance(gnn, ProgramGNN) else None,
        ),
        tuple(names),
    )
