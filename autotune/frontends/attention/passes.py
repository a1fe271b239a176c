"""The pass that makes one kernel of each attention."""

from typing import Any

import tvm
from tvm import relax, te
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.target import Target

from autotune.frontends.attention.finding import Attention, find
from autotune.frontends.attention.stages import Floats, Halves, written
from autotune.frontends.fold import rewritten, tidied
from autotune.frontends.fusion import OPAQUE, read_in_place
from search.spaces.attention import STAGES
from search.vectors import Vectors

_NAME = "attention"


@mutator
class _Fuser(PyExprMutator):  # type: ignore[misc]
    """Replaces the results of attention in ``main`` by calls of a kernel each."""

    def __init__(self, module: tvm.IRModule, target: Target) -> None:
        super().__init__(module)
        self._found = dict(find(module["main"]))
        self._target = target
        self._vectors = Vectors.of(target, "float32")

    def visit_var_binding_(self, binding: Any) -> None:
        if (found := self._found.get(binding.var)) is not None:
            binding = relax.VarBinding(binding.var, self._fused(found))
        super().visit_var_binding_(binding)

    def _fused(self, found: Attention) -> Any:
        operands = [self.visit_expr(view.source) for view in found.operands]
        arguments = list(dict.fromkeys(operands))
        form = Halves.of(found, self._vectors, self._target) or Floats.of(found, self._vectors)

        def attention(*sources: te.Tensor) -> te.Tensor:
            of = dict(zip(arguments, sources, strict=True))
            return written(found, [of[o] for o in operands], form, self._vectors.lanes)

        return self.builder_.call_te(
            attention, *arguments, primfunc_name_hint=_NAME, primfunc_attrs={"op_pattern": OPAQUE}
        )


def fuse_attention(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Makes one kernel of each attention in ``main``."""
    fused = rewritten(_Fuser(module, target), module)
    read_in_place(fused, _NAME, lambda block: block not in STAGES)
    return tidied(fused)
