"""Tests of benchmarks: who takes part, who fails alone, what is compared and shown."""

import importlib.util
import io
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_contestants import Faulty, Sleeper, Spinner, Watcher, Wrong
from rich.console import Console

from autotune.bench.contestant import Contestant
from autotune.bench.kernels import KernelsFailed, bench_kernels
from autotune.bench.original import Original
from autotune.bench.peers import PEERS, OpenVino
from autotune.bench.result import BenchResult, Comparison, Entry, KernelEntry, Status
from autotune.bench.rounds import Limits
from autotune.bench.run import bench, bench_model
from autotune.bench.table import print_bench
from autotune.errors import ArtifactError, BadInput
from autotune.hardware import usable_cpus
from autotune.measure.statistics import Verdict
from db.migrate import create
from search.problem import TensorSpec

INPUTS = [np.arange(12, dtype=np.float32).reshape(3, 4)]
EXPECTED = [2 * INPUTS[0]]

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")


def measure(*contestants: Contestant, rounds: int = 6, limit_s: float = 10.0) -> dict[str, Entry]:
    limits = Limits(prepare_s=10.0, run_s=5.0)
    result = bench(contestants, INPUTS, EXPECTED, 1, rounds, limit_s, limits=limits, ours="a")
    return {e.name: e for e in result.entries}


