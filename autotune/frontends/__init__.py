"""Models from files, frameworks and examples."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.errors import BadInput, ModelNotFound
from autotune.examples import EXAMPLES, build_example

if TYPE_CHECKING:
    from autotune.frontends.model import SourceModel


def load_model(
    model: str, shapes: Mapping[str, tuple[int, ...]] | None = None, batch: int | None = None
) -> "SourceModel":
    """Loads a model by path (``.onnx``, ``.pt2``) or by the name of an example.

    Args:
        shapes: Sizes that a file leaves open, by input name.
        batch: First size of the inputs, where the file leaves it open; examples take any.

    Raises:
        ModelNotFound: Neither a file nor an example.
        AutotuneError: The file cannot be used (``autotune.frontends.onnx``, ``autotune.frontends.torch``).
    """
    shapes = shapes or {}
    path = Path(model)
    find_model(model)
    if model in EXAMPLES:
        if shapes:
            raise BadInput(f"--input: the sizes of example {model} are fixed; --batch is what it takes")
        from autotune.frontends.model import check_memory
        from autotune.frontends.torch import load_module
        from search.problem import TensorSpec

        example = EXAMPLES[model]
        check_memory([TensorSpec((batch or 1, *example.input_shape), example.input_dtype)])
        module, inputs = build_example(model, batch or 1)
        return load_module(module, inputs, model)
    if path.suffix == ".onnx":
        from autotune.frontends.onnx import load_onnx

        return load_onnx(path, shapes, batch)
    from autotune.frontends.torch import load_exported

    return load_exported(path, shapes, batch)


def find_model(model: str) -> str:
    """The model as given; finds out whether there is one before anything heavy is imported.

    Raises:
        ModelNotFound: Neither a file that can be one nor an example.
    """
    path = Path(model)
    if model not in EXAMPLES and not path.is_file():
        what = "is a folder, not a model file" if path.is_dir() else "is neither a file nor an example"
        raise ModelNotFound(f"{model} {what}; examples are {', '.join(EXAMPLES)}")
    if model not in EXAMPLES and path.suffix not in (".onnx", ".pt2"):
        raise ModelNotFound(
            f"{model}: expected a file that ends in .onnx or .pt2 (torch.export.save), or an example"
        )
    return model
