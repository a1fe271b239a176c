"""Where a training stands, kept after each epoch beside the checkpoint that is to be."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from costmodels.files import written_whole
from costmodels.training import Trainer


@dataclass(frozen=True)
class State:
    """A file that holds a trainer's state.

    Attributes:
        data: Fingerprint of what is learnt from: the state is of no use for anything else.
    """

    path: Path
    data: str

    @classmethod
    def beside(cls, checkpoint: Path, data: str) -> "State":
        """That of a checkpoint's training."""
        return cls(checkpoint.with_name(checkpoint.name + ".unfinished"), data)

    def keep(self, trainer: Trainer) -> None:
        """Writes it, all of it or nothing."""
        with written_whole(self.path) as partial:
            torch.save({"data": self.data, **trainer.state()}, partial)

    def restore(self, trainer: Trainer) -> int:
        """Takes up a training of the same settings on the same data; gives the epochs that it had made."""
        if self.path.is_file():
            with suppress(Exception):  # a damaged file, or one of another training: begin anew
                state = torch.load(self.path, weights_only=True)
                if state["data"] == self.data:
                    trainer.go_on(state)
                    return int(state["epoch"])
        return 0

    def forget(self) -> None:
        """The training is over."""
        self.path.unlink(missing_ok=True)
