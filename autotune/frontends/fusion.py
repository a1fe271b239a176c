"""Which neighbours become one kernel: TVM's rules, but for what would spoil a sum of products.

TVM also fuses a transposition into the convolution before it. No tile of sums could then be stored as it is:
ultraface's last convolutions took ten times as long as with a kernel of its own for the transposition.
"""

import math
from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax
from tvm.s_tir import Schedule

from autotune.frontends.fold import Bindings, static_shape

FUSABLE = 4  # TVM's kOutEWiseFusable: what follows element by element joins this kernel
OPAQUE = 8  # a kernel of its own
_BROADCAST, _INJECTIVE = 1, 2  # other patterns of operators


def fuse(module: tvm.IRModule) -> tvm.IRModule:
    """Kernels out of a module of TIR functions."""
    return tvm.transform.Sequential(
        [
            relax.transform.AnnotateTIROpPattern(),
            _keep_apart,
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
            relax.transform.DeadCodeElimination(),
            relax.transform.RewriteDataflowReshape(),
            relax.transform.DeadCodeElimination(),
        ]
    )(module)


def read_in_place(module: tvm.IRModule, kernels: str, which: Callable[[str], bool]) -> None:
    """Inlines blocks that only choose and order elements, so that kernels read them where they are.

    Args:
        module: Changed.
        kernels: What their names contain; TVM may have put a number behind it.
        which: Says of a block's name whether it is one.
    """
    for variable, function in module.functions.items():
        if kernels not in variable.name_hint:
            continue
        schedule = Schedule(tvm.IRModule({"main": function}))
        for block in schedule.get_child_blocks(schedule.get_sblock("root")):
            if which(str(schedule.get(block).name_hint)):
                schedule.compute_inline(block)
        module.update_func(variable, schedule.mod["main"])


@tvm.transform.module_pass(opt_level=0)  # type: ignore[untyped-decorator]
def _keep_apart(module: tvm.IRModule, _: Any) -> tvm.IRModule:
    """Marks as opaque what puts the elements of a sum of products, or what follows it, elsewhere."""
    sums, moved, uses = set[Any](), set[Any](), Bindings(module["main"])
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            if not isinstance(call, relax.Call) or getattr(call.op, "name", "") != "relax.call_tir":
                continue
            function, inputs = call.args[0], [a for a in call.args[1] if isinstance(a, relax.Var)]
            pattern = int(module[function].attrs.get("op_pattern", OPAQUE))
            behind = any(a in sums and not _is_part(binding.var, a, uses) for a in inputs)
            if pattern == FUSABLE or (pattern <= _BROADCAST and behind):
                sums.add(binding.var)
            elif pattern == _INJECTIVE and behind and len(inputs) == 1:
                moved.add(function)
    marked = {f: module[f].with_attr("op_pattern", OPAQUE) for f in moved}
    return tvm.IRModule({**dict(module.functions.items()), **marked})


def _is_part(result: Any, of: Any, uses: Bindings) -> bool:
    """Whether there are fewer elements than in what they are of, and others are read as well."""
    some, all_ = static_shape(result.ty), static_shape(of.ty)
    return some is not None and math.prod(some) < math.prod(all_ or ()) and uses.own(of) is None
