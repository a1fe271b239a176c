"""Group and instance norms in operators that vectors, other layouts and neighbours take well.

A mean over an image and the channels of a group is the mean of the channels' means: so the large part is a
sum over the image in vectors of channels, whatever the groups. In one kernel, as TVM has it, sums go number
by number.
"""

from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from autotune.frontends.fold import static_shape, tidied, with_main


@mutator
class _Decomposer(PyExprMutator):  # type: ignore[misc]
    """Replaces the norms of tensors that have their channels second."""

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        name, shape = getattr(call.op, "name", ""), static_shape(call.ty)
        if name not in ("relax.nn.group_norm", "relax.nn.instance_norm") or shape is None or 0 in shape:
            return call
        attrs, rank = call.attrs, len(shape)
        image = list(range(2, rank))
        alone = {0} if shape[0] == 1 else set()  # as PyTorch exports it, images of a batch are channels
        if int(attrs.channel_axis) != 1 or {int(a) for a in attrs.axes} - alone != set(image):
            return call
        x, scale, shift = call.args
        groups = int(attrs.num_groups) if name.endswith("group_norm") else shape[1]
        emit, op, dtype = self.builder_.emit, relax.op, str(call.ty.dtype)

        def mean(value: Any) -> Any:
            of_channels = emit(op.mean(value, image, keepdims=True))
            if groups == shape[1]:
                return of_channels
            parted = emit(op.reshape(of_channels, (shape[0], groups, shape[1] // groups)))
            of_groups = emit(op.mean(parted, -1, keepdims=True))
            spread = emit(op.broadcast_to(of_groups, (shape[0], groups, shape[1] // groups)))
            return emit(op.reshape(spread, (*shape[:2], *(1 for _ in image))))

        below = emit(op.subtract(x, mean(x)))
        variance = mean(emit(op.multiply(below, below)))
        width = emit(op.sqrt(emit(op.add(variance, relax.const(float(attrs.epsilon), dtype)))))
        y = emit(op.divide(below, width))
        column = (shape[1], *(1 for _ in image))
        if attrs.scale:
            y = emit(op.multiply(y, emit(op.reshape(scale, column))))
        return op.add(y, emit(op.reshape(shift, column))) if attrs.center else y


def decompose_norms(module: tvm.IRModule) -> tvm.IRModule:
    """Replaces group and instance norms in ``main``."""
    main = _Decomposer(module).visit_expr(module["main"])
    return tidied(with_main(module, main))
