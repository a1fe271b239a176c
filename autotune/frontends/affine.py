"""Folds scales and shifts of channels, which is what a batch norm comes down to, into convolutions."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from autotune.frontends.fold import Array, Bindings, constant, fold_constants, with_main

_OUTPUTS = {
    f"relax.nn.conv{n}d{kind}": axis for n in (1, 2, 3) for kind, axis in (("", 0), ("_transpose", 1))
}
"""The axis of the weights that is that of output channels."""

_OPERATIONS = {"relax.add", "relax.subtract", "relax.multiply", "relax.divide"}


@dataclass(frozen=True)
class _Affine:
    """``scale * convolution + shift``, one value a channel: float64 [channels]; ``weight``: OIHW or IOHW."""

    convolution: Any
    weight: Array
    scale: Array
    shift: Array
    length: int  # of the chain of operations that it replaces

    def then(self, operation: str, value: Array, value_first: bool) -> "_Affine | None":
        """This, followed by one more operation with a constant."""
        scale, shift = self.scale, self.shift
        match operation:
            case "relax.add":
                shift = shift + value
            case "relax.subtract" if value_first:
                scale, shift = -scale, value - shift
            case "relax.subtract":
                shift = shift - value
            case "relax.multiply":
                scale, shift = scale * value, shift * value
            case "relax.divide" if not value_first:
                scale, shift = scale / value, shift / value
            case _:
                return None
        return replace(self, scale=scale, shift=shift, length=self.length + 1)


@mutator
class _AffineFolder(PyExprMutator):  # type: ignore[misc]
    """Replaces the end of each chain by one convolution with scaled weights and one addition."""

    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self._bindings = Bindings(module["main"])

    def visit_call_(self, call: Any) -> Any:
        found = self._affine(call)
        if found is None or found.length < 2:
            return self.visit_expr_post_order(call)
        convolution, weight = found.convolution, found.weight
        axis, further = _OUTPUTS[convolution.op.name], (1,) * (weight.ndim - 2)
        scaled = (weight * found.scale.reshape(-1, *(1,) * (weight.ndim - 1 - axis))).astype(weight.dtype)
        shift = found.shift.reshape(1, -1, *further).astype(weight.dtype)
        arguments = [self.visit_expr(convolution.args[0]), relax.const(scaled, str(scaled.dtype))]
        scaled_convolution = relax.Call(convolution.op, arguments, convolution.attrs, convolution.ty_args)
        return relax.op.add(self.builder_.emit(scaled_convolution), relax.const(shift, str(shift.dtype)))

    def _affine(self, expr: Any) -> _Affine | None:
        """The chain that ends in ``expr``, in the module as it was; inner results are used once."""
        name = getattr(getattr(expr, "op", None), "name", None)
        if (axis := _OUTPUTS.get(name or "")) is not None:
            weight, attrs = constant(expr.args[1]), expr.attrs
            if weight is None or not attrs.data_layout.startswith("NC") or (axis and int(attrs.groups) > 1):
                return None
            if not attrs.kernel_layout.startswith("IO" if axis else "OI"):
                return None
            return _Affine(expr, weight, np.ones(weight.shape[axis]), np.zeros(weight.shape[axis]), 0)
        if name not in _OPERATIONS:
            return None
        for place in (0, 1):
            value = constant(expr.args[place])
            inner = self._affine(self._bindings.own(expr.args[1 - place]))
            if value is None or inner is None:
                continue
            channels = len(inner.scale)
            further = (1,) * (inner.weight.ndim - 2)
            if value.size == 1 or value.shape in ((1, channels, *further), (channels, *further)):
                spread = np.broadcast_to(value.astype(np.float64).reshape(-1), (channels,))
                return inner.then(name, spread, value_first=place == 0)
        return None


def fold_affine(module: tvm.IRModule) -> tvm.IRModule:
    """Folds chains of additions and multiplications by constants into the convolutions before them.

    A convolution whose own output is needed besides stays as it is.
    """
    main = _AffineFolder(module).visit_expr(module["main"])
    return fold_constants(with_main(module, main))
