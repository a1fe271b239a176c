"""Products of matrices and what follows them, without the reshapes around them.

PyTorch makes a matrix of [1, 128, 768] before a linear layer and the old shape of its result; a kernel then
ends at each reshape, though the elements stay where they are. Here such a layer, and attention's products of
[12, 128, 64], work on all dimensions that there were: what follows element by element joins their kernels.
"""

from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from autotune.frontends.fold import constant, operator_of, shape_of, tidied, with_main
from autotune.frontends.geometry import axes_of, moves_nothing
from autotune.frontends.layout import ELEMENTWISE


@mutator
class _Widener(PyExprMutator):  # type: ignore[misc]
    """Notes for a variable whose outer dimensions are merged the tensor that has all; computes with that."""

    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self._wide: dict[Any, Any] = {}

    def visit_dataflow_block_(self, block: Any) -> Any:
        self._wide.clear()  # they are variables of the block before
        return super().visit_dataflow_block_(block)

    def visit_var_binding_(self, binding: Any) -> None:
        call, shape = binding.value, shape_of(binding.value)
        if operator_of(call) == "relax.permute_dims" and moves_nothing(shape_of(call.args[0]), axes_of(call)):
            call = relax.op.reshape(call.args[0], shape)
            binding = relax.VarBinding(binding.var, call)
        wide = self._widened(call, shape) if isinstance(call, relax.Call) and shape else None
        if wide is None:
            super().visit_var_binding_(binding)
            return
        if shape_of(wide) != shape:
            self._wide[binding.var] = wide
            wide = relax.op.reshape(wide, shape)
        super().visit_var_binding_(relax.VarBinding(binding.var, wide))

    def _widened(self, call: Any, shape: tuple[int, ...]) -> Any:
        """The result, of such a shape, with all of its outer dimensions; None where it has them."""
        match name := operator_of(call):
            case "relax.reshape":
                source = self._of(call.args[0])
                return source if _is_merged(shape, shape_of(source)) else None
            case "relax.broadcast_to":
                source = self._of(call.args[0])
                return source if shape_of(call.args[0]) == shape_of(call) else None
            case "relax.matmul":
                return self._product(call, *map(self._of, call.args))
            case _ if name in ELEMENTWISE:
                return self._elementwise(call)
        return None

    def _of(self, expr: Any) -> Any:
        found = self._wide.get(expr) if isinstance(expr, relax.Var) else None
        return self.visit_expr(expr) if found is None else found

    def _product(self, call: Any, left: Any, right: Any) -> Any:
        """Of tensors whose rows stay together, and of a constant matrix or a tensor of as many matrices."""
        if shape_of(left) == shape_of(call.args[0]):
            return None
        pairs = zip((left, right), call.args, strict=True)
        alike = all(shape_of(wide)[-2:] == shape_of(own)[-2:] for wide, own in pairs)
        shared = constant(right) is not None and len(shape_of(right)) == 2
        alike = alike and (shared or shape_of(left)[:-2] == shape_of(right)[:-2])
        return self._emitted(call, [left, right]) if alike else None

    def _elementwise(self, call: Any) -> Any:
        """Of tensors of the same dimensions, and of constants along the innermost one."""
        arguments = [self._of(a) for a in call.args]
        shapes = {shape_of(w) for a, w in zip(call.args, arguments, strict=True) if a in self._wide}
        whole = all(shape_of(a) == shape_of(call) for a in call.args if a in self._wide)
        others = [a for a in call.args if a not in self._wide]
        if len(shapes) != 1 or not whole or not all(_is_flat(a) for a in others):
            return None
        return self._emitted(call, arguments)

    def _emitted(self, call: Any, arguments: list[Any]) -> Any:
        return self.builder_.emit(relax.Call(call.op, arguments, call.attrs, call.ty_args))


def _is_merged(shape: tuple[int, ...], wide: tuple[int, ...]) -> bool:
    """Whether a shape is another with some outer dimensions merged, those of extent 1 wherever they are."""
    fewer, more = ([d for d in outer if d > 1] for outer in (shape[:-1], wide[:-1]))
    merged = len(fewer) < len(more) or fewer == more
    return shape == wide or (merged and len(shape) <= len(wide) and shape[-1:] == wide[-1:])


def _is_flat(argument: Any) -> bool:
    """Whether an argument is no tensor, or one of at most the innermost dimension."""
    return not isinstance(argument.ty, relax.TensorType) or len(shape_of(argument)) <= 1


def widen_products(module: tvm.IRModule) -> tvm.IRModule:
    """Lets products in ``main``, and what follows them, keep the outer dimensions that reshapes merged."""
    main = _Widener(module).visit_expr(module["main"])
    return tidied(with_main(module, main))
