"""Tiny networks that need every part of the way: convolution, batch norm, residual, pooling, linear."""

from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper


class Tiny(torch.nn.Module):
    """Two convolutions with a residual between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(16)
        self.second = torch.nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.head = torch.nn.Linear(16, 5)
        torch.nn.init.uniform_(self.norm.running_var, 0.5, 2.0)
        torch.nn.init.normal_(self.norm.running_mean)
        torch.nn.init.uniform_(self.norm.weight, 0.5, 2.0)
        torch.nn.init.normal_(self.norm.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(image)))
        x = torch.relu(self.norm(self.second(x)) + x)
        return torch.softmax(self.head(x.mean((2, 3))), dim=1)


def tiny() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    return Tiny().eval(), (torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(1)),)


def save_onnx(
    path: Path, nodes: list[onnx.NodeProto], inputs: dict[str, list[object]], output: str, **weights: object
) -> Path:
    """Writes a small ONNX model; every input is float32."""
    from onnx import numpy_helper

    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )  # fmt: skip
    operators = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=operators, ir_version=9), path)
    return path
