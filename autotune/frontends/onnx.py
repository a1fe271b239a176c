"""ONNX files: sizes fixed, shapes and constants folded by ONNX Runtime, then TVM's importer.

TVM imports a graph whose reshapes are computed in the graph only if somebody folds them first. ONNX Runtime's
basic optimisations do, and they fold batch norms into convolutions as well.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tvm
from onnx import numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state
from tvm.relax.frontend.onnx import from_onnx

from autotune.errors import BadInput, BadModel, DynamicInput, UnsupportedModel
from autotune.frontends.model import Array, ModelInput, SourceModel, check_memory, quiet
from autotune.frontends.quantized.qoperator import to_conversions
from autotune.measure.check import OFF, is_float, nudge
from search.errors import AutotuneError, last_line
from search.problem import TensorSpec

_PROVIDERS = ["CPUExecutionProvider"]


def load_onnx(path: Path, shapes: Mapping[str, tuple[int, ...]], batch: int | None) -> SourceModel:
    """Imports an ONNX file.

    Args:
        shapes: Sizes of inputs that the file leaves open, by input name.
        batch: Size of the first dimension where the file leaves it open.

    Raises:
        BadModel: Not an ONNX file, or a damaged one.
        DynamicInput: A size is open and was not given.
        BadInput: A size was given that contradicts the file.
        UnsupportedModel: An operator cannot be imported.
    """
    model = _parse(path)
    inputs = _fix_inputs(model, shapes, batch)
    with tempfile.TemporaryDirectory() as folder:
        fixed, folded = Path(folder) / "fixed.onnx", Path(folder) / "folded.onnx"
        _save(model, fixed)
        try:
            graph = _fold(fixed, folded)
        except Exception as error:
            raise _refusal(model, path, inputs, bool(shapes or batch), error) from error
    _keep_inputs(graph, [i.name for i in inputs])
    _replace_one_hot(graph)
    to_conversions(graph)
    module = _import(graph, path)

    def nudged(seed: int) -> _Reference:
        return _Reference(_nudged(model, seed), inputs)

    return SourceModel(
        path.stem, str(path), module, inputs, _Reference(model, inputs), "ONNX Runtime", nudged
    )


class _Reference:
    """Runs a model in ONNX Runtime, as ONNX defines it."""

    def __init__(self, model: onnx.ModelProto, inputs: tuple[ModelInput, ...]) -> None:
        self._model = model
        self._inputs = inputs

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return make_session(self._model, _options_of_reference(self._model))

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        feed = {i.name: a for i, a in zip(self._inputs, arrays, strict=True)}
        return [np.asarray(o) for o in self._session.run(None, feed)]


def _nudged(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The model with its constants off by a millionth."""
    rng, other = np.random.default_rng(seed), onnx.ModelProto()
    other.CopyFrom(model)
    for constant in other.graph.initializer:
        value = numpy_helper.to_array(constant)
        if is_float(value.dtype.name):
            off = nudge(value, rng, OFF)
            off = np.where(np.isfinite(off), off, value)  # masks hold the least number that there is
            constant.CopyFrom(numpy_helper.from_array(off, constant.name))
    return other


