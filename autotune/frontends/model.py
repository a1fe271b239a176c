"""A model as the rest of the program sees it, whatever file or framework it came from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from search.problem import TensorSpec

Array = NDArray[Any]


@dataclass(frozen=True)
class ModelInput:
    """A named input of fixed shape."""

    name: str
    spec: TensorSpec


@dataclass(frozen=True)
class SourceModel:
    """A model just imported: operators on constants, nothing folded or fused yet.

    Attributes:
        name: What people read: the file's stem or the example's name.
        source: Path, example's name, or the module's class.
        module: Relax module whose ``main`` takes ``inputs`` in order.
        reference: Runs the original model in the framework that it came from.
        reference_name: That framework's name.
    """

    name: str
    source: str
    module: tvm.IRModule = field(repr=False)
    inputs: tuple[ModelInput, ...]
    reference: Callable[[Sequence[Array]], list[Array]] = field(repr=False)
    reference_name: str


def random_inputs(inputs: Sequence[ModelInput], seed: int = 0) -> list[Array]:
    """Inputs of the right shapes: standard normal, or 0 and 1 for integers, which may be indices."""
    rng = np.random.default_rng(seed)
    arrays: list[Array] = []
    for item in inputs:
        dtype = np.dtype(item.spec.dtype)
        if dtype.kind == "f":
            arrays.append(rng.standard_normal(item.spec.shape).astype(dtype))
        else:
            arrays.append(rng.integers(0, 2, item.spec.shape).astype(dtype))
    return arrays
