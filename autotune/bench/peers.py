"""Who a compiled model is measured beside: each peer at its best settings on the same threads and inputs."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from autotune.bench.contestant import Array, Ready, Run, fastest, require
from autotune.bench.original import Original
from autotune.manifest import LIBRARY_NAME


@dataclass(frozen=True)
class Artifact:
    """A model compiled by us, in the folder that ``autotune run`` or ``autotune compile`` wrote."""

    folder: Path
    name: ClassVar[str] = "autotune"
    package: ClassVar[str] = "autotune-tensor"

    def prepare(self, inputs: Sequence[Array], threads: int) -> Ready:
        """Loads the library; TVM takes ``threads`` from ``TVM_NUM_THREADS``, as do its peers of TVM below."""
        tvm = require("tvm", "apache-tvm")
        return Ready(_tvm_run(tvm, tvm.runtime.load_module(str(self.folder / LIBRARY_NAME)), inputs))


@dataclass(frozen=True)
class TvmUntuned:
    """TVM's stock pipeline for this CPU on the imported model: what its user has before tuning."""

    original: Original
    name: ClassVar[str] = "TVM untuned"
    package: ClassVar[str] = "apache-tvm"

    def prepare(self, inputs: Sequence[Array], threads: int) -> Ready:
        tvm = require("tvm", "apache-tvm")
        from autotune.target import host_target

        return Ready(_tvm_run(tvm, tvm.compile(self.original.source.module, host_target(threads)), inputs))


@dataclass(frozen=True)
class TorchEager:
    """PyTorch as it comes; networks with convolutions in the faster of both memory formats."""

    original: Original
    name: ClassVar[str] = "PyTorch eager"
    package: ClassVar[str] = "torch"

    def prepare(self, inputs: Sequence[Array], threads: int) -> Ready:
        module, torch = self.original.torch_module, require("torch", "torch")
        torch.set_num_threads(threads)
        ways = {"contiguous": lambda: _torch_run(torch, module, inputs)}
        if _is_convolutional(module):
            ways["channels_last"] = lambda: _torch_run(torch, *_channels_last(torch, module, inputs))
        return fastest(ways)


@dataclass(frozen=True)
class TorchCompiled:
    """``torch.compile`` with weights frozen, and the faster of templates and autotuned kernels.

    Freezing (constant folding, weights packed for oneDNN) has to be set globally: given as an option of
    ``torch.compile`` it is ignored in 2.13. Autotuning makes some networks slower, so it is only tried.
    """

    original: Original
    name: ClassVar[str] = "torch.compile"
    package: ClassVar[str] = "torch"

    def prepare(self, inputs: Sequence[Array], threads: int) -> Ready:
        module, torch = self.original.torch_module, require("torch", "torch")
        torch.set_num_threads(threads)
        require("torch._inductor.config", "torch").freezing = True

        def compiled(arguments: tuple[Any, ...], **options: bool) -> Callable[[], Run]:
            return lambda: _torch_run(torch, torch.compile(arguments[0], options=options), arguments[1])

        best = _channels_last(torch, module, inputs) if _is_convolutional(module) else (module, inputs)
        return fastest({
            "freezing": compiled((module, inputs)),
            "freezing, max_autotune": compiled(best, max_autotune=True),
        })  # fmt: skip


@dataclass(frozen=True)
class OnnxRuntime:
    """ONNX Runtime with all its graph optimisations; its threads may spin."""

    original: Original
    name: ClassVar[str] = "ONNX Runtime"
    package: ClassVar[str] = "onnxruntime"

    def prepare(self, inputs: Sequence[Array], threads: int) -> Ready:
        ort = require("onnxruntime", "onnxruntime")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        session = ort.InferenceSession(self.original.onnx_path, options, providers=["CPUExecutionProvider"])
        feed = dict(zip(self.original.specs, inputs, strict=True))
        return Ready(lambda: session.run(None, feed))


@dataclass(frozen=True)
class OpenVino:
    """OpenVINO in float32, like all others here, with its latency hint or without."""

    original: Original
    name: ClassVar[str] = "OpenVINO"
    package: ClassVar[str] = "openvino"

    def prepare(self, inputs: Sequence[Array], threads: int) -> Ready:
        openvino = require("openvino", "openvino")
        core = openvino.Core()
        model = core.read_model(self.original.onnx_path)
        always = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}

        def compiled(**hints: str) -> Run:
            request = core.compile_model(model, "CPU", {**always, **hints}).create_infer_request()
            for name, array in zip(self.original.specs, inputs, strict=True):
                request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
            return lambda: list(request.infer(share_outputs=True).to_tuple())

        return fastest({"latency hint": lambda: compiled(PERFORMANCE_HINT="LATENCY"), "default": compiled})


PEERS: dict[str, Callable[[Original], Any]] = {
    "torch": TorchEager,
    "torch-compile": TorchCompiled,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "tvm": TvmUntuned,
}
"""By the names that the command line takes, in the order of the table."""


def _tvm_run(tvm: Any, executable: Any, inputs: Sequence[Array]) -> Run:
    from tvm import relax

    main = relax.VirtualMachine(executable, tvm.cpu())["main"]
    tensors = [tvm.runtime.tensor(a) for a in inputs]

    def run() -> list[Array]:
        result = main(*tensors)
        outputs = [result] if isinstance(result, tvm.runtime.Tensor) else result
        return [np.from_dlpack(o) for o in outputs]

    return run


def _torch_run(torch: Any, module: Any, inputs: Sequence[Any]) -> Run:
    tensors = [torch.as_tensor(i) for i in inputs]

    def run() -> list[Array]:
        with torch.inference_mode():
            result = module(*tensors)
        return [t.numpy() for t in (result if isinstance(result, (tuple, list)) else [result])]

    return run


def _is_convolutional(module: Any) -> bool:
    return any(p.dim() == 4 for p in module.parameters())


def _channels_last(torch: Any, module: Any, inputs: Sequence[Array]) -> tuple[Any, list[Any]]:
    """A copy of the module and its inputs with the channels of images innermost."""
    layout = torch.channels_last
    tensors = [torch.from_numpy(a) for a in inputs]
    images = [t.contiguous(memory_format=layout) if t.dim() == 4 else t for t in tensors]
    return copy.deepcopy(module).to(memory_format=layout), images
