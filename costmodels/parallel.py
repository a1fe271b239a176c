"""Data-parallel training: several processes, each with a part of every step's groups, gradients summed.

All processes hold all the data and judge all of it, so they agree on when to stop; the first one speaks. The
loss is a mean over each process's groups, so what comes out is not quite what one process learns.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.multiprocessing as mp

from costmodels.network import Network
from costmodels.state import State
from costmodels.training import Epoch, Observer, Trainer, TrainSettings, rank

POLL_S = 0.2


class Work(NamedTuple):
    """What each process is given; all of it can be pickled."""

    network: Network
    learn: Sequence[Any]
    judge: Sequence[Any]
    settings: TrainSettings
    state: State


def fit(work: Work, processes: int, observer: Observer) -> None:
    """Trains ``work.network`` in one or several processes; its weights are the best ones afterwards."""
    if processes == 1:
        _train(work, observer)
    else:
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder, "weights.pt")
            _train_together(work, processes, observer, f"file://{folder}/meeting", weights)
            work.network.load_state_dict(torch.load(weights, weights_only=True))
    work.network.eval()


def _train(work: Work, observer: Observer) -> None:
    trainer = Trainer(work.network, work.learn, work.judge, work.settings)
    epochs = work.state.restore(trainer)
    if epochs and rank() == 0:
        observer.went_on(epochs)

    def after(epoch: Epoch) -> None:
        if rank() == 0:
            observer.epoch(epoch, work.settings.epochs)
            work.state.keep(trainer)

    trainer.run(after)


def _train_together(work: Work, processes: int, observer: Observer, meeting: str, weights: Path) -> None:
    queue = mp.get_context("spawn").SimpleQueue()
    threads = max(1, torch.get_num_threads() // processes)
    together = mp.spawn(  # type: ignore[no-untyped-call, attr-defined]
        _member, (processes, threads, meeting, weights, work, queue), processes, join=False
    )

    def listen() -> None:
        while not queue.empty():
            what, *values = queue.get()
            getattr(observer, what)(*values)

    try:
        while not together.join(POLL_S):
            listen()
        listen()
    finally:
        for process in together.processes:  # after Ctrl-C; those that are done do not mind
            process.terminate()


class _Teller:
    """Tells another process's observer."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def epoch(self, epoch: Epoch, of: int) -> None:
        self._queue.put(("epoch", epoch, of))

    def went_on(self, epochs: int) -> None:
        self._queue.put(("went_on", epochs))


def _member(
    number: int, count: int, threads: int, meeting: str, weights: Path, work: Work, queue: Any
) -> None:
    torch.set_num_threads(threads)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=number, world_size=count)
    try:
        _train(work, _Teller(queue))
        if rank() == 0:
            torch.save(work.network.state_dict(), weights)
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
