"""All ways in which vendors compute a layer that PyPI has: oneDNN and MKL through torch, OpenVINO.

A way may have less to do than our kernel, never more: no relu where it cannot fuse one, images blocked or
channels-last beforehand, as it likes them. What a call from Python takes for next to no work just then is
taken off each sample, for an application in C++ would not pay it.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from autotune.bench.layers import Layer, Numbers
from autotune.frontends.fold import Array
from autotune.measure.timing import seconds

WARM_S = 15e-3  # of calls before a sample: by then the other side's threads have given up waiting for work
SAMPLE_S = 5e-3
QUIET_S = 1e-4  # that threads may wait for cores during a sample; else it is taken again,
TRIES = 40  # so often at most
IDLE_CALLS = 100

Run = Callable[[], Any]
"""Computes a layer and gives its output, in whatever layout."""


def waited_s() -> float:
    """Seconds in all that threads of this process were ready to run while others had the cores."""
    waited_ns = 0
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # it has ended
            waited_ns += int(thread.read_text().split()[1])
    return waited_ns / 1e9


class Sample(NamedTuple):
    """What calls of a side took.

    Attributes:
        waited_s: How long its threads waited for cores in all, nearly none if it can be.
        call_s: What a call took for next to no work.
        net_s: What one took for the layer, less that; not above 0 where something held up the others.
    """

    waited_s: float
    call_s: float
    net_s: float

    @property
    def spoilt(self) -> bool:
        """Whether it says little about the layer."""
        return self.waited_s > QUIET_S or self.net_s <= 0


class Side(NamedTuple):
    """Who computes a layer.

    Attributes:
        caller: Where the calling thread may run; TVM wants it bound.
        cpus: Where all threads may.
        idle: A call of its kind for next to no work.
    """

    name: str
    run: Run
    caller: Sequence[int]
    cpus: Sequence[int]
    idle: Run = lambda: None

    def sample(self) -> Sample:
        """The means of calls in a row."""
        os.sched_setaffinity(0, self.caller)
        calls, until = 0, time.perf_counter() + WARM_S
        while time.perf_counter() < until:
            self.run()
            calls += 1
        taken: list[Sample] = []
        while not taken or (taken[-1].spoilt and len(taken) < TRIES):
            before = waited_s()
            mean_s = seconds(self.run, math.ceil(calls * SAMPLE_S / WARM_S))
            call_s = seconds(self.idle, IDLE_CALLS)
            taken.append(Sample(waited_s() - before, call_s, mean_s - call_s))
        os.sched_setaffinity(0, self.cpus)  # threads that are made from here on inherit it
        return min(taken, key=lambda s: (s.net_s <= 0, s.waited_s))

    def output(self) -> Array:
        """Its positive values in order, which no layout changes."""
        result = self.run()
        dense = result.to_dense() if isinstance(result, torch.Tensor) and result.is_mkldnn else result
        return np.sort(np.maximum(np.asarray(dense), 0), axis=None)


def torch_ways(layer: Layer, numbers: Numbers) -> Iterator[tuple[str, Run]]:
    """What torch does by itself, and what it can be told to have oneDNN and MKL do."""
    x, w, bias = (torch.from_numpy(a) for a in (numbers.x, numbers.w, numbers.bias.reshape(-1)))
    dnn = torch.ops.mkldnn
    if layer.strides:
        if layer.padding[:2] != layer.padding[2:]:
            return
        padding, rest = layer.padding[:2], (layer.strides, layer.dilation, layer.groups)
        images, kernels = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))
        yield "torch", lambda: functional.conv2d(images, kernels, bias, rest[0], padding, *rest[1:])
        packed = dnn._reorder_convolution_weight(w, padding, *rest, x.shape)
        pointwise = dnn._convolution_pointwise.default
        yield "oneDNN", lambda: pointwise(images, packed, bias, padding, *rest, "relu", [], "")
        same = torch.eye(x.shape[1])[:, :, None, None].to_mkldnn()  # gives what it takes, but blocked
        blocked = torch.mkldnn_convolution(x.to_mkldnn(), same, None, (0, 0), (1, 1), (1, 1), 1)
        yield "oneDNN blocked", lambda: torch.mkldnn_convolution(blocked, packed, bias, padding, *rest)
    elif layer.weights:
        rows, transposed = math.prod(x.shape[:-1]), w.t().contiguous()
        yield "torch", lambda: functional.linear(x, transposed, bias)
        flat = x.reshape(rows, -1)
        yield "torch addmm", lambda: torch.addmm(bias, flat, w)
        for_dnn, linear = dnn._reorder_linear_weight(transposed, rows), dnn._linear_pointwise.default
        yield "oneDNN", lambda: linear(x, for_dnn, bias, "relu", [], "")
        for_mkl = torch.ops.mkl._mkl_reorder_linear_weight(transposed, rows)
        yield "MKL", lambda: torch.ops.mkl._mkl_linear.default(x, for_mkl, transposed, bias, rows)
    else:
        yield "torch", lambda: torch.matmul(x, w)
        yield "torch bmm", lambda: torch.bmm(x, w)


def openvino_ways(layer: Layer, numbers: Numbers) -> Iterator[tuple[str, Run]]:
    """OpenVINO with images in its models' order or channels-last.

    Its asynchronous calls are left out: they take longer for all layers that were tried, and what one takes
    for next to no work, to wake a thread that sleeps, is not what one takes for a layer.
    """
    for layout in ("NCHW", "NHWC") if layer.strides else ("",):
        request, output = openvino_request(layer, numbers, layout)
        kept = (request, output, numbers)  # it reads the inputs where they lie, and does not own them

        def infer(kept: tuple[Any, Array, Numbers] = kept) -> Array:
            kept[0].infer(share_outputs=True)
            return kept[1]

        yield f"OpenVINO {layout}".rstrip(), infer


def openvino_request(layer: Layer, numbers: Numbers, layout: str) -> tuple[Any, Array]:
    """A request to run a model of this layer alone, which has its inputs, and where it leaves the output."""
    import openvino
    from openvino import opset13 as ops
    from openvino.preprocess import PrePostProcessor

    x, *second = inputs = [ops.parameter(s, np.float32) for s in (layer.x, layer.w)[: 2 - layer.weights]]
    if layer.strides:
        grouped = layer.groups > 1
        w = numbers.w.reshape(layer.groups, -1, *layer.w[1:]) if grouped else numbers.w
        convolution = ops.group_convolution if grouped else ops.convolution
        result = convolution(x, w, layer.strides, layer.padding[:2], layer.padding[2:], layer.dilation)
    else:
        result = ops.matmul(x, second[0] if second else numbers.w, False, False)
    if layer.weights:
        result = ops.relu(ops.add(result, numbers.bias))
    model = openvino.Model([ops.result(result)], inputs, "layer")
    arrays = list(numbers[: len(inputs)])
    if layout == "NHWC":
        steps = PrePostProcessor(model)
        for end in (steps.input(), steps.output()):
            end.tensor().set_layout(openvino.Layout("NHWC"))
            end.model().set_layout(openvino.Layout("NCHW"))
        model, arrays = steps.build(), [numbers.last]
    config = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }  # fmt: skip
    request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()
    for number, array in enumerate(arrays):
        request.set_input_tensor(number, openvino.Tensor(array, shared_memory=True))
    output = torch.empty(tuple(model.output().shape)).numpy()
    request.set_output_tensor(openvino.Tensor(output, shared_memory=True))
    return request, output
