"""Exponentials and their kin in vectors.

The C library's ``expf``, ``erff`` and ``tanhf`` take one number at a time: the activation of a transformer's
layer then takes as long as its largest matrix product. TOPI has them as polynomials, which every vector unit
computes, with relative errors of 1e-6 (exp) and 4e-7 (erf, tanh): what a float32 sum of some ten terms
may be off by. NaN stays NaN, and infinities go where they should.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax, te, tirx, topi
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.target import Target

from autotune.frontends.fold import rewritten
from search.vectors import Vectors


def _exp(x: te.Tensor) -> te.Tensor:
    return topi.fast_exp(x)


def _erf(x: te.Tensor) -> te.Tensor:
    """TOPI's is cut off at 1, and so takes NaN for a large number."""
    fast = topi.fast_erf(x)
    return te.compute(x.shape, lambda *i: tirx.Select(x(*i) == x(*i), fast(*i), x(*i)), name="erf")


def _sigmoid(x: te.Tensor) -> te.Tensor:
    raised = _exp(topi.negative(x))
    return te.compute(x.shape, lambda *i: 1.0 / (1.0 + raised(*i)), name="sigmoid")


def _gelu(x: te.Tensor) -> te.Tensor:
    raised = _erf(te.compute(x.shape, lambda *i: x(*i) * tirx.const(0.5**0.5, x.dtype), name="scaled"))
    return te.compute(x.shape, lambda *i: x(*i) * (0.5 + 0.5 * raised(*i)), name="gelu")


def _gelu_tanh(x: te.Tensor) -> te.Tensor:
    """As Hendrycks and Gimpel have it (arXiv:1606.08415, section 2)."""
    inner = te.compute(
        x.shape, lambda *i: x(*i) * ((2 / math.pi) ** 0.5 * (1 + 0.044715 * x(*i) * x(*i))), name="inner"
    )
    raised = topi.fast_tanh(inner)
    return te.compute(x.shape, lambda *i: x(*i) * (0.5 + 0.5 * raised(*i)), name="gelu_tanh")


def _silu(x: te.Tensor) -> te.Tensor:
    return topi.multiply(x, _sigmoid(x))


def _softmax(x: te.Tensor, axis: int, lanes: int) -> te.Tensor:
    """Of rows that are no whole number of vectors, sums and maxima of whole vectors, and of what remains."""
    *outer, extent = (int(d) for d in x.shape)
    whole = extent - extent % lanes
    if axis % len(x.shape) < len(outer) or whole in (0, extent):
        return topi.nn.fast_softmax(x, axis)

    def along(combine: Any, join: Any, values: te.Tensor, name: str) -> te.Tensor:
        def part(first: int, last: int) -> te.Tensor:
            k = te.reduce_axis((0, last - first), "k")
            return te.compute(outer, lambda *i: combine(values[(*i, first + k)], axis=k), name=name)

        vectors, rest = part(0, whole), part(whole, extent)
        return te.compute(outer, lambda *i: join(vectors(*i), rest(*i)), name=f"{name}_of_both")

    highest = along(te.max, tirx.max, x, "highest")
    raised = _exp(te.compute(x.shape, lambda *i: x(*i) - highest(*i[:-1]), name="below"))
    total = along(te.sum, operator.add, raised, "total")
    return te.compute(x.shape, lambda *i: raised(*i) / total(*i[:-1]), name="softmax")


_OPERATIONS: dict[str, Callable[[te.Tensor], te.Tensor]] = {
    "relax.exp": _exp,
    "relax.erf": _erf,
    "relax.tanh": topi.fast_tanh,
    "relax.sigmoid": _sigmoid,
    "relax.nn.gelu": _gelu,
    "relax.nn.gelu_tanh": _gelu_tanh,
    "relax.nn.silu": _silu,
}


@mutator
class _Vectorizer(PyExprMutator):  # type: ignore[misc]
    """Replaces the operations in ``main``."""

    def __init__(self, module: tvm.IRModule, target: Target) -> None:
        super().__init__(module)
        self._lanes = Vectors.of(target, "float32").lanes

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        name = str(getattr(call.op, "name", ""))
        if not isinstance(call.ty, relax.TensorType) or str(call.ty.dtype) != "float32":
            return call
        hint = name.rpartition(".")[2]
        if name == "relax.nn.softmax":
            axis = int(call.attrs.axis)
            return self.builder_.call_te(
                lambda x: _softmax(x, axis, self._lanes), call.args[0], primfunc_name_hint=hint
            )
        if operation := _OPERATIONS.get(name):
            return self.builder_.call_te(operation, call.args[0], primfunc_name_hint=hint)
        return call


def vectorize_math(module: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Replaces what the C library would compute number by number in ``main``, for float32."""
    return relax.transform.DeadCodeElimination()(rewritten(_Vectorizer(module, target), module))
