"""Exponentials and their kin in vectors.

The C library's ``expf``, ``erff`` and ``tanhf`` take one number at a time: the activation of a transformer's
layer then takes as long as its largest matrix product. TOPI has them as polynomials, which every vector unit
computes, with relative errors of 1e-6 (exp) and 4e-7 (erf, tanh): what a float32 sum of some ten terms
may be off by. NaN stays NaN, and infinities go where they should.
"""

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax, te, tirx, topi
from tvm.relax.expr_functor import PyExprMutator, mutator


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


def _silu(x: te.Tensor) -> te.Tensor:
    return topi.multiply(x, _sigmoid(x))


_OPERATIONS: dict[str, Callable[[te.Tensor], te.Tensor]] = {
    "relax.exp": _exp,
    "relax.erf": _erf,
    "relax.tanh": topi.fast_tanh,
    "relax.sigmoid": _sigmoid,
    "relax.nn.gelu": _gelu,
    "relax.nn.silu": _silu,
}


@mutator
class _Vectorizer(PyExprMutator):  # type: ignore[misc]
    """Replaces the operations in ``main``."""

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        name = str(getattr(call.op, "name", ""))
        if not isinstance(call.ty, relax.TensorType) or str(call.ty.dtype) != "float32":
            return call
        hint = name.rpartition(".")[2]
        if name == "relax.nn.softmax":
            axis = int(call.attrs.axis)
            return self.builder_.call_te(
                lambda x: topi.nn.fast_softmax(x, axis), call.args[0], primfunc_name_hint=hint
            )
        if operation := _OPERATIONS.get(name):
            return self.builder_.call_te(operation, call.args[0], primfunc_name_hint=hint)
        return call


def vectorize_math(module: tvm.IRModule) -> tvm.IRModule:
    """Replaces what the C library would compute number by number in ``main``, for float32."""
    vectorizer = _Vectorizer(module)
    main = vectorizer.visit_expr(module["main"])
    changed = vectorizer.builder_.get()
    changed.update_func(changed.get_global_var("main"), main)
    return relax.transform.DeadCodeElimination()(changed)
