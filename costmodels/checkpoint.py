"""Checkpoints: a trained cost model in one file, from which nothing is ever executed.

A network is a file of the safetensors format, with what there is to know of it as JSON beside the weights.
Trees are a file of skops (a zip archive), with the same JSON as one more member.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from costmodels.boosting import StoreTrees
from costmodels.files import written_whole
from costmodels.gnn import ProgramGNN
from costmodels.lstm import DecisionLSTM
from costmodels.network import Network
from search.errors import AutotuneError, last_line

CostModel = Network | StoreTrees

MODELS: dict[str, type[DecisionLSTM] | type[ProgramGNN] | type[StoreTrees]] = {
    "lstm": DecisionLSTM,
    "gnn": ProgramGNN,
    "trees": StoreTrees,
}
"""By kind. A new one joins by a line here."""

PRETRAINED = Path(__file__).parent / "pretrained"
"""Where the checkpoints lie that come with the program."""

_KEY = "autotune"
_MEMBER = "autotune.json"
_FORMAT = 1


class BadCheckpoint(AutotuneError):
    """A file that holds no checkpoint, or one that this version cannot use."""

    exit_code = 37


@dataclass(frozen=True)
class About:
    """What is known of a checkpoint besides its weights.

    Attributes:
        kind: Of the model.
        encoding: Version of the encodings that it takes.
        model: What the model's constructor was given.
        training: Settings of the training, its seed and its split among them.
        data: What it was trained on: a fingerprint, and counts.
        metrics: On what was held out.
        version: Of the program that trained it.
    """

    kind: str
    encoding: str
    model: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    version: str = ""


def suffix(kind: str) -> str:
    """Of the files of a kind of model."""
    return ".skops" if kind == StoreTrees.kind else ".safetensors"


def save(model: CostModel, path: Path, about: Mapping[str, Any]) -> About:
    """Writes a checkpoint, all of it or nothing.

    Args:
        about: Attributes of ``About`` besides those that the model knows.

    Raises:
        OSError: It cannot be written.
    """
    told = About(model.kind, model.encoding, model.settings, **about)
    text = json.dumps({"format": _FORMAT, **asdict(told)})
    with written_whole(path) as partial:
        if isinstance(model, StoreTrees):
            model.dump(partial)
            with zipfile.ZipFile(partial, "a") as archive:
                archive.writestr(_MEMBER, text)
        else:
            weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
            save_file(weights, partial, {_KEY: text})
    return told


def read_about(path: Path) -> About:
    """What a checkpoint says of itself.

    Raises:
        BadCheckpoint: There is no such file, or it holds no checkpoint of this format.
    """
    if not path.is_file():
        raise BadCheckpoint(f"{path}: there is no such checkpoint")
    try:
        told = json.loads(_text(path))
        if told.pop("format") != _FORMAT:
            raise ValueError("it is of another format")
        about = About(**told)
        if not all(isinstance(x, str) for x in (about.kind, about.encoding, about.version)):
            raise ValueError("what it says of itself is no text")
        return about
    except Exception as error:  # a damaged file makes libraries raise all sorts
        raise BadCheckpoint(
            f"{path} is no checkpoint that this version can read ({last_line(error)}); train a new one"
        ) from error


def _text(path: Path) -> str:
    if path.suffix == suffix(StoreTrees.kind):
        with zipfile.ZipFile(path) as archive:
            return archive.read(_MEMBER).decode()
    with safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
        return str((file.metadata() or {})[_KEY])


def load(path: Path) -> tuple[CostModel, About]:
    """A model, ready to predict, and what is known of it.

    Raises:
        BadCheckpoint: As ``read_about``; or it is of another encoding, or its weights do not fit.
    """
    about = read_about(path)
    make = MODELS.get(about.kind)
    if make is None:
        raise BadCheckpoint(f"{path} holds a model of kind {about.kind!r}; known are {', '.join(MODELS)}")
    if about.encoding != make.encoding:
        raise BadCheckpoint(
            f"{path} was trained on encoding {about.encoding}, this version has {make.encoding}: "
            f"train anew with `autotune train --model {about.kind}`"
        )
    try:
        model = make(**about.model)
        if isinstance(model, StoreTrees):
            model.read(path)
        else:
            model.load_state_dict(load_file(path))
            model.eval()
    except Exception as error:  # whatever torch, safetensors and skops raise of a damaged file
        raise BadCheckpoint(f"{path} is damaged: {last_line(error)}") from error
    return model, about


def pretrained(kind: str) -> Path | None:
    """The checkpoint of a kind that comes with the program, where one does."""
    path = PRETRAINED / f"{kind}{suffix(kind)}"
    return path if path.is_file() else None
