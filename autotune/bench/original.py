"""The model of a benchmark in the framework that it came from, for the peers."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.bench.contestant import Unavailable, require
from autotune.examples import EXAMPLES, build_example
from search.problem import TensorSpec

if TYPE_CHECKING:
    from autotune.frontends.model import SourceModel

_PROTOBUF_BYTES = 1_900_000_000  # protobuf ends at 2 GiB


@dataclass(frozen=True)
class Original:
    """A model, loaded in the form that a peer asks for, when it asks.

    Attributes:
        model: Path (``.onnx``, ``.pt2``) or the name of an example, as ``load_model`` takes it.
        specs: Inputs by name, in order, with all sizes fixed.
        folder: Where the ONNX form lies, so that only the first peer that needs it makes it.
    """

    model: str
    specs: Mapping[str, TensorSpec]
    folder: Path

    @cached_property
    def torch_module(self) -> Any:
        """A ``torch.nn.Module`` of its own for each peer.

        Raises:
            Unavailable: The model is an ONNX file, or there is no PyTorch.
        """
        if self._is_onnx:
            raise Unavailable("the model is an ONNX file")
        torch = require("torch", "torch")
        if self.model in EXAMPLES:
            return build_example(self.model)[0]
        return torch.export.load(self.model).module()

    @cached_property
    def onnx_path(self) -> Path:
        """An ONNX file of it with all sizes fixed.

        Raises:
            Unavailable: It has to be exported from PyTorch, and something is missing for that.
        """
        final = self.folder / "onnx"
        if not final.exists():
            draft = Path(tempfile.mkdtemp(dir=self.folder))
            write = self._fix_onnx if self._is_onnx else self._export_onnx
            write(draft / "model.onnx")
            draft.rename(final)
        return final / "model.onnx"

    @cached_property
    def source(self) -> "SourceModel":
        """Imported to TVM."""
        from autotune.frontends import load_model

        if self.model in EXAMPLES:
            batch = next(iter(self.specs.values())).shape[0]
            return load_model(self.model, batch=batch)
        return load_model(self.model, {name: spec.shape for name, spec in self.specs.items()})

    @property
    def _is_onnx(self) -> bool:
        return self.model not in EXAMPLES and Path(self.model).suffix == ".onnx"

    def _fix_onnx(self, path: Path) -> None:
        onnx = require("onnx", "onnx")
        model = onnx.load(self.model)
        for value in model.graph.input:
            spec = self.specs.get(value.name)
            for dim, size in zip(value.type.tensor_type.shape.dim, spec.shape if spec else (), strict=False):
                dim.dim_value = size
        onnx.save(model, path, save_as_external_data=model.ByteSize() > _PROTOBUF_BYTES)

    def _export_onnx(self, path: Path) -> None:
        torch = require("torch", "torch")
        require("onnxscript", "onnxscript")
        inputs = tuple(torch.zeros(s.shape, dtype=getattr(torch, s.dtype)) for s in self.specs.values())
        torch.onnx.export(
            self.torch_module, inputs, path, dynamo=True, input_names=list(self.specs), verbose=False
        )


def originals(model: str, source: "SourceModel", folder: Path) -> Original:
    """The original of a model that ``load_model`` has imported, which says what its inputs are."""
    return Original(model, {i.name: i.spec for i in source.inputs}, folder)
