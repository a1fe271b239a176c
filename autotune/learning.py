"""Training jobs on a database: its measurements in, a checkpoint and its row out."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from autotune.errors import BadInput
from autotune.session import own_version
from costmodels import checkpoint
from costmodels.by_space import Trained
from costmodels.checkpoint import About, BadCheckpoint
from costmodels.data import Group, TooLittleData, groups, without
from costmodels.gnn import ProgramGNN
from costmodels.job import Job, Observer, train
from costmodels.lstm import DecisionLSTM
from db.store import Store
from db.values import Checkpoint, CheckpointKind
from search.problem import Conditions
from search.spaces import SPACES


def read_groups(
    store: Store, hold_out: Sequence[str] = (), say: Callable[[int], None] = lambda groups: None
) -> list[Group]:
    """All that can be learnt from in a database.

    Args:
        hold_out: Networks whose kernels are left out.
        say: Hears how many groups were read.

    Raises:
        TooLittleData: There is nothing.
        BadInput: The database knows no such network.
    """
    networks = store.networks()
    known = {name for names in networks.values() for name in names}
    for name in hold_out:
        if name not in known:
            raise BadInput(
                f"--hold-out {name}: the database knows {', '.join(sorted(known)) or 'no networks'}"
            )
    found: list[Group] = []
    rows = store.training_rows(list(SPACES))
    for group in groups(rows, store.workload, networks, list(SPACES)):
        wrong = store.wrong(group.workload.hash, group.conditions.target)
        found.append(group.with_failed(wrong))
        say(len(found))
    if not (kept := without(found, hold_out)):
        raise TooLittleData(
            f"{store} holds no kernel with enough measurements to learn from; `autotune collect` gathers them"
        )
    return kept


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
    hold_out: Sequence[str] = (),
    name: str | None = None,
    out: Path | None = None,
    observer: Observer | None = None,
    say: Callable[[int], None] = lambda groups: None,
) -> Checkpoint:
    """Trains a model on a database and records it there.

    Args:
        hold_out: Networks whose kernels the model never sees.
        name: Of the checkpoint; the next free one if not given.
        out: Its file.
        say: As of ``read_groups``.
    """
    name = name or free_name(store, job.kind)
    if name in {c.name for c in store.checkpoints()}:
        raise BadInput(f"--name {name}: there is such a checkpoint; choose another name")
    path = out or checkpoint_folder() / f"{name}{checkpoint.suffix(job.kind)}"
    found = read_groups(store, hold_out, say)
    about = train(found, job, path.absolute(), own_version(), observer)
    record = recorded(name, about, path.absolute())
    store.add_checkpoint(record)
    return record


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


def find_checkpoint(store: Store, name: str) -> tuple[checkpoint.CostModel, About]:
    """A checkpoint by its name in the database, by ``pretrained-lstm`` and the like, or by its file.

    Raises:
        BadCheckpoint: It cannot be read.
        NoSuchRecord: There is none.
    """
    kind = name.removeprefix("pretrained-")
    if name != kind and (path := checkpoint.pretrained(kind)):
        return checkpoint.load(path)
    if Path(name).suffix in (".safetensors", ".skops"):
        return checkpoint.load(Path(name))
    record = store.checkpoint(name)
    try:
        return checkpoint.load(Path(record.path))
    except BadCheckpoint as error:
        raise BadCheckpoint(f"checkpoint {name}: {error}") from error


@dataclass(frozen=True)
class Learned:
    """The trained networks of a run.

    Attributes:
        names: Of their checkpoints, for people; or why one is not used.
    """

    trained: Trained | None = None
    names: tuple[str, ...] = ()


def learned_models(store: Store, conditions: Conditions) -> Learned:
    """The default networks, where there are any; one that cannot be used is told, and left out."""
    found: dict[str, checkpoint.CostModel] = {}
    names: list[str] = []
    for kind in ("lstm", "gnn"):
        path = default_path(store, kind)
        if path is None:
            continue
        try:
            found[kind], _ = checkpoint.load(path)
            names.append(path.stem if path.parent != checkpoint.PRETRAINED else f"pretrained-{kind}")
        except BadCheckpoint as error:
            names.append(f"no {kind} ({error})")
    lstm, gnn = found.get("lstm"), found.get("gnn")
    if not isinstance(lstm, DecisionLSTM):
        return Learned(None, tuple(names))
    verifier = gnn if isinstance(gnn, ProgramGNN) else None
    return Learned(Trained(conditions, lstm, verifier), tuple(names))