def make_session(
    model: onnx.ModelProto, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """A CPU session for a model in memory, external weights included."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _save(model, path)
        return onnxruntime.InferenceSession(path, options or _options(), providers=_PROVIDERS)


def _options_of_reference(model: onnx.ModelProto) -> onnxruntime.SessionOptions:
    """Where a model rounds to bytes, ONNX Runtime's own kernels for bytes round elsewhere than ONNX says."""
    options = _options()
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return options


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


def _parse(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf, missing external data, unreadable file: the parser has many
        raise BadModel(f"{path} cannot be read as ONNX: {last_line(error)}") from error
    if not model.graph.node or not model.opset_import:
        raise BadModel(f"{path} is not an ONNX model (it holds no operators); is it complete?")
    return model


def _save(model: onnx.ModelProto, path: Path) -> None:
    big = model.ByteSize() > 1_900_000_000  # protobuf ends at 2 GiB
    onnx.save(model, path, save_as_external_data=big)


def _fix_inputs(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], batch: int | None
) -> tuple[ModelInput, ...]:
    """Writes the given sizes into the model; returns its inputs without those that are weights."""
    weights = {w.name for w in model.graph.initializer}
    values = [v for v in model.graph.input if v.name not in weights]
    unknown = set(shapes) - {v.name for v in values}
    if unknown:
        names = ", ".join(v.name for v in values)
        raise BadInput(f"--input {sorted(unknown)[0]}: the model has no such input; it has {names}")
    for value in values:
        _check_type(value)
    inputs = tuple(_fix_input(v, shapes.get(v.name), batch) for v in values)
    check_memory([i.spec for i in inputs])
    return inputs


def _check_type(value: onnx.ValueInfoProto) -> None:
    kind = value.type.WhichOneof("value")
    if kind == "tensor_type" and value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
        kind = "string_type"
    if kind != "tensor_type":
        raise UnsupportedModel(
            f"input {value.name} is of type {(kind or 'unknown').removesuffix('_type')}; "
            "only tensors of numbers can be tuned"
        )


def _fix_input(value: onnx.ValueInfoProto, shape: tuple[int, ...] | None, batch: int | None) -> ModelInput:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        if shape is None:
            raise DynamicInput(
                f"the file does not say the shape of input {value.name}; give it, "
                f"for example --input {value.name}=1x3x224x224"
            )
        tensor.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in shape)
    dims = list(tensor.shape.dim)
    found = [d.dim_value or None for d in dims]
    wanted = list(shape) if shape else list(found)
    if batch and not shape and found and (found[0] is None or found[0] != batch):
        if found[0] is not None:
            raise BadInput(
                f"--batch {batch}: input {value.name} of the file has its first size fixed at {found[0]}"
            )
        wanted[0] = batch
    if shape and (
        len(shape) != len(found) or any(f not in (None, w) for f, w in zip(found, shape, strict=True))
    ):
        given = "x".join(map(str, shape))
        raise BadInput(f"--input {value.name}={given}: the file says {_shape_text(dims)}")
    if wanted and wanted[0] is None and None not in wanted[1:]:
        wanted[0] = 1  # only the batch is open: one, unless --batch says otherwise
    if any(w is None for w in wanted):
        example = "x".join(str(w or 1) for w in wanted)
        raise DynamicInput(
            f"input {value.name} has open sizes: {_shape_text(dims)}; give them, "
            f"for example --input {value.name}={example}"
        )
    for dim, size in zip(dims, wanted, strict=True):
        dim.dim_value = size or 0
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return ModelInput(value.name, TensorSpec(tuple(int(w or 0) for w in wanted), str(dtype)))


def _shape_text(dims: Sequence[onnx.TensorShapeProto.Dimension]) -> str:
    return "x".join(d.dim_param or str(d.dim_value or "?") for d in dims) or "a scalar"


def _fold(fixed: Path, folded: Path) -> onnx.ModelProto:
    options = _options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(fixed, options, providers=_PROVIDERS)
    return onnx.load(folded)


def _refusal(
    model: onnx.ModelProto, path: Path, inputs: Sequence[ModelInput], sized: bool, error: Exception
) -> AutotuneError:
    """Why ONNX Runtime refuses a model.

    Args:
        sized: Sizes were given to it.
    """
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", last_line(error))
    text = text.rpartition("fixed.onnx failed:")[2]  # a file of ours
    own = {(f.domain, f.name) for f in model.functions}
    missing = {
        f"{n.domain}::{n.op_type}".removeprefix("::")
        for n in model.graph.node
        if not onnx.defs.has(n.op_type, n.domain) and (n.domain, n.op_type) not in own
        if n.domain != "com.microsoft"  # ONNX Runtime's own
    }
    if missing:
        return UnsupportedModel(
            f"{path}: ONNX has no operator {', '.join(sorted(missing))}, and custom ones cannot be imported"
        )
    if isinstance(error, onnxruntime_pybind11_state.NotImplemented):
        return UnsupportedModel(f"{path}: {text}")
    if sized:
        given = ", ".join(f"{i.name}={'x'.join(map(str, i.spec.shape))}" for i in inputs)
        return BadInput(f"{path} does not take inputs of these sizes ({given}): {text}")
    return BadModel(f"{path}: ONNX Runtime refuses the model: {text}")


def _keep_inputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Drops graph inputs that were weights or became constants."""
    kept = [v for v in model.graph.input if v.name in names]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def _replace_one_hot(model: onnx.ModelProto) -> None:
    """OneHot of constant depth as a look-up in a small table; TVM 0.27's own conversion of it fails."""
    constants = {w.name: w for w in model.graph.initializer}
    for node in model.graph.node:
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        if node.op_type != "OneHot" or axis != -1 or not set(node.input[1:]) <= set(constants):
            continue
        depth, values = (numpy_helper.to_array(constants[n]) for n in node.input[1:])
        table = np.full((int(depth.item()),) * 2, values[0], dtype=values.dtype)
        np.fill_diagonal(table, values[1])
        name = f"{node.name or node.output[0]}_table"
        model.graph.initializer.append(numpy_helper.from_array(table, name))
        gather = onnx.helper.make_node("Gather", [name, node.input[0]], list(node.output), axis=0)
        node.CopyFrom(gather)


def _import(model: onnx.ModelProto, path: Path) -> tvm.IRModule:
    with quiet():
        try:
            return from_onnx(model, keep_params_in_input=False)
        except Exception as error:
            text = last_line(error)
    raise UnsupportedModel(f"{path}: TVM cannot import the model: {text}")
