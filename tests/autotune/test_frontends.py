"""Import: what comes in computes what it computed before, or is refused in a line that helps."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from kernels import TARGET, matmul
from networks import save_onnx, tiny
from onnx import helper
from running import outputs_of

from autotune.errors import BadInput, BadModel, DynamicInput, ModelNotFound, UnsupportedModel
from autotune.examples import EXAMPLES, build_example
from autotune.frontends import load_model
from autotune.frontends.graph import lower
from autotune.frontends.model import SourceModel, random_inputs
from autotune.frontends.tir import from_function
from autotune.frontends.torch import load_module
from autotune.measure.check import relative_error

SHARED = Path(__file__).resolve().parents[3] / "shared" / "models"


def run_untuned(source: SourceModel) -> float:
    """Compiles with plain loops and runs; returns the error against the original."""
    model = lower(source, TARGET)
    inputs = random_inputs(source.inputs)
    outputs, expected = outputs_of(model, {}, *inputs), source.reference(inputs)
    return max(relative_error(o, e) for o, e in zip(outputs, expected, strict=True))


def operators(source: SourceModel) -> str:
    return " ".join(t.name * t.weight for t in lower(source, TARGET).tasks)


def test_torch_module_with_batch_norm_shared_by_two_convolutions() -> None:
    source = load_module(*tiny(), "tiny")
    assert run_untuned(source) < 1e-5
    tasks = lower(source, TARGET).tasks
    assert not any("sqrt" in t.name or "divide" in t.name for t in tasks if "conv2d" in t.name)


def test_a_chain_whose_middle_is_needed_twice_does_not_double_the_convolution() -> None:
    class Middle(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 1, bias=False)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            y = self.conv(image) + 0.5
            return (y * 0.25 + 0.5) * y

    source = load_module(Middle(), (torch.randn(1, 3, 5, 5),))
    assert run_untuned(source) < 1e-5
    assert sum(operators(source).count(name) for name in ("conv2d", "matmul")) == 1


def test_a_convolution_whose_output_is_needed_twice_is_not_folded_away() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 1)
            self.norm = torch.nn.BatchNorm2d(4)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            x = self.conv(image)
            return self.norm(x) * x

    assert run_untuned(load_module(Twice(), (torch.randn(1, 3, 5, 5),))) < 1e-5


INDICES = torch.tensor([-1, 0, -2])


@pytest.mark.parametrize(
    "part",
    [
        lambda x: x[:, -1],
        lambda x: x.select(-1, -3),
        lambda x: x[:, [-1, 0, -2]],
        lambda x: x[:, INDICES],
        lambda x: x[INDICES % 2, INDICES],
        lambda x: x[:, -2:],
    ],
)
def test_what_is_counted_from_the_end_is_found(part: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Part(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return part(x) * 2

    assert run_untuned(load_module(Part(), (torch.randn(2, 3, 4),))) < 1e-6


def test_indices_that_are_computed_may_count_from_the_end() -> None:
    class Taken(torch.nn.Module):
        def forward(self, x: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return x[:, scores.argmax(0) - 2] * 2

    assert run_untuned(load_module(Taken(), (torch.randn(2, 3, 4), torch.randn(3, 5)))) < 1e-6


@pytest.mark.parametrize(
    "activation", [torch.nn.ReLU6(), torch.nn.LeakyReLU(0.1), torch.nn.Hardtanh(-2.0, 3.0)]
)
def test_activations_fuse_with_their_convolution(activation: torch.nn.Module) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), activation, torch.nn.Conv2d(8, 8, 1), activation)
    source = load_module(net, (torch.randn(1, 3, 9, 9) * 5,))
    assert run_untuned(source) < 1e-5
    kernels = {t.workload.name for t in lower(source, TARGET).tasks}
    assert {k.split("_")[0] for k in kernels} <= {"conv2d", "matmul", "transpose"}, kernels
    assert not any("transpose" in k and "m" in k.replace("transpose", "") for k in kernels), kernels


def test_exported_program_round_trip(tmp_path: Path) -> None:
    module, inputs = tiny()
    torch.export.save(torch.export.export(module, inputs), tmp_path / "tiny.pt2")
    source = load_model(str(tmp_path / "tiny.pt2"))
    assert source.name == "tiny"
    assert run_untuned(source) < 1e-5


def test_exported_program_with_an_open_batch(tmp_path: Path) -> None:
    module, inputs = tiny()
    batch = torch.export.Dim("batch", min=1, max=64)
    two = (inputs[0].repeat(2, 1, 1, 1),)
    program = torch.export.export(module, two, dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "open.pt2")
    path = str(tmp_path / "open.pt2")
    assert load_model(path).inputs[0].spec.shape[0] == 1
    assert load_model(path, batch=3).inputs[0].spec.shape[0] == 3
    with pytest.raises(BadInput, match="no such input"):
        load_model(path, {"nonsense": (1,)})


def relu(tmp_path: Path, shape: list[object]) -> str:
    node = helper.make_node("Relu", ["x"], ["y"])
    return str(save_onnx(tmp_path / "relu.onnx", [node], {"x": shape}, "y"))


def test_open_sizes_need_to_be_given(tmp_path: Path) -> None:
    path = relu(tmp_path, ["n", 3, "h", "w"])
    with pytest.raises(DynamicInput, match="--input x="):
        load_model(path)
    source = load_model(path, {"x": (2, 3, 4, 5)})
    assert source.inputs[0].spec.shape == (2, 3, 4, 5)
    assert run_untuned(source) == 0.0


def test_an_open_batch_alone_is_one(tmp_path: Path) -> None:
    path = relu(tmp_path, ["n", 3])
    assert load_model(path).inputs[0].spec.shape == (1, 3)
    assert load_model(path, batch=4).inputs[0].spec.shape == (4, 3)


def test_sizes_that_contradict_the_file(tmp_path: Path) -> None:
    path = relu(tmp_path, [2, 3])
    with pytest.raises(BadInput, match="2x3"):
        load_model(path, {"x": (2, 4)})
    with pytest.raises(BadInput, match="fixed at 2"):
        load_model(path, batch=4)
    with pytest.raises(BadInput, match="no such input"):
        load_model(path, {"z": (2, 3)})


def test_one_hot_becomes_a_look_up(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=onnx.TensorProto.INT64),
        helper.make_node("OneHot", ["i", "depth", "values"], ["y"]),
    ]
    path = save_onnx(
        tmp_path / "onehot.onnx", nodes, {"x": [1, 6]}, "y",
        depth=np.array([5]), values=np.array([0.5, 2.0], np.float32),
    )  # fmt: skip
    assert run_untuned(load_model(str(path))) == 0.0


def test_reshapes_computed_in_the_graph_are_folded(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["r"]),
        helper.make_node("Relu", ["r"], ["y"]),
    ]
    path = save_onnx(
        tmp_path / "reshape.onnx", nodes, {"x": ["n", 2, 3]}, "y", zero=np.array([0]), rest=np.array([-1])
    )
    assert run_untuned(load_model(str(path), batch=4)) == 0.0


@pytest.mark.parametrize("content", [b"", b"this is not a model", bytes(range(256)) * 4])
def test_files_that_are_not_models(tmp_path: Path, content: bytes) -> None:
    for name in ("bad.onnx", "bad.pt2"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadModel, match=name):
            load_model(str(tmp_path / name))


def test_truncated_file(tmp_path: Path) -> None:
    path = Path(relu(tmp_path, [1, 3]))
    weights = {"w": np.ones((1, 3), np.float32)}
    add = helper.make_node("Add", ["x", "w"], ["y"])
    whole = save_onnx(path, [add], {"x": [1, 3]}, "y", **weights).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadModel):
        load_model(str(path))


def test_unsupported_operator_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Det", ["x"], ["y"])
    path = save_onnx(tmp_path / "det.onnx", [node], {"x": [1, 3, 3]}, "y")
    with pytest.raises(UnsupportedModel, match="Det"):
        load_model(str(path))


def test_operators_that_onnx_does_not_have_are_named(tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"])
    path = save_onnx(tmp_path / "custom.onnx", [node], {"x": [1, 3]}, "y")
    model = onnx.load(path)
    model.graph.node[0].domain = "my.ops"
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    onnx.save(model, path)
    with pytest.raises(UnsupportedModel, match=r"my\.ops::Frobnicate"):
        load_model(str(path))


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1, 3])), "sequence"),
        (helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [1, 3])), "optional"),
        (helper.make_tensor_type_proto(onnx.TensorProto.STRING, [1, 3]), "string"),
    ],
)
def test_inputs_that_are_no_tensors_of_numbers(tmp_path: Path, kind: onnx.TypeProto, word: str) -> None:
    path = relu(tmp_path, [1, 3])
    model = onnx.load(path)
    model.graph.input[0].type.CopyFrom(kind)
    onnx.save(model, path)
    with pytest.raises(UnsupportedModel, match=f"input x is of type {word}"):
        load_model(path)


def test_an_input_without_a_shape(tmp_path: Path) -> None:
    path = relu(tmp_path, [])
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    with pytest.raises(DynamicInput, match="--input x="):
        load_model(path)
    assert run_untuned(load_model(path, {"x": (2, 3)})) == 0.0


def test_sizes_that_the_operators_do_not_take(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    weight = np.ones((4, 5), np.float32)
    path = save_onnx(tmp_path / "matmul.onnx", [node], {"x": ["n", "k"]}, "y", w=weight)
    with pytest.raises(BadInput, match=r"x=2x3.*MatMul"):
        load_model(str(path), {"x": (2, 3)})


def test_sizes_that_depend_on_what_inputs_hold(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"]),
        helper.make_node("Cast", ["i"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    path = save_onnx(tmp_path / "nonzero.onnx", nodes, {"x": [4, 4]}, "y")
    with pytest.raises(UnsupportedModel, match=r"relax\.nonzero"):
        lower(load_model(str(path)), TARGET)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_operator_that_pytorch_s_importer_refuses_is_named(dtype: torch.dtype) -> None:
    module, inputs = torch.nn.Linear(8, 4).to(dtype), (torch.zeros(2, 8, dtype=dtype),)
    with pytest.raises(UnsupportedModel, match=rf"aten\.addmm.* of {str(dtype).removeprefix('torch.')}"):
        load_module(module, inputs)


def test_an_operator_that_tvm_cannot_compile_is_refused_in_a_line() -> None:
    class Clamped(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.clamp(min=2)  # TVM makes an infinity of the end that is open, and then an integer of it

    source = load_module(Clamped(), (torch.arange(4),), "clamped")
    with pytest.raises(
        UnsupportedModel, match=r"clamped: TVM has no kernel for one of its operators: .*infin"
    ):
        lower(source, TARGET)


def test_more_than_memory_holds_is_not_tried(tmp_path: Path) -> None:
    module, inputs = tiny()
    batch = torch.export.Dim("batch", min=1)
    two = (inputs[0].repeat(2, 1, 1, 1),)
    program = torch.export.export(module, two, dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "open.pt2")
    for model in (relu(tmp_path, ["n", 3]), str(tmp_path / "open.pt2"), "mlp"):
        with pytest.raises(BadInput, match=r"need .* GB of memory, this machine has .* GB"):
            load_model(model, batch=10**12)


def test_remarks_of_tvm_stay_off_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    node = helper.make_node("Gather", ["x", "i"], ["y"])
    path = save_onnx(tmp_path / "gather.onnx", [node], {"x": [4, 4]}, "y", i=np.array([0, 2]))
    lower(load_model(str(path)), TARGET)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["missing.onnx", "resnet19", "."])
def test_what_is_not_there_is_named_with_what_is(name: str) -> None:
    with pytest.raises(ModelNotFound, match="squeezenet"):
        load_model(name)


def test_a_function_of_one_s_own() -> None:
    source = from_function(matmul(8, 9, 10), "product")
    assert run_untuned(source) < 1e-6
    assert len(lower(source, TARGET).tasks) == 1


def test_what_kernels_pass_on_is_told_from_weights() -> None:
    module, inputs = tiny()
    model = lower(load_module(module, inputs, "tiny"), TARGET)
    passed = [task.passed_bytes for task in model.tasks]
    weights = sum(t.workload.bytes - t.passed_bytes for t in model.tasks)
    assert weights == model.constant_bytes > 0
    assert model.moved_bytes == weights + max(passed)
    alone = lower(from_function(matmul(8, 9, 10), "product"), TARGET)
    assert alone.tasks[0].passed_bytes == alone.tasks[0].workload.bytes
    assert alone.moved_bytes == 0  # nothing else runs in between


def test_model_identity_does_not_depend_on_weights() -> None:
    module, inputs = tiny()
    first = lower(load_module(module, inputs, "tiny"), TARGET).hash
    torch.nn.init.normal_(module.head.weight)
    assert lower(load_module(module, inputs, "tiny"), TARGET).hash == first
    larger = (torch.randn(2, 3, 12, 12),)
    assert lower(load_module(module, larger, "tiny"), TARGET).hash != first


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_import_and_agree(name: str) -> None:
    assert run_untuned(load_module(*build_example(name), name)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ultraface-slim-320", "FastestDet", "light-squeezenet", "magika-fast"])
def test_shared_models_import_and_agree(name: str) -> None:
    path = SHARED / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    assert run_untuned(load_model(str(path))) < 1e-4
