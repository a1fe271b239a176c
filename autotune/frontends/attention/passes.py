"""The pass that makes one kernel of each attention."""

from typing import Any

import tvm
from tvm import relax, te
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.s_tir import Schedule
from tvm.target import Target

from autotune.frontends.attention.finding import Attention, find
from autotune.frontends.attention.stages import Floats, Halves, written
from autotune.frontends.fold import tidied
from autotune.frontends.fusion import OPAQUE
from search.spaces import attention as stages
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
    fuser = _Fuser(module, target)
    main = fuser.visit_expr(module["main"])
    fused = fuser.builder_.get()
    fused.update_func(fused.get_global_var("main"), main)
    for name, function in fused.functions.items():
        if name.name_hint.startswith(_NAME):
            fused.update_func(name, _in_place(function))
    return tidied(fused)


def _in_place(function: Any) -> Any:
    """A kernel that reads its operands where they are: of its blocks only the template's stages remain."""
    schedule = Schedule(tvm.IRModule({"main": function}))
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        if schedule.get(block).name_hint not in stages.STAGES:
            schedule.compute_inline(block)
    return schedule.mod["main"]
