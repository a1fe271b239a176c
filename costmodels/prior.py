"""Trained networks as scorers of a search: what is known of a kernel before anything of it is measured."""

import math
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from costmodels.encodings.hardware import encode_hardware
from costmodels.encodings.program import encode_program
from costmodels.encodings.sequence import SequenceEncoder
from costmodels.formula import roofline_s
from costmodels.gnn import EncodedPrograms, ProgramGNN
from costmodels.gnn import inputs_of as programs
from costmodels.lstm import DecisionLSTM
from costmodels.lstm import inputs_of as sequences
from costmodels.network import Outputs, Predicted, predicted
from costmodels.trees import Span, one_thread
from search.problem import Candidate, Conditions, Workload
from search.scorer import Prediction, Scored, choices_of
from search.space import Space
from search.spaces.tir import module_of
from search.spaces.trace import apply_trace

DEVIATION = math.sqrt(2)  # of a Laplace distribution, in units of its scale


class SequencePrior:
    """A ``search.scorer.Scorer`` by the LSTM: of drafts, complete or not, of one space of any workload.

    >>> prior = SequencePrior(network, conditions)               # doctest: +SKIP
    >>> prior.add(space)                                         # doctest: +SKIP
    >>> prior.score(space.workload, drafts)                      # doctest: +SKIP

    Args:
        span: As of ``costmodels.trees.TreeCostModel``.
    """

    def __init__(
        self, network: DecisionLSTM, conditions: Conditions, span: Span = lambda phase: nullcontext()
    ) -> None:
        self._network = network.eval()
        self._conditions = conditions
        self._span = span
        self._known: dict[str, tuple[SequenceEncoder, float, Tensor]] = {}

    @torch.no_grad()
    def add(self, space: Space) -> None:
        """Makes a space known, by its workload."""
        encoder = SequenceEncoder(space, self._conditions)
        log_s = math.log(roofline_s(space.workload, self._conditions))
        about = self._network.describe(sequences([(encoder.subject, encoder.encode([]), log_s)]))
        self._known[space.workload.hash] = encoder, log_s, about

    def knows(self, workload: Workload) -> bool:
        """Whether it was told of the workload's space."""
        return workload.hash in self._known

    def score(self, workload: Workload, items: Sequence[Scored]) -> Prediction | None:
        """Logarithms of speeds, over the roofline's; None of a workload whose space is not known."""
        said = self.predict(workload, items)
        if said is None:
            return None
        # Rounded, for how tensors are cut into batches changes the last digits.
        relative = said.score + self._known[workload.hash][1]
        return Prediction(np.round(relative, 3), np.round(said.spread * DEVIATION, 3))

    def foretold_s(self, workload: Workload, items: Sequence[Scored]) -> NDArray[np.float64] | None:
        """Seconds that each would take; None of a workload whose space is not known."""
        said = self.predict(workload, items)
        return None if said is None else np.exp(said.log_s)

    @torch.no_grad()
    def predict(self, workload: Workload, items: Sequence[Scored]) -> Predicted | None:
        """All that the network says; None of a workload whose space is not known."""
        if workload.hash not in self._known or not items:
            return None
        encoder, log_s, about = self._known[workload.hash]
        with self._span("features"):
            inputs = sequences([(encoder.subject, encoder.encode([choices_of(i) for i in items]), log_s)])
        with self._span("model"), one_thread():
            return predicted(self._network.last(inputs, about))


class ProgramPrior:
    """A ``search.scorer.Scorer`` by the graph network: of realized candidates alone."""

    def __init__(
        self, network: ProgramGNN, conditions: Conditions, span: Span = lambda phase: nullcontext()
    ) -> None:
        self._network = network.eval()
        self._hardware = encode_hardware(conditions)
        self._conditions = conditions
        self._span = span

    def score(self, workload: Workload, items: Sequence[Scored]) -> Prediction | None:
        """None where an item is not realized, or cannot be encoded."""
        candidates = [i for i in items if isinstance(i, Candidate)]
        if len(candidates) < len(items) or not items:
            return None
        try:
            said = self.predict(workload, candidates)
        except Exception:  # a program such as nobody foresaw; what it raises is TVM's
            return None
        return Prediction(said.score, said.spread * DEVIATION)

    @torch.no_grad()
    def predict(self, workload: Workload, candidates: Sequence[Candidate]) -> Predicted:
        """All that the network says."""
        with self._span("features"):
            module = module_of(workload)
            graphs = tuple(encode_program(apply_trace(module, c.trace)) for c in candidates)
            log_s = math.log(roofline_s(workload, self._conditions))
            group = EncodedPrograms(graphs, self._hardware, np.ones(len(graphs)), log_s)
            inputs = programs([(group, np.arange(len(graphs)))])
        with self._span("model"), one_thread():
            outputs: Outputs = self._network(inputs)
            return predicted(outputs)
