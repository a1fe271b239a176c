"""From operators to kernels: what a model's graph goes through before anything is tuned.

Batch norms fold into convolutions, constants are evaluated, convolutions take concatenations apart, images
move to channels-last layout (the inner loop of a convolution is then a vector of output channels, which is
what CPUs' vector units want), weights are packed in the order in which they are read, and neighbouring
operators are fused into TIR functions. Each distinct function is a task.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import tvm
from tvm import relax
from tvm.target import Target

from autotune.errors import UnsupportedModel
from autotune.frontends.affine import fold_affine
from autotune.frontends.attention.passes import fuse_attention
from autotune.frontends.concatenation import split_concatenations
from autotune.frontends.fold import fold_constants
from autotune.frontends.fusion import fuse
from autotune.frontends.layout import to_channels_last
from autotune.frontends.merging import merge_branches
from autotune.frontends.model import ModelInput, SourceModel, check_sizes, quiet
from autotune.frontends.normalization import decompose_norms
from autotune.frontends.packing import pack_weights
from autotune.frontends.quantized.conversions import write_out_conversions
from autotune.frontends.quantized.passes import prepare_bytes
from autotune.frontends.reshapes import widen_products
from autotune.frontends.transposed import to_convolutions
from autotune.frontends.vectormath import vectorize_math
from search.errors import last_line
from search.problem import Task, digest
from search.spaces.tir import workload_from_tir


@dataclass(frozen=True)
class Model:
    """A model whose kernels are known.

    Attributes:
        source: The model as it was imported; its ``reference`` still runs the original.
        module: Relax module that calls one TIR function a kernel.
        tasks: Distinct kernels, the most work first.
        functions: Name of each TIR function in ``module``, with the hash of its workload.
    """

    source: SourceModel
    module: tvm.IRModule = field(repr=False)
    tasks: tuple[Task, ...] = field(repr=False)
    functions: dict[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        return self.source.inputs

    @property
    def constant_bytes(self) -> int:
        """Of its weights, each once."""
        sizes: list[int] = []

        def visit(node: relax.Expr) -> None:
            if isinstance(node, tvm.ir.GenericConst) and hasattr(node.value, "numpy"):
                sizes.append(node.value.numpy().nbytes)

        relax.analysis.post_order_visit(self.module["main"], visit)
        return sum(sizes)

    @property
    def moved_bytes(self) -> int:
        """About what a run touches: all weights, and what the kernel that passes on most does; 0 if alone."""
        if sum(t.weight for t in self.tasks) < 2:
            return 0
        return self.constant_bytes + max((t.passed_bytes for t in self.tasks), default=0)

    @property
    def hash(self) -> str:
        """Identity for tuning: what is computed on which shapes; the weights' values do not matter."""
        kernels = sorted((t.workload.hash, t.weight) for t in self.tasks)
        shapes = [(i.name, i.spec.shape, i.spec.dtype) for i in self.inputs]
        return digest(["model/1", self.name, shapes, kernels])


@quiet()
def lower(source: SourceModel, target: Target) -> Model:
    """Folds, lays out and fuses a model, and finds its tasks.

    Raises:
        UnsupportedModel: An operator has no implementation in TIR, or no fixed sizes.
    """
    check_sizes(source.module, source.name)
    module = fold_constants(relax.transform.DecomposeOpsForInference()(source.module))
    module = prepare_bytes(fold_constants(decompose_norms(module)), target)
    module = split_concatenations(to_convolutions(fold_affine(module)))
    module = fuse_attention(merge_branches(widen_products(module)), target)
    module = to_channels_last(module, target)
    module = write_out_conversions(pack_weights(vectorize_math(module, target), target))
    with target:
        try:
            module = relax.transform.LegalizeOps()(module)
        except Exception as error:  # TVM raises whatever its C++ side throws
            said = f"{source.name}: TVM has no kernel for one of its operators: {last_line(error)}"
            raise UnsupportedModel(said) from error
        module = fuse(module)
    calls = _calls(module, source.name)
    tasks: dict[str, Task] = {}
    functions: dict[str, str] = {}
    for variable, inputs in calls.items():
        workload = workload_from_tir(module[variable], variable)
        functions[variable] = workload.hash
        known = tasks.get(workload.hash)
        name = known.name if known else variable
        weight = len(inputs) + (known.weight if known else 0)
        outputs = range(len(workload.args) - workload.outputs, len(workload.args))
        tasks[workload.hash] = Task(name, workload, weight, known.passed if known else (*outputs, *inputs[0]))
    ordered = sorted(tasks.values(), key=lambda t: (-t.workload.flop * t.weight, t.name))
    return Model(source, module, tuple(ordered), functions)


def _calls(module: tvm.IRModule, name: str) -> dict[str, list[tuple[int, ...]]]:
    """The calls of each TIR function in ``main``: positions of the arguments that are no weights."""
    calls: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    missing: set[str] = set()

    def visit(node: relax.Expr) -> None:
        if not isinstance(node, relax.Call):
            return
        operator = getattr(node.op, "name", "")
        if operator == "relax.call_tir":
            arguments = enumerate(node.args[1])
            inputs = tuple(i for i, a in arguments if not isinstance(a, tvm.ir.GenericConst))
            calls[node.args[0].name_hint].append(inputs)
        elif operator.startswith("relax.") and operator not in _RUNTIME_CALLS:
            missing.add(operator)

    relax.analysis.post_order_visit(module["main"], visit)
    if missing:
        raise UnsupportedModel(f"{name}: no TIR implementation of {', '.join(sorted(missing))}")
    return calls


_RUNTIME_CALLS = {"relax.reshape", "relax.call_pure_packed", "relax.call_dps_packed", "relax.memory.view"}
