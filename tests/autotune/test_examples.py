"""Tests of the built-in example networks."""

import inspect
import subprocess
import sys
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from autotune.examples import EXAMPLES, build_example

# Published counts: torchvision's model pages (googlenet without its auxiliary heads), and
# bert-base-uncased's 109,482,240 less the 590,592 of its pooler.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "mobilenet_v2": 3_504_872,
    "bert_base": 108_891_648,
    "mlp": 784 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10,
    "squeezenet": 1_235_496,
    "inception_v1": 6_624_904,
}
OUTPUT_SHAPES = dict.fromkeys(EXAMPLES, (1, 1000)) | {"bert_base": (1, 128, 768), "mlp": (1, 10)}
SMALL = ("mlp", "squeezenet", "mobilenet_v2", "inception_v1")


@cache
def built(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    return build_example(name)


def test_listing_needs_no_torch() -> None:
    code = "import sys, autotune.examples; sys.exit('torch' in sys.modules)"
    path = f"import sys; sys.path[:] = {sys.path!r}; "
    assert subprocess.run([sys.executable, "-c", path + code], check=False).returncode == 0


def test_every_example_has_expectations() -> None:
    assert PARAMETERS.keys() == EXAMPLES.keys()
    assert all(name == example.name for name, example in EXAMPLES.items())


@pytest.mark.parametrize("name", EXAMPLES)
def test_parameter_count_is_the_published_one(name: str) -> None:
    module, _ = built(name)
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_module_and_inputs_match_the_description(name: str) -> None:
    module, inputs = built(name)
    example = EXAMPLES[name]
    assert not any(part.training for part in module.modules())
    assert [tuple(value.shape) for value in inputs] == [(1, *example.input_shape)]
    assert inputs[0].dtype is getattr(torch, example.input_dtype)
    assert list(inspect.signature(module.forward).parameters) == [example.input_name]


@pytest.mark.parametrize("name", EXAMPLES)
@torch.no_grad()
def test_output_is_of_a_sane_scale(name: str) -> None:
    module, inputs = built(name)
    output = module(*inputs)
    assert output.shape == OUTPUT_SHAPES[name]
    assert output.isfinite().all()
    assert 0.01 < output.std().item() < 100


@torch.no_grad()
def test_bert_tells_tokens_apart() -> None:
    """Evenly seeded attention would drive the states of all tokens together."""
    module, inputs = built("bert_base")
    assert module(*inputs).std(dim=1).mean().item() > 0.1


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "inception_v1"])
def test_batch_norm_is_not_the_identity(name: str) -> None:
    module, _ = built(name)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    for layer in norms:
        assert layer.running_mean is not None and layer.running_var is not None
        for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
            assert values.std().item() > 0.03
        assert layer.running_var.min().item() >= 0.5


@pytest.mark.parametrize("name", SMALL)
def test_builds_are_deterministic(name: str) -> None:
    module, inputs = built(name)
    torch.rand(7)  # the state of the global generator must not matter
    again, inputs_again = build_example(name)
    assert torch.equal(inputs[0], inputs_again[0])
    state, state_again = module.state_dict(), again.state_dict()
    assert state.keys() == state_again.keys()
    for key, value in state.items():
        assert torch.equal(value, state_again[key]), key


@pytest.mark.parametrize("name", SMALL)
def test_global_random_state_is_untouched(name: str) -> None:
    before = torch.get_rng_state()
    build_example(name)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["mlp", "squeezenet"])
@torch.no_grad()
def test_exports(name: str) -> None:
    module, inputs = built(name)
    exported = torch.export.export(module, inputs).run_decompositions()
    torch.testing.assert_close(exported.module()(*inputs), module(*inputs))


def test_batch_is_the_leading_dimension() -> None:
    module, inputs = build_example("mlp", batch=3)
    assert inputs[0].shape == (3, 784)
    assert module(*inputs).shape == (3, 10)


def test_unknown_name_is_reported_with_the_known_ones() -> None:
    with pytest.raises(ValueError) as caught:
        build_example("resnet19")
    assert "'resnet19'" in str(caught.value)
    for name in EXAMPLES:
        assert name in str(caught.value)


def test_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="batch must be at least 1, not 0"):
        build_example("mlp", batch=0)
