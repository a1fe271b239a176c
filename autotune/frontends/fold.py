"""Constant folding with NumPy.

TVM's own ``FoldConstant`` compiles every fold with LLVM, which takes up to a minute on networks whose
batch norms and layouts fold into some hundred weights. The operations that occur between constants are
few and NumPy has them all, so they are evaluated directly; what is not in ``NUMPY_OPS`` stays as it is.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

Array = NDArray[Any]

_MAX_ELEMENTS = 1 << 28  # a fold must not blow a broadcast up to gigabytes


def _take(data: Array, indices: Array, attrs: Any) -> Array:
    return np.take(data, indices.astype(np.int64), axis=None if attrs.axis is None else int(attrs.axis))


def _ints(values: Any) -> tuple[int, ...] | None:
    return None if values is None else tuple(int(v) for v in values)


NUMPY_OPS: dict[str, Callable[..., Any]] = {
    "relax.add": lambda a, b, _: a + b,
    "relax.subtract": lambda a, b, _: a - b,
    "relax.multiply": lambda a, b, _: a * b,
    "relax.divide": lambda a, b, _: a / b if np.issubdtype(a.dtype, np.floating) else a // b,
    "relax.sqrt": lambda a, _: np.sqrt(a),
    "relax.rsqrt": lambda a, _: 1 / np.sqrt(a),
    "relax.negative": lambda a, _: -a,
    "relax.less": lambda a, b, _: a < b,
    "relax.less_equal": lambda a, b, _: a <= b,
    "relax.greater": lambda a, b, _: a > b,
    "relax.greater_equal": lambda a, b, _: a >= b,
    "relax.equal": lambda a, b, _: a == b,
    "relax.logical_and": lambda a, b, _: a & b,
    "relax.logical_or": lambda a, b, _: a | b,
    "relax.logical_not": lambda a, _: ~a,
    "relax.full": lambda shape, value, _: np.full(shape, value),
    "relax.arange": lambda begin, end, step, _: np.arange(begin, end, step),
    "relax.tril": lambda a, k, _: np.tril(a, k),
    "relax.triu": lambda a, k, _: np.triu(a, k),
    "relax.where": lambda c, a, b, _: np.where(c, a, b),
    "relax.take": _take,
    "relax.tile": lambda a, attrs: np.tile(a, _ints(attrs.repeats) or ()),
    "relax.permute_dims": lambda a, attrs: np.transpose(a, _ints(attrs.axes)),
    "relax.reshape": lambda a, shape, _: np.reshape(a, shape),
    "relax.broadcast_to": lambda a, shape, _: np.broadcast_to(a, shape),
    "relax.expand_dims": lambda a, attrs: np.expand_dims(a, _ints(attrs.axis) or ()),
    "relax.squeeze": lambda a, attrs: np.squeeze(a, _ints(attrs.axis)),
    "relax.astype": lambda a, attrs: a.astype(str(attrs.dtype)),
    "relax.shape_to_tensor": lambda shape, _: np.asarray(shape, dtype=np.int64),
}


def static_shape(ty: Any) -> tuple[int, ...] | None:
    """The shape of a tensor type as integers, or None where some extent is symbolic."""
    shape = getattr(ty, "shape", None)
    values = getattr(shape, "values", None)
    if values is None or not all(isinstance(v, tvm.tirx.IntImm) for v in values):
        return None
    return tuple(int(v) for v in values)


def shape_of(expr: Any) -> tuple[int, ...]:
    """The shape of a tensor; no extents where it is no tensor, or some extent is symbolic."""
    return static_shape(expr.ty) or ()


def operator_of(expr: Any) -> str:
    """The name of the operator that an expression calls; empty for anything else."""
    return str(getattr(getattr(expr, "op", None), "name", ""))


def constant(expr: Any) -> Array | None:
    """The value of a constant tensor, None for anything else."""
    if isinstance(expr, tvm.ir.GenericConst) and hasattr(expr.value, "numpy"):
        return expr.value.numpy()  # type: ignore[no-any-return]
    return None


def number_of(expr: Any) -> float | None:
    """The value of a constant of one element, None for anything else."""
    value = constant(expr)
    return value.item() if value is not None and value.size == 1 else None


class Bindings:
    """What the variables of a function stand for, as it was when this was made.

    Attributes:
        of: By variable.
        readers: By variable, the variables and values of what reads it, itself or in a tuple; the function's
            own result has no variable.
    """

    def __init__(self, function: Any) -> None:
        self.of = {b.var: b.value for block in function.body.blocks for b in block.bindings}
        self.readers = defaultdict[Any, list[tuple[Any, Any]]](list)
        for variable, value in [*self.of.items(), (None, function.body.body)]:
            if variable is not None and isinstance(value, relax.Tuple):
                continue  # read by what reads the tuple
            for argument in value.args if isinstance(value, relax.Call) else [value]:
                whole = self.of.get(argument, argument) if isinstance(argument, relax.Var) else argument
                for one in whole.fields if isinstance(whole, relax.Tuple) else [argument]:
                    self.readers[one].append((variable, value))

    def own(self, expr: Any, readers: int = 1) -> Any:
        """What a variable stands for that is read so often; None for anything else."""
        if not isinstance(expr, relax.Var) or len(self.readers[expr]) != readers:
            return None
        return self.of.get(expr)


def with_main(module: tvm.IRModule, main: Any) -> tvm.IRModule:
    """The module with another ``main``."""
    others = {g: f for g, f in module.functions.items() if g.name_hint != "main"}
    return tvm.IRModule({**others, "main": main})


def rewritten(mutator: Any, module: tvm.IRModule) -> tvm.IRModule:
    """The module with ``main`` as a mutator made it, and the kernels that it wrote."""
    main = mutator.visit_expr(module["main"])
    changed = mutator.builder_.get()
    changed.update_func(changed.get_global_var("main"), main)
    return changed


@mutator
class _Folder(PyExprMutator):  # type: ignore[misc]
    """Replaces calls whose arguments are all known by their values."""

    def _value(self, expr: Any) -> Array | tuple[int, ...] | int | float | None:
        if isinstance(expr, relax.Var):
            expr = self.lookup_binding(expr)
        if (value := constant(expr)) is not None:
            return value
        if isinstance(expr, tvm.tirx.IntImm | tvm.tirx.FloatImm):
            return expr.value  # type: ignore[no-any-return]
        if isinstance(expr, relax.ShapeExpr):
            values = list(expr.values)
            if all(isinstance(v, tvm.tirx.IntImm) for v in values):
                return tuple(int(v) for v in values)
        return None

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        name = getattr(call.op, "name", None)
        if name == "relax.shape_of":
            shape = static_shape(call.args[0].ty)
            return call if shape is None else relax.ShapeExpr(shape)
        evaluate = NUMPY_OPS.get(name or "")
        if evaluate is None:
            return call
        args = [self._value(a) for a in call.args]
        shape = static_shape(call.ty)
        if any(a is None for a in args) or (shape and np.prod(shape) > _MAX_ELEMENTS):
            return call
        result = np.ascontiguousarray(evaluate(*args, call.attrs))
        if shape is not None:
            result = result.reshape(shape)  # ascontiguousarray makes scalars one-dimensional
        dtype = str(call.ty.dtype)
        return relax.const(result.astype(dtype, copy=False), dtype)


def fold_constants(mod: tvm.IRModule) -> tvm.IRModule:
    """Evaluates what depends on constants only in ``main``, and drops what is then unused."""
    main = _Folder(mod).visit_expr(mod["main"])
    return tidied(with_main(mod, main))


def tidied(module: tvm.IRModule) -> tvm.IRModule:
    """The module without names for names, and without what is not used."""
    passes = [relax.transform.CanonicalizeBindings(), relax.transform.DeadCodeElimination()]
    return tvm.transform.Sequential(passes)(module)
