"""Our kernels beside the fastest that the vendors have for the same shapes, in pairs, in one process.

    python -m benchmarks.vendor --models squeezenet,bert_base
    python -m benchmarks.vendor --models resnet50 --match 3x3 --rounds 40
    python -m benchmarks.vendor --db autotune.db     # the best that was measured there; else first guesses

Every distinct convolution and matrix product of the models becomes a model of its own, with a bias and a
relu (without, where both operands are computed), and goes through the passes that all models go through. What
a database knows of the same sum with another end (a residual, another activation) counts if it is a tile.

The vendor is the fastest, in a pilot, of oneDNN with packed weights, what torch does by itself, MKL, and
OpenVINO. It may have less to do than we have, never more: no relu where it cannot fuse one, images blocked
or channels-last beforehand, as it likes them. A sample is a mean over calls in a row from Python, less what
such a call takes for next to no work (us 1 us, OpenVINO 10); it is taken again where other load had the cores
that it wanted. All cores, warm caches. Writes ``benchmarks/results/vendor.json``.
"""

import argparse
import json
import math
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tvm
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.nn import functional
from tvm import relax
from tvm.target import Target

from autotune.frontends import load_model
from autotune.frontends.fold import Array, constant, fold_constants, static_shape
from autotune.frontends.graph import lower
from autotune.frontends.model import ModelInput, SourceModel
from autotune.hardware import usable_cpus
from autotune.measure.statistics import speed_ratio
from autotune.measure.threads import bind
from autotune.measure.timing import seconds
from autotune.session import Session, open_session
from autotune.target import host_target
from search.compiler import compile_kernel
from search.errors import UnsupportedWorkload
from search.problem import Candidate, TensorSpec, Workload
from search.spaces import first_guess
from search.spaces.contraction import SPACE_NAME, ContractionSpace, analyse
from search.spaces.tir import module_of
from search.spaces.trace import apply_trace

MODELS = "resnet50,mobilenet_v2,squeezenet,inception_v1,bert_base"
WARM_S = 15e-3  # of calls before a sample: by then the other side's threads have given up waiting for work
SAMPLE_S = 5e-3
QUIET_S = 1e-4  # that threads may wait for cores during a sample; else it is taken again,
TRIES = 40  # so often at most
SPINS = "10000"  # of TVM's threads, some 2 ms, until they do; 300000 by default
PILOTS = 3  # samples of each way of the vendors
AGREES = 1e-3  # of the largest output: float32 summed in another order, or by Winograd, stays below
CLOSE = 0.97
GUESS = "guess"
WIDTH = 110  # of the table, columns

Run = Callable[[], Any]
"""Computes a layer and gives its output, in whatever layout."""


def waited_s() -> float:
    """Seconds in all that threads of this process were ready to run while others had the cores."""
    return sum(int(t.read_text().split()[1]) for t in Path("/proc/self/task").glob("*/schedstat")) / 1e9


class Side(NamedTuple):
    """Who computes a layer.

    Attributes:
        cpus: Where the calling thread may run; TVM wants it bound.
        call_s: What a call takes for next to no work.
    """

    name: str
    run: Run
    cpus: Sequence[int]
    call_s: float = 0.0

    def sample(self) -> tuple[float, float]:
        """Seconds that its threads waited for cores, nearly none if it can be, and the mean of a call."""
        os.sched_setaffinity(0, self.cpus)
        calls, until = 0, time.perf_counter() + WARM_S
        while time.perf_counter() < until:
            self.run()
            calls += 1
        taken: list[tuple[float, float]] = []
        while len(taken) < TRIES and (not taken or min(taken)[0] > QUIET_S):
            before = waited_s()
            mean_s = seconds(self.run, math.ceil(calls * SAMPLE_S / WARM_S))
            taken.append((waited_s() - before, mean_s - self.call_s))
        os.sched_setaffinity(0, usable_cpus())  # threads that are made from here on inherit it
        return min(taken)

    def output(self) -> Array:
        """Its positive values in order, which no layout changes."""
        result = self.run()
        dense = result.to_dense() if isinstance(result, torch.Tensor) and result.is_mkldnn else result
        return np.sort(np.maximum(np.asarray(dense), 0), axis=None)


class Numbers(NamedTuple):
    """Of a layer: ``w`` is OIHW, [k, n], or the second input; ``last`` is ``x`` with its channels last."""

    x: Array
    w: Array
    bias: Array
    last: Array


