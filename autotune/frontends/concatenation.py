"""Convolutions of concatenated channels, without the concatenation.

``conv([a, b])`` is ``conv(a) + conv(b)`` with the weights' halves. Where the convolution has few output
channels, adding up is less to move than copying ``a`` and ``b`` side by side (a tenth of SqueezeNet's time).
Maximum pooling in between works on each channel alone, and goes along.
"""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from autotune.frontends.fold import Bindings, constant, shape_of, tidied, with_main

LEAST_CHANNELS = 16  # of a part: shorter sums are no work for a kernel of their own
_CHANNELS = 1  # the axis


@mutator
class _Splitter(PyExprMutator):  # type: ignore[misc]
    """Splits such convolutions (NCHW) where that moves less."""

    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self._bindings = Bindings(module["main"])

    def visit_call_(self, call: Any) -> Any:
        weight = constant(call.args[1]) if _is(call, "relax.nn.conv2d") else None
        if weight is None or int(call.attrs.groups) != 1 or call.attrs.data_layout != "NCHW":
            return self.visit_expr_post_order(call)
        pooling = self._own(call.args[0], "relax.nn.max_pool2d")
        parts = self._parts(call.args[0] if pooling is None else pooling.args[0])
        if not _pays(parts, call):
            return self.visit_expr_post_order(call)
        ends = np.cumsum([0, *(shape_of(part)[_CHANNELS] for part in parts)])
        total = None
        for part, (begin, end) in zip(parts, pairwise(ends), strict=True):
            x = self.visit_expr(part)
            if pooling is not None:
                x = self.builder_.emit(relax.Call(pooling.op, [x], pooling.attrs, pooling.ty_args))
            share = relax.const(np.ascontiguousarray(weight[:, begin:end]), str(weight.dtype))
            one = self.builder_.emit(relax.Call(call.op, [x, share], call.attrs, call.ty_args))
            total = one if total is None else self.builder_.emit(relax.op.add(one, total))
        return total

    def _own(self, expr: Any, operator: str) -> Any:
        """The call of this operator that a variable stands for, if nothing else uses it."""
        value = self._bindings.own(expr)
        return value if _is(value, operator) else None

    def _parts(self, expr: Any) -> list[Any]:
        """What a variable is the concatenation of, by channels; nothing where it is none."""
        value = self._own(expr, "relax.concat")
        if value is None or value.attrs.axis is None or int(value.attrs.axis) != _CHANNELS:
            return []
        joined = value.args[0]
        return list(self._bindings.of.get(joined, joined).fields)


def _is(expr: Any, operator: str) -> bool:
    return isinstance(expr, relax.Call) and getattr(expr.op, "name", None) == operator


def _pays(parts: list[Any], call: Any) -> bool:
    """Whether the sums of all parts but one are at most half of what would be concatenated."""
    shapes, sums = [shape_of(part) for part in parts], shape_of(call)
    if not all((*shapes, sums)) or len(parts) < 2 or min(s[_CHANNELS] for s in shapes) < LEAST_CHANNELS:
        return False
    return 2 * (len(parts) - 1) * math.prod(sums) <= sum(map(math.prod, shapes))


def split_concatenations(module: tvm.IRModule) -> tvm.IRModule:
    """Splits the convolutions in ``main`` whose only input is a concatenation that nothing else needs."""
    main = _Splitter(module).visit_expr(module["main"])
    return tidied(with_main(module, main))  # the layout's conversion ends at names for names
