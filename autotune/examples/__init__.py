"""Built-in example networks: real inputs for the autotuner that need no download.

The networks are plain torch modules with the published architectures and
seeded random weights.  Importing this package does not import torch, so a
command line can list the names without paying for it; `build_example` does.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

__all__ = ["EXAMPLES", "Example", "build_example"]

_WEIGHT_SEED = 0
_INPUT_SEED = 1


@dataclass(frozen=True)
class Example:
    """What is known of an example network without building it.

    Attributes:
        name: Key in `EXAMPLES`.
        summary: One line for a listing.
        input_name: Name of the network's only input (its `forward` parameter).
        input_shape: Shape of that input without the leading batch dimension.
        input_dtype: Torch dtype of that input by name, such as "float32".
    """

    name: str
    summary: str
    input_name: str
    input_shape: tuple[int, ...]
    input_dtype: str


def _image_example(name: str, summary: str) -> Example:
    return Example(name, summary, input_name="image", input_shape=(3, 224, 224), input_dtype="float32")


EXAMPLES: dict[str, Example] = {
    example.name: example
    for example in (
        _image_example("resnet18", "ResNet-18 image classifier, 11.7M parameters"),
        _image_example("resnet50", "ResNet-50 v1.5 image classifier, 25.6M parameters"),
        _image_example("mobilenet_v2", "MobileNetV2 1.0 image classifier, 3.5M parameters"),
        Example(
            "bert_base",
            "BERT-base encoder on 128 tokens, 108.9M parameters",
            input_name="token_ids",
            input_shape=(128,),
            input_dtype="int64",
        ),
        Example(
            "mlp",
            "Three-layer perceptron on 784 features, 0.5M parameters",
            input_name="features",
            input_shape=(784,),
            input_dtype="float32",
        ),
        _image_example("squeezenet", "SqueezeNet 1.1 image classifier, 1.2M parameters"),
        _image_example("inception_v1", "Inception v1 (GoogLeNet) image classifier, 6.6M parameters"),
    )
}


def build_example(name: str, batch: int = 1) -> tuple["torch.nn.Module", tuple["torch.Tensor", ...]]:
    """Builds an example network with its seeded weights, and inputs to run it on.

    The same name always gives the same weights, and the same name and batch
    the same inputs.  Torch's global random state is left as it was.

    Args:
        name: A key of `EXAMPLES`.
        batch: Size of the leading dimension of the inputs, at least 1.

    Returns:
        The network on the CPU in eval mode, and the positional inputs of its `forward`.

    Raises:
        ValueError: If there is no example of that name, or `batch` is below 1.
    """
    if name not in EXAMPLES:
        raise ValueError(f"unknown example {name!r}; the examples are {', '.join(EXAMPLES)}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")

    import torch

    from ._init import seed_weights
    from .bert import VOCAB_SIZE, bert_base
    from .inception import inception_v1
    from .mlp import mlp
    from .mobilenet import mobilenet_v2
    from .resnet import resnet18, resnet50
    from .squeezenet import squeezenet

    builders: dict[str, Callable[[], torch.nn.Module]] = {
        "resnet18": resnet18,
        "resnet50": resnet50,
        "mobilenet_v2": mobilenet_v2,
        "bert_base": bert_base,
        "mlp": mlp,
        "squeezenet": squeezenet,
        "inception_v1": inception_v1,
    }
    # Torch's own initialisation would be overwritten at once, so it is skipped: built on
    # the meta device, a module draws no random numbers and allocates nothing.
    with torch.device("meta"):
        module = builders[name]()
    module.to_empty(device="cpu")
    seed_weights(module, _WEIGHT_SEED)

    shape = (batch, *EXAMPLES[name].input_shape)
    generator = torch.Generator().manual_seed(_INPUT_SEED)
    if EXAMPLES[name].input_dtype == "int64":
        inputs = torch.randint(VOCAB_SIZE, shape, generator=generator, device="cpu")
    else:
        inputs = torch.randn(shape, generator=generator, device="cpu")
    return module.eval(), (inputs,)
