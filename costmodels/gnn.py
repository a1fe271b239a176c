"""A graph network over the loops, statements and buffers of a realized candidate.

After Kaufman et al., A Learned Performance Model for Tensor Processing Units (MLSys 2021, section 3):
GraphSAGE with directed, typed edges, each node's features normalised before each layer, and a reduction over
the nodes. There a node is an operator of a kernel; here the schedule is what differs, so nodes are what it
makes: loops, statements and buffers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from costmodels.data import Group
from costmodels.encodings import program
from costmodels.encodings.hardware import HARDWARE_FEATURES, encode_hardware
from costmodels.encodings.program import (
    KERNEL_FEATURES,
    KINDS,
    NODE_FEATURES,
    RELATIONS,
    ProgramGraph,
    encode_program,
)
from costmodels.network import Head, Network, Outputs, Rows, Standard, perceptron, pool
from search.errors import InvalidCandidate
from search.spaces.tir import module_of
from search.spaces.trace import apply_trace


@dataclass(frozen=True)
class EncodedPrograms:
    """A group for the graph network."""

    graphs: tuple[ProgramGraph, ...]
    hardware: NDArray[np.float32]
    latency_s: NDArray[np.float64]
    log_roofline_s: float


class Inputs(NamedTuple):
    """A batch of graphs, as one graph of several parts.

    Attributes:
        kinds: Shape [nodes]; ``nodes`` [nodes, features] and ``owner`` (of which graph) likewise.
        edges: Shape [2, edges]; ``relations`` [edges].
        context: Shape [graphs, features]: of the kernel as scheduled, and of the hardware.
        log_roofline_s: Shape [graphs].
    """

    kinds: Tensor
    nodes: Tensor
    owner: Tensor
    edges: Tensor
    relations: Tensor
    context: Tensor
    log_roofline_s: Tensor


class TypedSage(nn.Module):
    """A layer of GraphSAGE whose weights depend on the type of the edge; neighbours of a type are averaged.

    That is a relational graph convolution (Schlichtkrull et al., 2018, equation 2).
    """

    def __init__(self, width: int, relations: int) -> None:
        super().__init__()
        self.own = nn.Linear(width, width)
        self.weights = nn.Parameter(torch.randn(relations, width, width) / math.sqrt(relations * width))

    def forward(self, x: Tensor, edges: Tensor, relations: Tensor) -> Tensor:
        """Shape [nodes, width], as ``x``."""
        count, (nodes, width) = len(self.weights), x.shape
        goal = relations * nodes + edges[1]
        sums = x.new_zeros(count * nodes, width).index_add(0, goal, x[edges[0]])
        degrees = torch.bincount(goal, minlength=count * nodes).clamp(min=1)
        means = (sums / degrees[:, None]).view(count, nodes, width)
        out: Tensor = self.own(x) + torch.bmm(means, self.weights).sum(0)
        return out


class ProgramGNN(Network):
    """Predicts the latency of a program from its graph."""

    kind = "gnn"
    encoding = program.VERSION

    def __init__(self, width: int = 64, layers: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.settings = {"width": width, "layers": layers, "dropout": dropout}
        self.node_norm, self.context_norm = Standard(NODE_FEATURES), Standard(_CONTEXT)
        self.node_kind = nn.Embedding(len(KINDS), width)
        self.node = perceptron(NODE_FEATURES, width)
        self.convolutions = nn.ModuleList(TypedSage(width, len(RELATIONS)) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.context = perceptron(_CONTEXT, width)
        self.dropout = nn.Dropout(dropout)
        self.head = Head(3 * width)

    def forward(self, inputs: Inputs) -> Outputs:
        """Of each graph; shape [graphs]."""
        x = self.node(self.node_norm(inputs.nodes)) + self.node_kind(inputs.kinds)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = x + self.dropout(torch.relu(convolution(norm(x), inputs.edges, inputs.relations)))
        pooled = pool(x, inputs.owner, len(inputs.context))
        context = self.context(self.context_norm(inputs.context))
        return self.head(torch.cat([pooled, context], -1), inputs.log_roofline_s)  # type: ignore[no-any-return]

    @torch.no_grad()
    def standardize(self, groups: Sequence[EncodedPrograms]) -> None:
        self.node_norm.fit(np.concatenate([graph.nodes for g in groups for graph in g.graphs]))
        self.context_norm.fit(np.concatenate([_contexts(g, range(len(g.graphs))) for g in groups]))

    @staticmethod
    def encode(group: Group) -> EncodedPrograms:
        module, graphs, kept = module_of(group.workload), list[ProgramGraph](), list[int]()
        for n, candidate in enumerate(group.candidates):
            try:
                graphs.append(encode_program(apply_trace(module, candidate.trace)))
                kept.append(n)
            except InvalidCandidate:
                continue
        return EncodedPrograms(
            tuple(graphs),
            encode_hardware(group.conditions),
            group.latency_s[kept],
            math.log(group.roofline_s),
        )

    @staticmethod
    def batch(groups: Sequence[tuple[EncodedPrograms, NDArray[np.int64]]]) -> tuple[Inputs, Rows]:
        latency_s = torch.from_numpy(np.concatenate([g.latency_s[some] for g, some in groups]))
        group = torch.repeat_interleave(torch.tensor([len(some) for _, some in groups]))
        return inputs_of(groups), Rows.of(group, torch.ones_like(group, dtype=torch.bool), latency_s)


_CONTEXT = KERNEL_FEATURES + HARDWARE_FEATURES


def inputs_of(groups: Sequence[tuple[EncodedPrograms, NDArray[np.int64]]]) -> Inputs:
    """A batch of some graphs of each of some groups."""
    graphs = [g.graphs[i] for g, some in groups for i in some]
    sizes = [len(graph.kinds) for graph in graphs]
    starts = np.repeat(np.cumsum([0, *sizes[:-1]]), [graph.edges.shape[1] for graph in graphs])
    roofline = [g.log_roofline_s for g, some in groups for _ in some]
    return Inputs(
        kinds=torch.from_numpy(np.concatenate([g.kinds for g in graphs])),
        nodes=torch.from_numpy(np.concatenate([g.nodes for g in graphs])),
        owner=torch.repeat_interleave(torch.tensor(sizes)),
        edges=torch.from_numpy(np.concatenate([g.edges for g in graphs], axis=1) + starts),
        relations=torch.from_numpy(np.concatenate([g.relations for g in graphs])),
        context=torch.from_numpy(np.concatenate([_contexts(g, some) for g, some in groups])),
        log_roofline_s=torch.tensor(roofline, dtype=torch.float32),
    )


def _contexts(group: EncodedPrograms, some: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
    """Shape [some, features]."""
    kernels = np.stack([group.graphs[i].kernel for i in some])
    return np.concatenate([kernels, np.tile(group.hardware, (len(kernels), 1))], axis=1)
