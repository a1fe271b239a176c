"""Workloads from TIR functions: canonical form, hash, shapes, work.

The hash is ours, not TVM's structural hash, which is not promised to be equal on every platform. It is
the SHA-256 of a canonical text of ``tvm.ir.save_json``: names of variables and buffers, source spans and
the function's own name are left out; variables are numbered in order of first use. Names of blocks stay,
because traces address blocks by name.
"""

import json
import math
import re
from functools import lru_cache
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir.analysis import estimate_tir_flops

from search import halves
from search.errors import UnsupportedWorkload
from search.problem import TensorSpec, Workload, digest

_IGNORED_FIELDS = {"span", "name"}
_IGNORED_ATTRS = {"global_symbol", "op_pattern", "tirx.is_scheduled"}


def canonical_form(module_json: str) -> str:
    """Text that is equal for TIR functions that differ only in names of variables, buffers and themselves.

    Args:
        module_json: ``tvm.ir.save_json`` of a ``PrimFunc``.
    """
    graph = json.loads(module_json)
    nodes = graph["nodes"]
    numbers: dict[int, int] = {}
    texts: dict[int, str] = {}

    def visit(index: int) -> str:
        if index not in texts:
            texts[index] = render(index)
        return texts[index]

    def render(index: int) -> str:
        node = nodes[index]
        kind, data = node["type"], node.get("data")
        if kind == "ir.Var":
            number = numbers.setdefault(index, len(numbers))
            return f"v{number}:{visit(data['ty'])}"
        if kind == "ffi.Array":
            return "[" + ",".join(visit(i) for i in data) + "]"
        if kind == "ffi.Map":
            pairs = sorted((visit(k), v) for k, v in zip(data[::2], data[1::2], strict=True))
            return "{" + ",".join(f"{k}={visit(v)}" for k, v in pairs if k not in ignored_keys) + "}"
        if isinstance(data, dict):
            fields = []
            for name in sorted(data):
                if name in _IGNORED_FIELDS:
                    continue
                value = data[name]
                # Fields hold a literal where the type says so, and else the index of a node.
                is_literal = isinstance(value, (str, float, bool)) or (kind, name) in _LITERAL_FIELDS
                fields.append(f"{name}={value!r}" if is_literal else f"{name}={visit(value)}")
            return f"{kind}({','.join(fields)})"
        return repr(data)

    ignored_keys = {repr(a) for a in _IGNORED_ATTRS}
    return visit(graph["root_index"])


# Integer fields that are values, not indices of nodes.
_LITERAL_FIELDS = {
    ("relax.ShapeType", "ndim"),
    ("relax.TensorType", "ndim"),
    ("tirx.BufferType", "data_alignment"),
    ("tirx.BufferType", "offset_factor"),
    ("tirx.IterVar", "iter_type"),
    ("tirx.For", "kind"),
}


def workload_hash(func: tirx.PrimFunc) -> str:
    """Identity of a kernel, equal on every platform and for every naming of its variables."""
    return digest(["tir/1", canonical_form(tvm.ir.save_json(func))])


class _Graph:
    """The nodes of a TIR function's JSON, as far as facts about the function are read off them."""

    def __init__(self, module_json: str) -> None:
        graph = json.loads(module_json)
        self.nodes = graph["nodes"]
        self.root = self.nodes[graph["root_index"]]["data"]

    def data(self, index: int) -> Any:
        return self.nodes[index].get("data")

    def of_type(self, kind: str) -> list[Any]:
        return [n["data"] for n in self.nodes if n["type"] == kind]

    def integer(self, index: int) -> int | None:
        """The value of a constant, or None for an expression."""
        node = self.nodes[index]
        return int(self.data(node["data"]["value"])) if node["type"] == "ir.IntImm" else None

    def parameters(self) -> list[tuple[str, TensorSpec | None, bool]]:
        """Name, shape and dtype (None where not a buffer of static shape), and whether it is written."""
        written = {store["buffer"] for store in self.of_type("tirx.BufferStore")}
        found: list[tuple[str, TensorSpec | None, bool]] = []
        for index in self.data(self.root["params"]):
            var = self.data(index)
            kind = self.data(var["ty"])
            shape = [self.integer(i) for i in self.data(kind["shape"])] if "shape" in kind else [None]
            fixed = tuple(s for s in shape if s is not None)
            spec = TensorSpec(fixed, self._dtype(kind["dtype"])) if len(fixed) == len(shape) else None
            found.append((self.data(var["name"]), spec, index in written))
        return found

    def _dtype(self, index: int) -> str:
        return str(self.data(index)["dtype"])

    def reduction_length(self) -> int:
        """Longest chain of additions into one element: the product of a block's reduction axes."""
        longest = 1
        for block in self.of_type("s_tir.SBlock"):
            axes = [self.data(i) for i in self.data(block["iter_vars"])]
            ranges = [self.data(a["dom"]) for a in axes if a["iter_type"] == tirx.IterVar.CommReduce]
            longest = max(longest, math.prod(self.integer(r["extent"]) or 1 for r in ranges))
        return longest

    def parts(self) -> int:
        """Products that stand for one, where numbers are taken apart."""
        names = {self.data(block["name_hint"]) for block in self.of_type("s_tir.SBlock")}
        return halves.PARTS if halves.APART in names else 1


def workload_from_tir(func: tirx.PrimFunc, name: str) -> Workload:
    """Makes a workload of a TIR function whose outputs are its last parameters.

    Args:
        func: Static shapes, every parameter a buffer.
        name: What people read; numbers that TVM appends to tell functions apart are removed.

    Raises:
        UnsupportedWorkload: A parameter is not a buffer, or a shape is symbolic.
    """
    func = func.without_attr("global_symbol") if func.attrs and "global_symbol" in func.attrs else func
    func = func.with_attr("global_symbol", "main")
    graph = _Graph(tvm.ir.save_json(func))
    args: list[TensorSpec] = []
    for parameter, spec, _ in graph.parameters():
        if spec is None:
            raise UnsupportedWorkload(
                f"{name}: parameter {parameter} is not a buffer of static shape; "
                "fix the sizes of dynamic inputs with --input name=1x3x224x224"
            )
        args.append(spec)
    is_output = [written for _, _, written in graph.parameters()]
    outputs = sum(is_output)
    if not outputs or not all(is_output[-outputs:]):
        raise UnsupportedWorkload(f"{name}: the outputs of the function must be its last parameters")
    return Workload(
        hash=workload_hash(func),
        name=re.sub(r"(?<=[a-z])\d+(?=_|$)", "", name.removeprefix("fused_")),
        args=tuple(args),
        outputs=outputs,
        flop=float(estimate_tir_flops(tvm.IRModule({"main": func}))) / graph.parts(),
        reduction=graph.reduction_length(),
        module_json=tvm.ir.save_json(tvm.IRModule({"main": func})),
    )


@lru_cache(maxsize=64)
def module_of(workload: Workload) -> tvm.IRModule:
    """The workload's TIR module, unscheduled, its function named ``main``; not to be changed."""
    return tvm.ir.load_json(workload.module_json)
