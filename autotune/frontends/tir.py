"""A kernel of the user's own as a model of one task: a TIR function, or TVM's tensor expressions."""

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax, te, tirx

from autotune.frontends.model import Array, ModelInput, SourceModel
from autotune.measure.check import poisoned_output
from search.spaces.tir import workload_from_tir

_LAYOUT_FREE = "layout_free_buffers"
"""Says that weights may be packed beforehand; for a kernel alone, packing them would be part of each run."""


def from_tensors(tensors: Sequence[te.Tensor], name: str | None = None) -> SourceModel:
    """Takes inputs, then outputs, as ``te.create_prim_func`` does."""
    return from_function(te.create_prim_func(list(tensors)), name or tensors[-1].op.name)


def from_function(function: tirx.PrimFunc, name: str | None = None) -> SourceModel:
    """Wraps a TIR function whose last parameters are its outputs.

    Raises:
        UnsupportedWorkload: A parameter is no buffer, has a symbolic shape, or outputs are not last.
    """
    function = function.without_attr(_LAYOUT_FREE)
    symbol = function.attrs["global_symbol"] if function.attrs and "global_symbol" in function.attrs else ""
    label = name or str(symbol).replace("main", "") or "kernel"  # the graph itself is called main
    workload = workload_from_tir(function, label)
    cut = len(workload.args) - workload.outputs
    inputs = tuple(ModelInput(f"input{n}", spec) for n, spec in enumerate(workload.args[:cut]))
    outputs = workload.args[cut:]

    builder = relax.BlockBuilder()
    variable = builder.add_func(function.without_attr("global_symbol"), label)
    parameters = [relax.Var(i.name, relax.TensorType(i.spec.shape, i.spec.dtype)) for i in inputs]
    types = [relax.TensorType(o.shape, o.dtype) for o in outputs]
    with builder.function("main", parameters):
        with builder.dataflow():
            call = relax.call_tir(variable, parameters, types if len(types) > 1 else types[0])
            result = builder.emit_output(call)
        builder.emit_func_output(result)

    def reference(arrays: Sequence[Array]) -> list[Array]:
        compiled: Any = tvm.tirx.build(function.with_attr("global_symbol", "main"), target="llvm")["main"]
        given = [tvm.runtime.tensor(a) for a in arrays]
        written = [tvm.runtime.tensor(poisoned_output(o)) for o in outputs]
        compiled(*given, *written)
        return [w.numpy() for w in written]

    return SourceModel(label, "TIR function", builder.get(), inputs, reference, "the untuned function")