def installed(*peers: str) -> list[str]:
    modules = {"torch": "torch", "onnxruntime": "onnxruntime", "openvino": "openvino"}
    return [p for p in peers if importlib.util.find_spec(modules.get(p, "torch"))]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small network of convolutions as an exported program, its batch open."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)]
    dynamic = {"input": {0: torch.export.Dim("batch")}}
    module = nn.Sequential(*layers).eval()
    program = torch.export.export(module, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=dynamic)
    path = tmp_path_factory.mktemp("models") / "tiny.pt2"
    torch.export.save(program, path)
    return str(path)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A matrix product and a ReLU, its batch open."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])],
        "tiny",
        [helper.make_tensor_value_info("x", kind, ["batch", 16])],
        [helper.make_tensor_value_info("z", kind, ["batch", 8])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("models") / "tiny.onnx"
    onnx.save(model, path)
    return str(path)


def run_peers(model: str, peers: list[str]) -> dict[str, Entry]:
    lines: list[str] = []
    result = bench_model(model, None, 1, 3, None, 2, peers, lines.append, limit_s=10)
    assert result.model == "tiny"
    assert any("round 3 of 3" in line for line in lines)
    return {e.name: e for e in result.entries}


def test_onnx_peers(onnx_file: str) -> None:
    entries = run_peers(onnx_file, ["torch", *installed("onnxruntime", "openvino")])
    eager = entries.pop("PyTorch eager")
    assert (eager.status, eager.note) == (Status.UNAVAILABLE, "the model is an ONNX file")
    assert_agree(entries)


def test_torch_peers(exported: str) -> None:
    assert_agree(run_peers(exported, installed("torch")))


@pytest.mark.slow
def test_all_peers(exported: str) -> None:
    assert_agree(run_peers(exported, list(PEERS)))


def assert_agree(entries: dict[str, Entry]) -> None:
    assert entries
    for entry in entries.values():
        assert entry.status is Status.RAN, entry
        assert entry.agrees, entry
        assert entry.version
        assert len(entry.samples_s) == 3
        assert entry.versus is None


def test_a_missing_peer_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('blocked')")
    monkeypatch.syspath_prepend(tmp_path)
    original = Original("absent.onnx", {"x": TensorSpec((3, 4), "float32")}, tmp_path)
    entries = measure(OpenVino(original), Sleeper("a"))
    assert entries["OpenVINO"].status is Status.UNAVAILABLE
    assert "pip install 'autotune-tensor[bench]'" in entries["OpenVINO"].note
    assert "openvino" in entries["OpenVINO"].note
    assert entries["a"].status is Status.RAN


@pytest.mark.parametrize("after", [0, 40], ids=["getting ready", "running"])
def test_a_fault_costs_only_itself(after: int) -> None:
    texts = {
        "raise": "RuntimeError: error: of the compiler",
        "crash": "SIGABRT",
        "exit": "no more",
        "hang": "no answer",
    }
    faulty = [Faulty(fault, 10e-3, fault=fault, after=after) for fault in texts]
    limits = Limits(prepare_s=2.0, run_s=1.0)
    contestants = [Sleeper("a", 2e-3), *faulty, Sleeper("b", 2e-3)]
    entries = {
        e.name: e for e in bench(contestants, INPUTS, EXPECTED, 1, 25, limits=limits, ours="a").entries
    }
    for fault, text in texts.items():
        assert entries[fault].status is Status.FAILED
        assert text in entries[fault].note
        assert entries[fault].versus is None
    for name in "ab":
        assert entries[name].status is Status.RAN
        assert entries[name].rounds == tuple(range(25))


def test_the_faster_is_found() -> None:
    entries = measure(Sleeper("a", 2e-3), Sleeper("b", 20e-3), rounds=8)
    versus = entries["b"].versus
    assert versus is not None
    assert versus.ratio_low <= versus.ratio <= versus.ratio_high
    assert versus.ratio > 1
    assert versus.pairs == 8
    assert versus.verdict is Verdict.MEANINGFUL
    assert entries["a"].versus is None
    assert entries["a"].burst >= 2
    assert entries["b"].burst == 1


def test_a_slow_contestant_takes_part_in_few_rounds() -> None:
    entries = measure(Sleeper("a", 1e-3), Sleeper("slow", 0.55), rounds=20, limit_s=2.0)
    assert len(entries["a"].rounds) == 20
    assert len(entries["slow"].rounds) == 3
    assert set(entries["slow"].rounds) <= set(entries["a"].rounds)


def test_disagreement_is_reported() -> None:
    entries = measure(
        Sleeper("a"), Wrong("b"), Wrong("more", factor=2.0, outputs=2), Wrong("nan", factor=np.nan)
    )
    assert entries["a"].agrees
    assert entries["b"].agrees is False
    assert entries["b"].error == pytest.approx(0.5)
    assert entries["more"].status is Status.FAILED
    assert "[[3, 4], [3, 4]]" in entries["more"].note
    assert entries["nan"].status is Status.FAILED


@linux
def test_others_stand_still_while_one_runs(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    entries = measure(Spinner("a", path=path), Watcher("b", path=path))
    assert entries["b"].status is Status.RAN, entries["b"].note


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown peer 'x'; the peers are torch, "):
        bench_model("mlp", None, 1, 3, None, None, ["x"], print)
    with pytest.raises(BadInput, match="--rounds 0"):
        bench_model("mlp", None, 1, 0, None, None, None, print)
    with pytest.raises(ArtifactError, match=r"holds no model\.so"):
        bench_model("mlp", tmp_path, 1, 3, None, None, None, print)


@pytest.fixture
def result() -> BenchResult:
    faster = Comparison(1.5, 1.4, 1.6, 1.0, 0.9, 1.0, 29, Verdict.MEANINGFUL)
    slower = Comparison(0.5, 0.4, 0.6, 0.3, 0.2, 0.45, 29, Verdict.SIGNIFICANT)
    ran = Entry("autotune", Status.RAN, "", "1.0", 0.0, True, 1.0, 2, (0, 1), (0.1, 0.2), 0.15, 0.1, 0.2)
    differs = replace(ran, name="OpenVINO", note="latency hint", error=0.5, agrees=False, versus=slower)
    failed = Entry("torch.compile", Status.FAILED, "InductorError: no C++ [compiler]")
    entries = (ran, replace(ran, name="ONNX Runtime", error=1e-7, versus=faster), differs, failed)
    return BenchResult("tiny", "a CPU", 1, "PyTorch", 2, 0, 3.0, 0.5, entries)


def test_table(result: BenchResult) -> None:
    out = io.StringIO()
    print_bench(result, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "Other programs used 50% of the CPUs." in out.getvalue()
    assert lines[0] == "tiny: 1 thread, 2 rounds on a CPU"
    rows = {line.partition(" 150 ")[0].strip(): line for line in lines}
    assert "1.50 [1.40, 1.60] faster" in rows["ONNX Runtime"]
    assert "0.500 [0.400, 0.600] mostly slower 5e-01" in rows["OpenVINO"]
    assert "  torch.compile: failed: InductorError: no C++ [compiler]" in lines
    assert "  OpenVINO: 1.0, latency hint, its outputs differ from the original's" in lines


KERNELS = (
    KernelEntry("56x56x64 3x3 to 64", 4, 0.23, "tuned", 5e-4, "oneDNN", 4.5e-4, 0.9, 0.85, 0.95, 0.0),
    KernelEntry("1x512 . 512x1000", 1, 0.001, "guess", 3e-5, "OpenVINO NHWC", 2e-5, 0.7, 0.4, 1.1, 0.1),
)


def test_kernels_say_what_the_vendors_would_bring(result: BenchResult) -> None:
    """Only what is faster beyond doubt, as often as the model has it."""
    assert [k.would_save_s for k in KERNELS] == pytest.approx([2e-4, 0.0])
    out = io.StringIO()
    missed = ("7x7x64 1x1 to 3: 2 kernels",)
    print_bench(replace(result, kernels=KERNELS, not_compared=missed), Console(file=out, width=80))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    said = " ".join(out.getvalue().split())
    assert "2 layers: theirs/ours 0.79 (geometric mean), 0.70 at worst." in said
    assert "A vendor's kernel is faster for 1: they would save 0.20 ms a run." in said
    assert "not compared: 7x7x64 1x1 to 3: 2 kernels" in said


def kernels_of(net: Any, image: Any, folder: Path) -> list[tuple[int, KernelEntry | str]]:
    """The layers of a network compared, three pairs each, by an empty database."""
    torch = pytest.importorskip("torch")
    path, db = folder / "net.pt2", folder / "empty.db"
    torch.export.save(torch.export.export(net.eval(), (image,)), path)
    create(str(db))
    return list(bench_kernels(str(path), None, None, str(db), 1, 3))


def test_each_layer_is_compared_with_the_vendors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layers = [torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(64, 1, 1)]
    net = torch.nn.Sequential(*layers)
    (one, kernel), (none, last) = kernels_of(net, torch.zeros(1, 3, 64, 64), tmp_path)
    assert (one, none) == (1, 0) and isinstance(kernel, KernelEntry)
    assert last.startswith("64x64x64 1x1 to 1: ") if isinstance(last, str) else last.count == 1
    assert (kernel.layer, kernel.count, kernel.ours) == ("64x64x3 3x3 to 64", 1, "guess")
    assert kernel.ratio_low <= kernel.ratio <= kernel.ratio_high and kernel.vendor


def test_a_layer_whose_image_is_rows_of_a_product_is_compared(tmp_path: Path) -> None:
    """13x13 places make poor tiles of an image, and good ones of 169 rows."""
    torch = pytest.importorskip("torch")
    ((_, kernel),) = kernels_of(torch.nn.Conv2d(256, 48, 1), torch.zeros(1, 256, 13, 13), tmp_path)
    assert isinstance(kernel, KernelEntry) and kernel.layer == "13x13x256 1x1 to 48"


def test_a_sample_whose_call_for_no_work_was_held_up_is_taken_again() -> None:
    vendors = pytest.importorskip("autotune.bench.vendors")
    held_up = iter(range(vendors.IDLE_CALLS))
    cpus = usable_cpus()[:1]
    side = vendors.Side(
        "ours",
        lambda: time.sleep(1e-4),
        cpus,
        cpus,
        lambda: time.sleep(1e-3 if next(held_up, None) is not None else 0),
    )
    assert side.sample().net_s > 0


def test_what_stops_the_comparison_of_kernels_is_said(exported: str, tmp_path: Path) -> None:
    with pytest.raises(KernelsFailed, match=r"There is no database at .*missing\.db"):
        list(bench_kernels(exported, None, 2, str(tmp_path / "missing.db"), 1, 3))


def test_json(result: BenchResult) -> None:
    read = json.loads(result.to_json())
    assert read["entries"][1]["versus"]["verdict"] == "meaningful"
    assert read["entries"][3]["status"] == "failed"
    assert read["entries"][0]["samples_s"] == [0.1, 0.2]
