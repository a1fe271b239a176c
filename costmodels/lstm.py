"""An LSTM over scheduling decisions: the value of a schedule of which only the first decisions are taken.

After Steiner et al., Value Learning for Throughput Optimization of Deep Neural Networks (MLSys 2021,
sections 3 and 4): V(s) is the best latency that can be reached from a partial schedule s; of a complete one,
its own. One pass over a sequence gives V of each of its prefixes. Unlike there, a step is a decision and not
a stage of the pipeline, for the spaces here decide loop by loop; what is scheduled sets the state that a
sequence begins in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from costmodels.data import Group, target_of
from costmodels.encodings import sequence
from costmodels.encodings.program import KINDS as NODE_KINDS
from costmodels.encodings.program import NODE_FEATURES
from costmodels.encodings.sequence import (
    CONTEXT_FEATURES,
    TOKEN_FEATURES,
    SequenceEncoder,
    Sequences,
    Subject,
    joined,
    stacked,
)
from costmodels.network import Head, Network, Outputs, Rows, Standard, perceptron, pool
from search.problem import Candidate
from search.space import Draft
from search.spaces import READABLE


@dataclass(frozen=True)
class EncodedSequences:
    """A group for the LSTM.

    Attributes:
        values: Shape [n, longest]: the least latency of the group's candidates of the same space that begin
            with the same decisions; infinite where all fail.
    """

    subject: Subject
    sequences: Sequences
    values: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    log_roofline_s: float


class Inputs(NamedTuple):
    """A batch for the LSTM, of candidates of several subjects.

    Attributes:
        nodes: Shape [nodes of all subjects, features]; ``kinds`` and ``owner`` (of which subject) likewise.
        context: Shape [subjects, features]; ``log_roofline_s`` likewise.
        tokens: Shape [n, longest, features].
        lengths: Shape [n]; ``subject`` likewise.
    """

    kinds: Tensor
    nodes: Tensor
    owner: Tensor
    context: Tensor
    log_roofline_s: Tensor
    tokens: Tensor
    lengths: Tensor
    subject: Tensor


class DecisionLSTM(Network):
    """Predicts the best latency that a sequence of decisions can lead to.

    Args:
        width: Of its state.
    """

    kind = "lstm"
    encoding = sequence.VERSION

    def __init__(self, width: int = 96, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.settings = {"width": width, "layers": layers, "dropout": dropout}
        self.node_norm, self.context_norm = Standard(NODE_FEATURES), Standard(CONTEXT_FEATURES)
        self.token_norm = Standard(TOKEN_FEATURES)
        self.node_kind = nn.Embedding(len(NODE_KINDS), width)
        self.node = perceptron(NODE_FEATURES, width)
        self.context = perceptron(CONTEXT_FEATURES + 2 * width, width)
        self.token = perceptron(TOKEN_FEATURES, width)
        self.begin = nn.Linear(width, 2 * layers * width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.head = Head(3 * width)

    def describe(self, inputs: Inputs) -> Tensor:
        """What is scheduled, shape [subjects, width]; equal for all its schedules."""
        nodes = self.node(self.node_norm(inputs.nodes)) + self.node_kind(inputs.kinds)
        pooled = pool(nodes, inputs.owner, len(inputs.context))
        return self.context(torch.cat([self.context_norm(inputs.context), pooled], -1))  # type: ignore[no-any-return]

    def read(self, inputs: Inputs, about: Tensor) -> Tensor:
        """What is known after each decision, shape [n, longest, features].

        Args:
            about: As ``describe`` gives it.
        """
        subject = about[inputs.subject]
        layers = self.lstm.num_layers
        state = self.begin(subject).view(len(subject), 2, layers, -1).permute(1, 2, 0, 3).contiguous()
        tokens = self.token(self.token_norm(inputs.tokens)) + subject[:, None]
        read, _ = self.lstm(tokens, (torch.tanh(state[0]), state[1]))
        return torch.cat([self.dropout(read), tokens, read * tokens], -1)

    def forward(self, inputs: Inputs) -> Outputs:
        """Of every prefix of every candidate, one after another; shape [decisions in all]."""
        real = _is_real(inputs)
        features = self.read(inputs, self.describe(inputs))[real]
        roofline = inputs.log_roofline_s[inputs.subject][:, None].expand_as(real)[real]
        return self.head(features, roofline)  # type: ignore[no-any-return]

    def last(self, inputs: Inputs, about: Tensor) -> Outputs:
        """Of what is decided, as a whole; shape [n].

        Args:
            about: As ``describe`` gives it.
        """
        ends = self.read(inputs, about)[torch.arange(len(inputs.lengths)), inputs.lengths - 1]
        return self.head(ends, inputs.log_roofline_s[inputs.subject])  # type: ignore[no-any-return]

    @torch.no_grad()
    def standardize(self, groups: Sequence[EncodedSequences]) -> None:
        """Takes note of the scale of the features."""
        self.node_norm.fit(np.concatenate([g.subject.nodes for g in groups]))
        self.context_norm.fit(np.stack([g.subject.context for g in groups]))
        tokens = [g.sequences.tokens.reshape(-1, TOKEN_FEATURES) for g in groups]
        self.token_norm.fit(np.concatenate([t[t.any(axis=1)] for t in tokens]))

    @staticmethod
    def encode(group: Group) -> EncodedSequences:
        target = target_of(group.conditions)
        names = dict.fromkeys(c.space for c in group.candidates)
        encoders = {n: SequenceEncoder(READABLE[n](group.workload, target), group.conditions) for n in names}
        known = [n for n, c in enumerate(group.candidates) if encoders[c.space].knows(c.choices)]
        parts = {n: [k for k in known if group.candidates[k].space == n] for n in encoders}
        sequences = joined(
            [e.encode([group.candidates[k].choices for k in parts[n]]) for n, e in encoders.items()]
        )
        order = np.concatenate([np.array(p, np.int64) for p in parts.values()])
        sequences, order = sequences.of(np.argsort(order)), np.sort(order)  # as the group has them
        latency_s = group.latency_s[order]
        return EncodedSequences(
            next(iter(encoders.values())).subject,
            sequences,
            _values([group.candidates[k] for k in order], latency_s, sequences.tokens.shape[1]),
            latency_s,
            math.log(group.roofline_s),
        )

    @staticmethod
    def batch(groups: Sequence[tuple[EncodedSequences, NDArray[np.int64]]]) -> tuple[Inputs, Rows]:
        inputs = inputs_of([(g.subject, g.sequences.of(some), g.log_roofline_s) for g, some in groups])
        values = torch.from_numpy(stacked([g.values[some] for g, some in groups], math.inf))
        real = _is_real(inputs)
        last = inputs.lengths[:, None] - 1 == torch.arange(real.shape[1])
        group = inputs.subject[:, None].expand_as(real)
        return inputs, Rows.of(group[real], last[real], values[real])


def _values(
    candidates: Sequence[Candidate], latency_s: NDArray[np.float64], longest: int
) -> NDArray[np.float64]:
    """As ``EncodedSequences.values``."""
    best: dict[tuple[str, Draft], float] = {}
    for candidate, time_s in zip(candidates, latency_s.tolist(), strict=True):
        for length in range(1, len(candidate.choices) + 1):
            key = candidate.space, candidate.choices[:length]
            best[key] = min(time_s, best.get(key, math.inf))
    values = np.full((len(candidates), longest), math.inf)
    for row, candidate in zip(values, candidates, strict=True):
        for length in range(1, len(candidate.choices) + 1):
            row[length - 1] = best[candidate.space, candidate.choices[:length]]
    return values


def inputs_of(parts: Sequence[tuple[Subject, Sequences, float]]) -> Inputs:
    """A batch of sequences of several subjects, each with the logarithm of its roofline."""
    sizes = [len(s.kinds) for s, _, _ in parts]
    sequences = joined([q for _, q, _ in parts])
    counts = [len(q.lengths) for _, q, _ in parts]
    return Inputs(
        kinds=torch.from_numpy(np.concatenate([s.kinds for s, _, _ in parts])),
        nodes=torch.from_numpy(np.concatenate([s.nodes for s, _, _ in parts])),
        owner=torch.repeat_interleave(torch.tensor(sizes)),
        context=torch.from_numpy(np.stack([s.context for s, _, _ in parts])),
        log_roofline_s=torch.tensor([r for _, _, r in parts], dtype=torch.float32),
        tokens=torch.from_numpy(sequences.tokens),
        lengths=torch.from_numpy(sequences.lengths),
        subject=torch.repeat_interleave(torch.tensor(counts)),
    )


def _is_real(inputs: Inputs) -> Tensor:
    """Shape [n, longest]: false behind the end of a sequence."""
    return torch.arange(inputs.tokens.shape[1]) < inputs.lengths[:, None]
