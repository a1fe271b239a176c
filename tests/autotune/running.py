"""Models run in this process."""

from collections.abc import Mapping
from typing import Any

import tvm
from kernels import TARGET
from numpy.typing import NDArray
from tvm import relax
from tvm.target import Target

from autotune.artifact import flatten
from autotune.build import compile_model
from autotune.frontends.graph import Model


def outputs_of(
    model: Model, traces: Mapping[str, str], *inputs: NDArray[Any], target: Target = TARGET
) -> list[NDArray[Any]]:
    """Of a model with these schedules; plain loops where there is none."""
    machine = relax.VirtualMachine(compile_model(model, traces, target).jit(), tvm.cpu())
    return [t.numpy() for t in flatten(machine["main"](*map(tvm.runtime.tensor, inputs)))]
