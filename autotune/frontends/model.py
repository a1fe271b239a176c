"""A model as the rest of the program sees it, whatever file or framework it came from."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import tvm
from numpy.typing import NDArray
from tvm import relax

from autotune.errors import BadInput, UnsupportedModel
from search.problem import TensorSpec

Array = NDArray[Any]

_COPIES = 3  # of the inputs at least: random doubles, what becomes of them, the framework's own


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
        nudged: By a seed, the original with its constants off by a millionth; None where that is not known.
    """

    name: str
    source: str
    module: tvm.IRModule = field(repr=False)
    inputs: tuple[ModelInput, ...]
    reference: Callable[[Sequence[Array]], list[Array]] = field(repr=False)
    reference_name: str
    nudged: Callable[[int], Callable[[Sequence[Array]], list[Array]]] | None = field(default=None, repr=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what TVM remarks while it works off the terminal: what matters comes as an exception."""
    sys.stderr.flush()
    stderr = os.dup(2)  # where its C++ writes
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def check_memory(inputs: Sequence[TensorSpec]) -> None:
    """Finds out before anything is allocated what cannot fit.

    Raises:
        BadInput: This machine has less memory than the inputs alone need.
    """
    needed, there = _COPIES * sum(spec.bytes for spec in inputs), psutil.virtual_memory().total
    if needed > there:
        raise BadInput(
            f"inputs of these sizes need {needed / 1e9:,.0f} GB of memory, this machine has "
            f"{there / 1e9:,.0f} GB: give a smaller --batch or --input"
        )


def check_sizes(module: tvm.IRModule, name: str) -> None:
    """Finds out what could not be tuned.

    Raises:
        UnsupportedModel: The size of a value depends on what the inputs hold.
    """
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            kind = binding.var.ty
            if isinstance(kind, relax.TensorType) and not _fixed(kind):
                operator = getattr(getattr(binding.value, "op", None), "name", "an operator")
                raise UnsupportedModel(
                    f"{name}: the output of {operator} has sizes that depend on what the inputs hold; "
                    "only what has fixed sizes can be tuned"
                )


def _fixed(kind: relax.TensorType) -> bool:
    return kind.shape is not None and all(isinstance(size, tvm.tirx.IntImm) for size in kind.shape)


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
