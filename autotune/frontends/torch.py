"""PyTorch: modules and exported programs."""

import gc
import traceback
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm
from torch.utils._pytree import tree_leaves
from tvm.relax.frontend.torch import from_exported_program

from autotune.errors import BadInput, BadModel, DynamicInput, UnsupportedModel
from autotune.frontends.model import Array, ModelInput, SourceModel, check_memory, quiet
from search.errors import last_line
from search.problem import TensorSpec


def load_exported(path: Path, shapes: Mapping[str, tuple[int, ...]], batch: int | None) -> SourceModel:
    """Imports a file written by ``torch.export.save``.

    Raises:
        BadModel: Not such a file, or one of a PyTorch that this one cannot read.
        DynamicInput: A size is open and was not given.
        BadInput: A size was given that contradicts the program.
        UnsupportedModel: An operator cannot be imported.
    """
    if not zipfile.is_zipfile(path):  # which torch would say in a dozen lines of its log
        raise BadModel(f"{path} is not an exported program: torch.export.save writes one")
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise BadModel(
            f"{path} is not an exported program that PyTorch {torch.__version__} can read: {error}"[:300]
        ) from error
    return from_program(_fix_sizes(program, shapes, batch), path.stem, str(path))


def load_module(
    module: torch.nn.Module, inputs: Sequence[torch.Tensor], name: str | None = None
) -> SourceModel:
    """Exports a module for inputs of these shapes and imports it.

    Raises:
        UnsupportedModel: ``torch.export`` or TVM cannot take it.
    """
    label = name or type(module).__name__
    try:
        program = torch.export.export(module.eval(), tuple(inputs))
    except Exception as error:
        raise UnsupportedModel(f"{label}: torch.export fails: {last_line(error)}") from error
    return from_program(program, label, name or f"{type(module).__module__}.{type(module).__qualname__}")


def from_program(program: torch.export.ExportedProgram, name: str, source: str) -> SourceModel:
    """Imports an exported program whose input sizes are all fixed."""
    inputs = tuple(ModelInput(n, _spec(v)) for n, v in _user_inputs(program).items())
    module = _import(program, name)
    runnable = program.module()

    def reference(arrays: Sequence[Array]) -> list[Array]:
        with torch.no_grad():
            result = runnable(*(torch.from_numpy(np.asarray(a, order="C")) for a in arrays))
        return [t.numpy() for t in tree_leaves(result)]

    return SourceModel(name, source, module, inputs, reference, "PyTorch")


def _user_inputs(program: torch.export.ExportedProgram) -> dict[str, Any]:
    """Example values of the inputs that a caller passes, by name."""
    names = set(program.graph_signature.user_inputs)
    nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    return {n.name: n.meta["val"] for n in nodes}


def _spec(value: Any) -> TensorSpec:
    return TensorSpec(tuple(int(s) for s in value.shape), _dtype(value))


def _dtype(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.")


def _fix_sizes(
    program: torch.export.ExportedProgram, shapes: Mapping[str, tuple[int, ...]], batch: int | None
) -> torch.export.ExportedProgram:
    """Exports the program again with open sizes filled in, if it has any."""
    values = _user_inputs(program)
    unknown = set(shapes) - set(values)
    if unknown:
        raise BadInput(
            f"--input {sorted(unknown)[0]}: the program has no such input; it has {', '.join(values)}"
        )
    wanted = {n: _fixed_shape(n, v, shapes.get(n), batch) for n, v in values.items()}
    check_memory([TensorSpec(wanted[n], _dtype(v)) for n, v in values.items()])
    if all(isinstance(s, int) for v in values.values() for s in v.shape):
        return program
    examples = tuple(torch.zeros(wanted[n], dtype=v.dtype) for n, v in values.items())
    try:
        return torch.export.export(program.module(), examples)
    except Exception as error:
        raise BadInput(f"the program does not take inputs of these sizes: {last_line(error)}") from error


def _fixed_shape(name: str, value: Any, given: tuple[int, ...] | None, batch: int | None) -> tuple[int, ...]:
    found = [s if isinstance(s, int) else None for s in value.shape]
    text = "x".join(str(s) for s in value.shape)
    wanted = list(given) if given else list(found)
    if batch and not given and wanted and wanted[0] != batch:
        if found[0] is not None:
            raise BadInput(
                f"--batch {batch}: input {name} of the program has its first size fixed at {found[0]}"
            )
        wanted[0] = batch
    if len(wanted) != len(found) or any(f not in (None, w) for f, w in zip(found, wanted, strict=False)):
        raise BadInput(f"--input {name}={'x'.join(map(str, wanted))}: the program says {text}")
    if wanted and wanted[0] is None and None not in wanted[1:]:
        wanted[0] = 1  # only the batch is open: one, unless --batch says otherwise
    if any(w is None for w in wanted):
        example = "x".join(str(w or 1) for w in wanted)
        raise DynamicInput(
            f"input {name} has open sizes: {text}; give them, for example --input {name}={example}"
        )
    return tuple(int(w or 0) for w in wanted)


def _import(program: torch.export.ExportedProgram, name: str) -> tvm.IRModule:
    with quiet():
        try:
            return from_exported_program(
                _counted_from_the_front(program.run_decompositions()),
                keep_params_as_input=False,
                unwrap_unit_return_tuple=True,
                run_ep_decomposition=False,
            )
        except Exception as error:
            text = f"{_operator(error)}: {last_line(error)}"
        gc.collect()  # what failed makes a remark when it goes
    raise UnsupportedModel(f"{name}: TVM cannot import {text}")


def _counted_from_the_front(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program, its indices from the end (``x[:, -1]``) as ones from the front.

    TVM takes them as they are, and would read in front of the tensor.
    """
    aten = torch.ops.aten
    for node in list(program.graph.nodes):
        if node.target == aten.select.int and node.args[2] < 0:
            x, axis, index = node.args
            node.update_arg(2, index + x.meta["val"].shape[axis])
        elif node.target == aten.index.Tensor:
            x, indices = node.args
            sizes = x.meta["val"].shape
            node.update_arg(1, [_within(i, n) for i, n in zip(indices, sizes, strict=False)])
    return program


def _within(index: torch.fx.Node | None, size: int) -> torch.fx.Node | None:
    """Numbers below zero raised by a size; truth values as they are."""
    if index is None or index.meta["val"].dtype == torch.bool:
        return index
    aten, call = torch.ops.aten, index.graph.call_function
    with index.graph.inserting_before(index.next):
        below, raised = call(aten.lt.Scalar, (index, 0)), call(aten.add.Tensor, (index, size))
        return call(aten.where.self, (below, raised, index))


def _operator(error: BaseException) -> str:
    """What the importer was at: the last node that a function on the error's way was called with."""
    found = "the program"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("node")
        if isinstance(node, torch.fx.Node):
            value = node.meta.get("val")
            found = f"{node.target}" + (f" of {_dtype(value)}" if hasattr(value, "dtype") else "")
    return found