@dataclass(frozen=True)
class Layer:
    """A convolution (NCHW, OIHW), which has strides, or a matrix product; without weights, of two inputs."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    out: tuple[int, ...]
    weights: bool
    strides: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()  # top, left, bottom, right
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @classmethod
    def of(cls, call: Any) -> "Layer":
        x, w, out = (static_shape(e.ty) or () for e in (*call.args, call))
        attrs, weights = call.attrs, constant(call.args[1]) is not None
        if call.op.name == "relax.matmul":
            return cls(x, w, out, weights)
        strides, padding, dilation = (
            tuple(int(n) for n in s) for s in (attrs.strides, attrs.padding, attrs.dilation)
        )
        return cls(x, w, out, weights, strides, padding, dilation, int(attrs.groups))

    @property
    def gflop(self) -> float:
        """Of its sum alone."""
        return 2e-9 * math.prod(self.out) * (math.prod(self.w[1:]) if self.strides else self.w[-2])

    def least(self) -> "Layer":
        """One of the same kind with next to no work."""
        if self.strides:
            one = (1, 16, 1, 1)
            return Layer(one, (16, *one[1:]), one, True, (1, 1), (0, 0, 0, 0), (1, 1))
        outer = () if self.weights else (1,)
        return Layer((*outer, 1, 16), (*outer, 16, 16), (*outer, 1, 16), self.weights)

    def numbers(self) -> Numbers:
        bias = (1, self.w[0], 1, 1) if self.strides else self.w[-1:]
        torch.manual_seed(0)
        x, w, b = (torch.randn(s) for s in (self.x, self.w, bias))  # unlike NumPy's, they begin cache lines
        last = x.permute(0, 2, 3, 1).contiguous() if self.strides else x
        return Numbers(*(t.numpy() for t in (x, w, b, last)))

    def __str__(self) -> str:
        if not self.strides:
            return " . ".join("x".join(str(n) for n in shape) for shape in (self.x, self.w))
        stride = f"/{self.strides[0]}" if max(self.strides) > 1 else ""
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        channels, height, width = self.x[1:]
        return f"{height}x{width}x{channels} {self.w[2]}x{self.w[3]}{stride} to {self.w[0]}{groups}"


def calls_in(function: Any, *names: str) -> list[Any]:
    """The calls of these operators."""
    found: list[Any] = []

    def visit(node: relax.Expr) -> None:
        if getattr(getattr(node, "op", None), "name", "") in names:
            found.append(node)

    relax.analysis.post_order_visit(function, visit)
    return found


def layers_of(source: SourceModel) -> list[Layer]:
    """The distinct ones of a model."""
    module = fold_constants(relax.transform.DecomposeOpsForInference()(source.module))
    return list(dict.fromkeys(map(Layer.of, calls_in(module["main"], "relax.nn.conv2d", "relax.matmul"))))


def source_of(layer: Layer, numbers: Numbers) -> SourceModel:
    """A model of this layer alone."""
    shapes = {"x": layer.x} if layer.weights else {"x": layer.x, "w": layer.w}
    inputs = tuple(ModelInput(n, TensorSpec(s, "float32")) for n, s in shapes.items())
    x, *second = variables = [relax.Var(n, relax.TensorType(s, "float32")) for n, s in shapes.items()]
    w = second[0] if second else relax.const(numbers.w)
    builder = relax.BlockBuilder()
    with builder.function("main", variables):
        with builder.dataflow():
            if layer.strides:
                conv = relax.op.nn.conv2d
                result = conv(x, w, layer.strides, layer.padding, layer.dilation, layer.groups)
            else:
                result = relax.op.matmul(x, w)
            if layer.weights:
                biased = relax.op.add(builder.emit(result), relax.const(numbers.bias))
                result = relax.op.nn.relu(builder.emit(biased))
            output = builder.emit_output(result)
        builder.emit_func_output(output)
    return SourceModel(str(layer), "benchmark", builder.get(), inputs, lambda _: [], "none")


class Tuned:
    """The best candidates of a database, if there is one: of a kernel, or of one around the same sum."""

    def __init__(self, session: Session | None) -> None:
        self._session = session
        self._near: dict[Any, Candidate] = {}

    def learn(self, source: SourceModel) -> None:
        """Looks up a model's kernels."""
        for task in lower(source, self._session.target).tasks if self._session else ():
            best = self._best(task.workload)
            if best and best.space == SPACE_NAME:
                self._near[_sum(task.workload)] = best

    def _best(self, workload: Workload) -> Candidate | None:
        if self._session is None:
            return None
        found = self._session.store.best(workload.hash, self._session.conditions)
        return found[0].candidate if found else None

    def candidate(self, workload: Workload, target: Target) -> tuple[Candidate | None, str]:
        """What to run, and what it is."""
        if best := self._best(workload):
            return best, "tuned"
        guess = first_guess(workload, target)
        if guess and guess.space == SPACE_NAME and (near := self._near.get(_sum(workload))):
            space = ContractionSpace(workload, target)
            if tile := space.adapt(near.choices):
                return space.realize(tile, np.random.default_rng(0)), "tuned tile"
        return guess, GUESS


