"""Channels-last layout for the whole graph.

``ConvertLayout`` carries a layout through an operator only where that operator says how. Activations with
attributes do not, so each would be wrapped in two transposes and kept from fusing with its convolution
(half of MobileNetV2's time). They are written as minimum, maximum and multiplication first, which do.
"""

import math
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from autotune.frontends.fold import fold_constants, with_main

_CHANNELS_LAST = {"relax.nn.conv2d": ["NHWC", "HWIO"]}


@mutator
class _Activations(PyExprMutator):  # type: ignore[misc]
    """Rewrites clip, relu6 and leaky relu."""

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        match getattr(call.op, "name", None):
            case "relax.clip":
                lowest, highest = (float(a.value) for a in call.args[1:])
                return self._clip(call.args[0], lowest, highest)
            case "relax.nn.relu6":
                return self._clip(call.args[0], 0.0, 6.0)
            case "relax.nn.leakyrelu" if call.attrs.alpha <= 1:
                x = call.args[0]
                slope = relax.const(float(call.attrs.alpha), str(x.ty.dtype))
                return relax.op.maximum(x, self.builder_.emit(relax.op.multiply(x, slope)))
        return call

    def _clip(self, x: Any, lowest: float, highest: float) -> Any:
        dtype = str(x.ty.dtype)
        if math.isfinite(lowest):
            x = self.builder_.emit(relax.op.maximum(x, relax.const(lowest, dtype)))
        return relax.op.minimum(x, relax.const(highest, dtype)) if math.isfinite(highest) else x


def to_channels_last(module: tvm.IRModule) -> tvm.IRModule:
    """Moves convolutions, and what lies between them, to NHWC; weights are transposed at once."""
    main = _Activations(module).visit_expr(module["main"])
    converted = relax.transform.ConvertLayout(_CHANNELS_LAST)(with_main(module, main))
    return fold_constants(converted)