def _sum(workload: Workload) -> Any:
    """What kernels have in common that the same tile suits."""
    about = analyse(module_of(workload))
    return about.spatial, about.reduced, about.weight_bytes, about.input_bytes


def ours(layer: Layer, numbers: Numbers, tuned: Tuned, cpus: Sequence[int]) -> Side:
    """Our kernel.

    Raises:
        UnsupportedWorkload: It is not one, or there is no candidate.
    """
    target = host_target(len(cpus))
    model = lower(source_of(layer, numbers), target)
    workload, *more = (t.workload for t in model.tasks if t.workload.flop)
    candidate, name = tuned.candidate(workload, target)
    if more or candidate is None:
        raise UnsupportedWorkload(f"{1 + len(more)} kernels" if more else "no candidate without measuring")
    kernel = compile_kernel(apply_trace(module_of(workload), candidate.trace), target)
    calls = calls_in(model.module["main"], "relax.call_tir")
    (call,) = (c for c in calls if model.functions[c.args[0].name_hint] == workload.hash)
    given, values = iter((numbers.last, numbers.w)), [constant(a) for a in call.args[1].fields]
    tensors = [tvm.runtime.tensor(next(given) if v is None else v) for v in values]
    tensors.append(tvm.runtime.empty(workload.args[-1].shape, "float32"))
    output = np.from_dlpack(tensors[-1])

    def run() -> Array:
        kernel(*tensors)
        return output

    return Side(name, run, cpus[:1])


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
        yield "torch addmm", lambda: torch.addmm(bias, x, w)
        for_dnn, linear = dnn._reorder_linear_weight(transposed, rows), dnn._linear_pointwise.default
        yield "oneDNN", lambda: linear(x, for_dnn, bias, "relu", [], "")
        for_mkl = torch.ops.mkl._mkl_reorder_linear_weight(transposed, rows)
        yield "MKL", lambda: torch.ops.mkl._mkl_linear.default(x, for_mkl, transposed, bias, rows)
    else:
        yield "torch", lambda: torch.matmul(x, w)
        yield "torch bmm", lambda: torch.bmm(x, w)


def openvino_ways(layer: Layer, numbers: Numbers) -> Iterator[tuple[str, Run]]:
    """OpenVINO with images in its models' order or channels-last, in this thread or in its own."""
    for layout in ("NCHW", "NHWC") if layer.strides else ("",):
        request, output = openvino_request(layer, numbers, layout)

        def infer(request: Any = request, output: Array = output) -> Array:
            request.infer(share_outputs=True)
            return output

        def poll(request: Any = request, output: Array = output) -> Array:
            request.start_async()
            request.wait()
            return output

        yield f"OpenVINO {layout}".rstrip(), infer
        yield f"OpenVINO async {layout}".rstrip(), poll


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


def sides(layer: Layer, tuned: Tuned, cpus: Sequence[int], console: Console) -> list[Side]:
    """Our kernel, and all ways of the vendors.

    Raises:
        UnsupportedWorkload: We have no kernel.
    """
    numbers = layer.numbers()
    found = [ours(layer, numbers, tuned, cpus)]
    for ways in (torch_ways, openvino_ways):
        try:
            for name, run in ways(layer, numbers):
                run()
                found.append(Side(name, run, cpus))
        except (ImportError, RuntimeError, AttributeError) as error:  # not installed, or not for this shape
            reason = str(error).splitlines()[0]
            console.print(f"{layer}: {ways.__name__} end early: {reason}", highlight=False)
    return found


def pilot(side: Side) -> float:
    """About the seconds of a call."""
    return min(side.sample()[1] for _ in range(PILOTS))


@cache
def calls_s(least: Layer, cpus: tuple[int, ...], console: Console) -> dict[str, float]:
    """What a call takes for next to no work, by the side's name."""
    return {side.name: pilot(side) for side in sides(least, Tuned(None), cpus, console)}


def compare(
    layer: Layer, tuned: Tuned, rounds: int, cpus: tuple[int, ...], console: Console
) -> dict[str, Any]:
    """The samples of both sides, in pairs.

    Raises:
        UnsupportedWorkload: We have no kernel.
    """
    costs = calls_s(layer.least(), cpus, console)
    us, *ways = (
        side._replace(call_s=costs.get(side.name, costs[GUESS]))
        for side in sides(layer, tuned, cpus, console)
    )
    expected = us.output()
    for way in ways:
        error = np.abs(way.output() - expected).max() / expected.max()
        if not error < AGREES:
            raise SystemExit(f"{layer}: {way.name} and ours differ by {error:.1e} of the largest output")
    pair, rng = (us, min(ways, key=pilot)), np.random.default_rng(0)
    samples: tuple[list[float], list[float]] = ([], [])
    disturbed = 0
    for _ in range(rounds):
        for number in rng.permutation(2):
            waited, mean_s = pair[number].sample()
            disturbed += waited > QUIET_S
            samples[number].append(mean_s)
    ratio, low, high = speed_ratio(*samples)
    rates = [layer.gflop / statistics.median(s) for s in samples]
    return {
        "layer": str(layer), "ours": us.name, "vendor": pair[1].name, "gflops": rates, "ratio": ratio,
        "interval": [low, high], "samples_s": samples, "calls_s": [side.call_s for side in pair],
        "disturbed": disturbed / (2 * rounds),
    }  # fmt: skip


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--match", default="", help="only layers in whose text this regular expression is")
    parser.add_argument("--db", help="take the best measured candidates from this database")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    console, cpus = Console(), tuple(usable_cpus())
    console.width = max(console.width, WIDTH)
    os.environ["TVM_THREAD_POOL_SPIN_COUNT"] = SPINS
    torch.set_num_threads(len(cpus))
    bind(cpus)
    os.sched_setaffinity(0, cpus)
    opened = open_session(options.db, None, None, probe=False, create=False) if options.db else nullcontext()
    results: list[dict[str, Any]] = []
    with opened as session, torch.inference_mode():
        tuned, layers = Tuned(session), dict[Layer, list[str]]()
        for name in options.models.split(","):
            source = load_model(name)
            tuned.learn(source)
            for layer in layers_of(source):
                if re.search(options.match, str(layer)):
                    layers.setdefault(layer, []).append(name)
        for layer, models in track(layers.items(), "layers", console=console, transient=True):
            try:
                found = compare(layer, tuned, options.rounds, cpus, console)
            except UnsupportedWorkload as error:
                console.print(f"{layer}: left out: {error}", highlight=False)
                continue
            results.append({"models": models, **found})
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "vendor.json").write_text(json.dumps(results, indent=1))
    print_results(results, console)


def print_results(results: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(box=None, title="our kernels beside the vendors' best: over 1, ours is faster")
    for column in ("model", "layer", "ours", "GFLOP/s", "vendor", "GFLOP/s", "ratio"):
        number = column in ("GFLOP/s", "ratio")
        table.add_column(column, justify="right" if number else "left", no_wrap=column != "model")
    for r in results:
        us, them = (f"{g:.0f}" for g in r["gflops"])
        ratio = "{:.2f} ({:.2f}-{:.2f})".format(r["ratio"], *r["interval"])
        table.add_row(",".join(r["models"]), r["layer"], r["ours"], us, r["vendor"], them, ratio)
    console.print(table)
    if ratios := [r["ratio"] for r in results]:
        worst = min(results, key=lambda r: float(r["ratio"]))
        console.print(
            f"{len(ratios)} layers: geometric mean {statistics.geometric_mean(ratios):.3f}, worst "
            f"{worst['ratio']:.2f} ({worst['layer']}), {sum(r < CLOSE for r in ratios)} below {CLOSE}, "
            f"{sum(r < 1 for r in ratios)} below 1; other load disturbed "
            f"{statistics.mean(r['disturbed'] for r in results):.0%} of the samples",
            highlight=False,
        )


if __name__ == "__main__":
    main()
